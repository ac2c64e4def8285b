"""The order of the records within a source: a keyed permutation of each epoch, or of windows within it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datamix.errors import ConfigError
from datamix.rng import permute
from datamix.rng.hash import fold


def parse_shuffle(value: object) -> tuple[str, int]:
    """Read a setting of the shuffle: its kind, and the records of a window.

    Raises:
      ConfigError: It is none.

    >>> parse_shuffle("window(500)"), parse_shuffle(True)
    (('window', 500), ('full', 1))
    """
    if isinstance(value, bool):
        value = "full" if value else "none"
    match = re.fullmatch(r"full|none|window\((\d+)\)", str(value).replace(" ", ""))
    if match is None or not 1 <= int(match[1] or 1) <= permute.MAX_SIZE:
        text = "it is full, none, or window(n) with n at least 1, as in window(1000)"
        raise ConfigError(text, key="shuffle", value=None if value == "null" else value)
    return match[0].partition("(")[0], int(match[1] or 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shuffle:
    """The order of the records within their sources.

    Attributes:
      kind: "full", "window" or "none".
      window: The records of a window.
      sizes: The number of records of each source, shape [num_sources].
      keys: The key of each source's shuffle, two words each.
    """

    kind: str
    window: int
    sizes: tuple[int, ...]
    keys: tuple[tuple[int, int], ...]

    @cached_property
    def grid(self) -> permute.Domain:
        """The grid of each source's shuffle, or of its whole windows, uint32 [num_sources]."""
        if self.kind == "window":
            return permute.domain([self.window] * len(self.sizes))
        return permute.domain([max(size, 1) for size in self.sizes])

    @cached_property
    def tail(self) -> permute.Domain:
        """The grid of each source's last window, which may be shorter, uint32 [num_sources]."""
        if self.kind != "window":
            return self.grid
        return permute.domain([size % self.window or 1 for size in self.sizes])

    def record(self, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The records that stand at some places of their sources' epochs.

        Args:
          source: The index of each source, int [count].
          epoch: How often the source had been gone through before, int64 [count].
          index: The place in this epoch, int64 [count].

        Returns:
          The index of each record in its source, int64 [count].
        """
        if self.kind == "none" or not len(source):
            return index
        words = np.asarray(self.keys, np.uint32)[source]
        key = fold((words[:, 0], words[:, 1]), epoch.astype(np.uint32))
        grid = permute.Domain(*(field[source] for field in self.grid))
        if self.kind == "full":
            return permute.permute(index.astype(np.uint32), grid, key).astype(np.int64)
        block, within = np.divmod(index, self.window)
        last = block == np.asarray(self.sizes, np.int64)[source] // self.window
        tail = permute.Domain(*(field[source] for field in self.tail))
        grid = permute.Domain(*(np.where(last, short, whole) for short, whole in zip(tail, grid, strict=True)))
        key = fold(key, block.astype(np.uint32))
        moved = permute.permute(within.astype(np.uint32), grid, key).astype(np.int64)
        begin: np.ndarray = block * self.window
        return begin + moved
