"""The compiled pipeline, and how it hands out batches.

`graph` names the operators of a mix, and `lowering` makes a `program` of them. That runs three functions: `locate`
finds the records of a batch, by the `lookup` of each kind of period; one of the `readers` reads them; `transform`
applies the operators. `batching` cuts the mix into batches and shards, and `chunks` says how many of them are
computed in one call; `cursor` and `state` say where it stands.
`pipeline` is the front of all this; `iterator`, `adaptive_iterator`, `sharding` and `records` hand out what it
computes, and `where` says which records that is. By `policies`, `adapt` lets weights follow losses. `buffers`,
`tables`, `tokens`, `tracing` and `xla` serve others.
"""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("policy", ado="Ado", doremi="Doremi", loss_temperature="LossTemperature", odm="Odm")
def _policies() -> ModuleType:
    from datamix.pipeline import policies

    return policies
