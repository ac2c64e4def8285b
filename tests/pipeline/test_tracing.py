"""Counting what is traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datamix.pipeline import tracing
from datamix.testing import traces


def test_each_trace_is_counted_under_the_name_of_its_function() -> None:
    @tracing.jit
    def double(x):
        """Twice as much."""
        return 2 * x

    name = f"{__name__}.test_each_trace_is_counted_under_the_name_of_its_function.<locals>.double"
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    with traces() as counts:
        assert [int(double(jnp.int32(i))) for i in (1, 2)] == [2, 4]
    assert counts == {name: 1}
    with traces() as counts:
        double(jnp.arange(3))  # another shape
        double(jnp.int32(9))
    assert counts == {name: 1}


def test_options_are_those_of_jax() -> None:
    power = tracing.jit(lambda x, n: x**n, static_argnums=1)
    with traces() as counts:
        assert [int(power(jnp.int32(3), n)) for n in (2, 3, 2)] == [9, 27, 9]
    assert sum(counts.values()) == 2


def test_a_trace_that_fails_counts_too() -> None:
    @tracing.jit
    def broken(x):
        raise TypeError("no")

    with traces() as counts, pytest.raises(TypeError, match="no"):
        broken(1)
    assert sum(counts.values()) == 1


def test_what_compiles_quickly_computes_the_same_bits() -> None:
    def scores(values, place):
        return jax.nn.softmax(values[place] / 3, axis=1).sum(axis=0), jnp.argsort(values, axis=1)

    values, place = jnp.sin(jnp.arange(600.0)).reshape(30, 20), jnp.arange(0, 30, 2)
    quick = tracing.jit_quickly(scores)
    with traces() as counts:
        results = [quick(values, place) for _ in range(2)]
    assert (quick.__name__, sum(counts.values())) == ("scores", 1)
    for result in results:
        for array, same in zip(result, tracing.jit(scores)(values, place), strict=True):
            np.testing.assert_array_equal(array, same)
