"""JAX, imported on first use: code that only looks at names and shapes must not spend 0.6 s of CPU on it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["jax", "jnp", "lax"]

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jax import lax
else:

    class _Lazy:
        """A module that is imported when one of its attributes is read."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self._name), name)

    jax, jnp, lax = map(_Lazy, ("jax", "jax.numpy", "jax.lax"))
