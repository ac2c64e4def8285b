from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.record_lengths import RecordLengths
from datamix.mixing.table_fills import by_length

CHECK = settings(derandomize=True, deadline=None, max_examples=20)


weights = st.lists(st.integers(1, 50) | st.floats(1e-2, 1), min_size=2, max_size=9)


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


def test_lengths_follow_the_shares_for_ever() -> None:
    generator = np.random.default_rng(0)
    lengths = {"short": generator.integers(1, 9, 300), "long": generator.integers(1, 900, 200)}
    plan = Plan({"short": 300, "long": 200}, {"short": 3}, lengths=lengths, stop="forever")
    for position in (2**18 + 1, 10**6, 10**9, 2**50):
        amounts = plan.amounts(position)
        assert abs(amounts[0] - 0.75 * sum(amounts)) <= 900
    assert plan.long_run_share(0) == pytest.approx(0.75, rel=1e-9)
    assert not any("lengths" in warning for warning in plan.report().warnings)


def test_records_within_a_summed_length() -> None:
    stored = (np.asarray([3, 0, 5, 2]),)
    shuffle = Plan({"a": 4}, shuffle=False).shuffle
    lengths = RecordLengths(stored=stored, shuffle=shuffle)
    for amount in range(35):
        count, summed = lengths.within(0, amount)
        assert summed == lengths.summed(0, count) <= amount < lengths.summed(0, count + 1)


@pytest.mark.parametrize("stop", ["first_exhausted", "exhaust_once", "all_exhausted"])
@pytest.mark.parametrize("first", [1, 3000])
def test_records_that_differ_from_the_mean_come_first(stop: str, first: int) -> None:
    lengths = {"a": np.full(100, 100), "b": np.asarray([first] * 126 + [1000] * 4000)}
    plan = Plan({"a": 100, "b": 4126}, lengths=lengths, shuffle=False, stop=stop, samples=9000)
    assert plan.length is not None
    source, _, record = plan.take(0, plan.length)
    longest = max(first, 1000)
    for stage in plan.stages:
        slots = slice(stage.first, stage.first + (stage.length or 0))
        amounts = np.where(source[slots], lengths["b"][record[slots] % 4126], 100)
        for i, share in enumerate(stage.shares):
            off = np.cumsum(np.where(source[slots] == i, amounts, 0)) - np.cumsum(amounts) * float(share)
            assert np.abs(off).max() <= longest


def test_slots_until_sources_have_been_given_records() -> None:
    plan = Plan({"a": 3, "b": 2}, lengths={"a": np.asarray([1, 2, 3]), "b": np.asarray([8, 2])}, shuffle=False)
    lengths, half = RecordLengths(stored=plan.lengths, shuffle=plan.shuffle), (Fraction(1, 2),) * 2
    source = by_length(half, lengths.of, (0, 0), 400)
    for a, b in ((1, 1), (3, 2), (3, 30), (40, 3)):
        ends = [int(np.flatnonzero(source == i)[count - 1]) + 1 for i, count in enumerate((a, b))]
        assert min(ends) <= lengths.slots_until(min, half, (0, 0), {0: a, 1: b}, 0) <= min(ends) + 20
        assert max(ends) <= lengths.slots_until(max, half, (0, 0), {0: a, 1: b}, 0) <= max(ends) + 20


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
            r"^mix\.unit: mix=round_robin takes one record of each source in order and follows no lengths",
        ),
        ({"order": "concat"}, r"^mix\.unit: mix=concat takes every source whole"),
        ({"stratify": True}, r"^mix\.stratify: it counts records; leave mix\.unit=record, or leave it out\.$"),
        ({"granularity": "batch"}, r"^mix\.unit: it follows lengths record by record\. Set mix\.granularity=record\.$"),
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
