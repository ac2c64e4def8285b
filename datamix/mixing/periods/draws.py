"""An independent draw for each slot, by its hash."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datamix.mixing.periods.base import Period
from datamix.mixing.periods.table import Table
from datamix.rng.hash import draw_at

MAX_DRAWS = 2**27
"""The largest number of draws that may be walked to find a slot, which takes a few seconds."""
MOST_COUNTED = 2**30
"""The largest number of draws that may be walked to count those of each source, which takes about ten seconds."""

_CHUNK_DRAWS = 2**16
_FINE_BITS = 15  # the lower of the 31 bits of a draw, which seldom determine its source


@dataclass(frozen=True, eq=False)
class Draws(Period):
    """An independent draw for each slot, by its hash.

    There is no shortcut to the counts before a slot: they are summed up once, chunk by chunk, at about 10 ns per slot,
    and kept.

    Attributes:
      thresholds: The upper end of each source's share of the range [0, 2^31], uint32 [num_sources].
      first: The slot of the whole mix at which the stage begins.
      key: The key of the draws.
      replacement: Whether the record within the source is drawn as well.
    """

    thresholds: np.ndarray
    first: int
    key: tuple[int, int]
    replacement: bool

    @property
    def repeats_records(self) -> bool:
        """Whether records are drawn with replacement."""
        return self.replacement

    @property
    def max_walk(self) -> int:
        """The largest number of draws that may be walked to find a slot."""
        return MAX_DRAWS

    @property
    def most_counted(self) -> int:
        """The largest number of draws that may be walked to count those of each source."""
        return MOST_COUNTED

    @cached_property
    def _sums(self) -> list[np.ndarray]:
        return [np.zeros(len(self.thresholds), np.int64)]  # counts before each chunk

    def sources(self, start: int, count: int) -> np.ndarray:
        """The sources of the slots [start, start + count), int32 [count]."""
        word = draw_at(self.key, np.uint64(self.first + start) + np.arange(count, dtype=np.uint64)) >> np.uint32(1)
        source: np.ndarray = self._coarse[word >> np.uint32(_FINE_BITS)]
        mixed = np.flatnonzero(source < 0)
        source[mixed] = np.searchsorted(self.thresholds, word[mixed], side="right")
        return source

    @cached_property
    def _coarse(self) -> np.ndarray:
        """The source of all words with the same upper bits, -1 where they have several, int32 [2^16]."""
        ends = np.arange(2 ** (31 - _FINE_BITS) + 1) << _FINE_BITS
        first = np.searchsorted(self.thresholds, ends[:-1], side="right")
        last = np.searchsorted(self.thresholds, ends[1:] - 1, side="right")
        return np.where(first == last, first, -1).astype(np.int32)

    def _walk(self) -> None:
        """Sum up one more chunk."""
        drawn = self.sources((len(self._sums) - 1) * _CHUNK_DRAWS, _CHUNK_DRAWS)
        self._sums.append(self._sums[-1] + np.bincount(drawn, minlength=len(self.thresholds)))

    def _chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """The sources of one chunk, and the counts before it."""
        while len(self._sums) <= chunk:
            self._walk()
        return self.sources(chunk * _CHUNK_DRAWS, _CHUNK_DRAWS), self._sums[chunk]

    def counts(self, slot: int) -> list[int]:
        chunk, rest = divmod(slot, _CHUNK_DRAWS)
        drawn, before = self._chunk(chunk)
        return [int(n) for n in before + np.bincount(drawn[:rest], minlength=len(self.thresholds))]

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        source = self.sources(start, count)
        if self.replacement:
            # A drawn record does not depend on how many its source gave before: count the slots of all sources.
            return source, start + np.arange(count, dtype=np.int64)
        before = self.counts(start)
        table = Table(source, len(self.thresholds))
        return source, table.rank_of + np.asarray(before, np.int64)[source]

    def slot_of(self, source: int, number: int) -> int:
        while self._sums[-1][source] <= number:
            self._walk()
        chunk = bisect_right(self._sums, number, key=lambda sums: int(sums[source])) - 1
        drawn, before = self._chunk(chunk)
        return chunk * _CHUNK_DRAWS + int(np.flatnonzero(drawn == source)[number - int(before[source])])
