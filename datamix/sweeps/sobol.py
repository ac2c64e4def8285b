"""Scrambled Sobol sequences, the same as those of `scipy.stats`, whose import takes as long as training 30 models."""

from __future__ import annotations

from functools import reduce
from operator import xor

import numpy as np

_BITS = 30
# For each dimension except the first: the terms of a primitive polynomial, and its direction numbers; SciPy has more.
_DIRECTIONS = (
    ((1,), (1,)), ((1, 2), (1, 3)), ((2, 3), (1, 3, 1)), ((1, 3), (1, 1, 1)),
    ((3, 4), (1, 1, 3, 3)), ((1, 4), (1, 3, 5, 13)), ((3, 5), (1, 1, 5, 5, 17)),
)  # fmt: skip


def sobol(size: int, seed: int, begin: int, count: int) -> np.ndarray:
    """Points of a scrambled Sobol sequence, in [0, 1).

    Args:
      size: The number of dimensions.
      seed: The seed of the scrambling, which is a random linear map of the bits, and a shift.
      begin: The number of the first point.
      count: The number of points.

    Returns:
      The points, float64 [count, size].

    Source: S. Joe, F. Kuo, Constructing Sobol sequences with better two-dimensional projections (2008); J. Matousek,
    On the L2-discrepancy for anchored boxes (1998).

    >>> sobol(2, 0, 0, 4).round(3).tolist()
    [[0.851, 0.931], [0.452, 0.167], [0.249, 0.592], [0.584, 0.327]]
    """
    if size > len(_DIRECTIONS) + 1:
        from scipy.stats import qmc

        sequence = qmc.Sobol(size, seed=seed)
        return np.asarray((sequence.fast_forward(begin) if begin else sequence).random(count))
    random, place = np.random.default_rng(seed), np.arange(_BITS)
    shift = random.integers(2, size=(size, _BITS), dtype=np.uint32) @ (1 << place)
    below = np.tril(random.integers(2, size=(size, _BITS, _BITS), dtype=np.uint32), -1)
    numbers = np.array([[1] * _BITS, *(_directions(*each) for each in _DIRECTIONS[: size - 1])]) << place[::-1]
    bits = numbers[..., None] >> place[::-1] & 1
    scrambled = np.matmul(bits, (below + np.eye(_BITS, dtype=int)).swapaxes(1, 2)) % 2 @ (1 << place[::-1])
    index = np.arange(begin, begin + count)
    gray = (index ^ index >> 1)[:, None] >> place & 1
    return np.asarray((shift ^ np.bitwise_xor.reduce(gray[:, None] * scrambled, -1)) / 2**_BITS)


def _directions(terms: tuple[int, ...], first: tuple[int, ...]) -> list[int]:
    """The direction numbers of a dimension, by the recurrence of its polynomial."""
    numbers = list(first)
    while len(numbers) < _BITS:
        numbers.append(reduce(xor, (numbers[-i] << i for i in terms), numbers[-len(first)]))
    return numbers
