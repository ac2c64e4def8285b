"""The pipeline: plan, data and operators as one compiled program, read by loop, by index or by cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Literal, NoReturn, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError
from datamix.fingerprint import digest, parts, records_key
from datamix.mixing.plan import Plan
from datamix.mixing.weights import Number
from datamix.pipeline.batching import Batching, Remainder, RowShuffle
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.graph import Graph
from datamix.pipeline.iterator import BatchIterator, Output
from datamix.pipeline.locate import arrays_of, start_at
from datamix.pipeline.lowering import assemble, stored_spec
from datamix.pipeline.program import Compiled, Program, locate_block, next_flat
from datamix.pipeline.readers.base import Reader
from datamix.pipeline.readers.fed import Fed, failures_named, fed_reader
from datamix.pipeline.readers.host import HostReader, SampledStatistics, Staging, host_of
from datamix.pipeline.readers.resident import read_resident
from datamix.pipeline.where import Place, places_at
from datamix.sources.base import Source
from datamix.sources.statistics import Statistics
from datamix.spec import Batch, LeafSpec

Tree = TypeVar("Tree")
Placement: TypeAlias = Literal["device", "host"]
"""Where the records of a source lie: whole in the device's memory, or read on the host as they are needed."""


class Pipeline:
    """Mixed batches of several sources.

    A pipeline is an object of the host. What functions under `jit`, `scan` and `vmap` take is `pipeline.compiled`.

    Args:
      sources: The sources by name, in order.
      graph: The operators of each source, and those after the mix.
      plan: The plan of the mix.
      batch_size: Records in a batch.
      remainder: Whether records that fill no batch at the end of the mix are dropped, or make a short one.
      shuffle_rows: Whether the rows of each batch are put into another order, a pure function of the seed and the step.
      seeds: The seed of each source's random operators, by name; 0 where none is given.
      identity: What else determines the sequence, by the key it is configured with; for the fingerprint.
      reader: The reader of another pipeline of the same sources, whose data this one then shares.
      statistics: The statistics of that data.
      placements: Where the records of each source lie, by name: "device" for whole in the device's memory, which is
        what those have that are not named, "host" for read as they are needed. Batches are the same.
      threads: The number of threads that read on the host; None for twice the number of processors, 2 to 16.
      prefetch_bytes: The most bytes that an iterator has read ahead, of all sources together; None for 256 MiB.

    Raises:
      SpecError: The records of two sources do not fit together; found before any data is read.
      ConfigError: The mix holds no whole batch, or its numbers do not fit.
      DataError: A source cannot be read.

    Attributes:
      graph: The operators.
      plan: The plan of the mix.
      batching: How the mix is cut into batches.
      source_names: The names of the sources, in order.
      statistics: The statistics of every leaf of each source, as they were when its records were read; of one that
        is read on the host, of some of its records, which are looked at when they are first asked for.
      placements: Where the records of each source lie, by name.
      compiled: The program and its arrays, to be passed into functions under `jit`, `scan` and `vmap`.
    """

    graph: Graph
    plan: Plan
    batching: Batching
    source_names: tuple[str, ...]
    statistics: Statistics
    placements: Mapping[str, Placement]
    compiled: Compiled

    def __init__(
        self,
        sources: Mapping[str, Source],
        graph: Graph,
        plan: Plan,
        *,
        batch_size: int,
        remainder: Remainder = "drop",
        shuffle_rows: bool = False,
        seeds: Mapping[str, int] | None = None,
        identity: Mapping[str, object] | None = None,
        reader: Reader | None = None,
        statistics: Statistics | None = None,
        placements: Mapping[str, Placement] | None = None,
        threads: int | None = None,
        prefetch_bytes: int | None = None,
    ) -> None:
        batching = Batching(length=plan.length, batch_size=batch_size, remainder=remainder)
        plan_arrays = _on_device(arrays_of(plan))
        all_seeds = [(seeds or {}).get(name, 0) for name in sources]
        stored = {name: stored_spec(name, source.spec) for name, source in sources.items()}
        program, numbers, groups = assemble(graph, stored, all_seeds, batch_size)
        row_shuffle = _on_device(RowShuffle.of(plan, batching)) if shuffle_rows else None
        self.graph, self.plan, self.batching, self.source_names = graph, plan, batching, tuple(sources)
        self._identity = dict(identity or {})
        if jax.dtypes.canonicalize_dtype("int64") == np.int64:
            self._identity["JAX_ENABLE_X64"] = True
        self._places = {name: getattr(source, "places", None) for name, source in sources.items()}
        self._contents: dict[str, str] = {}
        self._buffers: dict[Program, Buffers] = {}
        self.statistics = statistics or {}
        self.placements = {name: (placements or {}).get(name, "device") for name in sources}
        fed = [name for name, placement in self.placements.items() if placement == "host"]
        self._host: HostReader | None = None  # kept here: compiled programs know it by its token alone
        if isinstance(reader, Fed):
            self._host = host_of(int(reader.token))
        elif reader is None:
            if fed:
                self._host = HostReader(sources, stored, groups, fed, threads=threads, prefetch_bytes=prefetch_bytes)
            reader, self.statistics = read_resident(sources, stored, groups, fed)
            if self._host is not None:
                reader = fed_reader(self._host, reader)
                self.statistics = SampledStatistics(self.source_names, self.statistics, self._host)
        self.compiled = Compiled(program, plan_arrays, row_shuffle, reader, numbers)

    @property
    def batch_size(self) -> int:
        """Records in a batch."""
        return self.batching.batch_size

    @property
    def remainder(self) -> Remainder:
        """Whether records that fill no batch at the end of the mix are dropped, or make a short one."""
        return self.batching.remainder

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
        """A digest of all that determines the sequence: what is configured, and what the records hold."""
        return digest(self._parts())

    def _parts(self) -> dict[str, str]:
        """The digest of each thing that determines the sequence, the records among them."""
        if not self._contents:
            self._contents |= {
                records_key(name): self.reader.digest(branch.group, i, self.plan.sizes[i])
                for branch in self.compiled.program.branches
                for i, name in enumerate(self.source_names)
                if i in branch.sources
            }
        shuffle_rows = self.compiled.row_shuffle is not None
        settings = parts(self._identity, self.plan, self.batch_size, self.remainder, shuffle_rows=shuffle_rows)
        return settings | self._contents

    def with_weights(self, weights: Mapping[str, Number]) -> Pipeline:
        """The same data and the same compiled program in another ratio.

        Args:
          weights: Relative weights of sources and groups; one not named has 1, or what its group gives it. They hold
            from the first step to the last, in place of a schedule.

        Raises:
          ConfigError: There is no such source, or the numbers make no mix.
        """
        plan = self.plan.with_weights(weights)
        batching = replace(self.batching, length=plan.length)
        row_shuffle = None if self.compiled.row_shuffle is None else _on_device(RowShuffle.of(plan, batching))
        other = object.__new__(Pipeline)
        other.graph, other.plan, other.batching, other.source_names = self.graph, plan, batching, self.source_names
        other._identity, other._contents, other._buffers = self._identity, self._contents, self._buffers
        other.statistics, other._places = self.statistics, self._places
        other.placements, other._host = self.placements, self._host
        other.compiled = replace(self.compiled, plan=_on_device(arrays_of(plan)), row_shuffle=row_shuffle)
        return other

    def __len__(self) -> int:
        """Batches in the whole mix.

        Raises:
          TypeError: The mix never ends.
        """
        length = self.batching.num_batches
        if length is None:
            raise TypeError("this mix never ends, so it has no length; see stop=, or take batches by iterator()")
        return length

    def __repr__(self) -> str:
        return f"<Pipeline of {self.plan!r}, batches of {self.batch_size}>"

    def _repr_html_(self) -> str:
        """The plan and the leaves of a batch as tables, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(leaf)}</td><td>{part.dtype} {[self.batch_size, *part.shape]}</td></tr>"
            for leaf, part in self.spec.items()
        )
        return f"{self.plan._repr_html_()}<table><tr><th>leaf</th><th>in a batch</th></tr>{rows}</table>"

    def __iter__(self) -> BatchIterator:
        return self.iterator()

    def __getitem__(self, step: int) -> Batch:
        """The batch at a step, NumPy; equal to the loop's, without computing those before.

        Raises:
          IndexError: There is no such batch.
        """
        if not isinstance(step, int | np.integer):
            raise TypeError(f"a pipeline is indexed by the number of a batch, not by {step!r}; see iterator(start=…)")
        index = self._index(step)
        rows, cursor, compiled = self.batching.num_rows(index), self.start(index), self.compiled
        if isinstance(compiled.reader, Fed):
            located, _ = locate_block()(compiled.plan, compiled.row_shuffle, cursor, 1, self.batch_size)
            source, record = (np.asarray(values)[:rows] for values in (located.source, located.record))
            staging = self.read_on_host(source, record, self.batch_size)
            compiled = replace(compiled, reader=compiled.reader.staged(staging))
        flat, _ = next_flat(compiled, cursor)
        return {leaf: np.asarray(flat[leaf]).reshape(-1, *part.shape)[:rows] for leaf, part in self.spec.items()}

    def where(self, step: int) -> list[Place]:
        """The records in the batch at a step, a row each; known from the position, so that none is read.

        Raises:
          IndexError: There is no such batch.
        """
        return places_at(self._index(step), self.plan, self.batching, self.compiled.row_shuffle, self._places)

    def _index(self, step: int) -> int:
        """The number of the batch at a step, which may be counted from the end."""
        step, length = int(step), self.batching.num_batches
        index = step + length if step < 0 and length is not None else step
        if index < 0 or (length is not None and index >= length):
            raise IndexError(f"batch {step} of a mix of {'endless' if length is None else length} batches")
        return index

    def read_on_host(self, source: np.ndarray, record: np.ndarray, capacity: int | None = None) -> Staging:
        """Those of some records that are read on the host; see `HostReader.read`."""
        assert self._host is not None, "all sources are resident"
        return self._host.read(source, record, capacity)

    def iterator(self, start: int = 0, shard: tuple[int, int] = (0, 1), output: Output = "numpy") -> BatchIterator:
        """Batches from a step on.

        Args:
          start: Number of the first batch.
          shard: (rank, num_shards): of every batch, give the shard of one rank alone. A shard is a contiguous block of
            the batch's rows, the same in every batch: the shards of all ranks, one after the other, are the batch.
            Where their number does not divide it, the first shards are a row larger. A short last batch may leave a
            rank without rows. A state can be restored under another number of ranks.
          output: "numpy" gives read-only views without a copy, "jax" arrays on the device. A view keeps the whole chunk
            it belongs to, some 16 MiB: copy what is to be kept for long.

        Raises:
          ConfigError: There is no such rank, or there are more ranks than rows in a batch.
        """
        return BatchIterator(
            self.compiled,
            self.plan,
            self.batching,
            buffers=self._buffers,
            parts=self._parts,
            start=start,
            shard=shard,
            output=output,
        )

    def start(self, step: int = 0) -> Cursor:
        """The cursor before the batch at `step`; a pytree for `next`."""
        return start_at(self.plan, step, self.batch_size)

    def next(self, cursor: Cursor) -> tuple[Batch, Cursor]:
        """`compiled.next`: the batch at a cursor, and the cursor after it."""
        with failures_named():
            return self.compiled.next(cursor)

    @property
    def __jax_array__(self) -> NoReturn:
        """Refuse to be an argument of JAX, which asks for this what it does not know.

        Raises:
          ConfigError: Always. A `TypeError` JAX would hide in a message of its own.
        """
        raise ConfigError(
            "a Pipeline is an object of the host and no argument of a function under jit, scan or vmap; pass "
            "pipeline.compiled, which has the same next(cursor)."
        )


def _on_device(arrays: Tree) -> Tree:
    """The same arrays on the device."""
    moved: Tree = jax.tree.map(jnp.asarray, arrays)
    return moved
