"""The compiled pipeline, and how it hands out batches."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("policy", "ado", "doremi", "loss_temperature", "odm")
def _policy(name: str) -> Any:
    from datamix.pipeline import policies

    return getattr(policies, "".join(map(str.capitalize, name.split("_"))))
