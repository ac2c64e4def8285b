"""`jax.jit` for datamix's programs, which counts how often each is traced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import jax

from datamix.pipeline import xla

Result = TypeVar("Result")

TRACES: Counter[str] = Counter()
"""How often each program was traced in this process; see `datamix.testing.traces`."""


def jit(function: Callable[..., Result], **options: Any) -> Callable[..., Result]:
    """`jax.jit`, with each trace counted under the function's name.

    JAX runs a function's Python code once for each trace, and every compilation begins with a trace. If the process has
    set strict promotion of dtypes and ranks for its own code, that does not apply here.
    """

    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Result:
        TRACES[f"{function.__module__}.{function.__qualname__}"] += 1
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return jax.jit(traced, **options)


def jit_quickly(function: Callable[..., Result], **options: Any) -> Callable[..., Result]:
    """`jit` for what takes less time to run than to compile; options are looked up on first use, as that starts JAX."""
    compiled = cache(lambda: jit(function, compiler_options=xla.quick_options(), **options))
    return wraps(function)(lambda *args, **kwargs: compiled()(*args, **kwargs))
