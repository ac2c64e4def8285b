"""Operators: pure functions of one record, compiled by JAX. Each is here under its name: `operators.to_float`."""

from __future__ import annotations

from typing import Any

from datamix import registry


def __getattr__(name: str) -> Any:
    if name not in registry.names("operator"):
        raise AttributeError(f"module 'datamix.operators' has no attribute {name!r}")
    return registry.lookup("operator", name)


def __dir__() -> list[str]:
    return registry.names("operator")
