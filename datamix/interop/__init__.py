"""Mixes as other libraries take them: one module for each library, imported when it is first asked for."""

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
