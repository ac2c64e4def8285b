from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan

SIZES = {"a": 700, "b": 300, "c": 500}


def plan_of(schedule: Any, **settings: Any) -> Plan:
    return Plan(SIZES, schedule=schedule, **{"stop": "forever", "batch_size": 10, **settings})


def test_pieces_change_the_weights_at_their_steps() -> None:
    plan = plan_of([{"until": 3, "ratio": "8:1:1"}, {"until": 5, "share": {"b": 1}}, {"weights": {"c": 0, "a": 3}}])
    counts = [np.bincount(plan.take(10 * step, 10).source, minlength=3).tolist() for step in range(8)]
    assert counts[:5] == [[8, 1, 1]] * 3 + [[0, 10, 0]] * 2
    assert np.sum(counts[5:7], axis=0).tolist() == [15, 5, 0]
    assert [(stage.first, stage.length) for stage in plan.stages] == [(0, 30), (30, 20), (50, None)]
    assert [str(share) for share in plan.targets_at(29)] == ["4/5", "1/10", "1/10"]
    assert [str(share) for share in plan.targets_at(30)] == ["0", "1", "0"]


def test_the_share_that_is_asked_for_up_to_a_position() -> None:
    plan = plan_of([{"until": 3, "ratio": "8:1:1"}, {"until": 5, "share": {"b": 1}}, {"weights": {"c": 0, "a": 3}}])
    assert [str(share) for share in plan.targets] == ["3/4", "1/4", "0"]  # in the long run
    assert [str(share) for share in plan.targets_until(30)] == ["4/5", "1/10", "1/10"]
    assert [str(share) for share in plan.targets_until(40)] == ["3/5", "13/40", "3/40"]
    assert plan.targets_until(0) == plan.targets_until(10)
    ending = plan_of([{"until": 3, "ratio": "8:1:1"}, {"ratio": "1:1:0"}], samples=60)
    assert ending.targets == ending.targets_until(60) == ending.targets_until(None)
    constant = Plan(SIZES, ratio="8:1:1", stop="forever")
    assert constant.targets_until(7) == constant.targets


def test_a_schedule_of_whole_batches() -> None:
    plan = plan_of([{"until": 4, "ratio": "3:1:0"}, {"ratio": "0:0:1"}], granularity="batch")
    ids = plan.take(0, 60).source.reshape(6, 10)
    assert (ids == ids[:, :1]).all()
    assert sorted(ids[:4, 0].tolist()) == [0, 0, 0, 1]
    assert ids[4:, 0].tolist() == [2, 2]


def test_what_the_last_entry_reaches_stays() -> None:
    ends = (
        plan_of([{"until": 3, "ratio": "8:1:1"}]),
        plan_of([{"ratio": "8:1:1"}]),
        Plan(SIZES, ratio="8:1:1", stop="forever"),
    )
    for plan in ends:
        assert plan.take(900, 50).source.tolist() == ends[0].take(900, 50).source.tolist()


def behind(plan: Plan, source: np.ndarray) -> np.ndarray:
    """By how many records each source is behind the sum of its shares after each record, float64 [count, sources]."""
    shares = np.empty((len(source), len(plan.names)))
    for stage in plan.stages:
        shares[stage.first : stage.first + (stage.length or len(source))] = [float(share) for share in stage.shares]
    return np.cumsum(shares - np.eye(len(plan.names))[source], axis=0)


def test_short_parts_keep_to_the_sum_of_their_shares() -> None:
    """A step has 3 records, for 4 sources: parts that began anew would have none for the last."""
    sizes = dict.fromkeys("abcd", 1000)
    schedule = [{"until": step + 1, "weights": {"a": 1 + step / 200}} for step in range(40)]
    ramp = [{"until": 64, "ramp": "linear", "weights": {"a": 1.2}}]
    for changes in (schedule, ramp):
        plan = Plan(sizes, schedule=changes, batch_size=3, stop="forever")
        off = behind(plan, plan.take(0, 400).source)
        assert np.abs(off).max() <= 1 - 1 / (2 * 4 - 2) + 1e-5  # as if nothing ever changed
        assert plan.max_deviation(400)[0] == pytest.approx(np.abs(off).max(), abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"settings": {"stratify": True}, "batch_size": 10},
        {"granularity": "batch", "batch_size": 7},
        {"batch_size": 3, "seed": 5},
        {"settings": {"window": 4}, "batch_size": 3},
    ],
)
def test_any_kind_of_slots_keeps_to_the_sum_of_its_shares(settings: dict[str, Any]) -> None:
    sizes = {"vision.a": 5000, "vision.b": 4000, "c": 3000, "d": 5000, "e": 5000}
    if "granularity" in settings or "settings" in settings:
        sizes = {name.replace("vision.", ""): size for name, size in sizes.items()}
    schedule = [{"until": 200, "ramp": "cosine", "weights": {"c": 0.3, "d": 3.1}}]
    order = settings.pop("settings", {})
    plan = Plan(sizes, schedule=schedule, stop="forever", **settings, **order)
    steps = 220 * plan.batch_size
    source = plan.take(0, steps).source[:: plan.slot_records]
    assert np.abs(behind(plan, source)[-1]).max() < 2.5
    assert len(plan.stages) == 65


@pytest.mark.parametrize("samples", [300, pytest.param(None, marks=pytest.mark.slow)])  # a table; queues without end
def test_lengths_keep_to_the_sum_of_their_shares(samples: int | None) -> None:
    draw = np.random.default_rng(3)
    lengths = {name: draw.integers(1, 40, 900) for name in "abcd"}
    schedule = [{"until": 64, "ramp": "linear", "weights": {"a": 1.2}}]
    settings = {"batch_size": 3, "stop": "forever", "samples": samples}
    plan = Plan(dict.fromkeys("abcd", 900), schedule=schedule, lengths=lengths, **settings)
    amounts = np.asarray([plan.amounts(position) for position in range(0, 193, 3)])
    steps = np.diff(amounts.sum(axis=1))[:, None] * [[float(s) for s in plan.targets_at(3 * i)] for i in range(64)]
    assert np.abs(np.cumsum(steps, axis=0) - amounts[1:]).max() <= 40
    assert plan.max_deviation(192)[0] <= 40


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    weights=st.lists(st.integers(1, 40), min_size=4, max_size=4),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=6, unique=True),
    names=st.sampled_from(["abcd", ("g.a", "g.b", "c", "d")]),
    granularity=st.sampled_from(["record", "batch"]),
    stop=st.sampled_from(["forever", "first_exhausted", "exhaust_once"]),
)
def test_a_schedule_that_changes_nothing_changes_no_record(
    weights: list[int], cuts: list[int], names: Any, granularity: str, stop: str
) -> None:
    by_name = dict(zip(names, weights, strict=True))
    common = {"batch_size": 3, "stop": stop, "granularity": granularity}
    whole = Plan(dict.fromkeys(names, 150), by_name, **common)
    schedule = [{"until": until, "weights": by_name} for until in sorted(cuts)]
    parts = Plan(dict.fromkeys(names, 150), schedule=schedule, **common)
    assert parts.length == whole.length
    for mine, theirs in zip(parts.take(0, 600), whole.take(0, 600), strict=True):
        assert mine.tolist() == theirs.tolist()


def value(ramp: str, t: float, old: float, new: float) -> float:
    """The three ramps, written down anew."""
    if ramp == "linear":
        return old + t * (new - old)
    if ramp == "cosine":
        return new + (old - new) * (1 + np.cos(np.pi * t)) / 2
    return old ** (1 - t) * new**t


@pytest.mark.parametrize("ramp", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("num_steps", [10, 640, 1000])
def test_a_ramp_follows_its_curve(ramp: str, num_steps: int) -> None:
    old, new = [0.8, 0.1, 0.1], [0.1, 0.3, 0.6]
    plan = plan_of([{"until": 20, "ratio": old}, {"until": 20 + num_steps, "ramp": ramp, "ratio": new}])
    assert len(plan.stages) == 2 + min(num_steps, 64)
    for stage in plan.stages[1:-1]:
        assert stage.length is not None
        t = (stage.first / 10 + stage.length / 20 - 20) / num_steps
        asked = np.asarray([value(ramp, t, a, b) for a, b in zip(old, new, strict=True)])
        np.testing.assert_allclose([float(s) for s in stage.shares], asked / asked.sum(), atol=5e-4)
        assert stage.first % 10 == 0
    assert [float(share) for share in plan.stages[-1].shares] == pytest.approx(new)


def test_a_ramp_may_begin_with_the_mix_s_own_weights() -> None:
    plan = Plan(SIZES, ratio="8:1:1", schedule=[{"until": 100, "ramp": "linear", "ratio": "1:1:8"}], stop="forever")
    assert float(plan.shares[0]) == pytest.approx(0.8, abs=0.01)
    assert float(plan.stages[-1].shares[0]) == 0.1


def test_a_small_share_is_not_rounded_away_on_a_ramp() -> None:
    plan = plan_of([{"until": 64, "ramp": "exponential", "weights": {"c": 0.0002}}])
    shares = [float(stage.shares[2]) for stage in plan.stages]
    exact = [value("exponential", (i + 0.5) / 64, 1 / 3, 0.0002 / 2.0002) for i in range(64)]
    rest = [2 * value("exponential", (i + 0.5) / 64, 1 / 3, 1 / 2.0002) for i in range(64)]
    asked = [c / (c + r) for c, r in zip(exact, rest, strict=True)]
    assert shares[:-1] == pytest.approx(asked, rel=0.021)
    assert sum(shares[:-1]) == pytest.approx(sum(asked), rel=1e-4)


@pytest.mark.parametrize(("share", "most"), [(0.0123, 8), (1e-7, 1)])
def test_what_rounding_leaves_over_on_a_ramp_goes_to_its_next_phase(share: float, most: float) -> None:
    """Shares are whole parts of some number: always rounded the same way, a constant one would drift."""
    steps = 10**6 if share > 1e-3 else 10**8
    schedule = [{"until": steps, "ramp": "linear", "share": {"a": 0.2, "c": share}}]
    sizes = dict.fromkeys("abc", 10**8)
    plan = Plan(sizes, share={"a": 0.5, "c": share}, schedule=schedule, stop="forever", samples=steps)
    assert abs(plan.counts(steps)[2] - share * steps) <= most
    assert plan.report().sources["c"].target == pytest.approx(share, rel=1e-3 if share > 1e-3 else 0.1)
    assert plan.left_behind() == ""


entries = st.fixed_dictionaries(
    {"weights": st.fixed_dictionaries({name: st.integers(1, 20) for name in SIZES}), "steps": st.integers(1, 90)},
    optional={"ramp": st.sampled_from(["linear", "cosine", "exponential"])},
)


@settings(derandomize=True, deadline=None, max_examples=10)
@given(
    schedule=st.lists(entries, min_size=1, max_size=4),
    stop=st.sampled_from(["first_exhausted", "all_exhausted", "exhaust_once", "forever"]),
    order=st.sampled_from(["proportional", "random"]),
)
def test_any_schedule_keeps_its_bound_and_its_records(schedule: list[dict[str, Any]], stop: str, order: str) -> None:
    until, listed = 0, []
    for entry in schedule:
        until += entry["steps"]
        listed.append({key: entry[key] for key in ("weights", "ramp") if key in entry} | {"until": until})
    plan = plan_of(listed, stop=stop, order=order)
    count = 2500 if plan.length is None else plan.length
    taken = plan.take(0, count)
    if order == "proportional":
        assert np.abs(behind(plan, taken.source)).max() <= 1 - 1 / (2 * 3 - 2) + 0.5
    for i, size in enumerate(SIZES.values()):
        record, epochs = taken.record[taken.source == i], taken.epoch[taken.source == i]
        assert (epochs == np.arange(len(record)) // size).all()
        for first in range(0, len(record) - size + 1, size):
            assert len(set(record[first : first + size].tolist())) == size
    used = np.bincount(taken.source, minlength=3)
    left = np.asarray(list(SIZES.values())) - used
    assert {
        "first_exhausted": bool((left >= 0).all() and (left == 0).any()),
        "all_exhausted": bool((left <= 0).all() and taken.source[-1] in np.flatnonzero(left == 0)),
        "exhaust_once": bool((left == 0).all()),
        "forever": plan.length is None,
    }[stop]
    for start in (0, 7, 333, 901):
        piece = plan.take(start, 40)
        assert all((a == b[start : start + 40]).all() for a, b in zip(piece, taken, strict=True))


def test_a_source_that_is_not_mixed_any_more_is_not_waited_for() -> None:
    plan = plan_of([{"until": 10, "weights": {}}, {"weights": {"c": 0}}], stop="all_exhausted")
    counts = plan.counts(plan.length or 0)
    assert counts[2] < 500
    assert counts[0] == 700


def test_a_source_that_comes_later_is_waited_for() -> None:
    plan = plan_of([{"until": 200, "weights": {"c": 0}}, {"weights": {}}], stop="all_exhausted")
    assert plan.length is not None
    assert plan.length > 2000
    assert plan.counts(plan.length)[2] == 500


@pytest.mark.parametrize("order", ["proportional", "random"])
def test_a_source_that_is_mixed_no_longer_may_never_be_seen_whole(order: str) -> None:
    plan = plan_of([{"until": 30, "ratio": "1:1:0"}, {"ratio": "1:0:0"}], order=order)
    report = plan.report()
    seen_of_b = int((plan.take(0, 400).source == 1).sum())
    assert report.sources["b"].exhausted_at is None
    assert f"{300 - seen_of_b} of the 300 records of b are never seen: the schedule ends without it." in report.warnings
    seen = (
        plan_of([{"until": 90, "ratio": "1:1:0"}, {"ratio": "1:0:0"}], order=order).report().sources["b"].exhausted_at
    )
    assert seen is not None
    assert plan_of([{"until": 90, "ratio": "1:1:0"}, {"ratio": "1:0:0"}], order=order).counts(seen)[1] == 300


def test_the_target_of_the_whole_is_the_mean_over_time() -> None:
    plan = plan_of([{"until": 10, "ratio": "1:1:0"}, {"ratio": "0:1:1"}], samples=200)
    assert [str(share) for share in plan.targets] == ["1/4", "1/2", "1/4"]
    assert [plan.report().sources[name].share for name in SIZES] == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("x", r"^mix\.schedule = 'x'; it is a list such as "),
        ([], r"^mix\.schedule = \[\]; it is a list such as "),
        ([3], r"^mix\.schedule\[0\] = 3; it is a group of keys: until, ratio, weights, share, ramp\.$"),
        ([{"untill": 3}], r"^mix\.schedule\[0\]\.untill: there is no such key\. Did you mean 'until'\?"),
        (
            [{"weights": {}}, {"weights": {}}],
            r"^mix\.schedule\[0\]\.until is missing; it is the step at which the entry ends",
        ),
        ([{"ramp": "linear", "weights": {}}], r"^mix\.schedule\[0\]\.until is missing"),
        ([{"until": 5}, {"until": 5}], r"^mix\.schedule\[1\]\.until = 5; it is a whole number of steps, after 5"),
        ([{"until": 2.5}], r"^mix\.schedule\[0\]\.until = 2\.5; it is a whole number of steps, after 0"),
        ([{"until": 5, "ramp": "lineer"}], r"^mix\.schedule\[0\]\.ramp = 'lineer'\. Did you mean 'linear'\?"),
        ([{"weights": 3}], r"^mix\.schedule\[0\]\.weights = 3; it is a group of keys, one number a source\.$"),
        ([{"share": [1]}], r"^mix\.schedule\[0\]\.share = \[1\]; it is a group of keys"),
        ([{"weights": {"z": 1}}], r"^mix\.schedule\[0\]\.weights\.z: there is no source 'z' in this mix\."),
        ([{"ratio": "1:2"}], r"^mix\.schedule\[0\]\.ratio = '1:2'; it has 2 numbers, but there are 3"),
        ([{"weights": {"a": -1}}], r"^mix\.schedule\[0\]\.weights\.a = -1; a weight is 0 or more\."),
        (
            [{"until": 5, "ramp": "exponential", "weights": {"a": 0}}],
            r"^mix\.schedule\[0\]\.ramp = 'exponential'; it reaches no share of 0; leave the source out, or ",
        ),
    ],
)
def test_what_is_no_schedule(schedule: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan_of(schedule)
    assert (caught.value.key or "").startswith("mix.schedule")


def test_weights_that_would_count_for_nothing() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.schedule\[0\]: it sets the weights from the first step"):
        plan_of([{"until": 3, "ratio": "8:1:1"}], weights={"a": 2})


@pytest.mark.parametrize("order", ["round_robin", "concat"])
def test_an_order_without_a_ratio_has_no_schedule(order: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^mix\.schedule: mix={order} knows no ratio; use mix=proportional or random\.$"
    ):
        plan_of([{"until": 3, "ratio": "8:1:1"}], order=order)
