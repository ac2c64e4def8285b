"""The contract of a kind of period in the compiled program: its arrays, and the look-up in them, traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.errors import ConfigError
from datamix.mixing.periods import Carried, Period
from datamix.mixing.plan import Plan
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.tables import choose, divided
from datamix.rng.hash import Words

_CALL_RECORDS = 2**26  # upper bound on the records of one source in one call that passes many cycles


class SlotLookup(Protocol):
    """The periods of all stages of a plan, as arrays of a compiled program.

    An implementation is a frozen dataclass registered with JAX; what shapes the program is a static field of it. Every
    stage has its row in the arrays, and the arrays have the same shapes for every ratio.
    """

    @property
    def draws_records(self) -> bool:
        """Whether records are drawn with replacement, rather than gone through epoch by epoch; static."""
        ...

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """Lay out the periods of a plan for the device.

        Args:
          plan: The plan of the mix.
          stages: Its stages, the last one repeated until there are `plan.max_stages`.

        Raises:
          ConfigError: The numbers do not fit 32 bits.
        """
        ...

    @staticmethod
    def slot_at(period: Any, num_slots: int) -> tuple[int, list[int]]:
        """The place of a cursor after the first slots of a stage, with Python's integers: any number, exactly.

        Args:
          period: The period of the stage.
          num_slots: Slots of the stage before the cursor.

        Returns:
          The cursor's slot, and how often each source had been chosen when the cursor's cycle began.
        """
        ...

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Look up slots that follow on a cursor, within its stage.

        Args:
          cursor: Where the slots are counted from.
          ahead: Slots after the cursor, uint32 [count].
          here: Whether each of them is asked for, bool [count]; what is returned for the others does not matter.

        Returns:
          Source of each slot, and how many slots the source had before it since the cursor's cycle began, both
          uint32 [count].
        """
        ...

    def advance(
        self, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Move a cursor on, within its stage.

        Args:
          cursor: Where it stands.
          count: Slots to move on by, uint32 [].
          source: What `take` gave for these slots.
          here: What `take` was asked for.

        Returns:
          The cursor's next slot, uint32 [], and how many slots each source had between the beginnings of the two
          cycles, uint32 [num_sources].
        """
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class RepeatingLookup:
    """The part that the look-ups of all periods with cycles have in common.

    Attributes:
      length: Slots of a cycle of each stage's period, uint32 [num_stages].
      quota: Slots of each source in a cycle, uint32 [num_stages, num_sources].
    """

    length: Words
    quota: Words

    draws_records: ClassVar[bool] = False

    @staticmethod
    def slot_at(period: Period, num_slots: int) -> tuple[int, list[int]]:
        """See `SlotLookup`."""
        length = period.table.length if isinstance(period, Carried) else period.length
        assert length is not None
        slot = num_slots % length
        return slot, period.counts(num_slots - slot)

    def advance(
        self,
        cursor: Cursor,
        count: jax.Array,
        source: jax.Array,  # noqa: ARG002
        here: jax.Array,  # noqa: ARG002
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup`."""
        passed, slot = divided(cursor.slot + count, choose(self.length, cursor.stage))
        return slot, passed * choose(self.quota, cursor.stage)


def periods_of(stages: Sequence[Stage], *kinds: type[Any]) -> list[Any]:
    """The periods of stages, which are refused where some are of other kinds."""
    periods = [stage.period for stage in stages]
    same = [period for period in periods if isinstance(period, kinds)]
    if len(same) < len(periods):
        names = ", ".join(sorted({type(period).__name__ for period in periods}))
        raise ConfigError(f"the order gives periods of several kinds ({names}); let it give one kind for all stages.")
    return same


def check_counts(plan: Plan, quotas: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """Refuse a plan of which a count of one call, by the slots of a cycle of each stage, overflows 32 bits."""
    largest = max((max(quota) for quota in quotas), default=0)
    longest, counted = int(np.argmax(plan.epoch_records)), 2**32 - _CALL_RECORDS
    if plan.epoch_records[longest] >= counted:
        text = f"its epoch has {plan.epoch_records[longest]:,} records, and the pipeline counts to {counted:,}"
        mend = "Give it a limit, or divide it into several sources."
        raise ConfigError(text, key=f"source.{plan.names[longest]}", hint=mend)
    most = max(2 * (largest + 1) * plan.slot_records, _CALL_RECORDS) + plan.epoch_records[longest]
    if most >= 2**32 or max(lengths, default=0) >= 2**31:
        raise ConfigError(
            f"this mix passes {largest * plan.slot_records:,} records of one source in a cycle of its plan, more "
            "than the pipeline can count; use weights with fewer digits, or a smaller batch.size."
        )


def counted(cursor: Cursor, source: jax.Array, here: jax.Array) -> jax.Array:
    """How many of the slots that are `here` each source has, uint32 [num_sources]."""
    return jnp.zeros_like(cursor.offset).at[source].add(here.astype(jnp.uint32))


def rank_of(source: jax.Array) -> jax.Array:
    """The number of earlier slots that have the same source, uint32 [count]."""
    count = source.shape[0]
    order = jnp.argsort(source, stable=True)
    ordered = source[order]
    slot = jnp.arange(count, dtype=jnp.uint32)
    starts = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    begin = lax.cummax(jnp.where(starts, slot, 0))
    return jnp.zeros(count, jnp.uint32).at[order].set(slot - begin, unique_indices=True)
