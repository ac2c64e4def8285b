"""Mapped files: noticed when cut short, and let go of."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from datamix.errors import DataError
from datamix.sources import mapped
from datamix.sources.base import take_rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(2**20, dtype=np.uint8).reshape(-1, 2**10))
    return path


def test_the_mapping_of_an_array(file: Path) -> None:
    array = np.load(file, mmap_mode="r")
    mapping = mapped.mapping_of(array)
    assert mapping is not None
    assert mapped.mapping_of(np.asarray(array)[3:, ::2]) is mapping
    assert mapped.mapping_of(np.zeros(3)) is None


def test_a_file_that_is_cut_short_is_an_error_and_no_crash(file: Path) -> None:
    array = np.load(file, mmap_mode="r")
    out = {"x": np.zeros((2, 2**10), np.uint8)}
    take_rows({"x": array}, np.array([1000, 3]), out)
    os.truncate(file, 2**19)
    with pytest.raises(DataError, match=rf"^{file} has been cut short to 524,288 of 1,048,704 bytes since it was open"):
        take_rows({"x": array}, np.array([1000, 3]), out)


def test_pages_are_let_go_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "KEPT_BYTES", 2**18)
    array = np.load(file, mmap_mode="r")
    out = {"x": np.zeros((500, 2**10), np.uint8)}
    for _ in range(3):
        indices = np.random.default_rng(0).integers(0, 2**10, 500)
        take_rows({"x": array}, indices, out)
        np.testing.assert_array_equal(out["x"], array[indices])
    take_rows({"x": array}, np.arange(500), out)  # one after the other again
    np.testing.assert_array_equal(out["x"], array[:500])


def test_mapped_arrays_are_pickled_as_their_place_in_the_file(file: Path, tmp_path: Path) -> None:
    array = np.load(file, mmap_mode="r")
    raw = np.memmap(tmp_path / "raw.bin", np.float32, "w+", offset=20000, shape=(500, 3))
    raw[:] = np.arange(1500).reshape(500, 3)
    raw.flush()
    parts = {"whole": array, "backwards": array[900:10:-7, ::3], "pair": (raw, raw[3:, 1:])}
    text = pickle.dumps(mapped.by_reference(parts))
    assert len(text) < 2000
    again = pickle.loads(text)
    for name in ("whole", "backwards"):
        np.testing.assert_array_equal(again[name], parts[name])
    for part, expected in zip(again["pair"], parts["pair"], strict=True):
        np.testing.assert_array_equal(part, expected)
    assert mapped.mapping_of(again["backwards"]) is not None
    assert len(pickle.dumps(array)) > 2**20  # nobody else's arrays are pickled otherwise


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which file lies where in memory")
def test_arrays_in_shared_memory_are_pickled_as_their_place_there() -> None:
    memory = SharedMemory(create=True, size=2**20)
    try:
        array = np.ndarray((2**16, 4), np.float32, memory.buf)
        array[:] = np.arange(2**18).reshape(-1, 4)
        text = pickle.dumps(mapped.by_reference({"x": array, "y": array[5:, 1]}))
        assert len(text) < 2000
        again = pickle.loads(text)
        np.testing.assert_array_equal(again["x"], array)
        np.testing.assert_array_equal(again["y"], array[5:, 1])
        array[7] = -1
        assert again["x"][7].tolist() == [-1] * 4
        del array
    finally:
        with contextlib.suppress(BufferError):
            memory.close()
        memory.unlink()


def test_a_mapping_of_its_own_is_pickled_by_value(file: Path) -> None:
    own = np.asarray(np.load(file, mmap_mode="c"))
    own[0] = 7
    again = pickle.loads(pickle.dumps(mapped.by_reference(own)))
    np.testing.assert_array_equal(again, own)


def test_what_is_in_no_file_is_pickled_whole(file: Path) -> None:
    own = np.load(file, mmap_mode="c")
    own[0] = 7
    for values in (own, np.load(file, mmap_mode="r")[[3, 1]], np.arange(5), [1, 2]):
        assert mapped.by_reference(values) is values
