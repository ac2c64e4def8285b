"""When a mix ends: each stop cuts the plan into stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from datamix.mixing.orders import Demand, Period, Shares

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


def _repeating(stop: Cut) -> Cut:
    stop.repeats = True  # type: ignore[attr-defined]
    return stop


def _exhausted(demand: Demand, period: Period, source: int) -> int:
    """Seats until a source has given all its records once."""
    return period.position_of(source, demand.lengths[source] - 1) + 1


def _one_stage(order: Order, demand: Demand, pick: Callable[[list[int]], int] | None) -> list[Stage]:
    period = order(demand)
    length = pick([_exhausted(demand, period, source) for source in demand.seated]) if pick else None
    return [Stage(first=0, length=length, base=(0,) * len(demand.shares), shares=demand.shares, period=period)]


def first_exhausted(order: Order, demand: Demand) -> list[Stage]:
    """End right after the last unseen record of any source."""
    return _one_stage(order, demand, min)


@_repeating
def all_exhausted(order: Order, demand: Demand) -> list[Stage]:
    """A finished source starts its next epoch; end when every source has finished once."""
    return _one_stage(order, demand, max)


@_repeating
def forever(order: Order, demand: Demand) -> list[Stage]:
    """Epochs without end."""
    return _one_stage(order, demand, None)


def exhaust_once(order: Order, demand: Demand) -> list[Stage]:
    """A finished source drops out and the rest keep their relative weights: every record exactly once."""
    stages: list[Stage] = []
    shares, left, first = list(demand.shares), list(demand.lengths), demand.first
    while any(shares):
        now = Demand(shares=shares, lengths=left, first=first, seed=demand.seed)
        period = order(now)
        length = min(_exhausted(now, period, source) for source in now.seated)
        base = tuple(whole - rest for whole, rest in zip(demand.lengths, left, strict=True))
        stages.append(Stage(first=first, length=length, base=base, shares=shares, period=period))
        left = [rest - used for rest, used in zip(left, period.counts(length), strict=True)]
        first += length
        shares = _normalised([share if rest else Fraction(0) for share, rest in zip(shares, left, strict=True)])
    return stages


def _normalised(shares: Sequence[Fraction]) -> list[Fraction]:
    total = sum(shares, Fraction(0))
    return [share / total for share in shares] if total else list(shares)
