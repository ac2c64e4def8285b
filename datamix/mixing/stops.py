"""When a mix ends: a stop cuts the plan into stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from datamix.errors import ConfigError
from datamix.mixing.groups import Group
from datamix.mixing.orders import Demand
from datamix.mixing.periods import MAX_DRAWS, Draws, Period

Order = Callable[[Demand], Period]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the mix with fixed shares.

    Attributes:
      first: position at which it begins.
      length: seats it lasts, None without end.
      base: seats each source had before it.
      shares: of the sources, as asked for.
      period: its seats.
    """

    first: int
    length: int | None
    base: tuple[int, ...]
    shares: tuple[Fraction, ...]
    period: Period


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a mix ends.

    Attributes:
      waits_for: which sources must have given all their records once: any, all, or none where it never ends.
      drops: whether such a source drops out and the rest go on in their ratio, until none is left.
      repeats: whether a source may give a record again before the mix ends.
    """

    waits_for: Literal["any", "all"] | None
    drops: bool = False
    repeats: bool = False


first_exhausted = Stop(waits_for="any")
"""End right after the last unseen record of any source."""

all_exhausted = Stop(waits_for="all", repeats=True)
"""A finished source starts its next epoch; end when every source has finished once."""

exhaust_once = Stop(waits_for="any", drops=True)
"""A finished source drops out and the rest keep their relative weights: every record exactly once."""

forever = Stop(waits_for=None, repeats=True)
"""Epochs without end."""


def most_stages(stop: Stop, num_sources: int, num_phases: int = 1, *, by_length: bool = False) -> int:
    """Into how many stages a stop cuts a mix at most, whatever the weights."""
    return num_phases + (num_sources - 1 if stop.drops else 0) + by_length


def cut(
    stop: Stop, order: Order, phases: Sequence[tuple[int | None, Group]], demand: Demand, most: int | None = None
) -> list[Stage]:
    """Cut a mix into stages.

    Args:
      stop: when it ends.
      order: what fills a stage.
      phases: the seat at which each ends, None for the last, and how the mix is made up until then.
      demand: of the whole mix.
      most: seats after which it ends in any case; None for no limit.

    Returns:
      The stages; of the last, the length is that of the mix, or None without end.
    """
    stages: list[Stage] = []
    left, first, last = list(demand.lengths), 0, None
    for (end, phase), later in zip(phases, _later(phases), strict=True):
        whole = min((seat for seat in (end, most) if seat is not None), default=None)
        while whole is None or first < whole:
            until = whole
            if demand.unit and first < demand.unit.seats:
                until = demand.unit.seats if whole is None else min(whole, demand.unit.seats)
            group = phase.without([source for source, rest in enumerate(left) if rest <= 0]) if stop.drops else phase
            if group is None:
                break  # nothing is left of what this phase is made of
            waiting = [source for source in sorted(later) if left[source] > 0]
            if stop.waits_for == "all" and not waiting:
                return stages
            base = tuple(once - rest for once, rest in zip(demand.lengths, left, strict=True))
            now = replace(demand, group=group, lengths=left, first=first, base=base, last=last)
            seated = set(now.seated.tolist())
            if stop.waits_for == "any":
                waiting = [source for source in waiting if source in seated]
            ends = stop.waits_for is not None and seated.issuperset(waiting)
            room = None if until is None else until - first
            now = replace(now, horizon=_horizon(stop, now, waiting if ends else [], room))
            period = order(now)
            if ends and room is not None:
                given = period.counts(room)
                ends = (any if stop.waits_for == "any" else all)(given[source] >= left[source] for source in waiting)
            length = _seats_to_end(stop, now, period, waiting) if ends else room
            stages.append(Stage(first=first, length=length, base=base, shares=group.leaf_shares(), period=period))
            if length is None or (ends and not stop.drops):
                return stages
            left = [rest - used for rest, used in zip(left, period.counts(length), strict=True)]
            first += length
            last = int(period.take(length - 1, 1)[0][0])
    return stages


def _later(phases: Sequence[tuple[int | None, Group]]) -> list[set[int]]:
    """The sources that take part in each phase or in one after it."""
    found: list[set[int]] = [set()]
    for _, group in reversed(phases):
        found.append(found[-1] | {source for source, share in group.leaves() if share})
    return found[:0:-1]


def _horizon(stop: Stop, demand: Demand, waiting: Sequence[int], room: int | None) -> int | None:
    """Seats within which a stage ends, if every source keeps near its share; None without end."""
    near = demand.group.depth  # a seat at each level
    ends = [math.ceil((demand.lengths[source] + near) / demand.shares[source]) for source in waiting]
    if demand.unit:
        ends = [end + end // 4 for end in ends]  # records of other lengths than the mean may come first
    expected = (min if stop.waits_for == "any" else max)(ends, default=None)
    return min((end for end in (expected, room) if end is not None), default=None)


def _seats_to_end(stop: Stop, demand: Demand, period: Period, waiting: Sequence[int]) -> int:
    """Seats until one, or all, of the sources have given all their records."""

    def exhausted(source: int) -> int:
        return period.position_of(source, demand.lengths[source] - 1) + 1

    if stop.waits_for == "all":
        if isinstance(period, Draws) and (demand.horizon or 0) > MAX_DRAWS:
            raise ConfigError(
                f"mix=random with stop=all_exhausted would draw some {demand.horizon:,} records until every source is "
                "seen once; make the smallest share larger, or choose another stop."
            )
        return max(exhausted(source) for source in waiting)
    soonest, *others = sorted(waiting, key=lambda source: demand.lengths[source] / demand.shares[source])
    length = exhausted(soonest)
    used = period.counts(length)
    for source in others:
        # Random draws have to be walked to find a seat: do not walk past the end for sources that last longer.
        if used[source] >= demand.lengths[source]:
            length = exhausted(source)
            used = period.counts(length)
    return length
