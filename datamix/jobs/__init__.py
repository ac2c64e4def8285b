"""The jobs that the command line runs on a mix, one module each."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from datamix import registry

for _name in ("bench", "graph", "inspect", "plan", "prepare", "preview", "report", "suggest", "train"):
    registry.builtin("job", **{_name: "run"})(partial(import_module, f"{__name__}.{_name}"))
