"""Several runs of one learner in one program: each is a lane with a plan, a state and learning rates of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from datamix.pipeline import tracing
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.program import Compiled
from datamix.training.learner import (
    HeldOut,
    Learner,
    Scores,
    State,
    evaluate,
    evaluate_jitted,
    is_key,
    train,
    train_jitted,
)

Losses = np.ndarray
"""Of each lane's steps, float32 [num_lanes, steps]."""


class Trained(Protocol):
    """One or several models being trained."""

    def train(self, rates: np.ndarray) -> Losses:
        """Train each lane on one batch for each of its rates, float32 [num_lanes, steps]."""
        ...

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Scores]:
        """Test every lane."""
        ...

    def state(self, lane: int) -> State:
        """Of one lane."""
        ...


class Alone:
    """One model; a single lane."""

    def __init__(
        self, learner: Learner, compiled: Sequence[Compiled], cursors: Sequence[Cursor], states: Sequence[State]
    ) -> None:
        (self._compiled,), (self._cursor,), (self._state,) = compiled, cursors, states
        self._learner = learner

    def train(self, rates: np.ndarray) -> Losses:
        """See `Trained`."""
        self._cursor, self._state, losses = train_jitted(
            self._learner, self._compiled, self._cursor, self._state, jnp.asarray(rates[0])
        )
        return np.asarray(losses)[None]

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Scores]:
        """See `Trained`."""
        return [jax.device_get(evaluate_jitted(self._learner, data, self._state, num_batches, num_sources))]

    def state(self, lane: int) -> State:  # noqa: ARG002
        """See `Trained`."""
        return self._state


class SideBySide:
    """Several models of one learner, whose pipelines run one program: a thread a processor calls it, lane after lane.

    A CPU gains nothing from the larger products of `Together` and loses its cache: the state of one small network and
    of its optimiser fits into it, those of nine do not.
    """

    def __init__(
        self, learner: Learner, compiled: Sequence[Compiled], cursors: Sequence[Cursor], states: Sequence[State]
    ) -> None:
        self._lanes = [
            Alone(learner, [each], [cursor], [state])
            for each, cursor, state in zip(compiled, cursors, states, strict=True)
        ]
        self._compiled_steps: set[int] = set()

    def train(self, rates: np.ndarray) -> Losses:
        """See `Trained`."""
        calls = [partial(lane.train, own[None]) for lane, own in zip(self._lanes, rates, strict=True)]
        steps = rates.shape[1]
        done = [] if steps in self._compiled_steps else [calls.pop(0)()]  # by itself, so that it is compiled once
        self._compiled_steps.add(steps)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.concatenate([*done, *pool.map(lambda call: call(), calls)])

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Scores]:
        """See `Trained`."""
        return [score for lane in self._lanes for score in lane.scores(data, num_batches, num_sources)]

    def state(self, lane: int) -> State:
        """See `Trained`."""
        return self._lanes[lane].state(0)


class Together:
    """Several models of one learner, whose pipelines run one program, in one vmapped call.

    What all pipelines share, above all the records, is handed over once; the rest is stacked.
    """

    def __init__(
        self, learner: Learner, compiled: Sequence[Compiled], cursors: Sequence[Cursor], states: Sequence[State]
    ) -> None:
        self._learner = learner
        columns = list(zip(*(jax.tree.leaves(each) for each in compiled), strict=True))
        self._structure = jax.tree.structure(compiled[0])
        self._is_shared = tuple(all(leaf is column[0] for leaf in column) for column in columns)
        self._shared = [column[0] for column, shared in zip(columns, self._is_shared, strict=True) if shared]
        self._own = [_stacked(*column) for column, shared in zip(columns, self._is_shared, strict=True) if not shared]
        self._cursor, self._state = (jax.tree.map(_stacked, *trees) for trees in (cursors, states))

    def train(self, rates: np.ndarray) -> Losses:
        """See `Trained`."""
        lanes = (self._own, self._cursor, self._state, jnp.asarray(rates))
        self._cursor, self._state, losses = _train_lanes(
            self._learner, self._structure, self._is_shared, self._shared, lanes
        )
        return np.asarray(losses)

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Scores]:
        """See `Trained`."""
        scores = jax.device_get(_evaluate_lanes(self._learner, data, self._state, num_batches, num_sources))
        return [jax.tree.map(lambda values, lane=lane: values[lane], scores) for lane in range(len(scores.loss))]

    def state(self, lane: int) -> State:
        """See `Trained`."""
        state: State = jax.tree.map(
            lambda values: values[lane] if is_key(values) else np.asarray(values)[lane], self._state
        )
        return state


def fit_together(first: Compiled, other: Compiled) -> bool:
    """Whether two pipelines run the same program, with arrays of the same shapes."""
    mine, theirs = ([leaf.shape for leaf in jax.tree.leaves(compiled)] for compiled in (first, other))
    structures: list[Any] = [jax.tree.structure(compiled) for compiled in (first, other)]
    return bool(structures[0] == structures[1]) and mine == theirs


def trained_in(how: str, lanes: int) -> type[Alone | SideBySide | Together]:
    """The way to train so many lanes.

    Args:
      how: "threads", "vmap", or "auto": threads on a CPU, vmap on an accelerator.
      lanes: how many.
    """
    if lanes == 1:
        return Alone
    threads = how == "threads" or (how == "auto" and jax.default_backend() == "cpu")
    return SideBySide if threads else Together


def _stacked(*leaves: jax.Array) -> jax.Array:
    # On the host, where nothing is compiled for it.
    return jnp.stack(leaves) if is_key(leaves[0]) else jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))


@partial(tracing.jit, static_argnames=("learner", "structure", "is_shared"))
def _train_lanes(learner: Learner, structure: Any, is_shared: tuple[bool, ...], shared: list[Any], lanes: Any) -> Any:
    def one(lane: Any) -> tuple[Cursor, State, jax.Array]:
        own, cursor, state, rates = lane
        of_all, of_one = iter(shared), iter(own)
        compiled = structure.unflatten([next(of_all if here else of_one) for here in is_shared])
        return train(learner, compiled, cursor, state, rates)

    return jax.vmap(one)(lanes)


@partial(tracing.jit, static_argnames=("learner", "num_batches", "num_sources"))
def _evaluate_lanes(learner: Learner, data: HeldOut, states: State, num_batches: int, num_sources: int) -> Any:
    return jax.vmap(lambda state: evaluate(learner, data, state, num_batches, num_sources))(states)
