"""A mix cut into stages: parts with fixed shares, each with one period, up to where the stop ends the mix."""

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
"""What fills a stage."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the mix with fixed shares.

    Attributes:
      first: The slot of the whole mix at which it begins.
      length: The slots that it lasts; None without end.
      base: How many slots each source had before it, shape [num_sources].
      shares: The shares of the sources that are asked for, shape [num_sources].
      credit: By how much each source is behind the sum of its shares before it, in slots or what lengths are counted
        in, shape [num_sources].
      period: Its slots.
    """

    first: int
    length: int | None
    base: tuple[int, ...]
    shares: tuple[Fraction, ...]
    credit: tuple[Fraction, ...]
    period: Period


def most_stages(stop: Stop, num_sources: int, num_phases: int = 1, *, num_caps: int = 0) -> int:
    """Into how many stages a stop, and the caps of some sources, cut a mix at most, whatever the weights."""
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

    Each phase has the slot at which it ends, None for the last; the mix ends after `limit` slots in any case. Its
    stages begin at the slot of `begin`, before which each source had as many slots as are said there. A source in
    `caps` fills so many slots at most: then it drops out, or the mix ends where it would fill another.

    Returns:
      The stages, at least one unless the mix ends before it begins. The end of the last is the end of the mix; its
      length is None where there is no end.

    Raises:
      ConfigError: The order fills no stage, or cannot fill this mix; or sources do not drop out at their cap, and a mix
        that has an end goes beyond one.
    """
    later_of = _later(phases)
    if stop.drops:  # each source has the cap of being gone through once
        caps, drops_at_cap = dict(enumerate(demand.remaining)), True
    cutter = _Cutter(stop, order, demand, begin, caps or {}, limit, drops_at_cap=drops_at_cap)
    # Sources without a share hold up nothing.
    watched = {demand.names.index(name) for name in stop.sources} & later_of[0] or later_of[0]
    for (phase_end, phase), later in zip(phases, later_of, strict=True):
        end = min((slot for slot in (phase_end, limit) if slot is not None), default=None)
        while not cutter.done and (end is None or cutter.first < end):
            dropped = cutter.dropped
            group = phase.without(dropped) if dropped else phase
            if group is None:
                break  # nothing is left of what this phase is made of
            cutter.add_stage(group, (watched & later) - dropped, end)
    return cutter.stages


class _Cutter:
    """The stages up to a slot, and what each source has had by then.

    Attributes:
      done: Whether the mix ends there.
      first: The slot.
      base: The slots that each source had before it, shape [num_sources].
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
        # Where nothing may repeat, the slot that ends the mix is the first that finds nothing left.
        self._beyond = 1 if stop.ends_before_repeat else 0
        self._drops_at_cap, self._past_cap, self._stop_drops = drops_at_cap, not drops_at_cap, stop.drops
        self._limit = limit
        self._has_end = limit is not None or self._waits_for is not None

    @property
    def dropped(self) -> set[int]:
        """The sources that have left the mix."""
        return {source for source, most in self._caps.items() if self._drops_at_cap and self.base[source] >= most}

    def add_stage(self, group: Group, watched: set[int], end: int | None) -> None:
        """Add a stage of a group, up to the slot `end` at most; only `watched` sources hold up the end of the mix."""
        demand, room = self._demand, None if end is None else end - self.first
        left = [once - used for once, used in zip(demand.remaining, self.base, strict=True)]
        waiting = {source: left[source] + self._beyond for source in sorted(watched) if left[source] + self._beyond > 0}
        if self._waits_for is not None and not waiting:
            self.done = True
            return
        now = replace(demand, group=group, remaining=left, first=self.first, base=self.base)
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
        # Without end, or the first slot of the stage finds nothing left.
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
        """The slots of those sources that the end of the mix waits for; none where no stage of `active` ends it."""
        if self._waits_for == "any":
            return {source: count for source, count in waiting.items() if source in active}
        return waiting if self._waits_for == "all" and active.issuperset(waiting) else {}

    def _length(
        self, demand: Demand, period: Period, room: int | None, wanted: Mapping[int, int], capped: Mapping[int, int]
    ) -> tuple[int | None, bool]:
        """The slots of a stage, None without end, and whether the mix ends with it, by its stop or in an error.

        Args:
          wanted: The slots that sources have to be given for the mix to end.
          capped: The slots with which sources reach their caps, or go beyond them where the mix ends there.
        """
        if capped and period.sets_shares and not self._stop_drops:
            text = "this order gives every source whole; leave it out, and set stop.epochs to say how often"
            raise ConfigError(text, key="mix.max_epochs")
        length, ends, beyond = room, False, None
        if in_room := _within(room, demand, period, capped, "any"):
            length = _slots_until("any", demand, period, in_room) - self._past_cap
            ends, beyond = self._past_cap, length if self._past_cap and self._has_end else None
        # Not past a cap: a table need not be filled so far.
        if in_room := _within(length, demand, period, wanted, self._waits_for):
            length, ends, beyond = _slots_until(self._waits_for, demand, period, in_room) - self._beyond, True, None
        if beyond is not None:
            name = demand.names[int(period.take(beyond, 1)[0][0])]
            raise beyond_cap(name, (self.first + beyond) * demand.slot_records)
        return length, ends

    def _pass(self, stage: Stage, length: int) -> None:
        """Go on to the slot after a stage."""
        counts = stage.period.counts(length)
        self.base = tuple(before + used for before, used in zip(stage.base, counts, strict=True))
        if not stage.period.sets_shares:
            pairs, amount = zip(stage.base, self.base, strict=True), self._demand.amount
            amounts = [amount(i, after) - amount(i, before) for i, (before, after) in enumerate(pairs)]
            self._credit = _credit_after(stage.credit, stage.shares, amounts)
        self.first += length
        self._last = int(stage.period.take(length - 1, 1)[0][0])


def _credit_after(credit: Shares, shares: Shares, amounts: Sequence[int]) -> tuple[Fraction, ...]:
    """The credit of each source when it has been given an amount more."""
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
    """The sources to which a period gives their `wanted` slots within `room`, and these; None is no bound.

    Empty where any of them is too few, by `waits_for`. Where slots have to be walked, those of which it is known that
    others have theirs first may be left out.

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
    """The error for a mix in which a source would go beyond its last epoch with a record."""
    text = f"the mix goes through {source} once more from record {record:,} on"
    mend = "End it before, give the source less weight, or set mix.at_max_epochs=drop."
    return ConfigError(text, key=f"mix.max_epochs.{source}", hint=mend)


def _later(phases: Sequence[tuple[int | None, Group]]) -> list[set[int]]:
    """The sources that take part in each phase or in one after it."""
    later: list[set[int]] = [set()]
    for _, group in reversed(phases):
        later.append(later[-1] | {source for source, share in group.leaves() if share})
    return later[:0:-1]


def _credit_slots(demand: Demand) -> int:
    """How many slots a source has less than its share of a stage, at most, where its largest credit has the slot."""
    least = min((part.numerator / part.denominator for part in demand.credit), default=0)
    # Twice the bound, for where sources that lose their share leave what they are behind to the others.
    return math.ceil(2 * (1 + math.log(demand.num_sources)) + max(-least, 0))


def _near_slots(demand: Demand) -> int:
    """How many slots a source has less than its share of a stage, at most, where slots are spread evenly."""
    return math.ceil(demand.group.depth * (1 + 2 * farthest(demand.group, demand.credit)))


def _horizon(demand: Demand, room: int | None, near: int, *ends: tuple[str | None, Mapping[int, int]]) -> int | None:
    """Slots within which a stage ends, if every source has its share but for `near` slots; None without end."""
    slots = [] if room is None else [room]
    for waits_for, wanted in ends:
        soonest = min if waits_for == "any" else max
        if demand.lengths and wanted:  # records of other lengths than the mean may come first
            shares = demand.group.leaf_shares()
            behind = farthest(demand.group, demand.credit)
            slots.append(demand.lengths.slots_until(soonest, shares, demand.base, wanted, 2 * math.ceil(behind)))
        elif wanted:
            slots.append(soonest(_slots_of(demand.shares[i], count + near) for i, count in wanted.items()))
    return min(slots, default=None)


def _slots_of(share: Fraction, count: int) -> int:
    """The slots of which a share is `count`, rounded up."""
    return -(-count * share.denominator // share.numerator)


def _slots_until(waits_for: str | None, demand: Demand, period: Period, wanted: Mapping[int, int]) -> int:
    """Slots until one, or all, of the sources have had as many slots as are wanted of them."""
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
        # Random draws have to be walked to find a slot: do not walk past the end for sources that last longer.
        if used[source] >= wanted[source]:
            length = period.slot_of(source, wanted[source] - 1) + 1
            used = period.counts(length)
    return length


def _check_has_slots(period: Period, source: int, names: Sequence[str]) -> None:
    if period.quota is not None and not period.quota[source]:
        name = names[source] if names else source
        raise ConfigError(f"the order gives source {name!r} no slot, though it has a share; fill one for it.")
