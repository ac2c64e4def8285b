"""Mixes as Grain datasets."""

from __future__ import annotations

import sys
from typing import Any

from datamix.errors import ConfigError, not_installed
from datamix.pipeline.batching import Batching
from datamix.pipeline.iterator import BatchIterator
from datamix.pipeline.pipeline import Pipeline, require_loadable
from datamix.pipeline.records import Records
from datamix.pipeline.state import check_step, of_other_worker
from datamix.spec import Arrays, Batch

try:
    import grain
except ImportError as error:
    raise not_installed("datamix.interop.grain", "Grain", "grain") from error

_ALONE = 0, 1  # the index of a worker, and the number of workers


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
        batching, turns = self._pipeline.batching, self._turns
        iterator = self._pipeline.iterator(batching.after(0, turns.start), self._shard, stride=turns.step)
        return _Iterator(iterator, batching, (turns.start, turns.step))


class _Iterator(grain.DatasetIterator[Batch]):  # type: ignore[misc]
    def __init__(self, iterator: BatchIterator, batching: Batching, worker: tuple[int, int]) -> None:
        super().__init__()
        self._iterator, self._batching, self._worker = iterator, batching, worker

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        mark = {} if self._worker == _ALONE else {"worker": list(self._worker)}
        return self._iterator.state() | mark

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where this worker's state was taken.

        Grain takes that of a worker that has delivered nothing in the main process, which does not slice: it is that of
        all batches, at their start.

        Raises:
          StateError: It is no state of this worker, or another batch size or `skip` makes its step another one.
        """
        self._iterator.restore(state)
        before = tuple(state.get("worker", _ALONE))
        if before == self._worker == _ALONE:
            return
        check_step(state, self._iterator.step)
        if before == self._worker:
            return
        if before != _ALONE or state["step"] != self._batching.after(0, 0):
            raise of_other_worker(before, self._worker)
        self._iterator.seek(self._batching.after(0, self._worker[0]))
