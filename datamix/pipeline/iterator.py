"""Batches by loop: computed a chunk ahead, handed out one by one, from a place that can be kept and restored."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError, StateError
from datamix.fingerprint import differing
from datamix.mixing.plan import Plan
from datamix.pipeline import tracing, xla
from datamix.pipeline.batching import Batching, shard_rows
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.locate import Located, start_at
from datamix.pipeline.program import Compiled, Program, compute_chunk, locate_block
from datamix.spec import Batch, Record

State = dict[str, Any]
"""A position and what determines the sequence, in JSON's types."""

_STATE_FORMAT = 2  # 2 has a digest of each source's records

Output = Literal["numpy", "jax"]

# A call costs 250 µs of processor time, most of it because what computes has displaced the interpreter from the
# caches: in chunks of 4 MiB that was a quarter of all time. Chunks of 32 MiB gain little more, for twice the memory.
_CHUNK_BYTES = 16 * 2**20
_CHUNK_STEPS = 512
_BLOCK_RECORDS = 2**15  # located at once: the plan's look-up costs 200 µs a call, and 40 ns a record
_SLICED_STEPS = 16  # where slices are cut on a device: more of them take seconds to compile


@lru_cache(64)
def chunk_program(program: Program) -> Program:
    """The same program for as many batches as are computed in one call."""
    batch_bytes = program.batch_size * sum(np.dtype(s.dtype).itemsize * int(np.prod(s.shape)) for _, s in program.spec)
    return program.resized(min(max(1, _CHUNK_BYTES // max(1, batch_bytes)), _CHUNK_STEPS), program.batch_size)


def block_steps(program: Program) -> int:
    """Batches whose records are located in one call: whole chunks."""
    return program.num_steps * max(1, _BLOCK_RECORDS // (program.num_steps * program.batch_size))


class BatchIterator(Iterator[Batch]):
    """An iterator with a state; see `Pipeline.iterator`.

    Several threads may take from one iterator: each batch goes to one of them, in order.

    Args:
      compiled: The program and its arrays.
      plan: The plan of the mix.
      batching: How the mix is cut into batches.
      buffers: The memory of each program's chunks, which all iterators of a pipeline share.
      parts: Gives what determines the sequence; see `datamix.fingerprint.parts`.
      start: Number of the first batch.
      shard: See `Pipeline.iterator`.
      output: See `Pipeline.iterator`.
    """

    _ahead: Record | None = None  # also of an iterator that is refused before it has any

    def __init__(
        self,
        compiled: Compiled,
        plan: Plan,
        batching: Batching,
        *,
        buffers: dict[Program, Buffers],
        parts: Callable[[], Mapping[str, str]],
        start: int,
        shard: tuple[int, int],
        output: Output,
    ) -> None:
        batching.check_shard(shard)
        if output not in ("numpy", "jax"):
            raise ConfigError("it is 'numpy' or 'jax'", key="output", value=output)
        self._compiled, self._plan, self._parts, self._end = compiled, plan, parts, batching.num_batches
        (device,) = compiled.plan.size.devices()
        self._stream = xla.streams(device)
        # On CPU, what lies in the device's memory is a NumPy array as well: its rows need no slicing program.
        self._on_host = output == "numpy" or device.platform == "cpu"
        num_steps = chunk_program(compiled.program).num_steps
        if not self._on_host:
            num_steps = min(num_steps, _SLICED_STEPS)
        rows, short = (shard_rows(n, *shard) for n in (batching.batch_size, batching.short_rows))
        self._program = compiled.program.resized(num_steps, rows.stop - rows.start)
        self._block_steps = block_steps(self._program)
        self._buffers = buffers.setdefault(self._program, Buffers(self._program))
        self._is_sharded, self._shard_begin, self._short_begin = shard[1] > 1, rows.start, short.start
        self._has_short, self._short_rows = batching.short_rows > 0, short.stop - short.start
        self._put = {
            leaf: xla.putter((self._program.num_rows, *part.shape), part.dtype, device)
            for leaf, part in compiled.program.spec
            if output == "jax" and self._on_host
        }
        self._lock = threading.Lock()
        self._seek(start)

    def __del__(self) -> None:
        """Give back what was computed ahead: an endless mix is always left before its end."""
        self._drop_ahead()

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._buffers.give_back(self._ahead, ())
        self._ahead = None

    def _seek(self, step: int) -> None:
        step = operator.index(step)
        self.step = step
        self._drop_ahead()
        self._ready: Iterator[Batch] = iter(())
        self._computed = step
        self._cursor = start_at(self._plan, step, self._program.batch_size)
        self._block_end = step
        self._next_block: Located | None = None

    def _locate(self) -> Located:
        """Set the look-up of the next block going, without waiting for it."""
        compiled, size = self._compiled, self._program.batch_size
        with self._stream(1):
            block, self._cursor = locate_block()(
                compiled.plan, compiled.row_shuffle, self._cursor, self._block_steps, size
            )
        return block

    def _compute(self) -> Record:
        """Set the next chunk going, without waiting for it."""
        compiled, program = self._compiled, self._program
        if self._computed == self._block_end:
            self._block, self._next_block = self._next_block or self._locate(), None
            self._block_end += self._block_steps
        first = (self._computed - self._block_end + self._block_steps) * program.batch_size
        shard_begins = self._shard_begins(self._computed) if self._is_sharded else None
        stream = 2 + self._computed // program.num_steps % 2
        self._computed += program.num_steps
        with self._stream(stream):
            flat: Record = compute_chunk()(
                program,
                compiled.reader,
                compiled.numbers,
                self._block,
                _word(first),
                shard_begins,
                self._buffers.take(),
            )
        if self._computed == self._block_end and self._is_unfinished():
            self._next_block = self._locate()  # beside the chunks that are on their way
        return flat

    def _shard_begins(self, step: int) -> jax.Array:
        """The row at which the shard begins in each batch of the chunk from a step on."""
        num_steps = self._program.num_steps
        if self._has_short and self._end is not None and step < self._end <= step + num_steps:
            begins = [self._shard_begin] * num_steps
            begins[self._end - 1 - step] = self._short_begin
            return jnp.asarray(begins, jnp.uint32)
        return _words(self._shard_begin, num_steps)

    def _is_unfinished(self) -> bool:
        """Whether there are batches that are neither computed nor on their way."""
        return self._end is None or self._computed < self._end

    def __next__(self) -> Batch:
        with self._lock:
            batch = next(self._ready, None)
            if batch is None:
                self._refill()
                batch = next(self._ready)
            self.step += 1
            is_short = self._has_short and self.step == self._end
        if is_short:
            return {leaf: values[: self._short_rows] for leaf, values in batch.items()}
        return batch

    def _refill(self) -> None:
        """Wait for the next chunk, with the one after it on its way."""
        if self._end is not None and self.step >= self._end:
            raise StopIteration
        self._ready = iter(())  # lets go of the last chunk
        try:
            chunk = self._ahead or self._compute()
            self._ahead = self._compute() if self._is_unfinished() else None
            batches = self._batches(chunk)
        except BaseException:  # Ctrl-C, while waiting: go on with the batch that is due, not with what is on its way
            self._seek(self.step)
            raise
        self._ready = islice(batches, None if self._end is None else self._end - self.step)

    def _batches(self, chunk: Record) -> Iterator[Batch]:
        """The batches of a chunk, when it is computed."""
        flat: Mapping[str, Any] = chunk
        if self._on_host:
            flat = {leaf: xla.host_view(rows) for leaf, rows in chunk.items()}
        self._buffers.give_back(chunk, flat.values() if self._on_host else ())
        shape = self._program.num_steps, self._program.num_rows
        shaped: dict[str, Any] = {leaf: flat[leaf].reshape(*shape, *part.shape) for leaf, part in self._program.spec}
        if not self._on_host:
            shaped = _unstacked(shaped)
        elif self._put:
            shaped = {leaf: map(self._put[leaf], views) for leaf, views in shaped.items()}
        return _each(shaped, self._program.num_steps)

    def state(self) -> State:
        """Where the iterator stands: small, JSON; give it to `restore` of any iterator of the same mix."""
        return {"version": _STATE_FORMAT, "step": self.step, "fingerprint": dict(self._parts())}

    def restore(self, state: State) -> None:
        """Go on where a state was taken.

        Raises:
          StateError: it is no state, of another version of datamix, or of another mix; names what differs.
        """
        try:
            version, step, parts = state["version"], state["step"], dict(state["fingerprint"])
            if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in (version, step)):
                raise ValueError
            if not all(isinstance(key, str) for key in parts):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise StateError(
                f"this is no state of datamix; it needs version {_STATE_FORMAT}, a step and a fingerprint."
            ) from None
        if version != _STATE_FORMAT:
            raise StateError(
                f"this state has version {version}, of {'an older' if version < _STATE_FORMAT else 'a newer'} datamix; "
                f"this one restores version {_STATE_FORMAT}. Restore it with the datamix that took it, or start afresh."
            )
        if difference := differing(parts, self._parts()):
            raise StateError(f"this state was taken {difference}; restore it under the same, or start afresh.")
        with self._lock:
            self._seek(step)


def _each(columns: Mapping[str, Iterable[Any]], count: int) -> Iterator[Batch]:
    """Each batch when it is asked for: all made at once cost twice as much.

    `dict(zip(...))`, and before Python 3.12 a comprehension, take a quarter longer than the inner loop.
    """
    takes = [(leaf, iter(column).__next__) for leaf, column in columns.items()]
    for _ in range(count):
        batch = {}
        for leaf, take in takes:
            batch[leaf] = take()
        yield batch


@lru_cache(1024)
def _word(number: int) -> jax.Array:
    """A number as an argument of a program, made once: NumPy's would cost each call 10 µs."""
    return jnp.asarray(number, jnp.uint32)


@lru_cache(64)
def _words(number: int, count: int) -> jax.Array:
    """An array of so many times a number, made once."""
    return jnp.full(count, number, jnp.uint32)


@tracing.jit
def _unstacked(shaped: Record) -> dict[str, list[jax.Array]]:
    """One array a batch, in one call: single slices cost a call each."""
    return {leaf: list(values) for leaf, values in shaped.items()}
