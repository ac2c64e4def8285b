"""Look-up of slots that are swapped between the repetitions of a table; whole plans are for test_locate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.mixing.periods import Carried
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at
from datamix.pipeline.lookup.table import TableLookup
from lookups import FAR, STOPS, check_batches, check_located, numbered, sizes_of, starts, weights_of

SOURCES = {f"s{i}": 10**6 for i in range(20)}
PLAN = Plan(SOURCES, {f"s{i}": 1.1234567**i for i in range(20)}, stop="forever")
PERIOD = PLAN.stages[0].period
assert isinstance(PERIOD, Carried)


@pytest.mark.parametrize("start", [0, PERIOD.table.length - 900, 10**12, 2**60])
def test_slots_ahead_of_a_cursor_are_those_of_the_period(start: int) -> None:
    lookup, cursor = TableLookup.of(PLAN, PLAN.stages), cursor_at(PLAN, start)
    count = 20_000
    here = jnp.ones(count, bool)
    source, number = jax.jit(TableLookup.take)(lookup, cursor, jnp.arange(count, dtype=jnp.uint32), here)
    expected, numbers = PERIOD.take(start, count)
    np.testing.assert_array_equal(source, expected)
    _, before = TableLookup.slot_at(PERIOD, start)  # what each source had when the cursor's cycle began
    np.testing.assert_array_equal(np.asarray(number) + np.asarray(before)[expected], numbers)
    slot, passed = jax.jit(TableLookup.advance)(lookup, cursor, jnp.uint32(count), source, here)
    after, behind = TableLookup.slot_at(PERIOD, start + count)
    assert int(slot) == after
    np.testing.assert_array_equal(np.asarray(passed) + before, behind)


def check_any(data: st.DataObject, num_sources: int, orders: float, **mix: object) -> None:
    sizes = data.draw(sizes_of(num_sources))
    plan = Plan(sizes, data.draw(weights_of(num_sources, orders)), **mix)
    check_located(plan, data.draw(starts(plan, 2**12)))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.data(), st.floats(3, 12), st.sampled_from([None, 2, 100]))
def test_any_weights_give_the_slots_of_the_plan(data: st.DataObject, orders: float, window: int | None) -> None:
    check_any(data, 3, orders, stop="forever", window=window)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.data(), st.sampled_from([2, 9]), STOPS, st.sampled_from([1, 7]))
def test_any_stop_gives_the_slots_of_the_plan(data: st.DataObject, num_sources: int, stop: str, batch: int) -> None:
    granularity = "record" if batch == 1 else "batch"
    sizes = {name: size + batch for name, size in data.draw(sizes_of(num_sources)).items()}
    weights = data.draw(weights_of(num_sources, 6))
    plan = Plan(sizes, weights, stop=stop, batch_size=batch, granularity=granularity)
    check_located(plan, data.draw(starts(plan, 2**12)))


@pytest.mark.parametrize("num_sources", [40, 700])
def test_many_sources_give_the_slots_of_the_plan(num_sources: int) -> None:
    draw = np.random.default_rng(num_sources)
    sizes = {f"s{source}": int(10 ** draw.uniform(0, 6)) for source in range(num_sources)}
    plan = Plan(sizes, {name: 10 ** draw.uniform(-4, 0) for name in sizes}, stop="forever")
    (stage,) = plan.stages
    assert isinstance(stage.period, Carried)
    for border in (2**11, stage.period.table.length, 10_001 * stage.period.table.length, *FAR):
        check_located(plan, border - 2**11)


@settings(derandomize=True, deadline=None, max_examples=10)
@given(st.data(), st.integers(1, 20_000))
def test_a_schedule_gives_the_slots_of_the_plan(data: st.DataObject, until: int) -> None:
    phases = [{"until": until, "weights": data.draw(weights_of(3, 6))}, {"weights": data.draw(weights_of(3, 6))}]
    plan = Plan(data.draw(sizes_of(3)), schedule=phases, stop="forever")
    check_located(plan, data.draw(starts(plan, 2**12)))


@pytest.mark.slow
def test_batches_are_those_of_the_plan() -> None:
    sizes = {"a": 700, "b": 3, "c": 297}
    pipeline = numbered(sizes, weights={"a": 0.123456789, "b": 1.23456789e-6, "c": 0.0987654321}, stop="forever")
    (stage,) = pipeline.plan.stages
    assert isinstance(stage.period, Carried)
    border = stage.period.table.length // pipeline.batch_size
    for step in (0, border - 1, 10_001 * border, *FAR):
        check_batches(pipeline, step)
