"""Reports on a plan: shares, epochs, where sources are exhausted, the largest deviation, and warnings."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.groups import groups_of
from datamix.mixing.locating import Locator
from datamix.mixing.stages import Stage
from datamix.mixing.table_fills import Shares, largest_deviation

# Slots that are examined for the largest deviation; the bound of the order holds beyond them as well.
_WALKED = 2**20
_SMOOTHED = 200  # slots over which a realised share is averaged
_FAR = 10**9  # records of an endless mix within which a drift of one record matters


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """The report on one source of a mix.

    Attributes:
      records: The number of records in the source.
      target: The requested share, in [0, 1].
      share: The realised share, in [0, 1]; in the long run for a mix without end.
      samples: The number of records it gives in the mix; None where that has no end, or too many would have to be drawn
        one by one to count them.
      amount: The same in the unit of the mix: records, or their summed lengths.
      epochs: The number of epochs in `samples`; None where that is.
      exhausted_at: The position right after its last unseen record; None if the mix ends before, some records may
        never be seen, or too many slots would have to be walked.
    """

    records: int
    target: float
    share: float
    samples: int | None
    amount: int | None
    epochs: float | None
    exhausted_at: int | None


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """The report on a group of sources.

    Attributes:
      target: The requested share of the whole mix.
      share: The realised share.
      samples: The number of records its sources give; None where the mix has no end or they are not counted.
    """

    target: float
    share: float
    samples: int | None


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """The report on a whole mix.

    Attributes:
      length: The number of records in the whole mix; None without end.
      max_deviation: The largest deviation of any source from the sum of its exact shares, at the end of any slot, in
        records or in the unit of their lengths.
      walked: The number of positions over which `max_deviation` was taken.
      sources: The report on each source, by name.
      groups: The report on each group, by path; empty where there are no groups.
      warnings: What a user should know, a sentence each.
    """

    length: int | None
    max_deviation: float
    walked: int
    sources: dict[str, SourceReport]
    groups: dict[str, GroupReport]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """The report as text, one line per source.

        >>> from datamix.mixing.plan import Plan
        >>> print(Plan({"a": 5, "b": 3}, {"a": 2}, stop="all_exhausted").report())
        8 records, at most 0.333 from the exact shares
        a: 62.5 % (66.7 % asked for), 5 records, 1.00 epochs, exhausted after 7
        b: 37.5 % (33.3 % asked for), 3 records, 1.00 epochs, exhausted after 8
        """
        length = "without end" if self.length is None else f"{self.length:,} records"
        lines = [f"{length}, at most {self.max_deviation:.3f} from the exact shares"]
        for name, row in self.sources.items():
            parts = [f"{name}: {100 * row.share:.1f} % ({100 * row.target:.1f} % asked for)"]
            parts += [] if row.samples is None else [f"{row.samples:,} records, {row.epochs:.2f} epochs"]
            parts += [] if row.exhausted_at is None else [f"exhausted after {row.exhausted_at:,}"]
            lines.append(", ".join(parts))
        for path, group in self.groups.items():
            lines.append(f"{path} together: {100 * group.share:.1f} % ({100 * group.target:.1f} % asked for)")
        return "\n".join([*lines, *self.warnings])


@dataclass(frozen=True, kw_only=True)
class OverTime:
    """The course of a mix along its positions.

    Attributes:
      positions: The positions, in records, int64 [points + 1].
      planned: The requested share of each source between two positions, float64 [points, num_sources].
      realised: The realised share of each source there, smoothed, float64 [points, num_sources].
      epochs: The epochs of each source before each position, float64 [points + 1, num_sources].
    """

    positions: np.ndarray
    planned: np.ndarray
    realised: np.ndarray
    epochs: np.ndarray


def over_time(plan: Locator, points: int = 150) -> OverTime:
    """The course of a mix to its end, or until its last stage and the end of every source have been seen.

    The latter applies to a mix without end, and where too many records would be drawn one by one to count them.
    """
    size = plan.batch_size
    end = plan.length if plan.can_count(plan.length) else None
    if end is None:
        seen = [_exhausted_at(plan, source, None) or 0 for source in range(len(plan.names))]
        end = max(100 * size, 2 * plan.stages[-1].first * plan.slot_records, *seen)
    num_batches = max(end // size, 1)
    batches = sorted({num_batches * i // points for i in range(points + 1)})
    positions = [min(batch * size, end) for batch in batches]
    amounts = np.asarray([plan.amounts(position) for position in positions], np.float64)
    shares = [plan.targets_at((begin + end) // 2) for begin, end in itertools.pairwise(positions)]
    planned = np.asarray([[float(share) for share in row] for row in shares])
    # Average each step over neighbours with the same planned shares until `_SMOOTHED` slots are covered; over fewer,
    # rounding alone moves the realised share.
    reach = math.ceil(_SMOOTHED * plan.slot_records * len(planned) / (2 * max(end, 1)))
    ranges = [_alike(planned, i, reach) for i in range(len(planned))]
    increments = np.asarray([amounts[after] - amounts[begin] for begin, after in ranges])
    return OverTime(
        positions=np.asarray(positions),
        planned=planned,
        realised=increments / np.maximum(increments.sum(axis=1, keepdims=True), 1),
        epochs=np.asarray([plan.counts(position) for position in positions]) / np.maximum(plan.epoch_records, 1),
    )


def _alike(planned: np.ndarray, i: int, reach: int) -> tuple[int, int]:
    """The rows [begin, end) around row `i` with the same shares, at most `reach` on either side."""
    begin, end = i, i + 1
    while begin > max(i - reach, 0) and np.abs(planned[begin - 1] - planned[i]).max() < 0.01:
        begin -= 1
    while end < min(i + reach + 1, len(planned)) and np.abs(planned[end] - planned[i]).max() < 0.01:
        end += 1
    return begin, end


def report(plan: Locator) -> PlanReport:
    """Report realised shares, epochs, exhaustion, the largest deviation and warnings of a mix."""
    last, end = plan.stages[-1], plan.length if plan.can_count(plan.length) else None
    counts = plan.counts(last.first * plan.slot_records if end is None else end)
    amounts = None if end is None else plan.amounts(end)
    in_the_long_run = realised(plan, last)
    sources = {}
    for source, name in enumerate(plan.names):
        size, epoch = plan.sizes[source], plan.epoch_records[source]
        samples = None if end is None and last.shares[source] else counts[source]
        sources[name] = SourceReport(
            records=size,
            target=float(plan.targets[source]),
            share=amounts[source] / sum(amounts) if amounts and sum(amounts) else in_the_long_run[source],
            samples=samples,
            amount=None if amounts is None else amounts[source],
            epochs=None if samples is None else (samples / epoch if epoch else 0.0),
            exhausted_at=_exhausted_at(plan, source, samples),
        )
    deviation, walked = max_deviation(plan)
    rows = list(sources.values())
    return PlanReport(
        length=plan.length,
        max_deviation=deviation,
        walked=walked,
        sources=sources,
        groups={
            path: GroupReport(
                target=sum(rows[i].target for i in members),
                share=sum(rows[i].share for i in members),
                samples=None if end is None else sum(counts[i] for i in members),
            )
            for path, members in groups_of(plan.names).items()
        },
        warnings=tuple(_warnings(plan, sources)),
    )


def _exhausted_at(plan: Locator, source: int, samples: int | None) -> int | None:
    """See `SourceReport.exhausted_at`; `samples` is None in a mix whose records are not counted to its end."""
    last_record = plan.sizes[source] - 1
    if plan.sampling[source] is not None:
        return None  # some records may never be seen
    if samples is not None and samples <= last_record:
        return None
    number, within = divmod(last_record, plan.slot_records)
    index = bisect_right(plan.stages, number, key=lambda stage: stage.base[source]) - 1
    stage = plan.stages[max(index, 0)]  # a plan that continues another one extrapolates to positions before it
    wanted, period = number - stage.base[source], stage.period
    if period.repeats_records or not (stage.shares[source] or 0 <= index < len(plan.stages) - 1):
        return None  # some records may never be seen
    is_walked = samples is not None or stage is not plan.stages[-1]
    if period.max_walk is not None and not is_walked and wanted > period.max_walk * stage.shares[source]:
        return None  # too far to walk
    return (stage.first + period.slot_of(source, wanted)) * plan.slot_records + within + 1


def max_deviation(plan: Locator, records: int | None = None) -> tuple[float, int]:
    """See `datamix.mixing.plan.Plan.max_deviation`."""
    worst, walked, slot_records = 0.0, 0, plan.slot_records
    ends = [end for end in (records, plan.length) if end is not None]
    slots = min([_WALKED, *(-(-end // slot_records) for end in ends)])
    for stage in plan.stages:
        count = min(slots - stage.first, stage.length or slots)
        if count <= 0:
            break
        shares = [float(share) for share in plan.targets_at(stage.first * slot_records)]
        if plan.lengths is None:
            source, _ = stage.period.take(0, count)
            worst = max(worst, largest_deviation(source, shares, stage.credit) * slot_records)
        else:
            chosen = plan.take(stage.first * slot_records, count * slot_records)
            lengths = np.empty(count, np.int64)
            for i, stored in enumerate(plan.lengths):
                lengths[chosen.source == i] = stored[chosen.record[chosen.source == i]]
            worst = max(worst, largest_deviation_of_lengths(chosen.source, lengths, shares, stage.credit))
        walked += count
    return worst, walked * slot_records


def realised(plan: Locator, stage: Stage) -> list[float]:
    """The share of each source over a whole cycle of a stage, in the unit of the mix."""
    quota = stage.period.quota
    if quota is None:
        return [float(share) for share in stage.shares]
    amounts = quota.astype(np.float64)
    if plan.lengths is not None:
        amounts *= [float(lengths.mean()) if len(lengths) else 0.0 for lengths in plan.lengths]
    return [float(amount) for amount in amounts / amounts.sum()]


def _drift(plan: Locator) -> str:
    """Say where a table that cannot hold the weights exactly drifts from the shares by a record or more; else empty."""
    if plan.lengths is not None:
        return ""  # lengths follow the shares on average
    for stage in plan.stages:
        period = stage.period
        ends = [end for end in (stage.length, plan.length) if end is not None]
        if period.length is None or period.sets_shares or min(ends, default=_FAR) <= period.length:
            continue
        differences = [
            (abs(actual - float(share)), name, actual, float(share))
            for name, actual, share in zip(plan.names, realised(plan, stage), stage.shares, strict=True)
        ]
        most, name, actual, share = max(differences)
        rare = [name for off, name, _, share in differences if share and off > 0.01 * share]
        if most * min(ends, default=_FAR) >= 1:
            others = f" {', '.join(rare)}: more than 1 % off." if rare else ""
            exact = f"the exact shares are followed for {period.length:,} records"
            later = f"from there on {name} gets {actual:.6g}, not {share:.6g}"
            return f"{exact}; {later}.{others} Weights of fewer digits avoid it."
    return ""


def unseen(plan: Locator) -> list[str]:
    """See `datamix.mixing.plan.Plan.unseen`."""
    sentences = []
    counts = plan.counts(plan.length) if plan.length is not None and plan.sees_all else None
    for source, (name, size) in enumerate(zip(plan.names, plan.sizes, strict=True)):
        if not plan.has_share(source):
            sentences.append(f"{name} has no share and gives no record.")
        elif counts is not None and counts[source] < size and not plan.sampling[source]:
            sentences.append(_never_seen(plan, source, counts[source]))
    return sentences


def _never_seen(plan: Locator, source: int, seen: int) -> str:
    name, size = plan.names[source], plan.sizes[source]
    why = "the schedule ends without it" if plan.scheduled else "they fill no batch; mix.granularity=record gives them"
    return f"{size - seen:,} of the {size:,} records of {name} are never seen: {why}."


def left_behind(plan: Locator) -> str:
    """Say where a source deviates from the summed shares of a schedule, as under orders that ignore its credit.

    The text is empty unless a source is off by more than two slots, and by 1 % of its due slots by then.
    """
    draws = any(stage.period.sets_shares or stage.period.max_walk is not None for stage in plan.stages)
    if not plan.scheduled or plan.lengths is not None or draws:
        return ""
    worst = Fraction(2), 0, 0
    for stage in plan.stages:
        most = max(range(len(stage.credit)), key=lambda source: abs(stage.credit[source]))
        behind = stage.credit[most]
        if abs(behind) > max(abs(worst[0]), (stage.base[most] + behind) / 100):
            worst = behind, most, stage.first
    slots, source, end = worst
    if not end:
        return ""
    records = float(abs(slots) * plan.slot_records)
    which = "behind" if slots > 0 else "ahead of"
    text = (
        f"by record {end * plan.slot_records:,}, {plan.names[source]} is {records:.1f} records {which} the sum of its"
    )
    mend = "" if groups_of(plan.names) else "; mix=largest_credit keeps to it"
    return f"{text} shares{mend}."


def never_shown(plan: Locator, whole: Callable[[], Locator]) -> str:
    """Say how many records the stop of a mix never shows, and what showing all would repeat; empty where it shows all.

    Args:
      whole: A function that returns the same mix until each source has been seen once, or raises `ConfigError`.
    """
    if plan.length is None or plan.sees_all or any(plan.sampling):
        return ""
    counts = plan.counts(plan.length)
    shares = [*map(plan.has_share, range(len(plan.names)))]
    rows = zip(plan.names, plan.sizes, counts, shares, strict=True)
    rest = {name: size - count for name, size, count, share in rows if size > count and share}
    if not rest:
        return ""
    by_source = ", ".join(f"{name} {count:,}" for name, count in rest.items())
    text = f"{sum(rest.values()):,} of {sum(plan.sizes):,} records are never shown ({by_source})"
    try:
        shown = whole()
    except ConfigError:  # too many slots would have to be drawn, or filled, one by one
        return f"{text}."
    counts = shown.counts(shown.length or 0)  # it has an end
    repeats, name = max(
        (count / size, name) for name, size, count in zip(plan.names, plan.sizes, counts, strict=True) if size
    )
    shows = f"shows all and gives {name} {repeats:.1f} times" if repeats > 1 else "shows all"
    return f"{text}; stop=all_exhausted {shows}."


def capped(plan: Locator, position: int | None = None) -> list[str]:
    """See `datamix.mixing.plan.Plan.capped`."""
    if (refusal := plan.refusal()) is not None:
        return [f"the mix ends in an error: {refusal}"] if position is None else []
    sentences = []
    for source, most in plan.caps.items():
        if (end := next((stage.first for stage in plan.stages if stage.base[source] >= most), None)) is not None:
            first = end * plan.slot_records
            if position is not None and first >= position:
                continue
            batch = first // plan.batch_size
            # A plan that continues another one begins with what has left that one.
            leaves = "has left the mix before" if 0 < first == plan.begin else "leaves the mix in"
            sentences.append(f"{plan.names[source]} {leaves} batch {batch:,}, as mix.max_epochs says.")
    return sentences


def drawn(plan: Locator) -> list[str]:
    """See `datamix.mixing.plan.Plan.drawn`."""
    return [f"{name} {by.note}" for name, by in zip(plan.names, plan.sampling, strict=True) if by is not None]


def _warnings(plan: Locator, sources: Mapping[str, SourceReport]) -> list[str]:
    warnings = [text for text in (left_behind(plan), _drift(plan)) if text]
    warnings += drawn(plan) + unseen(plan) + capped(plan)
    if plan.length is not None and not plan.can_count(plan.length):
        warnings.append("the records of each source are not counted: they would be drawn one by one, to the end.")
    for source, name in enumerate(plan.names):
        if plan.has_share(source) and sources[name].samples == 0 and not plan.sees_all:
            warnings.append(f"{name} gives no record: the mix ends before its first record.")
    last = plan.stages[-1]
    for source, (name, row) in enumerate(sources.items()):
        if plan.sampling[source]:
            continue  # some records may never be seen
        seen = last.base[source] * plan.slot_records
        if plan.length is None and not last.shares[source] and 0 < seen < row.records:
            warnings.append(_never_seen(plan, source, seen))
        is_cut_short = row.epochs is not None and row.epochs < 0.5 and not plan.sees_all
        if row.samples and is_cut_short and plan.length is not None:
            rest = f"{row.records - row.samples:,} of the {row.records:,} records of {name} are never seen"
            warnings.append(f"{rest}; under another stop the mix goes on.")
    late = max((row.exhausted_at or 0, name) for name, row in sources.items())
    repeats = [
        (count / row.records, name)
        for count, (name, row) in zip(plan.counts(late[0]), sources.items(), strict=True)
        if row.records
    ]
    most, name = max(repeats, default=(0.0, ""))
    if most >= 2:
        warnings.append(f"{name} is repeated {math.floor(most)} times before {late[1]} is seen once.")
    return warnings


def largest_deviation_of_lengths(
    source: np.ndarray, lengths: np.ndarray, shares: Sequence[float], credit: Shares
) -> float:
    """The largest distance of the summed lengths of any source from its share of the total, over all prefixes.

    Args:
      source: The source of each slot, int [count].
      lengths: The length of the record in each slot, int [count].
      shares: The shares of the sources, shape [num_sources].
      credit: How far each source is behind before the first slot, in the unit of the lengths, shape [num_sources].

    >>> largest_deviation_of_lengths(np.array([0, 1]), np.array([4, 2]), [0.5, 0.5], [Fraction(0)] * 2)
    2.0
    """
    total = np.cumsum(lengths)
    return max(
        float(np.abs(np.cumsum(np.where(source == i, lengths, 0)) - share * total - float(behind)).max(initial=0))
        for i, (share, behind) in enumerate(zip(shares, credit, strict=True))
    )
