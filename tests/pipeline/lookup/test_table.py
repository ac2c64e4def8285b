"""Look-up in tables of slots."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datamix.mixing.periods import Table
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at
from datamix.pipeline.lookup.table import TableLookup

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


def test_tables_of_every_ratio_have_one_shape() -> None:
    shapes = {
        tuple(leaf.shape for leaf in jax.tree.leaves(TableLookup.of(plan, plan.stages)))
        for plan in (PLAN.with_weights({"a": weight}) for weight in (1, 1 / 3, 0.123456789))
    }
    assert len(shapes) == 1
