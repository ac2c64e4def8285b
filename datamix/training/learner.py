"""One learner: a model and an optimiser, their state, and the compiled functions that train and test them.

What shapes the code is in a hashable `Learner`; data, plan, state and learning rates are arguments, so that jobs which
differ in ratio, seed or rate run the same compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jaxtyping import Bool, Float, Float32, Integer, UInt32

from datamix import registry
from datamix.config.schema import TrainConfig
from datamix.errors import ConfigError
from datamix.pipeline import tracing
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lowering import frozen
from datamix.pipeline.program import Compiled
from datamix.rng.keys import key_of, same_draws
from datamix.training.models import Logits
from datamix.training.optimizers import set_rate, with_rate_in_state


class State(NamedTuple):
    """All that training changes.

    Attributes:
      params: What is learnt.
      rest: What else the model keeps: random streams, running means.
      optimizer: The state of Optax's optimiser, with the learning rate of the last step.
    """

    params: Any
    rest: Any
    optimizer: Any


class Scores(NamedTuple):
    """The scores of a model on the test records of each source: sums over records.

    Attributes:
      num_records: The number of test records that have a class.
      correct: The number of records whose class is the likeliest.
      loss: The cross-entropy in nats.
      taken_for: The number of records of a source (row) that are taken for a class of a source (column); it has no
        meaning where sources share classes.
    """

    num_records: Float32[jax.Array, " num_sources"]
    correct: Float32[jax.Array, " num_sources"]
    loss: Float32[jax.Array, " num_sources"]
    taken_for: Float32[jax.Array, "num_sources num_sources"]


class HeldOut(NamedTuple):
    """The test records of all sources, one source after the other.

    Attributes:
      cursor: The cursor at the first record.
      num_records: The number of records of all sources.
      source_of_class: The source to which each class belongs.
    """

    compiled: Compiled
    cursor: Cursor
    num_records: UInt32[jax.Array, ""]
    source_of_class: UInt32[jax.Array, " num_classes"]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model and an optimiser, and what shapes them.

    Attributes:
      model: The function that makes the model; see `datamix.training.models.model`.
      optimizer: The function that makes Optax's optimiser for a learning rate; see `datamix.training.optimizers`.
      shape: The shape of one image.
      num_classes: The number of logits.
    """

    model: Callable[..., nnx.Module]
    model_settings: tuple[tuple[str, Any], ...]
    optimizer: Callable[..., optax.GradientTransformation]
    optimizer_settings: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]
    num_classes: int

    @classmethod
    def of(cls, config: TrainConfig, shape: tuple[int, ...], num_classes: int) -> Learner:
        """The learner that a configuration describes, for images of a shape."""
        return cls(
            model=registry.lookup("model", config.model),
            model_settings=frozen(config.model_settings),
            optimizer=registry.lookup("optimizer", config.optimizer),
            optimizer_settings=frozen(config.optimizer_settings),
            shape=shape,
            num_classes=num_classes,
        )

    @same_draws()
    def create(self, key: jax.Array) -> nnx.Module:
        """A model with its first parameters."""
        return self.model(self.shape, self.num_classes, nnx.Rngs(key), **dict(self.model_settings))

    def transform(self) -> optax.GradientTransformation:
        """Optax's optimiser, which reads its learning rate from its state."""
        return with_rate_in_state(self.optimizer, dict(self.optimizer_settings))

    def num_parameters(self) -> int:
        """The number of numbers that are learnt."""
        params = nnx.state(_abstract(self), nnx.Param)
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def check(self) -> None:
        """Refuse a model that does not turn images into logits, without computing any."""
        image = jax.ShapeDtypeStruct((2, *self.shape), jnp.float32)
        try:
            graph, state = nnx.split(_abstract(self))
            logits = jax.eval_shape(lambda state, image: nnx.merge(graph, state)(image), state, image)
        except (TypeError, ValueError) as error:
            text = f"it cannot take images {list(self.shape)}: {str(error).splitlines()[0]}"
            raise ConfigError(text, key=f"model={self._name}") from error
        if getattr(logits, "shape", None) != (2, self.num_classes):
            raise ConfigError(
                f"model={self._name} must give logits [batch, {self.num_classes}]; for two images it gave {logits}."
            )

    @property
    def _name(self) -> str:
        return next(name for name in registry.names("model") if registry.lookup("model", name) is self.model)


@cache
def _abstract(learner: Learner) -> nnx.Module:
    """The model's structure, without numbers."""
    model: nnx.Module = nnx.eval_shape(lambda: learner.create(key_of((0, 0))))
    return model


@cache
def _graph(learner: Learner, *, training: bool) -> Any:
    """The static part of the model; dropout and its like know whether they train."""
    model = nnx.clone(_abstract(learner))
    model.train() if training else model.eval()  # type: ignore[no-untyped-call]
    return _split(model)[0]


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Structure, parameters, and what else the model keeps."""
    graph, params, *rest = nnx.split(model, nnx.Param, ...)
    return graph, params, rest[0]


@partial(tracing.jit, static_argnames="learner")
def first_state(learner: Learner, key: jax.Array) -> State:
    """The state before the first step."""
    _, params, rest = _split(learner.create(key))
    return State(params, rest, learner.transform().init(params))


@same_draws()
def train(
    learner: Learner, compiled: Compiled, cursor: Cursor, state: State, rates: Float32[jax.Array, " steps"]
) -> tuple[Cursor, State, Float32[jax.Array, " steps"]]:
    """Train on one batch for each rate, the batches being made in the same loop.

    Returns:
      Cursor and state after the last step, and the loss of each step.
    """
    graph, transform = _graph(learner, training=True), learner.transform()

    def loss_of(params: Any, rest: Any, image: jax.Array, label: jax.Array) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        losses, is_labelled = _cross_entropy(model(image), label)
        return losses.sum() / jnp.maximum(is_labelled.sum(), 1), _split(model)[2]

    def step(carry: tuple[Cursor, State], rate: jax.Array) -> tuple[tuple[Cursor, State], jax.Array]:
        cursor, (params, rest, optimizer) = carry
        batch, cursor = compiled.next(cursor)
        (loss, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            params, rest, batch["image"], batch["label"]
        )
        updates, optimizer = transform.update(gradients, set_rate(optimizer, rate), params)
        params = optax.apply_updates(params, updates)
        return (cursor, State(params, rest, optimizer)), loss

    (cursor, state), losses = lax.scan(step, (cursor, state), rates)
    return cursor, state, losses


def evaluate(learner: Learner, data: HeldOut, state: State, num_batches: int, num_sources: int) -> Scores:
    """Test a model on the test records of every source, which fill `num_batches`."""
    model = nnx.merge(_graph(learner, training=False), state.params, state.rest, copy=True)
    size = data.compiled.program.batch_size

    def step(carry: tuple[Cursor, Scores], first: jax.Array) -> tuple[tuple[Cursor, Scores], None]:
        cursor, sums = carry
        batch, cursor = data.compiled.next(cursor)
        logits = model(batch["image"])
        # The last batch goes on past the end.
        is_record = first + jnp.arange(size, dtype=jnp.uint32) < data.num_records
        losses, is_labelled = _cross_entropy(logits, batch["label"])
        source = jax.nn.one_hot(batch["source_id"], num_sources) * (is_record & is_labelled)[:, None]
        predicted = logits.argmax(axis=-1)
        is_correct = predicted == batch["label"]
        taken_for = jax.nn.one_hot(data.source_of_class[predicted], num_sources)
        batch_scores = Scores(
            num_records=source.sum(axis=0),
            correct=(source * is_correct[:, None]).sum(axis=0),
            loss=(source * losses[:, None]).sum(axis=0),
            taken_for=jnp.einsum("ns,nt->st", source, taken_for),
        )
        return (cursor, jax.tree.map(jnp.add, sums, batch_scores)), None

    zeros = jnp.zeros(num_sources)
    no_scores = Scores(zeros, zeros, zeros, jnp.zeros((num_sources, num_sources)))
    firsts = jnp.arange(num_batches, dtype=jnp.uint32) * size
    (_, scores), _ = lax.scan(step, (data.cursor, no_scores), firsts)
    return scores


def _cross_entropy(
    logits: Logits, label: Integer[jax.Array, " batch"]
) -> tuple[Float[jax.Array, " batch"], Bool[jax.Array, " batch"]]:
    """The cross-entropy of each record, in nats, 0 where its label is negative and so no class; and where it is one."""
    is_labelled = label >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
    return jnp.where(is_labelled, losses, 0), is_labelled


# One of each for all jobs of a process: the second job finds what the first one compiled.
train_jitted = tracing.jit(train, static_argnames="learner")
evaluate_jitted = tracing.jit(evaluate, static_argnames=("learner", "num_batches", "num_sources"))


def is_key(leaf: jax.Array) -> bool:
    """Whether an array holds random keys."""
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
