"""Batches of a mix whose weights follow the losses that its user reports."""

from __future__ import annotations

import operator
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError, StateError, unknown_source
from datamix.mixing.totals import Totals, source_metrics
from datamix.pipeline import tracing, xla
from datamix.pipeline.adapt import Adapt, AdaptState
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.chunks import chunk_program, rows_of
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.iterator import Output, PipelineLike, tensors
from datamix.pipeline.locate import Located
from datamix.pipeline.program import compiled_chunk, compiled_locate
from datamix.pipeline.readers.fed import Fed
from datamix.pipeline.readers.host import HostReader, Metrics, Reading, Staging
from datamix.pipeline.state import State
from datamix.pipeline.tokens import object_of
from datamix.spec import Batch, FlatRows


class _Window(NamedTuple):
    """The steps between two updates of the weights: the cursor before them, and their records."""

    cursor: Cursor
    located: Located


_turned = tracing.jit(Adapt.turned, static_argnums=0)


class AdaptiveIterator(Iterator[Batch]):
    """An iterator whose weights follow the losses of training, see `Pipeline.iterator`.

    The weights change after every `adapt.every` steps, by all losses passed to `update` before the next batch is
    requested. If records are read on the host, and therefore ahead, new weights apply one window later. Several threads
    may share one iterator.

    Args:
      pipeline: The pipeline.
      rows: The rows of every batch to yield.
      output: See `Pipeline.iterator`.
    """

    _reported: Totals | None = None

    def __init__(self, pipeline: PipelineLike, rows: slice, output: Output) -> None:
        assert pipeline.adapt is not None
        self._pipeline, self._adapt, self._compiled, self._rows = pipeline, pipeline.adapt, pipeline.compiled, rows
        self._output, self._to_torch = output, tensors() if output == "torch" else None
        every, most = self._adapt.every, chunk_program(self._compiled.program, pipeline.prefetch_bytes).num_steps
        steps = max(steps for steps in range(1, min(every, most) + 1) if every % steps == 0)
        self._program = self._compiled.program.resized(steps, rows.stop - rows.start)
        self._lock = threading.Lock()
        self._host: HostReader | None = None
        if isinstance(self._compiled.reader, Fed):
            self._host = object_of(int(self._compiled.reader.token))
            self._host.add_user(self)
        started = pipeline.adapted()
        assert started is not None
        self._begin(0, 0, started[0], started[1:])
        if self._host is not None:
            self._append()

    def _begin(self, step: int, window: int, state: AdaptState, begins: Sequence[Cursor]) -> None:
        """Begin at a step, with windows that begin at some cursors, the first of which has the number `window`."""
        self.step, self._window, self._state, self._windows = step, window, state, deque[_Window]()
        self._ahead: tuple[int, Reading] | None = None
        self._batches: deque[Batch] = deque()
        for begin in begins:
            self._locate(begin)

    def _locate(self, cursor: Cursor) -> None:
        size, compiled = self._adapt.batch_size, self._compiled
        located, self._end = compiled_locate()(compiled.plan, compiled.row_order, cursor, self._adapt.every, size)
        self._windows.append(_Window(cursor, located))

    def _append(self) -> None:
        """Locate another window, with the weights that follow from all losses so far."""
        self._state, cursor = _turned(self._adapt, self._state, self._end, self._compiled.plan)
        self._locate(cursor)

    def __next__(self) -> Batch:
        with self._lock:
            xla.check_not_forked()
            last = self._pipeline.batching.num_batches
            if last is not None and self.step >= last:
                raise StopIteration
            if not self._batches:
                within = self.step % self._adapt.every
                if self.step // self._adapt.every > self._window:
                    source = np.asarray(self._windows.popleft().located.source)
                    self._window += 1
                    count = np.bincount(source, minlength=len(self._pipeline.source_names)).astype(np.float32)
                    self._state = self._state._replace(records=jnp.asarray(count), step=np.uint32(self.step))
                    self._append()
                steps = self._program.num_steps
                self._batches.extend(self._computed(within - within % steps))
                for _ in range(within % steps):  # before the step of a restored state
                    self._batches.popleft()
            self.step += 1
            return self._batches.popleft()

    def _computed(self, within: int) -> Iterator[Batch]:
        """The batches of a chunk of the first window."""
        program, located = self._program, self._windows[0].located
        begins = self._begins(within)
        reader = self._compiled.reader
        if self._host is not None:
            assert isinstance(reader, Fed)
            step = self.step - self.step % program.num_steps
            if self._ahead is None or self._ahead[0] != step:
                self._ahead = self._read(0, within)
            reader = reader.with_rows(self._host.finished(self._ahead[1]))
            after = within + program.num_steps
            self._ahead = self._read(*divmod(after, self._adapt.every))
        flat: FlatRows = compiled_chunk()(
            program, reader, self._compiled.numbers, located, np.uint32(0), begins, Buffers(program).take()
        )
        for step in range(program.num_steps):
            rows = slice(step * program.num_rows, (step + 1) * program.num_rows)
            yield {leaf: self._output_of(flat[leaf], rows, part.shape) for leaf, part in program.spec}

    def _begins(self, within: int) -> np.ndarray:
        """The row of the window at which each batch of a chunk, or its shard, begins."""
        steps = within + np.arange(self._program.num_steps)
        return np.asarray(steps * self._adapt.batch_size + self._rows.start, np.uint32)

    def _read(self, window: int, within: int) -> tuple[int, Reading]:
        """Start to read the records of a chunk; returns the number of its first step, and the reading."""
        assert self._host is not None
        program, first = self._program, self.step - self.step % self._adapt.every + window * self._adapt.every
        rows = partial(rows_of, self._windows[window].located, 0, program, self._begins(within), None)
        into = Staging(self._host.specs, program.num_steps * program.num_rows * (1 + program.is_paired))
        return first + within, self._host.start(rows, into, Metrics())

    def _output_of(self, flat: jax.Array, rows: slice, shape: tuple[int, ...]) -> Any:
        if self._output == "numpy":
            return np.asarray(flat)[rows].reshape(-1, *shape)
        array = flat[rows].reshape(-1, *shape)
        return array if self._to_torch is None else self._to_torch(array)

    def update(self, losses: Mapping[str, Any] | Any) -> None:
        """Report the losses of batches; the policy sees their means between two updates of the weights.

        If several ranks take shards, all must report the same losses.

        Args:
          losses: The mean loss of each source's records, as a mapping by name or an array in the order of the sources,
            shape [num_sources]. A source that is not named, or is NaN, had no record.

        Raises:
          ConfigError: They name another source, or are not numbers of that shape that float32 can hold.
        """
        names = self._pipeline.source_names
        if isinstance(losses, Mapping):
            for name in losses:
                if name not in names:
                    raise unknown_source(str(name), names, f"losses[{name!r}]")
            values = _float32([losses.get(name, np.nan) for name in names])
        else:
            values = _float32(losses)
        if values.shape != (len(names),) or np.isinf(values).any():
            text = f"it is a number that float32 holds (up to 3.4e38) for each of {', '.join(names)}"
            raise ConfigError(text, key="losses", value=losses)
        with self._lock:
            loss, terms = self._state.loss + np.nan_to_num(values), self._state.terms + ~np.isnan(values)
            self._state = self._state._replace(loss=loss, terms=terms)

    @property
    def weights(self) -> dict[str, float]:
        """The newest weights, by source."""
        return dict(zip(self._pipeline.source_names, map(float, np.asarray(self._state.weights)), strict=True))

    def metrics(self) -> dict[str, Any]:
        """The next step, the newest weights, and the totals of each source; see `BatchIterator.metrics`."""
        with self._lock:
            plan, window = self._pipeline.plan, self._windows[0]
            begin = np.asarray(window.cursor.epoch, np.int64) * plan.epoch_records + np.asarray(window.cursor.offset)
            rows = (self.step - self._window * self._adapt.every) * self._adapt.batch_size
            counts = np.bincount(np.asarray(window.located.source)[:rows], minlength=len(plan.names))
            now = Totals(records := (begin + counts).tolist(), plan.tokens(records))
            zeros = [0] * len(records)
            before, self._reported = self._reported or Totals(zeros, plan.tokens(zeros)), now
            return {"step": self.step, "weights": self.weights, "sources": source_metrics(plan, now, before)}

    def state(self) -> State:
        """The position of the iterator, and the effect of all losses so far, as JSON values."""
        with self._lock:
            arrays = self._state, [window.cursor for window in self._windows]
            words = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(arrays)]
            return {**self._pipeline.state(self.step), "window": self._window, "arrays": words}

    def restore(self, state: State, changed: Literal["mix"] | None = None) -> None:
        """Continue where a state was taken.

        Raises:
          StateError: It is not a state of a mix that adapts, or belongs to another mix; the message names what differs.
          ConfigError: `changed` is given, which no mix that follows losses takes.
        """
        _, step = self._pipeline.restored(state, changed)
        leaves, structure = jax.tree.flatten((self._state, [window.cursor for window in self._windows]))
        try:
            window = operator.index(state["window"])
            if not 0 <= step - window * self._adapt.every <= self._adapt.every:
                raise ValueError
            arrays = [
                np.frombuffer(bytes.fromhex(text), np.asarray(leaf).dtype).reshape(np.shape(leaf))
                for text, leaf in zip(state["arrays"], leaves, strict=True)
            ]
        except (LookupError, TypeError, ValueError):
            of_state, of_cursor = len(jax.tree.leaves(self._state)), len(jax.tree.leaves(self._windows[0].cursor))
            of_other_placement = of_state + of_cursor * (1 if self._host is not None else 2)
            if isinstance(state.get("arrays"), list) and len(state["arrays"]) == of_other_placement:
                then, mend = ("on the device", "device") if self._host is not None else ("on the host", "host")
                text = f"this state was taken with records {then}, and on the host new weights apply a window later"
                raise StateError(f"{text}. Set data.placement={mend}.") from None
            text = "this state of a mix that adapts is damaged: its window or its arrays do not fit; restore another."
            raise StateError(text) from None
        with self._lock:
            self._begin(step, window, *jax.tree.unflatten(structure, arrays))

    state_dict = get_state = state
    load_state_dict = set_state = restore

    def close(self) -> None:
        """Stop reading ahead."""
        if self._host is not None:
            self._host.remove_user(self)


def _float32(losses: Any) -> np.ndarray:
    """Losses as a float32 array, inf where they are too large for it; empty if they are not numbers."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(losses, np.float32)
    except (TypeError, ValueError):
        return np.zeros(0, np.float32)
