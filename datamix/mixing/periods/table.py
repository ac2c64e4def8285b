"""A period that repeats a short sequence, stored as a table of its slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datamix.mixing.periods.base import Period

# A cycle is unrolled to at least this many slots, so that the pipeline seldom wraps around.
SHORT_TABLE_SLOTS = 2**13


@dataclass(frozen=True, eq=False)
class Table(Period):
    """A short sequence that repeats, stored as a table.

    Attributes:
      source_of: The source of each slot, int32 [length].
      num_sources: The number of sources in the mix, with or without a slot.
    """

    source_of: np.ndarray
    num_sources: int

    @classmethod
    def of(cls, source_ids: Sequence[int] | np.ndarray, num_sources: int) -> Table:
        """The table that repeats some source ids endlessly.

        Args:
          source_ids: The source of each slot, integers in [0, num_sources), shape [length].
          num_sources: The number of sources in the mix, with or without a slot.

        Raises:
          ValueError: There are no ids, or they are not integers in that range.

        >>> source, number = Table.of([0, 0, 1], 2).take(0, 6)
        >>> source.tolist(), number.tolist()
        ([0, 0, 1, 0, 0, 1], [0, 1, 0, 2, 3, 1])
        """
        ids = np.asarray(source_ids)
        if ids.ndim != 1 or not len(ids) or ids.dtype.kind not in "iu":
            raise ValueError(f"a table has one whole number for each slot, at least one; not {ids.dtype}{[*ids.shape]}")
        if ids.min() < 0 or ids.max() >= num_sources:
            raise ValueError(f"source ids lie from 0 to {num_sources - 1}; these lie from {ids.min()} to {ids.max()}")
        return cls.unrolled(ids, num_sources)

    @classmethod
    def unrolled(cls, source_of: np.ndarray, num_sources: int, most: int | None = None) -> Table:
        """The table that repeats `source_of`, int [length], several times.

        Args:
          most: Repeat as often as fits this many slots; by default, until there are at least `SHORT_TABLE_SLOTS`.
        """
        times = -(-SHORT_TABLE_SLOTS // len(source_of)) if most is None else max(1, most // len(source_of))
        return cls(np.tile(source_of, times).astype(np.int32), num_sources)

    def shuffled(self, order: np.ndarray) -> Table:
        """The same slots reordered: slot i is slot `order[i]` of this table, shape [length]."""
        return Table(self.source_of[order], self.num_sources)

    @property
    def length(self) -> int:
        """The number of slots after which the sequence repeats."""
        return len(self.source_of)

    @cached_property
    def quota(self) -> np.ndarray:
        """The slots of each source within `length`, int64 [num_sources]."""
        return np.bincount(self.source_of, minlength=self.num_sources)

    @cached_property
    def slots(self) -> list[np.ndarray]:
        """The slots of each source within `length`, ascending, int64 [quota] each."""
        return np.split(self._by_source, self._begin[1:])

    @cached_property
    def rank_of(self) -> np.ndarray:
        """The number of earlier slots that belong to each slot's source, int64 [length]."""
        rank = np.empty(self.length, np.int64)
        rank[self._by_source] = np.arange(self.length) - np.repeat(self._begin, self.quota)
        return rank

    @cached_property
    def _by_source(self) -> np.ndarray:
        """The slots of the first source, then those of the next, and so on, int64 [length]."""
        # NumPy sorts 16-bit integers by radix sort, in a tenth of the time.
        ids = self.source_of.astype(np.uint16) if self.num_sources <= 2**16 else self.source_of
        slots: np.ndarray = np.argsort(ids, kind="stable")
        return slots

    @cached_property
    def _begin(self) -> np.ndarray:
        """Where the slots of each source begin in `_by_source`, int64 [num_sources]."""
        begin: np.ndarray = np.cumsum(self.quota) - self.quota
        return begin

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        cycle, slot = divmod(start, self.length)
        slots = slot + np.arange(count, dtype=np.int64)
        cycles, slots = np.divmod(slots, self.length)
        source = self.source_of[slots]
        return source, (cycle + cycles) * self.quota[source] + self.rank_of[slots]

    def counts(self, slot: int) -> list[int]:
        cycle, within = divmod(slot, self.length)
        part = np.bincount(self.source_of[:within], minlength=self.num_sources)
        return [cycle * quota + rest for quota, rest in zip(self.quota.tolist(), part.tolist(), strict=True)]

    def slot_of(self, source: int, number: int) -> int:
        cycle, rank = divmod(number, int(self.quota[source]))
        return cycle * self.length + int(self._by_source[self._begin[source] + rank])
