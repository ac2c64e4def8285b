"""JAX, imported when it is first used."""

from __future__ import annotations

import subprocess
import sys

from datamix.lazy import jax, jnp, lax


def test_the_names_are_those_of_jax() -> None:
    import jax as imported

    assert (jax.Array, jnp.ones, lax.cond) == (imported.Array, imported.numpy.ones, imported.lax.cond)


def test_jax_is_imported_when_a_name_is_asked_for() -> None:
    program = (
        "import sys; from datamix.lazy import jnp; print('jax' in sys.modules); jnp.ones; print('jax' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
