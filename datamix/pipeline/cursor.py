"""The cursor: a position in the mix that the compiled program reads, advances and returns."""

from __future__ import annotations

from typing import NamedTuple

from datamix.rng.hash import Words


class Online(NamedTuple):
    """The part of a cursor for weights that change during the mix; see `datamix.pipeline.lookup.credit`.

    Attributes:
      weight: Weight of each source, int32 [num_sources].
      credit: By how much each source is behind the sum of its weights, int32 [num_sources].
    """

    weight: Words
    credit: Words


class Cursor(NamedTuple):
    """A position in the mix.

    Slots (see `datamix.mixing.periods.base`) are counted in two 32-bit words, so that no 64-bit mode is needed. The
    position of each source when the current cycle began is kept as (epoch, offset), so that no counter grows without
    bound.

    Attributes:
      position: Number of the next slot in the mix, not of a record: high and low word, uint32 [2].
      stage: Index of the stage, uint32 [].
      slot: The next slot within the cycle of the stage's period, uint32 [].
      epoch: Epoch of each source when the cycle began, uint32 [num_sources].
      offset: Offset of each source in that epoch, in records, uint32 [num_sources].
      online: The weights and credits, if the weights change during the mix; otherwise None.
    """

    position: Words
    stage: Words
    slot: Words
    epoch: Words
    offset: Words
    online: Online | None = None
