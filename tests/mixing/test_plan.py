from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.mixing.plan import Plan
from datamix.mixing.plan_spec import PlanSpec
from plans import CHECK, ORDERS, STOPS, mixes, plan_of, rows, units

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


# Every record, every epoch.


@CHECK
@given(mixes, st.sampled_from(ORDERS), st.integers(0, 2**31))
def test_exhaust_once_gives_every_record_exactly_once(mix: list[tuple[int, int]], order: str, seed: int) -> None:
    plan = plan_of(mix, order, stop="exhaust_once", seed=seed)
    assert plan.length == sum(plan.sizes)
    selection = plan.take(0, 10**6)
    assert not selection.epoch.any()
    records = sorted(zip(selection.source.tolist(), selection.record.tolist(), strict=True))
    assert records == [(source, record) for source, size in enumerate(plan.sizes) for record in range(size)]


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


# Where a plan ends.


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
    assert row.samples == 0
    assert f"{names[dropped]} has no share and gives no record." in report.warnings


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


# Other plans of the same inputs.


def test_the_same_mix_in_another_ratio() -> None:
    """Whatever said how much of each source gives way; the rest stays."""
    settings: dict[str, Any] = {"seed": 3, "shuffle": "window(7)", "window": 4, "batch_size": 4, "epochs": {"a": 2}}
    scheduled = Plan({"a": 50, "b": 70}, schedule=[{"until": 5, "ratio": "9:1"}, {"ratio": "1:1"}], **settings)
    for plan in (
        Plan({"a": 50, "b": 70}, ratio="9:1", **settings),
        Plan({"a": 50, "b": 70}, share={"a": 0.1}, **settings),
        Plan({"a": 50, "b": 70}, weighting="size", **settings),
        scheduled,
        scheduled.with_weights({"b": 7}),
    ):
        other, direct = plan.with_weights({"a": 3}), Plan({"a": 50, "b": 70}, {"a": 3}, **settings)
        assert rows(other.take(0, 10**3)) == rows(direct.take(0, 10**3))
        assert other.length == direct.length
    assert [str(share) for share in scheduled.shares] == ["9/10", "1/10"]


def test_a_plan_is_made_anew_from_its_inputs() -> None:
    plan = Plan({"a": 50, "b": 70}, order="random", replacement=True, stop="forever", seed=4)
    again = Plan.of(plan.spec)
    assert rows(again.take(0, 200)) == rows(plan.take(0, 200))
    assert again.spec == plan.spec
    assert repr(again) == "<Plan: a 0.5, b 0.5; without end>"


def test_help_shows_the_keywords_of_a_plan() -> None:
    shown = inspect.signature(Plan)
    inputs = inspect.signature(PlanSpec).parameters
    assert list(shown.parameters) == list(inputs)
    assert shown.parameters["stop"] == inputs["stop"]
    assert str(shown).startswith("(sizes: 'Mapping[str, int]', weights: 'Mapping[str, Any] | None' = None, *, ratio: ")
    shown.bind({"a": 5}, {"a": 1}, order="proportional", window=3)
    with pytest.raises(TypeError, match="'sizes'"):
        shown.bind(weights={"a": 1})


def test_a_plan_in_a_notebook() -> None:
    html = Plan({"<a>": 5, "b": 3})._repr_html_()
    assert "<td>&lt;a&gt;</td><td>5</td><td>50 %</td>" in html
    assert html.endswith("<p>The mix: 7 records.</p>")
