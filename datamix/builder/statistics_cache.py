"""Statistics of sources whose records are not cached: computed once, in parts if wanted, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datamix.config.schema import SourceConfig
from datamix.errors import expanded
from datamix.sources.base import Source, taken
from datamix.sources.cache import CachePlace, cache_directory, locked
from datamix.sources.long_work import num_cores
from datamix.sources.statistics import LeafStatistics, from_json, to_json
from datamix.spec import bytes_of

_MOST_PIECES = 1024  # with a file each, until all are done
_PIECE_RECORDS = 1024  # at least
_CHUNK_BYTES = 2**23  # read at once by a thread
_DIGESTED = 64  # records, evenly spaced
_FILES = ("path", "files", "records", "offsets", "tokenizer")  # settings that name files
_NOT_RECORDS = (  # settings that choose no records
    *("name", "operators", "seed", "class_names", "num_classes", "label", "unlabelled", "placement", "stand_in"),
    *("test_split", "balance", "record_weight"),
)


@dataclass(frozen=True)
class KeptStatistics:
    """The statistics of the first `num_records` records of a source, in the cache.

    They become invalid when a setting that chooses records changes, or the name, size or time of one of the source's
    files, or one of a few evenly spaced records.
    """

    config: SourceConfig
    source: Source
    num_records: int
    cache: str | None

    def read(self) -> Mapping[str, LeafStatistics] | None:
        """The statistics of each leaf; None if they are missing, or not those of these records."""
        # Usually there are none, and then the files of the source need not be examined.
        entry = self.place.peek() if self.path.exists() else None
        return from_json(entry[1]["statistics"]) if entry else None

    def complete(
        self, progress: Callable[[int, int], None], *, part: int = 0, parts: int = 1
    ) -> Mapping[str, LeafStatistics] | None:
        """Read all records, or one part of several, and keep the statistics; pieces that are done are not repeated.

        Args:
          progress: Called with the numbers of records that are done, and of all that this call reads.
          part: The number of the part, from 0.
          parts: The number of parts.

        Returns:
          The statistics of each leaf; None while other parts are missing.
        """
        if (kept := self.read()) is not None:
            return kept
        count = max(1, min(_MOST_PIECES, -(-self.num_records // _PIECE_RECORDS)))
        pieces = [range(i * self.num_records // count, (i + 1) * self.num_records // count) for i in range(count)]
        # The lock lies beside the directory, which is removed by the process that completes the statistics.
        with locked(Path(f"{self._directory}-{part}-of-{parts}")):
            if (kept := self.read()) is not None:  # completed while this process waited for the lock
                return kept
            self._directory.mkdir(parents=True, exist_ok=True)
            try:
                self._work({i: pieces[i] for i in range(part, count, parts) if self._piece(i) is None}, progress)
            except FileNotFoundError:
                if (kept := self._completed()) is None:  # otherwise, jobs with another number of parts were done first
                    raise
                return kept
            done = [each for i in range(count) if (each := self._piece(i)) is not None]
            if len(done) < count:
                return self._completed()  # another part may have merged all pieces meanwhile
            statistics = self._merged(list(zip(done, map(len, pieces), strict=True)))
            self.place.load(lambda: ({}, {"statistics": to_json(statistics)}))
            shutil.rmtree(self._directory, ignore_errors=True)
            return statistics

    def _completed(self) -> Mapping[str, LeafStatistics] | None:
        """The statistics that another process has completed; pieces that this one has added since are removed."""
        if (kept := self.read()) is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        return kept

    @cached_property
    def place(self) -> CachePlace:
        """The place in the cache, with a fingerprint of the files and records."""
        indices = np.linspace(0, self.num_records - 1, min(self.num_records, _DIGESTED)).astype(np.int64)
        content = hashlib.blake2b(digest_size=16)
        for path in self._paths:
            files = [path, *path.rglob("*")] if path.exists() else Path(path.anchor).glob(str(path)[1:])
            for file in sorted(files):
                content.update(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode(errors="replace"))
        for _, values in sorted(taken(self.source, indices).items()):
            content.update(values.reshape(-1).view(np.uint8).data)
        return replace(self._named, fingerprint={"content": content.hexdigest()})

    @property
    def path(self) -> Path:
        return self._named.path

    @cached_property
    def _named(self) -> CachePlace:
        settings = {key: value for key, value in vars(self.config).items() if key not in _NOT_RECORDS}
        key = {
            "settings": json.loads(json.dumps(settings, default=str, sort_keys=True)),
            "paths": [str(path) for path in self._paths],
            "num_records": self.num_records,
            "spec": {leaf: str(part) for leaf, part in self.source.spec.items()},
        }
        name = f"{self.config.name}-statistics"
        return CachePlace(cache_dir=cache_directory(self.cache), name=name, key=key, fingerprint={})

    @property
    def _paths(self) -> list[Path]:
        settings = vars(self.config) | dict(self.config.settings)
        return [expanded(text).absolute() for name in _FILES for text in _texts(settings.get(name))]

    @property
    def _directory(self) -> Path:
        """The directory of finished pieces, until all are done."""
        return Path(f"{self.place.path}-{self.place.fingerprint['content'][:8]}.parts")

    def _piece(self, number: int) -> Mapping[str, LeafStatistics] | None:
        try:
            return from_json(json.loads((self._directory / f"{number}.json").read_bytes()))
        except (OSError, ValueError, TypeError):  # missing, or truncated by a crash of the machine
            return None

    def _work(self, pieces: Mapping[int, range], progress: Callable[[int, int], None]) -> None:
        total, done = sum(map(len, pieces.values())), 0
        rows = max(1, _CHUNK_BYTES // max(1, bytes_of(self.source.spec)))

        def work(number: int, piece: range) -> int:
            chunks = [piece[start : start + rows] for start in range(0, len(piece), rows)]
            records = (taken(self.source, np.asarray(chunk, np.int64)) for chunk in chunks)
            statistics = [{leaf: LeafStatistics.of(values) for leaf, values in chunk.items()} for chunk in records]
            written = self._directory / f"{number}.{secrets.token_hex(4)}.tmp"
            written.write_text(json.dumps(to_json(self._merged(list(zip(statistics, map(len, chunks), strict=True))))))
            written.replace(self._directory / f"{number}.json")
            return len(piece)

        pool = ThreadPoolExecutor(num_cores())
        try:
            for future in as_completed([pool.submit(work, *piece) for piece in pieces.items()]):
                done += future.result()
                progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)

    def _merged(self, parts: list[tuple[Mapping[str, LeafStatistics], int]]) -> dict[str, LeafStatistics]:
        """The merged statistics of several parts; each part comes with its number of records."""
        return {
            leaf: LeafStatistics.merged((each[leaf], records * math.prod(part.shape)) for each, records in parts)
            for leaf, part in self.source.spec.items()
        }


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
