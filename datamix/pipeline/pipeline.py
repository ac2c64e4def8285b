"""The pipeline: plan, data and operators as one compiled program, read by loop, by index or by cursor."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeAlias, cast, overload

import jax
import numpy as np

from datamix.errors import ConfigError, StateError
from datamix.fingerprint import causes, changes, difference, digest, in_words, settings_of, shortened
from datamix.mixing.locating import MOST_RECORDS
from datamix.mixing.plan import Plan
from datamix.mixing.plan_spec import Begin
from datamix.mixing.totals import Totals
from datamix.mixing.weights import Number
from datamix.pipeline import xla
from datamix.pipeline.batching import Batching, Remainder, RowOrder, Skip, shard_rows
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.chunks import Chunk, loop_of
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.graph import Graph
from datamix.pipeline.iterator import BatchIterator, Computed, Output
from datamix.pipeline.locate import Located, PlanArrays, arrays_of, start_at
from datamix.pipeline.lookup.credit import CreditLookup
from datamix.pipeline.lowering import assemble, stored_spec
from datamix.pipeline.program import Compiled, Program, compiled_chunk, locate_span
from datamix.pipeline.readers.base import Reader
from datamix.pipeline.readers.fed import Fed, Stagings, failures_named, fed_reader
from datamix.pipeline.readers.host import HostReader, SampledStatistics, Staging
from datamix.pipeline.readers.resident import read_resident
from datamix.pipeline.records import Records
from datamix.pipeline.sharding import GlobalIterator
from datamix.pipeline.state import FORMAT, Past, State, check
from datamix.pipeline.tokens import object_of
from datamix.pipeline.transform import NOT_ASKED, Numbers
from datamix.pipeline.where import Place, places_at
from datamix.sources.base import Source
from datamix.sources.statistics import Statistics
from datamix.spec import Batch, LeafSpec

if TYPE_CHECKING:
    from datamix.pipeline.adapt import Adapt, AdaptState

Placement: TypeAlias = Literal["device", "host"]
"""Where the records of a source lie: all in the device's memory, or on the host, read as they are needed."""


class Pipeline:
    """Mixed batches of several sources.

    A pipeline is an object on the host; pass `pipeline.compiled` to functions under `jit`, `scan` and `vmap`.

    Args:
      sources: The sources by name, in order.
      graph: The operators of each source, and those after the mix.
      plan: The plan of the mix.
      batch_size: Records in a batch.
      remainder: Whether records at the end of the mix that do not fill a batch are dropped, or make a short batch.
      shuffle_rows: Whether the rows of each batch are shuffled, by a pure function of the seed and the step.
      skip: The steps that iterators leave out, as ascending ranges [first, end).
      seeds: The seed of each source's random operators, by name; 0 if none is given.
      identity: The other settings that determine the sequence, by key; for the fingerprint.
      reader: The reader of another pipeline of the same sources, whose data this one then shares.
      statistics: The statistics of that data.
      placements: Where the records of each source lie, by name: "device", the default, for all in the device's memory,
        or "host" for read as they are needed. Batches are the same.
      threads: The number of threads that read on the host; None for twice the number of processors, 2 to 16.
      prefetch_bytes: The most bytes that an iterator reads ahead, for all sources together; None for 256 MiB. One call
        computes as many batches as fit into half of it, and into 16 MiB.
      adapt: How the weights follow training; None if they do not. If they do, the plan is that of the first weights,
        and has one stage.

    Raises:
      SpecError: The records of two sources do not fit together; found before any data is read.
      ConfigError: The mix holds no whole batch, or its numbers do not fit.
      DataError: A source cannot be read.

    Attributes:
      graph: The operators.
      plan: The plan of the mix.
      batching: How the mix is cut into batches.
      source_names: The names of the sources, in order.
      statistics: The statistics of every leaf of each source, from when its records were read; for a source read on the
        host, those it has kept, or those of a sample of its records, computed on first use.
      placements: Where the records of each source lie, by name.
      class_names: The names of each source's classes, in the order of its own numbers; empty if it has none.
      feature_names: The columns of each source's table, in the order of the leaf `features`; empty if it is no table.
      recipe: The call that rebuilds the pipeline in another process; None if it cannot be rebuilt.
      viewer: The function that makes its views; None if it has none.
    """

    graph: Graph
    plan: Plan
    batching: Batching
    source_names: tuple[str, ...]
    statistics: Statistics
    placements: Mapping[str, Placement]

    def __init__(
        self,
        sources: Mapping[str, Source],
        graph: Graph,
        plan: Plan,
        *,
        batch_size: int,
        remainder: Remainder = "drop",
        shuffle_rows: bool = False,
        skip: Skip = (),
        seeds: Mapping[str, int] | None = None,
        identity: Mapping[str, object] | None = None,
        reader: Reader | None = None,
        statistics: Statistics | None = None,
        placements: Mapping[str, Placement] | None = None,
        threads: int | None = None,
        prefetch_bytes: int | None = None,
        adapt: Adapt | None = None,
    ) -> None:
        batching = Batching(length=plan.length, batch_size=batch_size, remainder=remainder, skip=skip)
        self.adapt, self.prefetch_bytes, self._identity = adapt, prefetch_bytes, dict(identity or {})
        plan_arrays = self._plan_arrays(plan)
        all_seeds = [(seeds or {}).get(name, 0) for name in sources]
        stored = {name: stored_spec(name, source.spec) for name, source in sources.items()}
        program, numbers, groups = assemble(graph, stored, all_seeds, batch_size)
        row_order = RowOrder.of(plan, batching, shuffled=shuffle_rows, paired=program.is_paired)
        self.graph, self.plan, self.batching, self.source_names = graph, plan, batching, tuple(sources)
        self.recipe: Callable[[], Pipeline] | None = None
        self.viewer: Callable[..., Pipeline] | None = None
        if jax.dtypes.canonicalize_dtype("int64") == np.int64:
            self._identity["JAX_ENABLE_X64"] = True
        self.class_names = {name: tuple(getattr(source, "class_names", ())) for name, source in sources.items()}
        self.feature_names = {name: tuple(getattr(source, "feature_names", ())) for name, source in sources.items()}
        self._places = {name: getattr(source, "places", None) for name, source in sources.items()}
        self.history: Sequence[Mapping[str, Any]] = ()
        self._contents: dict[int, str] = {}
        self._make_past = partial(Past, graph=graph, specs=stored, seeds=all_seeds, contents=self._content)
        self.buffers: dict[Program, Buffers] = {}  # the memory of each program's chunks
        # The span with which the last iterator began, for the next one: the number of its first batch and how many
        # there are, the span, and the cursor after it.
        self.first_span: tuple[tuple[int, int], Located, Cursor] | None = None
        # For a short mix, the first chunk of the next iterator, if the one before has computed it.
        self.first_chunk: deque[tuple[Chunk, Computed]] = deque(maxlen=1)
        self.statistics = statistics or {}
        self.placements = {name: (placements or {}).get(name, "device") for name in sources}
        fed = [name for name, placement in self.placements.items() if placement == "host"]
        self._host: HostReader | None = None  # kept alive here: compiled programs know only its token
        if isinstance(reader, Fed):
            self._host = object_of(int(reader.token))
        elif reader is None:
            if fed:
                self._host = HostReader(
                    sources,
                    stored,
                    groups,
                    fed,
                    threads=threads,
                    prefetch_bytes=prefetch_bytes,
                    # XLA would round the sum of two products differently than with other readers.
                    in_place=not program.is_paired,
                )
            reader, self.statistics = read_resident(sources, stored, groups, fed)
            if self._host is not None:
                reader = fed_reader(self._host, reader)
                self.statistics = SampledStatistics(self.source_names, self.statistics, self._host)
        self._layout = _Layout(program, plan_arrays, row_order, numbers)
        self._reader = _OnDevice(reader)

    def _plan_arrays(self, plan: Plan) -> PlanArrays:
        arrays = arrays_of(plan, cast(Any, self._identity.get("mix.loss_weight")))
        return arrays if self.adapt is None else replace(arrays, slots=CreditLookup.of(plan))

    @property
    def batch_size(self) -> int:
        """Records in a batch."""
        return self.batching.batch_size

    @property
    def remainder(self) -> Remainder:
        """Whether records at the end of the mix that do not fill a batch are dropped, or make a short batch."""
        return self.batching.remainder

    @property
    def spec(self) -> dict[str, LeafSpec]:
        """Shape and dtype of each leaf of one finished record."""
        return dict(self._layout.program.spec)

    @property
    def reader(self) -> Reader:
        """The data, for other pipelines of the same sources."""
        return self.compiled.reader

    @property
    def compiled(self) -> Compiled:
        """The program and its arrays, to be passed into functions under `jit`, `scan` and `vmap`.

        Raises:
          ConfigError: The process was forked from one in which JAX had started.
        """
        xla.check_not_forked()
        return self._compiled

    @cached_property
    def _compiled(self) -> Compiled:
        """The layout on the device; made on first use, so that workers can be forked before there are batches."""
        program, *arrays = self._layout
        with jax.ensure_compile_time_eval():  # the first use may be in a function that is being traced
            plan, row_order, numbers = jax.device_put(arrays)
            return Compiled(program, plan, row_order, self._reader.arrays(), numbers)

    @property
    def fingerprint(self) -> str:
        """A digest of all that determines the sequence: the settings, and the contents of the records."""
        contents = {name: self._content(i) for i, name in enumerate(self.source_names)}
        begin = [self.history[-1]["counts"]] if self.history else []
        return digest([self._settings, contents, *begin])

    @cached_property
    def _settings(self) -> dict[str, object]:
        """The settings that determine the sequence, by key."""
        return settings_of(self._identity, self.plan, self.batch_size, self.remainder)

    def _content(self, source: int) -> str:
        """The digest of a source's records."""
        if source not in self._contents:
            (group,) = (branch.group for branch in self._layout.program.branches if source in branch.sources)
            self._contents[source] = self._reader.reader.digest(group, source, self.plan.sizes[source])
        return self._contents[source]

    @cached_property
    def _past(self) -> Past:
        return self._make_past(self.plan)

    def parts(self, position: int, counts: Mapping[str, int] | None = None) -> dict[str, str]:
        """Digests of everything that has determined the sequence up to a position, and no more; see `Past`."""
        parts = self._past.parts(position, counts)
        for key, shuffle in zip(("batch.shuffle", "batch.pairs"), self._layout.row_order, strict=True):
            if parts and shuffle is not None:
                parts[key] = digest([self.plan.seed, self.batch_size])
        if self.adapt is not None:
            parts["adapt"] = digest([self._identity.get("adapt"), self.batch_size])
        if parts and "JAX_ENABLE_X64" in self._identity:
            parts["JAX_ENABLE_X64"] = digest(True)
        size = self.batch_size
        ranges = [[first * size, end * size] for first, end in self.batching.skip if first * size < position]
        return parts | ({"skip": digest(ranges)} if ranges else {})

    def totals(self, step: int) -> Totals:
        """The totals of each source over the batches before a step that are not left out."""
        now = Totals.at(self.plan, self.batching.position(step))
        for steps in self.batching.skip:
            first, end = (Totals.at(self.plan, self.batching.position(min(border, step))) for border in steps)
            now = now.without(first, end)
        return now

    def state(self, step: int) -> State:
        """The state of an iterator before the batch at a step; see `BatchIterator.state`."""
        position, plan = self.batching.position(step), self.plan
        counts: Mapping[str, int] = {}
        if not plan.stages[0].period.repeats_records:  # drawn records are not counted
            before = plan.spec.begin.counts if plan.spec.begin else {}
            counts = {**before, **dict(zip(plan.names, plan.counts(position), strict=True))}
        return {
            "version": FORMAT,
            "step": step,
            "position": position,
            "fingerprint": self.parts(position),
            "settings": shortened(self._settings),
            "counts": counts,
            "history": list(self.history),
        }

    def restored(self, state: Any, changed: str | None = None) -> tuple[Pipeline, int]:
        """The pipeline that continues where a state was taken, and the next step; see `BatchIterator.restore`.

        It is this one or, if the mix was changed on the way, one of the same data whose plan begins at the change.
        """
        if changed not in (None, "mix"):
            raise ConfigError("it is 'mix', or None for nothing", key="changed", value=changed)
        if changed is not None and self.adapt is not None:
            text = "a mix that follows losses cannot be changed on the way"
            mend = "Restore its state under the same settings, without changed='mix' (train.resume=true)."
            raise ConfigError(text, key="adapt", value=self.adapt.rule, hint=mend)
        check(state)
        position, history, pipeline = state["position"], state["history"], self._continued(state["history"])
        step = -(-position // self.batch_size)
        before, now = state["fingerprint"], pipeline.parts(position, state["counts"])
        differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differing:
            of_gone = tuple(f"source.{name}." for name in state["counts"] if name not in self.source_names)
            settings = {key: value for key, value in state["settings"].items() if not key.startswith(of_gone)}
            differences = changes(settings, shortened(self._settings))
            # The mix may gain and lose sources; of one that stays, nothing may change.
            may_change = {key for key in before.keys() ^ now.keys() if key.startswith("source.")}
            may_change |= {"mix", "source"}
            firm = [key for key in differing if key not in may_change]
            culprits = causes(differing, differences)
            entry = {"step": step, "position": position, "counts": state["counts"], "changes": culprits}
            or_else = ""
            with suppress(*([] if changed else [ConfigError])):  # so as not to advise what would be refused
                if not firm and self.adapt is None:
                    pipeline = self._continued([*history, entry])
                    or_else = "go on under this one on purpose with changed='mix' (train.resume=changed), "
            if firm or changed is None:
                text = difference(firm if changed else differing, differences)
                raise StateError(f"this state was taken {text}; restore it under the same, {or_else}or start afresh.")
        if position == self.batching.position(step):
            return pipeline, step
        text = f"no batch begins at record {position:,}, where this state was taken"
        mend = f"Choose one that divides it, as {state['settings'].get('batch.size', 1)}."
        raise StateError(text, key="batch.size", value=self.batch_size, hint=mend)

    def _continued(self, history: Sequence[Mapping[str, Any]]) -> Pipeline:
        """The same mix, beginning where its history says that it was last changed."""
        begin = Begin(history[-1]["position"], history[-1]["counts"]) if history else None
        if begin == self.plan.spec.begin:
            return self
        other = self._with_plan(Plan.of(replace(self.plan.spec, begin=begin)))
        other.history = history
        other.recipe = self.recipe and partial(_then, self.recipe, "_continued", history)
        return other

    def with_weights(self, weights: Mapping[str, Number]) -> Pipeline:
        """The same data and the same compiled program in another ratio.

        Args:
          weights: Relative weights of sources and groups; one that is not named has 1, or what its group gives it. They
            hold from the first step to the last, instead of any schedule.

        Raises:
          ConfigError: There is no such source, or the weights make no mix.
        """
        other = self._with_plan(self.plan.with_weights(weights))
        other.recipe = self.recipe and partial(_then, self.recipe, "with_weights", dict(weights))
        return other

    def _with_plan(self, plan: Plan) -> Pipeline:
        """The same data and the same compiled program under another plan."""
        batching = replace(self.batching, length=plan.length)
        program, _, row_order, numbers = self._layout
        shuffled, paired = (each is not None for each in row_order)
        row_order = RowOrder.of(plan, batching, shuffled=shuffled, paired=paired)
        other = object.__new__(Pipeline)
        other.graph, other.plan, other.batching, other.source_names = self.graph, plan, batching, self.source_names
        other._identity, other._contents, other.buffers = self._identity, self._contents, self.buffers
        other._make_past, other.history, other.first_span = self._make_past, self.history, None
        other.first_chunk = deque(maxlen=1)
        other.statistics, other.placements, other._host = self.statistics, self.placements, self._host
        other._places, other.adapt, other.prefetch_bytes = self._places, self.adapt, self.prefetch_bytes
        other.class_names, other.feature_names = self.class_names, self.feature_names
        other._layout, other._reader = _Layout(program, self._plan_arrays(plan), row_order, numbers), self._reader
        other.recipe, other.viewer = None, self.viewer
        return other

    def view(
        self, split: str | Mapping[str, Any] | None = "test", *, shuffle: bool | str = "none", random: bool = False
    ) -> Pipeline:
        """The same sources and preparation, to evaluate on: each source's records once, one source after the other.

        Labels are numbered as in the mix. The last batch may be short, and there is no leaf `loss_weight` from
        `mix.loss_weight`.

        Args:
          split: The split to read of every source; "test" is its `test_split`, if it names one. Or other records for
            each source, by name, in any form that `datamix.mix` takes. None for the records of the mix itself, whose
            memory is shared.
          shuffle: How records are shuffled within their source; "none" keeps the stored order.
          random: Whether random operators are applied.

        Raises:
          ConfigError: A source has no such split, or the pipeline was made neither by `load` nor by `mix`.
        """
        if self.viewer is None:
            raise ConfigError("views are of pipelines that datamix.load or datamix.mix has made.")
        other = self.viewer(self, split, shuffle=shuffle, random=random)
        other.recipe = self.recipe and partial(_then, self.recipe, "view", split, shuffle=shuffle, random=random)
        return other

    def __reduce__(self) -> tuple[Callable[..., Pipeline], tuple[object, ...]]:
        """Pickle the pipeline as the call that made it: files are opened again, arrays outside files are copied.

        Raises:
          ConfigError: It was made neither by `load` nor by `mix`.
        """
        if self.recipe is None:
            raise ConfigError(
                "a Pipeline is pickled as the call of datamix.load or datamix.mix that made it, not this."
            )
        return _made_again, (self.recipe, _digests(self))

    def __len__(self) -> int:
        """The number of batches in the whole mix.

        Raises:
          TypeError: The mix never ends.
        """
        length = self.batching.num_batches
        if length is None:
            loader = "a DataLoader takes datamix.interop.torch.dataset(pipeline), with batch_size=None"
            raise TypeError(
                f"this mix never ends, so it has no length; set stop=, or take batches by iterator(); {loader}"
            )
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
        """The batch at a step, in NumPy arrays; equal to that of a loop, without computing those before.

        Raises:
          IndexError: There is no such batch.
        """
        index, compiled, size = self._index(step), self.compiled, self.batch_size
        rows, program, num_located = self.batching.num_rows(index), compiled.program, 1
        is_branched = len(program.branches) > 1
        if is_branched:  # takes seconds to compile: use the program of a loop, for one batch
            program, num_located = loop_of(self, size)
        located, _ = locate_span(compiled, self.start(index), num_located)
        if is_branched:
            record = np.array(located.record)
            record[size:] = NOT_ASKED
            located = located._replace(record=jax.device_put(record))
        reader = compiled.reader
        if isinstance(reader, Fed):
            source, record = (np.asarray(values)[:rows] for values in (located.source, located.record))
            reader = Stagings(reader, program.num_steps * size, *compiled.plan.size.devices()).read(source, record)
        into = Buffers(program).take()
        flat = compiled_chunk()(program, reader, compiled.numbers, located, np.uint32(0), None, into)
        batch = {leaf: xla.host_view(flat[leaf])[:rows].reshape(rows, *part.shape) for leaf, part in self.spec.items()}
        return {leaf: values.copy() for leaf, values in batch.items()} if is_branched else batch

    def where(self, step: int) -> list[Place]:
        """The records in the batch at a step, one per row; known from the position, without reading any.

        Raises:
          IndexError: There is no such batch.
        """
        return places_at(self._index(step), self.plan, self.batching, self._layout.row_order.shuffle, self._places)

    def _index(self, step: int) -> int:
        """The number of the batch at a step; a negative step counts from the end."""
        self.require_known("it is taken by its number")
        if not isinstance(step, int | np.integer):
            raise TypeError(f"a pipeline is indexed by the number of a batch, not by {step!r}; see iterator(start=…)")
        step, length = int(step), self.batching.num_batches
        index = step + length if step < 0 and length is not None else step
        if 0 <= index * self.batch_size < self.plan.begin:
            text = f"there is no batch {step} in a mix that goes on with another one from record {self.plan.begin:,}"
            raise IndexError(text)
        if index < 0 or index >= (MOST_RECORDS // self.batch_size if length is None else length):
            raise IndexError(f"there is no batch {step} in a mix of {'endless' if length is None else length} batches")
        return index

    def read_on_host(self, source: np.ndarray, record: np.ndarray) -> Staging:
        """Read those of some records that lie on the host; see `HostReader.read`."""
        assert self._host is not None, "all sources are resident"
        return self._host.read(source, record)

    @overload
    def iterator(
        self, start: int = 0, shard: tuple[int, int] = (0, 1), output: Output = "numpy", *, stride: int = 1
    ) -> BatchIterator: ...
    @overload
    def iterator(self, start: int = 0, *, sharding: jax.sharding.Sharding) -> GlobalIterator: ...
    def iterator(
        self,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
        output: Output = "numpy",
        *,
        sharding: jax.sharding.Sharding | None = None,
        stride: int = 1,
    ) -> BatchIterator | GlobalIterator:
        """Batches from a step on.

        Args:
          start: Number of the first batch.
          shard: (rank, num_shards): yield only one rank's shard of every batch. A shard is a contiguous block of the
            batch's rows, the same in every batch: the shards of all ranks, one after the other, are the batch. If their
            number does not divide it, the first shards are one row larger. A short last batch may leave a rank without
            rows. A state can be restored under another number of ranks.
          output: "numpy" yields read-only views without a copy, "jax" arrays on the device, "torch" tensors there,
            which share memory and must not be written to. A view keeps its whole chunk in memory, some 16 MiB: copy
            what you keep for long, or bound chunks by `prefetch_bytes`.
          sharding: Instead of `shard` and `output`: how each batch is laid out over the devices of all processes. A
            batch consists of global `jax.Array`s; each process reads only the rows of its own devices.
          stride: Yield only every `stride`-th batch, for workers that take batches in turn.

        Raises:
          ConfigError: There is no such rank, there are more ranks than rows in a batch, or a batch cannot be divided
            equally over the devices.
        """
        if sharding is not None:
            if shard != (0, 1) or output != "numpy" or stride != 1:
                text = "sharding= says itself which rows are given, and gives jax.Arrays; leave the others out."
                raise ConfigError(text)
            return GlobalIterator(
                lambda rows, output: self._iterator(start, lambda _: rows, output, 1),
                self.batching,
                self.spec,
                sharding,
            )
        self.batching.check_shard(shard)
        return self._iterator(start, lambda size: shard_rows(size, *shard), output, stride)

    def _iterator(self, start: int, rows: Callable[[int], slice], output: Output, stride: int) -> BatchIterator:
        if start or stride != 1:
            self.require_known("start and stride leave some out")
        if self.adapt is not None:
            from datamix.pipeline.adaptive_iterator import AdaptiveIterator

            return cast(BatchIterator, AdaptiveIterator(self, rows(self.batch_size), output))  # it has the same methods
        return BatchIterator(self, start=start, rows=rows, output=output, stride=stride)

    def records(self) -> Records:
        """The records of all batches by their number, for libraries that ask for records one by one."""
        self.require_known("they are taken by their number")
        return Records(self)

    def start(self, step: int = 0) -> Cursor:
        """The cursor before the batch at `step`; a pytree for `next`."""
        if step:
            self.require_known("it is asked for")
        adapted = self.adapted()
        return start_at(self.plan, step, self.batch_size) if adapted is None else adapted[1]

    def adapted(self) -> tuple[AdaptState, Cursor] | None:
        """The first state of weights that follow training, and the first cursor; None if the weights do not."""
        if self.adapt is None:
            return None
        return self.adapt.start(self.compiled.plan, start_at(self.plan, 0, self.batch_size))

    def require_known(self, how: str) -> None:
        """Refuse a use that needs the records of a batch before the losses of the batches before it; `how` names it."""
        if self.adapt is not None:
            text = f"which records a batch has depends on the losses of those before it, and {how}"
            mend = "Take batches in order, by iterator() from its beginning or from a state, or leave adapt out."
            raise ConfigError(text, key="adapt", value=self.adapt.rule, hint=mend)

    def next(self, cursor: Cursor) -> tuple[Batch, Cursor]:
        """`compiled.next`: the batch at a cursor, and the cursor after it."""
        with failures_named():
            return self.compiled.next(cursor)

    @property
    def __jax_array__(self) -> NoReturn:
        """Refuse to be an argument of JAX, which reads this attribute of objects that it does not know.

        Raises:
          ConfigError: Always. JAX would replace a `TypeError` by its own message.
        """
        raise ConfigError(
            "a Pipeline is an object of the host and no argument of a function under jit, scan or vmap; pass "
            "pipeline.compiled, which has the same next(cursor)."
        )


class _Layout(NamedTuple):
    """The parts of `Compiled`, except for the data."""

    program: Program
    plan: PlanArrays
    row_order: RowOrder
    numbers: tuple[Numbers, ...]


class _OnDevice:
    """The data of pipelines that share it, put onto the device on first use."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader  # replaced by the one on the device, so that both are not kept
        self._is_placed = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(reader))  # as of another pipeline
        self._lock = threading.Lock()

    def arrays(self) -> Reader:
        """The reader, its arrays on the device."""
        with self._lock:
            if not self._is_placed:
                self.reader, self._is_placed = jax.device_put(self.reader), True
        return self.reader


def _then(recipe: Callable[[], Pipeline], method: str, *arguments: Any, **settings: Any) -> Pipeline:
    """The result of a method of a recipe's pipeline."""
    pipeline: Pipeline = getattr(recipe(), method)(*arguments, **settings)
    return pipeline


def _digests(pipeline: Pipeline) -> dict[str, object]:
    return {key: f"#{digest(value)}" for key, value in pipeline._settings.items()}


def _made_again(recipe: Callable[[], Pipeline], settings: Mapping[str, object]) -> Pipeline:
    """The pipeline of a recipe, rebuilt in another process; its warnings were shown already.

    Raises:
      StateError: It would be another one, as after a change to a configuration's files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = recipe()
    if changed := changes(settings, _digests(pipeline)):
        text = f"this pipeline was pickled under another configuration: {in_words(changed)}"
        raise StateError(f"{text}; make it again with datamix.load or datamix.mix.")
    return pipeline


def require_loadable(pipeline: object) -> None:
    """Refuse what no loader can use: a pipeline whose batches follow losses, or an object that is no pipeline."""
    if not isinstance(pipeline, Pipeline):
        raise ConfigError("it is a pipeline, as load and mix return it", key="pipeline", value=pipeline)
    pipeline.require_known("a loader tells none")
