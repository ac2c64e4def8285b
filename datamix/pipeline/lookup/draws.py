"""Look-up of slots whose sources are drawn independently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.periods import Draws
from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import check_counts, counted, periods_of, rank_of
from datamix.pipeline.tables import choose, interval_of
from datamix.rng.hash import KeyWords, Words, draw


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DrawsLookup:
    """See `SlotLookup`; draws have no cycle, and every slot advances the position from which the next are drawn.

    Attributes:
      thresholds: The upper end of each source's share of the range [0, 2^31], uint32 [num_stages, num_sources].
      key: The key of the draws, two words, uint32 [] each.
      draws_records: Whether the record within the source is drawn as well; static.
    """

    thresholds: Words
    key: KeyWords
    draws_records: bool = field(metadata={"static": True})

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """See `SlotLookup`."""
        draws = periods_of(stages, Draws)
        if max(plan.sizes) >= 2**31:
            text = "it takes sources of fewer than 2^31 records"
            raise ConfigError(text, key="mix", value="random", hint="Use mix=proportional with mix.window.")
        check_counts(plan, [], [])
        high, low = draws[0].key
        return cls(
            thresholds=np.stack([period.thresholds for period in draws]).astype(np.uint32),
            key=(np.uint32(high), np.uint32(low)),
            draws_records=draws[0].replacement,
        )

    @staticmethod
    def slot_at(period: Draws, num_slots: int) -> tuple[int, list[int]]:
        """See `SlotLookup`."""
        if period.replacement:
            # Count the slots of all sources, as `Draws.take` does.
            return 0, [num_slots] * len(period.thresholds)
        return 0, period.counts(num_slots)

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        low = cursor.position[1] + ahead
        high = cursor.position[0] + (low < cursor.position[1])
        word = draw(self.key, high, low) >> jnp.uint32(1)
        source = interval_of(choose(self.thresholds, cursor.stage), word)
        if self.draws_records:
            return source, ahead
        return source, rank_of(jnp.where(here, source, jnp.uint32(self.thresholds.shape[1])))

    def advance(
        self, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        if self.draws_records:
            return cursor.slot, jnp.full_like(cursor.offset, count)
        return cursor.slot, counted(cursor, source, here)
