"""Random keys draw the same, whatever the switches of the process."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from datamix.rng.hash import key_for
from datamix.rng.keys import key_of, same_draws


def draw() -> list[int]:
    with same_draws():
        key = key_of(key_for(0, "keys"))
        values: list[int] = jax.jit(lambda key: jax.random.bits(jax.random.split(key)[1], (3,)))(key).tolist()
        return values


def test_a_key_has_the_words_it_is_made_of() -> None:
    assert jax.random.key_data(key_of((1, 2**32 - 1))).tolist() == [1, 2**32 - 1]
    assert key_of((1, 2)).shape == ()


@pytest.mark.parametrize("partitionable", [False, True])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_draws_depend_on_no_switch(impl: str, partitionable: bool) -> None:
    usual = draw()
    with jax.default_prng_impl(impl), jax.threefry_partitionable(partitionable):
        assert draw() == usual


def test_what_is_traced_inside_is_the_same_in_a_program_compiled_outside() -> None:
    def bits(words: jax.Array) -> jax.Array:
        with same_draws():
            return jax.random.bits(key_of((words[0], words[1])), (3,))

    words = np.uint32([1, 2])
    with jax.threefry_partitionable(False):
        other = jax.jit(lambda words: bits(words))(words).tolist()
    assert jax.jit(bits)(words).tolist() == other
