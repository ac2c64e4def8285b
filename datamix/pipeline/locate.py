"""The first step of the program: from a cursor to (source, epoch, record); `datamix.mixing.plan`, traced."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import UInt32

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.sampling import Lookups, sample
from datamix.mixing.shuffle import ShuffleTables, place
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import SlotLookup
from datamix.pipeline.lookup.credit import settled
from datamix.pipeline.lookup.kinds import lookup_of
from datamix.pipeline.tables import choose, divided, look_up
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, draw, multiply_high

_NEVER = 2**63
_DEVICE = Lookups(choose, look_up, permute.permute_traced, jnp.where)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PlanArrays:
    """A plan, as arguments of a compiled program.

    Attributes:
      shuffle: How records are shuffled within their source: "full", "window", "blocks" or "none"; static.
      records_per_slot: Records that a slot stands for; static.
      slots: The periods of all stages.
      end: Slot at which each stage ends, high and low word, uint32 [num_stages, 2].
      base_epoch: Epoch of each source when the stage begins, uint32 [num_stages, num_sources].
      base_offset: Offset of each source in that epoch, uint32 [num_stages, num_sources].
      size: Records of an epoch of each source, uint32 [num_sources].
      tables: What the shuffle looks up.
      replacement_key: Two words, uint32 [] each.
    """

    shuffle: str = field(metadata={"static": True})
    records_per_slot: int = field(metadata={"static": True})
    slots: SlotLookup
    end: Words
    base_epoch: Words
    base_offset: Words
    size: Words
    tables: ShuffleTables
    replacement_key: KeyWords


class Located(NamedTuple):
    """Records to read.

    Attributes:
      source: Index of the source.
      epoch: How often the source had been gone through before.
      record: Index of the record in its source.
    """

    source: UInt32[jax.Array, " count"]
    epoch: UInt32[jax.Array, " count"]
    record: UInt32[jax.Array, " count"]


Slots = tuple[jax.Array, jax.Array, jax.Array]
"""Source of each slot, its epoch when the cursor's period began, and the offset from there, uint32 [count] each."""

_Carry = tuple[jax.Array, Cursor, Slots]


def arrays_of(plan: Plan) -> PlanArrays:
    """Lay a plan out for the device.

    Raises:
      ConfigError: The plan's numbers do not fit 32 bits, or its periods are of a kind that has no look-up.
    """
    # As many stages for every ratio: the last one is there again, and never reached.
    stages = [*plan.stages, *[plan.stages[-1]] * (plan.max_stages - len(plan.stages))]
    # Past the end a cursor goes on with the last stage; where the mix ends is for its iterator to know.
    ends = [stage.first + (stage.length or 0) for stage in plan.stages[:-1]]
    ends += [_NEVER] * (len(stages) - len(ends))
    sizes = _sizes(plan)
    base = [_epochs_and_offsets(stage.base, plan) for stage in stages]
    slots = lookup_of(stages[0].period).of(plan, stages)
    shuffle = plan.record_order
    if slots.draws_records and not any(plan.sampling):
        shuffle = replace(shuffle, kind="none")
    return PlanArrays(
        shuffle=shuffle.kind,
        records_per_slot=plan.batch_records,
        slots=slots,
        end=np.asarray([[end >> 32, end % 2**32] for end in ends], np.uint32),
        base_epoch=np.stack([epoch for epoch, _ in base]),
        base_offset=np.stack([offset for _, offset in base]),
        size=np.asarray(sizes, np.uint32),
        tables=shuffle.tables,
        replacement_key=(np.uint32(plan.replacement_key[0]), np.uint32(plan.replacement_key[1])),
    )


def cursor_at(plan: Plan, position: int) -> Cursor:
    """The cursor of a position, with Python's integers: any position, exactly.

    Args:
      plan: The plan of the mix.
      position: Position in records, at the beginning of a slot.
    """
    number = position // plan.batch_records
    index = max(i for i, stage in enumerate(plan.stages) if stage.first <= number)
    stage = plan.stages[index]
    slot, counts = lookup_of(stage.period).slot_at(stage.period, number - stage.first)
    epoch, offset = _epochs_and_offsets([base + n for base, n in zip(stage.base, counts, strict=True)], plan)
    return Cursor(
        position=np.asarray([(number >> 32) % 2**32, number % 2**32], np.uint32),
        stage=np.uint32(index),
        slot=np.uint32(slot),
        epoch=epoch,
        offset=offset,
    )


def check_start(plan: Plan, step: int, batch_size: int) -> None:
    """Refuse a step with which no batches begin.

    Raises:
      ConfigError: It is negative, or before the mix begins.
    """
    if step < 0:
        raise ConfigError("it is 0 or more", key="start", value=step)
    if step * batch_size < plan.begin:
        text = f"it is {plan.begin // batch_size} or more, where this mix goes on with another one"
        raise ConfigError(text, key="start", value=step)


def start_at(plan: Plan, step: int, batch_size: int) -> Cursor:
    """The cursor before the batch at `step`, on the device.

    Raises:
      ConfigError: See `check_start`.
    """
    step = operator.index(step)
    check_start(plan, step, batch_size)
    cursor: Cursor = jax.device_put(cursor_at(plan, step * batch_size))
    return cursor


def locate(plan: PlanArrays, cursor: Cursor, num_slots: int) -> tuple[Located, Cursor]:
    """The records of the next slots; `Plan.take`, traced.

    Args:
      plan: The plan of the mix.
      cursor: Where to begin.
      num_slots: How many slots; static.

    Returns:
      `num_slots * plan.records_per_slot` records, and the cursor right after them.
    """
    begin, per_slot = cursor.position, plan.records_per_slot
    ahead = jnp.arange(num_slots, dtype=jnp.uint32)
    if len(plan.end) == 1:
        here, count = jnp.ones(num_slots, bool), jnp.uint32(num_slots)
        source, epoch, offset = _take(plan, cursor, ahead, here)
        cursor = _advance(plan, cursor, count, source, here)
    else:
        cursor, (source, epoch, offset) = _take_through_stages(plan, cursor, ahead)
    if per_slot > 1:
        within = jnp.arange(per_slot, dtype=jnp.uint32)
        source, epoch = (jnp.repeat(values, per_slot) for values in (source, epoch))
        offset = (offset[:, None] + within).reshape(-1)
    passed, index = divided(offset, choose(plan.size, source))
    epoch = epoch + passed
    return Located(source, epoch, _record(plan, begin, source, epoch, index)), cursor


def _take_through_stages(plan: PlanArrays, cursor: Cursor, slot: jax.Array) -> tuple[Cursor, Slots]:
    """`_take` from stage to stage: nearly always in one step."""
    num_slots = len(slot)
    zeros = jnp.zeros(num_slots, jnp.uint32)

    def is_unfinished(carry: _Carry) -> jax.Array:
        return carry[0] < num_slots

    def take_stage(carry: _Carry) -> _Carry:
        filled, cursor, before = carry
        count = jnp.minimum(_slots_left(plan, cursor), jnp.uint32(num_slots) - filled)
        ahead = slot - filled  # wraps round, to large numbers, for the slots already filled
        here = ahead < count
        taken = _take(plan, cursor, jnp.where(here, ahead, 0), here)
        slots = jax.tree.map(lambda new, old: jnp.where(here, new, old), taken, before)
        return filled + count, _advance(plan, cursor, count, taken[0], here), slots

    _, cursor, slots = lax.while_loop(is_unfinished, take_stage, (jnp.uint32(0), cursor, (zeros, zeros, zeros)))
    return cursor, slots


def _take(plan: PlanArrays, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> Slots:
    """The slots `ahead` of a cursor, where they are `here`."""
    source, rank = plan.slots.take(cursor, ahead, here)
    used = rank * jnp.uint32(plan.records_per_slot)
    return source, choose(cursor.epoch, source), choose(cursor.offset, source) + used


def _advance(plan: PlanArrays, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array) -> Cursor:
    """The cursor `count` slots on, at most to the end of its stage."""
    low = cursor.position[1] + count
    high = cursor.position[0] + (low < cursor.position[1])
    slot, counts = plan.slots.advance(cursor, count, source, here)
    epochs, offset = divided(cursor.offset + counts * jnp.uint32(plan.records_per_slot), plan.size)
    epoch = cursor.epoch + epochs
    if len(plan.end) == 1:  # which never ends
        online = None if cursor.online is None else settled(cursor.online, count, counts)
        return Cursor(jnp.stack([high, low]), cursor.stage, slot, epoch, offset, online)
    end = choose(plan.end, cursor.stage)
    over = (high == end[0]) & (low == end[1])
    stage = cursor.stage + over
    return Cursor(
        position=jnp.stack([high, low]),
        stage=stage,
        slot=jnp.where(over, 0, slot),
        epoch=jnp.where(over, choose(plan.base_epoch, stage), epoch),
        offset=jnp.where(over, choose(plan.base_offset, stage), offset),
    )


def _slots_left(plan: PlanArrays, cursor: Cursor) -> jax.Array:
    """Slots to the end of the stage, 2^32 - 1 at most."""
    end = choose(plan.end, cursor.stage)
    low = end[1] - cursor.position[1]
    high = end[0] - cursor.position[0] - (end[1] < cursor.position[1])
    return jnp.where(high > 0, jnp.uint32(2**32 - 1), low)


def _record(plan: PlanArrays, begin: jax.Array, source: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """Record of each index in the epochs of the sources; `begin` is the slot of the first, high and low word."""
    if plan.slots.draws_records:
        # Counted in records, like the plan's: the 64-bit product of slot and records, then the row.
        per_slot = jnp.uint32(plan.records_per_slot)
        low = begin[1] * per_slot
        high = begin[0] * per_slot + multiply_high(begin[1], per_slot)
        row = low + jnp.arange(len(source), dtype=jnp.uint32)
        word = draw(plan.replacement_key, high + (row < low), row)
        record = jnp.asarray(multiply_high(word, choose(plan.size, source)))
    else:
        record = jnp.asarray(place(plan.shuffle, plan.tables, _DEVICE, source, epoch, index))
    if plan.tables.samples is None:
        return record
    samples, keys, shuffled = plan.tables.samples, plan.tables.keys, plan.shuffle != "none"
    return jnp.asarray(sample(samples, keys, _DEVICE, source, epoch, index, record, shuffled=shuffled))


def _sizes(plan: Plan) -> list[int]:
    """Records of an epoch of each source; one where there are none, as a divisor."""
    return [max(size, 1) for size in plan.epoch_records]


def _epochs_and_offsets(counts: Sequence[int], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Epoch of each source and offset in it, uint32 [num_sources], after so many slots of it."""
    pairs = [divmod(n * plan.batch_records, size) for n, size in zip(counts, _sizes(plan), strict=True)]
    epoch, offset = np.asarray([(epoch % 2**32, offset) for epoch, offset in pairs], np.uint32).T
    return epoch, offset
