"""A table that repeats, with swaps that carry the fractions it cannot hold from one repetition to the next."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from datamix.mixing.periods.base import Period
from datamix.mixing.periods.table import Table

_FAR = 2**62


@dataclass(frozen=True, eq=False)
class Carried(Period):
    """A table that repeats in cycles, in some of which some slots change from one source to another.

    The sources form a chain. For each pair of neighbours there is one slot of the table that one gives to the other
    in as many cycles as make up for the fractions of a slot that the table cannot hold. This swap takes place in
    cycle b exactly if floor(rate (b + 1) + phase) > floor(rate b + phase), as in Bresenham's line. Counts are thus
    known at any slot without walking there, and never drift.

    Attributes:
      table: The slots of a cycle.
      giver: The source that has the slot of each swap in the table, int32 [num_swaps]; a source occurs at most twice in
        `giver` and `taker` together.
      taker: The source that gets the slot, int32 [num_swaps].
      place: The slot of the table, int64 [num_swaps]; no slot occurs twice.
      rate: The swaps per cycle, in units of 2^-64, uint64 [num_swaps].
      phase: The value of each line at cycle 0, in the same unit, uint64 [num_swaps].
    """

    table: Table
    giver: np.ndarray
    taker: np.ndarray
    place: np.ndarray
    rate: np.ndarray
    phase: np.ndarray

    def shuffled(self, order: np.ndarray) -> Carried:
        """The same period with the slots of every cycle reordered: slot i is slot `order[i]` of the table, [length]."""
        place = np.empty(self.table.length, np.int64)
        place[order] = np.arange(self.table.length)
        table = Table(self.table.source_of[order], self.table.num_sources)
        return replace(self, table=table, place=place[self.place])

    @cached_property
    def taker_rank(self) -> np.ndarray:
        """How many earlier slots of the table belong to the taker of each swap, int64 [num_swaps]."""
        slots = self.table.slots
        pairs = zip(self.taker.tolist(), self.place.tolist(), strict=True)
        return np.asarray([np.searchsorted(slots[source], place) for source, place in pairs], np.int64)

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The swaps of each source, at most two, and the slots that it gains by each.

        Returns:
          The index of the swap, `num_swaps` for none, and the gain: 1, -1, or 0 for none; int64 [2, num_sources] each.
        """
        swap = np.full((2, self.table.num_sources), len(self.place))
        gain = np.zeros_like(swap)
        for number, pair in enumerate(zip(self.giver.tolist(), self.taker.tolist(), strict=True)):
            for source, sign in zip(pair, (-1, 1), strict=True):
                side = int(gain[0, source] != 0)
                swap[side, source], gain[side, source] = number, sign
        return swap, gain

    def swaps(self, cycle: int) -> np.ndarray:
        """Whether each swap takes place in a cycle, bool [num_swaps]."""
        before = self.rate * np.uint64(cycle) + self.phase  # the whole part overflows, the fraction remains
        swaps: np.ndarray = before + self.rate < before
        return swaps

    def before(self, cycle: int) -> np.ndarray:
        """The number of slots that each source has before a cycle, int64 [num_sources]."""
        pairs = zip(self.rate.tolist(), self.phase.tolist(), strict=True)
        swapped = np.asarray([(rate * cycle + phase) >> 64 for rate, phase in pairs], np.int64)
        before: np.ndarray = cycle * self.table.quota + self._gained(slice(None), swapped)
        return before

    def _gained(self, which: slice | np.ndarray, times: int | np.ndarray = 1) -> np.ndarray:
        """The slots that each source gains by some swaps, int64 [num_sources]."""
        gained = np.zeros(self.table.num_sources, np.int64)
        np.add.at(gained, self.taker[which], times)
        np.subtract.at(gained, self.giver[which], times)
        return gained

    def counts(self, slot: int) -> list[int]:
        cycle, within = divmod(slot, self.table.length)
        part = np.bincount(self.table.source_of[:within], minlength=self.table.num_sources)
        passed = self.swaps(cycle) & (self.place < within)
        return [int(n) for n in self.before(cycle) + part + self._gained(passed)]

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        source, number = np.empty(count, np.int32), np.empty(count, np.int64)
        cycle, first = divmod(start, self.table.length)
        done = 0
        while done < count:
            last = min(self.table.length, first + count - done)
            part = slice(done, done + last - first)
            source[part], number[part] = self._take_cycle(cycle, first, last)
            cycle, first, done = cycle + 1, 0, part.stop
        return source, number

    def _take_cycle(self, cycle: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The slots [first, last) of a cycle."""
        source, rank = self.table.source_of[first:last].copy(), self.table.rank_of[first:last].copy()
        swaps, slot = self.swaps(cycle), np.arange(first, last)
        here = swaps & (self.place >= first) & (self.place < last)
        source[self.place[here] - first], rank[self.place[here] - first] = self.taker[here], self.taker_rank[here]
        place = np.append(np.where(swaps, self.place, last), last)
        for swap, gain in zip(*self.sides, strict=True):
            rank += gain[source] * (slot > place[swap[source]])
        return source, self.before(cycle)[source] + rank

    def slot_of(self, source: int, number: int) -> int:
        swap_ids, gains = self.sides
        sides: list[tuple[int, int]] = [*zip(swap_ids[:, source].tolist(), gains[:, source].tolist(), strict=True)]
        lines = [(int(self.rate[swap]), int(self.phase[swap]), gain) for swap, gain in sides if gain]

        def before(cycle: int) -> int:
            gained = (gain * ((rate * cycle + phase) >> 64) for rate, phase, gain in lines)
            return cycle * int(self.table.quota[source]) + sum(gained)

        cycle = bisect_right(range(_FAR), number, key=before) - 1
        slots, swaps = set[int](self.table.slots[source].tolist()), self.swaps(cycle)
        for swap, gain in sides:
            if gain and swaps[swap]:
                (slots.add if gain > 0 else slots.remove)(int(self.place[swap]))
        return cycle * self.table.length + sorted(slots)[number - before(cycle)]
