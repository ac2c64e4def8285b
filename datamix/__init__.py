"""datamix mixes datasets in an exact ratio, in one compiled pipeline.

    pipeline = datamix.load("source=mnist+fashion", "mix.ratio=7:3", "batch.size=256")
    for batch in pipeline: ...              # {"image": …, "label": …, "source_id": …}

A mix is a pure function of (config, seed, position). The tour, in the order in which the data flows:

* `registry` holds the names that a config may build; `source` and `operator` add your own.
* `sources` read whole datasets as arrays: TFDS, `.npz` files, arrays in memory, look-alikes drawn by code.
* `mixing` turns weights, an order and a stop into the stages of a `Plan`: position -> (source, epoch, record).
* `operators` are pure functions on one record; `graph` says which follows which.
* `Pipeline` compiles plan, look-up and operators into one program, and hands out batches from any position.
* `training` has models, optimisers and the compiled loop over batches; `model` adds your own.
* `config` and `build` make all of this from Hydra configs; `jobs` use it and `report` on it; `cli` is the command line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamix.build.built import load
    from datamix.errors import ConfigError, DataError, DatamixError, RegistryError, SpecError, StateError
    from datamix.mixing.orders import order
    from datamix.mixing.plan import Plan, Selection
    from datamix.mixing.stops import stop
    from datamix.mixing.weightings import weighting
    from datamix.operators.base import operator
    from datamix.pipeline.cursor import Cursor
    from datamix.pipeline.pipeline import Pipeline
    from datamix.sources.arrays import MemoryArrays
    from datamix.sources.base import source
    from datamix.training.models import model

__version__ = "0.1.0"

# Loaded when first used: `import datamix` must not cost the import of JAX.
_PUBLIC = {
    "ConfigError": "datamix.errors",
    "Cursor": "datamix.pipeline.cursor",
    "DataError": "datamix.errors",
    "DatamixError": "datamix.errors",
    "MemoryArrays": "datamix.sources.arrays",
    "Pipeline": "datamix.pipeline.pipeline",
    "Plan": "datamix.mixing.plan",
    "RegistryError": "datamix.errors",
    "Selection": "datamix.mixing.plan",
    "SpecError": "datamix.errors",
    "StateError": "datamix.errors",
    "load": "datamix.build.built",
    "model": "datamix.training.models",
    "operator": "datamix.operators.base",
    "order": "datamix.mixing.orders",
    "source": "datamix.sources.base",
    "stop": "datamix.mixing.stops",
    "weighting": "datamix.mixing.weightings",
}

__all__ = [
    "ConfigError",
    "Cursor",
    "DataError",
    "DatamixError",
    "MemoryArrays",
    "Pipeline",
    "Plan",
    "RegistryError",
    "Selection",
    "SpecError",
    "StateError",
    "__version__",
    "load",
    "model",
    "operator",
    "order",
    "source",
    "stop",
    "weighting",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'datamix' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
