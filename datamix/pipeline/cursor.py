"""The plan as arrays: the same look-up as `datamix.mixing.plan`, traced, from a cursor that never overflows.

Positions count seats (see `datamix.mixing.orders`) in two 32-bit words, so that no 64-bit mode is needed; within a
stage the cursor keeps where each source stood when the current period began, as (epoch, offset), so that no counter
grows without end.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.errors import ConfigError
from datamix.mixing.fills import TABLE_SLOTS
from datamix.mixing.periods import Draws, Runs, Table
from datamix.mixing.plan import Plan
from datamix.pipeline.tables import choose, look_up
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, draw, fold, multiply_high

_NEVER = 2**63
_CALL_RECORDS = 2**26  # more than a call passes of one source, where it passes many periods


class Cursor(NamedTuple):
    """A position in the mix.

    Attributes:
      seat: high and low word of the seat's number, uint32 [2].
      stage: index of the stage, uint32 [].
      slot: position in the stage's period, uint32 [].
      epoch: of each source when the period began, uint32 [num_sources].
      offset: of each source in that epoch, uint32 [num_sources].
    """

    seat: Words
    stage: Words
    slot: Words
    epoch: Words
    offset: Words


class Seats(NamedTuple):
    """Who sits where, of all stages; the two fields that an order does not use are empty.

    Attributes:
      source_of: source of each slot of each stage's table, one after the other, uint32 [capacity].
      rank_of: earlier slots of the same source in the same table, uint32 [capacity].
      begin: where each stage's table begins, uint32 [num_stages].
      ends: for runs, where each source's run ends; for draws, the upper threshold of each source,
        uint32 [num_stages, num_sources].
    """

    source_of: Words
    rank_of: Words
    begin: Words
    ends: Words


class PlanArrays(NamedTuple):
    """A plan, as arguments of a compiled program.

    Attributes:
      seats: of all stages.
      period: length of each stage's period, uint32 [num_stages].
      quota: records each source gives in a period, uint32 [num_stages, num_sources].
      end: seat at which each stage ends, high and low word, uint32 [num_stages, 2].
      base_epoch: epoch of each source when the stage begins, uint32 [num_stages, num_sources].
      base_offset: and its offset there, the same.
      size: of each source, uint32 [num_sources].
      grid: of the shuffle of each source, or of its whole windows, uint32 [num_sources] each.
      tail: of the shuffle of its last window, the same.
      window: records of a window, uint32 [].
      shuffle_keys: two words, uint32 [num_sources] each.
      draw_key: two words, uint32 [] each.
      replacement_key: the same.
    """

    seats: Seats
    period: Words
    quota: Words
    end: Words
    base_epoch: Words
    base_offset: Words
    size: Words
    grid: permute.Domain
    tail: permute.Domain
    window: Words
    shuffle_keys: KeyWords
    draw_key: KeyWords
    replacement_key: KeyWords


class Lookup(NamedTuple):
    """What of a plan shapes the program.

    Attributes:
      kind: "table", "runs" or "draws".
      shuffle: how records are shuffled within their source: "full", "window" or "none".
      replacement: whether they are drawn instead.
      unit: records a seat.
    """

    kind: str
    shuffle: str
    replacement: bool
    unit: int


Seated = tuple[jax.Array, jax.Array, jax.Array]
Carry = tuple[jax.Array, Cursor, Seated]


class Located(NamedTuple):
    """Records to fetch.

    Attributes:
      source: uint32 [count].
      epoch: uint32 [count].
      record: index in the source, uint32 [count].
    """

    source: jax.Array
    epoch: jax.Array
    record: jax.Array


def arrays_of(plan: Plan) -> tuple[Lookup, PlanArrays]:
    """Lay a plan out for the device.

    Raises:
      ConfigError: the plan's numbers do not fit 32 bits.
    """
    # As many stages for every ratio: the last one is there again, and never reached.
    stages = [*plan.stages, *[plan.stages[-1]] * (plan.max_stages - len(plan.stages))]
    periods = [stage.period for stage in stages]
    num_stages, num_sources, unit = len(stages), len(plan.names), plan.batch_records
    sizes = [max(size, 1) for size in plan.sizes]
    source_of = rank_of = begin = np.zeros(num_stages, np.uint32)
    ends = np.zeros((num_stages, 0), np.uint32)
    replacement, kind, draw_key = False, "table", (0, 0)
    lengths = [0] * num_stages
    first = periods[0]
    if isinstance(first, Table):
        lengths = [period.length for period in periods if isinstance(period, Table)]
        # Of the tables, what their stages last; only the last stage goes on for ever.
        used = [(stage.period, stage.length) for stage in plan.stages[:-1]] + [(plan.stages[-1].period, None)]
        tables = [(table, length) for table, length in used if isinstance(table, Table)]
        capacity = TABLE_SLOTS << (num_stages > 1) << (len(plan.phases) > 2)
        source_of = _packed([table.source_of[:length] for table, length in tables], capacity)
        rank_of = _packed([table.rank_of[:length] for table, length in tables], capacity)
        ends_at = np.cumsum([0, *(len(table.source_of[:length]) for table, length in tables[:-1])])
        begin = np.pad(ends_at, (0, num_stages - len(tables)), mode="edge").astype(np.uint32)
    elif isinstance(first, Runs):
        runs = [period for period in periods if isinstance(period, Runs)]
        kind, lengths = "runs", [run.length for run in runs]
        ends = np.stack([run.ends for run in runs])
    elif isinstance(first, Draws):
        kind, replacement, draw_key = "draws", first.replacement, first.key
        ends = np.stack([period.thresholds for period in periods if isinstance(period, Draws)])
    quotas = [period.counts(length) for period, length in zip(periods, lengths, strict=True)]
    largest = max((max(quota) for quota in quotas), default=0)
    if kind == "draws" and max(sizes) >= 2**31:
        raise ConfigError("mix=random takes sources of fewer than 2^31 records; use mix=proportional with mix.window.")
    if max(2 * (largest + 1) * unit, _CALL_RECORDS) + max(sizes) >= 2**32 or max(lengths) >= 2**31:
        raise ConfigError(
            f"this mix passes {largest * unit:,} records of one source in a period of its plan, more than the pipeline "
            "can count; use weights with fewer digits, or a smaller batch.size."
        )
    # Past the end a cursor goes on with the last stage; where the mix ends is for its reader to know.
    stage_ends = [stage.first + (stage.length or 0) for stage in plan.stages[:-1]]
    stage_ends += [_NEVER] * (num_stages - len(stage_ends))
    before = [[n * unit for n in stage.base] for stage in stages]
    shape = (num_stages, num_sources)
    return Lookup(kind, "none" if replacement else plan.shuffle, replacement, unit), PlanArrays(
        seats=Seats(source_of, rank_of, begin, ends.astype(np.uint32)),
        period=np.asarray(lengths, np.uint32),
        quota=_words([[n * unit for n in quota] for quota in quotas], shape),
        end=np.asarray([[end >> 32, end % 2**32] for end in stage_ends], np.uint32),
        base_epoch=_words([[n // size for n, size in zip(row, sizes, strict=True)] for row in before], shape),
        base_offset=_words([[n % size for n, size in zip(row, sizes, strict=True)] for row in before], shape),
        size=np.asarray(sizes, np.uint32),
        grid=plan.grid,
        tail=plan.tail,
        window=np.uint32(plan.shuffle_window),
        shuffle_keys=_columns(plan.shuffle_keys),
        draw_key=(np.uint32(draw_key[0]), np.uint32(draw_key[1])),
        replacement_key=(np.uint32(plan.replacement_key[0]), np.uint32(plan.replacement_key[1])),
    )


def cursor_at(plan: Plan, position: int) -> Cursor:
    """The cursor of a position, with Python's integers: any position, exactly.

    Args:
      plan: of the mix.
      position: in records, at the beginning of a seat.
    """
    seat = position // plan.batch_records
    index = max(i for i, stage in enumerate(plan.stages) if stage.first <= seat)
    stage = plan.stages[index]
    within = seat - stage.first
    slot = within % stage.period.length if isinstance(stage.period, Table | Runs) else 0
    drawn = isinstance(stage.period, Draws) and stage.period.replacement
    used = [within] * len(plan.sizes) if drawn else stage.period.counts(within - slot)
    numbers = [(base + n) * plan.batch_records for base, n in zip(stage.base, used, strict=True)]
    sizes = [max(size, 1) for size in plan.sizes]
    return Cursor(
        seat=np.asarray([(seat >> 32) % 2**32, seat % 2**32], np.uint32),
        stage=np.uint32(index),
        slot=np.uint32(slot),
        epoch=_words([[n // size for n, size in zip(numbers, sizes, strict=True)]], (len(sizes),)),
        offset=_words([[n % size for n, size in zip(numbers, sizes, strict=True)]], (len(sizes),)),
    )


def locate(lookup: Lookup, plan: PlanArrays, cursor: Cursor, num_seats: int) -> tuple[Located, Cursor]:
    """The records of the next seats; `plan.take`, traced.

    Args:
      lookup: static.
      plan: arrays.
      cursor: where to begin.
      num_seats: static.

    Returns:
      `num_seats * lookup.unit` records, and the cursor right after them.
    """
    begun = cursor.seat
    lane = jnp.arange(num_seats, dtype=jnp.uint32)
    if len(plan.period) == 1:
        here, taken = jnp.ones(num_seats, bool), jnp.uint32(num_seats)
        source, epoch, offset = _seats(lookup, plan, cursor, lane, here)
        cursor = _advance(lookup, plan, cursor, taken, source, here)
    else:
        cursor, (source, epoch, offset) = _through_stages(lookup, plan, cursor, lane)
    if lookup.unit > 1:
        within = jnp.arange(lookup.unit, dtype=jnp.uint32)
        source, epoch = (jnp.repeat(field, lookup.unit) for field in (source, epoch))
        offset = (offset[:, None] + within).reshape(-1)
    passed, index = _divided(offset, choose(plan.size, source))
    epoch = epoch + passed
    return Located(source, epoch, _record(lookup, plan, begun, source, epoch, index)), cursor


def _through_stages(lookup: Lookup, plan: PlanArrays, cursor: Cursor, lane: jax.Array) -> tuple[Cursor, Seated]:
    """`_seats` from stage to stage: nearly always in one turn."""
    num_seats = len(lane)
    zeros = jnp.zeros(num_seats, jnp.uint32)

    def unfinished(carry: Carry) -> jax.Array:
        return carry[0] < num_seats

    def turn(carry: Carry) -> Carry:
        filled, cursor, found = carry
        taken = jnp.minimum(_room(plan, cursor), jnp.uint32(num_seats) - filled)
        ahead = lane - filled  # wraps round, to large numbers, for the seats already filled
        here = ahead < taken
        own = _seats(lookup, plan, cursor, jnp.where(here, ahead, 0), here)
        found = jax.tree.map(lambda new, old: jnp.where(here, new, old), own, found)
        return filled + taken, _advance(lookup, plan, cursor, taken, own[0], here), found

    _, cursor, found = lax.while_loop(unfinished, turn, (jnp.uint32(0), cursor, (zeros, zeros, zeros)))
    return cursor, found


def _seats(lookup: Lookup, plan: PlanArrays, cursor: Cursor, ahead: jax.Array, here: jax.Array) -> Seated:
    """Source of each seat, the cursor's epoch of that source, and the offset from there, in records."""
    if lookup.kind == "draws":
        low = cursor.seat[1] + ahead
        high = cursor.seat[0] + (low < cursor.seat[1])
        word = draw(plan.draw_key, high, low) >> jnp.uint32(1)
        source = _searchsorted(choose(plan.seats.ends, cursor.stage), word)
        rank = ahead if lookup.replacement else _rank(jnp.where(here, source, jnp.uint32(plan.seats.ends.shape[1])))
        used = rank * jnp.uint32(lookup.unit)
    else:
        passed, slot = _divided(cursor.slot + ahead, choose(plan.period, cursor.stage))
        if lookup.kind == "table":
            place = choose(plan.seats.begin, cursor.stage) + slot
            source, within = look_up(plan.seats.source_of, place), look_up(plan.seats.rank_of, place)
        else:
            ends = choose(plan.seats.ends, cursor.stage)
            source = _searchsorted(ends, slot)
            within = slot - choose(jnp.concatenate([jnp.zeros(1, jnp.uint32), ends[:-1]]), source)
        used = passed * choose(choose(plan.quota, cursor.stage), source) + within * jnp.uint32(lookup.unit)
    return source, choose(cursor.epoch, source), choose(cursor.offset, source) + used


def _advance(
    lookup: Lookup, plan: PlanArrays, cursor: Cursor, taken: jax.Array, source: jax.Array, here: jax.Array
) -> Cursor:
    """The cursor `taken` seats on, at most to the end of its stage."""
    low = cursor.seat[1] + taken
    high = cursor.seat[0] + (low < cursor.seat[1])
    if lookup.replacement:
        slot = cursor.slot
        used = jnp.full_like(cursor.offset, taken * jnp.uint32(lookup.unit))
    elif lookup.kind == "draws":
        slot = cursor.slot
        used = jnp.zeros_like(cursor.offset).at[source].add(here.astype(jnp.uint32)) * jnp.uint32(lookup.unit)
    else:
        passed, slot = _divided(cursor.slot + taken, choose(plan.period, cursor.stage))
        used = passed * choose(plan.quota, cursor.stage)
    epochs, offset = _divided(cursor.offset + used, plan.size)
    epoch = cursor.epoch + epochs
    if len(plan.period) == 1:  # which never ends
        return Cursor(jnp.stack([high, low]), cursor.stage, slot, epoch, offset)
    end = choose(plan.end, cursor.stage)
    over = (high == end[0]) & (low == end[1])
    stage = cursor.stage + over
    return Cursor(
        seat=jnp.stack([high, low]),
        stage=stage,
        slot=jnp.where(over, 0, slot),
        epoch=jnp.where(over, choose(plan.base_epoch, stage), epoch),
        offset=jnp.where(over, choose(plan.base_offset, stage), offset),
    )


def _room(plan: PlanArrays, cursor: Cursor) -> jax.Array:
    """Seats to the end of the stage."""
    end = choose(plan.end, cursor.stage)
    low = end[1] - cursor.seat[1]
    high = end[0] - cursor.seat[0] - (end[1] < cursor.seat[1])
    return jnp.where(high > 0, jnp.uint32(2**32 - 1), low)


def _record(
    lookup: Lookup, plan: PlanArrays, begun: jax.Array, source: jax.Array, epoch: jax.Array, index: jax.Array
) -> jax.Array:
    if lookup.replacement:
        # Counted in records, like the plan's: the 64-bit product of seat and unit, then the lane.
        unit = jnp.uint32(lookup.unit)
        low = begun[1] * unit
        high = begun[0] * unit + multiply_high(begun[1], unit)
        lane = low + jnp.arange(len(source), dtype=jnp.uint32)
        word = draw(plan.replacement_key, high + (lane < low), lane)
        return jnp.asarray(multiply_high(word, choose(plan.size, source)))
    if lookup.shuffle == "none":
        return index
    grid = permute.Domain(*(choose(field, source) for field in plan.grid))
    first, second = plan.shuffle_keys
    key = fold((choose(first, source), choose(second, source)), epoch)
    if lookup.shuffle == "full":
        return jnp.asarray(permute.permute_traced(index, grid, key))
    block = index // plan.window
    last, tail = block == choose(plan.size, source) // plan.window, (choose(field, source) for field in plan.tail)
    grid = permute.Domain(*(jnp.where(last, short, whole) for short, whole in zip(tail, grid, strict=True)))
    begin = jnp.asarray(block * plan.window)
    return begin + jnp.asarray(permute.permute_traced(index - begin, grid, fold(key, block)))


def _divided(number: Words, divisor: Words) -> tuple[jax.Array, jax.Array]:
    """Quotient and remainder, uint32, by one division: the slow one of these operations."""
    quotient = number // divisor
    return quotient, number - quotient * divisor


def _searchsorted(ends: jax.Array, value: jax.Array) -> jax.Array:
    """How many of the ascending `ends` each value has reached, uint32 [count]."""
    # The last end is above every value, so it need not be looked at.
    return jnp.sum(value[:, None] >= ends[None, :-1], axis=1, dtype=jnp.uint32)


def _rank(source: jax.Array) -> jax.Array:
    """How many earlier lanes have the same source, uint32 [count]."""
    count = source.shape[0]
    order = jnp.argsort(source, stable=True)
    ordered = source[order]
    lane = jnp.arange(count, dtype=jnp.uint32)
    starts = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    begin = lax.cummax(jnp.where(starts, lane, 0))
    return jnp.zeros(count, jnp.uint32).at[order].set(lane - begin, unique_indices=True)


def _packed(tables: list[np.ndarray], capacity: int) -> np.ndarray:
    """Tables one after the other, in an array of `capacity` slots or, if they need more, the next power of two."""
    packed = np.concatenate(tables)
    capacity = max(capacity, 1 << (len(packed) - 1).bit_length())
    return np.pad(packed, (0, capacity - len(packed))).astype(np.uint32)


def _words(rows: list[list[int]], shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray([[n % 2**32 for n in row] for row in rows], np.uint32).reshape(shape)


def _columns(keys: tuple[tuple[int, int], ...]) -> KeyWords:
    words = np.asarray(keys, np.uint32)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
