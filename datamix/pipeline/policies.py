"""Policies, the rules by which weights follow the losses of training, and how to add your own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from datamix import registry

PerSource: TypeAlias = Float32[jax.Array, " num_sources"]
PolicyClass = TypeVar("PolicyClass", bound=type)


class Policy(Protocol):
    """A state of a few arrays with one row per source, and pure functions of it in `jax.numpy`, which are compiled.

    A policy whose `weighs_loss` is true weighs the losses of records, and leaves the mix unchanged.
    """

    def init(self, num_sources: int) -> Any:
        """The state before the first update: a pytree of arrays, whose shapes and dtypes stay the same."""
        ...

    def update(self, state: Any, loss: PerSource, count: PerSource) -> Any:
        """The state after some more steps.

        Args:
          state: The state before them.
          loss: The mean loss of each source's records in these steps; for a source without any, its last one.
          count: The number of these records.
        """
        ...

    def weights(self, state: Any) -> PerSource:
        """The weights from here on, which are 0 or more; they need not add up to 1."""
        ...


def policy(component: PolicyClass) -> PolicyClass:
    """Register a class as a policy, under its name in snake_case; its keywords are settings of `adapt`.

    A setting that is a mapping has numbers by source; the class gets a tuple with one number per source, 0 for those
    not named. A frozen dataclass lets jobs with the same settings share compiled code.

    Raises:
      RegistryError: The name is taken, or a setting has the name of one that every policy has.

    >>> @policy
    ... class WorstForDoctest:
    ...     def init(self, num_sources):
    ...         return jnp.ones(num_sources)
    ...     def update(self, state, loss, count):
    ...         return loss == loss.max()
    ...     def weights(self, state):
    ...         return state.astype(jnp.float32)
    """
    registry.register("policy", registry.name_of(component), component)
    return component


Reference: TypeAlias = Mapping[str, float] | Sequence[float]
"""Losses of a reference model by source; a policy gets one number per source."""


@policy
@dataclass(frozen=True, kw_only=True)
class LossTemperature:
    """Weights in proportion to exp(excess / temperature), where the excess is the loss above the source's reference."""

    temperature: float = 1.0
    reference: Reference = ()

    def init(self, num_sources: int) -> PerSource:
        return jnp.zeros(num_sources)

    def update(self, state: PerSource, loss: PerSource, count: PerSource) -> PerSource:
        del state, count
        return loss - jnp.asarray(self.reference or 0.0)

    def weights(self, state: PerSource) -> PerSource:
        return jax.nn.softmax(state / self.temperature)


class Rewards(NamedTuple):
    """The state of `Odm`: rewards, the weights they were drawn with, shape [num_sources], and the updates so far."""

    reward: PerSource
    weight: PerSource
    update: jax.Array


@policy
@dataclass(frozen=True, kw_only=True)
class Odm:
    """EXP3, in which a source is an arm of a bandit and its loss the reward; rewards are smoothed.

    Source: A. Albalak et al., Efficient Online Data Mixing For Language Model Pre-Training, arXiv 2312.02406.
    """

    smoothing: float = 0.9

    def init(self, num_sources: int) -> Rewards:
        return Rewards(jnp.zeros(num_sources), jnp.full(num_sources, 1 / num_sources), jnp.int32(0))

    def update(self, state: Rewards, loss: PerSource, count: PerSource) -> Rewards:
        smoothed = self.smoothing * state.reward + (1 - self.smoothing) * loss / state.weight
        reward, update = jnp.where(count > 0, smoothed, state.reward), state.update + 1
        num_sources = len(loss)
        explored = self._explored(num_sources, update + 1)
        chosen = jax.nn.softmax(self._explored(num_sources, update) * reward)
        return Rewards(reward, (1 - num_sources * explored) * chosen + explored, update)

    def weights(self, state: Rewards) -> PerSource:
        return state.weight

    @staticmethod
    def _explored(num_sources: int, update: jax.Array) -> jax.Array:
        """The least weight of every source at an update, counted from 1, which keeps its reward known."""
        return jnp.minimum(1 / num_sources, jnp.sqrt(math.log(num_sources) / (num_sources * update)))


class Curves(NamedTuple):
    """The state of `Ado`: means and central sums of the data that the curves are fitted to, and shares.

    `x`, `xx` and `xy` are those of n^-a for each exponent a, shape [num_sources, num_exponents]; `y` and `yy` are those
    of the losses, and `mass` is the sum of their weights; these and the shares have shape [num_sources].
    """

    x: jax.Array
    xx: jax.Array
    xy: jax.Array
    y: PerSource
    yy: PerSource
    mass: PerSource
    records: jax.Array
    prior: PerSource
    recent: PerSource
    average: PerSource
    weight: PerSource
    update: jax.Array


_EXPONENTS = np.arange(1, 17).astype(np.float32) / 20  # within the bounds that the authors' code sets


@policy
@dataclass(frozen=True, kw_only=True)
class Ado:
    """Weights that follow how fast each source's loss falls, by a scaling law E + A n^-a fitted to it.

    The shares of the first steps are the prior. The authors use L-BFGS from 512 starts every 1,000 steps. Here, for
    each of 16 exponents, E and A are fitted by least squares of the relative error, which to first order is that of the
    log of the loss, and the best exponent is taken; running sums suffice for this, so no losses are kept.

    Source: Y. Jiang et al., Adaptive Data Optimization, arXiv 2410.11820.
    """

    smoothing: float = 0.1
    credit: float = 0.5

    def init(self, num_sources: int) -> Curves:
        zeros, grid = jnp.zeros(num_sources), jnp.zeros((num_sources, len(_EXPONENTS)))
        equal = jnp.full(num_sources, 1 / num_sources)
        return Curves(
            *(grid, grid, grid, zeros, zeros, zeros),
            *(jnp.float32(0), equal, equal, equal, equal, jnp.int32(0)),
        )

    def update(self, state: Curves, loss: PerSource, count: PerSource) -> Curves:
        shares, records, update = count / count.sum(), state.records + count.sum(), state.update + 1
        is_first = state.update == 0
        prior = jnp.where(is_first, shares, state.prior)
        recent = jnp.where(is_first, shares, 0.9 * state.recent + 0.1 * shares)
        average = jnp.where(is_first, shares, state.average)
        new_x = jnp.broadcast_to(records**-_EXPONENTS, state.x.shape)
        mass = jnp.where(count > 0, 1 / jnp.maximum(loss, 1e-6) ** 2, 0)
        total = state.mass + mass
        part = mass / jnp.maximum(total, 1e-30)
        dx, dy = new_x - state.x, loss - state.y
        x, y = state.x + part[:, None] * dx, state.y + part * dy
        xx = state.xx + mass[:, None] * dx * (new_x - x)
        xy = state.xy + mass[:, None] * dx * (loss - y)[:, None]
        yy = state.yy + mass * dy * (loss - y)
        # The curve falls, but not below 0.
        slope = jnp.clip(xy / jnp.maximum(xx, 1e-30), 0, y[:, None] / x)
        best = jnp.argmin(yy[:, None] - 2 * slope * xy + slope**2 * xx, axis=1)
        reducible = jnp.take_along_axis(slope * new_x * _EXPONENTS, best[:, None], axis=1)[:, 0]
        preference = prior * recent**self.credit * reducible
        known = (preference.sum() > 0) & jnp.isfinite(preference.sum())
        preferred = jnp.where(known, preference / jnp.where(known, preference.sum(), 1), prior)
        weight = (1 - self.smoothing) * average + self.smoothing * preferred
        average = average + (preferred - average) / (update + 1)
        return Curves(x, xx, xy, y, yy, total, records, prior, recent, average, weight, update)

    def weights(self, state: Curves) -> PerSource:
        return state.weight


@policy
@dataclass(frozen=True, kw_only=True)
class Doremi:
    """Weights of the losses, which grow with each source's loss above its reference; their mean is the result.

    Source: S. M. Xie et al., DoReMi, arXiv 2305.10429; the reference is a number for each source, in place of a
    model's loss of each token.
    """

    weighs_loss: ClassVar[bool] = True
    rate: float = 1.0
    smoothing: float = 1e-4
    reference: Reference = ()

    def init(self, num_sources: int) -> PerSource:
        return jnp.full(num_sources, 1 / num_sources)

    def update(self, state: PerSource, loss: PerSource, count: PerSource) -> PerSource:
        del count
        excess = jnp.maximum(loss - jnp.asarray(self.reference or 0.0), 0)
        chosen = jax.nn.softmax(jnp.log(state) + self.rate * excess)
        return (1 - self.smoothing) * chosen + self.smoothing / len(state)

    def weights(self, state: PerSource) -> PerSource:
        return state
