"""The seats of a plan's stages.

A period is an endless sequence of seats, each for one record (or one whole batch) of one source. It answers three
questions at any position without walking there: who sits here, how often was each source seated before, and where is
a source's n-th seat.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from datamix.rng.hash import draw_at

# A short period is unrolled to so many slots, so that the pipeline seldom wraps.
SHORT_TABLE_SLOTS = 2**13
_DRAW_BLOCK = 2**16
MAX_DRAWS = 2**27  # draws that may be walked to find a seat: some seconds


class Period(Protocol):
    """The seats of one stage."""

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Seats [start, start + count).

        Returns:
          Source, int32 [count], and how many seats it had before this one, int64 [count].
        """
        ...

    def counts(self, position: int) -> list[int]:
        """Seats of each source before `position`."""
        ...

    def position_of(self, source: int, number: int) -> int:
        """Position of a source's seat number `number`, from 0."""
        ...


@dataclass(frozen=True, eq=False)
class Table:
    """A short sequence that repeats, as a table.

    Attributes:
      source_of: source of each slot, int32 [length].
      num_sources: how many sources there are, seated or not.
    """

    source_of: np.ndarray
    num_sources: int

    @classmethod
    def unrolled(cls, source_of: np.ndarray, num_sources: int, slots: int = SHORT_TABLE_SLOTS) -> Table:
        """The same endless sequence, from a table of about `slots` slots if the sequence is shorter."""
        return cls(np.tile(source_of, max(1, slots // len(source_of))).astype(np.int32), num_sources)

    @property
    def length(self) -> int:
        return len(self.source_of)

    @cached_property
    def quota(self) -> np.ndarray:
        """Slots of each source, int64 [num_sources]."""
        return np.bincount(self.source_of, minlength=self.num_sources)

    @cached_property
    def slots(self) -> list[np.ndarray]:
        """The slots of each source, ascending."""
        order = np.argsort(self.source_of, kind="stable")
        return np.split(order, np.cumsum(self.quota)[:-1])

    @cached_property
    def rank_of(self) -> np.ndarray:
        """How many earlier slots belong to the slot's source, int64 [length]."""
        rank = np.empty(self.length, np.int64)
        for slots in self.slots:
            rank[slots] = np.arange(len(slots))
        return rank

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        block, slot = divmod(start, self.length)
        slots = slot + np.arange(count, dtype=np.int64)
        blocks, slots = np.divmod(slots, self.length)
        source = self.source_of[slots]
        return source, (block + blocks) * self.quota[source] + self.rank_of[slots]

    def counts(self, position: int) -> list[int]:
        block, slot = divmod(position, self.length)
        part = np.bincount(self.source_of[:slot], minlength=self.num_sources)
        return [block * int(quota) + int(rest) for quota, rest in zip(self.quota, part, strict=True)]

    def position_of(self, source: int, number: int) -> int:
        block, rank = divmod(number, int(self.quota[source]))
        return block * self.length + int(self.slots[source][rank])


@dataclass(frozen=True)
class Runs:
    """One run of each source after the other, again and again.

    Attributes:
      lengths: seats of each source in a row; zero for one that does not take part.
    """

    lengths: tuple[int, ...]

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each run ends, int64 [num_sources]."""
        return np.cumsum(np.asarray(self.lengths, np.int64))

    @property
    def length(self) -> int:
        return int(self.ends[-1])

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        block, slot = divmod(start, self.length)
        blocks, slots = np.divmod(slot + np.arange(count, dtype=np.int64), self.length)
        source = np.searchsorted(self.ends, slots, side="right").astype(np.int32)
        lengths = np.asarray(self.lengths, np.int64)
        return source, (block + blocks) * lengths[source] + slots - (self.ends - lengths)[source]

    def counts(self, position: int) -> list[int]:
        block, slot = divmod(position, self.length)
        starts = (int(end) - length for end, length in zip(self.ends, self.lengths, strict=True))
        return [
            block * length + min(max(slot - begin, 0), length)
            for begin, length in zip(starts, self.lengths, strict=True)
        ]

    def position_of(self, source: int, number: int) -> int:
        block, rank = divmod(number, self.lengths[source])
        return block * self.length + int(self.ends[source]) - self.lengths[source] + rank


@dataclass(frozen=True, eq=False)
class Draws:
    """An independent draw for each position, by its hash.

    A hash has no shortcut to the counts before a position: they are summed up once, block by block, about 10 ns a
    position, and kept.

    Attributes:
      thresholds: upper end of each source's share of the range [0, 2^31], uint32 [num_sources].
      first: position in the whole mix at which the stage begins.
      key: of the draws.
      replacement: whether the record within the source is drawn as well.
    """

    thresholds: np.ndarray
    first: int
    key: tuple[int, int]
    replacement: bool

    @cached_property
    def _sums(self) -> list[np.ndarray]:
        return [np.zeros(len(self.thresholds), np.int64)]  # counts before each block

    def sources(self, start: int, count: int) -> np.ndarray:
        """Sources of the positions [start, start + count), int32 [count]."""
        word = draw_at(self.key, np.uint64(self.first + start) + np.arange(count, dtype=np.uint64)) >> np.uint32(1)
        return np.searchsorted(self.thresholds, word, side="right").astype(np.int32)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Sources of one block, and the counts before it."""
        while len(self._sums) <= block:
            drawn = self.sources((len(self._sums) - 1) * _DRAW_BLOCK, _DRAW_BLOCK)
            self._sums.append(self._sums[-1] + np.bincount(drawn, minlength=len(self.thresholds)))
        return self.sources(block * _DRAW_BLOCK, _DRAW_BLOCK), self._sums[block]

    def counts(self, position: int) -> list[int]:
        block, rest = divmod(position, _DRAW_BLOCK)
        drawn, before = self._block(block)
        return [int(n) for n in before + np.bincount(drawn[:rest], minlength=len(self.thresholds))]

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        source = self.sources(start, count)
        if self.replacement:
            # Records that are drawn need not be counted: every draw of any source stands for one.
            return source, start + np.arange(count, dtype=np.int64)
        before = self.counts(start)
        table = Table(source, len(self.thresholds))
        return source, table.rank_of + np.asarray(before, np.int64)[source]

    def position_of(self, source: int, number: int) -> int:
        block = 0
        while len(self._sums) <= block + 1 or self._sums[block + 1][source] <= number:
            self._block(block + 1)
            block += int(self._sums[block + 1][source] <= number)
        drawn, before = self._block(block)
        return block * _DRAW_BLOCK + int(np.flatnonzero(drawn == source)[number - int(before[source])])
