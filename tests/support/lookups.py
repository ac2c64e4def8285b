"""What the look-ups of all kinds of period have to do: give what the plan says, wherever one asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import datamix
from datamix.mixing.periods import Carried
from datamix.mixing.plan import Plan
from datamix.pipeline.locate import arrays_of, cursor_at, locate
from datamix.pipeline.pipeline import Pipeline

FAR = (10**9, 2**32, 10**15)
"""Slots that only a mix without end has."""
STOPS = st.sampled_from(["forever", "first_exhausted", "all_exhausted", "exhaust_once"])

_LOCATED = jax.jit(locate, static_argnums=2)
_STEPS = 3


def sizes_of(num_sources: int, most: int = 10**6) -> st.SearchStrategy[dict[str, int]]:
    """Sources of one record up to `most`, as often small as large."""
    size = st.floats(0, float(np.log10(most))).map(lambda digits: int(10**digits))
    return st.fixed_dictionaries({f"s{source}": size for source in range(num_sources)})


def weights_of(num_sources: int, orders: float) -> st.SearchStrategy[dict[str, float]]:
    """Whole weights of some digits, and floats over so many orders of magnitude."""
    floats = st.floats(-orders, 0).map(lambda digits: 10**digits)
    weight = st.one_of(st.integers(1, 9), st.integers(1, 9000), floats)
    return st.fixed_dictionaries({f"s{source}": weight for source in range(num_sources)})


@st.composite
def starts(draw: st.DrawFn, plan: Plan, count: int, far: Sequence[int] = FAR) -> int:
    """A slot within `count` before the beginning of the mix, a stage or a cycle, the end, or a slot far away."""
    borders = [0]
    for stage in plan.stages:
        cycle = (stage.period.table if isinstance(stage.period, Carried) else stage.period).length or 0
        borders += [stage.first + cycle * times for times in (0, 1, 2, 10_001)]
    end = None if plan.length is None else -(-plan.length // plan.slot_records)
    borders += far if end is None else [end]
    slot = max(draw(st.sampled_from(borders)) - draw(st.integers(0, count)), 0)
    return slot if end is None else min(slot, end - 1)


def check_located(plan: Plan, slot: int, count: int = 2**12) -> None:
    """The compiled program locates the records of the plan from a slot on, and its cursor moves on to their end."""
    start = slot * plan.slot_records
    located, after = _LOCATED(arrays_of(plan), cursor_at(plan, start), count)
    expected = plan.take(start, count * plan.slot_records)
    for mine, theirs in zip(located[:3], expected, strict=True):
        np.testing.assert_array_equal(np.asarray(mine)[: len(theirs)], theirs.astype(np.uint32))  # epochs wrap round
    if len(expected.source) == count * plan.slot_records and (
        plan.length is None or start + len(expected.source) < plan.length
    ):
        jax.tree.map(np.testing.assert_array_equal, after, cursor_at(plan, start + count * plan.slot_records))


def numbered(sizes: Mapping[str, int], **mix: Any) -> Pipeline:
    """A pipeline whose records are the numbers from 0 on, source by source."""
    firsts = np.cumsum([0, *sizes.values()])
    data = {name: {"x": first + np.arange(size)} for first, (name, size) in zip(firsts, sizes.items(), strict=False)}
    return datamix.mix(data, batch_size=16, **mix)


def check_batches(pipeline: Pipeline, step: int) -> None:
    """Batches by index, of an iterator and in a compiled loop have the records of the plan."""
    plan, size = pipeline.plan, pipeline.batch_size
    taken = plan.take(step * size, _STEPS * size)
    firsts = np.cumsum([0, *plan.sizes[:-1]])
    expected = (firsts[taken.source] + taken.record).reshape(_STEPS, size)
    iterator = pipeline.iterator(start=step)
    for ahead, numbers in enumerate(expected):
        np.testing.assert_array_equal(next(iterator)["x"], numbers)
        np.testing.assert_array_equal(pipeline[step + ahead]["x"], numbers)
    np.testing.assert_array_equal(_looped(pipeline.compiled, pipeline.start(step)), expected)


@jax.jit
def _looped(compiled: Any, cursor: Any) -> jax.Array:
    def step(cursor: Any, _: None) -> tuple[Any, jax.Array]:
        batch, cursor = compiled.next(cursor)
        return cursor, batch["x"]

    return jax.lax.scan(step, cursor, None, length=_STEPS)[1]


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
