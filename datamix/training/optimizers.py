"""Optax's optimisers and schedules, under the names that a config uses.

An optimiser takes its learning rate as an array, and a schedule has a peak of 1: the rate of each step is computed
beforehand and put into the optimiser's state before the step. So another rate or schedule compiles nothing, jobs that
differ in them can run in one program, and every update is the one that Optax makes under that schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32

from datamix.errors import ConfigError

Rate: TypeAlias = Float32[jax.Array, ""]


def _require(is_within: bool, bounds: str, key: str, value: object) -> None:
    if not is_within:
        raise ConfigError(f"it is {bounds}", key=f"optimizer.{key}", value=value)


def _check(*, below_1: Mapping[str, float | None], **others: float) -> None:
    """Check that the settings of an optimiser are within their bounds.

    Args:
      below_1: The decay rates by name, such as a momentum, which are in [0, 1).
      others: `eps`, which is above 0, and `weight_decay`, which is 0 or more.

    Raises:
      ConfigError: A setting is out of bounds.
    """
    for name, value in below_1.items():
        _require(value is None or 0 <= value < 1, "0 or more, and below 1", name, value)
    if "eps" in others:  # with 0, a gradient of 0 is divided by 0
        _require(others["eps"] > 0, "above 0", "eps", others["eps"])
    if "weight_decay" in others:
        _require(others["weight_decay"] >= 0, "0 or more", "weight_decay", others["weight_decay"])


def adam(learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam; see `optax.adam`."""
    _check(below_1={"b1": b1, "b2": b2}, eps=eps)
    return optax.adam(learning_rate, b1, b2, eps)


def adamw(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-4
) -> optax.GradientTransformation:
    """Adam with weight decay; see `optax.adamw`."""
    _check(below_1={"b1": b1, "b2": b2}, eps=eps, weight_decay=weight_decay)
    return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay)


def lion(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """Lion; see `optax.lion`."""
    _check(below_1={"b1": b1, "b2": b2}, weight_decay=weight_decay)
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay)


def rmsprop(
    learning_rate: Rate, *, decay: float = 0.9, eps: float = 1e-8, momentum: float | None = None
) -> optax.GradientTransformation:
    """RMSProp; see `optax.rmsprop`."""
    _check(below_1={"decay": decay, "momentum": momentum}, eps=eps)
    return optax.rmsprop(learning_rate, decay, eps, momentum=momentum)


def sgd(learning_rate: Rate, *, momentum: float | None = None, nesterov: bool = False) -> optax.GradientTransformation:
    """Stochastic gradient descent; see `optax.sgd`."""
    _check(below_1={"momentum": momentum})
    if nesterov and not momentum:
        text = "it is of a momentum, and there is none"
        raise ConfigError(text, key="optimizer.nesterov", value=nesterov, hint="Set optimizer.momentum=0.9.")
    return optax.sgd(learning_rate, momentum, nesterov)


def with_rate_in_state(
    optimizer: Callable[..., optax.GradientTransformation], settings: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Make an optimiser that reads its learning rate from its own state; see `optax.inject_hyperparams`.

    Args:
      optimizer: A function from a learning rate and the settings to Optax's optimiser, such as `adam`.
      settings: The keywords of the function.

    Returns:
      The optimiser. `set_rate` puts the rate of the next step into its state; the initial rate is 0.

    >>> descent = with_rate_in_state(sgd, {})
    >>> state = set_rate(descent.init(jnp.ones(2)), jnp.float32(0.5))
    >>> descent.update(jnp.ones(2), state)[0].tolist()
    [-0.5, -0.5]
    """

    def build(learning_rate: Rate) -> optax.GradientTransformation:
        return optimizer(learning_rate, **settings)

    return optax.inject_hyperparams(build, hyperparam_dtype=jnp.float32)(learning_rate=0.0)


def set_rate(state: Any, rate: Rate) -> Any:
    """The state of an optimiser with another learning rate; see `with_rate_in_state`."""
    return state._replace(hyperparams={"learning_rate": rate})


def rate_of(state: Any) -> float:
    """The learning rate in the state of an optimiser, that of the last step."""
    return float(state.hyperparams["learning_rate"])


def constant(_steps: int) -> optax.Schedule:
    """The rate is the same at all steps."""
    return optax.constant_schedule(1.0)


def cosine(steps: int, *, end: float = 0.0) -> optax.Schedule:
    """The rate falls along half a cosine wave to the share `end` of itself; see `optax.cosine_decay_schedule`."""
    _require(end >= 0, "0 or more", "schedule.cosine.end", end)
    return optax.cosine_decay_schedule(1.0, steps, end)


def exponential(_steps: int, *, every: int, decay: float, staircase: bool = False) -> optax.Schedule:
    """The rate is multiplied by `decay` every `every` steps; see `optax.exponential_decay`."""
    _require(every >= 1, "1 or more", "schedule.exponential.every", every)
    _require(decay > 0, "above 0", "schedule.exponential.decay", decay)
    return optax.exponential_decay(1.0, every, decay, staircase=staircase)


def linear(steps: int, *, end: float = 0.0) -> optax.Schedule:
    """The rate falls in a straight line to the share `end` of itself; see `optax.linear_schedule`."""
    _require(end >= 0, "0 or more", "schedule.linear.end", end)
    return optax.linear_schedule(1.0, end, steps)


def warmup_cosine(steps: int, *, warmup: float = 0.1, end: float = 0.0) -> optax.Schedule:
    """The rate rises in a line for the share `warmup` of the steps, then falls as under `cosine`.

    See `optax.warmup_cosine_decay_schedule`.
    """
    key = "schedule.warmup_cosine.warmup"
    _require(0 <= warmup < 1, "a share of the steps, 0 or more and below 1", key, warmup)
    _require(end >= 0, "0 or more", "schedule.warmup_cosine.end", end)
    if (rising := round(warmup * steps)) >= steps:
        text, mend = f"of {steps:,} steps it leaves none to the cosine", "A smaller one, such as 0.5, does."
        raise ConfigError(text, key=f"optimizer.{key}", value=warmup, hint=mend)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, rising, steps, end)


def rates(schedule: optax.Schedule, learning_rate: float, steps: int) -> Float32[np.ndarray, " steps"]:
    """The learning rate of each step, from a schedule with a peak of 1 and the rate at that peak.

    >>> rates(linear(4), 0.1, 4).round(3)
    array([0.1  , 0.075, 0.05 , 0.025], dtype=float32)
    """
    factor = np.broadcast_to(np.asarray(schedule(np.arange(steps)), np.float32), steps)
    return np.asarray(np.float32(learning_rate) * factor)
