"""Look-up in tables of slots that repeat, with or without swaps between their cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import jax
import numpy as np

from datamix.mixing.carrying import LEAST_SLOTS
from datamix.mixing.periods import Carried, Table
from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.mixing.table_fills import TABLE_SLOTS
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import RepeatingLookup, check_counts, periods_of
from datamix.pipeline.lookup.carried import Swaps
from datamix.pipeline.tables import choose, divided, look_up
from datamix.rng.hash import Words


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, kw_only=True)
class TableLookup(RepeatingLookup):
    """See `SlotLookup`; the tables of all stages are concatenated.

    Attributes:
      source_of: The source of each slot, uint32 [capacity].
      rank_of: How many earlier slots of the same table have the same source, uint32 [capacity].
      begin: The index at which the table of each stage begins, uint32 [num_stages].
      swaps: The swaps between the cycles of the tables; None where the program needs none.
      least_slots: A lower bound on the slots of a cycle that repeats; static, as it bounds the cycles within a call.
    """

    source_of: Words
    rank_of: Words
    begin: Words
    swaps: Swaps | None
    least_slots: int = field(metadata={"static": True})

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """See `SlotLookup`."""
        periods: list[Table | Carried] = periods_of(stages, Table, Carried)
        tables = [period.table if isinstance(period, Carried) else period for period in periods]
        check_counts(plan, [table.quota.tolist() for table in tables], [table.length for table in tables])
        # Each table is cut to the length of its stage, except for the last, which may continue without end.
        used = [stage.length for stage in plan.stages[:-1]] + [None]
        source_of = [table.source_of[:length] for table, length in zip(tables, used, strict=False)]
        rank_of = [table.rank_of[:length] for table, length in zip(tables, used, strict=False)]
        begin = np.cumsum([0, *(len(part) for part in source_of[:-1])])
        # A single stage always has swaps, so that another ratio does not need another program.
        swaps = len(stages) == 1 or any(isinstance(period, Carried) for period in periods)
        repeated = [
            table.length
            for table, stage in zip(tables, stages, strict=True)
            if stage.length is None or stage.length > table.length
        ]
        capacity = TABLE_SLOTS << (len(stages) > 1) << (len(plan.phases) > 2)
        return cls(
            source_of=_packed(source_of, capacity),
            rank_of=_packed(rank_of, capacity),
            begin=np.pad(begin, (0, len(stages) - len(begin)), mode="edge").astype(np.uint32),
            length=np.asarray([table.length for table in tables], np.uint32),
            quota=np.stack([table.quota for table in tables]).astype(np.uint32),
            swaps=Swaps.of(stages, len(plan.names)) if swaps else None,
            # The same for all ratios, except where a user's order returns a shorter table.
            least_slots=min([LEAST_SLOTS, *(1 << (length.bit_length() - 1) for length in repeated)]),
        )

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        length, quota = choose(self.length, cursor.stage), choose(self.quota, cursor.stage)
        passed, slot = divided(cursor.slot + ahead, length)
        place = choose(self.begin, cursor.stage) + slot
        source, rank = look_up(self.source_of, place), look_up(self.rank_of, place)
        if self.swaps is None:
            return source, passed * choose(quota, source) + rank
        swaps = self.swaps.taking_place(cursor, length, self._num_cycles(len(slot)))
        return self.swaps.take(swaps, cursor, length, quota, here, passed, slot, source, rank)

    def advance(
        self, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        slot, counts = super().advance(cursor, count, source, here)
        if self.swaps is None:
            return slot, counts
        length = choose(self.length, cursor.stage)
        swaps = self.swaps.taking_place(cursor, length, self._num_cycles(len(source)))
        return slot, counts + self.swaps.gained(swaps, cursor, (cursor.slot + count) // length)

    def _num_cycles(self, count: int) -> int:
        """The largest number of cycles that `count` consecutive slots can touch."""
        return count // self.least_slots + 2


def _packed(tables: list[np.ndarray], capacity: int) -> np.ndarray:
    """Concatenate tables into an array of `capacity` slots or, if they need more, of the next power of two."""
    slots = np.concatenate(tables)
    packed = np.zeros(max(capacity, 1 << (len(slots) - 1).bit_length()), np.uint32)
    packed[: len(slots)] = slots
    return packed
