"""Shares that no table holds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.carrying import carried
from datamix.mixing.periods import Carried
from datamix.mixing.plan import Plan


def random_shares(num_sources: int, decades: float, seed: int) -> list[Fraction]:
    """Shares over some orders of magnitude, whose common denominator has some 16 digits."""
    weights = 10 ** np.random.default_rng(seed).uniform(0, decades, num_sources)
    numbers = [round(weight * 10**10) for weight in weights]
    return [Fraction(number, sum(numbers)) for number in numbers]


def worst_in_cycle(period: Carried, shares: list[Fraction], cycle: int) -> float:
    """The largest distance of a source's count from its exact share at any prefix that ends in a cycle."""
    length, first = period.table.length, cycle * period.table.length
    source, number = period.take(first, length)
    before = period.counts(first)
    off = np.asarray([float(count - share * first) for count, share in zip(before, shares, strict=True)])
    share = np.asarray([float(share) for share in shares])
    # Right after a slot of its own a source is farthest ahead, right before one farthest behind.
    slot, gained = np.arange(length), number - np.asarray(before)[source]
    ahead = off[source] + gained + 1 - share[source] * (slot + 1)
    behind = off[source] + gained - share[source] * slot
    return float(max(ahead.max(), -behind.min(), np.abs(off).max()))


@settings(derandomize=True, deadline=None, max_examples=12)
@given(
    num_sources=st.integers(2, 40), decades=st.sampled_from([0.3, 2, 4]), seed=st.integers(0, 999),
    cycles=st.lists(st.integers(0, 10**12 // 2**14), min_size=3, max_size=3),
)  # fmt: skip
def test_any_shares_are_within_two_slots_for_ever(
    num_sources: int, decades: float, seed: int, cycles: list[int]
) -> None:
    shares = random_shares(num_sources, decades, seed)
    period = carried(shares, 2**16)
    for cycle in (0, *cycles):
        assert worst_in_cycle(period, shares, cycle) < 2


@pytest.mark.parametrize("num_sources", [200, 1000])
def test_many_sources_over_four_orders_of_magnitude(num_sources: int) -> None:
    shares = random_shares(num_sources, 4, num_sources)
    period = carried(shares, 2**18)
    for cycle in (0, 1, 10**6):
        assert worst_in_cycle(period, shares, cycle) < 2


def test_a_walk_gives_what_the_counts_say() -> None:
    """Slot by slot, with exact fractions, from a far position on."""
    shares = random_shares(5, 2, 1)
    period = carried(shares, 2**14)
    start = 10**12 - 7
    counts = period.counts(start)
    source, number = period.take(start, 3000)
    for offset, (i, n) in enumerate(zip(source.tolist(), number.tolist(), strict=True)):
        assert n == counts[i]
        counts[i] += 1
        assert all(abs(count - share * (start + offset + 1)) < 2 for count, share in zip(counts, shares, strict=True))
    assert counts == period.counts(start + 3000)
    assert [period.slot_of(int(i), int(n)) for i, n in zip(source[:50], number[:50], strict=True)] == [
        start + offset for offset in range(50)
    ]


def test_shares_that_fit_a_block_swap_nothing() -> None:
    period = carried([Fraction(1, 2), Fraction(0), Fraction(1, 2)], 2**14)
    assert len(period.rate) == 0
    assert period.take(2**40, 4)[0].tolist() in ([0, 2, 0, 2], [2, 0, 2, 0])


def test_too_many_tiny_shares_are_refused() -> None:
    shares = [1 - Fraction(99, 10**9), *[Fraction(1, 10**9)] * 99]
    with pytest.raises(ConfigError, match=r"^mix: a share of 1e-09 is below one record in 4,194,304, and there are"):
        carried(shares, 2**18)


def test_a_share_that_nobody_would_ever_meet_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^mix: a share of 1e-300 is below one record in 2\^50; raise it, or make it 0\.$"
    ):
        Plan({"large": 10, "tiny": 10}, {"tiny": 1e-300}, stop="forever")


@pytest.mark.parametrize(
    "options",
    [
        {"stop": "all_exhausted"},
        {"stop": "exhaust_once"},
        {"stop": "first_exhausted"},
        {"stop": "forever", "window": 8},
        {"stop": "forever", "granularity": "batch", "batch_size": 4},
        {
            "stop": "forever",
            "schedule": [
                {"until": 400_000, "weights": {"a": 0.123456789}},
                {"weights": {"a": 0.77777777, "b": 0.123123}},
            ],
        },
    ],
)
def test_every_stop_window_and_schedule(options: dict[str, Any]) -> None:
    sizes = {"a": 900_000, "b": 700_000, "c": 300_000}
    plan = Plan(sizes, None if "schedule" in options else {"a": 0.123456789, "b": 0.31415926}, **options)
    assert any(isinstance(stage.period, Carried) for stage in plan.stages)
    slack = options.get("window", 0)
    for stage in plan.stages:
        for slot in {0, 1000, 300_000 if stage.length is None else stage.length}:
            counts = stage.period.counts(slot)
            assert all(abs(count - share * slot) < 2 + slack for count, share in zip(counts, stage.shares, strict=True))
    if options["stop"] == "exhaust_once":
        assert plan.length == sum(sizes.values())
        assert plan.counts(plan.length) == list(sizes.values())


def test_groups_are_followed_too() -> None:
    plan = Plan({"x.a": 9, "x.b": 9, "y": 9}, {"x": 0.123456789, "x.a": 0.31415926}, stop="forever")
    counts = plan.counts(10**12)
    assert all(abs(count - share * 10**12) < 2 for count, share in zip(counts, plan.shares, strict=True))
