"""Several runs in one program: as if each were trained by itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from datamix.training.replicas import Single, Threaded, Vmapped, execution_of, same_program
from datamix.training.runs import fit

EACH = ["mix.share.across=0.2", "mix.ratio=1:1", "seed=3", "optimizer.learning_rate=0.01"]


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["threads", "vmap"])
def test_replicas_are_as_single_runs(make, trained, numbers, num_traces, execution):
    alone = [trained(make(override, directory=f"alone{i}")) for i, override in enumerate(EACH)]
    first = make(EACH[0], directory="0")
    runs = [first, *(make(override, directory=str(i), like=first) for i, override in enumerate(EACH) if i)]
    num_runs: list[int] = []
    count = num_traces(fit, runs, lambda group: num_runs.append(len(group)), execution)
    assert (count > 0) == (execution == "vmap")
    assert num_runs == [4, 4, 4]
    for run, replica in zip(alone, runs, strict=True):
        expected, actual = numbers(run), numbers(replica)
        assert actual.keys() == expected.keys()
        for name, values in expected.items():
            if execution == "threads":
                np.testing.assert_array_equal(actual[name], values)
            else:
                np.testing.assert_allclose(actual[name], values, atol=1e-5)
        for line, same in zip(run.metrics.lines, replica.metrics.lines, strict=True):
            assert same == pytest.approx(line, abs=1e-5)
    records = {id(leaf) for leaf in jax.tree.leaves(first.data.pipeline.reader)}
    assert all({id(leaf) for leaf in jax.tree.leaves(run.data.pipeline.reader)} == records for run in runs)


@pytest.mark.slow
def test_other_rates_and_schedules_run_in_the_program_that_is_there(make, num_traces):
    """In one vmapped program, momentum under a schedule included."""
    optimizer = ["optimizer=rmsprop", "optimizer.momentum=0.9"]

    def runs(*each):
        first = make(*optimizer, each[0], directory=each[0])
        return [first, *(make(*optimizer, override, directory=override, like=first) for override in each[1:])]

    assert num_traces(fit, runs("optimizer.learning_rate=0.01", "seed=1"), lambda _: None, "vmap")
    others = runs("optimizer.learning_rate=0.02", "optimizer.schedule=cosine")
    assert num_traces(fit, others, lambda _: None, "vmap") == 0
    assert len({run.metrics.lines[-1]["loss"] for run in others}) == 2


def test_what_may_run_together(make):
    first, ratio, batch = (
        make(override, directory=override) for override in ("seed=0", "mix.ratio=1:3", "batch.size=4")
    )
    assert same_program(first.data.pipeline.compiled, ratio.data.pipeline.compiled)
    assert not same_program(first.data.pipeline.compiled, batch.data.pipeline.compiled)


def test_the_way_to_train_them():
    assert execution_of("vmap", 1) is execution_of("threads", 1) is Single
    assert execution_of("threads", 2) is Threaded
    assert execution_of("vmap", 2) is Vmapped
    assert execution_of("auto", 2) is (Threaded if jax.default_backend() == "cpu" else Vmapped)
