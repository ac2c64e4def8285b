"""Chunks: the batches computed in one call, how many there are, and which located records they use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import jax
import numpy as np

from datamix.mixing.plan import Plan
from datamix.pipeline import xla
from datamix.pipeline.batching import Batching, num_batches
from datamix.pipeline.locate import Located
from datamix.pipeline.program import Compiled, Program
from datamix.pipeline.readers.fed import Fed, staged_bytes
from datamix.pipeline.readers.host import HostReader, Reading, Rows
from datamix.pipeline.tokens import object_of
from datamix.spec import bytes_of

SHORT_CHUNKS = 4
"""A mix of at most this many chunks is short: it is cut into equal chunks, as a smaller last one would cost as much.

If it is iterated over repeatedly, its first chunk is computed while the last one is handed out: waiting for it took a
third of such an epoch.
"""
NUM_STAGED = 3
"""The most chunks whose records are in memory: one is computed, the others are read ahead."""


class _Bounds(NamedTuple):
    """Bounds on one call.

    Attributes:
      chunk_bytes: Bytes of batches.
      num_steps: Number of batches.
      span_records: Records located at once.
      staged_bytes: Bytes of records read on the host.
    """

    chunk_bytes: int
    num_steps: int
    span_records: int
    staged_bytes: int


# On a CPU a call costs 250 µs of processor time, mostly because the computation evicts the interpreter from the caches:
# with chunks of 4 MiB that was a quarter of all time. Chunks of 32 MiB gain little, for twice the memory. The plan's
# look-up costs 200 µs per call, and 40 ns per record. Staged records are used while they are in the cache.
_ON_HOST = _Bounds(chunk_bytes=16 * 2**20, num_steps=512, span_records=2**15, staged_bytes=4 * 2**20)
# On a GPU the look-up takes 500 µs for 2^15 records, as it waits for one small kernel after another.
_FOR_HOST = _ON_HOST._replace(span_records=2**18, staged_bytes=32 * 2**20)
# Each array is an output of the program: more of them take longer to compile than they save.
_MOST_ARRAYS, _SHARE_OF_MEMORY = 16, 1 / 128


class Mix(Protocol):
    """The part of a pipeline that determines its chunks."""

    plan: Plan
    batching: Batching
    prefetch_bytes: int | None

    @property
    def compiled(self) -> Compiled: ...


def _bounds(device: jax.Device, *, is_cut: bool) -> _Bounds:
    """The bounds on a device, for batches cut from a chunk on the host, or by the program itself."""
    if not is_cut:
        return _ON_HOST if xla.is_host(device) else _FOR_HOST
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    chunk_bytes = max(int(memory * _SHARE_OF_MEMORY), _FOR_HOST.chunk_bytes)
    return _FOR_HOST._replace(chunk_bytes=chunk_bytes, num_steps=_MOST_ARRAYS)


@lru_cache(64)
def chunk_program(program: Program, prefetch_bytes: int | None = None, bounds: _Bounds = _ON_HOST) -> Program:
    """The same program for as many batches as one call computes; `prefetch_bytes` has room for two calls, one ahead."""
    batch_bytes = program.batch_size * bytes_of(dict(program.spec))
    chunk_bytes = min(bounds.chunk_bytes, (prefetch_bytes or math.inf) // 2)
    num_steps = min(max(1, int(chunk_bytes // max(1, batch_bytes))), bounds.num_steps)
    return program.resized(num_steps, program.batch_size)


def span_steps(program: Program, stride: int = 1, records: int = _ON_HOST.span_records) -> int:
    """Batches whose records are located in one call: whole chunks of every `stride`-th batch."""
    steps = program.num_steps * stride
    return steps * max(1, records // (steps * program.batch_size))


def loop_of(mix: Mix, num_rows: int, stride: int = 1, *, is_cut: bool = False) -> tuple[Program, int]:
    """The program that a loop over a mix calls, and how many batches the loop locates in one call.

    Args:
      mix: The mix.
      num_rows: The number of rows of each batch to yield.
      stride: See `BatchIterator`.
      is_cut: Whether the program returns each batch as a separate array, and not a chunk.
    """
    compiled, size = mix.compiled, mix.batching.batch_size
    (device,) = compiled.plan.size.devices()
    bounds = _bounds(device, is_cut=is_cut)
    num_steps = chunk_program(compiled.program, mix.prefetch_bytes, bounds).num_steps
    if isinstance(compiled.reader, Fed):
        host: HostReader = object_of(int(compiled.reader.token))
        step_bytes = max(rows_read(compiled.program, num_rows, stride) * staged_bytes(host, device), 1)
        most = min(bounds.staged_bytes, host.prefetch_bytes // NUM_STAGED)
        num_steps = min(num_steps, max(1, most // step_bytes))
    # For a short mix, little more than it can have under any weights: each size is another program.
    bound = num_batches(mix.plan.most_records, size, mix.batching.remainder)
    most_steps = math.inf if bound is None else max(1, -(-bound // stride))
    if most_steps <= num_steps * SHORT_CHUNKS:
        num_steps = math.ceil(most_steps / math.ceil(most_steps / num_steps))
    program = compiled.program.resized(num_steps, num_rows)
    num_located = span_steps(program, stride, bounds.span_records)
    if most_steps < math.inf:
        num_located = min(num_located, -(-int(most_steps) // num_steps) * num_steps * stride)
    return program, num_located


def rows_read(program: Program, num_rows: int, stride: int) -> int:
    """Rows read for a batch: unless all rows of a chunk are computed, the partner of each as well."""
    is_whole = stride == 1 and num_rows == program.batch_size
    return num_rows * (2 if program.is_paired and not is_whole else 1)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Batches that are, or will be, computed in one call.

    Attributes:
      program: The program that computes them.
      step: The number of the first batch.
      span: The located records of these batches and others.
      first: The row of the span at which they begin.
      begins: The row, counted from `first`, at which each batch or its shard begins; None for whole, consecutive
        batches.
      reading: The reading of those records that need staging rows; None if there are none.
    """

    program: Program
    step: int
    span: Located
    first: int
    begins: tuple[int, ...] | None
    reading: Reading | None = None

    def is_same(self, other: Chunk) -> bool:
        """Whether both compute the same batches, from the same located span."""
        mine, theirs = ((chunk.program, chunk.step, chunk.first, chunk.begins) for chunk in (self, other))
        return mine == theirs and self.span is other.span


def rows_of(
    span: Located, first: int, program: Program, begins: Sequence[int] | np.ndarray | None, num_rows: int | None
) -> Rows:
    """Source and record of the rows that `compute_chunk` reads, without those past the end of the mix."""
    count = program.num_steps * program.batch_size
    rows: slice | np.ndarray = slice(first, first + count)
    if begins is not None:
        rows = (first + np.asarray(begins)[:, None] + np.arange(program.num_rows)).reshape(-1)[:num_rows]
        if span.partner is not None:  # in the order of `compute_chunk`
            partners = rows + np.asarray(span.partner)[rows].astype(np.int32)
            rows, num_rows = np.stack([rows, partners], axis=1).reshape(-1), None
    return np.asarray(span.source)[rows][:num_rows], np.asarray(span.record)[rows][:num_rows]
