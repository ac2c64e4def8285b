"""The plan: from a position in the mix to (source, epoch, record), without data, operators or JAX."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from datamix import permute, registry
from datamix.errors import ConfigError
from datamix.mixing.orders import MAX_DRAWS, Demand, Draws, Period, Runs, Table
from datamix.mixing.stops import Stage, most_stages, repeats
from datamix.mixing.weights import Number, resolve_shares
from datamix.rng import draw_at, fold, key_for, multiply_high

# How many positions `report` walks for the largest deviation; the bound makes more of them tell nothing new.
_WALKED = 2**20
_MOST = 2**62
_FAR = 10**9  # records of a mix without end over which a drift of one record would matter


class Selection(NamedTuple):
    """Which records stand at some positions.

    Attributes:
      source: index of the source, int32 [count].
      epoch: how often the source had been gone through before, int64 [count].
      record: index of the record in its source, int64 [count].
    """

    source: np.ndarray
    epoch: np.ndarray
    record: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """What a mix makes of one source.

    Attributes:
      records: how many it has.
      target: the share asked for.
      share: the share it gets; in the long run for a mix without end.
      samples: records it gives; None without end.
      epochs: how often it is gone through; None without end.
      exhausted_at: position right after its last unseen record; None if the mix ends before.
    """

    records: int
    target: float
    share: float
    samples: int | None
    epochs: float | None
    exhausted_at: int | None


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What a mix will do.

    Attributes:
      length: records in the whole mix; None without end.
      max_deviation: records by which any source is ever away from its exact share, since the current stage began, at
        the end of any seat.
      walked: positions over which `max_deviation` was taken.
      sources: by name.
      warnings: what a user would want to know.
    """

    length: int | None
    max_deviation: float
    walked: int
    sources: dict[str, SourceReport]
    warnings: tuple[str, ...]


class Plan:
    """A mix as a pure function of (configuration, seed, position).

    Args:
      sizes: records in each source, by name, in order.
      weights: relative weight of each source; one not named has 1. Strings and fractions are taken exactly.
      order: "proportional", "random", "round_robin" or "concat".
      stop: "first_exhausted", "all_exhausted", "exhaust_once" or "forever".
      seed: of everything that is drawn.
      shuffle: visit each source in another order every epoch; otherwise as it is stored.
      samples: end after so many records, if the stop has not ended the mix before.
      seeds: a seed of its own for the shuffle of some sources.
      batch_records: records of one source in a row: the batch size where whole batches are mixed, otherwise 1. A
        source then gives whole batches alone: under the stops that repeat nothing, records that fill none are left
        out; under the others a batch may hold the end of one epoch and the beginning of the next.
      settings: of the order: `window` for "proportional", `replacement` for "random"; see `datamix.mixing.orders`.

    Raises:
      ConfigError: names, numbers or rules that make no mix.

    >>> plan = Plan(sizes={"a": 5, "b": 3}, weights={"a": 2, "b": 1}, stop="all_exhausted", shuffle=False)
    >>> plan.length
    8
    >>> plan.take(0, 8).source.tolist()
    [0, 1, 0, 0, 1, 0, 0, 1]
    >>> plan.take(0, 8).record.tolist()
    [0, 0, 1, 2, 1, 3, 4, 2]
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, Number] | None = None,
        *,
        order: str = "proportional",
        stop: str = "first_exhausted",
        seed: int = 0,
        shuffle: bool = True,
        samples: int | None = None,
        seeds: Mapping[str, int] | None = None,
        batch_records: int = 1,
        **settings: object,
    ) -> None:
        if not sizes:
            raise ConfigError("a mix needs at least one source.")
        fill, cut = registry.lookup("order", order), registry.lookup("stop", stop)
        if samples is not None and samples < 1:
            raise ConfigError(f"stop.samples = {samples}; it is at least 1, or null for no such limit.")
        if batch_records < 1:
            raise ConfigError(f"batch.size = {batch_records}; it is at least 1.")
        registry.check_settings("mix", fill, settings)
        self.names = tuple(sizes)
        self.sizes = tuple(int(size) for size in sizes.values())
        self.seed = seed
        self.shuffle = shuffle
        self.batch_records = batch_records
        shares = resolve_shares(self.names, weights=weights)
        self.shares = tuple(shares.values())
        lengths = [-(-size // batch_records) if repeats(cut) else size // batch_records for size in self.sizes]
        for name, size, length, share in zip(self.names, self.sizes, lengths, self.shares, strict=True):
            if size < 0 or size > permute.MAX_SIZE:
                raise ConfigError(f"source {name!r} has {size} records; a source has at most 2^32 - 1.")
            if share and not size:
                raise ConfigError(f"source {name!r} is empty; leave it out of source=, or set mix.weights.{name}=0.")
            if share and not length:
                raise ConfigError(
                    f"source {name!r} has {size} records, which fill no batch of {batch_records}; "
                    f"make batch.size {size} or less, or use mix.granularity=record."
                )
        self.shuffle_keys = tuple(key_for((seeds or {}).get(name, seed), "shuffle", name) for name in self.names)
        self.replacement_key = key_for(seed, "mix", "replacement")
        demand = Demand(shares=self.shares, lengths=lengths, first=0, seed=seed)
        self.stages: tuple[Stage, ...] = tuple(cut(partial(fill, **settings), demand))
        self.max_stages = max(most_stages(cut, len(self.names)), len(self.stages))
        last = self.stages[-1]
        ends = [] if samples is None else [samples]
        if last.length is not None:
            ends.append((last.first + last.length) * batch_records)
        self.length: int | None = min(ends, default=None)

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {float(share):.4g}" for name, share in zip(self.names, self.targets, strict=True))
        return f"<Plan: {shares}; {'without end' if self.length is None else f'{self.length:,} records'}>"

    def take(self, start: int, count: int) -> Selection:
        """The records at the positions [start, start + count).

        Args:
          start: 0 or more; any start costs the same, but for `order="random"`, whose draws before it are summed up
            once.
          count: 0 or more; positions past the plan's end are left out.

        Returns:
          int32 and int64 arrays of shape [count].
        """
        start, count = operator.index(start), operator.index(count)
        if start < 0 or count < 0 or start + count >= _MOST:
            raise ValueError(f"take({start}, {count}): start and count are 0 or more, and less than 2^62 together")
        if self.length is not None:
            count = max(0, min(count, self.length - start))
        unit = self.batch_records
        first, last = start // unit, -(-(start + count) // unit)
        if not count:
            last = first  # a start within a batch reaches into it, and past the end there is none
        source, number = self._seats(first, last - first)
        if unit > 1:
            within = np.tile(np.arange(unit), last - first)
            source, number = np.repeat(source, unit), np.repeat(number, unit) * unit + within
            skipped = start - first * unit
            source, number = source[skipped : skipped + count], number[skipped : skipped + count]
        sizes = np.maximum(np.asarray(self.sizes, np.int64), 1)[source]
        epoch, index = np.divmod(number, sizes)
        return Selection(source, epoch, self._record(start, source, epoch, index))

    def counts(self, position: int) -> list[int]:
        """Records each source gives before `position`."""
        stage = self._stage_at(position // self.batch_records)
        seats, rest = divmod(position, self.batch_records)
        used = stage.period.counts(seats - stage.first)
        counts = [(base + n) * self.batch_records for base, n in zip(stage.base, used, strict=True)]
        if rest:
            counts[int(self._seats(seats, 1)[0][0])] += rest
        return counts

    def report(self) -> PlanReport:
        """Realised shares, epochs, exhaustion and the largest deviation of the mix."""
        counts = None if self.length is None else self.counts(self.length)
        sources = {}
        for source, name in enumerate(self.names):
            size = self.sizes[source]
            samples = None if counts is None else counts[source]
            sources[name] = SourceReport(
                records=size,
                target=float(self.targets[source]),
                share=self.long_run_share(source)
                if counts is None or not self.length
                else counts[source] / self.length,
                samples=samples,
                epochs=None if samples is None else (samples / size if size else 0.0),
                exhausted_at=self._exhausted_at(source, samples),
            )
        deviation, walked = self.max_deviation()
        return PlanReport(
            length=self.length,
            max_deviation=deviation,
            walked=walked,
            sources=sources,
            warnings=tuple(self._warnings(sources)),
        )

    @cached_property
    def targets(self) -> tuple[Fraction, ...]:
        """The share of each source in the mix as a whole; concatenation gives every source its own length."""
        period = self.stages[0].period
        if isinstance(period, Runs):
            return tuple(Fraction(length, period.length) for length in period.lengths)
        return self.shares

    def _seats(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of each seat in [first, first + count), int32, and its number among the source's, int64."""
        sources, numbers = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        while count:
            stage = self._stage_at(first)
            begin = first - stage.first
            taken = count if stage.length is None else min(count, stage.length - begin)
            source, number = stage.period.take(begin, taken)
            sources.append(source)
            numbers.append(number + np.asarray(stage.base, np.int64)[source])
            first, count = first + taken, count - taken
        return np.concatenate(sources), np.concatenate(numbers)

    def _stage_at(self, seat: int) -> Stage:
        return next(stage for stage in reversed(self.stages) if stage.first <= seat)

    def _record(self, start: int, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The record that stands at `index` of its source's epoch."""
        period = self.stages[0].period
        if isinstance(period, Draws) and period.replacement:
            position = np.uint64(start) + np.arange(len(source), dtype=np.uint64)
            sizes = np.asarray(self.sizes, np.uint32)[source]
            return np.asarray(multiply_high(draw_at(self.replacement_key, position), sizes), np.int64)
        if not self.shuffle or not len(source):
            return index
        words = np.asarray(self.shuffle_keys, np.uint32)[source]
        key = fold((words[:, 0], words[:, 1]), epoch.astype(np.uint32))
        grid = permute.Domain(*(field[source] for field in self.grid))
        return permute.permute(index.astype(np.uint32), grid, key).astype(np.int64)

    @cached_property
    def grid(self) -> permute.Domain:
        """The shuffle's grid for each source, uint32 [num_sources]."""
        return permute.domain([max(size, 1) for size in self.sizes])

    def _exhausted_at(self, source: int, samples: int | None) -> int | None:
        last_record = self.sizes[source] - 1
        period = self.stages[0].period
        if not self.shares[source] or (samples is not None and samples <= last_record):
            return None
        if isinstance(period, Draws):
            if period.replacement:
                return None  # of records drawn with replacement, some are never seen
            if self.length is None and last_record / self.shares[source] > MAX_DRAWS * self.batch_records:
                return None  # too far to walk
        number, within = divmod(last_record, self.batch_records)
        stage = next(stage for stage in reversed(self.stages) if stage.base[source] <= number)
        seat = stage.period.position_of(source, number - stage.base[source])
        return (stage.first + seat) * self.batch_records + within + 1

    def long_run_share(self, source: int) -> float:
        """The share that a source gets over a whole period of the last stage."""
        period = self.stages[-1].period
        return _realised(period, self.stages[-1].shares)[source]

    def max_deviation(self, records: int | None = None) -> tuple[float, int]:
        """By how much a source is ever away from its exact share since the current stage began, at the end of a seat.

        Args:
          records: look at the first so many; at most, and by default, at the first 2^20 seats.

        Returns:
          The largest deviation, in records, and over how many records it was looked for.
        """
        worst, walked, unit = 0.0, 0, self.batch_records
        ends = [end for end in (records, self.length) if end is not None]
        seats = min([_WALKED, *(-(-end // unit) for end in ends)])
        for stage in self.stages:
            count = min(seats - stage.first, stage.length or seats)
            if count <= 0:
                break
            source, _ = stage.period.take(0, count)
            targets = self.targets if isinstance(stage.period, Runs) else stage.shares
            worst = max(worst, largest_deviation(source, [float(share) for share in targets]) * unit)
            walked += count
        return worst, walked * unit

    def _drift(self) -> str:
        """Say where a table that the weights do not fit leaves the exact shares by more than a record, if it does."""
        stage = self.stages[0]
        period = stage.period
        if not isinstance(period, Table) or (self.length is not None and self.length <= period.length):
            return ""
        apart = [
            (abs(got - float(share)), name, got, float(share))
            for name, got, share in zip(self.names, _realised(period, stage.shares), stage.shares, strict=True)
        ]
        most, name, got, share = max(apart)
        if most * (self.length or _FAR) < 1:
            return ""
        return (
            f"the exact shares are followed for {period.length:,} records; from there on {name} gets {got:.6g}, not "
            f"{share:.6g}. Weights of fewer digits avoid it."
        )

    def _warnings(self, sources: Mapping[str, SourceReport]) -> list[str]:
        found = [drift] if (drift := self._drift()) else []
        for name, share in zip(self.names, self.shares, strict=True):
            if not share:
                found.append(f"{name} has no share and gives no record.")
            elif sources[name].samples == 0:
                found.append(f"{name} gives no record: the mix ends before its turn.")
        for name, row in sources.items():
            if row.samples and row.epochs is not None and row.epochs < 0.5:
                found.append(
                    f"{row.records - row.samples:,} of {name}'s {row.records:,} records are never seen; under another "
                    "stop the mix goes on."
                )
        late = max((row.exhausted_at or 0, name) for name, row in sources.items())
        repeats = [
            (count / row.records, name)
            for count, (name, row) in zip(self.counts(late[0]), sources.items(), strict=True)
            if row.records
        ]
        most, name = max(repeats, default=(0.0, ""))
        if most >= 2:
            found.append(f"{name} is repeated {math.floor(most)} times before {late[1]} is seen once.")
        return found


def _realised(period: Period, shares: object) -> list[float]:
    """The share of each source over a whole period."""
    if isinstance(period, Table):
        return [float(quota) / period.length for quota in period.quota]
    if isinstance(period, Runs):
        return [length / period.length for length in period.lengths]
    return [float(share) for share in shares]  # type: ignore[attr-defined]


def largest_deviation(source: np.ndarray, shares: list[float]) -> float:
    """The largest distance of any source's count from its share, over all prefixes.

    Args:
      source: source of each record, int [count].
      shares: exact share of each source.

    >>> largest_deviation(np.array([0, 1, 0, 0]), [0.75, 0.25])
    0.5
    """
    # A source's count is farthest above its share right after one of its seats, and farthest below right before one or
    # at the end: no need to look at every source at every position.
    table = Table(source, len(shares))
    share, before = np.asarray(shares)[source], np.arange(len(source))
    above = (table.rank_of + 1 - share * (before + 1)).max(initial=0)
    below = (share * before - table.rank_of).max(initial=0)
    end = np.abs(table.quota - np.asarray(shares) * len(source)).max(initial=0)
    return float(max(above, below, end))
