"""Look-up of slots that follow the lengths of the records."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.mixing.plan import Plan
from datamix.pipeline.lookup.queues import QueuesLookup
from datamix.pipeline.pipeline import Pipeline
from datamix.testing import traces
from lookups import check_located, check_slots_ahead, starts, weights_of

LENGTHS = {"a": np.arange(1, 301), "b": np.resize([1, 900], 200)}
PLAN = Plan({"a": 300, "b": 200}, {"a": 3}, lengths=LENGTHS, stop="forever")
PERIOD = PLAN.stages[0].period


def test_where_a_cursor_stands() -> None:
    assert QueuesLookup.slot_at(PERIOD, 70_000) == (0, PERIOD.counts(70_000))


@pytest.mark.parametrize("start", [0, 6, 100_000, 10**12])
def test_slots_ahead_of_a_cursor_are_those_of_the_period(start: int) -> None:
    check_slots_ahead(QueuesLookup, PLAN, start)


def pipeline_of(weight: float, **inputs: object) -> Pipeline:
    data = {name: {"x": np.arange(len(tokens)), "tokens": tokens} for name, tokens in LENGTHS.items()}
    return datamix.mix(data, weights={"a": weight}, unit="tokens", batch_size=32, **inputs)  # type: ignore[arg-type]


def rows(plan: Plan, step: int, batch_size: int = 32) -> list[int]:
    return plan.take(step * batch_size, batch_size).record.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "host"])
def test_batches_are_those_of_the_plan(placement: str) -> None:
    pipeline = pipeline_of(3, stop="forever", placement=placement)
    for step in (0, 8190, 10**9):  # the second reaches into another stretch that the host fills
        iterator = pipeline.iterator(start=step)
        for ahead in range(4):
            assert next(iterator)["x"].tolist() == rows(pipeline.plan, step + ahead)
        assert pipeline[step + 1]["x"].tolist() == rows(pipeline.plan, step + 1)
    shards = [next(pipeline.iterator(start=77, shard=(rank, 3)))["x"] for rank in range(3)]
    assert np.concatenate(shards).tolist() == rows(pipeline.plan, 77)
    iterator, restored = pipeline.iterator(start=5), pipeline.iterator()
    next(iterator)
    restored.restore(iterator.state())
    assert next(restored)["x"].tolist() == rows(pipeline.plan, 6)


@pytest.mark.slow
def test_ratios_share_a_program_under_scan_and_vmap() -> None:
    pipelines = [pipeline_of(weight, stop="forever") for weight in (3, 0.7)]

    num_traced = 0

    @jax.jit
    def run(compiled, cursor):
        nonlocal num_traced
        num_traced += 1

        def step(cursor, _):
            batch, cursor = compiled.next(cursor)
            return cursor, batch["x"]

        return jax.lax.scan(step, cursor, None, length=5)[1]

    each = [run(pipeline.compiled, pipeline.start(100)) for pipeline in pipelines]
    assert num_traced == 1
    for pipeline, batches in zip(pipelines, each, strict=True):
        assert batches.tolist() == [rows(pipeline.plan, 100 + ahead) for ahead in range(5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *((p.compiled, p.start(100)) for p in pipelines))
    np.testing.assert_array_equal(jax.vmap(run)(*stacked), np.stack(each))


def test_another_ratio_compiles_nothing() -> None:
    next(pipeline_of(3, stop="forever").iterator())
    with traces() as counts:
        next(pipeline_of(0.7, stop="forever").iterator())
    assert not counts


def test_a_schedule_goes_from_stage_to_stage() -> None:
    schedule = [{"until": 3, "ratio": "1:1"}, {"ratio": "1:9"}]
    pipeline = datamix.mix(
        {name: {"x": np.arange(len(tokens)), "tokens": tokens} for name, tokens in LENGTHS.items()},
        schedule=schedule, unit="tokens", stop="forever", batch_size=20,
    )  # fmt: skip
    iterator = pipeline.iterator()
    assert [next(iterator)["x"].tolist() for _ in range(6)] == [rows(pipeline.plan, step, 20) for step in range(6)]


def test_a_mix_that_ends_has_a_table_and_no_call_back() -> None:
    plan = pipeline_of(3).plan
    assert plan.length is not None
    assert type(plan.stages[0].period).__name__ == "Table"


@pytest.mark.slow
def test_a_program_says_that_its_pipeline_is_gone() -> None:
    pipeline = pipeline_of(3, stop="forever")
    compiled, cursor = pipeline.compiled, pipeline.start(0)
    del pipeline
    gc.collect()
    with pytest.raises(Exception, match="the Pipeline that this computes with is gone; keep it as long as"):
        jax.block_until_ready(jax.jit(lambda compiled, cursor: compiled.next(cursor))(compiled, cursor))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.data(), st.sampled_from([2, 4]), st.integers(0, 2**32 - 1), st.sampled_from([None, 5]))
def test_any_lengths_give_the_slots_of_the_plan(
    data: st.DataObject, num_sources: int, seed: int, window: int | None
) -> None:
    draw = np.random.default_rng(seed)
    lengths = {
        f"s{source}": draw.integers(1, draw.choice([2, 9, 900]), draw.integers(1, 500)) for source in range(num_sources)
    }
    sizes = {name: len(each) for name, each in lengths.items()}
    plan = Plan(sizes, data.draw(weights_of(num_sources, 2)), lengths=lengths, stop="forever", window=window)
    check_located(plan, data.draw(starts(plan, 2**11, [2**16, 10**9, 10**12])), 2**11)
