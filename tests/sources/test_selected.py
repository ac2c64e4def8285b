"""Records of a source that are selected by their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.sources.base import read_all
from datamix.sources.objects import as_source
from datamix.sources.selected import Selected, records_of, stepped, where
from datamix.spec import Arrays, LeafSpec, Spec
from datamix.testing import check_source

ARRAYS = {"image": np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1), "label": np.arange(10) % 3}


class Columns:
    """A source without `read`, which remembers of which leaves it was asked."""

    num_records, provenance, class_names = 10, "columns", ("a", "b", "c")
    spec: ClassVar[Spec] = {leaf: LeafSpec(values.shape[1:], str(values.dtype)) for leaf, values in ARRAYS.items()}
    notes = ("text is left out.",)
    num_classes = 3

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        self.asked |= set(out)
        for leaf, rows in out.items():
            rows[...] = ARRAYS[leaf][indices]

    def places(self, indices: np.ndarray) -> list[str]:
        return [f"file:{index}" for index in indices]


def test_it_holds_the_records_that_it_names() -> None:
    some = Selected(Columns(), np.array([7, 0, 3]), "a few.")
    check_source(some)
    np.testing.assert_array_equal(read_all(some)["image"], ARRAYS["image"][[7, 0, 3]])
    assert (some.num_records, some.provenance, some.class_names, some.num_classes) == (3, "columns", ("a", "b", "c"), 3)
    assert some.notes == ("text is left out.", "a few.")
    assert some.places is not None
    assert some.places(np.array([2, 0])) == ["file:3", "file:7"]
    plain = Selected(as_source(ARRAYS), np.array([1]))
    assert (plain.places, plain.notes, plain.num_classes) == (None, (), None)


@pytest.mark.parametrize("source", [Columns(), as_source(ARRAYS), as_source([{"label": i % 3} for i in range(10)])])
def test_a_condition_reads_the_leaves_that_it_names(source: Any) -> None:
    some = where(source, "label == 1", "source.a.where")
    check_source(some)
    assert some.indices.tolist() == [1, 4, 7]
    assert some.note == "where label == 1: 3 of its 10 records take part."


def test_a_condition_reads_no_other_leaf() -> None:
    source = Columns()
    where(source, "label == 1", "source.a.where")
    assert source.asked == {"label"}


def test_a_condition_that_holds_for_none() -> None:
    with pytest.raises(DataError, match=r"^source\.a\.where = 'label > 2'; it holds for none of the 10 records\.$"):
        where(Columns(), "label > 2", "source.a.where")


def test_every_so_many_records() -> None:
    assert stepped(Columns(), [(10, 3)]).indices.tolist() == [0, 3, 6, 9]
    assert stepped(Columns(), [(5, 2), (0, 4), (5, 4)]).indices.tolist() == [0, 2, 4, 5, 9]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_records_of_a_file_in_their_order(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "some.npy", np.array([9, 2, 5], dtype))
    some = records_of(Columns(), str(tmp_path / "some.npy"), "source.a.records")
    assert some.indices.tolist() == [9, 2, 5]
    assert some.note == (
        f"the 3 records of {tmp_path}/some.npy take part, of its 10, in the order that they have there."
    )
    assert records_of(Columns(), np.array([9, 2], dtype), "records").indices.tolist() == [9, 2]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([1, 2, 1, 1], r"record 1 is in it 3 times, and nothing is repeated unasked\. Name each once; record_weight"),
        ([1, 10], r"entry 1 is 10, and the source has the records 0 to 9\."),
        ([-1], r"entry 0 is -1, and the source has"),
        ([], r"it holds float64\[0\], and the numbers of records are whole, in one row\."),
        (np.zeros(0, int), r"it holds no number of a record\."),
        ([0.5], r"it holds float64\[1\], and"),
        ([[1]], r"it holds int64\[1, 1\], and"),
        (np.zeros(10, bool), r"it holds bool\[10\], and .*\. numpy\.flatnonzero makes them of a mask of 10\."),
    ],
)
def test_what_are_no_records(records: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^records\['a'\]: {message}"):
        records_of(Columns(), records, "records['a']")
    np.save(tmp_path / "some.npy", records)
    with pytest.raises(ConfigError, match=rf"^source\.a\.records = '.*some\.npy'; {message}"):
        records_of(Columns(), str(tmp_path / "some.npy"), "source.a.records")


def test_files_that_hold_no_records(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.arange(100))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:200])
    (tmp_path / "head.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:20])
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=np.arange(3))
    for name in ("cut.npy", "head.npy", "empty.npy", "objects.npy", "many.npz"):
        message = rf"^source\.a\.records = '.*/{name}'; it is no \.npy file of numbers, or a damaged one: "
        with pytest.raises(DataError, match=message):
            records_of(Columns(), str(tmp_path / name), "source.a.records")
    for name in ("none.npy", ""):
        with pytest.raises(DataError, match=r"^source\.a\.records = '.*'; there is no such file \(looked for it at /"):
            records_of(Columns(), str(tmp_path / name), "source.a.records")


def test_what_a_source_does_ahead_is_done_for_a_selection() -> None:
    class Prepared(Columns):
        def prepare(self, progress: Any) -> None:
            progress(10, 10)

    done: list[tuple[int, int]] = []
    prepare = Selected(stepped(Prepared(), [(10, 2)]), np.array([1, 0])).prepare
    assert prepare is not None
    prepare(lambda *each: done.append(each))
    assert done == [(10, 10)]
    assert stepped(Columns(), [(10, 2)]).prepare is None
