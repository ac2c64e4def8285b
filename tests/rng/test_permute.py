from __future__ import annotations

from itertools import permutations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.rng.hash import fold
from datamix.rng.permute import MAX_SIZE, Domain, domain, permute, permute_traced

KEY = np.array([1], np.uint32), np.array([2], np.uint32)
AROUND_POWERS = sorted({2**k + d for k in range(4, 17) for d in (-1, 0, 1)})
# The bits of a size fall into columns and rows evenly or oddly, with a tight grid or a loose one.
SIZES = [2, 3, 4, 5, 7, 9, 16, 17, 33, 65, 100, 257]


def order(size: int, key: tuple[np.ndarray, np.ndarray] = KEY) -> np.ndarray:
    return permute(np.arange(size, dtype=np.uint32), domain([size]), key)


def orders(size: int, num_epochs: int) -> np.ndarray:
    """One row an epoch, keyed as the plan does it."""
    first, second = fold(KEY, np.repeat(np.arange(num_epochs, dtype=np.uint32), size))
    index = np.tile(np.arange(size, dtype=np.uint32), num_epochs)
    return permute(index, domain([size]), (first, second)).reshape(num_epochs, size)


def chi_square_z(counts: np.ndarray, freedom: int) -> float:
    expected = counts.sum() / counts.size
    return (float(((counts - expected) ** 2 / expected).sum()) - freedom) / np.sqrt(2 * freedom)


def test_exact_orders() -> None:
    """Pinned: another order would silently shuffle everybody's data anew."""
    assert order(1).tolist() == [0]
    assert order(2).tolist() == [0, 1]
    assert order(10).tolist() == [4, 6, 3, 0, 7, 1, 8, 2, 9, 5]
    assert order(1000)[:8].tolist() == [699, 512, 383, 758, 51, 807, 694, 314]


def test_no_index_gives_no_record() -> None:
    assert permute(np.empty(0, np.uint32), domain([5]), KEY).tolist() == []


def test_every_size_up_to_300_is_a_bijection() -> None:
    for size in range(1, 301):
        np.testing.assert_array_equal(np.sort(order(size)), np.arange(size))


@pytest.mark.parametrize("size", AROUND_POWERS)
def test_a_bijection_around_powers_of_two(size: int) -> None:
    np.testing.assert_array_equal(np.sort(order(size)), np.arange(size))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 5000), st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
def test_a_bijection_under_every_key(size: int, key: tuple[int, int]) -> None:
    shuffled = order(size, (np.array(key[:1], np.uint32), np.array(key[1:], np.uint32)))
    np.testing.assert_array_equal(np.sort(shuffled), np.arange(size))


@pytest.mark.parametrize("size", [2**31 - 1, 2**31 + 1, 2**32 - 2**16, MAX_SIZE])
def test_the_largest_sizes_stay_inside_and_never_collide(size: int) -> None:
    generator = np.random.default_rng(0)
    index = np.unique(np.concatenate([[0, size - 1], generator.integers(0, size, 50_000)])).astype(np.uint32)
    shuffled = permute(index, domain([size]), KEY)
    assert int(shuffled.max()) < size
    assert len(np.unique(shuffled)) == len(index)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, MAX_SIZE))
def test_the_grid_is_tight(size: int) -> None:
    grid = domain([size])
    columns, rows = int(grid.columns[0]), 2 ** int(grid.row_bits[0])
    assert columns <= 2**16
    assert rows <= 2**16
    assert size <= columns * rows < size + rows
    assert rows**2 < 2 * size  # so that the grid is nearly square, and both halves are well mixed


def test_sizes_and_keys_of_many_sources_at_once() -> None:
    sizes = np.array([3, 1000, 1, 257, 70_000])
    keys = np.arange(5, dtype=np.uint32), np.arange(5, 10, dtype=np.uint32)
    source = np.random.default_rng(0).integers(0, 5, 2000)
    index = (np.arange(2000) * 7 % sizes[source]).astype(np.uint32)
    grid = Domain(*(field[source] for field in domain(sizes)))
    together = permute(index, grid, (keys[0][source], keys[1][source]))
    for i in range(5):
        alone = permute(index[source == i], domain(sizes[i : i + 1]), (keys[0][i : i + 1], keys[1][i : i + 1]))
        np.testing.assert_array_equal(together[source == i], alone)


def test_the_arguments_are_left_as_they_were() -> None:
    index, grid = np.arange(300, dtype=np.uint32), domain([300])
    permute(index, grid, KEY)
    np.testing.assert_array_equal(index, np.arange(300))
    assert [int(field[0]) for field in grid] == [int(field[0]) for field in domain([300])]
    assert [int(word[0]) for word in KEY] == [1, 2]


def test_traced_gives_the_same_order() -> None:
    sizes = np.array([1, 2, 3, 33, 257, 1000, 65_537, MAX_SIZE])
    source = np.random.default_rng(0).integers(0, len(sizes), 5000)
    index = (np.random.default_rng(1).integers(0, 2**40, 5000) % sizes[source]).astype(np.uint32)
    grid = Domain(*(field[source] for field in domain(sizes)))
    key = fold(KEY, np.arange(5000, dtype=np.uint32))
    traced = jax.jit(permute_traced)(index, grid, key)
    assert traced.dtype == np.uint32
    np.testing.assert_array_equal(permute(index, grid, key), traced)


@pytest.mark.parametrize("size", SIZES)
def test_every_record_comes_as_often_at_every_position(size: int) -> None:
    epochs = orders(size, 3000)
    cells = np.bincount((np.arange(size) * size + epochs).ravel(), minlength=size**2)
    expected = 3000 / size
    # Rows and columns add up by themselves, which leaves less room than independent cells have.
    chi_square = float(((cells - expected) ** 2).sum()) / expected * (size - 1) / size
    assert abs(chi_square - (size - 1) ** 2) / (np.sqrt(2) * (size - 1)) < 5


@pytest.mark.parametrize("size", [3, 4, 5])
def test_every_order_of_a_tiny_source_is_as_likely(size: int) -> None:
    epochs = orders(size, 12_000) @ (size ** np.arange(size))
    codes = [int(np.dot(p, size ** np.arange(size))) for p in permutations(range(size))]
    counts = np.array([(epochs == code).sum() for code in codes])
    assert counts.sum() == 12_000
    assert abs(chi_square_z(counts, len(codes) - 1)) < 5


@pytest.mark.parametrize("size", [size for size in SIZES if size > 2])
def test_neighbours_do_not_stay_together(size: int) -> None:
    """The distance between two neighbours is uniform; so is how far a record lands from where it was stored."""
    epochs = orders(size, 3000).astype(np.int64)
    distance = (epochs[:, 1:] - epochs[:, :-1]) % size
    assert abs(chi_square_z(np.bincount(distance.ravel(), minlength=size)[1:], size - 2)) < 5
    moved = (epochs[:, size // 2] - size // 2) % size
    assert abs(chi_square_z(np.bincount(moved, minlength=size), size - 1)) < 5


@pytest.mark.parametrize("size", [17, 1000, 4097])
def test_two_epochs_and_two_keys_are_unrelated(size: int) -> None:
    epochs = orders(size, 20)
    stored = np.arange(size)
    for first, second in zip([stored, *epochs[:-1]], epochs, strict=True):
        assert abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(size - 1) < 5
        assert not np.array_equal(first, second)


def test_records_that_stay_in_place_are_as_many_as_by_chance() -> None:
    """A random order leaves one record in place on average, whatever the size."""
    for size in (10, 100, 1000):
        stay = (orders(size, 2000) == np.arange(size)).sum(axis=1)
        assert abs(stay.mean() - 1) * np.sqrt(2000) < 5
