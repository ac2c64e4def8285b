"""The compiled program: from a cursor to finished records, one jitted function for every pipeline.

What shapes the program is in a hashable `Program`; data, plan and numbers are arguments, so that pipelines that differ
in ratio, seed or constants run the same compiled code, and nothing is baked into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from datamix.pipeline.cursor import Cursor, Located, Lookup, PlanArrays, locate
from datamix.pipeline.tables import choose, look_up
from datamix.rng.hash import KeyWords, fold
from datamix.spec import Batch, LeafSpec, Record

# Records of one branch that go through its operators together where branches differ: enough that the block's own
# cost, some 20 µs, is little beside a resize; few enough that a small share wastes little.
_BLOCK_LANES = 128

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operator in the program.

    Attributes:
      function: the operator.
      static: settings that shape the program.
      random: whether it takes a key.
      shapes: of the leaves it is handed, by name: the logical ones, or flat where it works element by element.
    """

    function: Callable[..., Record]
    static: tuple[tuple[str, Any], ...]
    random: bool
    shapes: Shapes


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Sources that share storage and operators, and so one piece of program.

    Attributes:
      group: index of their storage.
      sources: their indices.
      steps: what is done to each record.
      numbers: index of the steps' numbers in `Compiled`.
    """

    group: int
    sources: tuple[int, ...]
    steps: tuple[Step, ...]
    numbers: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """What shapes the compiled code.

    Attributes:
      lookup: kind of plan.
      batch_size: records a batch.
      num_steps: batches a call.
      num_shards: readers among which each batch is divided.
      branches: of the sources.
      shared: done to every record after the mix.
      spec: leaf name, shape and dtype of a finished record.
    """

    lookup: Lookup
    batch_size: int
    num_steps: int
    num_shards: int
    branches: tuple[Branch, ...]
    shared: Branch
    spec: tuple[tuple[str, LeafSpec], ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: every call of a compiled program asks for it."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @property
    def rows(self) -> int:
        """Records of each batch that a reader is handed; one too many for some, where it does not divide evenly."""
        return -(-self.batch_size // self.num_shards)

    def resized(self, num_steps: int, num_shards: int = 1) -> Program:
        """The same program for other numbers of batches and readers."""
        return replace(self, num_steps=num_steps, num_shards=num_shards)


class Reader(Protocol):
    """How records reach the operators."""

    def read(self, group: int, located: Located, member: jax.Array | None) -> Record:
        """Flat records of one storage group.

        Args:
          group: index of the storage.
          located: which records.
          member: whether each record is of this group, bool [count]; None if all are. What is returned for the others
            does not matter.

        Returns:
          Leaf name to array, shape [count, elements] or [count] for a scalar.
        """
        ...


class Resident(NamedTuple):
    """Records that lie in the device's memory: the sources of one spec in one array, so that one gather serves all.

    Attributes:
      groups: leaf name to array, shape [records of all the group's sources, elements], flat: XLA's CPU backend does
        not vectorise an inner dimension of 1, and flat rows are 3 times faster than [28, 28, 1].
      first: row of each source's first record in its group, uint32 [num_sources].
    """

    groups: tuple[Record, ...]
    first: jax.Array

    def read(self, group: int, located: Located, member: jax.Array | None) -> Record:
        """See `Reader`."""
        row = choose(self.first, located.source) + located.record
        if member is not None:
            row = jnp.where(member, row, 0)
        return {leaf: look_up(rows, row) for leaf, rows in self.groups[group].items()}


class Numbers(NamedTuple):
    """The numbers of one chain of operators, looked up by source.

    Attributes:
      settings: for each step, setting name to values, shape [num_sources, ...].
      keys: for each random step, two words, uint32 [num_sources] each; None for the others.
    """

    settings: tuple[dict[str, jax.Array], ...]
    keys: tuple[KeyWords | None, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Compiled:
    """What JAX sees of a pipeline: a program, and the arrays it computes with.

    Pass it as an argument to functions under `jit`, `scan` or `vmap`: pipelines that differ in ratio or seed then share
    the compiled code. A function that closes over it has its data copied into the code.

    Attributes:
      program: What shapes the compiled code, for one batch a call; static.
      plan: The plan of the mix, as arrays.
      reader: The reader of the records, a pytree.
      numbers: The numbers of each chain of operators.
    """

    program: Program = field(metadata={"static": True})
    plan: PlanArrays
    reader: Reader
    numbers: tuple[Numbers, ...]

    def next(self, cursor: Cursor) -> tuple[Batch, Cursor]:
        """The batch at a cursor, and the cursor after it; a pure function.

        A cursor knows no end: past the end of the mix it goes on with the last stage.

        Args:
          cursor: The beginning of a batch; see `Pipeline.start`.

        Returns:
          Leaf name to array, shape [batch, *leaf shape], and the next cursor.
        """
        flat, cursor = next_jitted(self, cursor)
        return {leaf: flat[leaf].reshape(-1, *part.shape) for leaf, part in self.program.spec}, cursor


def next_flat(compiled: Compiled, cursor: Cursor) -> tuple[Record, Cursor]:
    """The batch at a cursor with flat leaves, shape [batch, elements], and the cursor after it."""
    program = compiled.program
    located, cursor = locate(program.lookup, compiled.plan, cursor, program.batch_size // program.lookup.unit)
    return _transform(program, compiled.reader, compiled.numbers, located), cursor


def locate_block(lookup: Lookup, plan: PlanArrays, cursor: Cursor, num_records: int) -> tuple[Located, Cursor]:
    """Locate the records of many batches ahead: the plan's many small operations cost 100 µs a call."""
    return locate(lookup, plan, cursor, num_records // lookup.unit)


def run_block(
    program: Program,
    reader: Reader,
    numbers: tuple[Numbers, ...],
    block: Located,
    first: jax.Array,
    turn: jax.Array,
    into: Record,
) -> Record:
    """Compute `num_steps` batches of a located block.

    Args:
      program: static.
      reader: of the records.
      numbers: for each chain of operators.
      block: of `locate_block`.
      first: lane of the block at which the first batch begins, uint32.
      turn: index of the reader plus the number of the first batch, modulo the number of readers.
      into: flat records like those returned, whose memory is taken.

    Returns:
      Flat records, leaf name to array of shape [records of this reader, elements].
    """
    count = program.num_steps * program.batch_size
    located = Located(*(lax.dynamic_slice(field, (first,), (count,)) for field in block))
    if program.num_shards > 1:
        located = Located(*(_own_rows(program, field, turn) for field in located))
    flat = _transform(program, reader, numbers, located)
    return {leaf: lax.dynamic_update_slice(into[leaf], rows, [0] * rows.ndim) for leaf, rows in flat.items()}


# One for all pipelines: the second pipeline of a process finds what the first one compiled.
next_jitted = jax.jit(next_flat)


@cache
def run_block_jitted() -> Callable[..., Record]:
    """`run_block`, compiled; not inside another `jit`."""
    return jax.jit(run_block, static_argnums=0, donate_argnames="into", compiler_options=_compiler_options())


@cache
def locate_block_jitted() -> Callable[..., tuple[Located, Cursor]]:
    """`locate_block`, compiled; not inside another `jit`."""
    return jax.jit(locate_block, static_argnums=(0, 3), compiler_options=_compiler_options())


@cache
def _compiler_options() -> dict[str, int] | None:
    """On CPU, vectors of 512 bits where the processor has them: a tenth less time for pixels, half for the shuffle."""
    options = {"xla_cpu_prefer_vector_width": 512}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # a version of XLA that has no such option
        return None
    return options


def _own_rows(program: Program, field: jax.Array, turn: jax.Array) -> jax.Array:
    """This reader's rows of each batch: blocks in rotation, so that no reader meets one source alone.

    Where the batch does not divide evenly, the first blocks are a row longer; the others end with a row too many.
    """
    least, longer = divmod(program.batch_size, program.num_shards)
    own = least + (longer > 0)
    block = (turn + jnp.arange(program.num_steps, dtype=jnp.uint32)) % program.num_shards
    begin = block * least + jnp.minimum(block, longer)
    rows = jnp.minimum(begin[:, None] + jnp.arange(own, dtype=jnp.uint32), program.batch_size - 1)
    return jnp.take_along_axis(field.reshape(program.num_steps, -1), rows, axis=1).reshape(-1)


def _transform(program: Program, reader: Reader, numbers: tuple[Numbers, ...], located: Located) -> Record:
    """Read the located records and apply the operators."""

    def through(branch: Branch, lanes: Located, member: jax.Array | None) -> Record:
        rows = reader.read(branch.group, lanes, member)
        return jax.vmap(partial(_apply, branch.steps, numbers[branch.numbers]))(rows, lanes)

    if len(program.branches) == 1:
        mixed = through(program.branches[0], located, None)
    else:
        mixed = _apart(program.branches, through, located)
    shared = program.shared
    return jax.vmap(partial(_apply, shared.steps, numbers[shared.numbers]))(mixed, located)


def _apart(
    branches: Sequence[Branch], through: Callable[[Branch, Located, jax.Array | None], Record], located: Located
) -> Record:
    """Put every record through its own branch alone, in blocks, of which each branch runs as many as it needs.

    So the shapes are the same for every ratio and every order, and no branch works on another's records.
    """
    count = len(located.source)
    width = min(_BLOCK_LANES, count)
    lane = jnp.arange(count, dtype=jnp.uint32)
    members = [jnp.isin(located.source, jnp.asarray(branch.sources, jnp.uint32)) for branch in branches]
    ranks = [jnp.cumsum(member, dtype=jnp.uint32) for member in members]
    begins = jnp.cumsum(jnp.stack([jnp.uint32(0), *(rank[-1] for rank in ranks)]), dtype=jnp.uint32)
    # Sorted by branch, each record has a place; what a last block does past its branch's end, the next one does again.
    place = sum(
        jnp.where(member, begin + rank - 1, 0) for member, begin, rank in zip(members, begins, ranks, strict=False)
    )
    lanes = jnp.zeros(count + width, jnp.uint32).at[place].set(lane, mode="promise_in_bounds", unique_indices=True)
    found: Record = {}
    for branch, member, begin, end in zip(branches, members, begins[:-1], begins[1:], strict=True):

        def block(i: jax.Array, branch: Branch = branch, member: jax.Array = member) -> Record:
            own = lax.dynamic_slice(lanes, (i,), (width,))
            return through(branch, Located(*(look_up(field, own) for field in located)), look_up(member, own))

        def put(i: jax.Array, found: Record, begin: jax.Array = begin, block: Callable[..., Record] = block) -> Record:
            at = begin + i.astype(jnp.uint32) * width
            return {
                leaf: lax.dynamic_update_slice(found[leaf], value, (at, *[jnp.uint32(0)] * (value.ndim - 1)))
                for leaf, value in block(at).items()
            }

        if not found:
            shapes = jax.eval_shape(block, begin)
            found = {leaf: jnp.zeros((count + width, *of.shape[1:]), of.dtype) for leaf, of in shapes.items()}
        found = lax.fori_loop(0, ((end - begin + (width - 1)) // width).astype(jnp.int32), put, found)
    return {leaf: look_up(values, place) for leaf, values in found.items()}


def _apply(steps: Sequence[Step], numbers: Numbers, record: Record, lane: Located) -> Record:
    """Apply a chain of operators to one record with flat leaves."""
    for step, settings, words in zip(steps, numbers.settings, numbers.keys, strict=True):
        record = {leaf: record[leaf].reshape(shape) for leaf, shape in step.shapes}
        own = {name: choose(table, lane.source) for name, table in settings.items()}
        keys: tuple[jax.Array, ...] = ()
        if words is not None:
            # From the record's own place, so that it is augmented the same in any batch, on any host.
            word = choose(words[0], lane.source), choose(words[1], lane.source)
            keys = (jax.random.wrap_key_data(jnp.stack(fold(fold(word, lane.epoch), lane.record))),)
        record = step.function(record, *keys, **dict(step.static), **own)
    return {leaf: value.reshape(-1) if value.ndim else value for leaf, value in record.items()}
