"""Streams of records, which can only be iterated in order, written into the cache so that any record can be read."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError, ResourceError, of_source
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import taken
from datamix.sources.cache import CachePlace, Chunks, cache_directory
from datamix.sources.objects import Objects
from datamix.sources.statistics import LeafStatistics, from_json, to_json

_CHUNK_RECORDS = 256


@dataclass(frozen=True)
class Prepared(MemoryArrays):
    """Records of a stream, memory-mapped from the cache."""

    path: Path = Path()
    notes: tuple[str, ...] = ()
    kept: Mapping[str, LeafStatistics] = field(default_factory=dict)

    def statistics(self) -> Mapping[str, LeafStatistics]:
        return self.kept

    def places(self, indices: np.ndarray) -> list[str]:
        return [f"{self.path}, row {index}" for index in indices.tolist()]


def prepare(name: str, records: Iterable[Any], *, limit: int, directory: str | Path | None = None) -> Prepared:
    """Write the records of a stream into the cache, once, and return them as a source for `mix` and `load`.

    A mix reads records by their numbers, and a stream yields them only in order. Memory holds a few hundred records at
    a time. Records that the cache already holds under the same name and limit are used again, and `notes` says so; an
    interrupted write starts anew.

    Args:
      name: The name of the records in the cache.
      records: Any iterable of records as `datamix.mix` takes them: dicts of numbers and arrays, pairs (image, label).
        It is not iterated if the cache holds its records.
      limit: The largest number of records to write.
      directory: The directory of the cache; by default `$XDG_CACHE_HOME/datamix`, else `~/.cache/datamix`.

    Raises:
      ConfigError: `name` is no text, `limit` is no number of records, or `records` cannot be iterated.
      DataError: There is no record, or the records differ in leaves, shapes or types.
      ResourceError: The cache cannot be written.

    >>> import tempfile
    >>> squares = ({"x": np.float32(i), "label": i * i} for i in range(1_000_000))
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     source = prepare("squares", squares, limit=4, directory=cache)
    ...     print(source.num_records, source.read()["label"], source.notes)
    4 [0 1 4 9] ('the stream holds more than the 4 records that limit allows; the others are left out.',)
    """
    if not isinstance(name, str) or not name:
        raise ConfigError("it is the name of the records in the cache, as text", key="name", value=name)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError("it is a whole number of records, 1 or more", key="limit", value=limit)
    if not isinstance(records, Iterable) or isinstance(records, str | bytes | Mapping):
        kind = type(records).__name__
        raise ConfigError(f"{kind} is no stream of records; it needs iter(), which gives one after the other.")
    cache = cache_directory(None if directory is None else str(directory))
    place = CachePlace(cache_dir=cache, name=name, key={"prepared": name}, fingerprint={"limit": limit})
    written = []

    def chunks() -> Chunks:
        written.append(name)
        return (yield from _chunks(name, iter(records), limit))

    try:
        entry = place.stream(chunks)
    except OSError as error:
        path, is_full = str(error.filename or ""), error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not is_full and not path.startswith(str(place.cache_dir)):
            raise  # from the stream
        text = f"{path or place.path} cannot be written: {error.strerror}; directory= names another disk."
        raise ResourceError(text) from error
    notes = []
    if not written:
        notes.append(f"its records were prepared before; to write them anew, delete {place.path}.")
    if entry.info["cut"]:
        notes.append(f"the stream holds more than the {limit:,} records that limit allows; the others are left out.")
    kept = from_json(entry.info["statistics"])
    return Prepared(entry.arrays, provenance="prepared", path=place.path, notes=tuple(notes), kept=kept)


class _Window:
    """The records of a stream that are in memory, by their numbers: the first one, and those from `begin` on."""

    first: Any
    records: Sequence[Any]
    begin = 0

    def __len__(self) -> int:
        return self.begin + len(self.records)

    def __getitem__(self, number: int) -> Any:
        return self.records[number - self.begin] if number else self.first


def _chunks(name: str, stream: Iterator[Any], limit: int) -> Chunks:
    """Yield the first records of a stream as chunks of arrays; return their statistics, and whether there are more."""
    window = _Window()
    source = Objects(window)
    parts: dict[str, list[tuple[LeafStatistics, int]]] = {}
    for begin in range(0, limit, _CHUNK_RECORDS):
        if not (records := list(islice(stream, min(_CHUNK_RECORDS, limit - begin)))):
            break
        window.begin, window.records = begin, records
        window.first = window.first if begin else records[0]
        try:
            arrays = taken(source, np.arange(begin, len(window)))
        except DataError as error:
            raise DataError(of_source(name, str(error))) from error
        for leaf, values in arrays.items():
            parts.setdefault(leaf, []).append((LeafStatistics.of(values), values.size))
        yield arrays
    if not parts:
        raise DataError(of_source(name, "the stream holds no record."))
    cut = any(True for _ in islice(stream, 1))
    return {"cut": cut, "statistics": to_json({leaf: LeafStatistics.merged(each) for leaf, each in parts.items()})}
