"""The contract of a kind of period in the compiled program: its arrays, and the traced look-up in them."""

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

_CALL_RECORDS = 2**26  # an upper bound on the records of one source in a call that passes many cycles


class SlotLookup(Protocol):
    """The periods of all stages of a plan, as arrays of a compiled program.

    An implementation is a frozen dataclass registered with JAX; values that shape the program are its static fields.
    Every stage has its row in the arrays, and the arrays have the same shapes for every ratio.
    """

    @property
    def draws_records(self) -> bool:
        """Whether records are drawn with replacement, rather than given epoch by epoch; static."""
        ...

    @classmethod
    def of(cls, plan: Plan, stages: Sequence[Stage]) -> Self:
        """Lay out the periods of a plan for the device.

        Args:
          plan: The plan of the mix.
          stages: The stages of the plan, the last one repeated until there are `plan.max_stages`.

        Raises:
          ConfigError: The numbers do not fit 32 bits, or the stages have periods of several kinds.
        """
        ...

    @staticmethod
    def slot_at(period: Any, num_slots: int) -> tuple[int, list[int]]:
        """The slot of a cursor after the first slots of a stage, in Python's integers, which are exact for any number.

        Args:
          period: The period of the stage.
          num_slots: The number of slots of the stage before the cursor.

        Returns:
          The cursor's slot, and the number of slots that each source has before the beginning of the cursor's cycle.
        """
        ...

    def take(self, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Look up slots after a cursor, within its stage.

        Args:
          cursor: The cursor from which the slots are counted.
          ahead: The distance of each slot from the cursor, uint32 [count].
          here: Whether each slot is requested, bool [count]; the results for the others are arbitrary.

        Returns:
          The source of each slot, and how many slots the source has before it since the beginning of the cursor's
          cycle, both uint32 [count].
        """
        ...

    def advance(
        self, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Advance a cursor, within its stage.

        Args:
          cursor: The cursor before it is advanced.
          count: The number of slots to advance, uint32 [].
          source: The sources that `take` returned for these slots, uint32 [count].
          here: The slots that were requested from `take`, bool [count].

        Returns:
          The cursor's next slot, uint32 [], and the number of slots of each source between the beginnings of its old
          and its new cycle, uint32 [num_sources].
        """
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class RepeatingLookup:
    """The part common to the look-ups of all periods with cycles.

    Attributes:
      length: The number of slots in a cycle of each stage's period, uint32 [num_stages].
      quota: The number of slots of each source in a cycle, uint32 [num_stages, num_sources].
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
    """The periods of some stages.

    Raises:
      ConfigError: A period is of none of these kinds.
    """
    periods = [stage.period for stage in stages]
    same = [period for period in periods if isinstance(period, kinds)]
    if len(same) < len(periods):
        names = ", ".join(sorted({type(period).__name__ for period in periods}))
        raise ConfigError(f"the order gives periods of several kinds ({names}); let it give one kind for all stages.")
    return same


def check_counts(plan: Plan, quotas: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """Refuse a plan for which a count within one call would overflow 32 bits.

    Args:
      plan: The plan of the mix.
      quotas: The slots of each source in a cycle, for each stage; empty where the period has no cycle.
      lengths: The slots of a cycle, for each stage; empty where the period has no cycle.

    Raises:
      ConfigError: A source has too many records in an epoch or in a cycle, or a cycle has too many slots.
    """
    largest = max((max(quota) for quota in quotas), default=0)
    longest, limit = int(np.argmax(plan.epoch_records)), 2**32 - _CALL_RECORDS
    if plan.epoch_records[longest] >= limit:
        text = f"its epoch has {plan.epoch_records[longest]:,} records, and the pipeline counts to {limit:,}"
        mend = "Give it a limit, or divide it into several sources."
        raise ConfigError(text, key=f"source.{plan.names[longest]}", hint=mend)
    most = max(2 * (largest + 1) * plan.slot_records, _CALL_RECORDS) + plan.epoch_records[longest]
    if most >= 2**32 or max(lengths, default=0) >= 2**31:
        raise ConfigError(
            f"this mix passes {largest * plan.slot_records:,} records of one source in a cycle of its plan, more "
            "than the pipeline can count; use weights with fewer digits, or a smaller batch.size."
        )


def counted(cursor: Cursor, source: jax.Array, here: jax.Array) -> jax.Array:
    """The number of requested (`here`) slots of each source, uint32 [num_sources]."""
    return jnp.zeros_like(cursor.offset).at[source].add(here.astype(jnp.uint32))


def rank_of(source: jax.Array) -> jax.Array:
    """How many earlier slots have the same source, for each slot, uint32 [count]."""
    count = source.shape[0]
    order = jnp.argsort(source, stable=True)
    ordered = source[order]
    slot = jnp.arange(count, dtype=jnp.uint32)
    starts = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    begin = lax.cummax(jnp.where(starts, slot, 0))
    return jnp.zeros(count, jnp.uint32).at[order].set(slot - begin, unique_indices=True)
