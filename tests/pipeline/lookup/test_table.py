"""Look-up in tables of slots."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.mixing.demand import Demand
from datamix.mixing.periods import Table
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import arrays_of, cursor_at, locate
from datamix.pipeline.lookup.table import TableLookup
from datamix.testing import registered
from lookups import FAR, STOPS, check_batches, check_located, numbered, sizes_of, starts

PLAN = Plan({"a": 5, "b": 3, "c": 9}, {"a": 2, "c": 0.5}, stop="forever")
PERIOD = PLAN.stages[0].period


def test_where_a_cursor_stands() -> None:
    table = Table(np.asarray([0, 1, 0], np.int32), 2)
    assert TableLookup.slot_at(table, 7) == (1, [4, 2])


@pytest.mark.parametrize("start", [0, 5, 10**6])
def test_slots_ahead_of_a_cursor_are_those_of_the_period(start: int) -> None:
    lookup, cursor = TableLookup.of(PLAN, PLAN.stages), cursor_at(PLAN, start)
    here = jnp.ones(50, bool)
    source, number = jax.jit(TableLookup.take)(lookup, cursor, jnp.arange(50, dtype=jnp.uint32), here)
    expected, numbers = PERIOD.take(start, 50)
    np.testing.assert_array_equal(source, expected)
    _, before = TableLookup.slot_at(PERIOD, start)  # what each source had when the cursor's period began
    np.testing.assert_array_equal(np.asarray(number) + np.asarray(before)[expected], numbers)
    slot, passed = jax.jit(TableLookup.advance)(lookup, cursor, jnp.uint32(50), source, here)
    after, behind = TableLookup.slot_at(PERIOD, start + 50)
    assert int(slot) == after
    np.testing.assert_array_equal(np.asarray(passed) + before, behind)


_LOCATED = jax.jit(locate, static_argnums=2)


def short(demand: Demand, *, slots: int) -> Table:
    """A table that its order has left as it is."""
    return Table(np.arange(slots, dtype=np.int32) % demand.num_sources, demand.num_sources)


@pytest.mark.parametrize(
    "keywords",
    [
        {"share": {"a": 0.4322}},  # of 5,000 slots
        {"weights": {"a": 4097, "b": 4096}},
        {"weights": {"a": 4096, "b": 1}},
        {"order": "largest_credit"},
        {"order": "largest_credit", "weights": {"a": 1e-7}},  # which no table holds
        {"order": "short", "slots": 3},
        {"order": "short", "slots": 4097},
        {"order": "proportional", "window": 7, "share": {"a": 0.4322}},
        {"schedule": [{"until": 40_000, "ratio": "2500:2501"}, {"weights": {"a": 1e-7}}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("start", [0, 4999, 39_999])
def test_many_slots_at_once_meet_cycles_of_any_length(keywords: dict[str, Any], start: int) -> None:
    with registered():
        datamix.order(short)
        plan = Plan({"a": 60_000, "b": 60_000}, stop="forever", **keywords)
    arrays, count = arrays_of(plan), 2**15
    located, after = _LOCATED(arrays, cursor_at(plan, start), count)
    expected = plan.take(start, count)
    for mine, theirs in zip(located[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    jax.tree.map(np.testing.assert_array_equal, after, cursor_at(plan, start + count))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    weights=st.lists(st.integers(1, 9000), min_size=2, max_size=3),
    order=st.sampled_from([{}, {}, {"window": 5}, {"stratify": True, "batch_size": 16}, {"order": "round_robin"}]),
    start=st.integers(0, 2**33),
)
def test_any_weights_give_the_slots_of_the_plan(weights: list[int], order: dict[str, Any], start: int) -> None:
    sizes = dict(zip("abc", [10_000, 7, 123_456], strict=False))
    sizes = {name: sizes[name] for name in "abc"[: len(weights)]}
    numbers = {} if "order" in order else {"weights": dict(zip("abc", weights, strict=False))}
    plan, count = Plan(sizes, stop="forever", **numbers, **order), 2**15
    located, after = _LOCATED(arrays_of(plan), cursor_at(plan, start), count)
    for mine, theirs in zip(located[:3], plan.take(start, count)[:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    jax.tree.map(np.testing.assert_array_equal, after, cursor_at(plan, start + count))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    data=st.data(),
    num_sources=st.sampled_from([2, 5, 40]),
    grouped=st.booleans(),
    stop=STOPS,
    order=st.sampled_from(
        [
            {"window": 5},
            {"stratify": True, "batch_size": 16},
            {"granularity": "batch", "batch_size": 7},
            {"order": "round_robin"},
            {"order": "largest_credit"},
        ]
    ),
    shuffle=st.sampled_from(["full", "window(7)", "blocks(3)", "none"]),
)
def test_any_stop_gives_the_slots_of_the_plan(
    data: st.DataObject, num_sources: int, grouped: bool, stop: str, order: dict[str, Any], shuffle: str
) -> None:
    grouped = grouped and order.get("order") != "largest_credit"
    sizes = {
        f"g{i % 2}.{name}" if grouped else name: size + 7
        for i, (name, size) in enumerate(data.draw(sizes_of(num_sources, 10**5)).items())
    }
    weights = None
    if order.get("order") != "round_robin":
        each = data.draw(st.lists(st.integers(1, 99), min_size=num_sources, max_size=num_sources))
        weights = dict(zip(sizes, each, strict=True))
    plan = Plan(sizes, weights, stop=stop, shuffle=shuffle, block_records=dict.fromkeys(sizes, 4), **order)
    check_located(plan, data.draw(starts(plan, 2**12)))


@pytest.mark.parametrize("weights", [{"a": 7, "b": 1, "c": 4}, {"a": 4097, "b": 3, "c": 4096}])
def test_batches_are_those_of_the_plan(weights: dict[str, int]) -> None:
    pipeline = numbered({"a": 700, "b": 3, "c": 297}, weights=weights, stop="forever")
    length = pipeline.plan.stages[0].period.length
    assert length is not None
    for step in (0, length // 16 - 1, 10_001 * length // 16, *FAR):
        check_batches(pipeline, step)


def test_tables_of_every_ratio_have_one_shape() -> None:
    shapes = {
        tuple(leaf.shape for leaf in jax.tree.leaves(TableLookup.of(plan, plan.stages)))
        for plan in (PLAN.with_weights({"a": weight}) for weight in (1, 1 / 3, 0.123456789))
    }
    assert len(shapes) == 1
