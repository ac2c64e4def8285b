from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.rng.hash import draw, fold, key_for, multiply_high, scramble

words = st.integers(0, 2**32 - 1)
CHECK = settings(derandomize=True, deadline=None, max_examples=200)


def u32(values: object) -> np.ndarray:
    return np.asarray(values, np.uint32)


def chi_square_z(counts: np.ndarray) -> float:
    """How many standard deviations the chi-square of a uniform distribution is away from what it should be."""
    expected = counts.sum() / counts.size
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.size - 1
    return (chi_square - freedom) / np.sqrt(2 * freedom)


def test_exact_values() -> None:
    """Pinned: other bits would silently shuffle everybody's data anew."""
    assert key_for(0, "shuffle", "mnist") == (2166139378, 3059043785)
    assert key_for(0) == (2642226052, 1977601347)
    assert scramble(u32([0, 1, 2**32 - 1])).tolist() == [0, 1753845952, 1734902346]
    first, second = fold((u32([1]), u32([2])), u32([0, 1, 2]))
    assert first.tolist() == [587229646, 2727374891, 2692512407]
    assert second.tolist() == [192609847, 3893269270, 4238570284]
    assert draw((u32([1]), u32([2])), u32([0, 0, 1]), u32([0, 1, 0])).tolist() == [2074548900, 911671261, 1403877986]


def test_a_key_depends_on_every_name_and_their_borders() -> None:
    keys = [
        key_for(0, "shuffle", "mnist"),
        key_for(1, "shuffle", "mnist"),
        key_for(0, "shuffle", "mnis"),
        key_for(0, "shufflem", "nist"),
        key_for(0, "shufflemnist"),
        key_for(0, "mnist", "shuffle"),
        key_for(0, "shuffle", "mnist", 0),
        key_for(0, "shuffle", "mnist", 1),
        key_for(-1, "shuffle", "mnist"),
        key_for(2**70, "shuffle", "mnist"),
        key_for(0, "shuffle", "手書き"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= word < 2**32 for key in keys for word in key)


@CHECK
@given(st.lists(words, min_size=1, max_size=50))
def test_scramble_has_an_inverse(values: list[int]) -> None:
    x = scramble(u32(values))
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(pow(0x846CA68B, -1, 2**32))
    x = x ^ (x >> np.uint32(15)) ^ (x >> np.uint32(30))
    x = x * np.uint32(pow(0x7FEB352D, -1, 2**32))
    x = x ^ (x >> np.uint32(16))
    assert x.tolist() == values


def test_every_output_bit_of_scramble_depends_on_every_input_bit() -> None:
    x = scramble(np.arange(1000, dtype=np.uint32) * np.uint32(2654435761))
    for bit in range(32):
        flipped = scramble((np.arange(1000, dtype=np.uint32) * np.uint32(2654435761)) ^ np.uint32(1 << bit))
        changed = np.unpackbits((x ^ flipped).view(np.uint8).reshape(1000, 4), axis=1).mean(axis=0)
        assert changed.min() > 0.3
        assert changed.max() < 0.7


@CHECK
@given(words, words)
def test_multiply_high_is_the_upper_word_of_the_product(a: int, b: int) -> None:
    assert multiply_high(u32([a]), u32([b])).tolist() == [a * b >> 32]


def test_multiply_high_of_the_largest_words() -> None:
    edges = [0, 1, 2**16 - 1, 2**16, 2**31, 2**32 - 1]
    for a in edges:
        assert multiply_high(u32([a] * len(edges)), u32(edges)).tolist() == [a * b >> 32 for b in edges]


@pytest.mark.parametrize("high", [0, 1, 2**31])
def test_draws_are_uniform_in_every_byte(high: int) -> None:
    low = np.arange(50_000, dtype=np.uint32)
    word = draw((u32([3]), u32([4])), np.full_like(low, high), low)
    for byte in range(4):
        assert abs(chi_square_z(np.bincount(word >> np.uint32(8 * byte) & np.uint32(255), minlength=256))) < 5


def test_successive_draws_are_independent() -> None:
    low = np.arange(100_001, dtype=np.uint32)
    four_bits = draw((u32([3]), u32([4])), np.zeros_like(low), low) >> np.uint32(28)
    assert abs(chi_square_z(np.bincount(four_bits[1:] * 16 + four_bits[:-1], minlength=256))) < 5


def test_draws_under_related_keys_are_unrelated() -> None:
    low = np.arange(10_000, dtype=np.uint32)
    zeros = np.zeros_like(low)
    base = draw((u32([0]), u32([0])), zeros, low).astype(float)
    for other in (
        draw((u32([1]), u32([0])), zeros, low),
        draw((u32([0]), u32([1])), zeros, low),
        draw((u32([0]), u32([0])), zeros + np.uint32(1), low),
        draw((u32([0]), u32([0])), zeros, low + np.uint32(1)),
    ):
        assert abs(np.corrcoef(base, other.astype(float))[0, 1]) * np.sqrt(len(low)) < 5


def test_fold_gives_each_word_its_own_key() -> None:
    first, second = fold((u32([7]), u32([8])), np.arange(100_000, dtype=np.uint32))
    assert len(np.unique(first.astype(np.uint64) << np.uint64(32) | second)) == 100_000
    for word in (first, second):
        assert abs(chi_square_z(np.bincount(word >> np.uint32(24), minlength=256))) < 5
        assert abs(chi_square_z(np.bincount(word & np.uint32(255), minlength=256))) < 5


def test_keys_and_data_broadcast() -> None:
    keys = u32([1, 2, 3]), u32([4, 5, 6])
    first, second = fold(keys, u32([9]))
    for i in range(3):
        assert fold((keys[0][i : i + 1], keys[1][i : i + 1]), u32([9])) == (first[i], second[i])


def test_numpy_and_jax_give_the_same_bits() -> None:
    generator = np.random.default_rng(0)
    a, b, c, d = generator.integers(0, 2**32, (4, 1000), dtype=np.uint32)
    for function, args in (
        (scramble, (a,)),
        (multiply_high, (a, b)),
        (lambda *x: fold((x[0], x[1]), x[2]), (a, b, c)),
        (lambda *x: draw((x[0], x[1]), x[2], x[3]), (a, b, c, d)),
    ):
        for mine, traced in zip(
            jax.tree.leaves(function(*args)), jax.tree.leaves(jax.jit(function)(*args)), strict=True
        ):
            assert traced.dtype == np.uint32
            np.testing.assert_array_equal(mine, traced)
