"""Mixes as Grain datasets."""

from __future__ import annotations

import sys
from typing import Any

from datamix.errors import ConfigError, not_installed
from datamix.pipeline.iterator import BatchIterator
from datamix.pipeline.pipeline import Pipeline, require_loadable
from datamix.pipeline.records import Records
from datamix.spec import Arrays, Batch

try:
    import grain
except ImportError as error:
    raise not_installed("datamix.interop.grain", "Grain", "grain") from error


def dataset(pipeline: Pipeline) -> grain.MapDataset[Arrays]:
    """The single records of a pipeline as a map-style dataset; an endless mix has `sys.maxsize` of them.

    >>> import datamix, numpy as np
    >>> pipeline = datamix.mix({"a": {"label": np.arange(8)}}, batch_size=4, shuffle="none")
    >>> [int(record["label"]) for record in dataset(pipeline)[4:6]]
    [4, 5]
    """
    require_loadable(pipeline)
    return grain.MapDataset.source(_Source(pipeline.records()))


def batches(pipeline: Pipeline, *, shard: tuple[int, int] = (0, 1)) -> grain.IterDataset[Batch]:
    """The batches of a pipeline, or one rank's rows of each; iterators have the state methods of Grain.

    >>> import datamix, numpy as np
    >>> pipeline = datamix.mix({"a": {"label": np.arange(8)}}, batch_size=4, shuffle="none")
    >>> [batch["label"].tolist() for batch in batches(pipeline)]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    require_loadable(pipeline)
    pipeline.batching.check_shard(shard)
    return _Batches(pipeline, shard)


class _Source:
    """The records of a pipeline as a Grain source, which needs a length."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        try:
            return len(self._records)
        except TypeError:  # an endless mix
            return sys.maxsize

    def __getitem__(self, number: int) -> Arrays:
        return self._records[number]


class _Batches(grain.IterDataset[Batch]):  # type: ignore[misc]
    def __init__(self, pipeline: Pipeline, shard: tuple[int, int]) -> None:
        super().__init__()
        self._pipeline, self._shard, self._turns = pipeline, shard, range(sys.maxsize)

    def set_slice(self, turns: slice, sequential_slice: bool = False) -> None:
        """Keep only the batches of one Grain worker, for `mp_prefetch`."""
        if sequential_slice:
            raise ConfigError("workers take the batches of a mix in turn", key="sequential_slice", value=True)
        self._turns = self._turns[turns]

    def __iter__(self) -> grain.DatasetIterator[Batch]:
        first = self._pipeline.batching.after(0, self._turns.start)
        return _Iterator(self._pipeline.iterator(first, self._shard, stride=self._turns.step))


class _Iterator(grain.DatasetIterator[Batch]):  # type: ignore[misc]
    def __init__(self, iterator: BatchIterator) -> None:
        super().__init__()
        self._iterator = iterator

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        return self._iterator.state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.restore(state)
