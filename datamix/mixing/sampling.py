"""Sources whose records are not gone through one after the other: drawn by weight, or class by class.

As in a shuffle, the record is a pure function of the source's key, the epoch and the place in it; and what computes it
works on NumPy arrays and on traced JAX arrays alike, so that the plan and the compiled pipeline cannot differ.
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
      choose: `table[index]` of a table with a row a source.
      look_up: `table[index]` of a table with a row a record, or a class.
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
      threshold: How many of 2^32 draws of each place of the table give its own record, uint32 [num_records].
      alias: The record that the others give, uint32 [num_records].
      seen: The share of the records that an epoch is expected to give at least once.
    """

    threshold: np.ndarray
    alias: np.ndarray
    seen: float

    @classmethod
    def of(cls, weights: np.ndarray) -> ByWeight:
        """The alias table of some weights, exact to 2^-32 of their mean; no record of a positive weight gets none.

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
        # A light place is filled by the first heavy record whose cumulative excess exceeds the deficit of all light
        # places before it. A heavy record's own place is what remains of it, filled by the next heavy record.
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

    num_rows = num_records
    """The number of rows of the table: a record each."""
    epoch_records = num_records
    """The draws of an epoch: as many as there are records."""

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
        """The records, given the class of each, [num_records].

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
        classes = f"each of its {len(self.counts):,} classes, which have {sizes} records"
        return f"is balanced: {classes}, gives {self.rounds:,} records in an epoch of {self.epoch_records:,}."


Sampling: TypeAlias = ByWeight | ByClass
"""How the records of a source are drawn."""


class SamplingTables(NamedTuple):
    """What is looked up to draw records: rows of all sources, one after the other; None for a kind that none has.

    Attributes:
      kind: 0 for a source of which nothing is drawn, 1 by weight, 2 by class, uint32 [num_sources].
      grid: The number of its records, or of its classes, and 1 of the others, uint32 [num_sources].
      first: The row of its first record, or class, uint32 [num_sources].
      rounds: The rounds of an epoch by class, uint32 [num_sources].
      threshold: See `ByWeight`, uint32 [records].
      alias: See `ByWeight`, uint32 [records].
      records: See `ByClass`, uint32 [records].
      begin: The row of the first record of each class, uint32 [classes].
      size: The number of its records, uint32 [classes].
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
        weights = [each for each in sampling if isinstance(each, ByWeight)]
        classes = [each for each in sampling if isinstance(each, ByClass)]
        totals, firsts = {ByWeight: 0, ByClass: 0, type(None): 0}, []
        for each in sampling:
            firsts.append(totals[type(each)])
            totals[type(each)] += 0 if each is None else each.num_rows
        kinds = [isinstance(each, ByWeight) + 2 * isinstance(each, ByClass) for each in sampling]
        tables = cls(
            kind=np.asarray(kinds, np.uint32),
            grid=permute.domain([1 if each is None else each.num_rows for each in sampling]),
            first=np.asarray(firsts, np.uint32),
            rounds=np.asarray([each.rounds if isinstance(each, ByClass) else 1 for each in sampling], np.uint32),
        )
        if weights:
            tables = tables._replace(
                threshold=np.concatenate([each.threshold for each in weights]),
                alias=np.concatenate([each.alias for each in weights]),
            )
        if classes:
            size = np.concatenate([each.counts for each in classes])
            tables = tables._replace(
                records=np.concatenate([each.records for each in classes]),
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
    """Records as they are drawn; NumPy or traced JAX, uint32 [count] each.

    Args:
      record: What stands there where nothing is drawn.
      shuffled: Whether the classes and their records are put into another order.
    """
    key, kind = (on.choose(keys[0], source), on.choose(keys[1], source)), on.choose(tables.kind, source)
    grid = permute.Domain(*(on.choose(field, source) for field in tables.grid))
    first = on.choose(tables.first, source)
    if tables.threshold is not None:
        by_weight, drawn = kind == 1, fold(key, epoch)
        place = multiply_high(draw(drawn, np.uint32(0), index), grid.size)
        row = on.where(by_weight, first + place, np.uint32(0))
        own = draw(drawn, np.uint32(1), index) < on.look_up(tables.threshold, row)
        record = on.where(by_weight, on.where(own, place, on.look_up(tables.alias, row)), record)
    if tables.size is not None:
        by_class, number = kind == 2, index // grid.size
        which = index - number * grid.size
        number = epoch * on.choose(tables.rounds, source) + number  # of the round, since the beginning of the mix
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
