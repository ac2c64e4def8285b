"""The jobs: what can be done with a mix, one module each."""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("job", bench="run")
def _bench() -> ModuleType:
    from datamix.jobs import bench

    return bench


@registry.builtin("job", graph="run")
def _graph() -> ModuleType:
    from datamix.jobs import graph

    return graph


@registry.builtin("job", inspect="run")
def _inspect() -> ModuleType:
    from datamix.jobs import inspect

    return inspect


@registry.builtin("job", plan="run")
def _plan() -> ModuleType:
    from datamix.jobs import plan

    return plan


@registry.builtin("job", prepare="run")
def _prepare() -> ModuleType:
    from datamix.jobs import prepare

    return prepare


@registry.builtin("job", preview="run")
def _preview() -> ModuleType:
    from datamix.jobs import preview

    return preview


@registry.builtin("job", report="run")
def _report() -> ModuleType:
    from datamix.jobs import report

    return report


@registry.builtin("job", suggest="run")
def _suggest() -> ModuleType:
    from datamix.jobs import suggest

    return suggest


@registry.builtin("job", train="run")
def _train() -> ModuleType:
    from datamix.jobs import train

    return train
