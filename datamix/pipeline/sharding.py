"""Batches over many devices and processes: each reads the rows of its own devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from datamix.errors import ConfigError
from datamix.pipeline import xla
from datamix.pipeline.batching import Batching
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.iterator import BatchIterator, Output
from datamix.pipeline.program import Compiled
from datamix.pipeline.state import State
from datamix.spec import Batch, LeafSpec

AXIS = "data"
"""The axis of a mesh over whose devices the rows of each batch are divided."""


def next_batch(compiled: Compiled, cursor: Cursor, mesh: Mesh | None) -> tuple[Batch, Cursor]:
    """`Compiled.next`, for a function under `jit`, over the devices of a mesh with the single axis `AXIS`.

    Each device reads and computes its own rows or, if the batch cannot be divided equally, all of them.
    """
    if mesh is None:
        return compiled.next(cursor)
    size = compiled.program.batch_size
    is_divided = size % mesh.size == 0

    def rows(compiled: Compiled, cursor: Cursor) -> tuple[Batch, Cursor]:
        num_rows = size // mesh.size
        first = lax.axis_index(AXIS).astype("uint32") * num_rows
        return compiled.next(cursor, (first, num_rows) if is_divided else None)

    out_specs = (PartitionSpec(AXIS if is_divided else None), PartitionSpec())
    batch: tuple[Batch, Cursor] = jax.shard_map(
        rows, mesh=mesh, in_specs=PartitionSpec(), out_specs=out_specs, check_vma=False
    )(compiled, cursor)
    return batch


def replicated(tree: Any, mesh: Mesh) -> Any:
    """Turn arrays that are the same in every process into global arrays, replicated on all devices."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def whole(leaf: Any) -> jax.Array:
        copies = [jax.device_put(leaf, device) for device in mesh.local_devices]
        return jax.make_array_from_single_device_arrays(copies[0].shape, sharding, copies)

    return jax.tree.map(whole, tree)


class GlobalIterator(Iterator[Batch]):
    """An iterator over batches of global arrays, with the state of a `BatchIterator`; see `Pipeline.iterator`.

    The state is the same in every process, and can be restored under any other sharding and number of processes.
    Several threads may share one iterator, as a `BatchIterator`.

    Args:
      open_rows: Makes the iterator over some rows of every batch, with an output of `Pipeline.iterator`.
      batching: How the mix is cut into batches.
      spec: Shape and dtype of each leaf of one record.
      sharding: The sharding of a batch; for a leaf with fewer axes than it names, only the first ones count.

    Raises:
      ConfigError: It is not a sharding over devices, or a batch cannot be divided equally.
    """

    def __init__(
        self,
        open_rows: Callable[[slice, Output], BatchIterator],
        batching: Batching,
        spec: Mapping[str, LeafSpec],
        sharding: jax.sharding.Sharding,
    ) -> None:
        if not isinstance(sharding, jax.sharding.Sharding) or isinstance(getattr(sharding, "mesh", None), AbstractMesh):
            text = "it is a jax.sharding.Sharding over devices, as NamedSharding(mesh, PartitionSpec('data'))"
            raise ConfigError(text, key="sharding", value=sharding)
        if batching.short_rows:
            text = f"its last batch has {batching.short_rows} rows, and every batch is divided over the devices alike"
            raise ConfigError(text, key="batch.remainder", value="keep", hint="Set batch.remainder=drop.")
        size = batching.batch_size
        self._shardings = {leaf: _of_rank(sharding, 1 + len(part.shape)) for leaf, part in spec.items()}
        self._shapes = {leaf: (size, *part.shape) for leaf, part in spec.items()}
        is_held = np.zeros(size + 2, bool)  # the rows, with one more at either end
        for leaf, shape in self._shapes.items():
            try:
                indices = self._shardings[leaf].addressable_devices_indices_map(shape)
            except ValueError as error:
                mend = "Choose a multiple; if it is another axis, leave that out of the PartitionSpec."
                text = f"{leaf} {list(shape)} of a batch cannot be divided equally over the devices of {sharding}"
                raise ConfigError(text, key="batch.size", value=size, hint=mend) from error
            for index in filter(None, indices.values()):
                is_held[1:-1][index[0]] = True
        # One iterator for each run of consecutive rows: nearly always one.
        runs = [slice(begin, end) for begin, end in np.flatnonzero(np.diff(is_held)).reshape(-1, 2).tolist()]
        # Several devices copy their parts out of the host's memory; a single one uses its own memory.
        local = sharding.addressable_devices
        output: Output = "jax" if len(local) == 1 and not any(map(xla.is_host, local)) else "numpy"
        self._runs = [(rows, open_rows(rows, output)) for rows in runs]
        self._lock = threading.Lock()
        self._parts: list[tuple[slice, Batch]] = []  # of the next batch; not empty if Ctrl-C came between two

    @property
    def step(self) -> int:
        """The number of the next batch."""
        return self._runs[-1][1].step

    def __next__(self) -> Batch:
        with self._lock:
            for rows, iterator in self._runs[len(self._parts) :]:
                self._parts.append((rows, next(iterator)))
            parts, self._parts = self._parts, []
        return {leaf: self._global(leaf, [(rows, part[leaf]) for rows, part in parts]) for leaf in self._shapes}

    def _global(self, leaf: str, parts: list[tuple[slice, np.ndarray | jax.Array]]) -> jax.Array:
        shape = self._shapes[leaf]

        def local(index: tuple[slice, ...] | None) -> np.ndarray | jax.Array:
            assert index is not None
            bounds = [part.indices(size) for part, size in zip(index, shape, strict=True)]
            begin, end, _ = bounds[0]
            rows, values = next(part for part in parts if part[0].start <= begin < part[0].stop)
            if tuple(stop - start for start, stop, _ in bounds) == values.shape:
                return values
            return values[(slice(begin - rows.start, end - rows.start), *index[1:])]

        return jax.make_array_from_callback(shape, self._shardings[leaf], local)

    def state(self) -> State:
        """See `BatchIterator.state`."""
        return self._runs[-1][1].state()

    def restore(self, state: State, changed: Literal["mix"] | None = None) -> None:
        """See `BatchIterator.restore`."""
        with self._lock:
            for _, iterator in self._runs:
                iterator.restore(state, changed)
            self._parts = []

    def update(self, losses: Mapping[str, Any] | Any) -> None:
        """See `AdaptiveIterator.update`; every process must report the same losses."""
        for _, iterator in self._runs:
            iterator.update(losses)

    state_dict = get_state = state
    load_state_dict = set_state = restore

    def metrics(self) -> dict[str, Any]:
        """See `BatchIterator.metrics`."""
        return self._runs[-1][1].metrics()

    def close(self) -> None:
        """See `BatchIterator.close`."""
        for _, iterator in self._runs:
            iterator.close()


def _of_rank(sharding: jax.sharding.Sharding, rank: int) -> jax.sharding.Sharding:
    """A sharding for arrays with `rank` axes; a `NamedSharding` that names more is cut."""
    if isinstance(sharding, jax.sharding.NamedSharding) and len(sharding.spec) > rank:
        spec = jax.sharding.PartitionSpec(*sharding.spec[:rank])
        return jax.sharding.NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    return sharding
