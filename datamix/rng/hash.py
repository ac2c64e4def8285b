"""Randomness as a pure function of names and numbers: no generator runs anywhere in datamix.

The arithmetic is 32-bit and unsigned and works on NumPy arrays and on traced JAX arrays alike, so that the plan on the
host and the compiled pipeline draw the same bits.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import numpy as np

Words: TypeAlias = Any
"""A uint32 array, of NumPy or JAX, of any shape."""

KeyWords: TypeAlias = tuple[Words, Words]
"""A 64-bit key as two words."""


def key_for(seed: int, *names: str | int) -> tuple[int, int]:
    """Derive a key from a seed and names that say what it is for.

    Pass names, never positions in a list: a source then keeps its order when another is added before it.

    Returns:
      Two words in [0, 2^32).

    >>> key_for(0, "shuffle", "mnist") == key_for(0, "shuffle", "fashion")
    False
    """
    text = "\0".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def scramble(x: Words) -> Words:
    """A bijection of 32-bit words whose every output bit depends on every input bit.

    Source: C. Wellons, Prospecting for hash functions (2018), "lowbias32".

    >>> scramble(np.array([0, 1], np.uint32))
    array([         0, 1753845952], dtype=uint32)
    """
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def fold(key: KeyWords, data: Words) -> KeyWords:
    """Derive a key for each word of `data`; keys and data broadcast."""
    first, second = key
    mixed = scramble((data + np.uint32(0x9E3779B9)) ^ second)
    return scramble(first ^ mixed), scramble(mixed + second)


def draw(key: KeyWords, high: Words, low: Words) -> Words:
    """A uniform word for each 64-bit counter (high, low) under a key."""
    first, second = key
    return scramble(scramble(low ^ first) + scramble(high + second))


def draw_at(key: tuple[int, int], position: np.ndarray) -> np.ndarray:
    """`draw` on the host, for 64-bit positions.

    Args:
      position: uint64 [count].

    Returns:
      uint32 [count].
    """
    words = np.asarray(key, np.uint32)
    high, low = (position >> np.uint64(32)).astype(np.uint32), position.astype(np.uint32)
    return np.asarray(draw((words[:1], words[1:]), high, low))


def multiply_high(a: Words, b: Words) -> Words:
    """The upper 32 bits of the 64-bit product: maps a uniform word `a` onto [0, b).

    >>> multiply_high(np.array([0, 2**31, 2**32 - 1], np.uint32), np.array([10], np.uint32))
    array([0, 5, 9], dtype=uint32)
    """
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    a_low, a_high, b_low, b_high = a & mask, a >> half, b & mask, b >> half
    middle = a_high * b_low + ((a_low * b_low) >> half)  # at most (2^16 - 1) * 2^16: no overflow
    carry = ((middle & mask) + a_low * b_high) >> half
    return a_high * b_high + (middle >> half) + carry
