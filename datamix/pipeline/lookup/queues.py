"""Look-up of slots that follow the lengths of the records, by a callback to the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from datamix.mixing.periods import Queues
from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import check_counts, counted, periods_of
from datamix.pipeline.tables import look_up
from datamix.pipeline.tokens import object_of, token_of
from datamix.rng.hash import Words


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class QueuesLookup:
    """See `SlotLookup`; there is no cycle, and every slot advances the position from which the next are looked up.

    The lengths of the records determine slots one by one. The host fills some 2^16 slots at a time, and the program
    requests the next ones from it by a callback.

    Attributes:
      token: The number that stands for the plan in callbacks, uint32 [].
    """

    token: Words

    draws_records: ClassVar[bool] = False

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """See `SlotLookup`."""
        periods_of(stages, Queues)
        check_counts(plan, [], [])
        return cls(np.uint32(token_of(plan)))

    @staticmethod
    def slot_at(period: Queues, num_slots: int) -> tuple[int, list[int]]:
        """See `SlotLookup`."""
        return 0, period.counts(num_slots)

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:  # noqa: ARG002
        """See `SlotLookup`."""
        count = len(ahead)
        words = jnp.concatenate([jnp.stack([jnp.uint32(self.token)]), jnp.asarray(cursor.position)])
        shapes = (jax.ShapeDtypeStruct((count,), jnp.uint32),) * 2
        source, rank = jax.pure_callback(partial(_slots, count), shapes, words, vmap_method="sequential")
        return look_up(source, ahead), look_up(rank, ahead)

    def advance(
        self,
        cursor: Cursor,
        count: jax.Array,  # noqa: ARG002
        source: jax.Array,
        here: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        return cursor.slot, counted(cursor, source, here)


def _slots(count: int, words: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The sources of the next slots, and how many of these slots each source has before, uint32 [count] each.

    Args:
      count: The number of slots.
      words: The token of a plan, and the high and the low word of the number of the first slot, uint32 [3].
    """
    token, high, low = np.asarray(words).tolist()
    plan: Plan = object_of(token)
    source, number = plan.slots((high << 32) + low, count)
    first = np.zeros(len(plan.names), np.int64)
    first[source[::-1]] = number[::-1]  # in reverse, so that the first slot of each source is written last
    return source.astype(np.uint32), (number - first[source]).astype(np.uint32)
