"""What every look-up whose cursor moves on with each slot has to do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at


def check_slots_ahead(kind: Any, plan: Plan, start: int) -> None:
    """The slots ahead of a cursor are those of the plan's only period, and so is where the cursor stands after them."""
    period = plan.stages[0].period
    lookup, cursor = kind.of(plan, plan.stages), cursor_at(plan, start)
    here = jnp.arange(50) < 40  # the last ten are not asked for
    source, number = jax.jit(kind.take)(lookup, cursor, jnp.arange(50, dtype=jnp.uint32), here)
    expected, numbers = period.take(start, 40)
    np.testing.assert_array_equal(source[:40], expected)
    before = np.asarray(period.counts(start))
    np.testing.assert_array_equal(np.asarray(number)[:40] + before[expected], numbers)
    slot, passed = jax.jit(kind.advance)(lookup, cursor, jnp.uint32(40), source, here)
    assert int(slot) == 0
    np.testing.assert_array_equal(np.asarray(passed) + before, period.counts(start + 40))
