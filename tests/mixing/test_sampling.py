from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.sampling import ByClass, ByWeight

ONE = 2**32


def drawn(plan: Plan, source: int, count: int) -> np.ndarray:
    """The records that a source gives among the first `count` of the mix."""
    selection = plan.take(0, count)
    return selection.record[selection.source == source]


# Drawn by weight.


def given_by(table: ByWeight) -> list[int]:
    """How many of all pairs of a place and one of 2^32 draws give each record."""
    pairs = [0] * table.num_records
    for place, (threshold, alias) in enumerate(zip(table.threshold.tolist(), table.alias.tolist(), strict=True)):
        pairs[place] += threshold
        pairs[alias] += ONE - threshold
    return pairs


def test_exact_alias_table() -> None:
    table = ByWeight.of(np.array([1.0, 0.0, 2.0, 5.0]))
    assert given_by(table) == [ONE // 2, 0, ONE, 5 * ONE // 2]
    assert (table.num_records, table.epoch_records) == (4, 4)
    assert table.seen == pytest.approx(np.mean([1 - (7 / 8) ** 4, 0, 1 - (6 / 8) ** 4, 1 - (3 / 8) ** 4]))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.one_of(st.integers(0, 5), st.floats(0, 1e300)), min_size=1, max_size=60))
def test_an_alias_table_gives_every_weight(weights: list[float]) -> None:
    values = np.asarray(weights, np.float64)
    if not values.any():
        values[0] = 1
    pairs, shares = given_by(ByWeight.of(values)), values / values.max()
    assert sum(pairs) == len(values) * ONE
    for pair, share, value in zip(pairs, shares / shares.sum(), values, strict=True):
        assert abs(pair - share * len(values) * ONE) <= 2 * len(values)
        assert (pair > 0) == (value > 0)


def test_one_record_with_all_the_weight_and_equal_weights() -> None:
    assert given_by(ByWeight.of(np.array([0, 7, 0]))) == [0, 3 * ONE, 0]
    assert given_by(ByWeight.of(np.full(5, 0.1))) == [ONE] * 5
    assert ByWeight.of(np.array([3])).seen == 1


@pytest.mark.parametrize(
    "weights", [[1, -1], [np.nan, 1], [np.inf, 1], [0, 0], [], [[1, 2]]], ids=["<0", "NaN", "inf", "0", "none", "2d"]
)
def test_weights_that_are_none(weights: list[Any]) -> None:
    message = r"^weights of records are finite numbers, 0 or more, one for each, and not all 0\.$"
    with pytest.raises(ConfigError, match=message):
        ByWeight.of(np.array(weights))


def test_frequencies_follow_the_weights() -> None:
    weights = np.random.default_rng(0).exponential(size=200)
    plan = Plan({"a": 200, "b": 50}, sampling={"a": ByWeight.of(weights)}, stop="forever")
    counts = np.bincount(drawn(plan, 0, 2 * 10**6), minlength=200)
    expected = weights / weights.sum() * counts.sum()
    # Chi-square of 199 degrees of freedom: within the 0.1th and the 99.9th percentile.
    assert 141 < ((counts - expected) ** 2 / expected).sum() < 266


def test_draws_are_independent_of_each_other_and_of_the_epoch() -> None:
    weights = np.array([1, 2, 3, 4])
    records = drawn(Plan({"a": 4}, sampling={"a": ByWeight.of(weights)}, stop="forever"), 0, 400_000)
    for lag in (1, 4, 5):  # the next draw, the same place of the next epoch, and the one after it
        pairs = np.bincount(records[:-lag] * 4 + records[lag:], minlength=16)
        expected = np.outer(weights, weights).ravel() / 100 * (len(records) - lag)
        assert ((pairs - expected) ** 2 / expected).sum() < 37.7  # the 99.9th percentile of 15 degrees of freedom


def test_an_epoch_is_as_many_draws_as_there_are_records() -> None:
    plan = Plan({"a": 5}, sampling={"a": ByWeight.of(np.array([0, 1, 1, 1, 1]))}, stop="all_exhausted")
    assert (plan.length, plan.epoch_records) == (5, (5,))
    assert 0 not in drawn(plan, 0, 5)
    report = plan.report()
    assert (report.sources["a"].epochs, report.sources["a"].exhausted_at) == (1, None)
    assert "a is drawn by weight, with replacement: about 61.0% of its records are seen in an epoch." in report.warnings


# Class by class.


def test_exact_classes() -> None:
    by_class = ByClass.of(np.array([2, 0, 2, 2, 2, 0]))
    plan = Plan({"a": 6}, sampling={"a": by_class}, stop="forever", shuffle=False)
    assert drawn(plan, 0, 12).tolist() == [1, 0, 5, 2, 1, 3, 5, 4, 1, 0, 5, 2]
    assert plan.drawn() == [
        "a is balanced: each of its 2 classes, which have 2 to 4 records, gives 3 records in an epoch of 6."
    ]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.sampled_from(["full", "none", "window(3)"]))
def test_classes_take_turns_and_are_gone_through_whole(labels: list[int], shuffle: str) -> None:
    classes = np.array(labels)
    plan = Plan({"a": len(labels)}, sampling={"a": ByClass.of(classes)}, stop="forever", shuffle=shuffle, seed=5)
    names, sizes = np.unique(classes, return_counts=True)
    records = drawn(plan, 0, 5 * len(labels) + 7)
    turns = classes[records]
    for name, size in zip(names, sizes, strict=True):
        given = np.cumsum(turns == name)
        ahead = given - np.arange(1, len(turns) + 1) / len(names)
        assert -1 < ahead.min() <= ahead.max() < 1  # at every prefix
        own = records[turns == name]
        for begin in range(0, len(own) - size + 1, size):
            assert len(set(own[begin : begin + size].tolist())) == size
    assert plan.epoch_records[0] == -(-len(labels) // len(names)) * len(names)


def test_rounds_and_classes_are_shuffled() -> None:
    classes = np.arange(400) % 4
    plan = Plan({"a": 400}, sampling={"a": ByClass.of(classes)}, stop="forever")
    records = drawn(plan, 0, 800)
    rounds = {tuple(each) for each in classes[records].reshape(-1, 4).tolist()}
    assert len(rounds) == 24  # every order of four classes
    first, second = (records[i:][:400][classes[records[i:][:400]] == 2].tolist() for i in (0, 400))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(2, 400, 4))


@pytest.mark.parametrize("order", ["proportional", "random", "round_robin", "concat"])
def test_a_drawn_source_does_not_change_the_others(order: str) -> None:
    sizes = {"a": 30, "b": 20, "c": 10}
    plain = Plan(sizes, order=order, stop="forever")
    other = Plan(
        sizes,
        order=order,
        stop="forever",
        sampling={"a": ByWeight.of(np.arange(30)), "c": ByClass.of(np.arange(10) % 2)},
    )
    mine, theirs = plain.take(0, 500), other.take(0, 500)
    np.testing.assert_array_equal(mine.source, theirs.source)
    for source, same in ((0, False), (1, True), (2, False)):
        assert (mine.record == theirs.record)[mine.source == source].all() == same


def test_what_does_not_fit_a_plan() -> None:
    by_weight = ByWeight.of(np.ones(4))
    with pytest.raises(ConfigError, match=r"^sampling\.a: source 'a' has 5 records, and 4 are drawn from\.$"):
        Plan({"a": 5}, sampling={"a": by_weight})
    with pytest.raises(ConfigError, match=r"^sampling\.b: there is no source 'b' in this mix\. Known: a\.$"):
        Plan({"a": 4}, sampling={"b": by_weight})
    message = r"^mix\.unit: it counts every record once an epoch, and those of a are drawn\. Leave balance and"
    with pytest.raises(ConfigError, match=message):
        Plan({"a": 4}, sampling={"a": by_weight}, lengths={"a": np.ones(4, int)})
