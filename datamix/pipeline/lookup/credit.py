"""Look-up of slots under weights that change during a run: each slot goes to the source with the largest credit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor, Online
from datamix.rng.hash import Words

TOTAL = 2**24
"""The sum of the weights of all sources, which is the credit that a slot costs."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class CreditLookup:
    """See `SlotLookup`; the weights are part of the cursor, so that they may change with it.

    At every slot the credit of each source grows by its weight. The source with the largest credit, the first of those
    that tie, gets the slot and pays the sum of all weights. All numbers are integers, so that the order is the same on
    every device. Divided by that sum, the credit of a source is the number of slots by which it is behind the sum of
    its weights so far: at most 1 + ln S for S sources, whatever the weights (the worst ones reach
    1/2 + 1/3 + … + 1/S).

    Attributes:
      sources: The ids of the sources, uint32 [num_sources].
      shares: The shares at the beginning of the mix, float32 [num_sources].
    """

    sources: Words
    shares: Words

    draws_records: ClassVar[bool] = False

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage] = ()) -> Self:  # noqa: ARG003
        """See `SlotLookup`."""
        return cls(np.arange(len(plan.sizes), dtype=np.uint32), np.asarray(list(map(float, plan.shares)), np.float32))

    @staticmethod
    def slot_at(period: object, num_slots: int) -> tuple[int, list[int]]:
        """See `SlotLookup`; not possible here, because the slots depend on the losses so far."""
        raise NotImplementedError

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:  # noqa: ARG002
        """See `SlotLookup`."""
        assert cursor.online is not None
        weight, credit = cursor.online

        def pick(credit: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            credit = credit + weight
            source = jnp.argmax(credit).astype(jnp.uint32)
            return credit - jnp.where(self.sources == source, TOTAL, 0), source

        _, source = lax.scan(pick, credit, length=len(ahead), unroll=4)
        chosen = source[:, None] == self.sources
        before = jnp.cumsum(chosen, axis=0, dtype=jnp.uint32) - chosen
        return source, jnp.where(chosen, before, 0).sum(axis=1, dtype=jnp.uint32)

    def advance(
        self, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        del count
        return cursor.slot, ((source[:, None] == self.sources) & here[:, None]).sum(axis=0, dtype=jnp.uint32)


def settled(online: Online, count: jax.Array, counts: jax.Array) -> Online:
    """Update the credits after `count` slots, of which each source has had `counts`; int32 overflows cancel out."""
    paid = counts.astype(jnp.int32) * TOTAL
    return online._replace(credit=online.credit + count.astype(jnp.int32) * online.weight - paid)


def whole_weights(shares: jax.Array) -> jax.Array:
    """Weights that add up to `TOTAL`, in proportion to shares, int32 [num_sources]; -1 where the shares are invalid."""
    weights = jnp.floor(shares / shares.sum() * TOTAL).astype(jnp.int32)
    weights = weights.at[jnp.argmax(weights)].add(TOTAL - weights.sum())
    return jnp.where((shares >= 0).all() & (shares.sum() > 0) & jnp.isfinite(shares.sum()), weights, -1)
