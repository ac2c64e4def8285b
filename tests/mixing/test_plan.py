from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError, RegistryError
from datamix.mixing.periods import Draws, Table
from datamix.mixing.plan import Plan, Selection
from datamix.mixing.plan_report import largest_deviation, over_time

ORDERS = ["proportional", "random", "round_robin", "concat"]
STOPS = ["first_exhausted", "all_exhausted", "exhaust_once", "forever"]
ENDING = STOPS[:3]
CHECK = settings(derandomize=True, deadline=None, max_examples=80)

mixes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=5)
units = st.sampled_from([1, 1, 2, 5])


def plan_of(mix: list[tuple[int, int]], order: str, unit: int = 1, **settings: Any) -> Plan:
    """A plan of sources a, b, c, … with a size and, where the order knows one, a weight each."""
    names = "abcdefgh"[: len(mix)]
    sizes = {name: max(size, unit) for name, (size, _) in zip(names, mix, strict=True)}
    weights = {name: weight for name, (_, weight) in zip(names, mix, strict=True)}
    known = weights if order in ("proportional", "random") else None
    return Plan(sizes, known, order=order, batch_size=unit, granularity="batch", **settings)


def rows(selection: Selection) -> list[tuple[int, int, int]]:
    return list(zip(*(field.tolist() for field in selection), strict=True))


def orders_of(plan: Plan, source: int, num_epochs: int) -> list[list[int]]:
    """The records of a source's first epochs, in order."""
    size = plan.sizes[source]
    share = float(plan.shares[source])
    selection = plan.take(0, int(num_epochs * size / share) + 20 * len(plan.sizes) * plan.batch_records)
    mine = selection.source == source
    return [selection.record[mine & (selection.epoch == epoch)].tolist() for epoch in range(num_epochs)]


# Exact small sequences.


def test_exact_selection() -> None:
    plan = Plan(sizes={"a": 5, "b": 3}, weights={"a": 2, "b": 1}, stop="all_exhausted", shuffle=False)
    assert plan.length == 8
    assert rows(plan.take(0, 8)) == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 1),
        (0, 0, 2),
        (1, 0, 1),
        (0, 0, 3),
        (0, 0, 4),
        (1, 0, 2),
    ]
    selection = plan.take(3, 2)
    assert [field.dtype for field in selection] == [np.int32, np.int64, np.int64]
    assert rows(selection) == [(0, 0, 2), (1, 0, 1)]


def test_exact_epochs() -> None:
    plan = Plan({"a": 2, "b": 3}, order="round_robin", stop="forever", shuffle=False)
    assert rows(plan.take(0, 8)) == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 1),
        (1, 0, 1),
        (0, 1, 0),
        (1, 0, 2),
        (0, 1, 1),
        (1, 1, 0),
    ]


def test_exact_shuffle() -> None:
    """Pinned: another order would silently shuffle everybody's data anew."""
    plan = Plan({"a": 6, "b": 4}, stop="forever", seed=3)
    a, b = (orders_of(plan, source, 2) for source in (0, 1))
    assert a == [[0, 1, 2, 3, 4, 5], [1, 3, 4, 0, 2, 5]]
    assert b == [[3, 2, 1, 0], [1, 2, 3, 0]]


def test_exact_report() -> None:
    report = Plan({"a": 5, "b": 3}, {"a": 2, "b": 1}, stop="all_exhausted").report()
    assert report.length == 8
    assert report.walked == 8
    assert report.max_deviation == pytest.approx(1 / 3)
    assert report.warnings == ()
    a, b = report.sources["a"], report.sources["b"]
    assert (a.records, a.samples, a.epochs, a.exhausted_at) == (5, 5, 1.0, 7)
    assert (b.records, b.samples, b.epochs, b.exhausted_at) == (3, 3, 1.0, 8)
    assert (a.target, b.target) == (2 / 3, 1 / 3)
    assert (a.share, b.share) == (5 / 8, 3 / 8)


# What a plan refuses.


def test_no_source() -> None:
    with pytest.raises(ConfigError, match=r"^a mix needs at least one source\.$"):
        Plan({})


def test_names_that_are_not_known() -> None:
    with pytest.raises(RegistryError, match=r"^no order 'proportionl'\. Did you mean 'proportional'\?"):
        Plan({"a": 1}, order="proportionl")
    with pytest.raises(
        RegistryError, match=r"^no stop 'sometime'\. Known: all_exhausted, exhaust_once, first_exhausted, forever\.$"
    ):
        Plan({"a": 1}, stop="sometime")
    with pytest.raises(ConfigError, match=r"^mix\.weights\.bb: there is no source 'bb' in this mix\. "):
        Plan({"a": 1, "b": 1}, {"bb": 2})


def test_settings_that_the_order_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.windw: there is no such setting\. Did you mean 'window'\?"):
        Plan({"a": 1}, windw=3)
    with pytest.raises(ConfigError, match=r"^mix\.window: there is no such setting\. There are none\.$"):
        Plan({"a": 1}, order="round_robin", window=3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", STOPS)
def test_an_empty_source(order: str, stop: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^source 'b' is empty; leave it out of source=, or set mix\.weights\.b=0\.$"
    ):
        Plan({"a": 5, "b": 0}, order=order, stop=stop)
    plan = Plan({"a": 5, "b": 0}, {"b": 0}, order=order, stop=stop)
    assert not plan.take(0, 20).source.any()
    assert plan.length == (None if stop == "forever" else 5)
    row = plan.report().sources["b"]
    assert (row.records, row.share, row.exhausted_at) == (0, 0, None)


@pytest.mark.parametrize("size", [-1, 2**32])
def test_a_size_that_is_none(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^source 'b' has {size} records; a source has at most 2\^32 - 1\.$"):
        Plan({"a": 5, "b": size})


@pytest.mark.parametrize("samples", [0, -3])
def test_a_limit_that_is_none(samples: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^stop\.samples = {samples}; it is at least 1, or null for no such limit\.$"
    ):
        Plan({"a": 5}, samples=samples)


@pytest.mark.parametrize("batch_size", [0, -4])
def test_batches_of_nothing(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^batch\.size = {batch_size}; it is at least 1\.$"):
        Plan({"a": 5}, batch_size=batch_size, granularity="batch")


def test_positions_before_the_first() -> None:
    plan = Plan({"a": 5})
    for start, count in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match=rf"^take\({start}, {count}\): start and count are 0 or more, and less"):
            plan.take(start, count)


# Every record, every epoch.


@CHECK
@given(mixes, st.sampled_from(ORDERS), st.integers(0, 2**31))
def test_exhaust_once_gives_every_record_exactly_once(mix: list[tuple[int, int]], order: str, seed: int) -> None:
    plan = plan_of(mix, order, stop="exhaust_once", seed=seed)
    assert plan.length == sum(plan.sizes)
    selection = plan.take(0, 10**6)
    assert not selection.epoch.any()
    given_out = sorted(zip(selection.source.tolist(), selection.record.tolist(), strict=True))
    assert given_out == [(source, record) for source, size in enumerate(plan.sizes) for record in range(size)]


@CHECK
@given(mixes, st.sampled_from(ORDERS), units, st.booleans())
def test_every_epoch_of_every_source_is_a_permutation(
    mix: list[tuple[int, int]], order: str, unit: int, shuffle: bool
) -> None:
    plan = plan_of(mix, order, unit, stop="forever", shuffle=shuffle)
    selection = plan.take(0, 400 * unit)
    for source, size in enumerate(plan.sizes):
        mine = selection.source == source
        epoch, record = selection.epoch[mine], selection.record[mine]
        assert epoch.tolist() == [number // size for number in range(mine.sum())]
        for number in range(int(epoch[-1]) if mine.any() else 0):
            assert sorted(record[epoch == number].tolist()) == list(range(size))
            assert shuffle or record[epoch == number].tolist() == list(range(size))


def test_every_epoch_has_its_own_order() -> None:
    plan = Plan({"a": 50, "b": 20}, {"a": 1, "b": 2}, stop="forever")
    for source in (0, 1):
        orders = orders_of(plan, source, 20)
        assert len({tuple(order) for order in orders}) == 20
        assert list(range(plan.sizes[source])) not in orders


def correlation_z(first: list[int], second: list[int]) -> float:
    return float(abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(len(first) - 1))


def test_sources_epochs_and_seeds_are_unrelated() -> None:
    sizes = {"a": 2000, "b": 2000}
    one, other = (Plan(sizes, stop="forever", seed=seed) for seed in (0, 1))
    shuffles = [*orders_of(one, 0, 2), *orders_of(one, 1, 2), *orders_of(other, 0, 2), *orders_of(other, 1, 2)]
    for i, first in enumerate(shuffles):
        for second in shuffles[:i]:
            assert first != second
            assert correlation_z(first, second) < 5


def test_a_seed_of_its_own_changes_that_source_alone() -> None:
    sizes = {"a": 50, "b": 50}
    plain, other = Plan(sizes, stop="forever", seed=0), Plan(sizes, stop="forever", seed=0, seeds={"b": 7})
    assert orders_of(other, 0, 3) == orders_of(plain, 0, 3)
    assert orders_of(other, 1, 3) != orders_of(plain, 1, 3)
    assert orders_of(other, 1, 3) == orders_of(Plan(sizes, stop="forever", seed=7), 1, 3)


def test_a_source_keeps_its_order_when_another_is_added_before_it() -> None:
    """Keys come from names, never from list positions; and the weights do not matter either."""
    two = Plan({"a": 50, "b": 70}, stop="forever")
    three = Plan({"new": 10, "b": 70, "a": 50}, {"b": 3}, stop="forever")
    assert orders_of(three, 2, 2) == orders_of(two, 0, 2)
    assert orders_of(three, 1, 2) == orders_of(two, 1, 2)
    renamed = Plan({"c": 50, "b": 70}, stop="forever")
    assert orders_of(renamed, 0, 2) != orders_of(two, 0, 2)


def test_the_batch_size_does_not_change_a_source_s_order() -> None:
    one, four = (Plan({"a": 50, "b": 70}, stop="forever", batch_size=unit, granularity="batch") for unit in (1, 4))
    for source in (0, 1):
        assert orders_of(four, source, 3) == orders_of(one, source, 3)


# Positions.


@CHECK
@given(
    mixes,
    st.sampled_from(ORDERS),
    st.sampled_from(STOPS),
    units,
    st.lists(st.integers(0, 300), min_size=3, max_size=3).map(sorted),
)
def test_pieces_make_the_whole(mix: list[tuple[int, int]], order: str, stop: str, unit: int, cuts: list[int]) -> None:
    first, second, third = cuts
    plan = plan_of(mix, order, unit, stop=stop)
    pieces = rows(plan.take(first, second - first)) + rows(plan.take(second, third - second))
    assert pieces == rows(plan.take(first, third - first)) == rows(plan.take(0, third))[first:]
    assert len(rows(plan.take(0, third))) == (third if plan.length is None else min(third, plan.length))


@CHECK
@given(
    mixes,
    st.sampled_from(["proportional", "round_robin", "concat"]),
    units,
    st.one_of(st.just(10**12), st.integers(0, 2**60 - 1000)),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_pieces_make_the_whole_at_huge_positions(
    mix: list[tuple[int, int]], order: str, unit: int, start: int, first: int, second: int
) -> None:
    plan = plan_of(mix, order, unit, stop="forever")
    pieces = rows(plan.take(start, first)) + rows(plan.take(start + first, second))
    assert pieces == rows(plan.take(start, first + second))
    assert len(pieces) == first + second


@pytest.mark.parametrize("start", [0, 10**12, 2**60 - 12_345, 2**32 - 5, 2**31 - 5])
def test_huge_positions_are_exact(start: int) -> None:
    plan = Plan({"a": 7, "b": 11}, order="round_robin", stop="forever", shuffle=False)
    expected = [(p % 2, p // 2 // (7, 11)[p % 2], p // 2 % (7, 11)[p % 2]) for p in range(start, start + 50)]
    assert rows(plan.take(start, 50)) == expected
    windowed = Plan({"a": 7, "b": 11}, {"a": 3, "b": 2}, stop="forever", shuffle=False, window=5)
    table = windowed.stages[0].period
    assert isinstance(table, Table)
    block, slot = divmod(start, table.length)
    source = int(table.source_of[slot])
    number = block * int(table.quota[source]) + int(table.rank_of[slot])
    assert rows(windowed.take(start, 1)) == [(source, *divmod(number, windowed.sizes[source]))]


@CHECK
@given(mixes, st.sampled_from(ORDERS), st.sampled_from(STOPS), units, st.integers(0, 300))
def test_counts_are_what_was_taken(mix: list[tuple[int, int]], order: str, stop: str, unit: int, position: int) -> None:
    plan = plan_of(mix, order, unit, stop=stop)
    position = position if plan.length is None else min(position, plan.length)
    taken = np.bincount(plan.take(0, position).source, minlength=len(mix))
    assert plan.counts(position) == taken.tolist()


def test_random_draws_reach_the_same_slot_from_anywhere() -> None:
    sizes, weights = {"a": 1000, "b": 500}, {"a": 2, "b": 1}
    whole = rows(Plan(sizes, weights, order="random", stop="forever").take(0, 140_000))
    for start in (65_530, 131_065, 3):
        assert rows(Plan(sizes, weights, order="random", stop="forever").take(start, 100)) == whole[start : start + 100]


# Where a plan ends.


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("start", [0, 1, 38, 39, 40, 41, 43, 401, 402, 10**6 + 1])
def test_nothing_comes_after_the_end(order: str, stop: str, unit: int, start: int) -> None:
    plan = Plan({"a": 20, "b": 20}, order=order, stop=stop, batch_size=unit, granularity="batch")
    left = 10 if plan.length is None else max(0, min(10, plan.length - start))
    selection = plan.take(start, 10)
    assert [len(field) for field in selection] == [left] * 3
    assert [len(field) for field in plan.take(start, 0)] == [0] * 3
    assert [field.dtype for field in plan.take(start, 0)] == [np.int32, np.int64, np.int64]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("unit", [1, 4])
def test_a_limit_cuts_the_same_sequence(order: str, stop: str, unit: int) -> None:
    sizes = {"a": 20, "b": 32}
    whole = Plan(sizes, order=order, stop=stop, batch_size=unit, granularity="batch")
    for samples in (1, 7, 16, 10**6):
        plan = Plan(sizes, order=order, stop=stop, batch_size=unit, granularity="batch", samples=samples)
        assert plan.length == (samples if whole.length is None else min(samples, whole.length))
        assert rows(plan.take(0, 50)) == rows(whole.take(0, min(50, plan.length)))
        report = plan.report()
        assert sum(row.samples or 0 for row in report.sources.values()) == report.length == plan.length


# Zero weights.


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_source_of_weight_zero_gives_nothing_and_holds_up_nothing(order: str, stop: str, dropped: int) -> None:
    names = ["a", "b", "c"]
    plan = Plan({"a": 20, "b": 30, "c": 40}, {names[dropped]: 0}, order=order, stop=stop)
    selection = plan.take(0, 500)
    assert set(selection.source.tolist()) <= {0, 1, 2} - {dropped}
    assert (plan.length is None) == (stop == "forever")
    if stop == "exhaust_once":
        assert plan.length == sum(plan.sizes) - plan.sizes[dropped]
    report = plan.report()
    row = report.sources[names[dropped]]
    assert (row.target, row.share, row.exhausted_at) == (0, 0, None)
    assert row.samples == (None if stop == "forever" else 0)
    assert f"{names[dropped]} has no share and gives no record." in report.warnings


def test_all_weights_zero() -> None:
    with pytest.raises(ConfigError, match=r"^all weights are 0; at least one source needs a weight above 0\.$"):
        Plan({"a": 5, "b": 5}, {"a": 0, "b": 0})


# Whole batches of one source.


@CHECK
@given(mixes, st.sampled_from(ORDERS), st.sampled_from(STOPS), st.integers(2, 6))
def test_a_batch_is_of_one_source(mix: list[tuple[int, int]], order: str, stop: str, unit: int) -> None:
    plan = plan_of(mix, order, unit, stop=stop)
    assert plan.length is None or plan.length % unit == 0
    source = plan.take(0, 60 * unit).source.reshape(-1, unit)
    assert (source == source[:, :1]).all()
    records = plan_of([(10**6, weight) for _, weight in mix], order, stop="forever").take(0, len(source)).source
    if stop != "exhaust_once" and order != "concat":
        np.testing.assert_array_equal(source[:, 0], records)


def test_a_batch_straddles_epochs() -> None:
    plan = Plan({"a": 5, "b": 3}, order="round_robin", stop="forever", batch_size=4, granularity="batch", shuffle=False)
    assert rows(plan.take(0, 16)) == [
        *[(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)],
        *[(1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 1, 0)],
        *[(0, 0, 4), (0, 1, 0), (0, 1, 1), (0, 1, 2)],
        *[(1, 1, 1), (1, 1, 2), (1, 2, 0), (1, 2, 1)],
    ]
    assert rows(plan.take(6, 3)) == [(1, 0, 2), (1, 1, 0), (0, 0, 4)]


# The report.


@CHECK
@given(mixes, st.sampled_from(ORDERS), st.sampled_from(STOPS), units, st.one_of(st.none(), st.integers(1, 200)))
def test_the_report_is_what_a_walk_finds(
    mix: list[tuple[int, int]], order: str, stop: str, unit: int, samples: int | None
) -> None:
    plan = plan_of(mix, order, unit, stop=stop, samples=samples)
    report = plan.report()
    assert report.length == plan.length
    walk = plan.take(0, 8000 if plan.length is None else plan.length)
    for source, (name, row) in enumerate(report.sources.items()):
        size = plan.sizes[source]
        places = np.flatnonzero(walk.source == source)
        assert row.records == size
        assert row.exhausted_at == (int(places[size - 1]) + 1 if len(places) >= size else None)
        if row.exhausted_at is not None:
            seen = walk.record[: row.exhausted_at][walk.source[: row.exhausted_at] == source]
            assert len(set(seen.tolist())) == size
            assert len(set(seen[:-1].tolist())) == size - 1
        if plan.length is None:
            assert (row.samples, row.epochs) == (None, None)
            assert row.share == pytest.approx(float(plan.targets[source]))
        else:
            assert row.samples == len(places)
            assert row.epochs == len(places) / size
            assert row.share == len(places) / plan.length
        assert row.target == float(plan.targets[plan.names.index(name)])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(mixes, st.sampled_from(["proportional", "random", "round_robin"]), st.sampled_from(ENDING), units)
def test_the_largest_deviation_is_what_a_walk_finds(
    mix: list[tuple[int, int]], order: str, stop: str, unit: int
) -> None:
    plan = plan_of(mix, order, unit, stop=stop)
    assert plan.length is not None
    source = plan.take(0, plan.length).source[::unit].tolist()
    worst = Fraction(0)
    for stage in plan.stages:
        counts = [0] * len(mix)
        end = len(source) if stage.length is None else stage.first + stage.length
        for t, i in enumerate(source[stage.first : end], start=1):
            counts[i] += 1
            worst = max(worst, *(abs(n - share * t) for n, share in zip(counts, stage.shares, strict=True)))
    report = plan.report()
    assert report.walked == plan.length
    assert report.max_deviation == pytest.approx(float(worst * unit), abs=1e-9)
    if order == "proportional" and len(mix) > 1:
        assert worst <= 1 - Fraction(1, 2 * len(mix) - 2)


@CHECK
@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_the_largest_deviation_over_all_prefixes(source: list[int], weights: list[int]) -> None:
    shares = [weight / max(sum(weights), 1) for weight in weights]
    worst = 0.0
    for t in range(1, len(source) + 1):
        worst = max(worst, *(abs(source[:t].count(i) - share * t) for i, share in enumerate(shares)))
    assert largest_deviation(np.array(source, np.int32), shares) == pytest.approx(worst, abs=1e-12)


def test_the_deviation_of_the_first_records_alone() -> None:
    plan = Plan({"a": 10_000, "b": 10_000}, order="random", stop="forever")
    few, walked = plan.max_deviation(100)
    many, walked_far = plan.max_deviation(10_000)
    assert (walked, walked_far) == (100, 10_000)
    assert 0.5 <= few < many
    assert many == largest_deviation(plan.take(0, 10_000).source, [0.5, 0.5])
    assert plan.max_deviation() == (plan.report().max_deviation, 2**20)


def test_a_source_repeated_often_is_warned_of() -> None:
    assert Plan({"a": 3, "b": 100}, stop="all_exhausted").report().warnings == (
        "a is repeated 33 times before b is seen once.",
    )
    assert Plan({"a": 3, "b": 100}, stop="forever").report().warnings == (
        "a is repeated 33 times before b is seen once.",
    )
    assert Plan({"a": 3, "b": 100}, stop="first_exhausted").report().warnings == (
        "97 of b's 100 records are never seen; under another stop the mix goes on.",
    )
    assert Plan({"a": 3, "b": 100}, stop="exhaust_once").report().warnings == ()
    assert Plan({"a": 51, "b": 100}, stop="all_exhausted").report().warnings == ()


def test_a_drift_from_the_exact_shares_is_warned_of() -> None:
    sizes, odd = {"a": 10**9, "b": 10**9, "c": 10**9}, {"a": 0.3183098861, "b": 0.5772156649, "c": 0.1044744490}
    (warning,) = Plan(sizes, odd, stop="forever").report().warnings[:1]
    assert warning.startswith("the exact shares are followed for 2")
    assert not any("exact shares" in text for text in Plan(sizes, odd, samples=10**5).report().warnings)
    assert not any("exact shares" in text for text in Plan(sizes, {"a": 7, "b": 3}, stop="forever").report().warnings)


def test_a_source_that_never_comes_is_warned_of() -> None:
    """It has a share, so the warning must not say it has none."""
    assert Plan({"a": 30, "b": 10}, order="concat", samples=20).report().warnings == (
        "b gives no record: the mix ends before its first record.",
    )
    assert Plan({"a": 30, "b": 10}, order="concat", samples=36, stop="forever").report().warnings == ()


# Random order.


def test_replacement_draws_records_evenly_and_repeats_some() -> None:
    plan = Plan({"a": 50, "b": 100}, {"a": 3, "b": 1}, order="random", stop="forever", replacement=True)
    selection = plan.take(0, 80_000)
    for source, size in enumerate(plan.sizes):
        counts = np.bincount(selection.record[selection.source == source], minlength=size)
        assert len(counts) == size
        expected = counts.sum() / size
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_square - (size - 1)) / np.sqrt(2 * (size - 1)) < 5
    first = selection.record[:50][selection.source[:50] == 0]
    assert len(set(first.tolist())) < len(first)
    plain = Plan({"a": 50, "b": 100}, {"a": 3, "b": 1}, order="random", stop="forever").take(0, 80_000)
    np.testing.assert_array_equal(selection.source, plain.source)


def test_the_draw_of_the_record_is_unrelated_to_the_draw_of_the_source() -> None:
    plan = Plan({"a": 4, "b": 4}, order="random", stop="forever", replacement=True)
    selection = plan.take(0, 80_000)
    counts = np.bincount(selection.source * 4 + selection.record, minlength=8)
    assert abs(float(((counts - 10_000) ** 2 / 10_000).sum()) - 7) / np.sqrt(14) < 5


def test_each_seed_draws_another_sequence() -> None:
    one, other = (Plan({"a": 5, "b": 5}, order="random", stop="forever", seed=seed).take(0, 64) for seed in (0, 1))
    assert one.source.tolist() != other.source.tolist()


# Large plans.


@pytest.mark.parametrize("stop", ["first_exhausted", "all_exhausted", "forever"])
def test_a_plan_of_256_sources_and_a_trillion_records(stop: str) -> None:
    generator = np.random.default_rng(0)
    sizes = {f"source_{i}": int(size) for i, size in enumerate(generator.integers(2**31, 2**32, 256))}
    weights = {name: int(weight) for name, weight in zip(sizes, generator.integers(50, 100, 256), strict=True)}
    plan = Plan(sizes, weights, stop=stop)
    assert plan.length is None or plan.length > 10**11
    start = 10**12 if plan.length is None else plan.length - 20_000
    selection = plan.take(start, 20_000)
    assert set(selection.source.tolist()) == set(range(256))
    before = plan.counts(start)
    for source in (0, 100, 255):
        mine = selection.source == source
        epochs = (before[source] + np.arange(mine.sum())) // plan.sizes[source]
        np.testing.assert_array_equal(selection.epoch[mine], epochs)
        assert len(np.unique(selection.record[mine] + 2**32 * epochs)) == mine.sum()
        assert abs(before[source] - start * float(plan.shares[source])) <= 1
    assert (selection.record < np.array(plan.sizes)[selection.source]).all()
    report = plan.report()
    assert report.max_deviation < 1
    if stop == "first_exhausted":
        assert plan.length is not None
        next_source = int(Plan(sizes, weights, stop="forever").take(plan.length, 1).source[0])
        assert plan.counts(plan.length)[next_source] == plan.sizes[next_source]
    if stop == "all_exhausted":
        assert max(row.exhausted_at or 0 for row in report.sources.values()) == plan.length


def test_the_largest_source() -> None:
    plan = Plan({"a": 2**32 - 1, "b": 1}, stop="forever")
    selection = plan.take(2 * (2**32 - 1) - 100, 200)
    a = selection.source == 0
    assert set(selection.epoch[a].tolist()) == {0, 1}
    assert len(np.unique(selection.record[a])) == 100
    assert not selection.record[~a].any()
    assert selection.epoch[~a].tolist() == list(range(2**32 - 1 - 50, 2**32 - 1 + 50))


def test_draws_and_their_reports_keep_their_own_order() -> None:
    """Looking at a plan changes nothing, in whichever order one looks."""
    plan = Plan({"a": 100, "b": 300}, {"a": 1, "b": 2}, order="random", stop="all_exhausted")
    assert isinstance(plan.stages[0].period, Draws)
    late = rows(plan.take(200, 50))
    report = plan.report()
    early = rows(plan.take(0, 250))
    assert early[200:] == late
    assert plan.report() == report


# The shuffle's window.


WINDOWS = [2, 1, 0, 4, 5, 3, 6, 2, 0, 1, 4, 5, 3, 6]


def test_exact_windows() -> None:
    plan = Plan({"a": 7}, shuffle="window(3)", stop="forever")
    taken = plan.take(0, 14)
    assert taken.record.tolist() == WINDOWS
    assert [sorted(WINDOWS[i:j]) for i, j in ((0, 3), (3, 6), (6, 7), (7, 10))] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
        [0, 1, 2],
    ]


@pytest.mark.parametrize("window", [1, 2, 5, 64, 65, 1000])
@pytest.mark.parametrize("size", [1, 5, 63, 64, 65, 1000])
def test_a_window_shuffles_inside_itself(window: int, size: int) -> None:
    record = Plan({"a": size}, shuffle=f"window({window})", stop="forever").take(0, 3 * size).record.reshape(3, size)
    for begin in range(0, size, window):
        end = min(begin + window, size)
        for epoch in record:
            assert sorted(epoch[begin:end].tolist()) == list(range(begin, end))
    if size >= 63 and window >= 5:
        assert (record[0] != record[1]).any()
        assert (record[0] != np.arange(size)).any()


def test_every_place_of_a_window_is_as_likely() -> None:
    # Chi-square of place against record, in whole and in last windows, over epochs and blocks.
    record = Plan({"a": 43}, shuffle="window(8)", stop="forever").take(0, 43 * 2000).record.reshape(2000, 43)
    for begin, size, limit in ((0, 8, 90), (16, 8, 90), (40, 3, 14)):  # above the 99.9th percentile
        table = np.zeros((size, size))
        for place in range(size):
            table[place] = np.bincount(record[:, begin + place] - begin, minlength=size)
        assert ((table - 2000 / size) ** 2 / (2000 / size)).sum() < limit
    first, second = record[:, :8], record[:, 8:16] - 8
    assert 0.08 < (first == second).mean() < 0.17  # windows are unrelated: one place in eight agrees


@pytest.mark.parametrize(("value", "same"), [(True, "full"), (False, "none"), ("window( 7 )", "window(7)")])
def test_other_ways_to_say_it(value: bool | str, same: str) -> None:
    mine, theirs = (Plan({"a": 50}, shuffle=shuffle).take(0, 50).record.tolist() for shuffle in (value, same))
    assert mine == theirs


@pytest.mark.parametrize(
    "value", ["window", "window(0)", "window(-1)", "window(x)", "half", 3, None, "window(4294967296)"]
)
def test_a_shuffle_that_is_none(value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^shuffle = {re.escape(str(value))}; it is full, none, or window\(n\)"):
        Plan({"a": 5}, shuffle=value)  # type: ignore[arg-type]


def test_what_is_seen_along_the_way() -> None:
    plan = Plan(
        {"a": 100, "b": 100}, schedule=[{"until": 5, "ratio": "9:1"}, {"ratio": "1:1"}], batch_size=10, samples=100
    )
    seen = over_time(plan, points=10)
    assert seen.positions.tolist() == list(range(0, 101, 10))
    assert seen.planned.tolist() == [[0.9, 0.1]] * 5 + [[0.5, 0.5]] * 5
    assert seen.realised.tolist() == [[0.9, 0.1]] * 5 + [[0.5, 0.5]] * 5
    assert seen.epochs[-1].tolist() == [0.7, 0.3]


def test_draws_with_replacement_are_reached_at_once() -> None:
    plan = Plan({"a": 50, "b": 20}, order="random", replacement=True, stop="forever")
    far = plan.take(10**15, 5)
    assert far.record.tolist() == plan.take(10**15 - 2, 7).record[2:].tolist()
