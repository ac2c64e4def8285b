"""Statistics of sources that have no entry of their own in the cache: completed once, in parts if wanted, and kept."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datamix.config.schema import SourceConfig
from datamix.errors import expanded
from datamix.sources.base import Source
from datamix.sources.cache import Place, cache_directory, locked
from datamix.sources.statistics import LeafStatistics, from_json, to_json
from datamix.sources.tfds.decode import num_cores
from datamix.spec import bytes_of

_MOST_PIECES = 1024  # a file each, until all are there
_PIECE_RECORDS = 1024  # at least
_BLOCK_BYTES = 2**23  # read at once by a thread
_DIGESTED = 64  # records, evenly spaced
_FILES = ("path", "files", "records", "offsets", "tokenizer")  # settings that name files
# Settings that choose no records.
_NOT_RECORDS = (
    *("name", "operators", "seed", "class_names", "num_classes", "label", "unlabelled", "placement", "stand_in"),
    "test_split",
)


@dataclass(frozen=True)
class KeptStatistics:
    """The place in the cache for the statistics of a source.

    They are of all records that the mix uses of it, and are no longer valid once a setting that chooses records or one
    of the source's files has changed, by its size and time, or one of some evenly spaced records.

    Attributes:
      config: The configuration of the source.
      source: What reads its records.
      num_records: The number of its first records that are used.
      cache: The directory of the cache; None for the default.
    """

    config: SourceConfig
    source: Source
    num_records: int
    cache: str | None

    @property
    def path(self) -> Path:
        """The place in the cache, whether anything is there or not."""
        return self._named.path

    def read(self) -> Mapping[str, LeafStatistics] | None:
        """The statistics of each leaf; None where they are not there, or not of these records."""
        # Most often there are none, and then no file is looked at.
        entry = self.place.peek() if self.path.exists() else None
        return from_json(entry[1]["statistics"]) if entry else None

    def complete(
        self, progress: Callable[[int, int], None], *, part: int = 0, parts: int = 1
    ) -> Mapping[str, LeafStatistics] | None:
        """Read all records, or a part of them, and keep the statistics; what an earlier call has done is not redone.

        Args:
          progress: Takes how many records of this part are done, of how many.
          part: Which part of the work this call does.
          parts: How many parts there are, that other processes do.

        Returns:
          The statistics of each leaf; None while other parts are missing.
        """
        if (kept := self.read()) is not None:
            return kept
        pieces = self._pieces()
        with locked(self._directory / f"{part}-of-{parts}"):
            self._work([i for i in range(len(pieces)) if i % parts == part and self._piece(i) is None], progress)
        done = [self._piece(i) for i in range(len(pieces))]
        whole = [each for each in done if each is not None]
        if len(whole) < len(pieces):
            return None
        sizes = [len(piece) for piece in pieces]
        statistics = {
            leaf: LeafStatistics.merged(
                (each[leaf], size * math.prod(spec.shape)) for each, size in zip(whole, sizes, strict=True)
            )
            for leaf, spec in self.source.spec.items()
        }
        self.place.load(lambda: ({}, {"statistics": to_json(statistics)}))
        shutil.rmtree(self._directory, ignore_errors=True)
        return statistics

    @cached_property
    def place(self) -> Place:
        """The place in the cache, with what the records depend on."""
        count = min(self.num_records, _DIGESTED)
        indices = np.linspace(0, self.num_records - 1, count).astype(np.int64)
        content = hashlib.blake2b(digest_size=16)
        for path in self._paths:
            for file, size, time in _files(path):
                content.update(f"{file} {size} {time}\n".encode(errors="surrogatepass"))
        for _, values in sorted(self._read(indices).items()):
            content.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return replace(self._named, fingerprint={"content": content.hexdigest()})

    @cached_property
    def _named(self) -> Place:
        """The place by the settings alone."""
        settings = {
            field.name: getattr(self.config, field.name)
            for field in fields(self.config)
            if field.name not in _NOT_RECORDS
        }
        key = {
            "settings": json.loads(json.dumps(settings, default=str, sort_keys=True)),
            "paths": [str(path) for path in self._paths],
            "num_records": self.num_records,
            "spec": {leaf: str(part) for leaf, part in self.source.spec.items()},
        }
        cache = cache_directory(self.cache)
        return Place(cache_dir=cache, name=f"{self.config.name}-statistics", key=key, fingerprint={})

    @property
    def _paths(self) -> list[Path]:
        of_source: dict[str, Any] = {field.name: getattr(self.config, field.name) for field in fields(self.config)}
        settings = of_source | dict(self.config.settings)
        return [expanded(text).absolute() for name in _FILES for text in _texts(settings.get(name))]

    @property
    def _directory(self) -> Path:
        """The directory of the pieces that are done, while others are missing."""
        return Path(f"{self.place.path}-{self.place.fingerprint['content'][:8]}.parts")

    def _pieces(self) -> list[range]:
        """The cut of the records into pieces, whose statistics are found one by one; the same for every call."""
        count = max(1, min(_MOST_PIECES, -(-self.num_records // _PIECE_RECORDS)))
        ends = [i * self.num_records // count for i in range(count + 1)]
        return [range(*each) for each in pairwise(ends)]

    def _piece(self, number: int) -> Mapping[str, LeafStatistics] | None:
        """The statistics of a piece; None where they are not there."""
        try:
            return from_json(json.loads((self._directory / f"{number}.json").read_bytes()))
        except (OSError, ValueError, TypeError):  # missing, or cut off when a machine went down
            return None

    def _work(self, numbers: list[int], progress: Callable[[int, int], None]) -> None:
        """Find the statistics of some pieces, on all cores."""
        pieces = self._pieces()
        total, done = sum(len(pieces[number]) for number in numbers), 0

        def work(number: int) -> int:
            statistics = self._statistics(pieces[number])
            written = self._directory / f"{number}.{secrets.token_hex(4)}.tmp"
            written.write_text(json.dumps(to_json(statistics)))
            written.replace(self._directory / f"{number}.json")
            return len(pieces[number])

        pool = ThreadPoolExecutor(num_cores())
        try:
            for future in as_completed([pool.submit(work, number) for number in numbers]):
                done += future.result()
                progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)

    def _statistics(self, piece: range) -> Mapping[str, LeafStatistics]:
        rows = max(1, _BLOCK_BYTES // max(1, bytes_of(self.source.spec)))
        blocks = [np.arange(start, min(start + rows, piece.stop)) for start in range(piece.start, piece.stop, rows)]
        found: dict[str, list[tuple[LeafStatistics, int]]] = {leaf: [] for leaf in self.source.spec}
        for block in blocks:
            for leaf, values in self._read(block).items():
                found[leaf].append((LeafStatistics.of(values), values.size))
        return {leaf: LeafStatistics.merged(each) for leaf, each in found.items()}

    def _read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        out = {leaf: np.empty((len(indices), *part.shape), part.dtype) for leaf, part in self.source.spec.items()}
        self.source.take(indices, out)
        return out


def _texts(value: object) -> Iterator[str]:
    """The texts in a setting that is one, or holds some."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """The files at a path, which may be a folder or a glob: name, size and time of change."""
    for each in [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
        if each.is_dir():
            for folder, folders, names in os.walk(each):
                folders.sort()
                for name in sorted(names):
                    status = Path(folder, name).stat()
                    yield f"{folder}/{name}", status.st_size, status.st_mtime_ns
        else:
            status = each.stat()
            yield str(each), status.st_size, status.st_mtime_ns
