"""The first step of the program: from a cursor to (source, epoch, record); the traced form of `datamix.mixing.plan`."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float32, UInt32

from datamix.errors import ConfigError
from datamix.mixing.locating import MOST_RECORDS
from datamix.mixing.loss_weights import inverse_shares
from datamix.mixing.plan import Plan
from datamix.mixing.sampling import ArrayOps, sample
from datamix.mixing.shuffle import ShuffleTables, permuted
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.lookup.base import SlotLookup
from datamix.pipeline.lookup.credit import settled
from datamix.pipeline.lookup.kinds import lookup_of
from datamix.pipeline.tables import choose, divided, look_up
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, draw, multiply_high

_NEVER = 2**63
_DEVICE = ArrayOps(choose, look_up, permute.permute_traced, jnp.where)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PlanArrays:
    """A plan, as arguments of a compiled program.

    Attributes:
      shuffle_kind: How records are shuffled within their source: "full", "window", "blocks" or "none"; static.
      slot_records: Records in a slot; static.
      slots: The periods of all stages.
      end: Slot at which each stage ends, high and low word, uint32 [num_stages, 2].
      base_epoch: Epoch of each source when the stage begins, uint32 [num_stages, num_sources].
      base_offset: Offset of each source in that epoch, uint32 [num_stages, num_sources].
      size: Records of an epoch of each source, uint32 [num_sources].
      tables: The tables of the shuffle.
      replacement_key: The key of draws with replacement: two words, uint32 [] each.
      loss_weight: Weight in the loss of each source's records, float32 [num_stages, num_sources], or [1, num_sources]
        if all stages have the same; None if there are none.
    """

    shuffle_kind: str = field(metadata={"static": True})
    slot_records: int = field(metadata={"static": True})
    slots: SlotLookup
    end: Words
    base_epoch: Words
    base_offset: Words
    size: Words
    tables: ShuffleTables
    replacement_key: KeyWords
    loss_weight: Words | None = None


class Located(NamedTuple):
    """Records to read.

    Attributes:
      source: Index of the source.
      epoch: The epoch of the source, counted from 0.
      record: Index of the record in its source.
      loss_weight: Weight in the loss; None if there are none.
      partner: The distance in rows to the record that each is paired with, modulo 2**32; None if no operator takes
        pairs.
    """

    source: UInt32[jax.Array, " count"]
    epoch: UInt32[jax.Array, " count"]
    record: UInt32[jax.Array, " count"]
    loss_weight: Float32[jax.Array, " count"] | None = None
    partner: UInt32[jax.Array, " count"] | None = None


Slots = tuple[jax.Array, jax.Array, jax.Array]
"""Source of each slot, its epoch when the cursor's cycle began, and the offset from there, uint32 [count] each."""

_Carry = tuple[jax.Array, Cursor, Slots]


def arrays_of(plan: Plan, loss_weight: Mapping[str, float] | str | None = None) -> PlanArrays:
    """Lay a plan out for the device, with weights in the loss by source, or a rule that derives them from shares.

    Raises:
      ConfigError: The plan's numbers do not fit 32 bits, or its periods are of a kind that has no look-up.
    """
    # Padded with copies of the last stage, which are never reached, so that shapes do not depend on the ratio.
    stages = [*plan.stages, *[plan.stages[-1]] * (plan.max_stages - len(plan.stages))]
    # Past the end a cursor continues with the last stage; only the iterator knows where the mix ends.
    ends = [stage.first + (stage.length or 0) for stage in plan.stages[:-1]]
    ends += [_NEVER] * (len(stages) - len(ends))
    sizes = _sizes(plan)
    base = [_epochs_and_offsets(stage.base, plan) for stage in stages]
    slots = lookup_of(stages[0].period).of(plan, stages)
    shuffle = plan.shuffle
    if slots.draws_records and not any(plan.sampling):
        shuffle = replace(shuffle, kind="none")
    weights: list[list[float]] | None = None
    if isinstance(loss_weight, Mapping):
        weights = [list(loss_weight.values())]
    elif loss_weight is not None:
        weights = [inverse_shares(plan.targets_of(stage)) for stage in stages]
    return PlanArrays(
        shuffle_kind=shuffle.kind,
        slot_records=plan.slot_records,
        slots=slots,
        end=np.asarray([[end >> 32, end % 2**32] for end in ends], np.uint32),
        base_epoch=np.stack([epoch for epoch, _ in base]),
        base_offset=np.stack([offset for _, offset in base]),
        size=np.asarray(sizes, np.uint32),
        tables=shuffle.tables,
        replacement_key=(np.uint32(plan.replacement_key[0]), np.uint32(plan.replacement_key[1])),
        loss_weight=None if weights is None else np.asarray(weights, np.float32),
    )


def cursor_at(plan: Plan, position: int) -> Cursor:
    """The cursor of a position, computed in Python's integers: exact for any position.

    Args:
      plan: The plan of the mix.
      position: Position in records, at the beginning of a slot.
    """
    number = position // plan.slot_records
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
    """Refuse a step at which no iterator can begin.

    Raises:
      ConfigError: It is negative or too large, or before the mix begins.
    """
    if not 0 <= step < MOST_RECORDS // batch_size:
        raise ConfigError(f"it is 0 or more, and less than {MOST_RECORDS // batch_size}", key="start", value=step)
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


def locate(plan: PlanArrays, cursor: Cursor, num_slots: int, count: jax.Array | None = None) -> tuple[Located, Cursor]:
    """The records of the next slots; `Plan.take`, traced.

    Args:
      plan: The plan of the mix.
      cursor: Where to begin.
      num_slots: How many slots; static.
      count: How many of them are wanted, uint32 []; None for all.

    Returns:
      `num_slots * plan.slot_records` records, of which those that are not wanted are arbitrary, and the cursor right
      after the wanted ones.
    """
    begin, slot_records = cursor.position, plan.slot_records
    ahead = jnp.arange(num_slots, dtype=jnp.uint32)
    wanted = jnp.uint32(num_slots) if count is None else count
    if len(plan.end) == 1:
        here = jnp.ones(num_slots, bool) if count is None else ahead < count
        source, epoch, offset = _take(plan, cursor, ahead, here)
        cursor = _advance(plan, cursor, wanted, source, here)
    else:
        cursor, (source, epoch, offset) = _take_through_stages(plan, cursor, ahead, wanted)
    if slot_records > 1:
        within = jnp.arange(slot_records, dtype=jnp.uint32)
        source, epoch = (jnp.repeat(values, slot_records) for values in (source, epoch))
        offset = (offset[:, None] + within).reshape(-1)
    passed, index = divided(offset, choose(plan.size, source))
    epoch = epoch + passed
    weight = None if plan.loss_weight is None else _loss_weight(plan, begin, source)
    return Located(source, epoch, _record(plan, begin, source, epoch, index), weight), cursor


def _take_through_stages(
    plan: PlanArrays, cursor: Cursor, slot: jax.Array, num_slots: jax.Array
) -> tuple[Cursor, Slots]:
    """`_take` from stage to stage: nearly always in one step."""
    zeros = jnp.zeros(len(slot), jnp.uint32)

    def is_unfinished(carry: _Carry) -> jax.Array:
        return carry[0] < num_slots

    def take_stage(carry: _Carry) -> _Carry:
        filled, cursor, before = carry
        count = jnp.minimum(_slots_left(plan, cursor), num_slots - filled)
        ahead = slot - filled  # wraps around, to large numbers, for the slots already filled
        here = ahead < count
        taken = _take(plan, cursor, jnp.where(here, ahead, 0), here)
        slots = jax.tree.map(lambda new, old: jnp.where(here, new, old), taken, before)
        return filled + count, _advance(plan, cursor, count, taken[0], here), slots

    _, cursor, slots = lax.while_loop(is_unfinished, take_stage, (jnp.uint32(0), cursor, (zeros, zeros, zeros)))
    return cursor, slots


def _take(plan: PlanArrays, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> Slots:
    """The slots at distances `ahead` from a cursor; arbitrary where `here` is false."""
    source, rank = plan.slots.take(cursor, ahead, here)
    used = rank * jnp.uint32(plan.slot_records)
    return source, choose(cursor.epoch, source), choose(cursor.offset, source) + used


def _advance(plan: PlanArrays, cursor: Cursor, count: jax.Array, source: jax.Array, here: jax.Array) -> Cursor:
    """The cursor `count` slots on, at most to the end of its stage."""
    low = cursor.position[1] + count
    high = cursor.position[0] + (low < cursor.position[1])
    slot, counts = plan.slots.advance(cursor, count, source, here)
    epochs, offset = divided(cursor.offset + counts * jnp.uint32(plan.slot_records), plan.size)
    epoch = cursor.epoch + epochs
    if len(plan.end) == 1:  # a single stage never ends
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


def _loss_weight(plan: PlanArrays, begin: jax.Array, source: jax.Array) -> jax.Array:
    """Weight in the loss of each record, by its stage and source; `begin` is the slot of the first."""
    weights = jnp.asarray(plan.loss_weight)
    end = jnp.asarray(plan.end)[: len(weights) - 1]
    low = end[:, 1] - begin[1]
    high = end[:, 0] - begin[0] - (end[:, 1] < begin[1])  # wraps around, beyond the end that is never reached
    left = jnp.where(high == 0, low, jnp.where(high <= jnp.uint32(_NEVER >> 32), jnp.uint32(2**32 - 1), jnp.uint32(0)))
    ahead = jnp.arange(len(source), dtype=jnp.uint32) // jnp.uint32(plan.slot_records)
    stage = jnp.searchsorted(left, ahead, side="right").astype(jnp.uint32)
    return choose(weights.reshape(-1), stage * jnp.uint32(weights.shape[1]) + source)


def _record(plan: PlanArrays, begin: jax.Array, source: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """The record at each index of an epoch of a source; `begin` is the slot of the first, high and low word."""
    if plan.slots.draws_records:
        # Draws are counted in records, as in the plan: the 64-bit product of slot and slot_records, plus the row.
        slot_records = jnp.uint32(plan.slot_records)
        low = begin[1] * slot_records
        high = begin[0] * slot_records + multiply_high(begin[1], slot_records)
        row = low + jnp.arange(len(source), dtype=jnp.uint32)
        word = draw(plan.replacement_key, high + (row < low), row)
        record = jnp.asarray(multiply_high(word, choose(plan.size, source)))
    else:
        record = jnp.asarray(permuted(plan.shuffle_kind, plan.tables, _DEVICE, source, epoch, index))
    if plan.tables.samples is None:
        return record
    samples, keys, shuffled = plan.tables.samples, plan.tables.keys, plan.shuffle_kind != "none"
    return jnp.asarray(sample(samples, keys, _DEVICE, source, epoch, index, record, shuffled=shuffled))


def _sizes(plan: Plan) -> list[int]:
    """Records of an epoch of each source; at least one, to divide by."""
    return [max(size, 1) for size in plan.epoch_records]


def _epochs_and_offsets(counts: Sequence[int], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Epoch of each source and offset in it, uint32 [num_sources], after `counts` slots of each."""
    pairs = [divmod(n * plan.slot_records, size) for n, size in zip(counts, _sizes(plan), strict=True)]
    epoch, offset = np.asarray([(epoch % 2**32, offset) for epoch, offset in pairs], np.uint32).T
    return epoch, offset
