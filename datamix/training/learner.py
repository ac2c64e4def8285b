"""A learner: a model and an optimiser, their state, and the compiled functions that train and test them.

Everything that determines the compiled code is in a hashable `Learner`; data, plan, state and learning rates are
arguments, so that jobs that differ in ratio, seed or rate run the same compiled code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32, Shaped, UInt32

from datamix import registry
from datamix.config.schema import TrainConfig
from datamix.errors import ConfigError, first_line
from datamix.pipeline import tracing
from datamix.pipeline.adapt import Adapt, AdaptState
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.credit import whole_weights
from datamix.pipeline.lowering import frozen
from datamix.pipeline.program import Compiled
from datamix.pipeline.readers.fed import Fed
from datamix.pipeline.sharding import next_batch
from datamix.rng.keys import key_of, same_draws
from datamix.spec import Batch, LeafSpec
from datamix.training.models import Standardized, Takes
from datamix.training.optimizers import set_rate, with_rate_in_state
from datamix.training.tasks.base import Sums, Task

Moments: TypeAlias = Sequence[tuple[jax.Array, jax.Array]]
"""The mean and deviation of a model's input, and of the number it predicts if it predicts one; empty for none."""


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
      params: The parameters of the model.
      rest: The model's other state: random streams, running means.
      optimizer: The state of Optax's optimiser, with the learning rate of the last step.
      adapt: The state of the weights that follow training, and the cursor that carries them; None if they do not.
    """

    params: Any
    rest: Any
    optimizer: Any
    adapt: tuple[AdaptState, Cursor] | None = None


class Trail(NamedTuple):
    """The losses, weights and counts of a number of training steps.

    Attributes:
      loss: The loss of each step, float32 [steps].
      weight: The weights of the mix, in parts of `TOTAL`, int32 [steps, num_sources]; None if they do not follow
        training.
      records: The number of records of each source in each step, [steps, num_sources]; None as for `weight`.
      sums: The unweighted loss of each source summed over all steps, and the number of its terms, [2, num_sources].
    """

    loss: Any
    weight: Any = None
    records: Any = None
    sums: Any = None


_Learnt: TypeAlias = tuple[TrainState, jax.Array]
"""The state, and for each source the sums of losses, of their terms and of records so far, [num_sources, 3]."""


class HeldOut(NamedTuple):
    """The test records of all sources, one source after the other.

    Attributes:
      compiled: The compiled pipeline of the records.
      cursor: The cursor at the first record.
      num_records: The number of records of all sources.
      known: The constants of the task: the source of each class for classification, the number of bytes of each token
        for language, and the variance of each source's test labels for regression.
    """

    compiled: Compiled
    cursor: Cursor
    num_records: UInt32[jax.Array, ""]
    known: Shaped[jax.Array, " num_outputs_or_sources"]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model, an optimiser and their settings, on which compiled code depends.

    Attributes:
      model: The function that makes the model; see `datamix.training.models.model`.
      model_settings: The keywords of that function.
      optimizer: The function that makes Optax's optimiser for a learning rate; see `datamix.training.optimizers`.
      optimizer_settings: The keywords of that function.
      task: What the model learns.
      adapt: How the weights of the mix follow training; None if they do not.
    """

    model: Callable[..., nnx.Module]
    model_settings: tuple[tuple[str, Any], ...]
    optimizer: Callable[..., optax.GradientTransformation]
    optimizer_settings: tuple[tuple[str, Any], ...]
    task: Task
    adapt: Adapt | None = None

    @classmethod
    def of(cls, config: TrainConfig, task: Task, adapt: Adapt | None = None) -> Learner:
        """The learner that a configuration describes, for a task."""
        return cls(
            model=registry.lookup("model", config.model),
            model_settings=frozen(config.model_settings),
            optimizer=registry.lookup("optimizer", config.optimizer),
            optimizer_settings=frozen(config.optimizer_settings),
            task=task,
            adapt=adapt,
        )

    @same_draws()
    def create(self, key: jax.Array) -> nnx.Module:
        """A model with initial parameters."""
        return self.model(self.task.shape, self.task.num_outputs, nnx.Rngs(key), **dict(self.model_settings))

    def complete(self, key: jax.Array, moments: Moments) -> nnx.Module:
        """The model to train: that of `create`, which also standardises its input and output if there are moments."""
        model = self.create(key)
        return Standardized(model, moments) if moments else model

    def transform(self) -> optax.GradientTransformation:
        """Optax's optimiser, with its learning rate read from its state."""
        return with_rate_in_state(self.optimizer, dict(self.optimizer_settings))

    @cache  # noqa: B019  # jobs of a sweep have few learners
    def num_parameters(self) -> int:
        """The number of parameters of the model."""
        params = nnx.state(_abstract(self), nnx.Param)
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def check(self, leaves: Mapping[str, LeafSpec]) -> None:
        """Check, without computing any, that the model maps records to outputs of the task's shape.

        Args:
          leaves: The leaves of the records.

        Raises:
          ConfigError: The model does not take such records, or its outputs have another shape.
        """
        self._check(tuple(leaves.items()))

    @cache  # noqa: B019  # jobs of a sweep have few learners
    def _check(self, leaves: tuple[tuple[str, LeafSpec], ...]) -> None:
        task = self.task
        batch = {leaf: jax.ShapeDtypeStruct((2, *part.shape), part.dtype) for leaf, part in leaves}
        expected, leaf = task.output_shape(2), f"the leaf {task.leaf!r} of {dict(leaves)[task.leaf]}"
        takes: Takes = getattr(self.model, "takes", {})
        if takes and not _fits(takes.get(task.leaf), task.shape):
            kinds = " or ".join(f"{each} [{axes.replace(' ', ', ')}]" for each, axes in takes.items())
            raise ConfigError(f"it takes {kinds}, not {leaf}", key="model", value=self._name, hint=task.mend)
        try:
            model: Any = nnx.eval_shape(lambda: self.create(key_of((0, 0))))
            graph, state = nnx.split(model)
            outputs = jax.eval_shape(lambda state, batch: nnx.merge(graph, state)(*task.inputs(batch)), state, batch)
        except (TypeError, ValueError) as error:
            text = f"it cannot take {leaf}: {first_line(error)}"
            raise ConfigError(text, key="model", value=self._name, hint=task.mend) from error
        if getattr(outputs, "shape", None) != expected:
            shape = ", ".join(["batch", *map(str, expected[1:])])
            kind = "numbers" if expected == (2, 1) else "logits"
            records = "images" if task.leaf == "image" else "records"
            text = f"it must give {kind} [{shape}]; for two {records} it gave {outputs}"
            raise ConfigError(text, key="model", value=self._name)

    @property
    def _name(self) -> str:
        return next(name for name in registry.names("model") if registry.lookup("model", name) is self.model)


def _fits(axes: str | None, shape: tuple[int, ...]) -> bool:
    return axes is not None and (axes == "..." or len(axes.split()) == len(shape))


@cache
def _abstract(learner: Learner) -> nnx.Module:
    """The model with shapes and dtypes in place of arrays."""
    shapes = [learner.task.shape, ()][: len(learner.task.standardized)]
    moments = [(jnp.zeros(shape), jnp.ones(shape)) for shape in shapes]
    model: nnx.Module = nnx.eval_shape(lambda: learner.complete(key_of((0, 0)), moments))
    return model


@cache
def _graph(learner: Learner, *, training: bool) -> Any:
    """The static part of the model, which tells dropout and similar layers whether they are training."""
    model = nnx.clone(_abstract(learner))
    model.train() if training else model.eval()  # type: ignore[no-untyped-call]
    return _split(model)[0]


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    """The structure, the parameters and the other state of a model."""
    graph, params, *rest = nnx.split(model, nnx.Param, ...)
    return graph, params, rest[0]


@partial(tracing.jit_quickly, static_argnames="learner")
def first_state(learner: Learner, key: jax.Array, moments: Moments) -> TrainState:
    """The state before the first step."""
    _, params, rest = _split(learner.complete(key, moments))
    return TrainState(params, rest, learner.transform().init(params))


@same_draws()
def train(
    learner: Learner,
    compiled: Compiled,
    cursor: Cursor,
    state: TrainState,
    rates: Float32[jax.Array, " steps"],
    mesh: Mesh | None = None,
) -> tuple[Cursor, TrainState, Trail]:
    """Train for one step per learning rate; the same loop makes the batches.

    Over a mesh, each device makes its rows of every batch and learns from them; the state is the same on all devices.

    Args:
      learner: The learner.
      compiled: The compiled pipeline of the mix.
      cursor: The cursor at the first batch.
      state: The state before the first step.
      rates: The learning rate of each step.
      mesh: The devices; None for one.

    Returns:
      The cursor and the state after the last step, and the trail of the steps.
    """
    graph, transform, adapt = _graph(learner, training=True), learner.transform(), learner.adapt
    num_sources = len(compiled.plan.size)

    def loss_of(params: Any, rest: Any, batch: Batch, weights: jax.Array | None) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        losses, counts = learner.task.loss(model(*learner.task.inputs(batch)), batch)
        weight = batch.get("loss_weight", jnp.float32(1))
        if weights is not None:
            weight = weight * weights[batch["source_id"]]
        total = (counts * weight).sum()
        loss = (losses * weight).sum() / jnp.where(total > 0, total, 1)
        sums = jnp.stack([losses, counts.astype(losses.dtype), jnp.ones_like(losses)], axis=1)
        return loss, (_split(model)[2], jax.ops.segment_sum(sums, batch["source_id"], num_sources))

    def learn(carry: _Learnt, batch: Batch, rate: jax.Array, cursor: Cursor | None) -> tuple[_Learnt, Trail]:
        (params, rest, optimizer, adapting), sums = carry
        weights = adapting[0].weights if adapt is not None and adapt.weighs_loss and adapting is not None else None
        (loss, (rest, by_source)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, rest, batch, weights)
        updates, optimizer = transform.update(gradients, set_rate(optimizer, rate), params)
        params, trail = optax.apply_updates(params, updates), Trail(loss)
        if adapt is not None and adapting is not None and cursor is not None:
            weight = cursor.online.weight if weights is None and cursor.online else whole_weights(adapting[0].weights)
            trail = Trail(loss, weight, by_source[:, 2])
            adapting = adapt.observe(adapting[0], cursor, compiled.plan, *by_source.T)
        return (_on_all(TrainState(params, rest, optimizer, adapting), mesh), sums + by_source), trail

    def step(carry: tuple[Cursor, _Learnt], rate: jax.Array) -> tuple[tuple[Cursor, _Learnt], Trail]:
        batch, cursor = next_batch(compiled, carry[0], mesh)
        learnt, trail = learn(carry[1], batch, rate, cursor)
        adapting = learnt[0].adapt
        return (cursor if adapting is None else adapting[1], learnt), trail

    learnt: _Learnt = (state, jnp.zeros((num_sources, 3)))
    if adapt is None and mesh is None:
        cursor, learnt, trail = compiled.scan(partial(learn, cursor=None), cursor, learnt, rates)
    else:
        (cursor, learnt), trail = lax.scan(step, (cursor, learnt), rates)
    state, sums = learnt
    return cursor, state, _on_all(trail._replace(sums=sums.T[:2]), mesh)


def _on_all(tree: Any, mesh: Mesh | None) -> Any:
    """The same arrays, replicated on every device of a mesh."""
    return tree if mesh is None else lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def evaluate(
    learner: Learner, data: HeldOut, state: TrainState, num_batches: int, num_sources: int, mesh: Mesh | None = None
) -> Sums:
    """Test a model on the test records of all sources.

    Args:
      learner: The learner.
      data: The test records.
      state: The state of the model.
      num_batches: The number of batches that hold all test records.
      num_sources: The number of sources.
      mesh: The devices; None for one.

    Returns:
      The task's scores, summed over the records of each source.
    """
    model = nnx.merge(_graph(learner, training=False), state.params, state.rest, copy=True)
    task, size = learner.task, data.compiled.program.batch_size

    @jax.jit  # traced once, for the shapes and for the loop
    def scores_of(batch: Batch, first: jax.Array) -> Sums:
        # The last batches extend past the last record.
        is_record = first + jnp.arange(size, dtype=jnp.uint32) < data.num_records
        source = jax.nn.one_hot(batch["source_id"], num_sources) * is_record[:, None]
        scores = task.scores(model(*task.inputs(batch)), batch, data.known, num_sources)
        return {
            name: (source * values[:, None]).sum(axis=0)
            if values.ndim == 1
            else jnp.einsum("bs,bt->st", source, values)
            for name, values in scores.items()
        }

    def add(scores: Sums, batch: Batch, first: jax.Array) -> tuple[Sums, None]:
        return jax.tree.map(jnp.add, scores, scores_of(batch, first)), None

    def step(carry: tuple[Cursor, Sums], first: jax.Array) -> tuple[tuple[Cursor, Sums], None]:
        batch, cursor = next_batch(data.compiled, carry[0], mesh)
        return (cursor, add(carry[1], batch, first)[0]), None

    # Of records in memory, `scan` would only take longer to compile.
    is_scanned = mesh is None and isinstance(data.compiled.reader, Fed)
    steps = data.compiled.scanned_steps(num_batches) if is_scanned else num_batches
    firsts = jnp.arange(steps, dtype=jnp.uint32) * size
    spec = data.compiled.program.spec
    batch = {leaf: jax.ShapeDtypeStruct((size, *part.shape), part.dtype) for leaf, part in spec}
    shapes = jax.eval_shape(scores_of, batch, firsts[0])
    zeros = jax.tree.map(lambda sums: jnp.zeros(sums.shape, sums.dtype), shapes)
    if is_scanned:
        sums = data.compiled.scan(add, data.cursor, zeros, firsts)[1]
    else:
        (_, sums), _ = lax.scan(step, (data.cursor, zeros), firsts)
    summed: Sums = _on_all(sums, mesh)
    return summed


def losses_of_records(
    learner: Learner, data: HeldOut, state: TrainState, num_batches: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss of each test record, the number of terms that it sums, and its source, [num_batches * batch_size] each.

    The last batch extends past the last record.
    """
    model = nnx.merge(_graph(learner, training=False), state.params, state.rest, copy=True)

    def step(cursor: Cursor, _: None) -> tuple[Cursor, tuple[jax.Array, jax.Array, jax.Array]]:
        batch, cursor = next_batch(data.compiled, cursor, None)
        return cursor, (*learner.task.loss(model(*learner.task.inputs(batch)), batch), batch["source_id"])

    _, (losses, counts, sources) = lax.scan(step, data.cursor, length=num_batches)
    return losses.reshape(-1), counts.reshape(-1), sources.reshape(-1)


# All jobs of a process share these, so that the second one uses the code that the first one compiled.
train_jitted = tracing.jit(train, static_argnames=("learner", "mesh"))
evaluate_jitted = tracing.jit_quickly(evaluate, static_argnames=("learner", "num_batches", "num_sources", "mesh"))
losses_of_records_jitted = tracing.jit(losses_of_records, static_argnames=("learner", "num_batches"))


def is_key(leaf: jax.Array) -> bool:
    """Whether an array holds random keys."""
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
