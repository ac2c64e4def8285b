"""Look-up of slots that are swapped between the repetitions of a table; whole plans are for test_locate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datamix.mixing.periods import Carried
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at
from datamix.pipeline.lookup.table import TableLookup

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
