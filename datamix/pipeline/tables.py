"""Look-ups on the device, for indices known to be in bounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from datamix.rng.hash import Words

_FEW = 8


def look_up(table: Words, index: Words) -> jax.Array:
    """`table[index]`: rows of a long table, shape [*index, ...]; JAX's checks would cost half as much again."""
    return jnp.asarray(table).at[index].get(mode="promise_in_bounds")


def choose(table: Words, index: Words) -> jax.Array:
    """`table[index]` for a table with one row per source or stage, usually one or two.

    Comparing and selecting fuses into the loop around it and is vectorised with it; a gather is a separate loop,
    element by element.
    """
    table = jnp.asarray(table)
    if len(table) > _FEW:
        return look_up(table, index)
    index = jnp.asarray(index)
    row = table.shape[1:]
    chosen = jnp.broadcast_to(table[0], (*index.shape, *row))
    which = index.reshape(*index.shape, *[1] * len(row))
    for i in range(1, len(table)):
        chosen = jnp.where(which == i, table[i], chosen)
    return chosen


def divided(number: Words, divisor: Words) -> tuple[jax.Array, jax.Array]:
    """Quotient and remainder, uint32, by one division, which is the slow operation here."""
    quotient = number // divisor
    return quotient, number - quotient * divisor


def interval_of(ends: jax.Array, value: jax.Array) -> jax.Array:
    """The number of the ascending `ends` that each value has reached, uint32 [count]."""
    # The last end is above every value, so it need not be compared.
    return jnp.sum(value[:, None] >= ends[None, :-1], axis=1, dtype=jnp.uint32)
