"""The contract of a reader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

import jax
import numpy as np

from datamix.pipeline.locate import Located
from datamix.spec import Arrays, FlatRows, LeafSpec, bytes_of

_DIGESTED_BYTES = 2**20  # of a source, in 1 ms; of a larger one, records at even distances
_DIGESTED_RECORDS = 256  # at least, whatever their size

Read = Callable[[int, Located, jax.Array, jax.Array | None], FlatRows]
"""See `Reader.read`."""


class Reader(Protocol):
    """The second step of the program, which reads located records; a pytree, and an argument of the program."""

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> FlatRows:
        """Flat records of one storage group.

        Args:
          group: Index of the storage group; static.
          located: The records to read.
          row: The row of the computed batches that each of them will fill, uint32 [count].
          member: Whether each record is of this group, bool [count]; what is returned for the others is arbitrary. None
            if all are, and all rows are requested in order.

        Returns:
          Leaf name to array, shape [count, elements] or [count] for a scalar.
        """
        ...

    def digest(self, group: int, source: int, num_records: int) -> str:
        """Digest the contents of a source: every byte of a small one, some hundred records of a large one.

        Args:
          group: Index of its storage group.
          source: Index of the source.
          num_records: The number of its records.
        """
        ...


def digest_of(num_records: int, spec: Iterable[tuple[str, LeafSpec]], read: Callable[[np.ndarray], Arrays]) -> str:
    """Digest the contents of a source; see `Reader.digest`.

    Args:
      num_records: The number of its records.
      spec: The spec of its records as they are stored.
      read: Reads records by their numbers, int64 [count], as leaf name to array, shape [count, elements].
    """
    record_bytes = bytes_of(dict(spec))
    step = min(-(-num_records * record_bytes // _DIGESTED_BYTES), num_records // _DIGESTED_RECORDS)
    content = hashlib.blake2b(digest_size=8)
    for leaf, rows in sorted(read(np.arange(0, num_records, max(1, step))).items()):
        content.update(f"{leaf} {rows.dtype} {num_records} {rows.shape}".encode())
        content.update(np.ascontiguousarray(rows).view(np.uint8).data)
    return content.hexdigest()
