"""Batches by loop: computed a chunk ahead, handed out one by one, from a position that can be saved and restored."""

from __future__ import annotations

import logging
import operator
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError, not_installed
from datamix.mixing.totals import Totals, source_metrics
from datamix.pipeline import xla
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.chunks import NUM_STAGED, SHORT_CHUNKS, Chunk, Mix, loop_of, rows_of, rows_read
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.locate import Located, check_start, start_at
from datamix.pipeline.program import Program, compiled_batches, compiled_chunk, locate_span
from datamix.pipeline.readers.base import Reader
from datamix.pipeline.readers.fed import Fed, Stagings, staged_bytes
from datamix.pipeline.readers.host import HostReader, Metrics, Rows
from datamix.pipeline.state import State
from datamix.pipeline.tokens import object_of
from datamix.spec import Batch, FlatRows

if TYPE_CHECKING:
    from datamix.pipeline.adapt import Adapt, AdaptState

Output = Literal["numpy", "jax", "torch"]
Computed: TypeAlias = FlatRows | dict[str, list[jax.Array]]
"""The records of a chunk by leaf; if the program cuts the chunk, a list with those of each batch."""
_log = logging.getLogger("datamix")


class PipelineLike(Mix, Protocol):
    """The part of a `Pipeline` that its iterators use."""

    source_names: tuple[str, ...]
    adapt: Adapt | None
    buffers: dict[Program, Buffers]
    first_span: tuple[tuple[int, int], Located, Cursor] | None
    first_chunk: deque[tuple[Chunk, Computed]]

    def __len__(self) -> int: ...
    def __getitem__(self, step: int) -> Batch: ...
    def totals(self, step: int) -> Totals: ...
    def state(self, step: int) -> State: ...
    def restored(self, state: Any, changed: str | None = None) -> tuple[Self, int]: ...
    def adapted(self) -> tuple[AdaptState, Cursor] | None: ...


@dataclass(frozen=True, eq=False, slots=True)
class _Ready:
    """The batches of a computed chunk, each cut out of it when requested: cutting all at once costs twice as much.

    Attributes:
      after: The number of the batch that follows them.
      last: The number of the last of them.
      left: The indices of those not handed out yet. Threads take from it without a lock, each index once.
      columns: Pairs of leaf name and values by index.
    """

    after: int
    last: int = 0
    left: Iterator[int] = field(default_factory=lambda: iter(()))
    columns: Sequence[tuple[str, Sequence[Any]]] = ()


class BatchIterator(Iterator[Batch]):
    """An iterator with a state; see `Pipeline.iterator`.

    Several threads may share one iterator: each batch goes to one of them, in order.

    Args:
      pipeline: The pipeline, whose iterators share the memory of their chunks.
      start: Number of the first batch.
      rows: The function from the number of rows of a batch to those to yield.
      output: See `Pipeline.iterator`.
      stride: See `Pipeline.iterator`.
    """

    _ahead: tuple[Chunk, Computed] | None = None  # also for `close` after `__init__` has raised
    _chunks: deque[Chunk]
    _host: HostReader | None = None
    _is_staged = False  # whether records are read into staging rows, or used in place
    _is_repeated = False  # whether an earlier loop over the mix began at the same place
    _ready = _Ready(-1)
    _reported: Totals | None = None

    def __init__(
        self, pipeline: PipelineLike, *, start: int, rows: Callable[[int], slice], output: Output, stride: int
    ) -> None:
        self._chunks = deque()
        if output not in get_args(Output):
            raise ConfigError("it is 'numpy', 'jax' or 'torch'", key="output", value=output)
        if not isinstance(stride, int | np.integer) or stride < 1:
            raise ConfigError("it is a whole number, 1 or more", key="stride", value=stride)
        self._to_torch = tensors() if output == "torch" else None
        self._rows = rows
        self._adopt(pipeline)
        compiled, size = self._compiled, pipeline.batching.batch_size
        (self._device,) = compiled.plan.size.devices()
        self._stream = xla.streams(self._device)
        # On a CPU, arrays in the device's memory are NumPy arrays as well: a chunk is cut into views.
        self._is_host = xla.is_host(self._device)
        self._is_cut = not self._is_host and output != "numpy"
        self._tensor_of = host_tensors() if output == "torch" and self._is_host else None
        self._is_finished = output == "numpy" or self._tensor_of is not None  # as soon as it is cut from a chunk
        whole = rows(size)
        num_rows = whole.stop - whole.start
        self._is_whole = stride == 1 and num_rows == size
        self._program, self._span_steps = loop_of(pipeline, num_rows, stride, is_cut=self._is_cut)
        self._stride, self._metrics = stride, Metrics()
        if isinstance(compiled.reader, Fed):
            self._host = host = object_of(int(compiled.reader.token))
            host.add_user(self)
            self._num_read = rows_read(compiled.program, num_rows, stride)
            record_bytes = staged_bytes(host, self._device)
            self._is_staged = record_bytes > 0
            chunk_bytes = max(self._program.num_steps * self._num_read * record_bytes, 1)
            self._num_staged = min(max(host.prefetch_bytes // chunk_bytes, 2), NUM_STAGED)
            self._stagings: dict[Program, Stagings] = {}
        self._all_buffers = pipeline.buffers
        self._begin = whole.start
        self._put = {
            leaf: xla.putter((num_rows, *part.shape), part.dtype, self._device)
            for leaf, part in compiled.program.spec
            if output == "jax" and self._is_host
        }
        self._lock = threading.Lock()
        self._repeated: set[str] = set()  # sources whose repetition was logged
        self._is_closed = False
        self._seek(start)

    def _adopt(self, pipeline: PipelineLike) -> None:
        """Use a pipeline: the first one, or one of the same data under another plan."""
        self._pipeline, self._batching = pipeline, pipeline.batching
        self._compiled, self._plan, self._end = pipeline.compiled, pipeline.plan, self._batching.num_batches
        short = self._rows(self._batching.short_rows)
        self._has_short, self._short_rows = self._batching.short_rows > 0, short.stop - short.start
        self._short_begin = short.start

    @property
    def program(self) -> Program:
        """The program that one call runs."""
        return self._program

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Release what was computed ahead: a loop over an endless mix always ends early."""
        if not (is_finalizing() or xla.is_forked):  # else the modules that this needs may be gone
            self.close()

    def close(self) -> None:
        """Stop reading ahead, and release memory and threads; a closed iterator yields no more batches."""
        self._is_closed = True
        self._ready = _Ready(self.step)
        self._drop_ahead()
        if self._host is not None:
            self._host.remove_user(self)

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            chunk, computed = self._ahead
            if self._is_host:
                self._buffers_of(chunk.program).give_back(cast("FlatRows", computed), ())
        self._ahead = None
        for chunk in self._chunks:
            if chunk.reading is not None:
                chunk.reading.cancelled = True  # its memory is not reused: a thread may be writing to it
        self._chunks.clear()

    def _seek(self, step: int) -> None:
        step = self._batching.after(operator.index(step), 0)
        if step != self.step:
            self._reported, self._sought = None, step
        # The steps of a chunk are consecutive: chunks end before the next steps that are left out.
        ends = [] if self._end is None else [self._end]
        self._until = min([*ends, *(first for first, _ in self._batching.skip if first > step)], default=None)
        self._drop_ahead()
        self._ready = _Ready(step)
        self._computed = self._span_end = self._single_until = self._tell_at = step
        check_start(self._plan, step, self._program.batch_size)
        self._cursor: Cursor | None = None
        self._next_span: Located | None = None

    def _buffers_of(self, program: Program) -> Buffers:
        return self._all_buffers.setdefault(program, Buffers(program))

    def _stagings_of(self, program: Program) -> Stagings:
        if program not in self._stagings:
            assert isinstance(self._compiled.reader, Fed)
            rows = program.num_steps * self._num_read
            self._stagings[program] = Stagings(self._compiled.reader, rows, self._device)
        return self._stagings[program]

    def _locate(self) -> Located:
        """Start the look-up of the next span, without waiting for it; the first span may be known."""
        key = self._span_end, self._span_steps
        is_first, known = self._cursor is None, self._pipeline.first_span
        if is_first:
            self._is_repeated = known is not None and known[0] == key
            if known is not None and self._is_repeated:
                _, span, self._cursor = known
                return span
        with self._stream(1):
            size = self._program.batch_size
            cursor = start_at(self._plan, self._span_end, size) if self._cursor is None else self._cursor
            span, self._cursor = locate_span(self._compiled, cursor, self._span_steps)
        if is_first:
            self._pipeline.first_span = key, span, self._cursor
        return span

    def _next_chunk(self) -> Chunk:
        """The next chunk; starts to read its records."""
        program, step = self._program, self._computed
        if step < self._single_until:
            program = program.resized(1, program.num_rows)
        if step == self._span_end:
            self._span, self._next_span = self._next_span or self._locate(), None
            self._span_end += self._span_steps
        first = (step - self._span_end + self._span_steps) * program.batch_size
        self._computed += program.num_steps * self._stride
        if self._computed == self._span_end and self._is_unfinished():
            self._next_span = self._locate()  # concurrently with the chunks under way
        chunk = Chunk(program, step, self._span, first, self._begins(step, program))
        if self._is_staged and self._host is not None:
            into = self._stagings_of(program).take()
            return replace(chunk, reading=self._host.start(partial(self._rows_of, chunk), into, self._metrics))
        return chunk

    def _rows_of(self, chunk: Chunk) -> Rows:
        """Source and record of the rows of a chunk, without those past the end of the mix."""
        return rows_of(chunk.span, chunk.first, chunk.program, chunk.begins, self._num_rows(chunk.step))

    def _read_ahead(self) -> None:
        """Start to read the records of as many chunks as may be in memory."""
        if self._is_staged:
            while len(self._chunks) + (self._ahead is not None) < self._num_staged and self._is_unfinished():
                self._chunks.append(self._next_chunk())

    def _compute(self) -> tuple[Chunk, Computed]:
        """Start the next chunk, without waiting for it, except for its records."""
        chunk = self._chunks.popleft() if self._chunks else self._next_chunk()
        reader = self._compiled.reader
        if chunk.reading is not None and self._host is not None:
            self._host.wait(chunk.reading, self._metrics)
            reader = self._stagings_of(chunk.program).on_device(chunk.reading.into)
        elif self._host is not None:
            reader = self._stagings_of(chunk.program).in_place()
        elif self._is_host and chunk.step == self._sought and (flat := self._first_flat(chunk)) is not None:
            return chunk, flat
        return chunk, self._computed_of(chunk, reader)

    def _computed_of(self, chunk: Chunk, reader: Reader) -> Computed:
        """Start a chunk, and return its records without waiting for them."""
        program, numbers = chunk.program, self._compiled.numbers
        words = _words(chunk.first), None if chunk.begins is None else _words(chunk.begins)
        with self._stream(2 + chunk.step // (program.num_steps * self._stride) % 2):
            if self._is_cut:
                return compiled_batches()(program, reader, numbers, chunk.span, *words)
            buffers = self._buffers_of(program)
            flat: FlatRows = compiled_chunk()(program, reader, numbers, chunk.span, *words, buffers.take())
            if self._is_host:
                return flat
            copied: FlatRows = xla.to_host(flat, self._device)
            buffers.give_back(flat, ())  # the next computation into it waits for the copy
        return copied

    def _first_flat(self, chunk: Chunk) -> FlatRows | None:
        """The records of the first chunk, if the previous loop has started it; only one iterator gets them."""
        try:
            known, flat = self._pipeline.first_chunk.pop()
        except IndexError:
            return None
        if known.is_same(chunk):
            return flat
        self._buffers_of(known.program).give_back(flat, ())
        return None

    def _compute_first(self) -> None:
        """Start the first chunk of the next loop, if the mix is short and this loop is not the first over it."""
        mix, program, step = self._pipeline, self._program, self._sought
        is_short = self._end is not None and self._end <= program.num_steps * self._stride * SHORT_CHUNKS
        is_alike = self._is_host and self._is_repeated and self._host is None
        if not (is_short and is_alike) or mix.first_chunk or mix.first_span is None:
            return
        key, span, _ = mix.first_span
        if key == (step, self._span_steps):
            chunk = Chunk(program, step, span, 0, self._begins(step, program))
            mix.first_chunk.append((chunk, self._computed_of(chunk, self._compiled.reader)))

    def _begins(self, step: int, program: Program) -> tuple[int, ...] | None:
        """The row of the chunk at which each of its batches, or shards, begins; None for whole, consecutive batches."""
        if self._is_whole:
            return None
        steps = range(0, program.num_steps * self._stride, self._stride)
        last = self._end - 1 - step if self._has_short and self._end is not None else None
        return tuple(i * program.batch_size + (self._short_begin if i == last else self._begin) for i in steps)

    def _num_rows(self, step: int) -> int | None:
        """The rows from a step to the next steps left out, or to the end; None if there is neither."""
        if (num_left := self._num_left(step)) is None:
            return None
        rows = num_left * self._program.num_rows
        is_short = self._has_short and step + (num_left - 1) * self._stride + 1 == self._end
        return rows - self._program.num_rows + self._short_rows if is_short else rows

    def _num_left(self, step: int) -> int | None:
        """The batches from a step to the next steps left out, or to the end; None if there is neither."""
        return None if self._until is None else len(range(step, self._until, self._stride))

    def _is_unfinished(self) -> bool:
        """Whether there are batches that have not been scheduled."""
        return self._until is None or self._computed < self._until

    @property
    def step(self) -> int:
        """The number of the next batch."""
        ready = self._ready
        left = operator.length_hint(ready.left)
        return ready.last - (left - 1) * self._stride if left else ready.after

    def __next__(self) -> Batch:
        while True:
            if xla.is_forked:
                xla.check_not_forked()
            ready = self._ready
            for place in (left := ready.left):
                batch = {}  # a comprehension takes a quarter longer before Python 3.12
                for leaf, values in ready.columns:
                    batch[leaf] = values[place]
                return batch if self._is_finished else self._finished(batch)
            del ready  # it would keep the memory of the chunk from being reused
            with self._lock:
                if self._ready.left is left:  # otherwise another thread has refilled it
                    self._refill()
                    if self._is_closed:  # meanwhile, by another thread
                        self.close()

    def _refill(self) -> None:
        """Wait for the next chunk, with the one after it under way."""
        if self._is_closed:
            raise ValueError("this iterator is closed; take another from the pipeline, and restore its state there")
        if self._until != self._end and self._until is not None and self.step >= self._until:
            self._seek(self.step)
        step = self.step
        self._ready = _Ready(step)  # releases the last chunk
        if self._end is not None and step >= self._end:
            raise self._plan.refusal() or StopIteration
        if step >= self._tell_at:
            # Not for each chunk: counting takes as long as calling the program.
            self._tell_at = step + self._span_steps
            repeated = self._plan.unforeseen(step * self._program.batch_size)
            for name in repeated.keys() - self._repeated:
                self._repeated.add(name)
                text = "source %r is in epoch %d by step %d; mix.max_epochs.%s says how often it may be gone through."
                _log.warning(text, name, int(repeated[name]) + 1, step, name)
        try:
            self._ready = self._next_batches(step)
        except BaseException as error:
            alone = self._single_until > step or self._program.num_steps == 1
            self._seek(step)  # also after Ctrl-C: resume with the batch that is due, not with those under way
            if self._host is None or alone or not isinstance(error, Exception):
                raise
            # A record cannot be read: first yield the batches before the one that needs it, each computed by itself.
            self._single_until = step + self._program.num_steps * self._stride
            self._refill()

    def _next_batches(self, step: int) -> _Ready:
        """The batches of the next chunk, which begins at `step`, with the one after it under way."""
        self._read_ahead()
        chunk, computed = self._ahead or self._compute()
        self._ahead = None
        self._compute_ahead()
        if chunk.reading is not None:
            jax.block_until_ready(computed)  # nothing reads the staging memory after that
            self._stagings_of(chunk.program).give_back(chunk.reading.into)
            self._read_ahead()
            self._compute_ahead()  # its records may have arrived meanwhile
        elif self._host is not None:
            self._host.note_in_place(self._rows_of(chunk)[0], self._metrics)
        self._metrics.num_records += (count := chunk.program.num_steps) * chunk.program.num_rows
        count = min(count, self._num_left(step) or count)
        last = step + (count - 1) * self._stride
        after = last + self._stride if self._until == self._end else self._batching.after(last, self._stride)
        columns = self._columns(chunk.program, computed)
        if self._has_short and last + 1 == self._end:
            for leaf, values in columns.items():
                columns[leaf] = [*values[: count - 1], values[count - 1][: self._short_rows]]
        return _Ready(after, last, iter(range(count)), tuple(columns.items()))

    def _compute_ahead(self) -> None:
        """Start the next chunk, if it need not wait for anything."""
        next_one = self._chunks[0].reading if self._chunks else None
        is_there = next_one is not None and next_one.is_there if self._is_staged else self._is_unfinished()
        if is_there and self._ahead is None:
            self._ahead = self._compute()
        elif self._ahead is None and not self._is_unfinished():
            self._compute_first()

    def _columns(self, program: Program, computed: Computed) -> dict[str, Sequence[Any]]:
        """Leaf name to its values by batch, for a chunk; waits for it where batches are views."""
        if self._is_cut:
            return cast("dict[str, Sequence[Any]]", computed)
        chunk = cast("FlatRows", computed)
        flat = {leaf: xla.host_view(rows) for leaf, rows in chunk.items()}
        if self._is_host:
            self._buffers_of(program).give_back(chunk, flat.values())
        steps, rows = program.num_steps, program.num_rows
        columns: dict[str, Any] = {leaf: flat[leaf].reshape(steps, rows, *part.shape) for leaf, part in program.spec}
        # One tensor for all batches: a tensor for each took as long as ten batches of 16 small images.
        return {leaf: self._tensor_of(values) for leaf, values in columns.items()} if self._tensor_of else columns

    def _finished(self, batch: Batch) -> Batch:
        """Turn the values of a batch into JAX arrays or tensors."""
        for leaf, values in batch.items():
            array = self._put[leaf](values) if self._put else values
            batch[leaf] = self._to_torch(array) if self._to_torch else array
        return batch

    def metrics(self) -> dict[str, Any]:
        """The progress of the mix, and how fast records are read on the host.

        `sources` has, by name, the number of records of each source before this step, over all ranks and without steps
        that are left out, and what follows from it: epochs, the share of records and, if there are any, of tokens; and
        `lately`, the share since the last call, or since the iterator began or was restored. All but `lately` depend
        only on the step, however it was reached.

        For records read on the host: bytes, bytes per record of a batch and per second since the iterator began,
        seconds waited, the share of requests whose data was ready, and the source that was most often the last to
        arrive; `sources` has bytes per second and seconds waited of each. All of these are 0 or None if every source is
        resident.
        """
        step = self.step
        now, before = self._pipeline.totals(step), self._reported or self._pipeline.totals(self._sought)
        rows, self._reported = source_metrics(self._plan, now, before), now
        sources = {name: row | self._metrics.of(name) for name, row in rows.items()}
        return {"step": step, **self._metrics.report(), "sources": sources}

    def seek(self, step: int) -> None:
        """Continue with the batch at a step, or the next one that is not left out."""
        with self._lock:
            self._seek(step)

    def state(self) -> State:
        """The position of the iterator, as JSON values; pass it to `restore` of any iterator that is to continue there.

        It holds what has determined the sequence up to here, and no more: the rest of the mix may differ.
        """
        return self._pipeline.state(self.step)

    def restore(self, state: State, changed: Literal["mix"] | None = None) -> None:
        """Continue where a state was taken.

        Everything that has determined the sequence up to there has to be the same; the mix may last longer, have
        another phase of its schedule or another source that begins later, and another batch size, if a batch begins
        there.

        Args:
          state: A result of `state`, under any number of ranks.
          changed: "mix" also accepts the state of another mix, with other weights, sources, order or stop: every source
            continues at its own running number, so that no record is repeated or left out. The `history` of later
            states tells what was changed, and when.

        Raises:
          StateError: It is not a state, or belongs to another mix; the message names what differs.
        """
        pipeline, step = self._pipeline.restored(state, changed)
        with self._lock:
            self._drop_ahead()
            self._adopt(pipeline)
            self._seek(step)

    def update(self, losses: Mapping[str, Any] | Any) -> None:  # noqa: ARG002
        """Report the losses of batches to a mix whose weights follow them; see `AdaptiveIterator`.

        Raises:
          ConfigError: Always; the weights of this mix follow no losses.
        """
        text = "the weights of this mix follow no losses; set adapt=odm or another policy"
        raise ConfigError(text, key="adapt", value="none")

    # The names of these methods in iterators of PyTorch and Grain.
    state_dict = get_state = state
    load_state_dict = set_state = restore


def tensors() -> Callable[[jax.Array], Any]:
    """The function that turns an array into a tensor, without a copy.

    Raises:
      InstallationError: PyTorch is not installed.
    """
    try:
        from torch.utils.dlpack import from_dlpack
    except ImportError:
        raise not_installed("output='torch'", "PyTorch", "torch") from None
    tensor: Callable[[jax.Array], Any] = from_dlpack
    return tensor


def host_tensors() -> Callable[[np.ndarray], Any]:
    """The function that turns an array into a tensor of the same memory, which it keeps alive."""
    import torch

    def tensor_of(values: np.ndarray) -> torch.Tensor:
        if values.dtype.isbuiltin == 1:
            return torch.from_numpy(xla.writable(values))
        # NumPy lacks dtypes that JAX and torch each define, such as bfloat16.
        tensor: torch.Tensor = torch.from_numpy(xla.writable(values.view(f"i{values.itemsize}")))
        return tensor.view(getattr(torch, values.dtype.name))

    return tensor_of


@lru_cache(1024)
def _words(numbers: int | tuple[int, ...]) -> jax.Array:
    """One number or several as a cached argument of a program: NumPy's would cost each call 10 µs."""
    return jnp.asarray(numbers, jnp.uint32)
