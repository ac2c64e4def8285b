"""The pipeline: plan, data and operators as one compiled program, read by loop, by index or by cursor."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from datamix.assemble import assemble, stored_spec
from datamix.cursor import Cursor, PlanArrays, arrays_of, cursor_at
from datamix.errors import ConfigError, DataError, StateError
from datamix.graph import Graph
from datamix.mixing.weights import Number
from datamix.plan import Plan
from datamix.program import Arguments, Numbers, Program, Reader, Resident, run_jitted
from datamix.sources.base import Arrays, LeafSpec, Source, Spec

Batch = dict[str, Any]
"""Leaf name to array, shape [batch, *leaf shape]."""

State = dict[str, Any]
"""A position and what determines the sequence, in JSON's types."""

Output = Literal["numpy", "jax"]
Remainder = Literal["drop", "keep"]

# Enough work a call that its overhead, 100 µs, does not count; little enough that two chunks in flight stay small.
_CHUNK_BYTES = 8 * 2**20
_CHUNK_STEPS = 256
_JAX_STEPS = 16  # an array on the device for each leaf of each batch: more of them take seconds to compile


class Pipeline:
    """Mixed batches of several sources.

    A pipeline is a pytree of its data, plan and numbers. Hand it to a jitted function as an argument, and pipelines
    that differ in ratio or seed share the compiled code; closed over, its data would be copied into the code.

    Args:
      sources: by name, in order.
      graph: their operators and the shared ones.
      plan: of the mix.
      reweighed: relative weights by name -> the same plan with those weights.
      batch_size: records a batch.
      remainder: whether records that fill no batch at the end of the mix are dropped, or make a short one.
      seeds: of each source's random operators, by name.
      identity: what else determines the sequence, by the key it is configured with; for the fingerprint.
      reader: of another pipeline of the same sources, whose data this one then shares.

    Raises:
      SpecError: the records of two sources do not fit together; found before any data is read.
      ConfigError: the mix holds no whole batch, or its numbers do not fit.
      DataError: a source cannot be read.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        graph: Graph,
        plan: Plan,
        reweighed: Callable[[Mapping[str, Number]], Plan],
        *,
        batch_size: int,
        remainder: Remainder = "drop",
        seeds: Mapping[str, int] | None = None,
        identity: Mapping[str, object] | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.graph, self.plan, self.batch_size, self.remainder = graph, plan, batch_size, remainder
        self.source_names = tuple(sources)
        self._reweighed = reweighed
        self._identity = dict(identity or {})
        self._count_batches()
        lookup, plan_arrays = arrays_of(self.plan)
        own_seeds = [(seeds or {}).get(name, 0) for name in sources]
        stored = {name: stored_spec(name, source.spec) for name, source in sources.items()}
        program, numbers, groups = assemble(graph, stored, own_seeds, lookup, batch_size)
        if reader is None:
            reader = _resident([_flat(name, source.read(), stored[name]) for name, source in sources.items()], groups)
        self._set(program, plan_arrays, reader, numbers)

    def _set(self, program: Program, plan: PlanArrays, reader: Reader, numbers: tuple[Numbers, ...]) -> None:
        batch_bytes = self.batch_size * sum(np.dtype(s.dtype).itemsize * int(np.prod(s.shape)) for _, s in program.spec)
        num_steps = min(max(1, _CHUNK_BYTES // max(1, batch_bytes)), _CHUNK_STEPS)
        self._program = program.resized(num_steps)
        self._arguments = Arguments(jax.tree.map(jnp.asarray, plan), reader, numbers)

    def _count_batches(self) -> None:
        self._num_batches = num_batches(self.plan.length, self.batch_size, self.remainder)
        if self._num_batches == 0:
            raise ConfigError(
                f"batch.size = {self.batch_size} is more than the {self.plan.length} records of the whole mix; make it "
                "smaller, or set batch.remainder=keep."
            )

    @property
    def spec(self) -> dict[str, LeafSpec]:
        """Shape and dtype of each leaf of one finished record."""
        return dict(self._program.spec)

    @property
    def reader(self) -> Reader:
        """The data, for other pipelines of the same sources."""
        return self._arguments.reader

    @property
    def fingerprint(self) -> str:
        """A digest of all that determines the sequence."""
        return fingerprint(self._identity, self.plan, self.batch_size, self.remainder)

    def with_weights(self, weights: Mapping[str, Number]) -> Pipeline:
        """The same data and the same compiled program in another ratio.

        Args:
          weights: relative weights; a source not named has 1.

        Raises:
          ConfigError: an unknown source, or numbers that make no mix.
        """
        other = _copied(self.__dict__, plan=self._reweighed(weights))
        other._count_batches()
        _, arrays = arrays_of(other.plan)
        other._set(self._program, arrays, self._arguments.reader, self._arguments.numbers)
        return other

    def __len__(self) -> int:
        """Batches in the whole mix.

        Raises:
          TypeError: the mix never ends.
        """
        if self._num_batches is None:
            raise TypeError("this mix never ends, so it has no length; see stop=, or take batches by iterator()")
        return self._num_batches

    def __repr__(self) -> str:
        return f"<Pipeline of {self.plan!r}, batches of {self.batch_size}>"

    def __iter__(self) -> BatchIterator:
        return self.iterator()

    def __getitem__(self, step: int) -> Batch:
        """The batch at a step, NumPy; equal to the loop's, without computing those before.

        Raises:
          IndexError: there is no such batch.
        """
        if not isinstance(step, int | np.integer):
            raise TypeError(f"a pipeline is indexed by the number of a batch, not by {step!r}; see iterator(start=…)")
        step, length = int(step), self._num_batches
        index = step + length if step < 0 and length is not None else step
        if index < 0 or (length is not None and index >= length):
            raise IndexError(f"batch {step} of a mix of {'endless' if length is None else length} batches")
        return next(self.iterator(start=index))

    def iterator(self, start: int = 0, shard: tuple[int, int] = (0, 1), output: Output = "numpy") -> BatchIterator:
        """Batches from a step on.

        Args:
          start: number of the first batch.
          shard: (index, count): of every batch, give the part of reader `index` among `count` alone. The parts of all
            readers make up the batch, whatever their number.
          output: "numpy" gives read-only views without a copy, "jax" arrays on the device.

        Raises:
          ConfigError: no such shard, or the batch cannot be divided so.
        """
        return BatchIterator(self, start, shard, output)

    def start(self, step: int = 0) -> Cursor:
        """The cursor before the batch at `step`; a pytree for `next`."""
        step = operator.index(step)
        if step < 0:
            raise ConfigError(f"start = {step}; it is 0 or more.")
        cursor = cursor_at(self.plan, step * self.batch_size)
        return Cursor(*(jnp.asarray(field) for field in cursor))

    def next(self, cursor: Cursor) -> tuple[Batch, Cursor]:
        """One batch and the cursor after it; pure, for use inside `jit`, `scan` and `vmap`.

        A cursor knows no end: past the end of the mix it goes on with the last stage.
        """
        flat, cursor = run_jitted(self._program.resized(1), self._arguments, cursor, jnp.uint32(0))
        return {leaf: flat[leaf].reshape(-1, *part.shape) for leaf, part in self._program.spec}, cursor

    def _parts(self) -> dict[str, str]:
        return parts(self._identity, self.plan, self.batch_size, self.remainder)


class _Rest:
    """A pipeline without its arrays; equal to that of any pipeline that runs the same program."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.fields = {name: value for name, value in pipeline.__dict__.items() if name != "_arguments"}
        self.program = pipeline._program.resized(1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self.program == other.program

    def __hash__(self) -> int:
        return hash(self.program)


def _unflatten(rest: _Rest, children: tuple[Arguments]) -> Pipeline:
    return _copied(rest.fields, _arguments=children[0])


def _copied(fields: Mapping[str, Any], **changed: Any) -> Pipeline:
    pipeline = object.__new__(Pipeline)
    pipeline.__dict__.update(fields, **changed)
    return pipeline


jax.tree_util.register_pytree_node(Pipeline, lambda pipeline: ((pipeline._arguments,), _Rest(pipeline)), _unflatten)


class BatchIterator(Iterator[Batch]):
    """An iterator with a state; see `Pipeline.iterator`."""

    def __init__(self, pipeline: Pipeline, start: int, shard: tuple[int, int], output: Output) -> None:
        index, count = shard
        if not 0 <= index < count:
            raise ConfigError(f"shard = {shard}: the index lies in [0, {max(count, 0)}).")
        if pipeline.batch_size % count:
            raise ConfigError(
                f"shard = {shard}: a batch of {pipeline.batch_size} does not divide among {count} readers."
            )
        length = pipeline.plan.length
        rest = 0 if length is None or pipeline.remainder == "drop" else length % pipeline.batch_size
        if rest % count:
            raise ConfigError(
                f"shard = {shard}: the last batch of {rest} does not divide among {count} readers; "
                "set batch.remainder=drop."
            )
        if output not in ("numpy", "jax"):
            raise ConfigError(f"output = {output!r}; it is 'numpy' or 'jax'.")
        self._pipeline, self._index, self._count, self._output = pipeline, index, count, output
        num_steps = pipeline._program.num_steps if output == "numpy" else min(pipeline._program.num_steps, _JAX_STEPS)
        self._program = pipeline._program.resized(num_steps, count)
        self._end = pipeline._num_batches
        self._rest = rest
        self._seek(start)

    def _seek(self, step: int) -> None:
        step = operator.index(step)
        self.step = self._begun = step
        self._ahead: list[dict[str, jax.Array]] = []
        self._ready: list[Batch] = []
        self._computed = step
        self._cursor = self._pipeline.start(step)

    def _compute(self) -> dict[str, jax.Array]:
        """Set the next chunk going, without waiting for it."""
        turn = jnp.uint32((self._index + self._computed) % self._count)
        flat: dict[str, jax.Array]
        flat, self._cursor = run_jitted(self._program, self._pipeline._arguments, self._cursor, turn)
        self._computed += self._program.num_steps
        return flat

    def __next__(self) -> Batch:
        if self._end is not None and self.step >= self._end:
            raise StopIteration
        if not self._ready:
            self._ready = self._batches(self._ahead.pop() if self._ahead else self._compute())
        batch = self._ready.pop()
        self.step += 1
        # From the second batch on, the next chunk is computed while this one is used.
        if not self._ahead and self.step > self._begun + 1 and (self._end is None or self._computed < self._end):
            self._ahead.append(self._compute())
        if self._rest and self.step == self._end:
            batch = self._short_batch(batch)
        return batch

    def _short_batch(self, batch: Batch) -> Batch:
        """This reader's rows of the last batch, which is not full."""
        if self._count > 1:
            whole = next(BatchIterator(self._pipeline, self.step - 1, (0, 1), self._output))
            rows = self._rest // self._count
            first = (self._index + self.step - 1) % self._count * rows
            return {leaf: value[first : first + rows] for leaf, value in whole.items()}
        return {leaf: value[: self._rest] for leaf, value in batch.items()}

    def _batches(self, flat: dict[str, jax.Array]) -> list[Batch]:
        """The batches of a chunk, last first."""
        num_steps = self._program.num_steps
        rows = self._program.batch_size // self._count
        shaped: dict[str, Any] = {}
        for leaf, part in self._program.spec:
            values = np.asarray(flat[leaf]) if self._output == "numpy" else flat[leaf]
            shaped[leaf] = values.reshape(num_steps, rows, *part.shape)
        if self._output == "jax":
            shaped = _unstacked(shaped)
        return [{leaf: values[i] for leaf, values in shaped.items()} for i in reversed(range(num_steps))]

    def state(self) -> State:
        """Where the iterator stands: small, JSON; give it to `restore` of any iterator of the same mix."""
        return {"version": 1, "step": self.step, "fingerprint": self._pipeline._parts()}

    def restore(self, state: State) -> None:
        """Go on where a state was taken.

        Raises:
          StateError: it is no state, or of another mix; names what differs.
        """
        try:
            version, step, parts = state["version"], state["step"], dict(state["fingerprint"])
            if version != 1 or isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise StateError(
                "this is no state of datamix, or of a newer version; it needs version 1, a step and a fingerprint."
            ) from None
        own = self._pipeline._parts()
        if differing := sorted(key for key in own.keys() | parts.keys() if own.get(key) != parts.get(key)):
            raise StateError(
                f"this state was taken under another configuration: {', '.join(differing)} differ; restore "
                "it with the settings it was taken under, or start afresh."
            )
        self._seek(step)


@jax.jit
def _unstacked(shaped: dict[str, jax.Array]) -> dict[str, list[jax.Array]]:
    """One array a batch, in one call: single slices cost a call each."""
    return {leaf: list(values) for leaf, values in shaped.items()}


def _flat(name: str, arrays: Arrays, spec: Spec) -> dict[str, np.ndarray]:
    """Arrays with one axis for a record's elements, in the stored dtype.

    Raises:
      DataError: an integer does not fit.
    """
    flat = {}
    for leaf, part in spec.items():
        values = arrays[leaf]
        if values.dtype.kind in "iu" and values.dtype.itemsize > 4 and values.size:
            limits = np.iinfo(part.dtype)
            if values.min() < limits.min or values.max() > limits.max:
                raise DataError(f"source {name!r}: leaf {leaf!r} holds numbers that do not fit {part.dtype}.")
        rows = values.reshape(len(values), -1) if part.shape else values
        flat[leaf] = rows.astype(part.dtype, copy=False)
    return flat


def _resident(flat: Sequence[Mapping[str, np.ndarray]], groups: list[list[int]]) -> Resident:
    """Put the sources of each storage group into one array."""
    first = np.zeros(len(flat), np.uint32)
    storage = []
    for members in groups:
        sizes = [len(next(iter(flat[source].values()))) for source in members]
        first[members] = np.cumsum([0, *sizes[:-1]])
        storage.append(
            {leaf: jnp.asarray(np.concatenate([flat[source][leaf] for source in members])) for leaf in flat[members[0]]}
        )
    return Resident(tuple(storage), jnp.asarray(first))


def num_batches(length: int | None, batch_size: int, remainder: Remainder) -> int | None:
    """Batches in a mix of so many records; None without end.

    >>> num_batches(10, 4, "drop"), num_batches(10, 4, "keep"), num_batches(None, 4, "keep")
    (2, 3, None)
    """
    if length is None:
        return None
    return length // batch_size if remainder == "drop" else -(-length // batch_size)


def parts(identity: Mapping[str, object], plan: Plan, batch_size: int, remainder: Remainder) -> dict[str, str]:
    """A digest of each thing that determines the sequence, by the name a user knows it by."""
    own = {"mix": [str(share) for share in plan.shares], "batch.size": batch_size, "batch.remainder": remainder}
    return {key: digest(value) for key, value in {**identity, **own}.items()}


def fingerprint(identity: Mapping[str, object], plan: Plan, batch_size: int, remainder: Remainder) -> str:
    """One digest of all `parts`."""
    return digest(parts(identity, plan, batch_size, remainder))


def digest(value: object) -> str:
    """A digest of a value of JSON's types."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
