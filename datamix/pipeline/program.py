"""The compiled program: from a cursor to finished batches, one jitted function for every pipeline.

It has three steps, each in its own module: `locate` finds (source, epoch, record) of each row, a `Reader` reads those
records, and `transform` applies the operators. A hashable `Program` holds what shapes the program; data, plan and
numbers are arguments, so that pipelines that differ in ratio, seed or constants run the same compiled code, and none of
these is baked into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.pipeline import tracing, xla
from datamix.pipeline.batching import RowOrder
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.locate import Located, PlanArrays, locate
from datamix.pipeline.readers.base import Reader
from datamix.pipeline.readers.fed import Fed, RowsReader
from datamix.pipeline.tables import look_up
from datamix.pipeline.transform import Branch, Numbers, transform
from datamix.rng.hash import Words
from datamix.spec import Batch, FlatRows, LeafSpec

Carry = TypeVar("Carry")

# Records that a scan locates at once: the plan's many small operations then cost little of a step. On a GPU they take
# half a millisecond per call, however many records there are.
_LOCATED, _LOCATED_ON_GPU = 2**13, 2**17
# A span of up to _KEPT_RECORDS is the whole of a short mix, which is located once; a larger one is one of many, and at
# most 1 / _SPARE of it may be located in vain.
_KEPT_RECORDS, _SPARE = 2**14, 16


@dataclass(frozen=True, kw_only=True)
class Program:
    """The part of a pipeline that shapes the compiled code.

    Attributes:
      batch_size: Records in a batch.
      num_rows: Rows of each batch that are computed: all of them, or those of a shard.
      num_steps: Batches computed in a call.
      branches: What is done to the records of each source.
      shared: What is done to every record after the mix.
      spec: Leaf name, shape and dtype of a finished record.
    """

    batch_size: int
    num_rows: int
    num_steps: int
    branches: tuple[Branch, ...]
    shared: Branch
    spec: tuple[tuple[str, LeafSpec], ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash, computed once: every call of a compiled program needs it."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @property
    def is_paired(self) -> bool:
        """Whether records are paired."""
        return any(call.promised.paired for call in self.shared.calls)

    def resized(self, num_steps: int, num_rows: int) -> Program:
        """The same program for another number of batches, or for other parts of them."""
        return replace(self, num_steps=num_steps, num_rows=num_rows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Compiled:
    """The part of a pipeline that JAX sees: a program, and the arrays it computes with.

    Pass it as an argument to functions under `jit`, `scan` or `vmap`: pipelines that differ in ratio or seed then share
    the compiled code. A function that closes over it gets the data copied into its code.

    Attributes:
      program: What shapes the compiled code, for one batch a call; static.
      plan: The plan of the mix, as arrays.
      row_order: The shuffle of each batch's rows, and their pairs.
      reader: The reader of the records, a pytree.
      numbers: The numbers of each chain of operators.
    """

    program: Program = field(metadata={"static": True})
    plan: PlanArrays
    row_order: RowOrder
    reader: Reader
    numbers: tuple[Numbers, ...]

    def next(self, cursor: Cursor, rows: tuple[Words, int] | None = None) -> tuple[Batch, Cursor]:
        """The batch at a cursor, and the cursor after it; a pure function.

        A cursor knows no end: past the end of the mix it continues with the last stage.

        Args:
          cursor: The beginning of a batch; see `Pipeline.start`.
          rows: The first row to read and compute, uint32 [], and the number of rows, static: for those of one device,
            from `lax.axis_index` under `shard_map`. None for all.

        Returns:
          Leaf name to array, shape [batch, *leaf shape] or [rows, *leaf shape], and the next cursor.
        """
        flat, cursor = next_flat(self, cursor, *(rows or ()))
        return self._shaped(flat), cursor

    def scan(
        self, step: Callable[[Carry, Batch, Any], tuple[Carry, Any]], cursor: Cursor, carry: Carry, inputs: Any
    ) -> tuple[Cursor, Carry, Any]:
        """`jax.lax.scan` over the batches from a cursor on, for a function under `jit`.

        It is a faster loop over `next`: the records of several batches are located at once, and read at once where they
        lie on the host, as many as divide the number of steps.

        Args:
          step: The function from a carry, a batch and an input to the next carry and an output.
          cursor: The beginning of the first batch.
          carry: The carry of the first step.
          inputs: A pytree of arrays whose first axis is that of the steps.

        Returns:
          The cursor after the last batch, the carry after the last step, and the stacked outputs.
        """
        program, num_steps = self.program, len(jax.tree.leaves(inputs)[0])
        most = min(num_steps, self._most_at_once)
        at_once = max((count for count in range(1, most + 1) if num_steps % count == 0), default=1)

        def one(state: tuple[Cursor, Carry], value: Any) -> tuple[tuple[Cursor, Carry], Any]:
            batch, cursor = self.next(state[0])
            carry, output = step(state[1], batch, value)
            return (cursor, carry), output

        def several(state: tuple[Cursor, Carry], values: Any) -> tuple[tuple[Cursor, Carry], Any]:
            located, cursor = locate_batches(self.plan, self.row_order, state[0], at_once, program.batch_size)
            reader, row_of_each = self.reader, None
            if isinstance(reader, Fed):
                ahead, _ = locate_batches(self.plan, self.row_order, cursor, at_once, program.batch_size)
                reader = reader.read_now(located, ahead)
                row_of_each = reader.row_of_each

            def located_one(carry: Carry, of_step: tuple[Located, Any, Any]) -> tuple[Carry, Any]:
                located, row_of_each, value = of_step
                here = reader._replace(row_of_each=row_of_each) if isinstance(reader, RowsReader) else reader
                flat = _finished(program, self.numbers, located, here, program.batch_size)
                return step(carry, self._shaped(flat), value)

            located, row_of_each = jax.tree.map(lambda rows: rows.reshape(at_once, -1), (located, row_of_each))
            carry, outputs = lax.scan(located_one, state[1], (located, row_of_each, values))
            return (cursor, carry), outputs

        if at_once == 1:
            (cursor, carry), outputs = lax.scan(one, (cursor, carry), inputs)
            return cursor, carry, outputs
        inputs = jax.tree.map(lambda values: values.reshape(-1, at_once, *values.shape[1:]), inputs)
        (cursor, carry), outputs = lax.scan(several, (cursor, carry), inputs)
        return cursor, carry, jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:]), outputs)

    def scanned_steps(self, num_steps: int) -> int:
        """The least number of steps, `num_steps` or a few more, of which `scan` locates as many at once as it can."""
        num_calls = max(-(-num_steps // self._most_at_once), 1)
        return -(-num_steps // num_calls) * num_calls

    @property
    def _most_at_once(self) -> int:
        """The most batches that `scan` locates, and reads, at once."""
        num_located = _LOCATED if jax.default_backend() == "cpu" else _LOCATED_ON_GPU
        if isinstance(self.reader, Fed):
            num_located = min(num_located, self.reader.most_records)
        return max(num_located // self.program.batch_size, 1)

    def _shaped(self, flat: FlatRows) -> Batch:
        return {leaf: flat[leaf].reshape(-1, *part.shape) for leaf, part in self.program.spec}


def locate_batches(
    plan: PlanArrays,
    row_order: RowOrder,
    cursor: Cursor,
    num_batches: int,
    batch_size: int,
    num_slots: jax.Array | None = None,
) -> tuple[Located, Cursor]:
    """Locate the records of the next batches, in the order of their rows.

    Args:
      plan: The plan of the mix.
      row_order: The shuffle of each batch's rows, and their pairs.
      cursor: The beginning of a batch.
      num_batches: How many batches; static.
      batch_size: Records in a batch; static.
      num_slots: How many of their slots are wanted, uint32 []; None for all.

    Returns:
      `num_batches * batch_size` records, and the cursor right after the wanted ones.
    """
    located, after = locate(plan, cursor, num_batches * batch_size // plan.slot_records, num_slots)
    batches = cursor.position, num_batches, batch_size, plan.slot_records
    if row_order.shuffle is not None:
        located = _taken(located, row_order.shuffle.rows(*batches))
    if row_order.pairing is not None:
        located = located._replace(partner=row_order.pairing.partners(*batches))
    return located, after


def _taken(located: Located, rows: jax.Array) -> Located:
    """Select rows of located records."""
    taken: Located = jax.tree.map(lambda values: look_up(values, rows), located)
    return taken


def _parts(located: Located, rows: jax.Array) -> Located:
    """Select rows of batches; each paired record is followed by its partner, which may be in another row."""
    if located.partner is None:
        return _taken(located, rows)
    pairs = jnp.stack([rows, rows + look_up(located.partner, rows)], axis=1).reshape(-1)
    to_the_other = jnp.where(jnp.arange(pairs.size) % 2, jnp.uint32(2**32 - 1), jnp.uint32(1))
    return _taken(located, pairs)._replace(partner=to_the_other)


def _finished(program: Program, numbers: tuple[Numbers, ...], located: Located, reader: Reader, count: int) -> FlatRows:
    """The flat records of `count` rows, without those of partners."""
    flat = transform(program.branches, program.shared, numbers, located, reader.read)
    return flat if len(located.source) == count else {leaf: rows[::2] for leaf, rows in flat.items()}


def _next_flat(
    compiled: Compiled, cursor: Cursor, first: Words | None = None, num_rows: int | None = None
) -> tuple[FlatRows, Cursor]:
    """The batch at a cursor, or some rows of it, with flat leaves, shape [rows, elements], and the cursor after it."""
    program, numbers = compiled.program, compiled.numbers
    located, cursor = locate_batches(compiled.plan, compiled.row_order, cursor, 1, program.batch_size)
    reader = compiled.reader

    def here(located: Located) -> Located:
        if first is None or num_rows is None:
            return located
        return _parts(located, first + jnp.arange(num_rows, dtype=jnp.uint32))

    located = here(located)
    if isinstance(reader, Fed):
        # The records that the next call needs, to be read while this batch is used.
        ahead, _ = locate_batches(compiled.plan, compiled.row_order, cursor, 1, program.batch_size)
        reader = reader.read_now(located, here(ahead))
    count = program.batch_size if num_rows is None else num_rows
    return _finished(program, numbers, located, reader, count), cursor


def compute_chunk(
    program: Program,
    reader: Reader,
    numbers: tuple[Numbers, ...],
    span: Located,
    first: jax.Array,
    begins: jax.Array | None,
    into: FlatRows,
) -> FlatRows:
    """Compute `num_steps` batches, or a shard of each, of a located span.

    Args:
      program: What shapes the code; static.
      reader: The reader of the records.
      numbers: The numbers of each chain of operators.
      span: Records that `locate_batches` has located.
      first: The row of the span at which the first batch begins, uint32 [].
      begins: The row, counted from `first`, at which each batch or its shard begins, uint32 [num_steps]; None for whole
        batches, one after the other.
      into: Flat records like those returned, whose memory is reused.

    Returns:
      Flat records, leaf name to array of shape [num_steps * num_rows, elements].
    """
    flat = _chunk(program, reader, numbers, span, first, begins)
    return {leaf: lax.dynamic_update_slice(into[leaf], rows, [0] * rows.ndim) for leaf, rows in flat.items()}


def _chunk(
    program: Program,
    reader: Reader,
    numbers: tuple[Numbers, ...],
    span: Located,
    first: jax.Array,
    begins: jax.Array | None,
) -> FlatRows:
    """The flat records of `compute_chunk`, before they are written anywhere."""
    count = program.num_steps * program.batch_size
    if begins is None:
        located: Located = jax.tree.map(lambda values: lax.dynamic_slice(values, (first,), (count,)), span)
    else:
        rows = (first + begins[:, None] + jnp.arange(program.num_rows, dtype=jnp.uint32)).reshape(-1)
        located = _parts(span, rows)
    return _finished(program, numbers, located, reader, program.num_steps * program.num_rows)


def compute_batches(
    program: Program,
    reader: Reader,
    numbers: tuple[Numbers, ...],
    span: Located,
    first: jax.Array,
    begins: jax.Array | None,
) -> dict[str, list[jax.Array]]:
    """`compute_chunk`, cut into batches: leaf name to an array for each step, shape [num_rows, *leaf shape].

    XLA writes each to its final place. Cutting a chunk of pixels afterwards took three times as long on a GPU, as it
    was written and read once more.
    """
    flat = _chunk(program, reader, numbers, span, first, begins)
    steps, rows = program.num_steps, program.num_rows
    return {leaf: list(flat[leaf].reshape(steps, rows, *part.shape)) for leaf, part in program.spec}


# One for all pipelines: the second pipeline of a process reuses what the first one compiled.
next_flat = tracing.jit(_next_flat, static_argnums=3)


@cache
def compiled_chunk() -> Callable[..., FlatRows]:
    """`compute_chunk`, compiled; not inside another `jit`."""
    return tracing.jit(compute_chunk, static_argnums=0, donate_argnames="into", compiler_options=xla.compiler_options())


@cache
def compiled_batches() -> Callable[..., dict[str, list[jax.Array]]]:
    """`compute_batches`, compiled; not inside another `jit`."""
    return tracing.jit(compute_batches, static_argnums=0, compiler_options=xla.compiler_options())


@cache
def compiled_locate() -> Callable[..., tuple[Located, Cursor]]:
    """`locate_batches`, compiled; not inside another `jit`.

    Many batches are located ahead in one call: the plan's many small operations cost 100 µs per call.
    """
    return tracing.jit(locate_batches, static_argnums=(3, 4), compiler_options=xla.compiler_options())


def locate_span(compiled: Compiled, cursor: Cursor, num_batches: int) -> tuple[Located, Cursor]:
    """Locate the records of the next batches, compiled; not inside another `jit`.

    If rows keep their order, only their number counts, and mixes of several batch sizes share one program, which may
    locate a few more records than needed.

    Args:
      compiled: The mix.
      cursor: The beginning of a batch.
      num_batches: How many batches.

    Returns:
      The records, possibly followed by arbitrary others, and the cursor right after the batches.
    """
    plan, row_order, size = compiled.plan, compiled.row_order, compiled.program.batch_size
    if row_order.shuffle is not None or row_order.pairing is not None:
        return compiled_locate()(plan, row_order, cursor, num_batches, size)
    count = num_batches * size
    room = 1 << (count - 1).bit_length()
    if room > _KEPT_RECORDS and count < room - room // _SPARE:
        room = count
    return compiled_locate()(plan, row_order, cursor, 1, room, np.uint32(count // plan.slot_records))
