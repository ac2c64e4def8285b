"""Arrays kept on disk between runs: memory-mapped, written whole or not at all, checked on reading."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib import format as npy

from datamix.errors import expanded
from datamix.spec import Arrays, LeafSpec

FORMAT = 2
"""The version of the content of entries; entries of other versions have other names, and are left alone."""
_META = "meta.json"
# How the names of entries end, of the remains of an interrupted write, and of locks.
_ENDING = re.compile(r"-[0-9a-f]{16}(?P<more>\.[0-9a-f]{8}\.tmp|\.lock)?$")
_LONGEST = 100  # characters of a name; file names may have 255 bytes, some of which the digest and endings need
_log = logging.getLogger(__name__)


def cache_directory(path: str | None) -> Path:
    """The directory of the cache: `path`, by default `$XDG_CACHE_HOME/datamix`, else `~/.cache/datamix`."""
    return expanded(path) if path else expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "datamix"


def is_of_cache(path: Path) -> bool:
    """Whether the cache has made this file or folder, in whatever directory."""
    match = _ENDING.search(path.name)
    return match is not None and (match["more"] is not None or (path / _META).is_file())


def stamp(status: os.stat_result) -> list[int]:
    """What changes when a file is written again: its size in bytes, its modification time in ns, and its inode."""
    return [status.st_size, status.st_mtime_ns, status.st_ino]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The content of an entry of the cache.

    Attributes:
      arrays: Leaf name to array, shape [num_records, *leaf shape]; memory-mapped, or in memory if writing failed.
      info: What `build` returned beside the arrays, as JSON.
    """

    arrays: Arrays
    info: Mapping[str, Any]


Build = Callable[[], tuple[Arrays, Mapping[str, Any]]]
"""Makes the arrays, and the info to store with them (JSON)."""
Chunks = Generator[Arrays, None, Mapping[str, Any]]
"""The same chunk by chunk: yields the next records of every leaf, and returns the info to store with them."""


class _UnusableError(Exception):
    """Raised when an entry cannot be used; the text says why, and is empty if there is no entry."""


@dataclass(frozen=True, kw_only=True)
class CachePlace:
    """One place in the cache: `<cache_dir>/<name>-<digest of key>/`, with a meta.json and one .npy file per leaf.

    Attributes:
      cache_dir: The directory of all entries; it is made when it is first written to.
      name: A name for people who list the directory.
      key: JSON that identifies the content; another key is another entry.
      fingerprint: JSON that tells the state of the data behind the arrays; another fingerprint makes the entry stale.
      checked: Whether opening an entry checks the content of its arrays, which reads them all, or only their sizes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as cache_dir:
    ...     place = CachePlace(cache_dir=Path(cache_dir), name="squares", key={"count": 3}, fingerprint={})
    ...     entry = place.load(lambda: ({"square": np.arange(3) ** 2}, {"unit": "m"}))
    ...     print(entry.arrays["square"], place.peek())
    [0 1 4] ({'square': LeafSpec(shape=(), dtype='int64')}, {'unit': 'm'})
    """

    cache_dir: Path
    name: str
    key: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    checked: bool = True

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps([FORMAT, self.key], sort_keys=True).encode()).hexdigest()[:16]
        return self.cache_dir / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)[:_LONGEST]}-{digest}"

    def peek(self) -> tuple[dict[str, LeafSpec], Mapping[str, Any]] | None:
        """The spec and info of an entry that is not stale, without reading its arrays; None if there is none."""
        try:
            meta = self._meta()
        except _UnusableError:
            return None
        leaves = meta["leaves"].items()
        spec = {leaf: LeafSpec(tuple(described["shape"][1:]), described["dtype"]) for leaf, described in leaves}
        return spec, meta["info"]

    def load(self, build: Build) -> Entry:
        """Open the entry; if it is missing, stale or damaged, build it first.

        One process builds; others that need the same entry wait and then map it. If the disk is full or not writable,
        the arrays stay in memory and a warning is logged.
        """
        built: list[tuple[Arrays, Mapping[str, Any]]] = []
        begun = False

        def one_chunk() -> Chunks:
            nonlocal begun
            begun = True
            built.append(build())
            arrays, info = built[0]
            yield arrays
            return info

        try:
            return self.stream(one_chunk)
        except OSError as error:
            if begun and not built:  # reading the source failed, not writing the cache
                raise
            arrays, info = built[0] if built else build()
            _log.warning("cannot keep %s in the cache, so it stays in memory for this run: %s", self.path, error)
            return Entry(arrays=arrays, info=info)

    def stream(self, chunks: Callable[[], Chunks]) -> Entry:
        """Open the entry; if needed, write it first chunk by chunk, so that memory holds one chunk at a time.

        Raises:
          OSError: The entry cannot be written.
        """
        with contextlib.suppress(_UnusableError):
            return self._open()
        with locked(self.path):
            try:
                return self._open()  # another process has built it while this one waited
            except _UnusableError as unusable:
                if str(unusable):
                    _log.warning("cache entry %s %s; it is made again.", self.path, unusable)
            self._write(chunks())
            return self._open()

    def _meta(self) -> dict[str, Any]:
        try:
            meta: dict[str, Any] = json.loads((self.path / _META).read_bytes())
            whole = meta.pop("crc32") == _checksum_of(meta)
        except OSError as error:
            raise _UnusableError(f"cannot be read ({error.strerror})" if self.path.exists() else "") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise _UnusableError(f"is damaged ({_META})")
        if meta["fingerprint"] != self.fingerprint:
            raise _UnusableError("does not match its source any more")
        return meta

    def _open(self) -> Entry:
        meta = self._meta()
        arrays = {}
        for leaf, described in meta["leaves"].items():
            path, num_bytes = self.path / described["file"], described["num_bytes"]
            try:
                if path.stat().st_size != num_bytes or (self.checked and _checksum(path) != described["crc32"]):
                    raise _UnusableError(f"is damaged ({path.name})")
                arrays[leaf] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise _UnusableError(f"is damaged ({error})") from error
        return Entry(arrays=arrays, info=meta["info"])

    def _write(self, chunks: Chunks) -> None:
        for left_over in self.cache_dir.glob(f"{self.path.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        # Its permissions follow the umask, whereas no other user could read what `tempfile` makes.
        temporary = self.cache_dir / f"{self.path.name}.{secrets.token_hex(4)}.tmp"
        temporary.mkdir()
        try:
            files, info = _append_all(chunks, temporary)
            leaves = {}
            for leaf, file in files.items():
                _sync(file.path)
                num_bytes, crc32 = file.path.stat().st_size, _checksum(file.path)
                described = {"file": file.path.name, "shape": list(file.shape), "dtype": str(file.dtype)}
                leaves[leaf] = described | {"num_bytes": num_bytes, "crc32": crc32}
            meta = {"format": FORMAT, "key": self.key, "fingerprint": self.fingerprint, "info": info, "leaves": leaves}
            (temporary / _META).write_text(json.dumps(meta | {"crc32": _checksum_of(meta)}, indent=1))
            _sync(temporary / _META)
            _sync(temporary)
            if self.path.exists():
                shutil.rmtree(self.path)
            temporary.replace(self.path)
            _sync(self.cache_dir)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes, including those of other users, from writing to a path of the cache meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", mode=0o666)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _log.info("waiting for another process that makes %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _GrowingArray:
    """An `.npy` file to which records like the given ones are appended; its header has room for any number of them."""

    def __init__(self, path: Path, like: np.ndarray) -> None:
        if like.dtype.hasobject:
            raise ValueError("Object arrays cannot be saved, as they would have to be pickled.")
        self.path, self.shape, self.dtype = path, (0, *like.shape[1:]), like.dtype
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self.shape = (self.shape[0] + len(values), *self.shape[1:])

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        header = {"shape": self.shape, "fortran_order": False, "descr": npy.dtype_to_descr(self.dtype)}
        npy.write_array_header_1_0(self._file, header)


def _append_all(chunks: Chunks, directory: Path) -> tuple[dict[str, _GrowingArray], Mapping[str, Any]]:
    """Write chunks to files; returns the file of each leaf, and the info to store with them."""
    files: dict[str, _GrowingArray] = {}
    with contextlib.ExitStack() as stack:
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as end:
                return files, end.value
            for leaf, values in chunk.items():
                if leaf not in files:
                    files[leaf] = _GrowingArray(directory / f"{len(files)}.npy", values)
                    stack.callback(files[leaf].close)
                files[leaf].append(values)


def _checksum_of(meta: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _checksum(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
