"""Look-up in runs, one source after the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.mixing.periods import Runs
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at
from datamix.pipeline.lookup.runs import RunsLookup
from lookups import FAR, check_batches, check_located, numbered, sizes_of, starts

PLAN = Plan({"a": 5, "b": 3, "c": 9}, order="concat", stop="forever")
PERIOD = PLAN.stages[0].period


def test_where_a_cursor_stands() -> None:
    runs = Runs((2, 3))
    assert RunsLookup.slot_at(runs, 13) == (3, [4, 6])


@pytest.mark.parametrize("start", [0, 6, 10**6])
def test_slots_ahead_of_a_cursor_are_those_of_the_period(start: int) -> None:
    lookup, cursor = RunsLookup.of(PLAN, PLAN.stages), cursor_at(PLAN, start)
    here = jnp.ones(50, bool)
    source, number = jax.jit(RunsLookup.take)(lookup, cursor, jnp.arange(50, dtype=jnp.uint32), here)
    expected, numbers = PERIOD.take(start, 50)
    np.testing.assert_array_equal(source, expected)
    _, before = RunsLookup.slot_at(PERIOD, start)  # what each source had when the cursor's cycle began
    np.testing.assert_array_equal(np.asarray(number) + np.asarray(before)[expected], numbers)
    slot, passed = jax.jit(RunsLookup.advance)(lookup, cursor, jnp.uint32(50), source, here)
    after, behind = RunsLookup.slot_at(PERIOD, start + 50)
    assert int(slot) == after
    np.testing.assert_array_equal(np.asarray(passed) + before, behind)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.data(), st.sampled_from([1, 4]), st.sampled_from(["forever", "exhaust_once"]))
def test_any_runs_are_those_of_the_plan(data: st.DataObject, batch: int, stop: str) -> None:
    sizes = {name: size + batch for name, size in data.draw(sizes_of(3)).items()}
    granularity = "record" if batch == 1 else "batch"
    plan = Plan(sizes, order="concat", stop=stop, batch_size=batch, granularity=granularity)
    check_located(plan, data.draw(starts(plan, 2**12)))


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 5, 61, *FAR])  # the runs are of 1,000 records, 62.5 batches
def test_batches_are_those_of_the_plan(step: int) -> None:
    check_batches(numbered({"a": 700, "b": 3, "c": 297}, order="concat", stop="forever"), step)
