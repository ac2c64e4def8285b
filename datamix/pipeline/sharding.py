"""Batches over many devices and processes: each reads the rows of its own devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from datamix.errors import ConfigError
from datamix.pipeline.batching import Batching
from datamix.pipeline.iterator import BatchIterator
from datamix.pipeline.state import State
from datamix.spec import Batch, LeafSpec


class GlobalIterator(Iterator[Batch]):
    """An iterator over batches of global arrays, with the state of a `BatchIterator`; see `Pipeline.iterator`.

    The state is the same in every process, and goes on under any other sharding and number of processes.

    Args:
      open_rows: Gives the iterator over some rows of every batch.
      batching: How the mix is cut into batches.
      spec: Shape and dtype of each leaf of one record.
      sharding: The sharding of a batch; of a leaf with fewer axes than it names, the first ones.

    Raises:
      ConfigError: A batch cannot be divided equally.
    """

    def __init__(
        self,
        open_rows: Callable[[slice], BatchIterator],
        batching: Batching,
        spec: Mapping[str, LeafSpec],
        sharding: jax.sharding.Sharding,
    ) -> None:
        if batching.short_rows:
            text = f"its last batch has {batching.short_rows} rows, and every batch is divided over the devices alike"
            raise ConfigError(text, key="batch.remainder", value="keep", hint="Set batch.remainder=drop.")
        size = batching.batch_size
        self._shardings = {leaf: _of_rank(sharding, 1 + len(part.shape)) for leaf, part in spec.items()}
        self._shapes = {leaf: (size, *part.shape) for leaf, part in spec.items()}
        rows: set[tuple[int, int]] = set()
        for leaf, shape in self._shapes.items():
            try:
                indices = self._shardings[leaf].addressable_devices_indices_map(shape)
            except ValueError as error:
                text = f"{leaf} {list(shape)} of a batch cannot be divided equally over the devices of {sharding}"
                raise ConfigError(text, key="batch.size", value=size, hint="Choose a multiple.") from error
            rows |= {index[0].indices(size)[:2] for index in indices.values() if index is not None}
        # One iterator for each run of rows that follow one another: nearly always one.
        self._runs: list[tuple[slice, BatchIterator]] = []
        begin = end = None
        for first, last in [*sorted(rows), (size + 1, size + 1)]:
            if begin is not None and end is not None and first > end:
                self._runs.append((slice(begin, end), open_rows(slice(begin, end))))
                begin = None
            begin, end = (first, last) if begin is None or end is None else (begin, max(end, last))

    @property
    def step(self) -> int:
        """The number of the next batch."""
        return self._runs[0][1].step

    def __next__(self) -> Batch:
        parts = [(rows, next(iterator)) for rows, iterator in self._runs]
        return {leaf: self._global(leaf, [(rows, part[leaf]) for rows, part in parts]) for leaf in self._shapes}

    def _global(self, leaf: str, parts: list[tuple[slice, np.ndarray]]) -> jax.Array:
        shape = self._shapes[leaf]

        def local(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            begin, end, _ = index[0].indices(shape[0])
            rows, values = next(part for part in parts if part[0].start <= begin < part[0].stop)
            return values[(slice(begin - rows.start, end - rows.start), *index[1:])]

        return jax.make_array_from_callback(shape, self._shardings[leaf], local)

    def state(self) -> State:
        """See `BatchIterator.state`."""
        return self._runs[0][1].state()

    def restore(self, state: State, changed: Literal["mix"] | None = None) -> None:
        """See `BatchIterator.restore`."""
        for _, iterator in self._runs:
            iterator.restore(state, changed)

    state_dict = get_state = state
    load_state_dict = set_state = restore

    def metrics(self) -> dict[str, Any]:
        """See `BatchIterator.metrics`."""
        return self._runs[0][1].metrics()

    def close(self) -> None:
        """See `BatchIterator.close`."""
        for _, iterator in self._runs:
            iterator.close()


def _of_rank(sharding: jax.sharding.Sharding, rank: int) -> jax.sharding.Sharding:
    """A sharding for arrays of a number of axes: of a `NamedSharding`, as many as there are."""
    if isinstance(sharding, jax.sharding.NamedSharding) and len(sharding.spec) > rank:
        spec = jax.sharding.PartitionSpec(*sharding.spec[:rank])
        return jax.sharding.NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    return sharding
