"""The plan: from a position in the mix to (source, epoch, record), without data, operators or JAX."""

from __future__ import annotations

import operator
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property, partial
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datamix import registry
from datamix.errors import ConfigError, hint
from datamix.mixing.fills import TABLE_SLOTS
from datamix.mixing.groups import by_path, resolve
from datamix.mixing.orders import Demand, Lengths, checked_lengths
from datamix.mixing.periods import Draws, Runs
from datamix.mixing.schedules import Phase, phases
from datamix.mixing.stops import Stage, cut, most_stages
from datamix.mixing.weights import Number
from datamix.rng import permute
from datamix.rng.hash import draw_at, fold, key_for, multiply_high

if TYPE_CHECKING:
    from datamix.mixing.plan_report import PlanReport

_MOST = 2**62


class Selection(NamedTuple):
    """Which records stand at some positions.

    Attributes:
      source: index of the source, int32 [count].
      epoch: how often the source had been gone through before, int64 [count]; of records drawn with replacement, how
        often it could have been.
      record: index of the record in its source, int64 [count].
    """

    source: np.ndarray
    epoch: np.ndarray
    record: np.ndarray


class Plan:
    """A mix as a pure function of (configuration, seed, position).

    Args:
      sizes: records in each source, by name, in order. A source named by a path, `vision.mnist`, belongs to the group
        `vision`, which takes part in the mix as one source would and divides what falls to it.
      weights: relative weights of sources, or of groups, among their neighbours; one not named has 1. Strings and
        fractions are taken exactly.
      ratio: in place of weights, of all there is to mix, as "7:3" or [7, 3].
      share: absolute shares, in [0, 1]; the other sources divide what is left by their weights.
      weighting: the rule that weighs those not named, in place of 1, see `datamix.mixing.weightings`: its name, or
        `{"rule": "size", "temperature": 2}`.
      group_weights: like `weights`, of what groups are made of; `weights` and `share` come before them.
      schedule: shares that change with the step, see `datamix.mixing.schedules.phases`.
      order: "proportional", "random", "round_robin" or "concat".
      stop: "first_exhausted", "all_exhausted", "exhaust_once" or "forever".
      epochs: how often a source has to be gone through to be exhausted; one not named, once.
      samples: end after so many records, if the stop has not ended the mix before.
      seed: of everything that is drawn.
      shuffle: "full" or True: visit each source in another order every epoch; "window(n)": shuffle the records inside
        windows of n as they are stored; "none" or False: as stored.
      seeds: a seed of its own for the shuffle of some sources.
      batch_size: records a batch: what steps, strata and batches of one source are counted in.
      granularity: "record", or "batch": whole batches of one source. A source then gives whole batches alone: under the
        stops that repeat nothing, records that fill none are left out; under the others a batch may hold the end of one
        epoch and the beginning of the next.
      lengths: of the records of each source, int [size] by name, such as numbers of tokens; the summed lengths then
        follow the ratio, not the records.
      settings: of the order: `window` and `stratify` for "proportional", `replacement` for "random"; see
        `datamix.mixing.orders`.

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
        weights: Mapping[str, Any] | None = None,
        *,
        ratio: object = None,
        share: Mapping[str, Any] | None = None,
        weighting: str | Mapping[str, Any] = "equal",
        group_weights: Mapping[str, Number] | None = None,
        schedule: Sequence[Mapping[str, Any]] | None = None,
        order: str = "proportional",
        stop: str = "first_exhausted",
        epochs: Mapping[str, int] | None = None,
        samples: int | None = None,
        seed: int = 0,
        shuffle: bool | str = True,
        seeds: Mapping[str, int] | None = None,
        batch_size: int = 1,
        granularity: str = "record",
        lengths: Mapping[str, np.ndarray] | None = None,
        **settings: object,
    ) -> None:
        inputs = {name: value for name, value in locals().items() if name not in ("self", "settings")}
        self._inputs: dict[str, Any] = inputs | settings
        if not sizes:
            raise ConfigError("a mix needs at least one source.")
        fill, rule = registry.lookup("order", order), registry.lookup("stop", stop)
        if samples is not None and samples < 1:
            raise ConfigError(f"stop.samples = {samples}; it is at least 1, or null for no such limit.")
        if batch_size < 1:
            raise ConfigError(f"batch.size = {batch_size}; it is at least 1.")
        registry.check_settings("mix", fill, settings)
        self.names = tuple(sizes)
        self.sizes = tuple(int(size) for size in sizes.values())
        self.seed = seed
        self.shuffle, self.shuffle_window = _shuffle(shuffle)
        self.batch_size = batch_size
        self.batch_records = batch_size if granularity == "batch" else 1
        self.shuffle_keys = tuple(key_for((seeds or {}).get(name, seed), "shuffle", name) for name in self.names)
        self.replacement_key = key_for(seed, "mix", "replacement")

        if self.batch_records > 1 and settings.get("stratify"):
            raise ConfigError("mix.stratify: a batch of one source has no quotas; use mix.granularity=record.")
        known = partial(resolve, self.names, own=group_weights, rule=_weighing(weighting), sizes=sizes)
        group = known(ratio=ratio, weights=weights, share=share)
        given = ratio is not None or bool(by_path(weights)) or bool(by_path(share))
        steps: list[Phase] = [(None, group)] if schedule is None else phases(schedule, group, given, known)
        if schedule is not None and order in ("round_robin", "concat"):
            raise ConfigError(f"mix.schedule: mix={order} knows no ratio; use mix=proportional or random.")
        seats_a_step = batch_size // self.batch_records
        self.phases = tuple((None if until is None else until * seats_a_step, part) for until, part in steps)
        self.shares = self.phases[0][1].leaf_shares()
        self.scheduled = schedule is not None

        once = self._once_over(epochs or {}, repeats=rule.repeats)
        self.lengths = None if lengths is None else checked_lengths(lengths, sizes, by_batch=self.batch_records > 1)
        demand = Demand(
            group=self.phases[0][1],
            lengths=once,
            seed=seed,
            batch=batch_size,
            # As much room for all phases together as for two alone: another schedule is then no other program.
            slots=TABLE_SLOTS if len(steps) <= 2 else max(2**13, 2 * TABLE_SLOTS >> (len(steps) - 1).bit_length()),
            unit=None if self.lengths is None else Lengths(of=self._length_of, lengths=self.lengths),
        )
        most = None if samples is None else -(-samples // self.batch_records)
        self._summed: dict[int, tuple[int, np.ndarray]] = {}
        self.stages: tuple[Stage, ...] = tuple(cut(rule, partial(fill, **settings), self.phases, demand, most))
        self.max_stages = max(
            most_stages(rule, len(self.names), len(self.phases), by_length=lengths is not None), len(self.stages)
        )
        last = self.stages[-1]
        ends = [] if samples is None else [samples]
        if last.length is not None:
            ends.append((last.first + last.length) * self.batch_records)
        self.length: int | None = min(ends, default=None)

    def _once_over(self, epochs: Mapping[str, int], *, repeats: bool) -> list[int]:
        """Seats until each source is exhausted.

        Raises:
          ConfigError: a source has too many records, none, or too few for a batch.
        """
        for name, times in epochs.items():
            if name not in self.names:
                raise ConfigError(
                    f"stop.epochs.{name}: there is no source {name!r} in this mix. {hint(name, self.names)}"
                )
            if isinstance(times, bool) or not isinstance(times, int) or times < 1:
                raise ConfigError(f"stop.epochs.{name} = {times!r}; it is a whole number, 1 or more.")
        unit = self.batch_records
        taking = {source for _, group in self.phases for source, share in group.leaves() if share}
        once = []
        for source, (name, size) in enumerate(zip(self.names, self.sizes, strict=True)):
            records = size * epochs.get(name, 1)
            length = -(-records // unit) if repeats else records // unit
            if size < 0 or size > permute.MAX_SIZE:
                raise ConfigError(f"source {name!r} has {size} records; a source has at most 2^32 - 1.")
            if source in taking and not size:
                raise ConfigError(f"source {name!r} is empty; leave it out of source=, or set mix.weights.{name}=0.")
            if source in taking and not length:
                raise ConfigError(
                    f"source {name!r} has {size} records, which fill no batch of {unit}; "
                    f"make batch.size {size} or less, or use mix.granularity=record."
                )
            once.append(length)
        return once

    def _length_of(self, source: int, number: np.ndarray) -> np.ndarray:
        """Lengths of the records that a source gives under some numbers."""
        assert self.lengths is not None
        epoch, index = np.divmod(number, self.sizes[source])
        own: np.ndarray = self.lengths[source][self._shuffled(np.full(len(number), source), epoch, index)]
        return own

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {float(share):.4g}" for name, share in zip(self.names, self.targets, strict=True))
        return f"<Plan: {shares}; {'without end' if self.length is None else f'{self.length:,} records'}>"

    def _repr_html_(self) -> str:
        """The sources as a table, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{size:,}</td><td>{100 * float(share):.4g} %</td></tr>"
            for name, size, share in zip(self.names, self.sizes, self.targets, strict=True)
        )
        length = "without end" if self.length is None else f"{self.length:,} records"
        return f"<table><tr><th>source</th><th>records</th><th>share</th></tr>{rows}</table><p>The mix: {length}.</p>"

    def with_weights(self, weights: Mapping[str, Number]) -> Plan:
        """The same mix in another ratio, constant from the first step to the last.

        Args:
          weights: relative weights of sources and groups; one not named has 1, or what its group gives it.

        Raises:
          ConfigError: an unknown source, or numbers that make no mix.
        """
        own = {"weights": weights, "ratio": None, "share": None, "weighting": "equal", "schedule": None}
        return Plan(**(self._inputs | own))

    def take(self, start: int, count: int) -> Selection:
        """The records at the positions [start, start + count).

        Args:
          start: 0 or more; any start costs the same, but for `order="random"` without replacement, whose draws before
            it are summed up once.
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

    def amounts(self, position: int) -> list[int]:
        """What each source gives before `position`, in the mix's unit: records, or their summed lengths."""
        counts = self.counts(position)
        if self.lengths is None:
            return counts
        found = []
        for source, (count, size) in enumerate(zip(counts, self.sizes, strict=True)):
            epochs, rest = divmod(count, max(size, 1))
            begun = int(self._summed_lengths(source, epochs)[rest - 1]) if rest else 0
            found.append(epochs * int(self.lengths[source].sum()) + begun)
        return found

    def _summed_lengths(self, source: int, epoch: int) -> np.ndarray:
        """Summed lengths up to each record of an epoch; the last epoch of each source is kept."""
        kept = self._summed.get(source)
        if kept is None or kept[0] != epoch:
            size = self.sizes[source]
            kept = self._summed[source] = epoch, np.cumsum(self._length_of(source, epoch * size + np.arange(size)))
        return kept[1]

    def report(self) -> PlanReport:
        """Realised shares, epochs, exhaustion, the largest deviation, and what a user would want to know."""
        from datamix.mixing.plan_report import report

        return report(self)

    def max_deviation(self, records: int | None = None) -> tuple[float, int]:
        """By how much a source is ever away from its exact share since the current stage began, at the end of a seat.

        Args:
          records: look at the first so many; at most, and by default, at the first 2^20 seats.

        Returns:
          The largest deviation, in records (or in the unit of their lengths), and over how many records it was looked
          for.
        """
        from datamix.mixing.plan_report import max_deviation

        return max_deviation(self, records)

    def long_run_share(self, source: int) -> float:
        """The share that a source gets over a whole period of the last stage."""
        from datamix.mixing.plan_report import realised

        return realised(self, self.stages[-1])[source]

    @cached_property
    def targets(self) -> tuple[Fraction, ...]:
        """The share of each source in the mix as a whole; concatenation gives every source its own length."""
        period = self.stages[0].period
        if isinstance(period, Runs):
            return tuple(Fraction(length, period.length) for length in period.lengths)
        if not self.scheduled:
            return self.shares
        if self.length is None:
            return self.stages[-1].shares
        seats = -(-self.length // self.batch_records)
        spans = [max(0, min(stage.length or seats, seats - stage.first)) for stage in self.stages]
        return tuple(
            sum((span * stage.shares[source] for span, stage in zip(spans, self.stages, strict=True)), Fraction(0))
            / seats
            for source in range(len(self.names))
        )

    def targets_at(self, position: int) -> tuple[Fraction, ...]:
        """The share of each source that is asked for at a position."""
        stage = self._stage_at(position // self.batch_records)
        return self.targets if isinstance(stage.period, Runs) else stage.shares

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
        return self.stages[bisect_right(self._firsts, seat) - 1]

    @cached_property
    def _firsts(self) -> list[int]:
        return [stage.first for stage in self.stages]

    def _record(self, start: int, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The record that stands at `index` of its source's epoch."""
        period = self.stages[0].period
        if isinstance(period, Draws) and period.replacement:
            position = np.uint64(start) + np.arange(len(source), dtype=np.uint64)
            sizes = np.asarray(self.sizes, np.uint32)[source]
            return np.asarray(multiply_high(draw_at(self.replacement_key, position), sizes), np.int64)
        return self._shuffled(source, epoch, index)

    def _shuffled(self, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The record at `index` of an epoch's order."""
        if self.shuffle == "none" or not len(source):
            return index
        words = np.asarray(self.shuffle_keys, np.uint32)[source]
        key = fold((words[:, 0], words[:, 1]), epoch.astype(np.uint32))
        grid = permute.Domain(*(field[source] for field in self.grid))
        if self.shuffle == "full":
            return permute.permute(index.astype(np.uint32), grid, key).astype(np.int64)
        block, within = np.divmod(index, self.shuffle_window)
        last = block == np.asarray(self.sizes, np.int64)[source] // self.shuffle_window
        tail = permute.Domain(*(field[source] for field in self.tail))
        grid = permute.Domain(*(np.where(last, short, whole) for short, whole in zip(tail, grid, strict=True)))
        key = fold(key, block.astype(np.uint32))
        moved = permute.permute(within.astype(np.uint32), grid, key).astype(np.int64)
        begin: np.ndarray = block * self.shuffle_window
        return begin + moved

    @cached_property
    def grid(self) -> permute.Domain:
        """The shuffle's grid for each source, or for its whole windows, uint32 [num_sources]."""
        if self.shuffle == "window":
            return permute.domain([self.shuffle_window] * len(self.sizes))
        return permute.domain([max(size, 1) for size in self.sizes])

    @cached_property
    def tail(self) -> permute.Domain:
        """The grid of each source's last window, which may be shorter, uint32 [num_sources]."""
        if self.shuffle != "window":
            return self.grid
        return permute.domain([size % self.shuffle_window or 1 for size in self.sizes])


def _shuffle(value: object) -> tuple[str, int]:
    """The kind of shuffle, and the records of a window.

    Raises:
      ConfigError: it is none.
    """
    if isinstance(value, bool):
        value = "full" if value else "none"
    found = re.fullmatch(r"full|none|window\((\d+)\)", str(value).replace(" ", ""))
    if found is None or not 1 <= int(found[1] or 1) <= permute.MAX_SIZE:
        raise ConfigError(f"shuffle = {value}; it is full, none, or window(n) with n at least 1, as in window(1000).")
    return found[0].partition("(")[0], int(found[1] or 1)


def _weighing(weighting: str | Mapping[str, Any]) -> Any:
    """The rule that weighs the sources for whom nothing is said."""
    settings = {"rule": weighting} if isinstance(weighting, str) else dict(weighting)
    rule = registry.lookup("weighting", settings.pop("rule"))
    registry.check_settings("weighting", rule, settings)
    return partial(rule, **settings)
