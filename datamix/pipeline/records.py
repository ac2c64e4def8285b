"""The records of a mix one by one, for libraries that make batches themselves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from datamix.pipeline.iterator import PipelineLike
from datamix.spec import Arrays, Batch

_NUM_KEPT = 4  # batches: libraries read a little ahead, in several threads


class Records:
    """The records of a pipeline by number, like a map-style dataset of PyTorch or a source of Grain.

    Record i is row `i % batch_size` of batch `i // batch_size`, even if `skip` leaves that batch out, and is computed
    with it: records are cheap in order, and cost a batch each at random. A mix is shuffled already. Several threads may
    read records; they are pickled as their pipeline is.

    Args:
      pipeline: The pipeline; if it is endless, any record can be read, and there is no length.
    """

    def __init__(self, pipeline: PipelineLike) -> None:
        self._pipeline = pipeline
        self._kept: OrderedDict[int, Batch] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Records], tuple[PipelineLike]]:
        return type(self), (self._pipeline,)

    def __len__(self) -> int:
        """The number of records in all batches.

        Raises:
          TypeError: The mix never ends.
        """
        last, batching = len(self._pipeline) - 1, self._pipeline.batching
        return last * batching.batch_size + batching.num_rows(last)

    def __getitem__(self, number: int) -> Arrays:
        """The record with a number: leaf name to a separate NumPy array of the leaf's shape.

        Raises:
          IndexError: There is no such record.
        """
        if not isinstance(number, int | np.integer):
            raise TypeError(f"records are asked for by their numbers, not by {number!r}; several by __getitems__")
        index = int(number) + len(self) if number < 0 else int(number)
        batching = self._pipeline.batching
        if index < 0 or (batching.num_batches is not None and index >= len(self)):
            raise IndexError(f"there is no record {number} in a mix of {len(self)}")
        step, row = divmod(index, batching.batch_size)
        return {leaf: np.array(values[row]) for leaf, values in self._batch(step).items()}

    def __getitems__(self, numbers: Sequence[int]) -> list[Arrays]:
        """Several records, in the order of their numbers."""
        return [self[number] for number in numbers]

    def _batch(self, step: int) -> Batch:
        with self._lock:  # of threads that read neighbours, one computes their batch
            if step not in self._kept:
                self._kept[step] = self._pipeline[step]
                if len(self._kept) > _NUM_KEPT:
                    self._kept.popitem(last=False)
            return self._kept[step]
