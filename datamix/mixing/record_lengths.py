"""The lengths of the sources' records, where these and not the number of records follow the ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.shuffle import Shuffle


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordLengths:
    """The lengths of the sources' records, such as numbers of tokens.

    Attributes:
      stored: The lengths of each source's records as they are stored, int64 [size] each.
      shuffle: The order in which the records come.
    """

    stored: tuple[np.ndarray, ...]
    shuffle: Shuffle

    @cached_property
    def mean(self) -> tuple[Fraction, ...]:
        """The mean length of each source's records, shape [num_sources]; 1 for an empty source."""
        return tuple(Fraction(int(lengths.sum()) or 1, len(lengths) or 1) for lengths in self.stored)

    def of(self, source: int, number: np.ndarray) -> np.ndarray:
        """The lengths of the records that a source gives under some running numbers, int64 [count] -> [count]."""
        epoch, index = np.divmod(number, len(self.stored[source]))
        lengths: np.ndarray = self.stored[source][self.shuffle.record(np.full(len(number), source), epoch, index)]
        return lengths

    def summed(self, source: int, count: int) -> int:
        """The summed length of the first `count` records that a source gives."""
        lengths = self.stored[source]
        epochs, rest = divmod(count, max(len(lengths), 1))
        begun = int(self._summed_epoch(source, epochs)[rest - 1]) if rest else 0
        return epochs * int(lengths.sum()) + begun

    def within(self, source: int, amount: int) -> tuple[int, int]:
        """How many of a source's first records are within a summed length, and what theirs is."""
        epochs, rest = divmod(amount, int(self.stored[source].sum()))
        begun = int(np.searchsorted(self._summed_epoch(source, epochs), rest, side="right"))
        count = epochs * len(self.stored[source]) + begun
        return count, self.summed(source, count)

    def slots_until(
        self,
        which: Callable[..., Fraction],
        shares: Sequence[Fraction],
        base: Sequence[int],
        wanted: Mapping[int, int],
        more: int,
    ) -> int:
        """Upper bound on the slots in which sources are given `wanted` records more, where lengths follow the shares.

        Args:
          which: `min` for the slots until the first of the sources has been, `max` for all.
          shares: The shares of the summed lengths, shape [num_sources].
          base: How many records each source had before, shape [num_sources].
          more: By how much a source may be farther away from its share than one longest record.
        """
        before = [self.summed(source, count) for source, count in enumerate(base)]
        farthest = max(int(lengths.max(initial=0)) for lengths in self.stored) + more
        amounts = {i: self.summed(i, base[i] + count) - before[i] + farthest for i, count in wanted.items()}
        total = which(amount / shares[i] for i, amount in amounts.items())
        ends = [before[i] + int(share * total) + farthest for i, share in enumerate(shares)]
        return 1 + sum(self.within(i, ends[i])[0] - base[i] for i, share in enumerate(shares) if share)

    def _summed_epoch(self, source: int, epoch: int) -> np.ndarray:
        """Summed lengths up to each record of an epoch; the last epoch of each source is kept."""
        kept = self._epochs.get(source)
        if kept is None or kept[0] != epoch:
            size = len(self.stored[source])
            kept = self._epochs[source] = epoch, np.cumsum(self.of(source, epoch * size + np.arange(size)))
        return kept[1]

    @cached_property
    def _epochs(self) -> dict[int, tuple[int, np.ndarray]]:
        return {}


def checked_lengths(
    lengths: Mapping[str, np.ndarray], sizes: Mapping[str, int], *, by_batch: bool
) -> tuple[np.ndarray, ...]:
    """The lengths of each source's records, int64 [size] each.

    Raises:
      ConfigError: They are none, or whole batches are mixed.
    """
    if by_batch:
        raise ConfigError("it follows lengths record by record", key="mix.unit", hint="Set mix.granularity=record.")
    checked = []
    for name, size in sizes.items():
        values = np.asarray(lengths[name])
        fits = values.shape == (size,) and values.dtype.kind in "iu"
        if not fits or (size and (values.min() < 0 or not values.any())):
            text = f"the lengths of source {name!r} are {values.dtype}{list(values.shape)}; they are whole numbers, 0"
            raise ConfigError(f"{text} or more, one for each of its {size} records, and not all 0", key="mix.unit")
        checked.append(values.astype(np.int64))
    return tuple(checked)
