"""The reader of a mix with records on the host, as compiled programs see it."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.errors import DatamixError
from datamix.pipeline import xla
from datamix.pipeline.locate import Located
from datamix.pipeline.readers.base import digest_of
from datamix.pipeline.readers.host import HostReader, Staging, num_rows
from datamix.pipeline.readers.resident import Resident
from datamix.pipeline.tables import choose, look_up
from datamix.pipeline.tokens import object_of
from datamix.rng.hash import Words
from datamix.spec import FlatRows, LeafSpec, Spec, bytes_of

# Of the records that one callback reads. A callback takes 300 µs, as long as a small model's step, so that one for each
# batch halved the speed of training.
_CALL_BYTES = 4 * 2**20


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class InPlace:
    """A leaf of a source's records, used in place, where it lies in the host's memory.

    Attributes:
      values: Its elements, one record after the other; flat.
      first: The index of the first record's first element in `values`, uint32 [].
      shape: The shape of a record's flat leaf; static.
    """

    values: jax.Array
    first: Words
    shape: tuple[int, ...] = field(metadata={"static": True})

    def read(self, record: jax.Array) -> jax.Array:
        """The leaf of some records, shape [count, elements] or [count]."""
        size = math.prod(self.shape)
        begins = self.first + record * jnp.uint32(size)
        numbers = lax.GatherDimensionNumbers((1,), (), (0,))
        rows = lax.gather(self.values, begins[:, None], numbers, (size,), mode="promise_in_bounds")
        return rows.reshape(-1, *self.shape)


Views = tuple[dict[str, dict[int, InPlace]], ...]
"""For each storage group, leaf name to that leaf of each fed source, by the index of the source."""


class RowsReader(NamedTuple):
    """Resident records, and those that were read for the rows of one call, or are used in place.

    Attributes:
      resident: The records in the device's memory.
      is_fed: Whether the records of each source are read on the host, bool [num_sources].
      rows: For each storage group, leaf name to array, shape [rows, elements]; empty if nothing is fed.
      row_of_each: For each row of the call, the row of its group's `rows` that holds its record, uint32 [rows].
      views: The leaves of fed records that are used in place, and not in `rows`.
    """

    resident: Resident
    is_fed: jax.Array | np.ndarray
    rows: tuple[FlatRows, ...]
    row_of_each: jax.Array | np.ndarray
    views: Views

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:
        """See `Reader`."""
        resident = self.resident.groups[group]
        if not (self.rows[group] or self.views[group]):
            return self.resident.read(group, located, row, member)
        if not resident:
            return self._fed(group, located, row, member)
        # Both kinds are in one group, so that the program is that of resident records, wherever they lie.
        is_fed = choose(self.is_fed, located.source)
        is_member = True if member is None else member
        stored = self.resident.read(group, located, row, ~is_fed & is_member)
        fed = self._fed(group, located, row, is_fed & is_member)
        return {leaf: _where(is_fed, values, stored[leaf]) for leaf, values in fed.items()}

    def _fed(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:
        """Read the fed records of a group."""
        at = jnp.asarray(self.row_of_each) if member is None else jnp.where(member, look_up(self.row_of_each, row), 0)
        records = {leaf: look_up(values, at) for leaf, values in self.rows[group].items()}
        for leaf, sources in self.views[group].items():
            for source, view in sources.items():
                is_here = (located.source == source) & (True if member is None else member)
                values = view.read(jnp.where(is_here, located.record, 0))
                records[leaf] = _where(is_here, values, records[leaf]) if leaf in records else values
        return records

    def digest(self, group: int, source: int, num_records: int) -> str:
        """See `Reader`; for resident sources only."""
        return self.resident.digest(group, source, num_records)


def _where(is_first: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """The rows of `first` where `is_first`, and of `second` elsewhere."""
    return jnp.where(is_first.reshape(-1, *[1] * (first.ndim - 1)), first, second)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Fed:
    """The reader of a mix with sources that are read on the host, by a callback from the compiled program.

    Attributes:
      specs: The spec of the fed records of each storage group; empty if there are none; static.
      most_records: The most records to read in one callback for several batches; static.
      resident: The records in the device's memory.
      is_fed: Whether the records of each source are read on the host, bool [num_sources].
      token: The number of the `HostReader`, uint32 [].
    """

    specs: tuple[tuple[tuple[str, LeafSpec], ...], ...] = field(metadata={"static": True})
    most_records: int = field(metadata={"static": True})
    resident: Resident
    is_fed: jax.Array | np.ndarray
    token: Words

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:  # noqa: ARG002
        """See `Reader`."""
        return self.read_now(located).read(group, located, jnp.arange(len(located.source), dtype=jnp.uint32), member)

    def with_rows(self, staging: Staging) -> RowsReader:
        """The reader of records that were read before the call."""
        return RowsReader(self.resident, self.is_fed, tuple(staging.rows), staging.index, ({},) * len(self.specs))

    def read_now(self, located: Located, ahead: Located | None = None) -> RowsReader:
        """Read now those of `located` that lie on the host, and begin to read those of `ahead`."""
        count = len(located.source)
        rows = tuple(
            {leaf: jax.ShapeDtypeStruct((num_rows(count), *part.flat), part.dtype) for leaf, part in spec}
            for spec in self.specs
        )
        index = jax.ShapeDtypeStruct((count,), jnp.uint32)
        xla.logger_of("callback").addFilter(_is_unknown)
        # One argument: JAX turns each into an array, which takes 50 µs.
        words = [word for each in (located, ahead) if each is not None for word in (each.source, each.record)]
        argument = jnp.concatenate([jnp.stack([self.token, jnp.uint32(count)]), *words])
        rows, index = jax.pure_callback(_read, (rows, index), argument, vmap_method="broadcast_all")
        return RowsReader(self.resident, self.is_fed, rows, index, ({},) * len(self.specs))

    def digest(self, group: int, source: int, num_records: int) -> str:
        """See `Reader`."""
        host: HostReader = object_of(int(self.token))
        if not host.is_fed[source]:
            return self.resident.digest(group, source, num_records)
        return digest_of(num_records, self.specs[group], lambda records: host.rows_of(source, records))


def fed_reader(host: HostReader, resident: Resident) -> Fed:
    """The reader of a mix with sources read on the host and resident ones."""
    specs = tuple(tuple(spec.items()) for spec in host.specs)
    # Two callbacks' records are in memory, those of one ahead.
    most_records = min(_CALL_BYTES, host.prefetch_bytes // 2) // max(host.record_bytes, 1)
    return Fed(specs, most_records, resident, host.is_fed, np.uint32(host.token))


def views(host: HostReader, device: jax.Device) -> Views:
    """The leaves of fed records that a device uses in place; none if it has its own memory."""
    if (known := host.views.get(device)) is None:
        flat = [
            {leaf: {i: xla.flat_view(values, device) for i, values in each.items()} for leaf, each in leaves.items()}
            for leaves in host.in_place
        ]
        known = host.views[device] = tuple(
            {
                leaf: {i: InPlace(view[0], np.uint32(view[1]), spec[leaf].flat) for i, view in each.items() if view}
                for leaf, each in leaves.items()
                if all(each.values())
            }
            for leaves, spec in zip(flat, host.specs, strict=True)
        )
    return known


def staged_bytes(host: HostReader, device: jax.Device) -> int:
    """Bytes of one staging row of all groups."""
    return sum(map(bytes_of, _staged(host, device)))


def _staged(host: HostReader, device: jax.Device) -> list[Spec]:
    """The leaves of each storage group that are read into staging rows."""
    return [
        {leaf: part for leaf, part in spec.items() if leaf not in leaves}
        for spec, leaves in zip(host.specs, views(host, device), strict=True)
    ]


class Stagings:
    """The reusable staging memory of one program of an iterator, and the arrays of it on the device.

    Args:
      reader: The reader of the pipeline.
      capacity: The most records of a call.
      device: Where the program runs.
    """

    def __init__(self, reader: Fed, capacity: int, device: jax.Device) -> None:
        self._reader, self._capacity = reader, capacity
        self._host: HostReader = object_of(int(reader.token))
        self._views, self._specs = views(self._host, device), _staged(self._host, device)
        self._free: list[Staging] = []
        self._allocate = partial(xla.pinned, device=device)
        self._put = [
            {leaf: xla.putter((num_rows(capacity), *part.flat), part.dtype, device) for leaf, part in spec.items()}
            for spec in self._specs
        ]
        self._put_index = xla.putter((capacity,), "uint32", device)

    def take(self) -> Staging:
        """Memory that may be overwritten."""
        return self._free.pop() if self._free else Staging(self._specs, self._capacity, self._allocate)

    def give_back(self, staging: Staging) -> None:
        """Take back memory that no thread writes to and no call reads any more."""
        self._free.append(staging)

    def in_place(self) -> RowsReader:
        """The reader if no records are read into staging rows."""
        return self.on_device(self._unstaged)

    @cached_property
    def _unstaged(self) -> Staging:
        return self.take()

    def read(self, source: np.ndarray, record: np.ndarray) -> RowsReader:
        """Read some records, and return their reader; see `HostReader.read`."""
        if not any(self._specs):
            return self.in_place()
        return self.on_device(self._host.read(source, record, self._capacity, self._specs))

    def on_device(self, staging: Staging) -> RowsReader:
        """The reader of records that were staged or are used in place; on a CPU it uses the same memory.

        Raises:
          DataError: A file whose records are used in place was truncated.
        """
        self._host.check_in_place()
        staged: RowsReader | None = staging.on_device
        if staged is None:
            rows = tuple(
                {leaf: put[leaf](values) for leaf, values in rows.items()}
                for put, rows in zip(self._put, staging.rows, strict=True)
            )
            index = self._put_index(staging.index)
            staged = RowsReader(self._reader.resident, self._reader.is_fed, rows, index, self._views)
            if all(map(xla.is_view, jax.tree.leaves((rows, index)), jax.tree.leaves((staging.rows, staging.index)))):
                staging.on_device = staged
        return staged


_failed: deque[DatamixError] = deque(maxlen=16)  # errors of callbacks; XLA passes on only their text


def _read(words: jax.Array) -> tuple[tuple[FlatRows, ...], np.ndarray]:
    """`Fed.read_now`, on the host; with leading axes under `vmap`.

    Args:
      words: The token of the `HostReader`, and the number of records; the source of each record to read now, then the
        record numbers; and likewise for those to read ahead.
    """
    mapped = words.shape[:-1]  # the axes of vmap
    lines = np.array(words).reshape(-1, words.shape[-1])  # a copy, as JAX owns the memory of the argument
    tokens, requests = lines[:, 0].tolist(), lines[:, 2:].reshape(len(lines), -1, 2, lines[0, 1])
    try:
        hosts: list[HostReader] = [object_of(token) for token in tokens]
        readings = [host.read_ahead(*map(tuple, rows)) for host, rows in zip(hosts, requests, strict=True)]
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
    """Raise the original error of a callback: XLA raises another one, whose long text contains that of the original.

    Raises:
      DatamixError: A record could not be read.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # the first while waiting, the second in the call
        text = str(error)
        for failed in reversed(_failed):  # several threads may wait for batches of several pipelines
            if str(failed) in text:
                _failed.remove(failed)
                raise failed from error
        raise


def _is_unknown(record: logging.LogRecord) -> bool:
    """Whether JAX's log of an error in a callback is about another error than datamix's own, which are raised."""
    return not (record.exc_info and isinstance(record.exc_info[1], DatamixError))
