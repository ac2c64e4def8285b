"""The compiled pipeline, and how it hands out batches."""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("policy", ado="Ado", doremi="Doremi", loss_temperature="LossTemperature", odm="Odm")
def _policies() -> ModuleType:
    from datamix.pipeline import policies

    return policies
