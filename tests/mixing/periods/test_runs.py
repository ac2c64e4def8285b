"""Runs: all records of one source, then all of the next."""

from __future__ import annotations

import numpy as np

from datamix.mixing.periods.runs import Runs


def test_exact_slots() -> None:
    runs = Runs((2, 0, 3))
    assert (runs.length, runs.ends.tolist(), runs.quota.tolist()) == (5, [2, 2, 5], [2, 0, 3])
    source, number = runs.take(1, 7)
    assert source.tolist() == [0, 2, 2, 2, 0, 0, 2]
    assert number.tolist() == [1, 0, 1, 2, 2, 3, 3]
    assert runs.counts(8) == [4, 0, 4]
    assert [runs.slot_of(0, 3), runs.slot_of(2, 4)] == [6, 8]
    assert (runs.sets_shares, runs.repeats_records, runs.max_walk) == (True, False, None)


def test_long_runs_are_counted_with_64_bits() -> None:
    runs = Runs((3_000_000_000, 4_000_000_000))
    source, number = runs.take(2_999_999_999, 2)
    assert (source.tolist(), number.tolist()) == ([0, 1], [2_999_999_999, 0])
    assert number.dtype == np.int64
    assert runs.slot_of(1, 4_000_000_001) == 7_000_000_000 + 3_000_000_001
