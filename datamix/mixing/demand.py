"""The demand of one stage: the input of an order, which fills the stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from datamix.mixing.groups import Group
from datamix.mixing.record_lengths import RecordLengths
from datamix.mixing.table_fills import TABLE_SLOTS, Shares


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The demand of one stage: the sources that take part, their shares, and the state of the mix around the stage.

    `shares`, `active`, `remaining` and `num_sources` are enough for most orders. A source is identified by its index in
    `names`, its source id. An order is a pure function of the demand; one that draws takes its key from `seed` (see
    `datamix.rng.hash.key_for`).

    Attributes:
      group: The sources and the groups of sources, each with its share of the group it belongs to.
      remaining: The number of slots that each source can still fill until it is exhausted, shape [num_sources].
      names: The names of the sources, in the order of their ids; empty where they have none.
      first: The slot of the whole mix at which the stage begins.
      seed: The seed of the mix.
      base: The number of slots that each source has before the stage, shape [num_sources]; empty where none has any.
      last: The source of the slot right before the stage; None at the beginning of the mix.
      horizon: An upper bound on the slots of the stage, if every source stays within one slot of its share, beginning
        with its credit; None where the stage has no end.
      credit_horizon: The same, if every source stays as near to the sum of its shares as under `largest_credit`.
      most: An upper bound on the slots of the whole mix, whatever the weights; None where there is none.
      batch_size: The number of records in a batch.
      slot_records: The number of records in a slot: 1, or the batch size where whole batches of one source are mixed.
      table_slots: The largest length of a table; a longer cycle is cut there.
      scheduled: Whether the shares of the mix change with the step.
      credit: How far each source is behind the sum of its shares, in slots or, with `lengths`, in their unit, rounded
        to 2^-24; shape [num_sources], or empty where none is.
      capped: Whether the slots of some sources are limited, so that a source without a share may have had its last one.
      lengths: The lengths of the records where their sums follow the ratio; None where the number of records does.
    """

    group: Group
    remaining: Sequence[int]
    names: tuple[str, ...] = ()
    first: int = 0
    seed: int = 0
    base: Sequence[int] = ()
    last: int | None = None
    horizon: int | None = None
    credit_horizon: int | None = None
    most: int | None = None
    batch_size: int = 1
    slot_records: int = 1
    table_slots: int = TABLE_SLOTS
    scheduled: bool = False
    credit: Sequence[Fraction] = ()
    capped: bool = False
    lengths: RecordLengths | None = None

    @property
    def num_sources(self) -> int:
        """The number of sources of the mix, with or without a share."""
        return len(self.remaining)

    @cached_property
    def shares(self) -> Shares:
        """The exact share of each source in the slots, shape [num_sources]; 0 for one that does not take part."""
        shares = self.group.leaf_shares()
        if self.lengths is None:
            return shares
        slots = [share / mean for share, mean in zip(shares, self.lengths.mean, strict=True)]
        total = sum(slots)
        return [share / total for share in slots]

    @property
    def active(self) -> np.ndarray:
        """The ids of the sources that take part, ascending, int32 [num_active]."""
        return np.flatnonzero([bool(share) for share in self.shares]).astype(np.int32)

    def amount(self, source: int, count: int) -> int:
        """The amount in a source's first `count` slots: their number, or the summed length of their records."""
        return count if self.lengths is None else self.lengths.summed(source, count)
