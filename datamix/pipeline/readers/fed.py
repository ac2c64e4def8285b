"""The reader of records of which some lie on the host: what compiled programs see of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import DatamixError
from datamix.pipeline import xla
from datamix.pipeline.locate import Located
from datamix.pipeline.readers.base import digest_of
from datamix.pipeline.readers.host import HostReader, Staging
from datamix.pipeline.readers.resident import Resident
from datamix.pipeline.tables import choose, look_up
from datamix.pipeline.tokens import object_of
from datamix.rng.hash import Words
from datamix.spec import FlatRows, LeafSpec


class RowsReader(NamedTuple):
    """Resident records, and those that were read for the rows of one call.

    Attributes:
      resident: The records in the device's memory.
      is_fed: Whether the records of each source are read on the host, bool [num_sources].
      rows: For each storage group, leaf name to array, shape [rows, elements]; empty where nothing is fed.
      row_of_each: The row of its group's `rows` in which the record of each row of the call stands, uint32 [rows].
    """

    resident: Resident
    is_fed: jax.Array | np.ndarray
    rows: tuple[FlatRows, ...]
    row_of_each: jax.Array | np.ndarray

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:
        """See `Reader`."""
        staged, resident = self.rows[group], self.resident.groups[group]
        if not staged:
            return self.resident.read(group, located, row, member)
        at = jnp.asarray(self.row_of_each) if member is None else look_up(self.row_of_each, row)
        if not resident:
            at = at if member is None else jnp.where(member, at, 0)
            return {leaf: look_up(values, at) for leaf, values in staged.items()}
        # Both kinds in one group, so that the program is that of resident records, whatever lies where.
        is_fed = choose(self.is_fed, located.source)
        is_member = True if member is None else member
        here = self.resident.read(group, located, row, ~is_fed & is_member)
        at = jnp.where(is_fed & is_member, at, 0)
        return {
            leaf: jnp.where(is_fed.reshape(-1, *[1] * (values.ndim - 1)), look_up(values, at), here[leaf])
            for leaf, values in staged.items()
        }

    def digest(self, group: int, source: int, num_records: int) -> str:
        """See `Reader`; of resident sources alone."""
        return self.resident.digest(group, source, num_records)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Fed:
    """The reader of a mix of which some sources are read on the host, by a callback from the compiled program.

    Attributes:
      specs: The spec of the fed records of each storage group; empty where there are none; static.
      resident: The records in the device's memory.
      is_fed: Whether the records of each source are read on the host, bool [num_sources].
      token: The number of the `HostReader`, uint32 [].
    """

    specs: tuple[tuple[tuple[str, LeafSpec], ...], ...] = field(metadata={"static": True})
    resident: Resident
    is_fed: jax.Array | np.ndarray
    token: Words

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:  # noqa: ARG002
        """See `Reader`."""
        return self.read_now(located).read(group, located, jnp.arange(len(located.source), dtype=jnp.uint32), member)

    def with_rows(self, staging: Staging) -> RowsReader:
        """The reader of records that were read before the call."""
        return RowsReader(self.resident, self.is_fed, tuple(staging.rows), staging.index)

    def read_now(self, located: Located, ahead: Located | None = None) -> RowsReader:
        """Read now those of `located` that lie on the host, and begin to read those of `ahead`."""
        count = len(located.source)
        rows = tuple(
            {leaf: jax.ShapeDtypeStruct((count, *part.flat), part.dtype) for leaf, part in spec} for spec in self.specs
        )
        index = jax.ShapeDtypeStruct((count,), jnp.uint32)
        xla.logger_of("callback").addFilter(_is_unknown)
        # One argument: JAX makes an array of each, which takes 50 µs.
        words = [word for each in (located, ahead) if each is not None for word in (each.source, each.record)]
        argument = jnp.concatenate([jnp.stack([self.token, jnp.uint32(count)]), *words])
        rows, index = jax.pure_callback(_read, (rows, index), argument, vmap_method="broadcast_all")
        return RowsReader(self.resident, self.is_fed, rows, index)

    def digest(self, group: int, source: int, num_records: int) -> str:
        """See `Reader`."""
        host: HostReader = object_of(int(self.token))
        if not host.is_fed[source]:
            return self.resident.digest(group, source, num_records)
        return digest_of(num_records, self.specs[group], lambda records: host.rows_of(source, records))


def fed_reader(host: HostReader, resident: Resident) -> Fed:
    """The reader of a mix, of what is read on the host and what is resident."""
    specs = tuple(tuple(spec.items()) for spec in host.specs)
    return Fed(specs, resident, host.is_fed, np.uint32(host.token))


class Stagings:
    """The staging memory of one iterator and one of its programs, which is used again, and what the device sees of it.

    Args:
      reader: The reader of the pipeline.
      host: Its reader on the host.
      capacity: The most records of a call.
      device: Where the program runs.
    """

    def __init__(self, reader: Fed, host: HostReader, capacity: int, device: jax.Device) -> None:
        self._reader, self._host, self._capacity = reader, host, capacity
        self._free: list[Staging] = []
        self._put = [
            {leaf: xla.putter((capacity, *part.flat), part.dtype, device) for leaf, part in spec}
            for spec in reader.specs
        ]
        self._put_index = xla.putter((capacity,), "uint32", device)

    def take(self) -> Staging:
        """Memory that may be overwritten."""
        return self._free.pop() if self._free else Staging(self._host.specs, self._capacity)

    def give_back(self, staging: Staging) -> None:
        """Take memory back that no thread writes to and no call reads any more."""
        self._free.append(staging)

    def on_device(self, staging: Staging) -> RowsReader:
        """The reader of what was read; on CPU it looks at the same memory."""
        staged: RowsReader | None = staging.on_device
        if staged is None:
            rows = tuple(
                {leaf: put[leaf](values) for leaf, values in rows.items()}
                for put, rows in zip(self._put, staging.rows, strict=True)
            )
            staged = RowsReader(self._reader.resident, self._reader.is_fed, rows, self._put_index(staging.index))
            if all(map(xla.is_view, jax.tree.leaves(staged[2:]), jax.tree.leaves((*staging.rows, staging.index)))):
                staging.on_device = staged
        return staged


_failed: deque[DatamixError] = deque(maxlen=16)  # by callbacks; XLA passes on their text alone


def _read(words: jax.Array) -> tuple[tuple[FlatRows, ...], np.ndarray]:
    """`Fed.read_now`, on the host; under `vmap` with more axes in front.

    Args:
      words: The number of the `HostReader`, and that of records; the source of each that is asked for, then the record
        of each; and those of what will be.
    """
    mapped = words.shape[:-1]  # the axes of vmap
    lines = np.array(words).reshape(-1, words.shape[-1])  # a copy: theirs is JAX's memory
    tokens, each = lines[:, 0].tolist(), lines[:, 2:].reshape(len(lines), -1, 2, lines[0, 1])
    try:
        hosts: list[HostReader] = [object_of(token) for token in tokens]
        readings = [host.read_ahead(*map(tuple, rows)) for host, rows in zip(hosts, each, strict=True)]
        stagings = [host.finished(reading) for host, reading in zip(hosts, readings, strict=True)]
    except DatamixError as error:
        _failed.append(error)
        raise
    arrays = [(tuple(staging.rows), staging.index) for staging in stagings]
    joined: tuple[tuple[FlatRows, ...], np.ndarray] = jax.tree.map(
        lambda *parts: np.stack(parts).reshape(*mapped, *parts[0].shape) if mapped else parts[0], *arrays
    )
    return joined


@contextmanager
def failures_named() -> Iterator[None]:
    """Raise what ended a callback as it was: XLA raises another error, with the text of this one among much else.

    Raises:
      DatamixError: A record could not be read.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # one where it is waited for, the other in the call
        text = str(error)
        for failed in reversed(_failed):  # several threads may wait for batches of several pipelines
            if str(failed) in text:
                _failed.remove(failed)
                raise failed from error
        raise


def _is_unknown(record: logging.LogRecord) -> bool:
    """Whether JAX's log of an error in a callback says something that no error of datamix says."""
    return not (record.exc_info and isinstance(record.exc_info[1], DatamixError))
