"""Strata and lengths; Tijdeman's rule itself is in test_orders.py."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.fills import by_length
from datamix.mixing.plan import Plan

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


@CHECK
@given(weights=weights, batch=st.integers(1, 40), window=st.booleans())
def test_every_batch_holds_its_quota_and_nothing_adds_up(weights: list[float], batch: int, window: bool) -> None:
    plan = plan_of(weights, stratify=True, batch_size=batch, stop="forever", window=batch if window else None)
    exact = np.asarray([float(share) for share in plan.shares]) * batch
    found = quotas(plan, batch, 150)
    assert (found >= np.floor(exact - 1e-9)).all()
    assert (found <= np.ceil(exact + 1e-9)).all()
    drift = np.cumsum(found, axis=0) - exact * np.arange(1, 151)[:, None]
    assert np.abs(drift).max() < 1


def test_strata_begin_where_batches_do_after_a_source_dropped_out() -> None:
    plan = Plan({"a": 101, "b": 900, "c": 900}, {"b": 2}, stratify=True, batch_size=8, stop="exhaust_once")
    second = plan.stages[1]
    assert second.first % 8
    start = -(-second.first // 8) * 8
    exact = np.asarray([0, 2 / 3, 1 / 3]) * 8
    found = quotas(plan, 8, 40, start)
    assert ((found >= np.floor(exact)) & (found <= np.ceil(exact))).all()
    taken = plan.take(0, 1901)
    assert len({*zip(taken.source.tolist(), taken.record.tolist(), strict=True)}) == 1901


def test_windows_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.window = 3: with mix\.stratify it divides the batch's 8 records\.$"):
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


@CHECK
@given(weights=weights, seed=st.integers(0, 99))
def test_summed_lengths_stay_within_one_longest_record(weights: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(len(weights))]
    lengths = {name: generator.integers(0, 2 ** (i + 3), 500) + (i == 0) for i, name in enumerate(names)}
    sizes = dict.fromkeys(names, 500)
    plan = Plan(sizes, dict(zip(names, weights, strict=True)), lengths=lengths, stop="forever", samples=4000)
    taken = plan.take(0, 4000)
    amounts = np.stack([lengths[names[s]][r] * np.eye(len(names))[s] for s, _, r in zip(*taken, strict=True)])
    off = np.cumsum(amounts, axis=0) - np.cumsum(amounts.sum(axis=1))[:, None] * [float(s) for s in plan.shares]
    worst = np.abs(off).max()
    assert worst <= max(values.max() for values in lengths.values()) + 1e-6
    assert plan.max_deviation()[0] == pytest.approx(worst)
    assert plan.amounts(4000) == amounts.sum(axis=0).astype(int).tolist()


def test_past_the_table_lengths_follow_the_shares_on_average() -> None:
    generator = np.random.default_rng(0)
    lengths = {"short": generator.integers(1, 9, 300), "long": generator.integers(1, 900, 200)}
    plan = Plan({"short": 300, "long": 200}, {"short": 3}, lengths=lengths, stop="forever")
    begun = 10**9
    amounts = np.subtract(plan.amounts(begun + 10**7), plan.amounts(begun))
    assert amounts[0] / amounts.sum() == pytest.approx(0.75, rel=0.01)
    assert plan.long_run_share(0) == pytest.approx(0.75, rel=0.01)
    assert (
        plan.report().warnings[0] == "lengths follow the shares record by record for 262,144 records, then on average."
    )


def test_one_giant_record_does_not_decide_the_ratio_of_all_that_comes() -> None:
    lengths = {"a": np.asarray([10**6] + [1] * 9999), "b": np.ones(10_000, int)}
    plan = Plan(dict.fromkeys("ab", 10_000), lengths=lengths, shuffle=False, stop="forever")
    begun = 2**18
    amounts = np.subtract(plan.amounts(begun + 10**8), plan.amounts(begun))
    assert amounts[0] / amounts.sum() == pytest.approx(0.5, rel=0.01)
    assert plan.long_run_share(0) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"order": "round_robin"},
            r"^mix\.unit: mix=round_robin takes one of each source in turn and follows no lengths",
        ),
        ({"order": "concat"}, r"^mix\.unit: mix=concat takes every source whole"),
        ({"stratify": True}, r"^mix\.stratify counts records: leave mix\.unit=record, or leave it out\.$"),
        ({"granularity": "batch"}, r"^mix\.unit follows lengths record by record; set mix\.granularity=record\.$"),
        ({"lengths": {"a": np.ones(3, int), "b": np.ones(4, int)}}, r"lengths of source 'b' are int64\[4\]; they are"),
        ({"lengths": {"a": np.ones(3, int), "b": np.zeros(3, int)}}, r"and not all 0\.$"),
        ({"lengths": {"a": np.ones(3, int), "b": np.ones(3)}}, r"lengths of source 'b' are float64\[3\]"),
        ({"lengths": {"a": np.ones(3, int), "b": np.asarray([1, -1, 2])}}, r"whole numbers, 0 or more"),
    ],
)
def test_lengths_that_cannot_be_followed(settings: dict[str, Any], message: str) -> None:
    lengths = {"lengths": {"a": np.ones(3, int), "b": np.ones(3, int)}, "batch_size": 2}
    with pytest.raises(ConfigError, match=message):
        Plan({"a": 3, "b": 3}, **(lengths | settings))  # type: ignore[arg-type]


def test_random_draws_follow_lengths_on_average() -> None:
    lengths = {"short": np.full(100, 2), "long": np.full(100, 20)}
    plan = Plan(dict.fromkeys(lengths, 100), order="random", lengths=lengths, stop="forever")
    amounts = plan.amounts(100_000)
    assert amounts[0] / sum(amounts) == pytest.approx(0.5, abs=0.02)
