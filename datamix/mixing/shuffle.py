"""The order of the records within a source: a keyed permutation of each epoch, of windows within it, or of its blocks.

The same code computes it on NumPy arrays and on traced JAX arrays, so that the plan on the host and the compiled
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
"""The number of records in a block of a source that does not set one."""


def parse_shuffle(value: object) -> tuple[str, int]:
    """Parse a shuffle setting: its kind, and the records of a window or the blocks that are shuffled together.

    Raises:
      ConfigError: The setting is none of these.

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
    """The look-up tables of a shuffle, uint32 [num_sources] each; None where its kind does not use them.

    Attributes:
      keys: The key of each source's shuffle, two words.
      grid: The permutation grid of the whole source, or of a whole window.
      window: The number of records in a whole window.
      whole: The number of whole windows.
      tail: The permutation grid of the last, shorter window.
      rest: The number of records in that window, 0 if there is none.
      block: The number of records in a block.
      blocks: The permutation grid of the whole blocks.
      num_blocks: The number of whole blocks, possibly 0.
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
    """The records at some indices of the epochs of their sources, in NumPy or traced JAX.

    Args:
      kind: "full", "window", "blocks" or "none".
      tables: The look-up tables of all sources.
      on: The operations for NumPy or for JAX.
      source: The source of each index, [count].
      epoch: The number of epochs of the source before this one, uint32 [count].
      index: The index within the epoch, uint32 [count].

    Returns:
      The index of each record in its source, uint32 [count].
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
        # The short window, with the short block, is at a random place among the others: reindex as if it came last.
        special = fold((key[1], key[0]), whole)  # swapped words: no window has this key
        rest = of(tables.rest)
        begin = multiply_high(special[0], whole + np.uint32(1)) * window
        within = index - begin  # wraps around to large numbers for indices before the window
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

    Under "blocks", a source is cut into blocks of records that are stored together in its files. Each epoch permutes
    the blocks, and then the records within every `window` consecutive blocks, so that no more blocks than that are read
    at once.

    Attributes:
      kind: "full", "window", "blocks" or "none".
      window: The number of records in a window, or under "blocks" the number of blocks.
      sizes: The number of records of each source, shape [num_sources].
      keys: The key of each source's shuffle, two words each.
      block_records: The number of records in a block of each source, shape [num_sources]; used by "blocks" alone.
      sampling: How the records of each source are drawn, None for one that is shuffled, shape [num_sources]; empty
        where none is drawn.
    """

    kind: str
    window: int
    sizes: tuple[int, ...]
    keys: tuple[tuple[int, int], ...]
    block_records: tuple[int, ...] = ()
    sampling: tuple[Sampling | None, ...] = ()

    @property
    def epoch_records(self) -> tuple[int, ...]:
        """The number of records in an epoch of each source, shape [num_sources]."""
        sampling = self.sampling or (None,) * len(self.sizes)
        pairs = zip(self.sizes, sampling, strict=True)
        return tuple(size if rule is None else rule.epoch_records for size, rule in pairs)

    @cached_property
    def tables(self) -> ShuffleTables:
        """The look-up tables of the shuffle."""
        words = np.asarray(self.keys, np.uint32)
        samples = SamplingTables.of(self.sampling) if any(self.sampling) else None
        keyed = ShuffleTables((np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])), samples=samples)
        # Sources that are drawn ignore the shuffle, but it must still accept every index of their epochs.
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
        """The records at some indices of the epochs of their sources, int64 [count]; see `permuted`."""
        words = source, epoch.astype(np.uint32), index.astype(np.uint32)
        return self.drawn(*words, permuted(self.kind, self.tables, _HOST, *words))

    def drawn(self, source: np.ndarray, epoch: np.ndarray, index: np.ndarray, record: np.ndarray) -> np.ndarray:
        """Replace the records of sources that are drawn; int64 [count]. For the arguments, see `sample`."""
        if self.tables.samples is not None:
            words = source, epoch.astype(np.uint32), index.astype(np.uint32), record.astype(np.uint32)
            record = sample(self.tables.samples, self.tables.keys, _HOST, *words, shuffled=self.kind != "none")
        return record.astype(np.int64)
