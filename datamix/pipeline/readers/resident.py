"""The reader of records that are all in the device's memory; its gathers fuse into the program."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import DataError
from datamix.pipeline import xla
from datamix.pipeline.locate import Located
from datamix.pipeline.readers.base import digest_of
from datamix.pipeline.tables import choose, look_up
from datamix.rng.hash import Words
from datamix.sources.base import Source, chunks_of
from datamix.sources.narrowing import Narrowing, refusal
from datamix.sources.statistics import LeafStatistics, Statistics, statistics_of
from datamix.spec import Arrays, FlatRows, LeafSpec, Spec


class Resident(NamedTuple):
    """Records in the device's memory: the sources of one spec lie in one array, so that one gather serves all.

    Attributes:
      groups: For each storage group, leaf name to array, shape [records of all the group's sources, elements]. The rows
        are flat: XLA's CPU backend does not vectorise an inner dimension of 1, and flat rows are 3 times faster than
        [28, 28, 1].
      first: Row of each source's first record in its group, uint32 [num_sources].
    """

    groups: tuple[FlatRows, ...]
    first: Words

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:  # noqa: ARG002
        """See `Reader`."""
        stored = choose(self.first, located.source) + located.record
        if member is not None:
            stored = jnp.where(member, stored, 0)
        return {leaf: look_up(values, stored) for leaf, values in self.groups[group].items()}

    def digest(self, group: int, source: int, num_records: int) -> str:
        """See `Reader`."""
        begin, storage = int(np.asarray(self.first)[source]), self.groups[group]
        spec = [(leaf, LeafSpec(values.shape[1:], str(values.dtype))) for leaf, values in storage.items()]

        def read(records: np.ndarray) -> Arrays:
            step = slice(begin, begin + num_records, int(records[1]) if len(records) > 1 else None)
            return {leaf: np.asarray(on_host(values)[step]) for leaf, values in storage.items()}

        def on_host(values: jax.Array) -> jax.Array | np.ndarray:
            # A slice on the device is a program, compiled for each shape and step.
            alone = isinstance(values, jax.Array) and values.platform() == "cpu" and len(values.devices()) == 1
            return xla.host_view(values) if alone else values

        return digest_of(num_records, spec, read)


def read_resident(
    sources: Mapping[str, Source], specs: Mapping[str, Spec], groups: list[list[int]], fed: Container[str] = ()
) -> tuple[Resident, Statistics]:
    """Read the sources, those of each storage group into one array, block by block.

    Args:
      sources: The sources by name, in order.
      specs: The spec of each source's records as they are stored.
      groups: The indices of each storage group's sources.
      fed: The names of the sources that are not read here, but on the host.

    Returns:
      The records as NumPy arrays, and the statistics of every leaf as the sources give it.

    Raises:
      DataError: Numbers do not fit the stored dtype, or a source gives another number of records than it said.
    """
    names = list(sources)
    first = np.zeros(len(names), np.uint32)
    storage: list[FlatRows] = []
    statistics: dict[str, Mapping[str, LeafStatistics]] = {}
    for everyone in groups:
        members = [member for member in everyone if names[member] not in fed]
        if not members:
            storage.append({})
            continue
        sizes = [sources[names[member]].num_records for member in members]
        ends = np.cumsum(sizes)
        first[members] = ends - sizes
        rows = {
            leaf: xla.aligned((int(ends[-1]), *part.flat), part.dtype)
            for leaf, part in specs[names[members[0]]].items()
        }
        for member, size in zip(members, sizes, strict=True):
            stored = {leaf: values[first[member] :][:size] for leaf, values in rows.items()}
            statistics[names[member]] = _read_into(stored, sources, names[member])
        storage.append(rows)
    return Resident(tuple(storage), first), {name: statistics[name] for name in names if name in statistics}


def _read_into(rows: Mapping[str, np.ndarray], sources: Mapping[str, Source], name: str) -> dict[str, LeafStatistics]:
    """Fill flat rows with the records of a source; returns the statistics of its leaves."""
    statistics: dict[str, list[tuple[LeafStatistics, int]]] = {leaf: [] for leaf in rows}
    narrowings = {leaf: Narrowing(stored.dtype) for leaf, stored in rows.items()}
    known: Mapping[str, LeafStatistics] | None = None
    last = 0
    for begin, block in chunks_of(sources[name]):
        if not begin:
            known = statistics_of(sources[name])  # only now, as it may compute them while it reads
        for leaf, stored in rows.items():
            values = block[leaf]
            last = begin + len(values)
            if last > len(stored):
                raise DataError(f"source {name!r}: leaf {leaf!r} has {last} records or more, not {len(stored)}.")
            if known is None:
                statistics[leaf].append((LeafStatistics.of(values), values.size))
            narrowings[leaf].add(values)
            with np.errstate(over="ignore"):  # overflow is refused below
                stored[begin:last] = values.reshape(-1, *stored.shape[1:])
    for leaf, stored in rows.items():
        if last < len(stored):
            raise DataError(f"source {name!r}: leaf {leaf!r} has {last} records, not {len(stored)}.")
        if lost := narrowings[leaf].lost():
            column = getattr(sources[name], "column_of", {}).get(leaf)
            raise DataError(f"source {name!r}: {refusal(name, leaf, lost, column=column)}")
    return {leaf: LeafStatistics.merged(statistics[leaf]) if known is None else known[leaf] for leaf in rows}
