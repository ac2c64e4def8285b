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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from datamix.errors import expanded
from datamix.spec import Arrays, LeafSpec

FORMAT = 1
"""The version of what an entry holds; an entry of another version is made again."""
_META = "meta.json"
_LONGEST = 100  # characters of a name; that of a file may have 255 bytes, some of which are for the rest
_log = logging.getLogger(__name__)


def cache_directory(path: str | None) -> Path:
    """The cache at a path, or the default one."""
    return expanded(path) if path else default_cache_dir()


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/datamix`, or `~/.cache/datamix`."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "datamix"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The content of a place.

    Attributes:
      arrays: Leaf name to array, shape [num_records, *leaf shape]; memory-mapped, or in memory where the disk refused.
      info: What `build` said about the arrays, in JSON.
    """

    arrays: Arrays
    info: Mapping[str, Any]


Build = Callable[[], tuple[Arrays, Mapping[str, Any]]]
"""Makes the arrays and what is to be kept with them (JSON)."""


class _UnusableError(Exception):
    """Why an entry cannot be used; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place in the cache: `<cache_dir>/<name>-<digest of key>/`, with a meta.json and one .npy file a leaf.

    Attributes:
      cache_dir: The directory of all entries; it is made when it is first written to.
      name: A name for people who list the directory.
      key: JSON; what is kept. Another key is another entry.
      fingerprint: JSON; the state of what the arrays are made from. Another fingerprint makes the entry stale.
      checked: Whether opening an entry checks all of its arrays, which reads them, and not their size alone.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as cache_dir:
    ...     place = Place(cache_dir=Path(cache_dir), name="squares", key={"count": 3}, fingerprint={})
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
        """The entry's directory, whether it is there or not."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:16]
        return self.cache_dir / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)[:_LONGEST]}-{digest}"

    def peek(self) -> tuple[dict[str, LeafSpec], Mapping[str, Any]] | None:
        """Spec and info of a fresh entry, without reading its arrays; None where there is none."""
        try:
            meta = self._meta()
        except _UnusableError:
            return None
        spec = {leaf: LeafSpec(tuple(of["shape"][1:]), of["dtype"]) for leaf, of in meta["leaves"].items()}
        return spec, meta["info"]

    def load(self, build: Build) -> Entry:
        """The entry, built first where it is not there, stale or damaged.

        One process builds; others that ask for the same entry wait and then map it. Where the disk is full or may not
        be written to, the arrays stay in memory and a warning is logged.
        """
        with contextlib.suppress(_UnusableError):
            return self._open()
        with contextlib.ExitStack() as stack:
            try:
                self.cache_dir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(self._locked())
            except OSError as error:
                return self._in_memory(*build(), error)
            try:
                return self._open()  # Another process may have built it while this one waited.
            except _UnusableError as unusable:
                if str(unusable):
                    _log.warning("cache entry %s %s; it is made again.", self.path, unusable)
            arrays, info = build()
            try:
                self._write(arrays, info)
            except OSError as error:
                return self._in_memory(arrays, info, error)
            return self._open()

    def _in_memory(self, arrays: Arrays, info: Mapping[str, Any], error: OSError) -> Entry:
        _log.warning("cannot keep %s in the cache, so it stays in memory for this run: %s", self.path, error)
        return Entry(arrays=arrays, info=info)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(f"{self.path}.lock", mode=0o666)  # another user may build it as well
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.info("waiting for another process that makes %s", self.path)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

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
        if meta["format"] != FORMAT:
            raise _UnusableError(f"has format {meta['format']}, not {FORMAT}")
        if meta["fingerprint"] != self.fingerprint:
            raise _UnusableError("does not match its source any more")
        return meta

    def _open(self) -> Entry:
        meta = self._meta()
        arrays = {}
        for leaf, of in meta["leaves"].items():
            path = self.path / of["file"]
            try:
                if path.stat().st_size != of["num_bytes"] or (self.checked and _checksum(path) != of["crc32"]):
                    raise _UnusableError(f"is damaged ({path.name})")
                arrays[leaf] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise _UnusableError(f"is damaged ({error})") from error
        return Entry(arrays=arrays, info=meta["info"])

    def _write(self, arrays: Arrays, info: Mapping[str, Any]) -> None:
        for left_over in self.cache_dir.glob(f"{self.path.name}.*.tmp"):  # of a process that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        # As the umask has it: what `tempfile` makes, no other user can read.
        temporary = self.cache_dir / f"{self.path.name}.{secrets.token_hex(4)}.tmp"
        temporary.mkdir()
        try:
            leaves = {}
            for index, (leaf, array) in enumerate(arrays.items()):
                path = temporary / f"{index}.npy"
                np.save(path, array, allow_pickle=False)
                _sync(path)
                leaves[leaf] = {
                    "file": path.name,
                    "shape": list(array.shape),
                    "dtype": str(array.dtype),
                    "num_bytes": path.stat().st_size,
                    "crc32": _checksum(path),
                }
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
