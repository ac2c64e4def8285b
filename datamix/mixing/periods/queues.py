"""An endless period that follows the lengths of the records: fair queues, cut into stretches for random access."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

import numpy as np

from datamix.mixing.periods.base import Period
from datamix.mixing.periods.table import Table
from datamix.mixing.record_lengths import RecordLengths
from datamix.mixing.table_fills import by_length
from datamix.rng.hash import draw_at

_T = TypeVar("_T")

_COMPARED = 2**9  # candidates for the beginning of a stretch
_LEAST_SLOTS = 32  # slots of a stretch per source: finding where it begins takes some µs per source
_KEPT = 64  # stretches whose beginnings are kept
_FILLED = 4  # stretches whose slots are kept


@dataclass(frozen=True, eq=False, kw_only=True)
class Queues(Period):
    """An endless period in which the summed lengths of the records, not their number, follow the shares.

    A sequence that is filled slot by slot cannot be entered far from its beginning. It is therefore cut into stretches
    of about 2^16 slots, and the records before a stretch follow from its number alone: for a given total length, each
    source has given the records up to its share of that total, rounded to the nearest record. Of several totals, a
    stretch begins at the one where all sources are closest to their shares. Finding it sums up only the current epoch
    of each source. Within a stretch, `by_length` fills the slots, beginning with how far each source is ahead of its
    share, until the records of the stretch are used up.

    Attributes:
      shares: The shares of the summed lengths, shape [num_sources].
      lengths: The lengths of the records.
      base: The number of records that each source has given before the stage, shape [num_sources].
      credit: How far each source is behind its share before the first slot, in the unit of the lengths; adds up to 0,
        shape [num_sources].
      window: The number of consecutive slots that are shuffled among each other; 1 for no shuffle.
      key: The key of that shuffle.
      stretch_slots: The approximate number of slots in a stretch; more where there are many sources.
    """

    shares: tuple[Fraction, ...]
    lengths: RecordLengths
    base: tuple[int, ...]
    credit: Sequence[Fraction]
    window: int = 1
    key: tuple[int, int] = (0, 0)
    stretch_slots: int = 2**16

    @cached_property
    def _active(self) -> list[int]:
        return [source for source, share in enumerate(self.shares) if share]

    @cached_property
    def _slots_a_unit(self) -> float:
        """The mean number of slots per unit of length."""
        means = self.lengths.mean
        return float(sum((self.shares[source] / means[source] for source in self._active), Fraction(0)))

    @cached_property
    def _stretch(self) -> int:
        """The approximate summed length of the records of a stretch."""
        slots = max(self.stretch_slots, _LEAST_SLOTS * len(self._active))
        return max(round(slots / self._slots_a_unit), 4)

    @cached_property
    def _summed_base(self) -> list[int]:
        return [self.lengths.summed(source, count) for source, count in enumerate(self.base)]

    @cached_property
    def _begins(self) -> dict[int, tuple[int, ...]]:
        return {0: (0,) * len(self.shares)}

    @cached_property
    def _filled(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def begin(self, stretch: int) -> tuple[int, ...]:
        """The number of slots that each source has before a stretch, shape [num_sources]."""
        return _kept(self._begins, stretch, _KEPT, self._find_begin)

    def _find_begin(self, stretch: int) -> tuple[int, ...]:
        width = self._stretch // 4
        least = stretch * self._stretch - width
        sums = np.arange(_COMPARED) * width // _COMPARED  # beyond `least`
        counts = np.zeros((len(self.shares), _COMPARED), np.int64)
        amounts, total = np.zeros((len(self.shares), _COMPARED)), np.zeros(_COMPARED)
        for source in self._active:
            share = self.shares[source]
            due = share * least + self.credit[source]
            whole = max(math.floor(due), 0)
            number, before = self.lengths.within(source, self._summed_base[source] + whole)
            ahead = self._summed_base[source] + whole - before + float(due - whole)
            wanted = ahead + float(share) * sums
            ends = self._summed(source, number, wanted[-1])
            nearest = np.searchsorted((ends[1:] + ends[:-1]) / 2, wanted, side="right")
            counts[source] = number - self.base[source] + nearest
            amounts[source] = ends[nearest] - ahead  # in excess of the share of `least`, credit included
            total += amounts[source]
        shares = np.asarray([float(share) for share in self.shares])
        best = int(np.abs(amounts - shares[:, None] * total).max(axis=0).argmin())
        return tuple(counts[:, best].tolist())

    def _summed(self, source: int, number: int, most: float) -> np.ndarray:
        """Cumulative lengths of a source's records from record `number` on, beginning with 0, until one exceeds `most`.

        Returns:
          The sums, float64, of which more than the last may exceed `most`.
        """
        count, ends = 64, np.zeros(1)
        while ends[-1] <= most:
            count *= 2
            ends = np.append(0, np.cumsum(self.lengths.of(source, number + np.arange(count))))
        return ends

    def _fill(self, stretch: int) -> tuple[np.ndarray, np.ndarray]:
        """The slots of a stretch: the source of each, int32, and how many slots of the period it has before, int64."""
        begin, end = self.begin(stretch), self.begin(stretch + 1)
        first = [base + count for base, count in zip(self.base, begin, strict=True)]
        amounts = [self.lengths.summed(i, count) - self._summed_base[i] for i, count in enumerate(first)]
        total = sum(amounts)
        rows = zip(amounts, self.shares, self.credit, strict=True)
        ahead = [float(amount - share * total - credit) for amount, share, credit in rows]
        counts = [later - before for later, before in zip(end, begin, strict=True)]
        source_of = by_length(self.shares, self.lengths.of, first, sum(counts), ahead=ahead, counts=counts)
        if self.window > 1:
            slot = np.arange(len(source_of), dtype=np.uint64)
            word = draw_at(self.key, slot + np.uint64(sum(begin) % 2**63))
            source_of = source_of[np.lexsort((word, slot // np.uint64(self.window)))]
        table = Table(source_of, len(self.shares))
        return source_of, table.rank_of + np.asarray(begin, np.int64)[source_of]

    def _slots_of(self, stretch: int) -> tuple[np.ndarray, np.ndarray]:
        return _kept(self._filled, stretch, _FILLED, self._fill)

    def _find(self, number: int, guess: float, before: Callable[[int], int]) -> int:
        """The last stretch for which `before(stretch)` is at most `number`, searched for around `guess`.

        Args:
          number: A number of slots.
          guess: A summed length near which the stretch is expected.
          before: The number of slots before a stretch, of all sources or of one.
        """
        low, width = max(int(guess / self._stretch), 0), 1
        high = low + 1
        while low and before(low) > number:
            low, width = max(low - width, 0), 2 * width
        while before(high) <= number:
            high, width = high + width, 2 * width
        return low + bisect_right(range(low, high), number, key=before) - 1

    def _stretch_at(self, slot: int) -> int:
        return self._find(slot, slot / self._slots_a_unit, lambda stretch: sum(self.begin(stretch)))

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        source, number = np.empty(count, np.int32), np.empty(count, np.int64)
        done, stretch = 0, self._stretch_at(start) if count else 0
        while done < count:
            sources, numbers = self._slots_of(stretch)
            first = start + done - sum(self.begin(stretch))
            part = slice(done, min(done + len(sources) - first, count))
            within = slice(first, first + part.stop - done)
            source[part], number[part] = sources[within], numbers[within]
            done, stretch = part.stop, stretch + 1
        return source, number

    def counts(self, slot: int) -> list[int]:
        stretch = self._stretch_at(slot)
        begin = self.begin(stretch)
        if not (within := slot - sum(begin)):
            return list(begin)
        passed = np.bincount(self._slots_of(stretch)[0][:within], minlength=len(begin))
        return [before + int(more) for before, more in zip(begin, passed, strict=True)]

    def slot_of(self, source: int, number: int) -> int:
        stretch = self._stretch_with(source, number)
        begin = self.begin(stretch)
        return sum(begin) + int(np.flatnonzero(self._slots_of(stretch)[0] == source)[number - begin[source]])

    def last_of(self, numbers: Mapping[int, int]) -> int:
        # The stretch of a slot is known without filling it. Sources that are due last come first, so that most of the
        # others are skipped.
        last, sources = -1, list[int]()
        for source in sorted(numbers, key=lambda source: self._due(source, numbers[source]), reverse=True):
            if last >= 0 and self.begin(last)[source] > numbers[source]:
                continue
            if (stretch := self._stretch_with(source, numbers[source])) > last:
                last, sources = stretch, []
            sources.append(source)
        return max(self.slot_of(source, numbers[source]) for source in sources)

    def _stretch_with(self, source: int, number: int) -> int:
        """The stretch in which `slot_of(source, number)` lies."""
        return self._find(number, self._due(source, number), lambda stretch: self.begin(stretch)[source])

    def _due(self, source: int, number: int) -> float:
        """The approximate summed length of all sources when one has had `number` slots."""
        return float(number * self.lengths.mean[source] / self.shares[source])


def _kept(known: dict[int, _T], stretch: int, most: int, make: Callable[[int], _T]) -> _T:
    """The value of a stretch, made if it is not known; the last `most` are kept, and that of stretch 0 always."""
    if (value := known.get(stretch)) is None:
        value = known[stretch] = make(stretch)
        for oldest in [key for key in list(known) if key][: max(len(known) - most, 0)]:
            known.pop(oldest, None)
    return value
