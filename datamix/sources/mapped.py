"""Files that are mapped into memory: pages that were read are released, and truncated files are noticed."""

from __future__ import annotations

import contextlib
import mmap
import threading
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from datamix.errors import DataError

KEPT_BYTES = 64 * 2**20  # read from all files together before the pages of the current one are released
_AROUND_BYTES = 2**16  # mapped around a page at its first use, if the system has them in memory
_SPARSE = 8  # at most one row in so many is read: reading 128 KiB around each, as usual, would take 100 times as long
_touched: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()
_is_sparse: WeakKeyDictionary[mmap.mmap, bool] = WeakKeyDictionary()
_lock = threading.Lock()


def mapping_of(values: np.ndarray) -> mmap.mmap | None:
    """The mapping that an array is a view of; None if it has its own memory."""
    base: object = values
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) else None


def before_read(values: np.ndarray, num_rows: int, span: int) -> None:
    """Check that the file of a mapped array is not truncated, and tell the system how it will be read.

    Reading beyond the end of a truncated file would kill the process.

    Args:
      values: The array, or a view of it; one that is not mapped is ignored.
      num_rows: The number of rows that will be read.
      span: The number of rows from the first of them to the last.

    Raises:
      DataError: The file was truncated after it was opened.
    """
    mapping = mapping_of(values)
    if mapping is None:
        return
    if (size := mapping.size()) < len(mapping):
        name = _file_of(values) or "a mapped file"
        raise DataError(f"{name} has been cut short to {size:,} of {len(mapping):,} bytes since it was opened.")
    is_sparse = span >= _SPARSE * num_rows
    if _is_sparse.get(mapping, False) != is_sparse and hasattr(mapping, "madvise"):
        _is_sparse[mapping] = is_sparse
        mapping.madvise(mmap.MADV_RANDOM if is_sparse else mmap.MADV_NORMAL)


def after_read(values: np.ndarray, num_rows: int) -> None:
    """Count rows of a mapped array as read, and release its pages once there are many.

    Until then, the pages count as memory of the process. The system still keeps them in its own cache.
    """
    mapping = mapping_of(values)
    if mapping is None:
        return
    touched = num_rows * (values[:1].nbytes + _AROUND_BYTES)
    with _lock:
        _touched[mapping] = min(_touched.get(mapping, 0) + touched, len(mapping))
        if sum(_touched.values()) <= KEPT_BYTES:
            return
        _touched[mapping] = 0
    if hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)


def by_reference(data: Any) -> Any:
    """The same data, in which arrays in mapped files or shared memory are pickled as references to these."""
    if type(data) is np.memmap and data.mode in ("r", "r+", "w+"):  # a copy of some rows has no mode
        return data.view(_Mapped)
    if type(data) is np.ndarray and mapping_of(data) is not None:
        return data.view(_Shared)
    if isinstance(data, dict):
        return {name: by_reference(part) for name, part in data.items()}
    return tuple(map(by_reference, data)) if type(data) is tuple else data


class _Mapped(np.memmap[Any, Any]):
    def __reduce_ex__(self, protocol: Any) -> Any:
        mapping: Any = mapping_of(self)
        begin = self.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
        begin += self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        return _mapped, (str(self.filename), begin, self.shape, self.dtype, self.strides)


class _Shared(np.ndarray[Any, Any]):
    def __reduce_ex__(self, protocol: Any) -> Any:
        address = self.ctypes.data
        with contextlib.suppress(OSError):  # only Linux says which file is mapped where
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, flags, offset, _, _, *path = line.split(maxsplit=5)
                begin, end = (int(part, 16) for part in span.split("-"))
                if begin <= address < end and flags[3] == "s" and path and Path(path[0]).is_file():
                    return _mapped, (path[0], address - begin + int(offset, 16), self.shape, self.dtype, self.strides)
        return super().__reduce_ex__(protocol)


def _mapped(path: str, begin: int, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...]) -> np.ndarray:
    return np.ndarray(shape, dtype, np.memmap(path, np.uint8, "r"), begin, strides)


def _file_of(values: np.ndarray) -> str:
    base: object = values
    while isinstance(base, np.ndarray):
        if name := getattr(base, "filename", None):
            return str(name)
        base = base.base
    return ""
