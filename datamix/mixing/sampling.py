"""Sampling of the records within a source: drawn by weight, or balanced by class, in place of a shuffle.

As in a shuffle, the record is a pure function of the source's key, the epoch and the index within the epoch. The same
code computes it on NumPy arrays and on traced JAX arrays, so that the plan and the compiled pipeline cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from datamix.errors import ConfigError
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, draw, fold, multiply_high

_ONE = 2**32  # the mean weight, in the integers of the alias table


class ArrayOps(NamedTuple):
    """The operations in which NumPy arrays and traced JAX arrays differ.

    Attributes:
      choose: `table[index]` of a table with one row per source.
      look_up: `table[index]` of a table with one row per record, or per class.
      permute: See `datamix.rng.permute.permute`.
      where: `numpy.where`.
    """

    choose: Callable[[Words, Words], Any]
    look_up: Callable[[Words, Words], Any]
    permute: Callable[[Words, permute.Domain, KeyWords], Any]
    where: Callable[[Words, Words, Words], Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class ByWeight:
    """Each record is drawn by its weight, with replacement.

    Attributes:
      threshold: Of 2^32 draws of each entry of the alias table, the number that give its own record, uint32
        [num_records].
      alias: The record that the other draws give, uint32 [num_records].
      seen: The expected fraction of the records that an epoch gives at least once, in [0, 1].
    """

    threshold: np.ndarray
    alias: np.ndarray
    seen: float

    @classmethod
    def of(cls, weights: np.ndarray) -> ByWeight:
        """The alias table of some weights, exact to 2^-32 of their mean; every positive weight remains positive.

        Args:
          weights: The weight of each record, finite and 0 or more, shape [num_records].

        Raises:
          ConfigError: The weights are not such numbers, or all 0.

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
        exact[exact.argmax()] += count * _ONE - exact.sum()  # the remainder of the rounding
        # The first heavy record whose cumulative excess exceeds the deficit of all earlier light entries fills up a
        # light entry. A heavy record keeps in its own entry what remains of it, and the next heavy record fills it up.
        light, heavy = np.flatnonzero(exact < _ONE), np.flatnonzero(exact >= _ONE)
        deficit = np.concatenate([[0], np.cumsum(_ONE - exact[light])])
        excess = np.cumsum(exact[heavy] - _ONE)
        threshold, alias = exact.copy(), np.arange(count)
        alias[light] = heavy[np.searchsorted(excess, deficit[:-1], side="right")]
        threshold[heavy] = _ONE + excess - deficit[np.searchsorted(deficit, excess)]
        alias[heavy[:-1]] = heavy[1:]
        alias = np.where(threshold == _ONE, np.arange(count), alias)  # 2^32 is 0 in 32 bits
        with np.errstate(divide="ignore"):  # one record may have all the weight
            seen = -np.expm1(count * np.log1p(-exact / (count * _ONE))).mean()
        return cls(threshold=threshold.astype(np.uint32), alias=alias.astype(np.uint32), seen=float(seen))

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.alias)

    num_rows = num_records
    """The number of rows of the table: one per record."""
    epoch_records = num_records
    """The number of draws in an epoch: as many as there are records."""

    @property
    def note(self) -> str:
        """The end of a sentence about the source: how it is drawn, and the fraction of its records in an epoch."""
        return f"is drawn by weight, with replacement: about {self.seen:.1%} of its records are seen in an epoch."


@dataclass(frozen=True, kw_only=True, eq=False)
class ByClass:
    """The classes of a source take turns, and a class gives all its records before it repeats one.

    In every round each class gives one record, and every round has another order of the classes. An epoch has as many
    rounds as it takes to give at least the number of records in the source; in each class it continues where the
    previous epoch ended.

    Attributes:
      records: The indices of the records, grouped by class, uint32 [num_records].
      counts: The number of records of each class, above 0, int64 [num_classes].
    """

    records: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, classes: np.ndarray) -> ByClass:
        """The records grouped by class, from the class of each, shape [num_records].

        >>> by_class = ByClass.of(np.array([7, 3, 7, 7]))
        >>> by_class.records.tolist(), by_class.counts.tolist(), by_class.epoch_records
        ([1, 0, 2, 3], [1, 3], 4)
        """
        records = np.argsort(classes, kind="stable").astype(np.uint32)
        ordered = classes[records]
        begins = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        return cls(records=records, counts=np.diff(begins, prepend=0, append=len(classes)))

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.records)

    @property
    def num_rows(self) -> int:
        """The number of classes."""
        return len(self.counts)

    @property
    def rounds(self) -> int:
        """The number of rounds in an epoch."""
        return -(-self.num_records // len(self.counts))

    @property
    def epoch_records(self) -> int:
        """The number of records in an epoch: those of the source, rounded up to whole rounds."""
        return self.rounds * len(self.counts)

    @property
    def note(self) -> str:
        """The end of a sentence about the source: the sizes of its classes, and the records that each gives."""
        sizes = " to ".join(f"{size:,}" for size in sorted({int(self.counts.min()), int(self.counts.max())}))
        classes = f"each of its {len(self.counts):,} classes, which have {sizes} records"
        return f"is balanced: {classes}, gives {self.rounds:,} records in an epoch of {self.epoch_records:,}."


Sampling: TypeAlias = ByWeight | ByClass
"""How the records of a source are drawn."""


class SamplingTables(NamedTuple):
    """The look-up tables for drawing records; a table has the rows of all sources, one source after the other.

    A table is None where no source is drawn in its way.

    Attributes:
      kind: How each source is drawn: 0 not at all, 1 by weight, 2 by class, uint32 [num_sources].
      grid: The permutation domain of each source's records, or classes; 1 where it is not drawn, uint32 [num_sources].
      first: The row of each source's first record, or class, uint32 [num_sources].
      rounds: The number of rounds in an epoch by class, else 1, uint32 [num_sources].
      threshold: See `ByWeight`, uint32 [records].
      alias: See `ByWeight`, uint32 [records].
      records: See `ByClass`, uint32 [records].
      begin: The row of the first record of each class, uint32 [classes].
      size: The permutation domain of the records of each class, uint32 [classes].
    """

    kind: Words
    grid: permute.Domain
    first: Words
    rounds: Words
    threshold: Words = None
    alias: Words = None
    records: Words = None
    begin: Words = None
    size: permute.Domain | None = None

    @classmethod
    def of(cls, sampling: Sequence[Sampling | None]) -> SamplingTables:
        """The tables of some sources; None for a source that is not drawn."""
        by_weight = [rule for rule in sampling if isinstance(rule, ByWeight)]
        by_class = [rule for rule in sampling if isinstance(rule, ByClass)]
        totals, firsts = {ByWeight: 0, ByClass: 0, type(None): 0}, []
        for rule in sampling:
            firsts.append(totals[type(rule)])
            totals[type(rule)] += 0 if rule is None else rule.num_rows
        kinds = [isinstance(rule, ByWeight) + 2 * isinstance(rule, ByClass) for rule in sampling]
        tables = cls(
            kind=np.asarray(kinds, np.uint32),
            grid=permute.domain([1 if rule is None else rule.num_rows for rule in sampling]),
            first=np.asarray(firsts, np.uint32),
            rounds=np.asarray([rule.rounds if isinstance(rule, ByClass) else 1 for rule in sampling], np.uint32),
        )
        if by_weight:
            tables = tables._replace(
                threshold=np.concatenate([rule.threshold for rule in by_weight]),
                alias=np.concatenate([rule.alias for rule in by_weight]),
            )
        if by_class:
            size = np.concatenate([rule.counts for rule in by_class])
            tables = tables._replace(
                records=np.concatenate([rule.records for rule in by_class]),
                begin=(np.cumsum(size) - size).astype(np.uint32),
                size=permute.domain(size),
            )
        return tables


def sample(
    tables: SamplingTables,
    keys: KeyWords,
    on: ArrayOps,
    source: Words,
    epoch: Words,
    index: Words,
    record: Words,
    *,
    shuffled: bool,
) -> Words:
    """Draw the records of some places in epochs, in NumPy or traced JAX.

    Args:
      tables: The look-up tables of all sources.
      keys: The key of each source's shuffle, two words, uint32 [num_sources] each.
      on: The operations for NumPy or for JAX.
      source: The source of each place, [count].
      epoch: The epoch of the source, uint32 [count].
      index: The index within the epoch, uint32 [count].
      record: The record for sources that are not drawn, uint32 [count].
      shuffled: Whether the classes, and the records of each, are shuffled.

    Returns:
      The records, uint32 [count].
    """
    key, kind = (on.choose(keys[0], source), on.choose(keys[1], source)), on.choose(tables.kind, source)
    grid = permute.Domain(*(on.choose(field, source) for field in tables.grid))
    first = on.choose(tables.first, source)
    if tables.threshold is not None:
        by_weight, drawn = kind == 1, fold(key, epoch)
        entry = multiply_high(draw(drawn, np.uint32(0), index), grid.size)
        row = on.where(by_weight, first + entry, np.uint32(0))
        is_own = draw(drawn, np.uint32(1), index) < on.look_up(tables.threshold, row)
        record = on.where(by_weight, on.where(is_own, entry, on.look_up(tables.alias, row)), record)
    if tables.size is not None:
        by_class, number = kind == 2, index // grid.size
        which = index - number * grid.size
        number = epoch * on.choose(tables.rounds, source) + number  # of the round, counted from epoch 0
        if shuffled:
            which = on.permute(which, grid, fold(key, number))
        row = on.where(by_class, first + which, np.uint32(0))
        size = permute.Domain(*(on.look_up(field, row) for field in tables.size))
        passed = number // size.size
        within = number - passed * size.size
        if shuffled:
            within = on.permute(within, size, fold(fold(key, which), passed))
        record = on.where(by_class, on.look_up(tables.records, on.look_up(tables.begin, row) + within), record)
    return record
