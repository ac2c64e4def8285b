"""Python objects as sources."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.errors import ConfigError, DataError
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import ReadableSource, Source, read_all
from datamix.sources.objects import as_source
from datamix.spec import Arrays, LeafSpec
from datamix.testing import check_source

IMAGES = np.arange(7 * 2 * 2, dtype=np.uint8).reshape(7, 2, 2, 1)


class Dataset:
    """A dataset as torch has it."""

    def __init__(self, record: Callable[[int], Any], size: int = 7) -> None:
        self.record, self.size = record, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        assert type(index) is int
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.record(index)


class Blocks(Dataset):
    """A dataset that gives several records at once."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.record(index) for index in indices]

    def __getitem__(self, index: int) -> Any:
        assert index == 0, "asked for one by one"
        return super().__getitem__(index)


class Filling(Dataset):
    """A dataset that fills arrays."""

    def __getitem__(self, index: int) -> Any:
        assert index == 0, "asked for one by one"
        return super().__getitem__(index)

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        out["image"][:] = IMAGES[indices]
        out["label"][:] = indices


class Sliced(Dataset):
    """A dataset whose `take` is that of other libraries: its first records."""

    def take(self, n: int) -> Sliced:
        return Sliced(self.record, n)


def as_dict(index: int) -> dict[str, Any]:
    return {"image": IMAGES[index], "label": index}


Named = namedtuple("Named", ["image", "label"])


@pytest.mark.parametrize(
    "data",
    [
        [as_dict(i) for i in range(7)],
        tuple((IMAGES[i], i) for i in range(7)),
        [[IMAGES[i].tolist(), i] for i in range(7)],
        [Named(IMAGES[i], i) for i in range(7)],
        Dataset(as_dict),
        Dataset(lambda i: (IMAGES[i], np.int64(i))),
        Blocks(as_dict),
        Filling(as_dict),
        Sliced(as_dict),
    ],
    ids=["dicts", "pairs", "lists", "named", "dataset", "dataset-of-pairs", "blocks", "filling", "other-take"],
)
def test_records_by_their_number(data: Any) -> None:
    source = as_source(data)
    assert (source.num_records, source.class_names, source.provenance) == (7, (), "objects")
    assert source.spec["label"] == LeafSpec((), "int64")
    assert source.spec["image"].shape == (2, 2, 1)
    arrays = read_all(source)
    np.testing.assert_array_equal(arrays["image"], IMAGES)
    np.testing.assert_array_equal(arrays["label"], np.arange(7))
    check_source(data)


@given(st.lists(st.integers(0, 6), max_size=20))
def test_any_records_in_any_order(indices: list[int]) -> None:
    source = as_source(Dataset(as_dict))
    out = {"image": np.zeros((len(indices), 2, 2, 1), np.uint8), "label": np.zeros(len(indices), np.int64)}
    source.take(np.array(indices, np.int64), out)
    assert out["label"].tolist() == indices
    np.testing.assert_array_equal(out["image"], IMAGES[np.array(indices, int)])


def test_python_numbers_are_what_numpy_makes_of_them() -> None:
    spec = as_source([{"i": 1, "f": 0.5, "b": True, "v": [1, 2], "n": np.float16(3)}]).spec
    assert {leaf: str(part) for leaf, part in spec.items()} == {
        "i": "int64 []", "f": "float64 []", "b": "bool []", "v": "int64 [2]", "n": "float16 []",
    }  # fmt: skip


def test_arrays_by_leaf_and_sources_stay_what_they_are() -> None:
    source = as_source({"label": [1, 2, 3]})
    assert isinstance(source, MemoryArrays)
    assert (source.provenance, source.read()["label"].tolist()) == ("arrays", [1, 2, 3])
    assert as_source(source) is source
    assert as_source({"label": [1]}, "mine").provenance == "mine"


def test_a_source_that_only_reads() -> None:
    class Reads:
        num_records = 3
        spec = {"label": LeafSpec((), "int64")}  # noqa: RUF012

        def read(self) -> Arrays:
            return {"label": np.array([5, 6, 7])}

    source = as_source(Reads(), "mine")
    assert isinstance(source, ReadableSource)
    assert (source.provenance, source.class_names, source.num_records) == ("mine", (), 3)
    check_source(Reads())


def test_a_source_that_only_takes() -> None:
    class Takes:
        num_records = 3
        spec = {"label": LeafSpec((), "int64")}  # noqa: RUF012
        class_names = ("a", "b", "c")

        def take(self, indices: np.ndarray, out: Arrays) -> None:
            out["label"][:] = indices

    source = as_source(Takes())
    assert isinstance(source, Source)
    assert not isinstance(source, ReadableSource)
    assert (source.provenance, source.class_names) == ("objects", ("a", "b", "c"))
    check_source(Takes())


def test_no_records() -> None:
    source = as_source([])
    assert (source.num_records, dict(source.spec)) == (0, {})


def generator() -> Iterator[dict[str, int]]:
    yield {"label": 1}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            generator(),
            ConfigError,
            r"^generator is no source: .* in order alone, .*; list\(…\) makes a source",
        ),
        (iter([1]), ConfigError, r"list_iterator is no source: it gives its records in order alone"),
        (3, ConfigError, r"^int is no source; it needs len\(\), and \[i\] that gives record i\.$"),
        (None, ConfigError, r"^NoneType is no source"),
        ("mnist", ConfigError, r"^text is no source; datasets by name are for datamix\.load"),
        (np.zeros((3, 2)), ConfigError, r"^ndarray alone is no source; give arrays by leaf"),
        (
            Dataset({}.__getitem__),
            ConfigError,
            r"^Dataset is no source: its \[0\] raises KeyError: 0; ",
        ),
        ([{"text": "a"}], DataError, r"^leaf 'text' of record 0 is text; .* leave it out, or turn it into numbers\.$"),
        ([{"x": b"a"}], DataError, r"^leaf 'x' of record 0 is bytes; "),
        ([{"x": None}], DataError, r"^leaf 'x' of record 0 is None; "),
        ([{"x": {"y": 1}}], DataError, r"^leaf 'x' of record 0 is a dict; "),
        ([{"x": object()}], DataError, r"^leaf 'x' of record 0 is object; "),
        ([{"x": [[1], [2, 3]]}], DataError, r"^leaf 'x' of record 0 is a list, and no array: "),
        ([3], DataError, r"^record 0 is int; a record is a dict .* or a pair \(image, label\)\.$"),
        ([(1, 2, 3)], DataError, r"^record 0 is a tuple of 3; a record is a dict"),
        (["ab"], DataError, r"^record 0 is text; a record is a dict"),
        ({"x": ["a"]}, DataError, r"^leaf 'x' is <U1; .* leave it out, or turn it into numbers\.$"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, DataError, r"the same length along their first axis"),
    ],
)
def test_what_is_no_source(data: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = as_source(data).spec


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"x": [1, 2, 3]}, r"^leaf 'x' of record 1 is int64 \[3\], but that of record 0 is int64 \[2\]; make all"),
        ({"x": [1.0, 2.0]}, r"^leaf 'x' of record 1 is float64 \[2\], but that of record 0 is int64 \[2\]"),
        ({"y": [1, 2]}, r"^record 1 has the leaves \['y'\], but record 0 has \['x'\]"),
        ({"x": [1, 2], "y": 1}, r"^record 1 has the leaves \['x', 'y'\], but record 0 has \['x'\]"),
        ({"x": None}, r"^leaf 'x' of record 1 is None"),
    ],
)
def test_a_record_that_differs_is_named(second: dict[str, Any], message: str) -> None:
    source = as_source([{"x": [1, 2]}, second])
    with pytest.raises(DataError, match=message):
        read_all(source)


def test_fewer_records_than_were_asked_for() -> None:
    class Short(Blocks):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            return super().__getitems__(indices[1:])

    with pytest.raises(DataError, match=r"^__getitems__ gives 6 records for 7 indices\.$"):
        read_all(as_source(Short(as_dict)))
