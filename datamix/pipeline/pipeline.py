"""The pipeline: plan, data and operators as one compiled program, read by loop, by index or by cursor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError, DataError
from datamix.mixing.plan import Plan
from datamix.mixing.weights import Number
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.cursor import Cursor, PlanArrays, arrays_of
from datamix.pipeline.graph import Graph
from datamix.pipeline.iterator import BatchIterator, Output, start_at
from datamix.pipeline.lowering import assemble, stored_spec
from datamix.pipeline.program import Compiled, Program, Reader, Resident, next_jitted
from datamix.sources.base import Source
from datamix.spec import Batch, LeafSpec, Spec

Remainder = Literal["drop", "keep"]

_ALIGNMENT = 64


class Pipeline:
    """Mixed batches of several sources.

    A pipeline is an object of the host. What functions under `jit`, `scan` and `vmap` take is `pipeline.compiled`.

    Args:
      sources: by name, in order.
      graph: their operators and the shared ones.
      plan: of the mix.
      batch_size: records a batch.
      remainder: whether records that fill no batch at the end of the mix are dropped, or make a short one.
      seeds: of each source's random operators, by name.
      identity: what else determines the sequence, by the key it is configured with; for the fingerprint.
      reader: of another pipeline of the same sources, whose data this one then shares.

    Raises:
      SpecError: the records of two sources do not fit together; found before any data is read.
      ConfigError: the mix holds no whole batch, or its numbers do not fit.
      DataError: a source cannot be read.

    Attributes:
      graph: The operators.
      plan: The plan of the mix.
      batch_size: Records in a batch.
      remainder: What becomes of the records that fill no batch.
      source_names: The names of the sources, in order.
      compiled: The program and its arrays, to be passed into functions under `jit`, `scan` and `vmap`.
    """

    compiled: Compiled

    def __init__(
        self,
        sources: Mapping[str, Source],
        graph: Graph,
        plan: Plan,
        *,
        batch_size: int,
        remainder: Remainder = "drop",
        seeds: Mapping[str, int] | None = None,
        identity: Mapping[str, object] | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.graph, self.batch_size, self.remainder = graph, batch_size, remainder
        self.source_names = tuple(sources)
        self._identity = dict(identity or {})
        self._buffers: dict[Program, Buffers] = {}
        self._set_plan(plan)
        lookup, plan_arrays = arrays_of(plan)
        all_seeds = [(seeds or {}).get(name, 0) for name in sources]
        stored = {name: stored_spec(name, source.spec) for name, source in sources.items()}
        program, numbers, groups = assemble(graph, stored, all_seeds, lookup, batch_size)
        self.compiled = Compiled(program, on_device(plan_arrays), reader or _resident(sources, stored, groups), numbers)

    def _set_plan(self, plan: Plan) -> None:
        self.plan = plan
        self._num_batches = num_batches(plan.length, self.batch_size, self.remainder)
        if self._num_batches == 0:
            raise ConfigError(
                f"batch.size = {self.batch_size} is more than the {plan.length} records of the whole mix; make it "
                "smaller, or set batch.remainder=keep."
            )

    @property
    def spec(self) -> dict[str, LeafSpec]:
        """Shape and dtype of each leaf of one finished record."""
        return dict(self.compiled.program.spec)

    @property
    def reader(self) -> Reader:
        """The data, for other pipelines of the same sources."""
        return self.compiled.reader

    @property
    def fingerprint(self) -> str:
        """A digest of all that determines the sequence."""
        return fingerprint(self._identity, self.plan, self.batch_size, self.remainder)

    def with_weights(self, weights: Mapping[str, Number]) -> Pipeline:
        """The same data and the same compiled program in another ratio.

        Args:
          weights: relative weights of sources and groups; one not named has 1, or what its group gives it. They hold
            from the first step to the last, in place of a schedule.

        Raises:
          ConfigError: an unknown source, or numbers that make no mix.
        """
        other = object.__new__(Pipeline)
        other.graph, other.batch_size, other.remainder = self.graph, self.batch_size, self.remainder
        other.source_names, other._identity, other._buffers = self.source_names, self._identity, self._buffers
        other._set_plan(self.plan.with_weights(weights))
        other.compiled = replace(self.compiled, plan=on_device(arrays_of(other.plan)[1]))
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
        flat, _ = next_jitted(self.compiled, self.start(index))
        rows = self._rows(index)
        return {leaf: _shaped(flat[leaf], part)[:rows] for leaf, part in self.spec.items()}

    def _rows(self, step: int) -> int:
        """Records in the batch at a step: in the last one perhaps fewer."""
        length = self.plan.length
        return self.batch_size if length is None else min(self.batch_size, length - step * self.batch_size)

    def iterator(self, start: int = 0, shard: tuple[int, int] = (0, 1), output: Output = "numpy") -> BatchIterator:
        """Batches from a step on.

        Args:
          start: number of the first batch.
          shard: (index, count): of every batch, give the part of reader `index` among `count` alone. The parts of all
            readers make up the batch, whatever their number; where that does not divide it, they differ by one record
            and take turns. A state can be restored under another number of readers.
          output: "numpy" gives read-only views without a copy, "jax" arrays on the device. A view keeps the whole chunk
            it belongs to, some 16 MiB: copy what is to be kept for long.

        Raises:
          ConfigError: no such shard, or the batch cannot be divided so.
        """
        return BatchIterator(
            self.compiled,
            self.plan,
            num_batches=self._num_batches,
            buffers=self._buffers,
            parts=parts(self._identity, self.plan, self.batch_size, self.remainder),
            start=start,
            shard=shard,
            output=output,
        )

    def start(self, step: int = 0) -> Cursor:
        """The cursor before the batch at `step`; a pytree for `next`."""
        return start_at(self.plan, step, self.batch_size)

    def next(self, cursor: Cursor) -> tuple[Batch, Cursor]:
        """`compiled.next`: the batch at a cursor, and the cursor after it."""
        return self.compiled.next(cursor)

    @property
    def __jax_array__(self) -> NoReturn:
        """What JAX asks an argument for that it does not know.

        Raises:
          ConfigError: Always. A `TypeError` JAX would hide in a message of its own.
        """
        raise ConfigError(
            "a Pipeline is an object of the host and no argument of a function under jit, scan or vmap; pass "
            "pipeline.compiled, which has the same next(cursor)."
        )


def on_device(plan: PlanArrays) -> PlanArrays:
    """The arrays of a plan on the device."""
    arrays: PlanArrays = jax.tree.map(jnp.asarray, plan)
    return arrays


def _shaped(flat: jax.Array, part: LeafSpec) -> np.ndarray:
    return np.asarray(flat).reshape(-1, *part.shape)


def _resident(sources: Mapping[str, Source], specs: Mapping[str, Spec], groups: list[list[int]]) -> Resident:
    """Read the sources, those of each storage group into one array.

    One after the other: beside what the pipeline keeps, no more than one source is in memory at a time.

    Raises:
      DataError: an integer does not fit the stored dtype, or a source gives another number of records than it said.
    """
    names = list(sources)
    first = np.zeros(len(names), np.uint32)
    storage = []
    for members in groups:
        sizes = [sources[names[member]].num_records for member in members]
        ends = np.cumsum(sizes)
        first[members] = ends - sizes
        rows = {
            leaf: _aligned((int(ends[-1]), *part.flat), part.dtype) for leaf, part in specs[names[members[0]]].items()
        }
        for member, size in zip(members, sizes, strict=True):
            _read_into({leaf: values[first[member] :][:size] for leaf, values in rows.items()}, sources, names[member])
        # Aligned as XLA wants it, and so taken as it is, without a copy.
        storage.append(jax.device_put(rows))
    return Resident(tuple(storage), jnp.asarray(first))


def _read_into(rows: Mapping[str, np.ndarray], sources: Mapping[str, Source], name: str) -> None:
    """Fill rows with one axis for a record's elements from a source."""
    arrays = sources[name].read()
    for leaf, stored in rows.items():
        values = arrays[leaf]
        if len(values) != len(stored):
            raise DataError(f"source {name!r}: leaf {leaf!r} has {len(values)} records, not {len(stored)}.")
        if values.dtype.kind in "iu" and values.dtype.itemsize > 4 and values.size:
            limits = np.iinfo(stored.dtype)
            if values.min() < limits.min or values.max() > limits.max:
                raise DataError(f"source {name!r}: leaf {leaf!r} holds numbers that do not fit {stored.dtype}.")
        stored[...] = values.reshape(stored.shape)


def _aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array at an address that XLA's CPU backend takes without a copy."""
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


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
    shares = [[until, *(str(share) for share in group.leaf_shares())] for until, group in plan.phases]
    own = {"mix": shares, "batch.size": batch_size, "batch.remainder": remainder}
    return {key: digest(value) for key, value in {**identity, **own}.items()}


def fingerprint(identity: Mapping[str, object], plan: Plan, batch_size: int, remainder: Remainder) -> str:
    """One digest of all `parts`."""
    return digest(parts(identity, plan, batch_size, remainder))


def digest(value: object) -> str:
    """A digest of a value of JSON's types."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
