"""From a position to (source, epoch, record), and to how much each source has given before it."""

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
"""The positions of a mix are less, in records."""
_FAR = 2**61
_SEEN = 2**16  # records by which the tokens of one are estimated


class Selection(NamedTuple):
    """The records that stand at some positions.

    Attributes:
      source: The index of the source, int32 [count].
      epoch: How often the source had been gone through before, int64 [count]; of records drawn with replacement, how
        often it could have been.
      record: The index of the record in its source, int64 [count].
    """

    source: np.ndarray
    epoch: np.ndarray
    record: np.ndarray


class Locator:
    """A mix whose stages are known, which says what stands at a position and before it.

    Attributes:
      names: The names of the sources, in order.
      sizes: The number of records of each source, shape [num_sources].
      stages: The parts of the mix with fixed shares.
      begin: The position at which the plan begins.
      max_stages: How many stages the mix has at most, whatever the weights.
      phases: The slot at which each phase ends, None for the last, and how the mix is made up until then.
      scheduled: Whether a schedule was given.
      shares: The shares that are asked for in the first phase, shape [num_sources].
      length: The records of the whole mix; None without end.
      most_records: The records that the mix has at most, whatever the weights; None where nothing bounds them.
      batch_size: The records of a batch.
      slot_records: The records of a slot: 1, or the batch size where whole batches of one source are mixed.
      lengths: The lengths of the sources' records, int64 [size] each, where these follow the ratio; else None.
      seed: The seed of everything that is drawn.
      epoch_records: The records that an epoch of each source gives, shape [num_sources]: all there are, where they are
        not drawn.
      sampling: How the records of a source are drawn, None where they are not, shape [num_sources].
      shuffle: The order of the records within their sources.
      caps: The slots that a source fills at most, by its index, before it leaves the mix or ends it.
      replacement_key: The key of the records that are drawn with replacement.
    """

    def __init__(self, mix: ResolvedSpec, stages: Sequence[Stage]) -> None:
        demand = mix.demand
        self.names, self.sizes, self.seed = demand.names, mix.sizes, demand.seed
        self.batch_size, self.slot_records = demand.batch_size, demand.slot_records
        self.phases, self.scheduled = mix.phases, demand.scheduled
        # What ends the mix at a number of records leaves some unseen on purpose.
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
        """Whether a source has a share in any part of the mix, even in one that comes after its end."""
        return any(group.leaf_shares()[source] for _, group in self.phases)

    def take(self, start: int, count: int) -> Selection:
        """The records at the positions [start, start + count).

        Args:
          start: The first position, 0 or more; any costs the same, but for `order="random"` without replacement, whose
            draws before it are summed up once.
          count: How many positions, 0 or more; those past the plan's end are left out.

        Returns:
          int32 and int64 arrays of shape [count].
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
            last = first  # a start within a batch reaches into it, and past the end there is none
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
        """The number of records that each source gives before `position`; past the plan's end, before that."""
        position = max(position if self.length is None else min(position, self.length), self.begin)
        stage = self.stage_at(position)
        slots, rest = divmod(position, self.slot_records)
        used = stage.period.counts(slots - stage.first)
        counts = [(base + n) * self.slot_records for base, n in zip(stage.base, used, strict=True)]
        if rest:
            counts[int(self.slots(slots, 1)[0][0])] += rest
        return counts

    def can_count(self, position: int | None) -> bool:
        """Whether there are records of each source to be counted before `position`: not without end, None, nor where
        too many would be drawn one by one.
        """
        most = self.stages[-1].period.most_counted
        return position is not None and (most is None or position <= most * self.slot_records)

    def amounts(self, position: int) -> list[int]:
        """The amount that each source gives before `position`, in the mix's unit: records, or their summed lengths."""
        counts = self.counts(position)
        if self._lengths is None:
            return counts
        return [self._lengths.summed(source, count) for source, count in enumerate(counts)]

    def tokens(self, counts: Sequence[int]) -> list[int] | None:
        """The tokens in the first records of each source, as many as `counts` says; None where no source has any.

        Of records drawn with replacement, what is to be expected.
        """
        if self._num_tokens is None:
            return None
        if self.stages[0].period.repeats_records:
            sums = zip(counts, self._num_tokens.stored, strict=True)
            return [round(count * float(tokens.mean())) if len(tokens) else 0 for count, tokens in sums]
        return [self._num_tokens.summed(source, count) for source, count in enumerate(counts)]

    def records_until(self, tokens: int) -> int | None:
        """After how many records the mix has given so many tokens; None where it ends before.

        Raises:
          ConfigError: It never gives any.
        """

        def tokens_at(position: int) -> int:
            return sum(self.tokens(self.counts(max(position, 0))) or ())

        if self.length is not None and tokens_at(self.length) < tokens:
            return None
        most = _FAR if self.length is None else self.length
        seen = min(_SEEN, most)
        if not (each := tokens_at(seen) / seen):
            raise ConfigError("the sources that have a share have no tokens", key="stop.tokens", value=tokens)
        # Close to where the mean is right: further off, every look would sum up another epoch.
        guess, width = min(int(tokens / each), most), 2**10
        while (guess > width and tokens_at(guess - width) >= tokens) or (
            guess + width < most and tokens_at(guess + width) < tokens
        ):
            width *= 2
        around = range(max(guess - width, 0), min(guess + width, most) + 1)
        return around[bisect_left(around, tokens, key=tokens_at)]

    def refusal(self) -> ConfigError | None:
        """The error at the end of an endless mix that `at_max_epochs=error` stops; None for every other mix."""
        last = self.stages[-1]
        if not self._ends_at_cap or last.length is None:
            return None
        source = int(last.period.take(last.length, 1)[0][0])
        return beyond_cap(self.names[source], (last.first + last.length) * self.slot_records)

    def unforeseen(self, position: int, counts: Sequence[int] = ()) -> dict[str, float]:
        """How often sources have been gone through before a position, by name, where nobody has foreseen it.

        A mix without end foresees one epoch of each source, or as many as `epochs`, and any up to `max_epochs`.

        Args:
          counts: The records that each source has given by then, where its weights have changed on the way.
        """
        counts = counts or (self.counts(position) if self._foreseen else [])
        return {
            self.names[i]: counts[i] / self.epoch_records[i] for i, most in self._foreseen.items() if counts[i] > most
        }

    @cached_property
    def targets(self) -> tuple[Fraction, ...]:
        """The share of each source in the mix as a whole; concatenation gives every source its own length.

        Of a mix without end, that which its schedule ends with.
        """
        return self.targets_until(self.length)

    def targets_until(self, position: int | None) -> tuple[Fraction, ...]:
        """The same of what lies before a position, which differs under a schedule; None for the mix as a whole."""
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
        """The share of each source that is asked for at a position."""
        return self.targets_of(self.stage_at(position))

    def targets_of(self, stage: Stage) -> tuple[Fraction, ...]:
        """The share of each source that is asked for in a stage."""
        return self.targets if stage.period.sets_shares else stage.shares

    def stage_at(self, position: int) -> Stage:
        """The stage in which a position lies; past the end, the last."""
        return self._stage_of(position // self.slot_records)

    def _stage_of(self, slot: int) -> Stage:
        return self.stages[bisect_right(self._firsts, slot) - 1]

    @cached_property
    def _firsts(self) -> list[int]:
        return [stage.first for stage in self.stages]

    def slots(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each slot in [first, first + count), int32, and its number among the source's, int64.

        Past the end of the mix its last stage goes on.
        """
        sources, numbers = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        while count:
            stage = self._stage_of(first)
            begin = first - stage.first
            taken = count if stage is self.stages[-1] else min(count, (stage.length or 0) - begin)
            source, number = stage.period.take(begin, taken)
            sources.append(source)
            numbers.append(number + np.asarray(stage.base, np.int64)[source])
            first, count = first + taken, count - taken
        return np.concatenate(sources), np.concatenate(numbers)

    def _record(self, start: int, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The record that stands at `index` of its source's epoch."""
        if self.stages[0].period.repeats_records:
            position = np.uint64(start) + np.arange(len(source), dtype=np.uint64)
            sizes = np.asarray(self.sizes, np.uint32)[source]
            drawn = np.asarray(multiply_high(draw_at(self.replacement_key, position), sizes))
            return self.shuffle.drawn(source, epoch, index, drawn)
        return self.shuffle.record(source, epoch, index)
