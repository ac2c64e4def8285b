"""What JAX sees of a pipeline: a pure function of a cursor, compiled once for every ratio."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix.operators.label import one_hot
from datamix.operators.pairs import mixup
from datamix.pipeline.program import Compiled, locate_batches, locate_span
from datamix.testing import traces

LOCATED = jax.jit(locate_batches, static_argnums=(3, 4))


@pytest.mark.parametrize("stop", ["first_exhausted", "all_exhausted", "exhaust_once", "forever"])
def test_ratio_seed_and_constants_compile_nothing(load: Callable[..., datamix.Pipeline], stop: str) -> None:
    first = load(f"stop={stop}", "seed=1")
    next(iter(first))
    first.next(first.start())
    with traces() as counts:
        for i in range(1, 51):
            other = (
                load(f"stop={stop}", f"seed={i}", f"mix.share.a={i / 60}")
                if i < 4
                else first.with_weights({"a": i / 7})
            )
            next(iter(other))
            other.next(other.start())
        renormalized = "source.a.operators=[to_float,{normalize:{mean:0.1,std:0.7}}]"
        next(iter(load(f"stop={stop}", "mix.weights.a=0.123456789", renormalized)))
    assert not counts


@pytest.mark.filterwarnings("ignore:by record .* the sum of its shares")
def test_schedules_temperatures_and_steps_compile_nothing(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
) -> None:
    ramp = "mix.schedule=[{{until:{},weights:{{a:{}}}}},{{until:{},ramp:{},weights:{{b:{}}}}}]"
    first = load("stop=forever", ramp.format(5, 3, 205, "linear", 2))
    next(iter(first))
    warm = load("stop=all_exhausted", "weighting=size", "weighting.temperature=2")
    next(iter(warm))
    other = load("stop=forever", ramp.format(9, 3, 100, "linear", 2))
    assert_same(next(other.iterator(start=90)), reference(other, 90))
    with traces() as counts:
        for values in ((7, 0.123, 400, "cosine", 8), (1, 1 / 3, 100, "exponential", 0.001)):
            other = load("stop=forever", ramp.format(*values))
            assert_same(next(other.iterator(start=90)), reference(other, 90))
        for temperature in (1, 1.7, 50):
            next(iter(load("stop=all_exhausted", "weighting=size", f"weighting.temperature={temperature}")))
    assert not counts


def test_vmap_over_weights_is_a_loop(load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]) -> None:
    pipeline = load("stop=forever")
    others = [pipeline.with_weights({"a": weight}) for weight in (0, 1 / 3, 7)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[other.compiled for other in others])
    cursors = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[other.start(4) for other in others])
    batches, after = jax.vmap(Compiled.next)(stacked, cursors)
    batches, _ = jax.vmap(Compiled.next)(stacked, after)
    for i, other in enumerate(others):
        assert_same({leaf: values[i] for leaf, values in batches.items()}, other[5])


def test_next_under_jit_scan_and_vmap(load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]) -> None:
    pipeline = load("stop=forever")

    def step(cursor: datamix.Cursor, _: None) -> tuple[datamix.Cursor, dict[str, jax.Array]]:
        batch, cursor = pipeline.next(cursor)
        return cursor, batch

    _, scanned = jax.lax.scan(step, pipeline.start(2), None, length=9)
    _, jitted = jax.jit(lambda cursor: jax.lax.scan(step, cursor, None, length=9))(pipeline.start(2))
    for i in range(9):
        assert_same({leaf: values[i] for leaf, values in scanned.items()}, pipeline[2 + i])
        assert_same({leaf: values[i] for leaf, values in jitted.items()}, pipeline[2 + i])
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[pipeline.start(i) for i in (0, 5, 30)])
    mapped, _ = jax.vmap(pipeline.next)(starts)
    for i, start in enumerate((0, 5, 30)):
        assert_same({leaf: values[i] for leaf, values in mapped.items()}, pipeline[start])


def test_what_is_compiled_is_an_argument_of_jitted_functions(
    load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]
) -> None:
    traces = 0

    @jax.jit
    def first_batch(compiled: Compiled, cursor: datamix.Cursor) -> dict[str, jax.Array]:
        nonlocal traces
        traces += 1
        return compiled.next(cursor)[0]

    pipeline = load("stop=forever")
    for weight in (1, 2, 9):
        other = pipeline.with_weights({"a": weight})
        assert_same(first_batch(other.compiled, other.start(3)), other[3])
    assert traces == 1


def test_what_a_jitted_function_returns_has_its_own_arrays_and_nothing_else(
    load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]
) -> None:
    pipeline = load("stop=forever")
    same = jax.jit(lambda compiled: compiled)
    same(pipeline.compiled)  # whose plan later callers must not get
    other = pipeline.with_weights({"a": 7})
    returned = same(other.compiled)
    assert {field.name for field in dataclasses.fields(returned)} == {
        "program",
        "plan",
        "row_order",
        "reader",
        "numbers",
    }
    assert not hasattr(returned, "__getitem__")
    assert_same(returned.next(other.start(5))[0], other[5])


SIZES = {"a": 7, "b": 5}
FEW = {name: {"label": np.arange(size) % 3} for name, size in SIZES.items()}


def mixed(**settings: Any) -> datamix.Pipeline:
    return datamix.mix(FEW, batch_size=4, stop="forever", labels="keep", **settings)


def test_pipelines_of_other_ratios_and_seeds_have_the_same_program() -> None:
    program = mixed().compiled.program
    for settings in ({"weights": {"a": 0.37}}, {"seed": 5}, {"ratio": "9:1"}):
        other = mixed(**settings).compiled.program
        assert (other, hash(other)) == (program, hash(program))
    other = datamix.mix(FEW, batch_size=5, stop="forever", labels="keep").compiled.program
    assert other != program


def test_a_program_of_another_size_is_the_same_otherwise() -> None:
    program = mixed().compiled.program
    resized = program.resized(3, 2)
    assert (resized.num_steps, resized.num_rows, resized.batch_size) == (3, 2, 4)
    assert resized != program
    assert resized.resized(program.num_steps, program.num_rows) == program


@pytest.mark.parametrize("shuffle_rows", [False, True])
def test_batches_are_located_as_the_plan_says(shuffle_rows: bool) -> None:
    pipeline = mixed(shuffle_rows=shuffle_rows)
    compiled = pipeline.compiled
    located, after = LOCATED(compiled.plan, compiled.row_order, pipeline.start(2), 3, 4)
    for batch in range(3):
        expected = pipeline.plan.take((2 + batch) * 4, 4)
        rows = [np.asarray(values)[batch * 4 :][:4] for values in located[:3]]
        mine, theirs = (list(zip(*map(list, columns), strict=True)) for columns in (rows, expected))
        assert sorted(mine) == sorted(theirs)
        if not shuffle_rows:
            assert mine == theirs
    assert after.position.tolist() == pipeline.start(5).position.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shuffle_rows": True, "granularity": "batch"},
        {"shared_operators": [partial(one_hot, num_classes=3), mixup]},
        {"order": "random", "weights": {"a": 1 / 3}},
        {"placement": {"a": "host"}},
        {"placement": "host", "shared_operators": [partial(one_hot, num_classes=3), mixup]},
    ],
    ids=["plain", "shuffled rows", "pairs", "drawn", "fed", "fed pairs"],
)
@pytest.mark.parametrize("num_steps", [12, *(pytest.param(few, marks=pytest.mark.slow) for few in (1, 7))])
def test_a_scan_is_a_loop_over_next(settings: dict[str, Any], num_steps: int, assert_same: Callable[..., None]) -> None:
    images = {name: {"image": np.full((size, 2, 2, 1), size, np.float32), **FEW[name]} for name, size in SIZES.items()}
    pipeline = datamix.mix(images, **{"batch_size": 4, "stop": "forever", "labels": "keep", **settings})

    @jax.jit
    def scanned(compiled: Compiled, cursor: datamix.Cursor, numbers: jax.Array) -> Any:
        def step(total: jax.Array, batch: Any, number: jax.Array) -> Any:
            return total + number, {**batch, "number": number}

        return compiled.scan(step, cursor, jnp.int32(0), numbers)

    cursor, total, batches = scanned(pipeline.compiled, pipeline.start(3), jnp.arange(num_steps))
    assert total == sum(range(num_steps))
    assert batches.pop("number").tolist() == list(range(num_steps))
    for i in range(num_steps):
        assert_same({leaf: values[i] for leaf, values in batches.items()}, pipeline[3 + i])
    jax.tree.map(np.testing.assert_array_equal, cursor, pipeline.start(3 + num_steps))


def test_steps_are_rounded_up_to_what_is_scanned_in_equal_parts() -> None:
    assert [mixed().compiled.scanned_steps(steps) for steps in (0, 1, 5, 2048, 2049)] == [0, 1, 5, 2048, 2050]
    images = {"a": {"image": np.zeros((40, 2, 2, 1), np.uint8)}}  # 4 bytes a record, of which 8 are read at once
    fed = datamix.mix(images, batch_size=4, stop="forever", placement="host", prefetch_bytes=64)
    assert [fed.compiled.scanned_steps(steps) for steps in (1, 2, 3, 7, 8)] == [1, 2, 4, 8, 8]


@pytest.mark.parametrize(("side", "stop"), [(30, "forever"), (80, "forever"), (8, "first_exhausted")])
def test_mixes_of_several_batch_sizes_run_one_look_up(side: int, stop: str) -> None:
    sources = {name: {"image": np.zeros((1000, side, side, 4), np.uint8)} for name in "abc"}
    next(iter(datamix.mix(sources, batch_size=256, stop=stop)))
    with traces() as counts:
        for size in (16, 100, 512):
            next(iter(datamix.mix(sources, batch_size=size, stop=stop)))
    assert "datamix.pipeline.program.locate_batches" not in counts
    assert counts["datamix.pipeline.program.compute_chunk"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("shuffle_rows", [False, True])
@pytest.mark.parametrize("num_batches", [1, 3, 4, 5000, 7900])
def test_a_span_is_the_batches_and_hardly_more(shuffle_rows: bool, num_batches: int) -> None:
    pipeline = mixed(shuffle_rows=shuffle_rows)
    compiled, count = pipeline.compiled, num_batches * 4
    span, after = locate_span(compiled, pipeline.start(2), num_batches)
    expected, end = LOCATED(compiled.plan, compiled.row_order, pipeline.start(2), num_batches, 4)
    assert count <= len(span.source) < (2 * count if count < 2**14 else 17 / 16 * count)
    for mine, theirs in zip(span[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(np.asarray(mine)[:count], theirs)
    assert after.position.tolist() == end.position.tolist()


def test_what_jax_sees_is_a_tree_whose_program_is_static() -> None:
    compiled = mixed().compiled
    leaves, shape = jax.tree.flatten(compiled)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert jax.tree.unflatten(shape, leaves).program is compiled.program


def test_a_second_pipeline_runs_what_the_first_one_compiled() -> None:
    next(iter(mixed(seed=1)))
    with traces() as counts:
        next(iter(mixed(seed=2, weights={"b": 0.123})))
    assert not counts
