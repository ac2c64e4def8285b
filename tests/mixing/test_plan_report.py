from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.mixing.demand import Demand
from datamix.mixing.orders import order, proportional
from datamix.mixing.periods import Draws, Period, Table
from datamix.mixing.plan import Plan
from datamix.mixing.plan_report import over_time
from datamix.mixing.table_fills import largest_deviation
from datamix.registry import registered
from plans import CHECK, ORDERS, STOPS, mixes, plan_of, rows, units

ENDING = STOPS[:3]


def test_records_that_are_never_shown() -> None:
    sizes = {"a": 8000, "b": 800, "c": 5}
    unequal = Plan(sizes, share={"a": 0.7, "c": 0})
    shown = dict(zip(sizes, unequal.counts(unequal.length), strict=True))
    rest = [8000 - shown["a"], 800 - shown["b"]]
    assert unequal.never_shown() == (
        f"{sum(rest):,} of 8,805 records are never shown (a {rest[0]:,}); stop=all_exhausted shows all and gives b 4.3 "
        "times."
    )
    assert Plan({"a": 9, "b": 9}).never_shown() == ""
    for ends in ({"stop": "forever"}, {"stop": "all_exhausted"}, {"samples": 20}):
        assert Plan(sizes, **ends).never_shown() == ""


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
    worst, behind = Fraction(0), [Fraction(0)] * len(mix)
    for stage in plan.stages:
        end = len(source) if stage.length is None else stage.first + stage.length
        for i in source[stage.first : end]:
            behind = [part + share for part, share in zip(behind, stage.shares, strict=True)]
            behind[i] -= 1
            worst = max(worst, *map(abs, behind))
    report = plan.report()
    assert report.walked == plan.length
    assert report.max_deviation == pytest.approx(float(worst * unit), abs=1e-9)
    if order == "proportional" and len(mix) > 1:  # what sources leave that drop out, the others cannot make up for
        assert worst <= 1 - Fraction(1, 2 * len(mix) - 2) + Fraction(len(plan.stages) > 1)


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
        "97 of the 100 records of b are never seen; under another stop the mix goes on.",
    )
    assert Plan({"a": 3, "b": 100}, stop="exhaust_once").report().warnings == ()
    assert Plan({"a": 51, "b": 100}, stop="all_exhausted").report().warnings == ()


def test_a_drift_from_the_exact_shares_is_warned_of() -> None:
    sizes, odd = {"a": 10**9, "b": 10**9, "c": 10**9}, {"a": 0.3183098861, "b": 0.5772156649, "c": 0.1044744490}
    (warning,) = Plan(sizes, odd, stop="forever", stratify=True, batch_size=32).report().warnings[:1]
    assert warning.startswith("the exact shares are followed for 2")
    assert not any("exact shares" in text for text in Plan(sizes, odd, stop="forever").report().warnings)
    assert not any("exact shares" in text for text in Plan(sizes, odd, samples=10**5).report().warnings)
    assert not any("exact shares" in text for text in Plan(sizes, {"a": 7, "b": 3}, stop="forever").report().warnings)


def test_a_source_that_never_comes_is_warned_of() -> None:
    """It has a share, so the warning must not say it has none."""
    assert Plan({"a": 30, "b": 10}, order="concat", samples=20).report().warnings == (
        "b gives no record: the mix ends before its first record.",
    )
    assert Plan({"a": 30, "b": 10}, order="concat", samples=36, stop="forever").report().warnings == ()


def test_draws_and_their_reports_keep_their_own_order() -> None:
    """Looking at a plan changes nothing, in whichever order one looks."""
    plan = Plan({"a": 100, "b": 300}, {"a": 1, "b": 2}, order="random", stop="all_exhausted")
    assert isinstance(plan.stages[0].period, Draws)
    late = rows(plan.take(200, 50))
    report = plan.report()
    early = rows(plan.take(0, 250))
    assert early[200:] == late
    assert plan.report() == report


def test_draws_up_to_a_far_end_are_not_counted(drawn_slots: list[int]) -> None:
    inputs = {"sizes": {"a": 1000, "b": 2000}, "order": "random", "samples": 10**12}
    plan = Plan(**inputs, stop="forever")
    report = plan.report()
    assert (plan.length, report.length, report.sources["a"].share) == (10**12, 10**12, 0.5)
    assert {(row.samples, row.epochs, row.amount) for row in report.sources.values()} == {(None, None, None)}
    assert all(row.exhausted_at for row in report.sources.values())
    assert "the records of each source are not counted: they would be drawn one by one, to the end." in report.warnings
    assert over_time(plan).positions[-1] < 10**5
    # Where the stop ends the mix before, all is known.
    for stop in ("all_exhausted", "first_exhausted", "exhaust_once"):
        ended, without = Plan(**inputs, stop=stop).report(), Plan(**inputs | {"samples": None}, stop=stop).report()
        assert ended.length == without.length
        assert ended.sources == without.sources
    assert sum(drawn_slots) < 2**26


def test_what_showing_all_would_repeat_is_left_out_where_it_cannot_be_known() -> None:
    plan = Plan({"a": 1000, "b": 4 * 10**9}, {"a": 2}, order="random")
    assert re.fullmatch(r"3,999,99\d,\d+ of 4,000,001,000 records are never shown \(b [\d,]+\)\.", plan.never_shown())


def test_a_report_looks_at_each_stage_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many times as there are sources, a mix of 1,000 that drop out would take minutes."""
    plan = Plan({f"s{i}": 20 + i for i in range(40)}, stop="exhaust_once")
    looks, counts = [], Table.counts
    monkeypatch.setattr(Table, "counts", lambda self, slot: looks.append(slot) or counts(self, slot))
    assert [row.samples for row in plan.report().sources.values()] == list(plan.sizes)
    assert len(plan.stages) == 40
    assert len(looks) <= 2 * len(plan.stages)


def test_what_is_seen_along_the_way() -> None:
    plan = Plan(
        {"a": 100, "b": 100}, schedule=[{"until": 5, "ratio": "9:1"}, {"ratio": "1:1"}], batch_size=10, samples=100
    )
    seen = over_time(plan, points=10)
    assert seen.positions.tolist() == list(range(0, 101, 10))
    assert seen.planned.tolist() == [[0.9, 0.1]] * 5 + [[0.5, 0.5]] * 5
    assert seen.realised.tolist() == [[0.9, 0.1]] * 5 + [[0.5, 0.5]] * 5
    assert seen.epochs[-1].tolist() == [0.7, 0.3]


def test_shares_over_time_are_those_of_many_slots():
    plan = Plan({"a": 1300, "b": 900, "c": 500}, ratio="5:3:2", batch_size=16)
    seen = over_time(plan)
    assert len(seen.planned) > 100
    assert np.abs(seen.realised - [0.5, 0.3, 0.2]).max() < 0.01  # a batch of 16 would be up to 0.05 away
    np.testing.assert_allclose(seen.realised.sum(axis=1), 1)


def test_a_stop_that_promises_every_record_says_which_are_never_seen():
    schedule = [{"until": 10, "ratio": "1:1"}, {"ratio": "1:0"}]
    sizes = {"a": 1000, "b": 1000}
    plan = Plan(sizes, schedule=schedule, stop="exhaust_once", batch_size=16)
    assert plan.unseen() == ["920 of the 1,000 records of b are never seen: the schedule ends without it."]
    assert plan.report().warnings == tuple(plan.unseen())
    assert Plan(sizes, stop="exhaust_once").unseen() == []
    assert Plan(sizes, stop="exhaust_once", samples=100).unseen() == []  # as was asked for
    assert Plan(sizes, ratio="0:1").unseen() == ["a has no share and gives no record."]


def test_why_records_are_never_seen():
    few = Plan({"a": 10, "b": 9}, batch_size=3, granularity="batch", stop="exhaust_once")
    text = "1 of the 10 records of a are never seen: they fill no batch; mix.granularity=record gives them."
    assert few.report().warnings == (text,)
    assert Plan({"a": 10, "b": 9}, batch_size=3, stop="exhaust_once").report().warnings == ()
    schedule = [{"until": 10, "weights": {"a": 1, "b": 0}}, {"weights": {"a": 0, "b": 1}}]
    assert Plan({"a": 5, "b": 100}, schedule=schedule).report().warnings == (
        "b gives no record: the mix ends before its first record.",
    )


def test_where_a_source_has_been_gone_through_often_enough_is_told():
    plan = Plan({"a": 8, "b": 100}, stop="forever", batch_size=4, max_epochs={"a": 2})
    assert plan.report().warnings[0] == "a leaves the mix in batch 7, as mix.max_epochs says."
    ended = Plan({"a": 8, "b": 100}, stop="forever", max_epochs={"a": 2}, samples=20)  # before that
    assert not any("leaves" in sentence for sentence in ended.report().warnings)


def test_what_a_source_gives_that_leaves_an_endless_mix() -> None:
    report = Plan({"a": 8, "b": 20}, stop="forever", max_epochs={"a": 2}).report()
    (a, b) = report.sources.values()
    assert (a.samples, a.epochs, a.share) == (16, 2.0, 0.0)
    assert (b.samples, b.epochs, b.share) == (None, None, 1.0)
    few = Plan({"a": 50, "b": 20}, stop="forever", schedule=[{"until": 8, "ratio": "1:1"}, {"ratio": "0:1"}]).report()
    assert few.sources["a"].samples == 4
    assert sum("of a are" in text for text in few.warnings) == 1


RAMP = [{"until": 64, "ramp": "linear", "weights": {"a": 1.2}}]


def test_an_order_that_leaves_the_sum_of_the_shares_on_a_ramp_says_so() -> None:
    sizes = dict.fromkeys("abcd", 60)

    def begins_anew(demand: Demand) -> Period:
        return proportional(replace(demand, credit=()))

    with registered():
        order(begins_anew)
        plan = Plan(sizes, batch_size=3, stop="forever", samples=192, schedule=RAMP, order="begins_anew")
        unscheduled = Plan(sizes, batch_size=3, stop="forever", samples=192, order="begins_anew")
    assert plan.counts(192) == [64, 64, 64, 0]
    said = plan.left_behind()
    match = re.search(
        r"^by record 189, d is (46\.\d) records behind the sum of its shares; mix=largest_credit keeps", said
    )
    assert match
    assert abs(float(match[1]) - 189 * 0.244) < 1
    assert said in plan.report().warnings
    assert plan.report().max_deviation > 46
    for kept in ("proportional", "largest_credit"):
        evenly = Plan(sizes, batch_size=3, stop="forever", samples=192, schedule=RAMP, order=kept)
        assert evenly.left_behind() == ""
        assert evenly.counts(192) in ([52, 47, 47, 46], [51, 47, 47, 47])  # 51.3, and 46.9 each
        assert evenly.report().max_deviation < 1
    assert unscheduled.left_behind() == ""
