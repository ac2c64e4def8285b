"""Cut a mix into stages: parts with fixed shares and one period each, up to where the stop ends the mix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from datamix.errors import ConfigError
from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group
from datamix.mixing.periods import Period
from datamix.mixing.stops import Stop
from datamix.mixing.table_fills import Shares, farthest, rounded
from datamix.mixing.weights import over_common

Order = Callable[[Demand], Period]
"""A function that fills a stage."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the mix with fixed shares.

    Attributes:
      first: The slot of the whole mix at which the stage begins.
      length: The number of slots in the stage; None where it has no end.
      base: The number of slots that each source has before the stage, shape [num_sources].
      shares: The requested shares of the sources, shape [num_sources].
      credit: How far each source is behind the sum of its shares when the stage begins, in slots or in the unit of the
        record lengths, shape [num_sources].
      period: The slots of the stage.
    """

    first: int
    length: int | None
    base: tuple[int, ...]
    shares: tuple[Fraction, ...]
    credit: tuple[Fraction, ...]
    period: Period


def most_stages(stop: Stop, num_sources: int, num_phases: int = 1, *, num_caps: int = 0) -> int:
    """The largest number of stages into which a stop, and the caps of some sources, cut a mix, whatever the weights."""
    return num_phases + (num_sources - 1 if stop.drops else num_caps)


def cut(
    stop: Stop,
    order: Order,
    phases: Sequence[tuple[int | None, Group]],
    demand: Demand,
    limit: int | None = None,
    begin: tuple[int, Sequence[int]] = (0, ()),
    caps: Mapping[int, int] | None = None,
    *,
    drops_at_cap: bool = True,
) -> list[Stage]:
    """Cut a mix into stages.

    Args:
      stop: The rule by which the mix ends.
      order: The function that fills each stage.
      phases: The slot at which each phase ends, None for the last, and the shares until then.
      demand: The demand of the whole mix.
      limit: The number of slots after which the mix ends in any case; None for no limit.
      begin: The slot at which the first stage begins, and the number of slots that each source has before it.
      caps: The largest number of slots of a source, by its index.
      drops_at_cap: Whether a source drops out at its cap; otherwise the mix ends where it would go beyond.

    Returns:
      The stages, at least one unless the mix ends before it begins. The mix ends where the last stage does; the length
      of that stage is None where there is no end.

    Raises:
      ConfigError: The order returns no period, or cannot fill this mix; or sources do not drop out at their caps, and a
        mix that has an end would go beyond one.
    """
    later_of = _later(phases)
    if stop.drops:  # the cap of each source is its exhaustion
        caps, drops_at_cap = dict(enumerate(demand.remaining)), True
    cutter = _Cutter(stop, order, demand, begin, caps or {}, limit, drops_at_cap=drops_at_cap)
    # The end of the mix does not wait for sources without a share.
    watched = {demand.names.index(name) for name in stop.sources} & later_of[0] or later_of[0]
    for (phase_end, phase), later in zip(phases, later_of, strict=True):
        end = min((slot for slot in (phase_end, limit) if slot is not None), default=None)
        while not cutter.done and (end is None or cutter.first < end):
            dropped = cutter.dropped
            group = phase.without(dropped) if dropped else phase
            if group is None:
                break  # all sources of this phase have dropped out
            cutter.add_stage(group, (watched & later) - dropped, end)
    return cutter.stages


class _Cutter:
    """The stages up to a slot, and the slots that each source has before it.

    Attributes:
      stages: The stages so far.
      done: Whether the mix ends at this slot.
      first: The slot.
      base: The number of slots that each source has before it, shape [num_sources].
    """

    def __init__(
        self,
        stop: Stop,
        order: Order,
        demand: Demand,
        begin: tuple[int, Sequence[int]],
        caps: Mapping[int, int],
        limit: int | None,
        *,
        drops_at_cap: bool,
    ) -> None:
        self.stages: list[Stage] = []
        self.done = False
        self.first = begin[0]
        self.base = tuple(begin[1]) or (0,) * demand.num_sources
        self._last: int | None = None
        self._credit = (Fraction(0),) * demand.num_sources
        self._order, self._demand, self._caps = order, demand, caps
        self._waits_for = None if stop.drops else stop.waits_for
        # Where nothing may repeat, the mix ends right before the first slot whose source has no record left.
        self._beyond = 1 if stop.ends_before_repeat else 0
        self._drops_at_cap, self._past_cap, self._stop_drops = drops_at_cap, not drops_at_cap, stop.drops
        self._limit = limit
        self._has_end = limit is not None or self._waits_for is not None

    @property
    def dropped(self) -> set[int]:
        """The sources that have left the mix."""
        return {source for source, most in self._caps.items() if self._drops_at_cap and self.base[source] >= most}

    def add_stage(self, group: Group, watched: set[int], end: int | None) -> None:
        """Add a stage of a group, up to the slot `end` at most; the end of the mix waits only for `watched` sources."""
        demand, room = self._demand, None if end is None else end - self.first
        remaining = [once - used for once, used in zip(demand.remaining, self.base, strict=True)]
        slots = {source: remaining[source] + self._beyond for source in sorted(watched)}
        waiting = {source: count for source, count in slots.items() if count > 0}
        if self._waits_for is not None and not waiting:
            self.done = True
            return
        now = replace(demand, group=group, remaining=remaining, first=self.first, base=self.base)
        now = replace(now, last=self._last, credit=self._credit, capped=bool(self._caps or self._beyond))
        active = set(now.active.tolist())
        wanted = self._wanted(waiting, active)
        capped = {i: most - self.base[i] + self._past_cap for i, most in self._caps.items() if i in active}
        reach = (self._waits_for, wanted), ("any", capped)
        horizon, credit_horizon = (_horizon(now, room, near, *reach) for near in (_near_slots(now), _credit_slots(now)))
        now = replace(now, horizon=horizon, credit_horizon=credit_horizon)
        period = self._order(now)
        if not isinstance(period, Period):
            raise ConfigError(f"an order gives a period, such as datamix.mixing.periods.Table, not {period!r}.")
        length, ends = self._length(now, period, room, wanted, capped)
        # `not length`: the stage has no end (None), or its first slot already finds no record left (0).
        self.done = ends or not length or self.first + length == self._limit
        if length == 0:
            return
        stage = Stage(
            first=self.first,
            length=length,
            base=self.base,
            shares=group.leaf_shares(),
            credit=self._credit,
            period=period,
        )
        self.stages.append(stage)
        if length is not None and not self.done:
            self._pass(stage, length)

    def _wanted(self, waiting: Mapping[int, int], active: set[int]) -> Mapping[int, int]:
        """The slots that sources must fill for the mix to end; empty if a stage of `active` sources cannot end it."""
        if self._waits_for == "any":
            return {source: count for source, count in waiting.items() if source in active}
        return waiting if self._waits_for == "all" and active.issuperset(waiting) else {}

    def _length(
        self, demand: Demand, period: Period, room: int | None, wanted: Mapping[int, int], capped: Mapping[int, int]
    ) -> tuple[int | None, bool]:
        """The number of slots in a stage, None without end, and whether its stop, or an error, ends the mix there.

        Args:
          demand: The demand of the stage.
          period: The period that fills it.
          room: The slots until the phase or the mix ends in any case; None for no bound.
          wanted: The slots that sources must fill for the mix to end.
          capped: The slots with which sources reach their caps, or exceed them where the mix ends at a cap.
        """
        if capped and period.sets_shares and not self._stop_drops:
            text = "this order gives every source whole; leave it out, and set stop.epochs to say how often"
            raise ConfigError(text, key="mix.max_epochs")
        length, ends, beyond = room, False, None
        if in_room := _within(room, demand, period, capped, "any"):
            length = _slots_until("any", demand, period, in_room) - self._past_cap
            ends, beyond = self._past_cap, length if self._past_cap and self._has_end else None
        # Do not look beyond a cap: a table need not be filled that far.
        if in_room := _within(length, demand, period, wanted, self._waits_for):
            length, ends, beyond = _slots_until(self._waits_for, demand, period, in_room) - self._beyond, True, None
        if beyond is not None:
            name = demand.names[int(period.take(beyond, 1)[0][0])]
            raise beyond_cap(name, (self.first + beyond) * demand.slot_records)
        return length, ends

    def _pass(self, stage: Stage, length: int) -> None:
        """Move on to the slot after a stage."""
        counts = stage.period.counts(length)
        self.base = tuple(before + used for before, used in zip(stage.base, counts, strict=True))
        if not stage.period.sets_shares:
            pairs, amount = zip(stage.base, self.base, strict=True), self._demand.amount
            amounts = [amount(i, after) - amount(i, before) for i, (before, after) in enumerate(pairs)]
            self._credit = _credit_after(stage.credit, stage.shares, amounts)
        self.first += length
        self._last = int(stage.period.take(length - 1, 1)[0][0])


def _credit_after(credit: Shares, shares: Shares, amounts: Sequence[int]) -> tuple[Fraction, ...]:
    """The credit of each source after it has been given a further amount."""
    total, (weights, whole) = sum(amounts), over_common(shares)
    after = []
    for behind, weight, amount in zip(credit, weights, amounts, strict=True):
        if weight or amount:
            unit = behind.denominator
            parts = behind.numerator * whole + (weight * total - amount * whole) * unit
            behind = rounded(parts, whole * unit)
        after.append(behind)
    return tuple(after)


def _within(
    room: int | None, demand: Demand, period: Period, wanted: Mapping[int, int], waits_for: str | None
) -> Mapping[int, int]:
    """The entries of `wanted` that a period fills within `room` slots, None for no bound.

    The result is empty unless these entries satisfy `waits_for`, that is, any or all of them fit. Where slots have to
    be walked, it may omit sources that are known to get their slots after another one.

    Raises:
      ConfigError: Too many slots would have to be walked.
    """
    if room is None or not wanted:
        return wanted
    most = period.most_counted
    slots = room if most is None else min(room, demand.horizon or room)
    while True:
        if most is not None and slots > most:
            raise _too_far(slots)
        counts = period.counts(slots)
        within = {source: count for source, count in wanted.items() if counts[source] >= count}
        if len(within) == len(wanted) or (within and waits_for == "any"):
            return within
        if slots == room:
            return {}
        slots = min(2 * slots, room)


def _too_far(slots: int) -> ConfigError:
    """The error for a mix whose end would be found by walking too many slots."""
    text = f"some {slots:,} records would be drawn one by one to find where it ends the mix"
    return ConfigError(text, key="stop", hint="Make the smallest share larger, or choose another stop.")


def beyond_cap(source: str, record: int) -> ConfigError:
    """The error for a mix in which a source would start an epoch beyond its last one at a record."""
    text = f"the mix goes through {source} once more from record {record:,} on"
    mend = "End it before, give the source less weight, or set mix.at_max_epochs=drop."
    return ConfigError(text, key=f"mix.max_epochs.{source}", hint=mend)


def _later(phases: Sequence[tuple[int | None, Group]]) -> list[set[int]]:
    """The sources that take part in each phase or in a later one."""
    later: list[set[int]] = [set()]
    for _, group in reversed(phases):
        later.append(later[-1] | {source for source, share in group.leaves() if share})
    return later[:0:-1]


def _credit_slots(demand: Demand) -> int:
    """A bound on the slots by which a source is below its share of a stage, where the largest credit gets each slot."""
    least = min((part.numerator / part.denominator for part in demand.credit), default=0)
    # Twice the bound, as sources that lose their share pass on to the others what they are behind.
    return math.ceil(2 * (1 + math.log(demand.num_sources)) + max(-least, 0))


def _near_slots(demand: Demand) -> int:
    """A bound on the slots by which a source is below its share of a stage, where slots are spread evenly."""
    return math.ceil(demand.group.depth * (1 + 2 * farthest(demand.group, demand.credit)))


def _horizon(demand: Demand, room: int | None, near: int, *ends: tuple[str | None, Mapping[int, int]]) -> int | None:
    """A bound on the length of a stage, if every source is within `near` slots of its share; None without end."""
    slots = [] if room is None else [room]
    for waits_for, wanted in ends:
        soonest = min if waits_for == "any" else max
        if demand.lengths and wanted:  # the first records may be longer or shorter than the mean
            shares = demand.group.leaf_shares()
            behind = farthest(demand.group, demand.credit)
            slots.append(demand.lengths.slots_until(soonest, shares, demand.base, wanted, 2 * math.ceil(behind)))
        elif wanted:
            slots.append(soonest(_slots_of(demand.shares[i], count + near) for i, count in wanted.items()))
    return min(slots, default=None)


def _slots_of(share: Fraction, count: int) -> int:
    """The number of slots in which a share amounts to `count`, rounded up."""
    return -(-count * share.denominator // share.numerator)


def _slots_until(waits_for: str | None, demand: Demand, period: Period, wanted: Mapping[int, int]) -> int:
    """The number of slots until one source, or all, have had the slots wanted of them, by `waits_for`."""
    if waits_for == "all":
        if period.max_walk is not None and (demand.horizon or 0) > period.max_walk:
            raise _too_far(demand.horizon or 0)
        for source in wanted:
            _check_has_slots(period, source, demand.names)
        return period.last_of({source: count - 1 for source, count in wanted.items()}) + 1
    soonest, *others = sorted(wanted, key=lambda source: _slots_of(demand.shares[source], wanted[source]))
    _check_has_slots(period, soonest, demand.names)
    length = period.slot_of(soonest, wanted[soonest] - 1) + 1
    used = period.counts(length)
    for source in others:
        # Finding a slot among random draws means walking there: do not walk past the end for sources that last longer.
        if used[source] >= wanted[source]:
            length = period.slot_of(source, wanted[source] - 1) + 1
            used = period.counts(length)
    return length


def _check_has_slots(period: Period, source: int, names: Sequence[str]) -> None:
    if period.quota is not None and not period.quota[source]:
        name = names[source] if names else source
        raise ConfigError(f"the order gives source {name!r} no slot, though it has a share; fill one for it.")
