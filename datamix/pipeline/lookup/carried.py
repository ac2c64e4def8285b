"""Swaps of slots between the cycles of a table; `datamix.mixing.periods.carried`, traced."""

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
    """The swaps of all stages: as many as there are sources, most of a plan of tables never taking place.

    Attributes:
      first: Slot at which each stage begins, high and low word, uint32 [num_stages, 2].
      rate: See `Carried`, high and low word, uint32 [num_stages, 2, num_sources].
      phase: See `Carried`, the same.
      place: Slot that changes its source, uint32 [num_stages, num_sources].
      taker: Source that it is given to, uint32 [num_stages, num_sources].
      taker_rank: How many earlier slots of the table belong to that source, uint32 [num_stages, num_sources].
      swap: The two swaps of each source, uint32 [num_stages, 2, num_sources].
      gain: What it gains by them, 1, -1 or 0 modulo 2^32, uint32 [num_stages, 2, num_sources].
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
        """Lay out the swaps of some stages."""
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
          swaps: Those that take place.
          cursor: Where the slots are counted from.
          length: Slots of the table.
          quota: Slots of each source in it, uint32 [num_sources].
          here: Whether each slot is asked for, bool [count].
          passed: Cycles between the cursor's and that of each slot, uint32 [count].
          slot: The slot in its cycle.
          source: What stands there in the table, uint32 [count].
          rank: How many earlier slots of the table have the same source, uint32 [count].
        """
        count, sources = len(slot), len(quota)
        cycles = jnp.arange(len(swaps), dtype=jnp.uint32)[:, None]
        # Where in the call each swapped slot lies; far outside for those that do not.
        place = cycles * length + choose(self.place, cursor.stage) - cursor.slot
        begin = jnp.uint32(0) if len(self.first) == 1 else jnp.argmax(here).astype(jnp.uint32)
        index = jnp.where(swaps & (place < count), place + begin, jnp.uint32(count)).reshape(-1)

        def swapped(values: jax.Array, new: Words) -> jax.Array:
            new = jnp.broadcast_to(choose(new, cursor.stage), swaps.shape).reshape(-1)
            return jnp.asarray(values.at[index].set(new, mode="drop"))

        source, rank = swapped(source, self.taker), swapped(rank, self.taker_rank)
        gains, later = self._gains(cursor, swaps)
        each = gains.sum(1, dtype=jnp.uint32)  # as every sum: where JAX has 64 bits, it would be wider
        before = cycles * quota + jnp.cumsum(each, axis=0, dtype=jnp.uint32) - each
        # A row for each cycle and source, made before it is looked up: one gather compiles in less time than three that
        # each compute what they find.
        rows = jnp.concatenate([before[:, None], later], axis=1).transpose(0, 2, 1).reshape(-1, 3)
        row = look_up(lax.optimization_barrier(rows), passed * jnp.uint32(sources) + source)
        number = row[:, 0] + rank
        for side in (1, 2):
            sign = jnp.uint32(1) - (row[:, side] & jnp.uint32(1)) * jnp.uint32(2)
            number += jnp.where(slot > row[:, side] >> jnp.uint32(1), sign, jnp.uint32(0))
        return source, number

    def gained(self, swaps: jax.Array, cursor: Cursor, passed: jax.Array) -> jax.Array:
        """What each source gains by the swaps that take place in the cycles that are passed, uint32 [num_sources]."""
        gains, _ = self._gains(cursor, swaps)
        done = jnp.arange(len(gains), dtype=jnp.uint32) < passed
        return jnp.sum(gains.sum(1, dtype=jnp.uint32) * done[:, None].astype(jnp.uint32), axis=0, dtype=jnp.uint32)

    def taking_place(self, cursor: Cursor, length: jax.Array, num_cycles: int) -> jax.Array:
        """Whether each swap takes place in each cycle from the cursor's on, bool [num_cycles, num_swaps]."""
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
        """What each source gains by its two swaps in each cycle, and twice the slot at which, plus 1 where it loses.

        Both are uint32 [num_cycles, 2, num_sources]; the slot is past every table where the swap does not take place.
        """
        swap, gain = choose(self.swap, cursor.stage), choose(self.gain, cursor.stage)
        takes_place = swaps[:, swap]
        place = choose(self.place, cursor.stage)[swap]
        at = jnp.where(takes_place, place, jnp.uint32(_NOWHERE)) * jnp.uint32(2) + (gain >> jnp.uint32(31))
        return gain * takes_place.astype(jnp.uint32), jnp.where(gain == 0, jnp.uint32(2 * _NOWHERE), at)


def _quotient(high: jax.Array, low: jax.Array, divisor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A number of two words by one of less than 2^24, byte by byte, in two words."""
    eight = jnp.uint32(8)

    def divide_byte(_: int, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        # The quotient comes in from the right as the number goes out to the left.
        high, low, rest = state
        rest = (rest << eight) | (high >> jnp.uint32(24))
        digit = rest // divisor
        return (high << eight) | (low >> jnp.uint32(24)), (low << eight) | digit, rest - digit * divisor

    # A loop, which compiles in a quarter of the time of its eight rounds one after the other.
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
