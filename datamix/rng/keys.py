"""JAX's random keys, whose draws do not depend on the settings of the process.

`JAX_DEFAULT_PRNG_IMPL` and `JAX_THREEFRY_PARTITIONABLE` change what a key draws: a record would be augmented
differently in another process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key

from datamix.rng.hash import KeyWords

_IMPL = "threefry2x32"


def key_of(words: KeyWords) -> Key[jax.Array, ""]:
    """The JAX key made of two words."""
    if any(isinstance(word, jax.Array) for word in words):
        data = jnp.stack([jnp.asarray(word, jnp.uint32) for word in words])
    else:  # NumPy, so that nothing is compiled
        data = jnp.asarray(np.array(words, np.uint32))
    key: Key[jax.Array, ""] = jax.random.wrap_key_data(data, impl=_IMPL)
    return key


@contextmanager
def same_draws() -> Iterator[None]:
    """Make code traced or run inside the block draw the same bits, whatever the settings of the process.

    >>> def draw():
    ...     with same_draws():
    ...         return jax.random.bits(jax.random.key(0), (2,)).tolist()
    >>> with jax.threefry_partitionable(False), jax.default_prng_impl("rbg"):
    ...     other = draw()
    >>> draw() == other
    True
    """
    with jax.threefry_partitionable(True), jax.default_prng_impl(_IMPL):
        yield
