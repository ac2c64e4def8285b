"""The compiled program: what shapes it, and its first step."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import datamix
from datamix.pipeline.program import locate_batches
from datamix.testing import traces

FEW = {name: {"label": np.arange(size) % 3} for name, size in {"a": 7, "b": 5}.items()}


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
    located, after = locate_batches(compiled.plan, compiled.row_shuffle, pipeline.start(2), 3, 4)
    for batch in range(3):
        expected = pipeline.plan.take((2 + batch) * 4, 4)
        rows = [np.asarray(values)[batch * 4 :][:4] for values in located]
        mine, theirs = (list(zip(*map(list, columns), strict=True)) for columns in (rows, expected))
        assert sorted(mine) == sorted(theirs)
        if not shuffle_rows:
            assert mine == theirs
    assert after.position.tolist() == pipeline.start(5).position.tolist()


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
