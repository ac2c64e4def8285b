"""The jobs: what can be done with a mix, one module each."""

from __future__ import annotations

from datamix import registry

for _name in ("bench", "graph", "inspect", "plan", "prepare", "preview", "report", "suggest", "train"):
    registry.builtin("job", f"{__name__}.{_name}", **{_name: "run"})
