"""Locate records: from a position to (source, epoch, record), and to the counts of each source before it."""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.plan_spec import ResolvedSpec
from datamix.mixing.stages import Stage, beyond_cap, most_stages
from datamix.rng.hash import draw_at, key_for, multiply_high

MOST_RECORDS = 2**62
"""The upper end, exclusive, of the positions of a mix, in records."""
_FAR = 2**61
_SEEN = 2**16  # records from which the mean number of tokens is estimated


class Selection(NamedTuple):
    """The records at some positions.

    Attributes:
      source: The index of the source, int32 [count].
      epoch: The number of epochs of the source before this one, int64 [count]. Under an order that draws records with
        replacement, it is the number of times that the source would fit into the positions before.
      record: The index of the record in its source, int64 [count].
    """

    source: np.ndarray
    epoch: np.ndarray
    record: np.ndarray


class Locator:
    """A mix cut into stages, which locates the record at a position and counts the records before it.

    Attributes:
      names: The names of the sources, in order.
      sizes: The number of records of each source, shape [num_sources].
      stages: The parts of the mix with fixed shares.
      begin: The position at which the plan begins.
      max_stages: The largest number of stages of the mix, whatever the weights.
      phases: The slot at which each phase ends, None for the last, and the shares until then.
      scheduled: Whether the mix has a schedule.
      sees_all: Whether the mix is meant to give every record of the sources that have a share.
      shares: The requested shares in the first phase, shape [num_sources].
      length: The number of records in the whole mix; None without end.
      most_records: An upper bound on the records of the mix, whatever the weights; None where there is none.
      batch_size: The number of records in a batch.
      slot_records: The number of records in a slot: 1, or the batch size where whole batches of one source are mixed.
      lengths: The lengths of the records of each source, int64 [size] each, where their sums follow the ratio; else
        None.
      seed: The seed of everything that is drawn.
      epoch_records: The number of records in an epoch of each source, shape [num_sources]; its size, unless its records
        are drawn.
      sampling: How the records of each source are drawn, None where they are not, shape [num_sources].
      shuffle: The order of the records within their sources.
      caps: The largest number of slots of a source, by its index, before it leaves the mix or ends it.
      replacement_key: The key of the records that are drawn with replacement.
    """

    def __init__(self, mix: ResolvedSpec, stages: Sequence[Stage]) -> None:
        demand = mix.demand
        self.names, self.sizes, self.seed = demand.names, mix.sizes, demand.seed
        self.batch_size, self.slot_records = demand.batch_size, demand.slot_records
        self.phases, self.scheduled = mix.phases, demand.scheduled
        # A limit on the number of records leaves some unseen on purpose.
        self.sees_all = mix.limit is None and (mix.stop.drops or (mix.stop.waits_for == "all" and not mix.stop.sources))
        self.shares = mix.phases[0][1].leaf_shares()
        self.stages = tuple(stages)
        self.begin = mix.begin * self.slot_records
        num_caps = len(mix.caps) if mix.drops_at_cap else 0
        most = most_stages(mix.stop, len(self.names), len(mix.phases), num_caps=num_caps)
        self.max_stages = max(most, len(stages))
        last = self.stages[-1]
        ends = [] if mix.samples is None else [mix.samples]
        if last.length is not None:
            ends.append((last.first + last.length) * self.slot_records)
        self.length: int | None = min(ends, default=None)
        bounds = [mix.samples, None if demand.most is None else demand.most * self.slot_records]
        self.most_records: int | None = min((bound for bound in bounds if bound is not None), default=None)
        self._lengths, self._num_tokens = demand.lengths, mix.num_tokens
        self.lengths = None if self._lengths is None else self._lengths.stored
        self.caps, self._ends_at_cap = mix.caps, not mix.drops_at_cap and mix.stop.waits_for is None and not mix.samples
        self.shuffle, self.sampling = mix.shuffle, mix.shuffle.sampling
        self.epoch_records = mix.shuffle.epoch_records
        repeats = mix.stop.waits_for is None and not last.period.repeats_records
        self._foreseen = {
            i: slots * self.slot_records
            for i, slots in enumerate(demand.remaining)
            if repeats and i not in mix.caps and self.sampling[i] is None
        }
        self.replacement_key = key_for(self.seed, "mix", "replacement")

    def has_share(self, source: int) -> bool:
        """Whether a source has a share in any phase, even in one after the end of the mix."""
        return any(group.leaf_shares()[source] for _, group in self.phases)

    def take(self, start: int, count: int) -> Selection:
        """The records at the positions [start, start + count).

        Args:
          start: The first position, 0 or more, and not before the plan begins. Every position costs the same, except
            under `order="random"` without replacement, where the draws before it are summed up once.
          count: The number of positions, 0 or more; those past the end of the plan are left out.

        Returns:
          int32 and int64 arrays of shape [count], or shorter at the end of the plan.

        Raises:
          ValueError: The positions are out of range.
        """
        start, count = operator.index(start), operator.index(count)
        if start < 0 or count < 0 or start + count >= MOST_RECORDS:
            raise ValueError(f"take({start}, {count}): start and count are 0 or more, and less than 2^62 together")
        if start < self.begin:
            raise ValueError(f"take({start}, {count}): this plan begins at {self.begin}")
        if self.length is not None:
            count = max(0, min(count, self.length - start))
        slot_records = self.slot_records
        first, last = start // slot_records, -(-(start + count) // slot_records)
        if not count:
            last = first  # otherwise a start within a batch would read a slot, possibly past the end
        source, number = self.slots(first, last - first)
        if slot_records > 1:
            within = np.tile(np.arange(slot_records), last - first)
            source, number = np.repeat(source, slot_records), np.repeat(number, slot_records) * slot_records + within
            skipped = start - first * slot_records
            source, number = source[skipped : skipped + count], number[skipped : skipped + count]
        sizes = np.maximum(np.asarray(self.epoch_records, np.int64), 1)[source]
        epoch, index = np.divmod(number, sizes)
        return Selection(source, epoch, self._record(start, source, epoch, index))

    def counts(self, position: int) -> list[int]:
        """The number of records that each source gives before `position`, or before the end of the plan."""
        position = max(position if self.length is None else min(position, self.length), self.begin)
        stage = self.stage_at(position)
        slots, rest = divmod(position, self.slot_records)
        used = stage.period.counts(slots - stage.first)
        counts = [(base + n) * self.slot_records for base, n in zip(stage.base, used, strict=True)]
        if rest:
            counts[int(self.slots(slots, 1)[0][0])] += rest
        return counts

    def can_count(self, position: int | None) -> bool:
        """Whether the records of each source before `position` can be counted.

        They cannot without end (None), nor where too many would have to be drawn one by one.
        """
        most = self.stages[-1].period.most_counted
        return position is not None and (most is None or position <= most * self.slot_records)

    def amounts(self, position: int) -> list[int]:
        """The amount that each source gives before `position`, in the unit of the mix: records or summed lengths."""
        counts = self.counts(position)
        if self._lengths is None:
            return counts
        return [self._lengths.summed(source, count) for source, count in enumerate(counts)]

    def tokens(self, counts: Sequence[int]) -> list[int] | None:
        """The tokens in the first `counts` records of each source; None where no source has any.

        For records drawn with replacement, it is the expected number.
        """
        if self._num_tokens is None:
            return None
        if self.stages[0].period.repeats_records:
            sums = zip(counts, self._num_tokens.stored, strict=True)
            return [round(count * float(tokens.mean())) if len(tokens) else 0 for count, tokens in sums]
        return [self._num_tokens.summed(source, count) for source, count in enumerate(counts)]

    def records_until(self, tokens: int) -> int | None:
        """The number of records after which the mix has given `tokens` tokens; None where it ends before.

        Raises:
          ConfigError: The mix gives no tokens.
        """

        def tokens_at(position: int) -> int:
            return sum(self.tokens(self.counts(max(position, 0))) or ())

        if self.length is not None and tokens_at(self.length) < tokens:
            return None
        most = _FAR if self.length is None else self.length
        seen = min(_SEEN, most)
        if not (mean := tokens_at(seen) / seen):
            raise ConfigError("the sources that have a share have no tokens", key="stop.tokens", value=tokens)
        # Search close to the position that the mean predicts: farther off, each evaluation sums up another epoch.
        guess, width = min(int(tokens / mean), most), 2**10
        while (guess > width and tokens_at(guess - width) >= tokens) or (
            guess + width < most and tokens_at(guess + width) < tokens
        ):
            width *= 2
        around = range(max(guess - width, 0), min(guess + width, most) + 1)
        return around[bisect_left(around, tokens, key=tokens_at)]

    def refusal(self) -> ConfigError | None:
        """The error at the end of an endless mix that `at_max_epochs="error"` stops; None for every other mix."""
        last = self.stages[-1]
        if not self._ends_at_cap or last.length is None:
            return None
        source = int(last.period.take(last.length, 1)[0][0])
        return beyond_cap(self.names[source], (last.first + last.length) * self.slot_records)

    def unforeseen(self, position: int, counts: Sequence[int] = ()) -> dict[str, float]:
        """The number of epochs before a position of each source, by name, that has repeated more than a user expects.

        A mix without end is expected to repeat no source beyond one epoch, or beyond its `epochs`; a source with
        `max_epochs` is left out.

        Args:
          position: The position in the mix, in records.
          counts: The number of records that each source has given by then, where the weights have changed on the way.
        """
        counts = counts or (self.counts(position) if self._foreseen else [])
        return {
            self.names[i]: counts[i] / self.epoch_records[i] for i, most in self._foreseen.items() if counts[i] > most
        }

    @cached_property
    def targets(self) -> tuple[Fraction, ...]:
        """The requested share of each source in the whole mix; under "concat", its fraction of one cycle.

        For a mix without end, they are the shares with which its schedule ends.
        """
        return self.targets_until(self.length)

    def targets_until(self, position: int | None) -> tuple[Fraction, ...]:
        """The requested shares of the mix before a position, which differ under a schedule; None for the whole mix."""
        period = self.stages[0].period
        if period.sets_shares and period.quota is not None:
            total = int(period.quota.sum())
            return tuple(Fraction(int(slots), total) for slots in period.quota)
        if not self.scheduled:
            return self.shares
        position = self.length if position is None else position
        if position is None or position <= self.begin:
            return self.stages[-1 if position is None else 0].shares
        slots = -(-position // self.slot_records)
        spans = [max(0, min(stage.length or slots, slots - stage.first)) for stage in self.stages]
        columns = zip(*(stage.shares for stage in self.stages), strict=True)
        sums = (
            sum((span * share for span, share in zip(spans, column, strict=True)), Fraction(0)) for column in columns
        )
        return tuple(amount / sum(spans) for amount in sums)

    def targets_at(self, position: int) -> tuple[Fraction, ...]:
        """The requested share of each source at a position."""
        return self.targets_of(self.stage_at(position))

    def targets_of(self, stage: Stage) -> tuple[Fraction, ...]:
        """The requested share of each source in a stage."""
        return self.targets if stage.period.sets_shares else stage.shares

    def stage_at(self, position: int) -> Stage:
        """The stage of a position; past the end, the last stage."""
        return self._stage_of(position // self.slot_records)

    def _stage_of(self, slot: int) -> Stage:
        return self.stages[bisect_right(self._firsts, slot) - 1]

    @cached_property
    def _firsts(self) -> list[int]:
        return [stage.first for stage in self.stages]

    def slots(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each slot in [first, first + count), int32, and how many slots it has before, int64.

        Past the end of the mix, the last stage continues.
        """
        sources, numbers = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        while count:
            stage = self._stage_of(first)
            begin = first - stage.first
            within = count if stage is self.stages[-1] else min(count, (stage.length or 0) - begin)
            source, number = stage.period.take(begin, within)
            sources.append(source)
            numbers.append(number + np.asarray(stage.base, np.int64)[source])
            first, count = first + within, count - within
        return np.concatenate(sources), np.concatenate(numbers)

    def _record(self, start: int, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The record at `index` of each epoch, or drawn with replacement, from the position `start` on, int64."""
        if self.stages[0].period.repeats_records:
            position = np.uint64(start) + np.arange(len(source), dtype=np.uint64)
            sizes = np.asarray(self.sizes, np.uint32)[source]
            drawn = np.asarray(multiply_high(draw_at(self.replacement_key, position), sizes))
            return self.shuffle.drawn(source, epoch, index, drawn)
        return self.shuffle.record(source, epoch, index)
