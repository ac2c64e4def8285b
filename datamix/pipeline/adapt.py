"""Weights that follow training: a policy turns the losses of each window into the weights of the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from datamix import registry
from datamix.errors import ConfigError, first_line, unknown_source
from datamix.pipeline.cursor import Cursor, Online
from datamix.pipeline.locate import PlanArrays
from datamix.pipeline.lookup.credit import TOTAL, CreditLookup, whole_weights
from datamix.pipeline.policies import PerSource, Policy
from datamix.rng.hash import Words

_HALVINGS = 40


class AdaptState(NamedTuple):
    """The state of weights that follow training.

    Attributes:
      policy: The state of the policy.
      weights: The weights in effect, which add up to 1, shape [num_sources], like those below.
      known: The last known loss of each source, NaN before there is one.
      loss: The summed losses since the last update.
      terms: The number of terms in each of these sums.
      records: The number of records since the last update.
      step: The number of steps so far, uint32 [].
    """

    policy: Any
    weights: PerSource
    known: PerSource
    loss: PerSource
    terms: PerSource
    records: PerSource
    step: Words


@dataclass(frozen=True, kw_only=True)
class Adapt:
    """How weights follow training; hashable, as compiled code depends on it.

    Attributes:
      rule: The registered name of the policy.
      policy: The policy.
      every: Steps of a window, in which the weights are constant.
      floor: The least weight of a source.
      warmup: Steps in which the policy sees no loss and the weights stay those of the mix.
      max_epochs: The most epochs of a source; None for no limit.
      batch_size: Records in a batch.
    """

    rule: str
    policy: Policy
    every: int
    floor: float
    warmup: int
    max_epochs: int | None
    batch_size: int

    @classmethod
    def of(cls, rule: str, settings: Mapping[str, Any], names: Sequence[str], **fields: Any) -> Adapt:
        """Build the policy named `rule`, with its settings, for some sources.

        Raises:
          ConfigError: A setting is wrong, or the policy does not give one weight per source.
        """
        component = registry.lookup("policy", rule)
        registry.check_settings("adapt", component, settings)
        values = {key: _by_source(key, value, names) for key, value in settings.items()}
        adapt = cls(rule=rule, policy=component(**values), **fields)
        if adapt.floor * len(names) > 1:
            text = f"it is at most 1 / {len(names)}, for each of {len(names)} sources"
            raise ConfigError(text, key="adapt.floor", value=adapt.floor)
        adapt._check(len(names))
        return adapt

    def _check(self, num_sources: int) -> None:
        """Refuse a policy whose state changes shape, or that does not give one weight per source; computes nothing."""
        vector = jax.ShapeDtypeStruct((num_sources,), jnp.float32)
        try:
            state = jax.eval_shape(lambda: self.policy.init(num_sources))
            after = jax.eval_shape(self.policy.update, state, vector, vector)
            weights = jax.eval_shape(self.policy.weights, after)
        except (TypeError, ValueError, AttributeError) as error:
            text = f"it cannot be traced for {num_sources} sources: {first_line(error)}"
            raise ConfigError(text, key="adapt", value=self.rule) from error
        if jax.tree.map(lambda leaf: leaf.shape, state) != jax.tree.map(lambda leaf: leaf.shape, after):
            text = "update gives a state of other shapes than init; each array keeps its own"
            raise ConfigError(text, key="adapt", value=self.rule)
        if getattr(weights, "shape", None) != (num_sources,):
            raise ConfigError(f"weights gives {weights}, not one number for each source", key="adapt", value=self.rule)

    def check_steps(self, steps: int, epoch_records: Sequence[int]) -> None:
        """Refuse more steps than `max_epochs` of all sources have records for."""
        needed = -(-steps // self.every) * self.every * self.batch_size + len(epoch_records)
        if self.max_epochs is not None and needed > self.max_epochs * sum(epoch_records):
            enough = -(-needed // sum(epoch_records))
            text = f"{steps:,} steps of {self.batch_size} need some {needed:,} records, and all sources have "
            text += f"{sum(epoch_records):,} an epoch"
            mend = f"Make it {enough} or more, or train.steps smaller."
            raise ConfigError(text, key="adapt.max_epochs", value=self.max_epochs, hint=mend)

    @property
    def weighs_loss(self) -> bool:
        """Whether the weights apply to the losses, and the mix is unchanged."""
        return getattr(self.policy, "weighs_loss", False)

    def start(self, plan: PlanArrays, cursor: Cursor) -> tuple[AdaptState, Cursor]:
        """The state and the cursor before the first step."""
        shares = _shares(plan)
        zeros = jnp.zeros_like(shares)
        policy = jax.tree.map(jnp.asarray, self.policy.init(len(shares)))
        weights = jnp.full_like(shares, 1 / len(shares)) if self.weighs_loss else shares
        state = AdaptState(policy, weights, zeros * jnp.nan, zeros, zeros, zeros, jnp.uint32(0))
        online = Online(whole_weights(shares), jnp.zeros(len(shares), jnp.int32))
        return state, self._weighed(plan, cursor._replace(online=online), weights)

    def observe(
        self, state: AdaptState, cursor: Cursor, plan: PlanArrays, loss: PerSource, terms: PerSource, records: PerSource
    ) -> tuple[AdaptState, Cursor]:
        """Add the losses of a step, summed by source; at the end of a window, compute the weights of the next."""
        state = state._replace(
            loss=state.loss + loss, terms=state.terms + terms, records=state.records + records, step=state.step + 1
        )
        at_end = state.step % jnp.uint32(self.every) == 0
        after: tuple[AdaptState, Cursor] = lax.cond(
            at_end, lambda: self.turned(state, cursor, plan), lambda: (state, cursor)
        )
        return after

    def turned(self, state: AdaptState, cursor: Cursor, plan: PlanArrays) -> tuple[AdaptState, Cursor]:
        """The state and the cursor at the beginning of the next window."""
        known = jnp.where(state.terms > 0, state.loss / jnp.maximum(state.terms, 1), state.known)
        loss = jnp.where(jnp.isnan(known), jnp.nanmean(known), known)  # the mean for sources without a record so far
        learns = (state.step > self.warmup) & ~jnp.isnan(known).all()
        updated = self.policy.update(state.policy, loss, state.records)
        policy = jax.tree.map(lambda new, old: jnp.where(learns, new, old), updated, state.policy)
        chosen = self.policy.weights(policy)
        chosen = jnp.where((chosen >= 0).all(), chosen, jnp.nan)  # `whole_weights` marks NaN
        chosen = (1 - self.floor * len(loss)) * chosen / chosen.sum() + self.floor
        weights = jnp.where(learns, chosen, state.weights)
        zeros = jnp.zeros_like(loss)
        after = AdaptState(policy, weights, known, zeros, zeros, zeros, state.step)
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)  # a loop keeps dtypes
        return after, self._weighed(plan, cursor, after.weights)

    def _weighed(self, plan: PlanArrays, cursor: Cursor, weights: PerSource) -> Cursor:
        """The cursor with the weights of the next window."""
        assert cursor.online is not None
        weights = _shares(plan) if self.weighs_loss else weights
        slots = self.every * self.batch_size // plan.slot_records
        if self.max_epochs is not None:
            # A source gets the slots due by its weight and its credit, and less than one more.
            epochs = jnp.maximum(self.max_epochs - cursor.epoch.astype(jnp.int32) - 1, -1)
            remaining = epochs * jnp.asarray(plan.size, jnp.float32) + (plan.size - cursor.offset).astype(jnp.float32)
            least = remaining / plan.slot_records - cursor.online.credit / TOTAL - 1
            weights = _capped(weights / weights.sum(), jnp.maximum(least, 0) / slots)
        return cursor._replace(online=cursor.online._replace(weight=whole_weights(weights)))


def _shares(plan: PlanArrays) -> PerSource:
    """The shares with which the mix begins."""
    assert isinstance(plan.slots, CreditLookup)
    return jnp.asarray(plan.slots.shares)


def _capped(shares: PerSource, most: PerSource) -> PerSource:
    """Shares limited to `most`; those below their limit keep their ratio."""

    def halved(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        is_enough = jnp.minimum(shares * jnp.exp2(middle), most).sum() >= 1
        return jnp.where(is_enough, low, middle), jnp.where(is_enough, middle, high)

    _, exponent = lax.fori_loop(0, _HALVINGS, halved, (jnp.float32(0), jnp.float32(_HALVINGS)))
    capped = jnp.minimum(shares * jnp.exp2(exponent), most)
    return jnp.where((shares <= most).all(), shares, capped)


def _by_source(key: str, value: Any, names: Sequence[str]) -> Any:
    """A setting as a policy takes it: a mapping by source becomes a tuple with one number per source."""
    if not isinstance(value, Mapping):
        return tuple(value) if isinstance(value, list) else value
    for name, number in value.items():
        if name not in names:
            raise unknown_source(name, names, f"adapt.{key}.{name}")
        if not registry.is_kind(number, float):
            raise ConfigError("it is a number", key=f"adapt.{key}.{name}", value=number)
    return tuple(float(value.get(name, 0)) for name in names)
