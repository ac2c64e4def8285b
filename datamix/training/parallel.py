"""Train one model on several devices of one or more processes: each learns from its own rows of every batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from datamix.errors import ConfigError
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.sharding import AXIS, replicated
from datamix.training.learner import HeldOut, Learner, TrainState
from datamix.training.replicas import Single
from datamix.training.tasks.base import Sums


def mesh_of(batch_size: int, num_devices: int | None = None) -> Mesh | None:
    """The mesh of the devices of all processes that train together; None for a single device.

    Args:
      batch_size: The number of records of a batch, which are divided among the devices.
      num_devices: The number of devices of each process; None for the most among which a batch divides equally.

    Raises:
      ConfigError: A process has fewer devices, or a batch cannot be divided equally.
    """
    num_processes = jax.process_count()
    most = min(Counter(device.process_index for device in jax.devices()).values())
    if num_devices is not None and num_devices > most:
        raise ConfigError(f"JAX has {most} of them in a process", key="train.devices", value=num_devices)
    usable = [count for count in range(1, most + 1) if batch_size % (count * num_processes) == 0]
    if (chosen := num_devices or max(usable, default=1)) not in usable:
        text = f"a batch cannot be divided equally among {num_processes} processes of {chosen} devices"
        mend = f"Choose a multiple of {chosen * num_processes}."
        raise ConfigError(text, key="batch.size", value=batch_size, hint=mend)
    if chosen * num_processes == 1:
        return None
    devices = [[each for each in jax.devices() if each.process_index == rank] for rank in range(num_processes)]
    return Mesh(np.concatenate([of_process[:chosen] for of_process in devices]), (AXIS,))


class Parallel(Single):
    """One model, replicated on every device of a mesh; see `datamix.training.learner.train`."""

    def __init__(self, mesh: Mesh, learner: Learner, *of_replicas: Any) -> None:
        super().__init__(learner, *(replicated(each, mesh) for each in of_replicas))
        self._mesh: Mesh = mesh
        self._tests: HeldOut | None = None

    def seek(self, cursors: Sequence[Cursor]) -> None:
        super().seek(replicated(cursors, self._mesh))

    def scores(self, data: HeldOut, num_batches: int, num_sources: int) -> list[Sums]:
        if self._tests is None:
            self._tests = replicated(data, self._mesh)
        return super().scores(self._tests, num_batches, num_sources)

    def state(self, replica: int) -> TrainState:
        state: TrainState = jax.tree.map(lambda leaf: leaf.addressable_data(0), super().state(replica))
        return state
