"""A keyed shuffle of [0, n) that needs no table: any index is looked up by itself, in O(1) memory.

A generalised Feistel network on the grid [0, columns) × [0, 2^row_bits), the tightest such grid that holds n, with
cycle-walking: an index that lands outside [0, n) is sent through again until it lands inside.

Source: J. Black and P. Rogaway, Ciphers with arbitrary finite domains, CT-RSA (2002).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datamix.rng.hash import KeyWords, Words, scramble

# Chi-square tests on positions and neighbours: 3 rounds fail below 64 records, 4 and 5 below 16, 6 pass at every size.
_NUM_ROUNDS = 6
MAX_SIZE = 2**32 - 1


class Domain(NamedTuple):
    """The grid of one size, or of many sizes as arrays.

    Attributes:
      size: The number of elements n, uint32.
      columns: The number of values of the upper half, at most 2^16, uint32.
      row_bits: The bits of the lower half, at most 16, uint32.
    """

    size: Words
    columns: Words
    row_bits: Words


def domain(sizes: object) -> Domain:
    """The grids of the given sizes.

    Args:
      sizes: Integers in [1, 2^32), of any shape.

    >>> grid = domain([20_000])
    >>> int(grid.columns[0]) * 2 ** int(grid.row_bits[0])
    20096
    """
    size = np.asarray(sizes, np.uint64)
    bits = np.frexp((size - np.uint64(1)).astype(np.float64))[1]
    row_bits = (np.maximum(bits, 0) // 2).astype(np.uint64)
    columns = (size + (np.uint64(1) << row_bits) - np.uint64(1)) >> row_bits
    return Domain(size.astype(np.uint32), columns.astype(np.uint32), row_bits.astype(np.uint32))


def rounds(index: Words, grid: Domain, key: KeyWords) -> Words:
    """One pass through the network, a bijection of the grid; arrays of NumPy or traced JAX, which broadcast."""
    half = np.uint32(16)
    mask = (np.uint32(1) << grid.row_bits) - np.uint32(1)
    upper, lower = index >> grid.row_bits, index & mask
    for i in range(_NUM_ROUNDS):
        step = np.uint32(0x9E3779B9 * (2 * i + 1) % 2**32)
        # Fixed-point product instead of a remainder: an integer division does not vectorise.
        upper = upper + (((scramble((lower + step) ^ key[0]) >> half) * grid.columns) >> half)
        upper = upper - grid.columns * (upper >= grid.columns)
        lower = lower ^ (scramble((upper - step) ^ key[1]) >> half & mask)
    return (upper << grid.row_bits) + lower


def permute(index: Words, grid: Domain, key: KeyWords) -> np.ndarray:
    """Look up shuffled indices on the host.

    Args:
      index: The elements, uint32 in [0, size), shape [count].
      grid: The grid of the size, each field of shape [count] or [1].
      key: Two uint32 words, each of shape [count] or [1]; another key gives another order.

    Returns:
      uint32 in [0, size), shape [count]; for one size and one key, a bijection.

    >>> key = np.array([1], np.uint32), np.array([2], np.uint32)
    >>> sorted(permute(np.arange(5, dtype=np.uint32), domain([5]), key).tolist())
    [0, 1, 2, 3, 4]
    """
    grid = Domain(*np.broadcast_arrays(*grid, index)[:3])
    first, second, _ = np.broadcast_arrays(*key, index)
    result: np.ndarray = rounds(index, grid, (first, second))
    while (outside := np.flatnonzero(result >= grid.size)).size:
        walked = Domain(*(field[outside] for field in grid))
        result[outside] = rounds(result[outside], walked, (first[outside], second[outside]))
    return result


def permute_traced(index: Words, grid: Domain, key: KeyWords) -> Words:
    """`permute` on traced JAX arrays, with the same result."""
    import jax.numpy as jnp
    from jax import lax

    def walk(state: tuple[Words, Words]) -> tuple[Words, Words]:
        outside, result = state
        result = jnp.where(outside, rounds(result, grid, key), result)
        return result >= grid.size, result

    # The first pass is part of the loop: before it, the pass would be compiled a second time.
    return lax.while_loop(lambda state: jnp.any(state[0]), walk, (jnp.ones_like(index, bool), index))[1]
