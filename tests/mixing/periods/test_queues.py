"""Slots by the lengths of the records."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.mixing.periods import Queues
from datamix.mixing.plan import Plan
from datamix.mixing.record_lengths import RecordLengths
from datamix.mixing.table_fills import by_length

DRAWN = {
    "even": lambda draw, size: np.full(size, 100),
    "uniform": lambda draw, size: draw.integers(0, 300, size) + 1,
    "two": lambda draw, size: draw.choice([1, 1000], size),
    "heavy": lambda draw, size: np.minimum(10 / draw.random(size), 10**5).astype(np.int64),
    "with zeros": lambda draw, size: draw.integers(0, 4, size) + (np.arange(size) == 0),
}


def queues_of(weights: list[int], kind: str, seed: int = 0, **inputs: int) -> Queues:
    """Sources of different sizes, whose records have drawn lengths."""
    draw = np.random.default_rng(seed)
    sizes = {f"s{i}": int(draw.integers(3, 400)) for i in range(len(weights))}
    lengths = tuple(DRAWN[kind](draw, size).astype(np.int64) for size in sizes.values())
    order = Plan(sizes, seed=seed).shuffle
    shares = tuple(Fraction(weight, sum(weights)) for weight in weights)
    base = tuple(draw.integers(0, 1000, len(weights)).tolist())
    inputs = {"credit": (Fraction(0),) * len(shares)} | inputs
    return Queues(shares=shares, lengths=RecordLengths(stored=lengths, shuffle=order), base=base, **inputs)


def lengths_of(queues: Queues, source: np.ndarray, number: np.ndarray) -> np.ndarray:
    lengths = np.empty(len(source), np.int64)
    for i, base in enumerate(queues.base):
        lengths[source == i] = queues.lengths.of(i, number[source == i] + base)
    return lengths


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    weights=st.lists(st.integers(1, 50) | st.integers(1, 3000), min_size=2, max_size=9),
    kind=st.sampled_from(sorted(DRAWN)),
    seed=st.integers(0, 99),
)
def test_every_prefix_is_within_one_longest_record(weights: list[int], kind: str, seed: int) -> None:
    queues = queues_of(weights, kind, seed, stretch_slots=1000)
    source, number = queues.take(0, 6000)
    lengths = lengths_of(queues, source, number)
    total = np.cumsum(lengths)
    for i, share in enumerate(queues.shares):
        off = np.cumsum(np.where(source == i, lengths, 0)) - total * float(share)
        assert np.abs(off).max() <= max(stored.max() for stored in queues.lengths.stored) + 1e-6


def test_slots_before_the_first_stretch_ends_are_those_of_the_queues_alone() -> None:
    queues = queues_of([3, 2, 4], "uniform")
    source, _ = queues.take(0, 40_000)
    assert source.tolist() == by_length(queues.shares, queues.lengths.of, queues.base, 40_000).tolist()


@pytest.mark.parametrize("start", [2**18, 10**9, 2**50])
def test_far_positions_are_within_one_longest_record(start: int) -> None:
    queues = queues_of([7, 0, 2, 1], "heavy", stretch_slots=2000)
    counts = queues.counts(start)
    assert sum(counts) == start
    given = [
        queues.lengths.summed(i, base + count) - queues.lengths.summed(i, base)
        for i, (base, count) in enumerate(zip(queues.base, counts, strict=True))
    ]
    off = [abs(amount - share * sum(given)) for amount, share in zip(given, queues.shares, strict=True)]
    assert max(off) <= max(stored.max() for stored in queues.lengths.stored)


def test_windows_keep_the_counts_of_a_stretch() -> None:
    plain, shuffled = (queues_of([3, 1], "uniform", window=window, key=(1, 2)) for window in (1, 64))
    end = sum(plain.begin(1))
    assert plain.counts(end) == shuffled.counts(end)
    slots = [queues.take(0, 6400)[0].reshape(-1, 64) for queues in (plain, shuffled)]
    assert slots[0].tolist() != slots[1].tolist()
    assert np.sort(slots[0]).tolist() == np.sort(slots[1]).tolist()


def test_a_record_longer_than_many_stretches() -> None:
    order = Plan({"a": 2, "b": 50}, shuffle=False).shuffle
    stored = (np.asarray([10**7, 1]), np.ones(50, np.int64))
    lengths = RecordLengths(stored=stored, shuffle=order)
    queues = Queues(
        shares=(Fraction(1, 2), Fraction(1, 2)),
        lengths=lengths,
        base=(0, 0),
        credit=(Fraction(0),) * 2,
        stretch_slots=1000,
    )
    source, number = queues.take(0, 20_000)
    assert source.all()
    assert number.tolist() == list(range(20_000))
    assert 10**6 < queues.slot_of(0, 0) < 9 * 10**6 < queues.slot_of(0, 1)


def test_stretches_that_are_in_use_are_kept() -> None:
    queues = queues_of([3, 2], "uniform", stretch_slots=100)
    begins = [queues.begin(stretch) for stretch in range(1, 50)]
    assert all(queues.begin(stretch) is begin for stretch, begin in enumerate(begins, start=1))


@pytest.mark.parametrize("seed", range(4))
def test_the_last_of_several_slots(seed: int) -> None:
    queues = queues_of([3, 2, 5], "uniform", seed, stretch_slots=200)
    numbers = {i: int(number) for i, number in enumerate(np.random.default_rng(seed).integers(0, 3000, 3))}
    assert queues.last_of(numbers) == max(queues.slot_of(source, number) for source, number in numbers.items())
