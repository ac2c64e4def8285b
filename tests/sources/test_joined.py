"""Sources one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.errors import DataError
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import ReadableSource, read_all
from datamix.sources.joined import Joined
from datamix.sources.objects import as_source
from datamix.sources.sliced import sliced
from datamix.testing import check_source

VALUES = np.arange(20).reshape(10, 2)


def parts(*sizes: int) -> Joined:
    ends = np.cumsum(sizes)
    return Joined(
        [
            MemoryArrays({"x": VALUES[end - size : end], "label": VALUES[end - size : end, 0]}, "mine", ("a",) * 20)
            for end, size in zip(ends, sizes, strict=True)
        ]
    )


@given(st.lists(st.integers(0, 9), max_size=30), st.sampled_from([(10,), (3, 7), (0, 4, 0, 5, 1, 0)]))
def test_any_records_in_any_order(indices: list[int], sizes: tuple[int, ...]) -> None:
    out = {"x": np.full((len(indices), 2), -1)}
    parts(*sizes).take(np.array(indices, np.int64), out)
    np.testing.assert_array_equal(out["x"], VALUES[np.array(indices, int)])


def test_it_is_a_source() -> None:
    joined = parts(3, 7)
    check_source(joined)
    assert (joined.num_records, joined.provenance, joined.class_names, joined.notes) == (10, "mine", ("a",) * 20, ())
    assert joined.whole_labels().tolist() == VALUES[:, 0].tolist()


class Unplaced:
    num_records, provenance, class_names, spec = 2, "mine", (), parts(10).spec

    def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
        raise NotImplementedError


class Placed(Unplaced):
    notes = ("left out",)

    def __init__(self, name: str) -> None:
        self.name = name

    def places(self, indices: np.ndarray) -> list[str]:
        return [f"{self.name}[{index}]" for index in indices]


def test_where_records_lie_is_said_by_the_sources() -> None:
    joined = Joined([Placed("a"), Unplaced(), Placed("b")])
    assert joined.places(np.array([5, 2, 0, 4])) == ["b[1]", "", "a[0]", "b[0]"]
    assert joined.notes == ("left out",)
    assert sliced(joined, "train[3:]").places(np.array([1, 2])) == ["b[0]", "b[1]"]
    assert sliced(Unplaced(), "train").places(np.array([1])) == []


def test_records_must_be_alike() -> None:
    with pytest.raises(
        DataError, match=r"^records that are read together are alike, and here are x int64 \[\] and x float"
    ):
        Joined([as_source({"x": np.arange(2)}), as_source({"x": np.zeros(2)})])


def test_a_slice_decodes_its_own_records_alone() -> None:
    asked: list[int] = []

    class Counting:
        num_records, provenance, class_names, spec = 10, "mine", (), parts(10).spec

        def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
            asked.extend(indices.tolist())
            for leaf, values in out.items():
                values[:] = {"x": VALUES, "label": VALUES[:, 0]}[leaf][indices]

    source = sliced(Counting(), "b[1:]+a[:1]", {"a": 3, "b": 7})
    assert isinstance(source, ReadableSource)
    assert read_all(source)["label"].tolist() == [8, 10, 12, 14, 16, 18, 0]
    assert asked == [4, 5, 6, 7, 8, 9, 0]
