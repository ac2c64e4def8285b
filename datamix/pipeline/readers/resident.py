"""The reader of records that lie whole in the device's memory; its gathers fuse into the program."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import DataError
from datamix.pipeline import xla
from datamix.pipeline.locate import Located
from datamix.pipeline.narrowing import what_is_lost
from datamix.pipeline.tables import choose, look_up
from datamix.sources.base import Source, read_all
from datamix.sources.statistics import LeafStatistics, Statistics, statistics_of
from datamix.spec import Record, Spec

_DIGESTED_BYTES = 2**20  # of a leaf: 1 ms; of a larger one, records at even distances
_DIGESTED_RECORDS = 256  # at least, whatever their size


class Resident(NamedTuple):
    """Records in the device's memory: the sources of one spec lie in one array, so that one gather serves all.

    Attributes:
      groups: For each storage group, leaf name to array, shape [records of all the group's sources, elements]. The rows
        are flat: XLA's CPU backend does not vectorise an inner dimension of 1, and flat rows are 3 times faster than
        [28, 28, 1].
      first: Row of each source's first record in its group, uint32 [num_sources].
    """

    groups: tuple[Record, ...]
    first: jax.Array

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> Record:  # noqa: ARG002
        """See `Reader`."""
        stored = choose(self.first, located.source) + located.record
        if member is not None:
            stored = jnp.where(member, stored, 0)
        return {leaf: look_up(values, stored) for leaf, values in self.groups[group].items()}

    def digest(self, group: int, source: int, num_records: int) -> str:
        """See `Reader`."""
        begin = int(np.asarray(self.first)[source])
        content = hashlib.blake2b(digest_size=8)
        for leaf, values in sorted(self.groups[group].items()):
            row_bytes = values.nbytes // max(1, len(values))
            step = min(-(-num_records * row_bytes // _DIGESTED_BYTES), num_records // _DIGESTED_RECORDS)
            rows = np.asarray(values[begin : begin + num_records : max(1, step)])
            content.update(f"{leaf} {rows.dtype} {num_records} {rows.shape}".encode())
            content.update(np.ascontiguousarray(rows).view(np.uint8).data)
        return content.hexdigest()


def read_resident(
    sources: Mapping[str, Source], specs: Mapping[str, Spec], groups: list[list[int]]
) -> tuple[Resident, Statistics]:
    """Read the sources, those of each storage group into one array.

    One after the other: beside what the pipeline keeps, no more than one source is in memory at a time.

    Args:
      sources: The sources by name, in order.
      specs: The spec of each source's records as they are stored.
      groups: The indices of each storage group's sources.

    Returns:
      The records, and the statistics of every leaf as the sources give it.

    Raises:
      DataError: Numbers do not fit the stored dtype, or a source gives another number of records than it said.
    """
    names = list(sources)
    first = np.zeros(len(names), np.uint32)
    storage = []
    statistics: dict[str, Mapping[str, LeafStatistics]] = {}
    for members in groups:
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
        storage.append(jax.device_put(rows))
    return Resident(tuple(storage), jnp.asarray(first)), {name: statistics[name] for name in names}


def _read_into(rows: Mapping[str, np.ndarray], sources: Mapping[str, Source], name: str) -> dict[str, LeafStatistics]:
    """Fill rows with one axis for a record's elements from a source."""
    arrays = read_all(sources[name])
    known = statistics_of(sources[name])  # now, as it may have found them while it read
    statistics = {}
    for leaf, stored in rows.items():
        values = arrays[leaf]
        if len(values) != len(stored):
            raise DataError(f"source {name!r}: leaf {leaf!r} has {len(values)} records, not {len(stored)}.")
        if lost := what_is_lost(values, stored.dtype):
            raise DataError(f"source {name!r}: leaf {leaf!r} {lost}; {_mend(name, lost)}")
        statistics[leaf] = LeafStatistics.of(values) if known is None else known[leaf]
        stored[...] = values.reshape(stored.shape)
    return statistics


def _mend(name: str, lost: str) -> str:
    """The advice on numbers that do not fit the 32 bits in which they are stored; a cast comes too late."""
    if "beyond" in lost:
        smaller = "divide it"
    elif "float" in lost:
        smaller = "save it as float32 if that is enough, subtract what its values have in common"
    else:
        smaller = "subtract what its values have in common"
    return f"{smaller}, or leave it out: of files, source.{name}.leaves chooses the leaves."
