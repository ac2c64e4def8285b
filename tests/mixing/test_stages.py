from __future__ import annotations

from fractions import Fraction

import pytest

from datamix.errors import ConfigError
from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group
from datamix.mixing.orders import random, round_robin
from datamix.mixing.periods import Draws, Period, Table
from datamix.mixing.stages import cut, most_stages
from datamix.mixing.stops import Stop, all_exhausted, exhaust_once, first_exhausted, forever

HALVES, FIRST, SECOND = (
    Group.flat([Fraction(a, 2), Fraction(2 - a, 2)]) for a in (1, 2, 0)
)  # half and half, the first alone, the second alone


def demand(*remaining: int) -> Demand:
    return Demand(group=HALVES, remaining=remaining, names=("a", "b"))


def ends(stop: Stop, phases: list[tuple[int | None, Group]], *remaining: int, limit: int | None = None) -> list[object]:
    """First slot, length and counts before of each stage."""
    stages = cut(stop, round_robin, phases, demand(*remaining), limit)
    return [(stage.first, stage.length, stage.base) for stage in stages]


def test_one_phase() -> None:
    assert ends(first_exhausted(), [(None, HALVES)], 3, 5) == [(0, 6, (0, 0))]  # the seventh slot is a's fourth
    assert ends(first_exhausted(), [(None, HALVES)], 5, 3) == [(0, 7, (0, 0))]
    assert ends(all_exhausted(), [(None, HALVES)], 3, 5) == [(0, 10, (0, 0))]
    assert ends(exhaust_once(), [(None, HALVES)], 3, 5) == [(0, 5, (0, 0)), (5, 3, (3, 2))]
    assert ends(forever(), [(None, HALVES)], 3, 5) == [(0, None, (0, 0))]


def test_a_limit() -> None:
    for stop in (first_exhausted(), all_exhausted(), forever()):
        assert ends(stop, [(None, HALVES)], 30, 50, limit=4) == [(0, 4, (0, 0))]
    assert ends(exhaust_once(), [(None, HALVES)], 3, 50, limit=8) == [(0, 5, (0, 0)), (5, 3, (3, 2))]


def test_phases() -> None:
    assert ends(forever(), [(4, FIRST), (None, SECOND)], 3, 5) == [(0, 4, (0, 0)), (4, None, (4, 0))]
    assert ends(first_exhausted(), [(4, FIRST), (None, SECOND)], 9, 5) == [(0, 4, (0, 0)), (4, 5, (4, 0))]
    assert ends(first_exhausted(), [(4, FIRST), (None, SECOND)], 3, 5) == [(0, 3, (0, 0))]
    assert ends(first_exhausted(), [(4, FIRST), (None, HALVES)], 4, 5) == [(0, 4, (0, 0)), (4, 1, (4, 0))]
    assert ends(first_exhausted(), [(4, FIRST), (6, FIRST), (None, SECOND)], 4, 5) == [
        (0, 4, (0, 0))
    ]  # a comes at once
    assert ends(first_exhausted(), [(4, FIRST), (None, SECOND)], 4, 5) == [(0, 4, (0, 0)), (4, 5, (4, 0))]
    assert ends(exhaust_once(), [(4, FIRST), (None, SECOND)], 3, 5) == [(0, 3, (0, 0)), (3, 5, (3, 0))]


def test_the_order_learns_of_each_stage() -> None:
    demands: list[Demand] = []

    def recorded(demand: Demand) -> Period:
        demands.append(demand)
        return round_robin(demand)

    cut(exhaust_once(), recorded, [(None, HALVES)], demand(3, 5))
    first, second = demands
    assert (first.first, first.remaining, first.last, first.horizon) == (0, [3, 5], None, 8)
    assert (second.first, second.remaining, second.base, second.last) == (5, [0, 3], (3, 2), 0)
    assert second.active.tolist() == [1]


@pytest.mark.parametrize(
    ("stop", "num_stages"), [(first_exhausted(), 4), (all_exhausted(), 4), (exhaust_once(), 6), (forever(), 4)]
)
def test_most_stages(stop: Stop, num_stages: int) -> None:
    assert most_stages(stop, 3, 4) == num_stages


def test_draws_are_not_walked_for_hours(drawn_slots: list[int]) -> None:
    rare = Group.flat([Fraction(1, 2**20), 1 - Fraction(1, 2**20)])
    wanted = Demand(group=rare, remaining=[1000, 10], names=("a", "b"))
    with pytest.raises(ConfigError, match=r"^stop: some 1,049,624,576 records would be drawn one by one "):
        cut(all_exhausted(), random, [(None, rare)], wanted)
    (stage,) = cut(first_exhausted(), random, [(None, rare)], wanted)
    assert isinstance(stage.period, Draws)
    assert 0 < sum(drawn_slots) <= 2**19
    many = Demand(group=HALVES, remaining=[4 * 10**9] * 2, names=("a", "b"))
    with pytest.raises(
        ConfigError, match=r"^stop: some 8,000,000,\d+ records would be drawn .* choose another stop\.$"
    ):
        cut(first_exhausted(), random, [(None, HALVES)], many, 10**12)
    (stage,) = cut(forever(), random, [(None, HALVES)], many, 10**12)
    assert stage.length == 10**12
    assert sum(drawn_slots) <= 2**19


def test_a_source_without_a_slot() -> None:
    def first_only(demand: Demand) -> Period:
        return Table.of([0], demand.num_sources)

    with pytest.raises(ConfigError, match=r"^the order gives source 'b' no slot, though it has a share; "):
        cut(all_exhausted(), first_only, [(None, HALVES)], demand(3, 5))


def capped(caps: dict[int, int], stop: Stop, *remaining: int, limit: int | None = None, **how: bool) -> list[object]:
    """First slot, length and counts before of each stage, of sources that fill so many slots at most."""
    stages = cut(stop, round_robin, [(None, HALVES)], demand(*remaining), limit, caps=caps, **how)
    return [(stage.first, stage.length, stage.base) for stage in stages]


def test_a_source_drops_out_at_its_cap() -> None:
    assert capped({0: 6}, forever(), 3, 5) == [(0, 11, (0, 0)), (11, None, (6, 5))]
    assert capped({0: 6, 1: 5}, forever(), 3, 5) == [(0, 10, (0, 0)), (10, 1, (5, 5))]
    assert capped({0: 3}, all_exhausted(), 3, 50) == [(0, 5, (0, 0)), (5, 48, (3, 2))]
    assert capped({0: 30}, all_exhausted(), 3, 5) == [(0, 10, (0, 0))]  # the mix ends before
    assert capped({0: 6}, forever(), 3, 5, limit=8) == [(0, 8, (0, 0))]
    assert capped({0: 6}, forever(), 3, 5, limit=15) == [(0, 11, (0, 0)), (11, 4, (6, 5))]
    for count in (1, 2):
        assert most_stages(forever(), 3, num_caps=count) == 1 + count


def test_or_ends_the_mix_there() -> None:
    assert capped({0: 6}, forever(), 3, 5, drops_at_cap=False) == [(0, 12, (0, 0))]
    assert capped({0: 6}, forever(), 3, 5, limit=12, drops_at_cap=False) == [(0, 12, (0, 0))]
    for stop, limit in ((forever(), 13), (all_exhausted(), None)):
        with pytest.raises(ConfigError, match=r"mix.max_epochs.a: the mix goes through a once more from record 12 on"):
            capped({0: 6}, stop, 3, 50, limit=limit, drops_at_cap=False)
