"""Look-up of slots that follow the lengths of the records, by a callback to the plan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.periods import Queues
from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import check_counts, counted, periods_of, rank_of
from datamix.pipeline.tables import look_up
from datamix.rng.hash import Words

_plans: WeakValueDictionary[int, Plan] = WeakValueDictionary()
_tokens = itertools.count(1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class QueuesLookup:
    """See `SlotLookup`; the cursor moves on with every slot.

    Lengths decide slot after slot, and the host fills some 2^16 at a time: the program asks it for the next ones.

    Attributes:
      token: The number of the plan, uint32 [].
      num_sources: The number of sources; static.
    """

    token: Words
    num_sources: int = field(metadata={"static": True})

    draws_records: ClassVar[bool] = False

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """See `SlotLookup`."""
        periods_of(stages, Queues)
        check_counts(plan, [], [])
        token = next(_tokens)
        _plans[token] = plan
        return cls(np.uint32(token), len(plan.names))

    @staticmethod
    def slot_at(period: Queues, num_slots: int) -> tuple[int, list[int]]:
        """See `SlotLookup`."""
        return 0, period.counts(num_slots)

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        count = len(ahead)
        words = jnp.concatenate([jnp.stack([jnp.uint32(self.token)]), jnp.asarray(cursor.position)])
        shape = jax.ShapeDtypeStruct((count,), jnp.uint32)
        sources: Any = jax.pure_callback(partial(_sources, count), shape, words, vmap_method="sequential")
        source = look_up(sources, ahead)
        return source, rank_of(jnp.where(here, source, jnp.uint32(self.num_sources)))

    def advance(
        self,
        cursor: Cursor,
        count: jax.Array,  # noqa: ARG002
        source: jax.Array,
        here: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        return cursor.slot, counted(cursor, source, here)


def _sources(count: int, words: jax.Array) -> np.ndarray:
    """The sources of the next slots, uint32 [count]; from the number of a plan, and of a slot its high and low word."""
    token, high, low = np.asarray(words).tolist()
    if (plan := _plans.get(token)) is None:
        raise ConfigError("the Pipeline whose mix this gives is gone; keep it as long as its pipeline.compiled.")
    return plan.slots((high << 32) + low, count)[0].astype(np.uint32)
