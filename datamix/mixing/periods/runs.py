"""A period of runs: one run of each source after the other, repeated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datamix.mixing.periods.base import Period


@dataclass(frozen=True)
class Runs(Period):
    """One run of each source after the other, repeated.

    Attributes:
      lengths: The number of slots in the run of each source; 0 for one that does not take part.
    """

    lengths: tuple[int, ...]

    @cached_property
    def ends(self) -> np.ndarray:
        """The slot right after each run, int64 [num_sources]."""
        return np.cumsum(np.asarray(self.lengths, np.int64))

    @property
    def length(self) -> int:
        """The number of slots after which the sequence repeats."""
        return int(self.ends[-1])

    @property
    def quota(self) -> np.ndarray:
        """The slots of each source within `length`, int64 [num_sources]."""
        return np.asarray(self.lengths, np.int64)

    @property
    def sets_shares(self) -> bool:
        """Whether the runs determine the shares: always, by their lengths."""
        return True

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        cycle, slot = divmod(start, self.length)
        cycles, slots = np.divmod(slot + np.arange(count, dtype=np.int64), self.length)
        source = np.searchsorted(self.ends, slots, side="right").astype(np.int32)
        lengths = self.quota
        return source, (cycle + cycles) * lengths[source] + slots - (self.ends - lengths)[source]

    def counts(self, slot: int) -> list[int]:
        cycle, within = divmod(slot, self.length)
        starts = (int(end) - length for end, length in zip(self.ends, self.lengths, strict=True))
        return [
            cycle * length + min(max(within - begin, 0), length)
            for begin, length in zip(starts, self.lengths, strict=True)
        ]

    def slot_of(self, source: int, number: int) -> int:
        cycle, rank = divmod(number, self.lengths[source])
        return cycle * self.length + int(self.ends[source]) - self.lengths[source] + rank
