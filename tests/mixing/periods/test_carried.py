"""A table, and what it leaves of the shares carried from one repetition to the next."""

from __future__ import annotations

import numpy as np

from datamix.mixing.periods import Carried, Table

HALF = 2**63
# The first source has 1.5 of 4 slots: the slot 2 is given to it in every other cycle.
CARRIED = Carried(
    table=Table(np.asarray([0, 1, 1, 1], np.int32), 2),
    giver=np.asarray([1], np.int32),
    taker=np.asarray([0], np.int32),
    place=np.asarray([2]),
    rate=np.asarray([HALF], np.uint64),
    phase=np.asarray([0], np.uint64),
)


def test_a_slot_changes_its_source_in_some_blocks() -> None:
    source, number = CARRIED.take(0, 16)
    assert source.tolist() == [0, 1, 1, 1, 0, 1, 0, 1] * 2
    assert number.tolist() == [0, 0, 1, 2, 1, 3, 2, 4, 3, 5, 6, 7, 4, 8, 5, 9]
    assert CARRIED.counts(8) == [3, 5]
    assert [CARRIED.slot_of(0, n) for n in range(6)] == [0, 4, 6, 8, 12, 14]
    assert (CARRIED.length, CARRIED.quota) == (None, None)


def test_a_source_without_a_slot_of_its_own_takes_from_both_sides() -> None:
    carried = Carried(
        table=Table(np.asarray([0, 2], np.int32), 3),
        giver=np.asarray([0, 2], np.int32),
        taker=np.asarray([1, 1], np.int32),
        place=np.asarray([0, 1]),
        rate=np.asarray([HALF, HALF // 2], np.uint64),
        phase=np.asarray([0, 0], np.uint64),
    )
    source, number = carried.take(0, 16)
    assert source.tolist() == [0, 2, 1, 2, 0, 2, 1, 1] * 2
    assert number.tolist() == [0, 0, 0, 1, 1, 2, 1, 2, 2, 3, 3, 4, 3, 5, 4, 5]
    assert [carried.slot_of(1, n) for n in range(6)] == [2, 6, 7, 10, 14, 15]


def test_the_slots_of_every_block_in_another_order() -> None:
    shuffled = CARRIED.shuffled(np.asarray([2, 0, 3, 1]))
    assert shuffled.take(0, 8)[0].tolist() == [1, 0, 1, 1, 0, 0, 1, 1]
    assert shuffled.counts(8) == [3, 5]
