"""The lengths of the records, for mixes in which summed lengths, not numbers of records, follow the ratio."""

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
    """The lengths of the records of all sources, such as numbers of tokens.

    Attributes:
      stored: The lengths of the records of each source, as stored, int64 [size] each.
      shuffle: The order of the records within their sources.
    """

    stored: tuple[np.ndarray, ...]
    shuffle: Shuffle

    @cached_property
    def mean(self) -> tuple[Fraction, ...]:
        """The mean length of the records of each source, shape [num_sources]; 1 for an empty source."""
        return tuple(Fraction(int(lengths.sum()) or 1, len(lengths) or 1) for lengths in self.stored)

    def of(self, source: int, number: np.ndarray) -> np.ndarray:
        """The lengths of the records that a source gives at some running numbers, int64 [count] -> [count]."""
        epoch, index = np.divmod(number, len(self.stored[source]))
        lengths: np.ndarray = self.stored[source][self.shuffle.record(np.full(len(number), source), epoch, index)]
        return lengths

    def summed(self, source: int, count: int) -> int:
        """The summed length of the first `count` records that a source gives."""
        lengths = self.stored[source]
        epochs, rest = divmod(count, max(len(lengths), 1))
        partial = int(self._summed_epoch(source, epochs)[rest - 1]) if rest else 0
        return epochs * int(lengths.sum()) + partial

    def within(self, source: int, amount: int) -> tuple[int, int]:
        """The number of a source's first records whose summed length is at most `amount`, and that summed length."""
        epochs, rest = divmod(amount, int(self.stored[source].sum()))
        partial = int(np.searchsorted(self._summed_epoch(source, epochs), rest, side="right"))
        count = epochs * len(self.stored[source]) + partial
        return count, self.summed(source, count)

    def slots_until(
        self,
        which: Callable[..., Fraction],
        shares: Sequence[Fraction],
        base: Sequence[int],
        wanted: Mapping[int, int],
        more: int,
    ) -> int:
        """An upper bound on the slots in which sources give `wanted` further records, where lengths follow the shares.

        Args:
          which: `min` for the slots until the first of the sources has given its records, `max` for all of them.
          shares: The shares of the summed lengths, shape [num_sources].
          base: The number of records that each source has given before, shape [num_sources].
          wanted: The number of further records, by index of the source.
          more: The distance of a source from its share, in addition to one longest record, in the unit of the lengths.
        """
        before = [self.summed(source, count) for source, count in enumerate(base)]
        farthest = max(int(lengths.max(initial=0)) for lengths in self.stored) + more
        amounts = {i: self.summed(i, base[i] + count) - before[i] + farthest for i, count in wanted.items()}
        total = which(amount / shares[i] for i, amount in amounts.items())
        ends = [before[i] + int(share * total) + farthest for i, share in enumerate(shares)]
        return 1 + sum(self.within(i, ends[i])[0] - base[i] for i, share in enumerate(shares) if share)

    def _summed_epoch(self, source: int, epoch: int) -> np.ndarray:
        """Cumulative lengths of the records of an epoch, int64 [size]; the last epoch of each source is kept."""
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
    """The lengths of the records of each source, checked, int64 [size] each, in the order of `sizes`.

    Raises:
      ConfigError: They are not lengths of these records, or whole batches are mixed.
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
