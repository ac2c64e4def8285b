"""Look-up of independent draws."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.periods import Draws
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import cursor_at
from datamix.pipeline.lookup.draws import DrawsLookup
from lookups import FAR, STOPS, check_batches, check_located, check_slots_ahead, numbered, sizes_of, starts, weights_of

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


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.data(), st.booleans())
def test_any_weights_give_the_draws_of_the_plan(data: st.DataObject, replacement: bool) -> None:
    check_any(data, 3, "forever", replacement=replacement, scheduled=False)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.data(), st.sampled_from([2, 5, 40]), STOPS, st.booleans(), st.booleans())
def test_any_stop_and_schedule_give_the_draws_of_the_plan(
    data: st.DataObject, num_sources: int, stop: str, replacement: bool, scheduled: bool
) -> None:
    check_any(data, num_sources, stop, replacement=replacement, scheduled=scheduled)


def check_any(data: st.DataObject, num_sources: int, stop: str, *, replacement: bool, scheduled: bool) -> None:
    sizes, weights = data.draw(sizes_of(num_sources, 10**4)), data.draw(weights_of(num_sources, 3))
    later = [{"until": data.draw(st.integers(1, 9000)), "weights": weights}, {"weights": {"s1": 7}}]
    mix = {"schedule": later} if scheduled else {"weights": weights}
    plan = Plan(sizes, order="random", replacement=replacement, stop=stop, **mix)
    # Without replacement, all draws before a slot are summed up.
    check_located(plan, data.draw(starts(plan, 2**12, FAR if replacement else [10**6])))


@pytest.mark.slow
def test_draws_far_away_are_those_of_the_plan() -> None:
    check_located(PLAN, 10**9)


@pytest.mark.slow
@pytest.mark.parametrize("replacement", [False, True])
def test_batches_are_those_of_the_plan(replacement: bool) -> None:
    sizes, weights = {"a": 700, "b": 3, "c": 297}, {"a": 0.3, "b": 1e-3}
    pipeline = numbered(sizes, weights=weights, order="random", replacement=replacement, stop="forever")
    for step in (0, 5, 4095, *(FAR if replacement else [10**6 // 16])):
        check_batches(pipeline, step)
