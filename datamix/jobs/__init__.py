"""The jobs: what can be done with a mix, one module each."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("job", "bench")
def _bench(_name: str) -> Any:
    from datamix.jobs.bench import run

    return run


@registry.builtin("job", "graph")
def _graph(_name: str) -> Any:
    from datamix.jobs.graph import run

    return run


@registry.builtin("job", "inspect")
def _inspect(_name: str) -> Any:
    from datamix.jobs.inspect import run

    return run


@registry.builtin("job", "plan")
def _plan(_name: str) -> Any:
    from datamix.jobs.plan import run

    return run


@registry.builtin("job", "prepare")
def _prepare(_name: str) -> Any:
    from datamix.jobs.prepare import run

    return run


@registry.builtin("job", "preview")
def _preview(_name: str) -> Any:
    from datamix.jobs.preview import run

    return run


@registry.builtin("job", "report")
def _report(_name: str) -> Any:
    from datamix.jobs.report import run

    return run


@registry.builtin("job", "suggest")
def _suggest(_name: str) -> Any:
    from datamix.jobs.suggest import run

    return run


@registry.builtin("job", "train")
def _train(_name: str) -> Any:
    from datamix.jobs.train import run

    return run
