"""datamix mixes datasets in an exact ratio, in one compiled pipeline.

    pipeline = datamix.load("source=mnist+fashion", "mix.ratio=7:3", "batch.size=256")
    pipeline = datamix.mix({"a": arrays, "b": torch_dataset}, operators={"a": [to_float]}, weights={"a": 3})
    for batch in pipeline: ...              # {"image": …, "label": …, "source_id": …}

A mix is a pure function of (config, seed, position). A tour, in the order in which data flows:

* `sources` say where records come from: TFDS, array files, arrays in memory, any dataset with `len()` and `[i]`.
* `mixing` turns weights, an order and a stop into a `Plan`: position -> (source, epoch, record).
* `operators` are pure functions on one record; `pipeline` compiles them, and hands out batches from any position.
* `config` checks what Hydra composes, and `builder` makes pipelines from it; `registry` holds the names it may build.
* `interop` hands batches to other libraries, and `testing` checks your own parts.
* `training` trains models on a mix, `sweeps` compare mixes, and the command line runs `jobs`; `report` shows results.

The words:

* source: a dataset in the mix, under a name of its own.
* record: one example; a dict of arrays, its leaves.
* position: the number of a record in the mix, counted from 0.
* epoch: one pass through all records of a source.
* order: the rule that spreads the sources over positions by their weights, such as `proportional`.
* slot: the place of one record in the order, or of one batch where whole batches are mixed.
* period: the endless sequence of slots of one stage; the part of it that repeats is a cycle.
* schedule: weights that change with the step, which is the number of a batch.
* shard: the rows of every batch that one of several processes takes.
* rank: the number of that process among them.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Imported when first used: `import datamix` must not cost the import of JAX. The names are read from the stub for type
# checkers, so that there is only one list of them.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULES = {name: module for module, name in re.findall(r"^from (\S+) import (\w+) as \2$", _STUB, re.MULTILINE)}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'datamix' has no attribute {name!r}")
    if _MODULES[name] == __name__:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
