"""Look-up of independent draws."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.mixing.periods import Draws
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at
from datamix.pipeline.lookup.draws import DrawsLookup
from lookups import check_slots_ahead

PLAN = Plan({"a": 5, "b": 3, "c": 9}, {"a": 2, "c": 0.5}, order="random", stop="forever")
DRAWS = Draws(np.asarray([2**30, 2**31], np.uint32), 0, (1, 2), replacement=False)


def test_where_a_cursor_stands() -> None:
    assert DrawsLookup.slot_at(DRAWS, 7) == (0, DRAWS.counts(7))
    assert DrawsLookup.slot_at(replace(DRAWS, replacement=True), 7) == (0, [7, 7])


@pytest.mark.parametrize("start", [0, 6, 100_000])
def test_slots_ahead_of_a_cursor_are_those_of_the_period(start: int) -> None:
    check_slots_ahead(DrawsLookup, PLAN, start)


def test_draws_with_replacement_advance_every_source_alike() -> None:
    plan = Plan({"a": 5, "b": 3}, order="random", replacement=True, stop="forever")
    lookup, cursor = DrawsLookup.of(plan, plan.stages), cursor_at(plan, 9)
    here = jnp.ones(8, bool)
    source, number = lookup.take(cursor, jnp.arange(8, dtype=jnp.uint32), here)
    np.testing.assert_array_equal(source, plan.stages[0].period.take(9, 8)[0])
    assert number.tolist() == list(range(8))
    assert lookup.advance(cursor, jnp.uint32(8), source, here)[1].tolist() == [8, 8]


def test_a_source_of_too_many_records_is_refused() -> None:
    plan = Plan({"a": 2**31, "b": 3}, order="random", stop="forever")
    with pytest.raises(
        ConfigError, match=r"^mix = .random.; it takes sources of fewer than 2\^31 records\. Use mix=prop"
    ):
        DrawsLookup.of(plan, plan.stages)
