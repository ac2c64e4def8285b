"""Mixes in the form that other libraries take: one module per library, imported on first use."""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("grain", "keras", "orbax", "tensorflow", "torch")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module 'datamix.interop' has no attribute {name!r}")
    return importlib.import_module(f"datamix.interop.{name}")


def __dir__() -> list[str]:
    return sorted(_MODULES)
