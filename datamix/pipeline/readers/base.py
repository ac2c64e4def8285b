"""The contract of a reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax

from datamix.pipeline.locate import Located
from datamix.spec import Record

Read = Callable[[int, Located, jax.Array, jax.Array | None], Record]
"""See `Reader.read`."""


class Reader(Protocol):
    """The second step of the program: records of located places; a pytree, and an argument of the program."""

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> Record:
        """Flat records of one storage group.

        Args:
          group: Index of the storage; static.
          located: Which records.
          row: The row of the computed batches in which each of them will stand, uint32 [count].
          member: Whether each record is of this group, bool [count]; None if all are. What is returned for the others
            does not matter.

        Returns:
          Leaf name to array, shape [count, elements] or [count] for a scalar.
        """
        ...

    def digest(self, group: int, source: int, num_records: int) -> str:
        """Digest the contents of a source: of a small one every byte, of a large one some hundred records.

        Args:
          group: Index of its storage.
          source: Index of the source.
          num_records: The number of its records.
        """
        ...
