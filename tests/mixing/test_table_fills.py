"""Strata and lengths; Tijdeman's rule itself is in test_orders.py."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.table_fills import (
    by_credit,
    by_length,
    earliest_deadlines,
    largest_deviation,
    rounded,
    stratified,
    tijdeman,
)

CHECK = settings(derandomize=True, deadline=None, max_examples=20)
weights = st.lists(st.integers(1, 50) | st.floats(1e-2, 1), min_size=2, max_size=9)


def plan_of(weights: list[float], sizes: int = 10**6, **settings: Any) -> Plan:
    names = [f"s{i}" for i in range(len(weights))]
    return Plan(dict.fromkeys(names, sizes), dict(zip(names, weights, strict=True)), **settings)


# Strata.


def quotas(plan: Plan, batch: int, num_batches: int, start: int = 0) -> np.ndarray:
    source = plan.take(start, batch * num_batches).source.reshape(num_batches, batch)
    return np.stack([(source == i).sum(axis=1) for i in range(len(plan.names))], axis=1)


def test_exact_quotas() -> None:
    plan = plan_of([5, 3, 2], stratify=True, batch_size=4, stop="forever")
    assert quotas(plan, 4, 5).tolist() == [[2, 1, 1], [2, 1, 1], [2, 2, 0], [2, 1, 1], [2, 1, 1]]
    assert plan.take(0, 8).source.tolist() == [0, 1, 2, 0, 0, 1, 2, 0]


@pytest.mark.slow
@CHECK
@given(weights=weights, batch=st.integers(1, 40), window=st.booleans())
def test_every_batch_holds_its_quota_and_nothing_adds_up(weights: list[float], batch: int, window: bool) -> None:
    plan = plan_of(weights, stratify=True, batch_size=batch, stop="forever", window=batch if window else None)
    exact = np.asarray([float(share) for share in plan.shares]) * batch
    counts = quotas(plan, batch, 150)
    assert (counts >= np.floor(exact - 1e-9)).all()
    assert (counts <= np.ceil(exact + 1e-9)).all()
    drift = np.cumsum(counts, axis=0) - exact * np.arange(1, 151)[:, None]
    assert np.abs(drift).max() < 1


def test_strata_begin_where_batches_do_after_a_source_dropped_out() -> None:
    plan = Plan({"a": 101, "b": 900, "c": 900}, {"b": 2}, stratify=True, batch_size=8, stop="exhaust_once")
    second = plan.stages[1]
    assert second.first % 8
    start = -(-second.first // 8) * 8
    exact = np.asarray([0, 2 / 3, 1 / 3]) * 8
    counts = quotas(plan, 8, 40, start)
    assert ((counts >= np.floor(exact)) & (counts <= np.ceil(exact))).all()
    taken = plan.take(0, 1901)
    assert len({*zip(taken.source.tolist(), taken.record.tolist(), strict=True)}) == 1901


def test_windows_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.window = 3; with mix\.stratify it divides the batch's 8 records\.$"):
        plan_of([1, 1], stratify=True, batch_size=8, window=3)


# Lengths.


def fair_queue(shares: list[Fraction], lengths: list[list[int]], count: int) -> list[int]:
    """WF2Q as the paper tells it, slowly, with exact numbers and every queue looked at for every slot."""
    passed, taken, order = [0] * len(shares), [0] * len(shares), []
    for _ in range(count):
        now = sum(passed)
        may = [i for i in range(len(shares)) if passed[i] <= shares[i] * now]
        due = {i: ((passed[i] + lengths[i][taken[i]]) / shares[i], i) for i in may}
        chosen = min(due, key=lambda i: due[i])
        passed[chosen] += lengths[chosen][taken[chosen]]
        taken[chosen] += 1
        order.append(chosen)
    return order


@CHECK
@given(
    weights=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=2, max_size=5),
    longest=st.lists(st.integers(1, 300), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_lengths_are_queued_fairly(weights: list[int], longest: list[int], seed: int) -> None:
    total = 2 ** (sum(weights) - 1).bit_length()  # shares in powers of two, so that no rounding decides
    shares = [Fraction(weight, total) for weight in weights]
    shares[0] += 1 - sum(shares)
    generator = np.random.default_rng(seed)
    lengths = [generator.integers(1, longest[i] + 1, 400) for i in range(len(shares))]
    source_of = by_length(
        shares, lambda source, numbers: np.resize(lengths[source], 5000)[numbers], [0] * len(shares), 300
    )
    assert source_of.tolist() == fair_queue(shares, [values.tolist() for values in lengths], 300)


def credit_after(shares: list[Fraction], source: np.ndarray, slots: int) -> list[Fraction]:
    counts = np.bincount(source[:slots], minlength=len(shares)).tolist()
    return [slots * share - count for share, count in zip(shares, counts, strict=True)]


@CHECK
@given(st.lists(st.integers(1, 60), min_size=2, max_size=7), st.data())
def test_tijdeman_goes_on_where_it_left_off(weights: list[int], data: st.DataObject) -> None:
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    cycle = tijdeman(shares)
    cut = data.draw(st.integers(0, len(cycle)))
    horizon = data.draw(st.none() | st.integers(1, len(cycle)))
    rest = tijdeman(shares, horizon, credit_after(shares, cycle, cut))
    assert len(rest) == (horizon or len(cycle))
    assert rest.tolist() == np.roll(cycle, -cut)[: len(rest)].tolist()


@CHECK
@given(
    weights=st.lists(st.integers(1, 60), min_size=2, max_size=7),
    parts=st.lists(st.fractions(-3, 3, max_denominator=50), min_size=7, max_size=7),
    is_whole=st.booleans(),
)
def test_tijdeman_from_any_credit(weights: list[int], parts: list[Fraction], is_whole: bool) -> None:
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    mean = sum(parts[: len(weights)]) / len(weights)
    credit = [part - mean for part in parts[: len(weights)]]
    least, most = 1 - Fraction(1, 2 * len(weights) - 2), max(map(abs, credit))
    count = 12 * len(weights)
    source = tijdeman(shares, None if is_whole else count, credit)
    if len(source) == math.lcm(
        *(share.denominator for share in shares)
    ):  # it repeats: in every round each source gets what it weighs
        weighed = [int(share * len(source)) for share in shares]
        assert np.bincount(source, minlength=len(weights)).tolist() == weighed
        source = np.resize(source, count)
    due = np.arange(1, len(source) + 1)[:, None] * np.asarray(shares, float)
    off = due + np.asarray(credit, float) - np.cumsum(np.eye(len(weights))[source], axis=0)
    assert np.abs(off).max() <= least + most + 1e-6


def test_many_that_are_behind_do_not_hold_up_a_large_one() -> None:
    """Earliest deadlines alone would give the small ones 25 slots in a row."""
    shares = [Fraction(1, 2)] + [Fraction(1, 200)] * 100
    credit = [Fraction(0)] + [Fraction(1, 2)] * 50 + [Fraction(-1, 2)] * 50
    source = tijdeman(shares, 150, credit)
    assert largest_deviation(source, shares, credit) <= 1.5
    assert set(source.tolist()) >= set(range(51))


def test_one_that_is_far_behind_catches_up() -> None:
    shares = [Fraction(701, 1000), Fraction(200, 1000), Fraction(99, 1000)]
    behind = [Fraction(-10), Fraction(10), Fraction(0)]
    source = tijdeman(shares, 100, behind)
    assert [float(part) for part in credit_after(shares, source, 100)] == pytest.approx([10, -10, 0], abs=1)
    assert 0 not in source[:10]
    # A cycle that repeats cannot: it leaves them as they are.
    assert np.bincount(tijdeman(shares, None, behind)).tolist() == [701, 200, 99]


@CHECK
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6), st.integers(1, 200))
def test_by_credit_goes_on_where_it_left_off(weights, cut):
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    whole = by_credit(shares, [], 300)
    assert whole[cut:].tolist() == by_credit(shares, credit_after(shares, whole, cut), 300 - cut).tolist()
    prefixes = np.cumsum(np.eye(len(weights))[whole], axis=0)
    wanted = np.arange(1, 301)[:, None] * np.asarray(shares, float)
    assert np.abs(prefixes - wanted).max() <= 1 + np.log(len(weights))


def test_by_credit_of_shares_without_a_short_period():
    shares = [Fraction(1, 2**61 - 1), 1 - Fraction(1, 2**61 - 1)]
    assert by_credit(shares, [], 4).tolist() == [1, 1, 1, 1]


@CHECK
@given(weights=st.tuples(st.integers(1, 40), st.integers(1, 40)), horizon=st.none() | st.integers(1, 90))
def test_two_sources_are_filled_by_the_rule_for_any_number(weights: tuple[int, int], horizon: int | None) -> None:
    total = sum(weights)
    ideal = [(Fraction((2 * n + 1) * total, 2 * weight), i) for i, weight in enumerate(weights) for n in range(total)]
    releases = np.array([math.ceil(position) - 1 for position, _ in ideal])
    tickets = np.array([math.floor(position) * 2 + source for position, source in ideal])
    table = tijdeman([Fraction(weight, total) for weight in weights], horizon)
    assert table.tolist() == (earliest_deadlines(releases, tickets, len(table)) % 2).tolist()


def test_the_strata_of_many_sources_take_little_memory() -> None:
    """Counts of all sources in all batches would be 62 MB, and a GB and more for 10,000 sources."""
    parts = [1 + i % 7 for i in range(1000)]
    shares = [Fraction(part, sum(parts)) for part in parts]
    tracemalloc.start()
    source_of = stratified(shares, 16, 0, None, 2**18)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source_of) > 2**15
    assert peak < 2**25


# Credits.


@CHECK
@given(st.integers(-(2**60), 2**60) | st.integers(-99, 99).map(lambda part: part << 37), st.integers(1, 2**60))
def test_a_credit_is_rounded_as_a_fraction_is(credit: int, unit: int) -> None:
    exact = Fraction(credit, unit)
    expected = exact if exact.denominator <= 2**24 else Fraction(round(exact * 2**24), 2**24)
    assert rounded(credit, unit) == expected


def test_halves_are_rounded_to_even_numbers() -> None:
    assert [rounded(parts, 2**25) * 2**24 for parts in (-3, -1, 1, 3, 5)] == [-2, 0, 0, 2, 2]
