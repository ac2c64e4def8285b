"""Counting what is traced."""

from __future__ import annotations

import jax.numpy as jnp
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
