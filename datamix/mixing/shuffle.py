"""The order of the records within a source: a keyed permutation of each epoch, of windows within it, or of its blocks.

What computes it works on NumPy arrays and on traced JAX arrays alike, so that the plan on the host and the compiled
pipeline cannot differ.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.sampling import ArrayOps, Sampling, SamplingTables, sample
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, fold, multiply_high

BLOCK_RECORDS = 1024
"""The records of a block of a source that does not say how many of its records lie together."""


def parse_shuffle(value: object) -> tuple[str, int]:
    """Read a setting of the shuffle: its kind, and the records of a window, or the blocks that are open at once.

    >>> parse_shuffle("window(500)"), parse_shuffle(True), parse_shuffle("blocks(8)")
    (('window', 500), ('full', 1), ('blocks', 8))
    """
    if isinstance(value, bool):
        value = "full" if value else "none"
    match = re.fullmatch(r"full|none|(?:window|blocks)\((\d+)\)", str(value).replace(" ", ""))
    if match is None or not 1 <= int(match[1] or 1) <= permute.MAX_SIZE:
        text = "it is full, none, window(n) or blocks(n) with n at least 1, as in window(1000) or blocks(8)"
        raise ConfigError(text, key="shuffle", value=None if value == "null" else value)
    return match[0].partition("(")[0], int(match[1] or 1)


_HOST = ArrayOps(operator.getitem, operator.getitem, permute.permute, np.where)


class ShuffleTables(NamedTuple):
    """The numbers that a shuffle looks up, uint32 [num_sources] each; None where its kind has no use for them.

    Attributes:
      keys: The key of each source's shuffle, two words.
      grid: The grid of the whole source, or of a whole window.
      window: The records of a whole window.
      whole: The number of whole windows.
      tail: The grid of the last window, which is shorter.
      rest: Its records, perhaps none.
      block: The records of a block.
      blocks: The grid of the whole blocks.
      num_blocks: The number of whole blocks, perhaps none.
      samples: The tables of the sources whose records are drawn; None where there are none.
    """

    keys: KeyWords
    grid: permute.Domain | None = None
    window: Words = None
    whole: Words = None
    tail: permute.Domain | None = None
    rest: Words = None
    block: Words = None
    blocks: permute.Domain | None = None
    num_blocks: Words = None
    samples: SamplingTables | None = None


def permuted(kind: str, tables: ShuffleTables, on: ArrayOps, source: Words, epoch: Words, index: Words) -> Words:
    """The records that stand at some places of their sources' epochs; NumPy or traced JAX, uint32 [count] each.

    Args:
      kind: "full", "window", "blocks" or "none".
      epoch: How often the source had been gone through before.
    """
    if tables.grid is None:
        return index

    def of(table: Words) -> Any:
        return on.choose(table, source)

    key = fold((of(tables.keys[0]), of(tables.keys[1])), epoch)
    grid = permute.Domain(*map(of, tables.grid))
    if kind == "full":
        return on.permute(index, grid, key)
    assert tables.tail is not None
    window, whole, special = of(tables.window), of(tables.whole), key
    if kind == "blocks":
        # The short window, with the short block, stands at any place among the others; count as if it were the last.
        special = fold((key[1], key[0]), whole)  # words swapped: the key of no window
        rest = of(tables.rest)
        begin = multiply_high(special[0], whole + np.uint32(1)) * window
        within = index - begin  # wraps round, to large numbers, for what comes before it
        later = on.where(index < begin, index, index - rest)
        index = on.where(within < rest, whole * window + within, later)
    number = index // window
    first = number * window
    last, tail = number == whole, map(of, tables.tail)
    grid = permute.Domain(*(on.where(last, short, long) for short, long in zip(tail, grid, strict=True)))
    index = first + on.permute(index - first, grid, fold(key, number))
    if kind == "window":
        return index
    assert tables.blocks is not None
    size, count, blocks = of(tables.block), of(tables.num_blocks), permute.Domain(*map(of, tables.blocks))
    block = index // size
    is_whole = block < count
    moved = on.permute(on.where(is_whole, block, np.uint32(0)), blocks, fold(special, np.uint32(0)))
    return on.where(is_whole, moved, block) * size + (index - block * size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shuffle:
    """The order of the records within their sources.

    Under "blocks", a source is cut into blocks of as many records as lie together in its files. Each epoch permutes the
    blocks, and then the records of every `window` blocks that follow on each other, so that no more blocks than that
    are read from at once.

    Attributes:
      kind: "full", "window", "blocks" or "none".
      window: The records of a window, or the blocks of one.
      sizes: The number of records of each source, shape [num_sources].
      keys: The key of each source's shuffle, two words each.
      block_records: The records of a block of each source, shape [num_sources]; for "blocks" alone.
      sampling: How the records of some sources are drawn, by the index of the source; the others are shuffled.
    """

    kind: str
    window: int
    sizes: tuple[int, ...]
    keys: tuple[tuple[int, int], ...]
    block_records: tuple[int, ...] = ()
    sampling: tuple[Sampling | None, ...] = ()

    @property
    def epoch_records(self) -> tuple[int, ...]:
        """The records that an epoch of each source gives, shape [num_sources]."""
        drawn = self.sampling or (None,) * len(self.sizes)
        return tuple(size if by is None else by.epoch_records for size, by in zip(self.sizes, drawn, strict=True))

    @cached_property
    def tables(self) -> ShuffleTables:
        """The numbers that the shuffle looks up."""
        words = np.asarray(self.keys, np.uint32)
        samples = SamplingTables.of(self.sampling) if any(self.sampling) else None
        keyed = ShuffleTables((np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])), samples=samples)
        # Drawn sources ignore the shuffle, but it must still accept every index of their epoch.
        sizes = np.asarray(self.epoch_records, np.uint64)
        if self.kind == "none":
            return keyed
        if self.kind == "full":
            return keyed._replace(grid=permute.domain(np.maximum(sizes, 1)))
        block = np.asarray(self.block_records if self.kind == "blocks" else [1] * len(sizes), np.uint64)
        window = np.minimum(block * np.uint64(self.window), np.uint64(permute.MAX_SIZE))
        whole, rest = np.divmod(sizes, window)
        windows = keyed._replace(
            grid=permute.domain(window),
            window=window.astype(np.uint32),
            whole=whole.astype(np.uint32),
            tail=permute.domain(np.maximum(rest, 1)),
        )
        if self.kind == "window":
            return windows
        num_blocks = sizes // block
        return windows._replace(
            rest=rest.astype(np.uint32),
            block=block.astype(np.uint32),
            blocks=permute.domain(np.maximum(num_blocks, 1)),
            num_blocks=num_blocks.astype(np.uint32),
        )

    def record(self, source: np.ndarray, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The records that stand at some places, int64 [count] each; see `permuted`."""
        words = source, epoch.astype(np.uint32), index.astype(np.uint32)
        return self.drawn(*words, permuted(self.kind, self.tables, _HOST, *words))

    def drawn(self, source: np.ndarray, epoch: np.ndarray, index: np.ndarray, record: np.ndarray) -> np.ndarray:
        """The records, but for sources whose records are drawn, int64 [count]; for the arguments, see `sample`."""
        if self.tables.samples is not None:
            words = source, epoch.astype(np.uint32), index.astype(np.uint32), record.astype(np.uint32)
            record = sample(self.tables.samples, self.tables.keys, _HOST, *words, shuffled=self.kind != "none")
        return record.astype(np.int64)
