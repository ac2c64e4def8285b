from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.periods import Table
from datamix.mixing.plan import Plan
from datamix.mixing.plan_spec import Begin
from plans import CHECK, ORDERS, STOPS, mixes, plan_of, rows, units


def test_positions_before_the_first() -> None:
    plan = Plan({"a": 5})
    for start, count in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match=rf"^take\({start}, {count}\): start and count are 0 or more, and less"):
            plan.take(start, count)


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


def test_draws_with_replacement_are_reached_at_once() -> None:
    plan = Plan({"a": 50, "b": 20}, order="random", replacement=True, stop="forever")
    far = plan.take(10**15, 5)
    assert far.record.tolist() == plan.take(10**15 - 2, 7).record[2:].tolist()


def test_the_largest_source() -> None:
    plan = Plan({"a": 2**32 - 1, "b": 1}, stop="forever")
    selection = plan.take(2 * (2**32 - 1) - 100, 200)
    a = selection.source == 0
    assert set(selection.epoch[a].tolist()) == {0, 1}
    assert len(np.unique(selection.record[a])) == 100
    assert not selection.record[~a].any()
    assert selection.epoch[~a].tolist() == list(range(2**32 - 1 - 50, 2**32 - 1 + 50))


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": "forever"},
        {"stop": "all_exhausted", "weights": {"a": 5}},
        {"order": "random", "stop": "forever"},
        {"order": "concat", "stop": "exhaust_once"},
        {"stop": "forever", "schedule": [{"until": 20, "weights": {"a": 9}}, {"until": 40, "weights": {"b": 9}}]},
        {"granularity": "batch", "batch_size": 4, "stop": "forever"},
    ],
)
def test_tokens_are_counted_up_to_any_position(settings):
    draw = np.random.default_rng(0)
    num_tokens = {"a": draw.integers(0, 9, 50), "b": draw.integers(1, 90, 30)}
    plan = Plan({"a": 50, "b": 30, "c": 9}, num_tokens=num_tokens, **settings)
    stored = [*num_tokens.values(), np.zeros(9, int)]
    taken = plan.take(0, 600)
    each = np.array([stored[source][record] for source, record in zip(taken.source, taken.record, strict=True)])
    sums = np.cumsum(np.append(0, each))
    for position in range(0, len(each) + 1, 7):
        assert sum(plan.tokens(plan.counts(position))) == sums[position]
    for tokens in (1, 50, int(sums[-1]) // 3, int(sums[-1])):
        end = plan.records_until(tokens)
        assert sums[end - 1] < tokens <= sums[end]
        limited = Plan({"a": 50, "b": 30, "c": 9}, num_tokens=num_tokens, tokens=tokens, **settings)
        assert limited.length == end
        assert np.array_equal(limited.take(0, 600).record, taken.record[:end])
    assert plan.length is None or plan.records_until(10**9) is None


def test_more_tokens_are_given_before_the_beginning_than_are_to_be_given():
    tokens = {"a": np.full(50, 9)}
    with pytest.raises(ConfigError, match="it ends the mix before record 5,000, where it is to go on"):
        Plan({"a": 50}, num_tokens=tokens, stop="forever", tokens=99, begin=Begin(5000, {"a": 5000}))


def test_tokens_of_a_mix_without_any():
    assert Plan({"a": 3}).tokens([3]) is None
    with pytest.raises(ConfigError, match=r"stop\.tokens = 9; no source of this mix has tokens\."):
        Plan({"a": 3}, tokens=9)
    with pytest.raises(ConfigError, match=r"stop\.tokens = 0; it is at least 1, or null for no such limit\."):
        Plan({"a": 3}, tokens=0, num_tokens={"a": np.ones(3, int)})
    with pytest.raises(ConfigError, match=r"stop\.tokens = 9; the sources that have a share have no tokens\."):
        Plan({"a": 3, "b": 3}, {"a": 0}, tokens=9, num_tokens={"a": np.ones(3, int)}, stop="forever")


@CHECK
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 3))), min_size=1),
    st.sampled_from(["forever", "all_exhausted"]),
    st.sampled_from(["proportional", "random", "round_robin"]),
)
def test_no_source_is_gone_through_more_often_than_it_may(sources, stop, order):
    sources = sources[:5]
    sizes, weights, most = ({str(i): each[k] for i, each in enumerate(sources)} for k in range(3))
    most = {name: times for name, times in most.items() if times is not None}
    kwargs = {"order": order, "stop": stop, "weights": None if order == "round_robin" else weights}
    plan, free = Plan(sizes, max_epochs=most, **kwargs), Plan(sizes, **kwargs)
    end = 500 if plan.length is None else plan.length
    taken = plan.take(0, end)
    for i, name in enumerate(sizes):
        assert not (taken.epoch[taken.source == i] >= most.get(name, 1000)).any()
        assert plan.counts(end)[i] == (taken.source == i).sum()
    until = plan.stages[0].length if len(plan.stages) > 1 else end
    for mine, theirs in zip(plan.take(0, until), free.take(0, until), strict=True):
        assert mine.tolist() == theirs.tolist()
    if plan.length is None:
        assert len(most) < len(sizes)
        assert not free.unforeseen(0)
        repeated = [
            i for i, (size, count) in enumerate(zip(sizes.values(), plan.counts(end), strict=True)) if count > size
        ]
        assert list(plan.unforeseen(end)) == [str(i) for i in repeated if str(i) not in most]
    elif stop == "forever":  # all have left it
        assert plan.counts(end) == [size * most[name] for name, size in sizes.items()]


def test_a_mix_that_may_not_go_on_ends_in_an_error():
    plan = Plan({"a": 3, "b": 50}, {"a": 2}, stop="forever", max_epochs={"a": 2}, at_max_epochs="error")
    assert (plan.length, plan.counts(99)) == (9, [6, 3])
    message = r"^mix\.max_epochs\.a: the mix goes through a once more from record 9 on\. End it before, give the source"
    assert re.match(message, str(plan.refusal()))
    assert plan.report().warnings[0].startswith("the mix ends in an error: mix.max_epochs.a: the mix goes through a")
    with pytest.raises(ConfigError, match=message):
        Plan({"a": 3, "b": 50}, {"a": 2}, stop="forever", max_epochs={"a": 2}, at_max_epochs="error", samples=10)
    for kept in ({"samples": 9}, {"max_epochs": {"a": 20}, "samples": 90}, {"at_max_epochs": "drop"}):
        settings = {"max_epochs": {"a": 2}, "at_max_epochs": "error", **kept}
        assert Plan({"a": 3, "b": 50}, {"a": 2}, stop="forever", **settings).refusal() is None


def test_epochs_that_nobody_has_foreseen():
    plan = Plan({"a": 3, "b": 6, "c": 5}, stop="forever", epochs={"b": 2}, max_epochs={"c": 9})
    assert [plan.unforeseen(position) for position in (9, 12, 36, 45)] == [
        {},
        {"a": pytest.approx(4 / 3)},
        {"a": 4},
        {"a": 5, "b": 2.5},
    ]
    assert Plan({"a": 3, "b": 60}, stop="all_exhausted").unforeseen(120) == {}
    assert Plan({"a": 3, "b": 60}, stop="forever").unforeseen(9, [6, 3]) == {"a": 2.0}  # under other weights
    assert Plan({"a": 3}, stop="forever", order="random", replacement=True).unforeseen(120) == {}
