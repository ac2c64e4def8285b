"""When a mix ends: each stop cuts the plan into stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from datamix.errors import ConfigError
from datamix.mixing.orders import MAX_DRAWS, Demand, Draws, Period, Shares

Order = Callable[[Demand], Period]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the mix with fixed shares.

    Attributes:
      first: position at which it begins.
      length: seats it lasts, None without end.
      base: seats each source had before it.
      shares: of the sources.
      period: its seats.
    """

    first: int
    length: int | None
    base: tuple[int, ...]
    shares: Shares
    period: Period


Cut = Callable[[Order, Demand], list[Stage]]


def repeats(stop: object) -> bool:
    """Whether a source may give a record again before the mix ends."""
    return bool(getattr(stop, "repeats", False))


def most_stages(stop: object, num_sources: int) -> int:
    """Into how many stages a stop cuts a mix at most, whatever the weights."""
    return 1 if getattr(stop, "one_stage", False) else num_sources


def _of_one_stage(*, repeats: bool) -> Callable[[Cut], Cut]:
    def mark(stop: Cut) -> Cut:
        stop.one_stage, stop.repeats = True, repeats  # type: ignore[attr-defined]
        return stop

    return mark


def _exhausted(demand: Demand, period: Period, source: int) -> int:
    """Seats until a source has given all its records once."""
    return period.position_of(source, demand.lengths[source] - 1) + 1


def _first_exhausted(demand: Demand, period: Period) -> int:
    """Seats until any source has given all its records once."""
    soonest, *others = sorted(demand.seated, key=lambda source: demand.lengths[source] / demand.shares[source])
    length = _exhausted(demand, period, soonest)
    used = period.counts(length)
    for source in others:
        # Random draws have to be walked to find a seat: do not walk past the end for sources that last longer.
        if used[source] >= demand.lengths[source]:
            length = _exhausted(demand, period, source)
            used = period.counts(length)
    return length


def _all_exhausted(demand: Demand, period: Period) -> int:
    """Seats until every source has given all its records once."""
    if isinstance(period, Draws) and (demand.horizon or 0) > MAX_DRAWS:
        raise ConfigError(
            f"mix=random with stop=all_exhausted would draw some {demand.horizon:,} records until every source is seen "
            "once; make the smallest share larger, or choose another stop."
        )
    return max(_exhausted(demand, period, source) for source in demand.seated)


def _within(demand: Demand, pick: Callable[[list[int]], int]) -> Demand:
    """The demand of a stage that ends when the source that `pick` takes has given all its records once."""
    ends = [math.ceil((demand.lengths[source] + 1) / demand.shares[source]) for source in demand.seated]
    return replace(demand, horizon=pick(ends))


def _one_stage(order: Order, demand: Demand, end: Callable[[Demand, Period], int] | None) -> list[Stage]:
    period = order(demand)
    length = end(demand, period) if end else None
    return [Stage(first=0, length=length, base=(0,) * len(demand.shares), shares=demand.shares, period=period)]


@_of_one_stage(repeats=False)
def first_exhausted(order: Order, demand: Demand) -> list[Stage]:
    """End right after the last unseen record of any source."""
    return _one_stage(order, _within(demand, min), _first_exhausted)


@_of_one_stage(repeats=True)
def all_exhausted(order: Order, demand: Demand) -> list[Stage]:
    """A finished source starts its next epoch; end when every source has finished once."""
    return _one_stage(order, _within(demand, max), _all_exhausted)


@_of_one_stage(repeats=True)
def forever(order: Order, demand: Demand) -> list[Stage]:
    """Epochs without end."""
    return _one_stage(order, demand, None)


def exhaust_once(order: Order, demand: Demand) -> list[Stage]:
    """A finished source drops out and the rest keep their relative weights: every record exactly once."""
    stages: list[Stage] = []
    shares, left, first, last = list(demand.shares), list(demand.lengths), demand.first, demand.last
    while any(shares):
        now = _within(Demand(shares=shares, lengths=left, first=first, seed=demand.seed, last=last), min)
        period = order(now)
        length = _first_exhausted(now, period)
        base = tuple(whole - rest for whole, rest in zip(demand.lengths, left, strict=True))
        stages.append(Stage(first=first, length=length, base=base, shares=shares, period=period))
        left = [rest - used for rest, used in zip(left, period.counts(length), strict=True)]
        first += length
        last = int(period.take(length - 1, 1)[0][0])
        shares = _normalised([share if rest else Fraction(0) for share, rest in zip(shares, left, strict=True)])
    return stages


def _normalised(shares: Sequence[Fraction]) -> list[Fraction]:
    total = sum(shares, Fraction(0))
    return [share / total for share in shares] if total else list(shares)
