"""Look-up in runs: one run of each source after the other, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from datamix.mixing.periods import Runs
from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import RepeatingLookup, check_counts, periods_of
from datamix.pipeline.tables import choose, divided, interval_of
from datamix.rng.hash import Words


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, kw_only=True)
class RunsLookup(RepeatingLookup):
    """See `SlotLookup`.

    Attributes:
      ends: The slot right after each source's run, uint32 [num_stages, num_sources].
    """

    ends: Words

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """See `SlotLookup`."""
        runs = periods_of(stages, Runs)
        check_counts(plan, [run.lengths for run in runs], [run.length for run in runs])
        return cls(
            ends=np.stack([run.ends for run in runs]).astype(np.uint32),
            length=np.asarray([run.length for run in runs], np.uint32),
            quota=np.asarray([run.lengths for run in runs], np.uint32),
        )

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:  # noqa: ARG002
        """See `SlotLookup`."""
        passed, slot = divided(cursor.slot + ahead, choose(self.length, cursor.stage))
        ends = choose(self.ends, cursor.stage)
        source = interval_of(ends, slot)
        rank = slot - choose(jnp.concatenate([jnp.zeros(1, jnp.uint32), ends[:-1]]), source)
        return source, passed * choose(choose(self.quota, cursor.stage), source) + rank
