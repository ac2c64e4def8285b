"""The jobs: what can be done with a mix, one module each."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("job", "bench", "graph", "inspect", "plan", "prepare", "preview", "report", "suggest", "train")
def _job(name: str) -> Any:
    run: Any
    match name:
        case "bench":
            from datamix.jobs.bench import run
        case "graph":
            from datamix.jobs.graph import run
        case "inspect":
            from datamix.jobs.inspect import run
        case "plan":
            from datamix.jobs.plan import run
        case "prepare":
            from datamix.jobs.prepare import run
        case "preview":
            from datamix.jobs.preview import run
        case "report":
            from datamix.jobs.report import run
        case "suggest":
            from datamix.jobs.suggest import run
        case "train":
            from datamix.jobs.train import run
    return run
