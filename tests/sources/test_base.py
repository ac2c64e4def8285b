"""The contract of a source, and what helps to keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import (
    ReadableSource,
    Source,
    TakeFromRead,
    chunks_of,
    read_all,
    read_leaf,
    reads_whole,
    take_rows,
)
from datamix.sources.sliced import sliced
from datamix.spec import Arrays, LeafSpec, Spec


class Squares:
    """A source that has `take` alone, and remembers what it was asked for."""

    provenance, class_names = "squares", ()
    spec: ClassVar[Spec] = {"square": LeafSpec((), "int64"), "pair": LeafSpec((2,), "float32")}

    def __init__(self, num_records: int) -> None:
        self.num_records = num_records
        self.asked: list[np.ndarray] = []

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        self.asked.append(indices)
        out["square"][:] = indices**2
        out["pair"][:] = np.stack([indices, -indices], axis=1)


def test_read_is_optional() -> None:
    assert isinstance(Squares(3), Source)
    assert not isinstance(Squares(3), ReadableSource)
    assert isinstance(MemoryArrays({"x": np.zeros(1)}), ReadableSource)


@pytest.mark.parametrize("size", [0, 1, 1024, 2500])
def test_a_source_without_read_is_read_in_blocks(size: int) -> None:
    source = Squares(size)
    arrays = read_all(source)
    np.testing.assert_array_equal(arrays["square"], np.arange(size) ** 2)
    assert (arrays["pair"].shape, arrays["pair"].dtype) == ((size, 2), np.float32)
    assert sum(len(indices) for indices in source.asked) == size
    assert max((len(indices) for indices in source.asked), default=0) <= 1024


def test_the_first_records_are_read_alone() -> None:
    source = Squares(5000)
    assert read_all(source, 3)["square"].tolist() == [0, 1, 4]
    assert sum(len(indices) for indices in source.asked) == 3
    assert read_all(MemoryArrays({"x": np.arange(9)}), 2)["x"].tolist() == [0, 1]


def test_what_was_read_once_is_taken_from() -> None:
    class Counted(TakeFromRead):
        reads = 0

        def read(self) -> Mapping[str, np.ndarray]:  # type: ignore[override]
            self.reads += 1
            return {"x": np.arange(10, 16)}

    source = Counted()
    for indices in ([5, 0, 5], [], [3]):
        out = {"x": np.zeros(len(indices), np.int64)}
        source.take(np.array(indices, np.int64), out)
        assert out["x"].tolist() == [10 + i for i in indices]
    assert source.reads == 1
    assert source.in_memory["x"].tolist() == [*range(10, 16)]


def test_what_lies_in_memory() -> None:
    class Own(MemoryArrays):
        def take(self, indices: np.ndarray, out: Arrays) -> None:
            raise AssertionError

    values = {"x": np.arange(9)}
    assert MemoryArrays(values).in_memory is values
    assert Own(values).in_memory == {}
    assert sliced(MemoryArrays(values), "train[2:4]").in_memory["x"].tolist() == [2, 3]
    assert sliced(MemoryArrays(values), "train[2:4]+train[6:]").in_memory == {}
    assert sliced(Squares(9), "train[2:4]").in_memory == {}


@pytest.mark.parametrize("indices", [[3], [-1], [0, 7]])
def test_records_that_are_not_there(indices: list[int]) -> None:
    with pytest.raises(IndexError, match="are asked for, of 3"):
        take_rows({"x": np.arange(3)}, np.array(indices), {"x": np.zeros(len(indices), np.int64)})


@pytest.mark.parametrize("size", [0, 1, 2500])
def test_one_leaf_of_all_records(size: int) -> None:
    source = Squares(size)
    assert read_leaf(source, "square").tolist() == [number**2 for number in range(size)]
    assert reads_whole(source) is False
    assert [start for start, _ in chunks_of(source)] == list(range(0, size, 1024))
    memory = MemoryArrays({"x": np.arange(9)})
    assert reads_whole(memory) is True
    assert read_leaf(memory, "x", 2).tolist() == [0, 1]
    assert [(start, chunk["x"].tolist()) for start, chunk in chunks_of(memory, 3)] == [(0, [0, 1, 2])]


def test_a_part_of_a_source_that_is_read_in_blocks_is_one_itself() -> None:
    part = sliced(Squares(2500), "train[2000:]")
    assert reads_whole(part) is False
    assert read_leaf(part, "square")[0] == 2000**2
    assert reads_whole(sliced(MemoryArrays({"x": np.arange(9)}), "train[2:]")) is True


@pytest.mark.parametrize("size", [0, 1, 2500])
def test_one_leaf_is_read_alone_where_the_source_can(size: int) -> None:
    class Columns(Squares):
        def take(self, indices: np.ndarray, out: Arrays) -> None:
            assert list(out) == ["square"]
            out["square"][:] = indices**2

    for source in (Squares(size), Columns(size)):
        np.testing.assert_array_equal(read_leaf(source, "square"), np.arange(size) ** 2)
        assert read_leaf(source, "square", min(size, 1)).tolist() == [0][:size]
    in_memory = MemoryArrays({"x": np.arange(4), "y": np.zeros(4)})
    assert read_leaf(in_memory, "x", 2).tolist() == [0, 1]


def test_a_key_error_that_is_not_about_leaves_stays_one() -> None:
    class Broken(Squares):
        def take(self, indices: np.ndarray, out: Arrays) -> None:
            raise KeyError("file")

    with pytest.raises(KeyError, match="file"):
        read_leaf(Broken(3), "square")
