"""Several runs of one learner at once: each is a replica with its own plan, state and learning rates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from datamix.pipeline import tracing
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.program import Compiled
from datamix.training.learner import (
    HeldOut,
    Learner,
    Trail,
    TrainState,
    evaluate,
    evaluate_jitted,
    is_key,
    train,
    train_jitted,
)
from datamix.training.tasks.base import Sums

PerStep: TypeAlias = Float32[np.ndarray, "num_replicas steps"]


class Single:
    """One model; `Threaded` and `Vmapped` have the same methods for several.

    Args:
      learner: The learner.
      compiled: The compiled pipeline of each replica.
      cursors: The cursor of each replica at its first batch.
      states: The state of each replica before its first step.
    """

    _mesh: Mesh | None = None

    def __init__(
        self, learner: Learner, compiled: Sequence[Compiled], cursors: Sequence[Cursor], states: Sequence[TrainState]
    ) -> None:
        (self._compiled,), (self._cursor,), (self._state,) = compiled, cursors, states
        self._learner = learner

    def train(self, rates: PerStep) -> list[Trail]:
        """Train each replica for one step per learning rate.

        Args:
          rates: The learning rates, float32 [num_replicas, steps].

        Returns:
          The trail of each replica.
        """
        self._cursor, self._state, trail = train_jitted(
            self._learner, self._compiled, self._cursor, self._state, rates[0], mesh=self._mesh
        )
        return [jax.device_get(trail)]

    def seek(self, cursors: Sequence[Cursor]) -> None:
        """Continue with the batch at each replica's cursor."""
        (self._cursor,) = cursors

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Sums]:
        """Test every replica; see `datamix.training.learner.evaluate`."""
        scores = evaluate_jitted(self._learner, data, self._state, num_batches, num_sources, mesh=self._mesh)
        return [jax.device_get(scores)]

    def state(self, replica: int) -> TrainState:  # noqa: ARG002
        """The state of one replica."""
        return self._state

    def learnt(self) -> tuple[int, ...]:
        """The ids of the arrays that a test depends on."""
        return tuple(map(id, jax.tree.leaves((self._state.params, self._state.rest))))


class Threaded:
    """Several models of one learner, whose pipelines run one program, in as many threads as there are processors.

    A CPU gains nothing from the larger products of `Vmapped`, and its cache suffers: it holds the state of one small
    network and its optimiser, but not those of nine.
    """

    def __init__(
        self, learner: Learner, compiled: Sequence[Compiled], cursors: Sequence[Cursor], states: Sequence[TrainState]
    ) -> None:
        self._replicas = [
            Single(learner, [each], [cursor], [state])
            for each, cursor, state in zip(compiled, cursors, states, strict=True)
        ]
        self._compiled_steps: set[int] = set()

    def train(self, rates: PerStep) -> list[Trail]:
        calls = [
            partial(replica.train, rates_of_one[None])
            for replica, rates_of_one in zip(self._replicas, rates, strict=True)
        ]
        steps = rates.shape[1]
        first = [] if steps in self._compiled_steps else calls.pop(0)()  # alone, so that only one thread compiles
        self._compiled_steps.add(steps)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [*first, *(trail for trails in pool.map(lambda call: call(), calls) for trail in trails)]

    def seek(self, cursors: Sequence[Cursor]) -> None:
        for replica, cursor in zip(self._replicas, cursors, strict=True):
            replica.seek([cursor])

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Sums]:
        scores: dict[tuple[int, ...], list[Sums]] = {}
        keys = [replica.learnt() for replica in self._replicas]
        for key, replica in zip(keys, self._replicas, strict=True):
            if key not in scores:  # before the first step, replicas with one seed are the same model
                scores[key] = replica.scores(data, num_batches, num_sources)
        return [score for key in keys for score in scores[key]]

    def state(self, replica: int) -> TrainState:
        return self._replicas[replica].state(0)


class Vmapped:
    """Several models of one learner, whose pipelines run one program, in one vmapped call.

    Arrays that all pipelines share, above all the records, are passed once; the others are stacked.
    """

    def __init__(
        self, learner: Learner, compiled: Sequence[Compiled], cursors: Sequence[Cursor], states: Sequence[TrainState]
    ) -> None:
        self._learner = learner
        columns = list(zip(*(jax.tree.leaves(each) for each in compiled), strict=True))
        self._structure = jax.tree.structure(compiled[0])
        self._is_shared = tuple(all(leaf is column[0] for leaf in column) for column in columns)
        self._shared = [column[0] for column, shared in zip(columns, self._is_shared, strict=True) if shared]
        self._stacked = [_stack(*column) for column, shared in zip(columns, self._is_shared, strict=True) if not shared]
        self._cursor, self._state = (jax.tree.map(_stack, *trees) for trees in (cursors, states))

    def train(self, rates: PerStep) -> list[Trail]:
        stacked = (self._stacked, self._cursor, self._state, jnp.asarray(rates))
        self._cursor, self._state, trail = _train_vmapped(
            self._learner, self._structure, self._is_shared, self._shared, stacked
        )
        return _unstacked(jax.device_get(trail), len(rates))

    def seek(self, cursors: Sequence[Cursor]) -> None:
        self._cursor = jax.tree.map(_stack, *cursors)

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Sums]:
        scores = jax.device_get(_evaluate_vmapped(self._learner, data, self._state, num_batches, num_sources))
        return _unstacked(scores, len(jax.tree.leaves(scores)[0]))

    def state(self, replica: int) -> TrainState:
        state: TrainState = jax.tree.map(
            lambda values: values[replica] if is_key(values) else np.asarray(values)[replica], self._state
        )
        return state


Replicas: TypeAlias = Single | Threaded | Vmapped
"""The ways to train one or several models."""


def same_program(first: Compiled, other: Compiled) -> bool:
    """Whether two pipelines run the same program on arrays of the same shapes, so that they can be replicas."""
    shapes = [[leaf.shape for leaf in jax.tree.leaves(compiled)] for compiled in (first, other)]
    structures: list[Any] = [jax.tree.structure(compiled) for compiled in (first, other)]
    return bool(structures[0] == structures[1]) and shapes[0] == shapes[1]


def execution_of(execution: str, num_replicas: int) -> type[Replicas]:
    """The class that trains a number of replicas.

    Args:
      execution: "threads", "vmap", or "auto": threads on a CPU, vmap on an accelerator.
      num_replicas: The number of replicas that are trained at once.
    """
    if num_replicas == 1:
        return Single
    threads = execution == "threads" or (execution == "auto" and jax.default_backend() == "cpu")
    return Threaded if threads else Vmapped


def _unstacked(tree: Any, num_replicas: int) -> list[Any]:
    """The arrays of each replica, from arrays [num_replicas, ...]."""
    return [jax.tree.map(lambda values, i=i: values[i], tree) for i in range(num_replicas)]


def _stack(*leaves: jax.Array) -> jax.Array:
    # NumPy compiles nothing for this.
    return jnp.stack(leaves) if is_key(leaves[0]) else jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))


@partial(tracing.jit, static_argnames=("learner", "structure", "is_shared"))
def _train_vmapped(
    learner: Learner, structure: Any, is_shared: tuple[bool, ...], shared: list[Any], stacked: Any
) -> Any:
    def train_one(replica: Any) -> tuple[Cursor, TrainState, Trail]:
        arrays, cursor, state, rates = replica
        of_all, of_one = iter(shared), iter(arrays)
        compiled = structure.unflatten([next(of_all if is_common else of_one) for is_common in is_shared])
        return train(learner, compiled, cursor, state, rates)

    return jax.vmap(train_one)(stacked)


@partial(tracing.jit, static_argnames=("learner", "num_batches", "num_sources"))
def _evaluate_vmapped(learner: Learner, data: HeldOut, states: TrainState, num_batches: int, num_sources: int) -> Any:
    return jax.vmap(lambda state: evaluate(learner, data, state, num_batches, num_sources))(states)
