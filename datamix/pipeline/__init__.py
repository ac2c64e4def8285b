"""The compiled pipeline, and how it hands out batches."""

from __future__ import annotations

from datamix import registry

_POLICIES = {"ado": "Ado", "doremi": "Doremi", "loss_temperature": "LossTemperature", "odm": "Odm"}
registry.builtin("policy", f"{__name__}.policies", **_POLICIES)
