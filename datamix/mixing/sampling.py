"""Sources whose records are not gone through one after the other: drawn by weight, or class by class.

As in a shuffle, the record is a pure function of the source's key, the epoch and the place in it; and what computes it
works on NumPy arrays and on traced JAX arrays alike, so that the plan and the compiled pipeline cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from datamix.errors import ConfigError
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, draw, fold, multiply_high

_ONE = 2**32  # the mean weight, in the integers of the alias table


class Lookups(NamedTuple):
    """The operations in which NumPy arrays and traced JAX arrays differ.

    Attributes:
      choose: `table[index]` of a table with a row a source.
      look_up: `table[index]` of a table with a row a record, or a class.
      permute: See `datamix.rng.permute.permute`.
      where: `numpy.where`.
    """

    choose: Callable[[Words, Words], Any]
    look_up: Callable[[Words, Words], Any]
    permute: Callable[[Words, permute.Domain, KeyWords], Any]
    where: Callable[[Words, Words, Words], Any]


class Sampling(Protocol):
    """How the records of a source are drawn.

    Attributes:
      num_records: The number of the source's records.
      epoch_records: The number of records that count as an epoch.
      note: What a user must know of it; follows the name of the source.
    """

    @property
    def num_records(self) -> int: ...
    @property
    def epoch_records(self) -> int: ...
    @property
    def note(self) -> str: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ByWeight:
    """Each record is drawn by its weight, with replacement.

    Attributes:
      threshold: Of each place of the alias table, how many of 2^32 draws give its own record, uint32 [num_records].
      alias: The record that the others give, uint32 [num_records].
      seen: The share of the records that an epoch is expected to give at least once.
    """

    threshold: np.ndarray
    alias: np.ndarray
    seen: float

    @classmethod
    def of(cls, weights: np.ndarray) -> ByWeight:
        """The alias table of some weights, exact to 2^-32 of their mean; no record of a positive weight gets none.

        Args:
          weights: The weights, relative to each other, [num_records].

        Raises:
          ConfigError: They are no finite numbers, 0 or more, one of them above 0.

        Source: A. J. Walker, An efficient method for generating discrete random variables with general distributions,
        ACM TOMS 3 (1977); filled by prefix sums as in L. Hübschle-Schneider and P. Sanders, Parallel weighted random
        sampling (2019).

        >>> table = ByWeight.of(np.array([1, 3]))
        >>> (table.threshold / 2**32).tolist(), table.alias.tolist()
        ([0.5, 0.0], [1, 1])
        """
        values = np.asarray(weights).astype(np.float64)
        if values.ndim != 1 or not np.isfinite(values).all() or values.min(initial=0) < 0 or not values.any():
            raise ConfigError("weights of records are finite numbers, 0 or more, one for each, and not all 0.")
        count = len(values)
        shares = values / values.max()
        exact = np.floor(shares * (count * _ONE / shares.sum())).astype(np.int64)
        exact = np.maximum(exact, values > 0)
        exact[exact.argmax()] += count * _ONE - exact.sum()  # what rounding has left
        # Each light record fills its place up with a share of a heavy one: with that at which, when all light places
        # before it are filled, something is left. A heavy place is what remains, filled up by the next heavy record.
        light, heavy = np.flatnonzero(exact < _ONE), np.flatnonzero(exact >= _ONE)
        lacking = np.concatenate([[0], np.cumsum(_ONE - exact[light])])
        excess = np.cumsum(exact[heavy] - _ONE)
        threshold, alias = exact.copy(), np.arange(count)
        alias[light] = heavy[np.searchsorted(excess, lacking[:-1], side="right")]
        threshold[heavy] = _ONE + excess - lacking[np.searchsorted(lacking, excess)]
        alias[heavy[:-1]] = heavy[1:]
        alias = np.where(threshold == _ONE, np.arange(count), alias)  # 2^32 is 0 in 32 bits
        with np.errstate(divide="ignore"):  # a record that has all the weight
            seen = -np.expm1(count * np.log1p(-exact / (count * _ONE))).mean()
        return cls(threshold=threshold.astype(np.uint32), alias=alias.astype(np.uint32), seen=float(seen))

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.alias)

    @property
    def epoch_records(self) -> int:
        """As many draws as there are records."""
        return len(self.alias)

    @property
    def note(self) -> str:
        """The share of the records that an epoch gives."""
        return f"is drawn by weight, with replacement: about {self.seen:.1%} of its records are seen in an epoch."


@dataclass(frozen=True, kw_only=True, eq=False)
class ByClass:
    """The classes of a source take turns, and each is gone through whole before one of its records comes again.

    In every round each class gives one record, in another order of the classes. An epoch has the rounds that give as
    many records as the source has, and goes on in each class where the one before has ended.

    Attributes:
      records: The records, those of each class together, uint32 [num_records].
      counts: The number of records of each class, all above 0, int64 [num_classes].
    """

    records: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, classes: np.ndarray) -> ByClass:
        """The records by their class.

        Args:
          classes: The class of each record, [num_records].

        >>> by_class = ByClass.of(np.array([7, 3, 7, 7]))
        >>> by_class.records.tolist(), by_class.counts.tolist(), by_class.epoch_records
        ([1, 0, 2, 3], [1, 3], 4)
        """
        _, counts = np.unique(classes, return_counts=True)
        return cls(records=np.argsort(classes, kind="stable").astype(np.uint32), counts=counts)

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.records)

    @cached_property
    def rounds(self) -> int:
        """The rounds of an epoch."""
        return -(-self.num_records // len(self.counts))

    @property
    def epoch_records(self) -> int:
        """The records of the source, rounded up to whole rounds."""
        return self.rounds * len(self.counts)

    @property
    def note(self) -> str:
        """The sizes of the classes, and how often each comes."""
        sizes = " to ".join(f"{size:,}" for size in sorted({int(self.counts.min()), int(self.counts.max())}))
        return (
            f"is balanced: each of its {len(self.counts):,} classes, which have {sizes} records, gives {self.rounds:,} "
            f"records in an epoch of {self.epoch_records:,}."
        )


class _Weights(NamedTuple):
    """The alias tables of the sources that are drawn by weight, one after the other.

    Attributes:
      applies: Whether a source is drawn by weight, bool [num_sources].
      size: The rows of its table; 1 for one that is not, uint32 [num_sources].
      first: The first of them, uint32 [num_sources].
      threshold: See `ByWeight`, uint32 [num_rows].
      alias: See `ByWeight`, uint32 [num_rows].
    """

    applies: Words
    size: Words
    first: Words
    threshold: Words
    alias: Words


class _Classes(NamedTuple):
    """The records by class of the sources that are balanced, one after the other.

    Attributes:
      applies: Whether a source is balanced, bool [num_sources].
      num_classes: The grid of its number of classes; of 1 for one that is not, uint32 [num_sources].
      rounds: The rounds of its epoch; 1 for one that is not, uint32 [num_sources].
      first: The row of its first class, uint32 [num_sources].
      begin: The row of the first record of each class, uint32 [num_rows of classes].
      size: The grid of the number of its records, uint32 [num_rows of classes].
      record: The records, uint32 [num_rows of records].
    """

    applies: Words
    num_classes: permute.Domain
    rounds: Words
    first: Words
    begin: Words
    size: permute.Domain
    record: Words


class SamplingTables(NamedTuple):
    """What is looked up to draw records; None for a kind that no source has."""

    weights: _Weights | None
    classes: _Classes | None

    @classmethod
    def of(cls, sampling: Sequence[Sampling | None]) -> SamplingTables:
        """The tables of some sources, None for those of which nothing is drawn."""
        weights = [each if isinstance(each, ByWeight) else None for each in sampling]
        classes = [each if isinstance(each, ByClass) else None for each in sampling]
        return cls(_weights(weights) if any(weights) else None, _classes(classes) if any(classes) else None)


def sample(
    tables: SamplingTables,
    keys: KeyWords,
    on: Lookups,
    source: Words,
    epoch: Words,
    index: Words,
    record: Words,
    *,
    shuffled: bool,
) -> Words:
    """Records as they are drawn; NumPy or traced JAX, uint32 [count] each.

    Args:
      tables: The tables of the sources.
      keys: The key of each source.
      on: The operations of the arrays.
      source: The index of each source.
      epoch: How often the source had been gone through before.
      index: The place in this epoch.
      record: What stands there in a source of which nothing is drawn.
      shuffled: Whether the classes and their records are put into another order.
    """
    key = on.choose(keys[0], source), on.choose(keys[1], source)
    if (weights := tables.weights) is not None:
        drawn = fold(key, epoch)
        size, first = on.choose(weights.size, source), on.choose(weights.first, source)
        row = multiply_high(draw(drawn, np.uint32(0), index), size)
        own = draw(drawn, np.uint32(1), index) < on.look_up(weights.threshold, first + row)
        by_weight = on.where(own, row, on.look_up(weights.alias, first + row))
        record = on.where(on.choose(weights.applies, source), by_weight, record)
    if (classes := tables.classes) is not None:
        num_classes = permute.Domain(*(on.choose(field, source) for field in classes.num_classes))
        number = index // num_classes.size
        which = index - number * num_classes.size
        number = epoch * on.choose(classes.rounds, source) + number  # of the round, since the beginning of the mix
        if shuffled:
            which = on.permute(which, num_classes, fold(key, number))
        row = on.choose(classes.first, source) + which
        size = permute.Domain(*(on.look_up(field, row) for field in classes.size))
        passed = number // size.size
        within = number - passed * size.size
        if shuffled:
            within = on.permute(within, size, fold(fold(key, which), passed))
        by_class = on.look_up(classes.record, on.look_up(classes.begin, row) + within)
        record = on.where(on.choose(classes.applies, source), by_class, record)
    return record


def _weights(sources: Sequence[ByWeight | None]) -> _Weights:
    sizes = [0 if each is None else each.num_records for each in sources]
    return _Weights(
        applies=np.asarray([each is not None for each in sources]),
        size=np.maximum(sizes, 1).astype(np.uint32),
        first=_firsts(sizes),
        threshold=np.concatenate([each.threshold for each in sources if each is not None]),
        alias=np.concatenate([each.alias for each in sources if each is not None]),
    )


def _classes(sources: Sequence[ByClass | None]) -> _Classes:
    nums = [0 if each is None else len(each.counts) for each in sources]
    sizes = np.concatenate([each.counts for each in sources if each is not None])
    return _Classes(
        applies=np.asarray([each is not None for each in sources]),
        num_classes=permute.domain(np.maximum(nums, 1)),
        rounds=np.asarray([1 if each is None else each.rounds for each in sources], np.uint32),
        first=_firsts(nums),
        begin=_firsts(sizes),
        size=permute.domain(sizes),
        record=np.concatenate([each.records for each in sources if each is not None]),
    )


def _firsts(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """The row at which each part begins; 0 for the empty ones, whose rows nobody looks at."""
    ends = np.cumsum(sizes)
    return np.where(np.asarray(sizes) > 0, ends - sizes, 0).astype(np.uint32)
