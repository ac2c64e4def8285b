"""Traced look-up of the swaps between the cycles of a table, see `datamix.mixing.periods.carried`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.mixing.periods import Carried
from datamix.mixing.stages import Stage
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.tables import choose, look_up
from datamix.rng.hash import Words, multiply_high

_NOWHERE = 2**31 - 1


class Swaps(NamedTuple):
    """The swaps of all stages, padded to as many as there are sources; the padding never takes place.

    Attributes:
      first: The slot at which each stage begins, high and low word, uint32 [num_stages, 2].
      rate: See `Carried`, high and low word, uint32 [num_stages, 2, num_sources].
      phase: See `Carried`, high and low word, uint32 [num_stages, 2, num_sources].
      place: The slot of each swap, uint32 [num_stages, num_sources].
      taker: The source that gets the slot, uint32 [num_stages, num_sources].
      taker_rank: How many earlier slots of the table belong to that source, uint32 [num_stages, num_sources].
      swap: The two swaps of each source, uint32 [num_stages, 2, num_sources].
      gain: The slots that a source gains by each, 1, -1 or 0 modulo 2^32, uint32 [num_stages, 2, num_sources].
    """

    first: Words
    rate: Words
    phase: Words
    place: Words
    taker: Words
    taker_rank: Words
    swap: Words
    gain: Words

    @classmethod
    def of(cls, stages: Sequence[Stage], num_sources: int) -> Self:
        """Lay out the swaps of some stages; a stage without swaps has padding alone."""
        rows = [_rows(stage, num_sources) for stage in stages]
        return cls(*(np.stack(column) for column in zip(*rows, strict=True)))

    def take(
        self,
        swaps: jax.Array,
        cursor: Cursor,
        length: jax.Array,
        quota: jax.Array,
        here: jax.Array,
        passed: jax.Array,
        slot: jax.Array,
        source: jax.Array,
        rank: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """See `SlotLookup.take`.

        Args:
          swaps: Whether each swap takes place, see `taking_place`, bool [num_cycles, num_swaps].
          cursor: The cursor from which the slots are counted.
          length: The number of slots in the table, uint32 [].
          quota: The slots of each source in the table, uint32 [num_sources].
          here: Whether each slot is requested, bool [count].
          passed: The number of cycles from the cursor's to that of each slot, uint32 [count].
          slot: The slot within its cycle, uint32 [count].
          source: The source of the slot in the table, uint32 [count].
          rank: How many earlier slots of the table have the same source, uint32 [count].
        """
        count, sources = len(slot), len(quota)
        cycles = jnp.arange(len(swaps), dtype=jnp.uint32)[:, None]
        # The index of each swapped slot in the call; far out of range for slots outside it.
        place = cycles * length + choose(self.place, cursor.stage) - cursor.slot
        begin = jnp.uint32(0) if len(self.first) == 1 else jnp.argmax(here).astype(jnp.uint32)
        index = jnp.where(swaps & (place < count), place + begin, jnp.uint32(count)).reshape(-1)

        def swapped(values: jax.Array, new: Words) -> jax.Array:
            new = jnp.broadcast_to(choose(new, cursor.stage), swaps.shape).reshape(-1)
            return jnp.asarray(values.at[index].set(new, mode="drop"))

        source, rank = swapped(source, self.taker), swapped(rank, self.taker_rank)
        gains, later = self._gains(cursor, swaps)
        net = gains.sum(1, dtype=jnp.uint32)  # every sum needs the dtype: with 64 bits enabled, JAX would widen it
        before = cycles * quota + jnp.cumsum(net, axis=0, dtype=jnp.uint32) - net
        # One row for each cycle and source, computed before the look-up: one gather compiles faster than three into
        # which XLA fuses the computation.
        rows = jnp.concatenate([before[:, None], later], axis=1).transpose(0, 2, 1).reshape(-1, 3)
        row = look_up(lax.optimization_barrier(rows), passed * jnp.uint32(sources) + source)
        number = row[:, 0] + rank
        for side in (1, 2):
            sign = jnp.uint32(1) - (row[:, side] & jnp.uint32(1)) * jnp.uint32(2)
            number += jnp.where(slot > row[:, side] >> jnp.uint32(1), sign, jnp.uint32(0))
        return source, number

    def gained(self, swaps: jax.Array, cursor: Cursor, passed: jax.Array) -> jax.Array:
        """The slots that each source gains by swaps in the first `passed` cycles, uint32 [num_sources]."""
        gains, _ = self._gains(cursor, swaps)
        done = jnp.arange(len(gains), dtype=jnp.uint32) < passed
        return jnp.sum(gains.sum(1, dtype=jnp.uint32) * done[:, None].astype(jnp.uint32), axis=0, dtype=jnp.uint32)

    def taking_place(self, cursor: Cursor, length: jax.Array, num_cycles: int) -> jax.Array:
        """Whether each swap takes place in each cycle, beginning with the cursor's, bool [num_cycles, num_swaps]."""
        first = choose(self.first, cursor.stage)
        low = cursor.position[1] - first[1]
        high = cursor.position[0] - first[0] - (cursor.position[1] < first[1])
        high, low = _quotient(high, low, length)
        cycle = low + jnp.arange(num_cycles, dtype=jnp.uint32)[:, None]
        high = high + (cycle < low)
        rate, phase = choose(self.rate, cursor.stage), choose(self.phase, cursor.stage)
        before_low = rate[1] * cycle + phase[1]
        before_high = multiply_high(rate[1], cycle) + rate[0] * cycle + rate[1] * high + phase[0]
        before_high += before_low < phase[1]
        after_low = before_low + rate[1]
        after_high = before_high + rate[0] + (after_low < rate[1])
        return jnp.asarray((after_high < before_high) | ((after_high == before_high) & (after_low < before_low)))

    def _gains(self, cursor: Cursor, swaps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The slots that each source gains by its two swaps in each cycle, and the slots of these swaps.

        Returns:
          The gain, modulo 2^32, and twice the slot, plus 1 where the source loses it; uint32 [num_cycles, 2,
          num_sources] each. The slot is past every table where the swap does not take place.
        """
        swap, gain = choose(self.swap, cursor.stage), choose(self.gain, cursor.stage)
        takes_place = swaps[:, swap]
        place = choose(self.place, cursor.stage)[swap]
        at = jnp.where(takes_place, place, jnp.uint32(_NOWHERE)) * jnp.uint32(2) + (gain >> jnp.uint32(31))
        return gain * takes_place.astype(jnp.uint32), jnp.where(gain == 0, jnp.uint32(2 * _NOWHERE), at)


def _quotient(high: jax.Array, low: jax.Array, divisor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Divide a number of two words by a divisor below 2^24, byte by byte; the quotient has two words."""
    eight = jnp.uint32(8)

    def divide_byte(_: int, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        # The quotient is shifted in at the right as the number is shifted out at the left.
        high, low, rest = state
        rest = (rest << eight) | (high >> jnp.uint32(24))
        digit = rest // divisor
        return (high << eight) | (low >> jnp.uint32(24)), (low << eight) | digit, rest - digit * divisor

    # A loop compiles in a quarter of the time of eight unrolled rounds.
    high, low, _ = lax.fori_loop(0, 8, divide_byte, (high, low, jnp.zeros_like(low)))
    return high, low


def _rows(stage: Stage, num_sources: int) -> Any:
    """The swaps of one stage, in the order of the fields of `Swaps`."""

    def words(numbers: np.ndarray) -> np.ndarray:
        padded = np.pad(numbers, (0, num_sources - len(numbers)))
        return np.stack([padded >> np.uint64(32), padded]).astype(np.uint32)

    def padded(numbers: np.ndarray) -> np.ndarray:
        return np.pad(numbers, (0, num_sources - len(numbers))).astype(np.uint32)

    first = np.asarray([stage.first >> 32, stage.first % 2**32], np.uint32)
    period = stage.period
    if not isinstance(period, Carried):
        row, pair = np.zeros(num_sources, np.uint32), np.zeros((2, num_sources), np.uint32)
        return first, pair, pair, row, row, row, pair, pair
    swap, gain = period.sides
    return (
        first,
        words(period.rate),
        words(period.phase),
        *(padded(values) for values in (period.place, period.taker, period.taker_rank)),
        np.where(gain, swap, 0).astype(np.uint32),
        gain.astype(np.uint32),
    )
