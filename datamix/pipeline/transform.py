"""The third step of the program: operators turn the records that were read into finished batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datamix.operators.base import Traits
from datamix.pipeline.locate import Located
from datamix.pipeline.readers.base import Read
from datamix.pipeline.tables import choose, look_up
from datamix.rng.hash import KeyWords, Words, fold
from datamix.rng.keys import key_of, same_draws
from datamix.spec import Record

# Records of one branch that go through its operators together if there are several branches: enough that the cost of a
# block, some 10 µs, is little beside a resize; few enough that a small share wastes little; and of large records no
# more values than a core's cache holds as floats.
_BLOCK_ROWS, _BLOCK_VALUES = 64, 2**18
_LARGE_BYTES = 2**23
NOT_ASKED = np.uint32(2**32 - 1)
"""The record number of a row whose result does not matter."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class OperatorCall:
    """One operator in the program.

    Attributes:
      function: The operator.
      static: The settings that shape the program.
      promised: What the operator promises.
      shapes: Shape of each leaf passed to it, by name: the logical one, or the flat one for an elementwise operator.
    """

    function: Callable[..., Record]
    static: tuple[tuple[str, Any], ...]
    promised: Traits
    shapes: Shapes


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Sources that share storage and operators, and so one piece of program.

    Attributes:
      group: Index of their storage.
      sources: The indices of the sources.
      calls: What is done to each record.
      numbers: Index of the calls' numbers in `Compiled.numbers`.
    """

    group: int
    sources: tuple[int, ...]
    calls: tuple[OperatorCall, ...]
    numbers: int


class Numbers(NamedTuple):
    """The numbers of one chain of operators, looked up by source.

    Attributes:
      settings: For each call, setting name to values, shape [num_sources, ...].
      keys: For each random call, two words, uint32 [num_sources] each; None for the others.
      branch: The number of the branch, uint32 []; None if there is only one.
    """

    settings: tuple[dict[str, Words], ...]
    keys: tuple[KeyWords | None, ...]
    branch: Words | None = None


def transform(
    branches: Sequence[Branch], shared: Branch, numbers: tuple[Numbers, ...], located: Located, read: Read
) -> Record:
    """Read the located records and apply the operators.

    Records are read branch by branch, where they are needed, so that a resident reader's gather becomes part of the
    loop of the operators.

    Args:
      branches: What is done to the records of each source; static.
      shared: What is done to every record after that; static.
      numbers: The numbers of each chain of operators.
      located: The record of each row; if records are paired, all partners are among them.
      read: Reads records; see `Reader.read`.

    Returns:
      Flat records, leaf name to array of shape [rows, elements], or [rows] for a scalar.
    """

    def through(branch: Branch, rows: Located, index: jax.Array, member: jax.Array | None) -> Record:
        return _mapped(branch.calls, numbers[branch.numbers], read(branch.group, rows, index, member), rows)

    if len(branches) == 1:
        index = jnp.arange(len(located.source), dtype=jnp.uint32)
        mixed = through(branches[0], located, index, None)
    else:
        branch_numbers = [number for branch in branches if (number := numbers[branch.numbers].branch) is not None]
        mixed = by_branch(branches, branch_numbers, through, located)
    if located.loss_weight is not None:
        mixed = mixed | {"loss_weight": mixed["loss_weight"] * located.loss_weight}
    return _after_mix(shared.calls, numbers[shared.numbers], mixed, located)


def _after_mix(calls: Sequence[OperatorCall], numbers: Numbers, records: Record, located: Located) -> Record:
    """Apply the operators after the mix; those before a paired one run on all records before it runs on any."""
    cuts = [0, *(i for i, call in enumerate(calls) if call.promised.paired), len(calls)]
    for begin, end in pairwise(cuts):
        partners = None
        if begin < end and calls[begin].promised.paired:
            assert located.partner is not None
            rows = jnp.arange(len(located.partner), dtype=jnp.uint32) + located.partner
            partners = {leaf: look_up(values, rows) for leaf, values in records.items()}
        part = Numbers(numbers.settings[begin:end], numbers.keys[begin:end])
        records = _mapped(calls[begin:end], part, records, located, partners)
    return records


def _mapped(calls: Sequence[OperatorCall], numbers: Numbers, *rows: Any) -> Record:
    """Apply a chain of operators to rows: the records, their places in the mix, and their partners, if any."""
    apply = jax.vmap(partial(_apply, calls, numbers))
    is_alone = bool(calls) and len(jax.tree.leaves(rows)[0]) == 1
    if is_alone:  # not for several rows, as this traces every operator once more
        shapes = jax.tree.leaves(jax.eval_shape(apply, *rows))
        is_alone = sum(part.size * part.dtype.itemsize for part in shapes) <= _LARGE_BYTES
    if not is_alone:
        mapped: Record = apply(*rows)
        return mapped
    # For a single row XLA makes other code, whose last bits may differ: `next` and a batch by index have to equal the
    # loop, which has several rows, unless records are so large that its chunks have one.
    twice = jax.tree.map(lambda values: jnp.concatenate([values, values]), rows)
    return {leaf: values[:1] for leaf, values in lax.optimization_barrier(apply(*twice)).items()}


def by_branch(
    branches: Sequence[Branch],
    numbers: Sequence[Words],
    through: Callable[[Branch, Located, jax.Array, jax.Array], Record],
    located: Located,
) -> Record:
    """Put every record through only the branch of its source, in blocks: each branch runs as many as it needs.

    So the shapes are the same for every ratio and every order, and no branch works on another's records.

    Args:
      branches: One for each group of sources; static.
      numbers: The number of each branch, uint32 []: as arguments, so that XLA compiles code that differs only in them
        once.
      through: Puts some rows through a branch: takes the branch, the rows, their indices, uint32 [count], and whether
        each is a record of the branch, bool [count].
      located: The record of each row. Nothing is computed where it is `NOT_ASKED`.
    """
    count, num_branches = len(located.source), len(branches)
    values = [[math.prod(shape) for call in branch.calls for _, shape in call.shapes] for branch in branches]
    widths = [min(count, _BLOCK_ROWS, 1 + _BLOCK_VALUES // max([1, *sizes])) for sizes in values]
    room = count + max(widths)
    row = jnp.arange(count, dtype=jnp.uint32)
    number_of = np.zeros(1 + max(max(branch.sources) for branch in branches), np.uint32)
    for number, branch in enumerate(branches):
        number_of[list(branch.sources)] = number
    branch_of = jnp.where(located.record == NOT_ASKED, jnp.uint32(num_branches), choose(number_of, located.source))
    members = branch_of[:, None] == jnp.arange(num_branches + 1, dtype=jnp.uint32)
    ranks = jnp.cumsum(members, axis=0, dtype=jnp.uint32)
    begins = jnp.cumsum(jnp.pad(ranks[-1], (1, 0)), dtype=jnp.uint32)
    # Each record has a place in the order by branch; rows that a last block computes past its branch's end, the next
    # branch computes again.
    place = jnp.where(members, begins[:-1] + ranks - 1, 0).sum(axis=1, dtype=jnp.uint32)
    ordered = jnp.zeros(room, jnp.uint32).at[place].set(row, mode="promise_in_bounds", unique_indices=True)
    sorted_rows: tuple[jax.Array, Located] = ordered, jax.tree.map(lambda values: look_up(values, ordered), located)

    def block(number: int, at: jax.Array, end: jax.Array) -> Record:
        width = widths[number]
        index, rows = jax.tree.map(lambda values: lax.dynamic_slice(values, (at,), (width,)), sorted_rows)
        return through(branches[number], rows, index, at + jnp.arange(width, dtype=jnp.uint32) < end)

    def put(number: int, border: tuple[jax.Array, jax.Array], i: jax.Array, mixed: Record) -> Record:
        begin, end = border
        at = begin + i.astype(jnp.uint32) * widths[number]
        return {
            leaf: lax.dynamic_update_slice(mixed[leaf], value, (at, *[jnp.uint32(0)] * (value.ndim - 1)))
            for leaf, value in block(number, at, end).items()
        }

    shapes = jax.eval_shape(partial(block, 0), row[0], row[0])
    mixed = {leaf: jnp.zeros((room, *of.shape[1:]), of.dtype) for leaf, of in shapes.items()}
    for number, width in enumerate(widths):
        begin, end = (lax.dynamic_index_in_dim(begins, numbers[number] + i, keepdims=False) for i in range(2))
        num_blocks = (end - begin + (width - 1)) // width
        mixed = lax.fori_loop(0, num_blocks.astype(jnp.int32), partial(put, number, (begin, end)), mixed)
    return {leaf: look_up(values, place) for leaf, values in mixed.items()}


def _apply(
    calls: Sequence[OperatorCall], numbers: Numbers, record: Record, place: Located, partner: Record | None = None
) -> Record:
    """Apply a chain of operators to one record with flat leaves, the first of them to its partner as well."""
    for call, settings, words in zip(calls, numbers.settings, numbers.keys, strict=True):
        record = {leaf: record[leaf].reshape(shape) for leaf, shape in call.shapes}
        if partner is not None:
            partner = {leaf: partner[leaf].reshape(shape) for leaf, shape in call.shapes}
        values = {name: choose(table, place.source) for name, table in settings.items()}
        key = None
        if words is not None:
            # From the record's epoch and index, so that it is augmented the same in any batch, on any host.
            word = choose(words[0], place.source), choose(words[1], place.source)
            key = key_of(fold(fold(word, place.epoch), place.record))
        with same_draws():
            arguments = call.promised.arguments(record, key, partner)
            record, partner = call.function(*arguments, **dict(call.static), **values), None
    return {leaf: value.reshape(-1) if value.ndim else value for leaf, value in record.items()}
