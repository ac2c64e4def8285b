"""The compiled pipeline, and how it hands out batches.

`graph` names the operators of a mix, and `lowering` turns them into a `program`, which runs three functions: `locate`
finds the records of a batch, with a `lookup` for each kind of period; one of the `readers` reads them; `transform`
applies the operators. `batching` cuts the mix into batches and shards, and `chunks` decides how many of them one call
computes; `cursor` and `state` hold a position in the mix. `pipeline` is the interface to all this; `iterator`,
`adaptive_iterator`, `sharding` and `records` hand out what it computes, and `where` tells which records these are.
`adapt` lets weights follow losses, by one of the `policies`. `buffers`, `tables`, `tokens`, `tracing` and `xla` serve
the others.
"""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("policy", ado="Ado", doremi="Doremi", loss_temperature="LossTemperature", odm="Odm")
def _policies() -> ModuleType:
    from datamix.pipeline import policies

    return policies
