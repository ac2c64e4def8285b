"""Every kind of period answers its three questions alike."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group
from datamix.mixing.orders import proportional, random
from datamix.mixing.periods import Draws, Period, Runs
from datamix.mixing.weights import resolve_shares


def shares_of(weights: Sequence[float | Fraction]) -> list[Fraction]:
    return list(resolve_shares([str(i) for i in range(len(weights))], ratio=list(weights)).values())


def demand(weights: Sequence[float | Fraction], lengths: Sequence[int] | None = None, seed: int = 0) -> Demand:
    return Demand(group=Group.flat(shares_of(weights)), remaining=lengths or [100] * len(weights), seed=seed)


TABLE = proportional(demand([5, 0, 3, 2]))


CARRIED = proportional(demand([0.123456789, 0, 0.3, 0.576543211]))


WINDOWED = proportional(demand([5, 0, 3, 2]), window=7)


RUNS = Runs((3, 0, 5, 1000))


LONG_RUNS = Runs((3_000_000_000, 0, 5, 4_000_000_000))


DRAWS = random(demand([5, 0, 3, 2]))


LATER_DRAWS = Draws(DRAWS.thresholds, 2**32 - 1000, DRAWS.key, False)


def check_period(period: Period, start: int, count: int) -> None:
    source, number = period.take(start, count)
    assert source.dtype == np.int32
    assert number.dtype == np.int64
    before = period.counts(start)
    assert sum(before) == start
    assert before[1] == 0
    for offset, (i, rank) in enumerate(zip(source.tolist(), number.tolist(), strict=True)):
        assert rank == before[i]
        assert period.slot_of(i, rank) == start + offset
        before[i] += 1
    assert period.counts(start + count) == before


@pytest.mark.parametrize("period", [TABLE, CARRIED, WINDOWED, RUNS, LONG_RUNS], ids=str)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(start=st.one_of(st.integers(0, 10**6), st.integers(2**40, 2**60)), count=st.integers(0, 40))
def test_a_period_agrees_with_itself(period: Period, start: int, count: int) -> None:
    check_period(period, start, count)


@pytest.mark.parametrize("period", [DRAWS, LATER_DRAWS], ids=["from the start", "from slot 2^32 - 1000"])
@settings(derandomize=True, deadline=None, max_examples=25)
@given(start=st.integers(0, 300_000), count=st.integers(0, 40))
def test_draws_agree_with_themselves(period: Period, start: int, count: int) -> None:
    check_period(period, start, count)


@pytest.mark.parametrize("period", [TABLE, CARRIED, WINDOWED, RUNS, DRAWS, LATER_DRAWS])
def test_a_period_is_walked_the_same_in_any_pieces(period: Period) -> None:
    whole_source, whole_number = period.take(0, 3000)
    for size in (9, 1000):
        pieces = [period.take(start, size) for start in range(0, 3000 - 3000 % size, size)]
        assert np.concatenate([piece[0] for piece in pieces]).tolist() == whole_source[: 3000 - 3000 % size].tolist()
        assert np.concatenate([piece[1] for piece in pieces]).tolist() == whole_number[: 3000 - 3000 % size].tolist()
