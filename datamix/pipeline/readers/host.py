"""The reader of records on the host: threads fill staging rows with the requested records, without JAX.

Located records are sorted by storage group, source and record, so that each piece of a source is read in its stored
order, straight into consecutive rows. An index holds the row of each record of the batch; the device looks the record
up there, as it looks up a resident record in its storage.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import numpy as np

from datamix.errors import DataError, of_source
from datamix.pipeline import xla
from datamix.pipeline.tokens import token_of
from datamix.sources.base import Source
from datamix.sources.mapped import before_read, mapping_of
from datamix.sources.narrowing import beyond, refusal, what_is_lost
from datamix.sources.statistics import LeafStatistics, Statistics, statistics_of
from datamix.spec import Arrays, Spec, bytes_of

PREFETCH_BYTES = 256 * 2**20
# The shortest and the longest task of a thread, in seconds; a task costs 50 µs in which no other thread runs Python.
# The time per record is measured; until then, a source is assumed to need `_SLOW_S` per byte.
_TASK_S = (1e-3, 0.1)
_SLOW_S = 1e-8
_SAMPLE_BYTES, _SAMPLE_RECORDS = 2**25, 4096  # read of a source for its statistics
_STALL_S = 0.5
# Limits for records used in place: sources in a group, as each record is looked up in all of them; bytes of mapped
# files together, as their pages stay mapped; and bytes of a leaf that must be copied into its stored form.
_MOST_IN_PLACE, MAPPED_BYTES, COPIED_BYTES = 8, 2**30, 2**26
_log = logging.getLogger("datamix")

Rows = tuple[np.ndarray, np.ndarray]
"""The source of each requested record, and its number in the source, unsigned [count] each."""
Allocate = Callable[[tuple[int, ...], str], np.ndarray]
"""Allocates uninitialised memory of a shape and a dtype."""


def default_threads() -> int:
    """Twice as many threads as processors, 2 to 16: they wait for storage as often as they copy."""
    return min(max(2 * (os.cpu_count() or 1), 2), 16)


def num_rows(capacity: int) -> int:
    """The staging rows for `capacity` records: for a table of one row, XLA makes code whose last bits may differ."""
    return max(capacity, 2)


class Staging:
    """Reusable memory for the records of some rows.

    Attributes:
      rows: For each storage group, leaf name to array, shape [num_rows(capacity), elements]; empty if none is fed.
      index: The row of its group that holds each record, uint32 [capacity]; 0 for a resident one.
      on_device: The reader whose arrays on a device are this memory, for reuse; None until there is one.
    """

    on_device: Any = None

    def __init__(self, specs: Sequence[Spec], capacity: int, allocate: Allocate = xla.aligned) -> None:
        self.rows: list[Arrays] = [
            {leaf: allocate((num_rows(capacity), *part.flat), part.dtype) for leaf, part in spec.items()}
            for spec in specs
        ]
        self.index = allocate((capacity,), "uint32")
        self.index.fill(0)


@dataclass(eq=False)
class Reading:
    """Records that are being read.

    Attributes:
      into: The memory they are read into; leaves that it lacks are not read.
      cancelled: Whether nobody waits for them any more.
      error: Why they cannot be read; None if there is no error.
      pending: The number of pieces still to be read of each source, by its index.
      last: The index of the source that arrived last; None if there was none.
    """

    into: Staging
    cancelled: bool = False
    error: BaseException | None = None
    pending: dict[int, int] = field(default_factory=dict)
    last: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def has_ended(self) -> bool:
        """Whether all records are there, or one of them cannot be read."""
        return self._ended.is_set()

    @property
    def is_there(self) -> bool:
        """Whether all records have been read."""
        return self.has_ended and self.error is None

    def finish(self, source: int | None = None, error: BaseException | None = None) -> None:
        """Note that a piece of a source has arrived, or that there is nothing more to wait for."""
        with self._lock:
            if source is not None:
                self.last = source
                self.pending[source] -= 1
                if not self.pending[source]:
                    del self.pending[source]
            if not self.has_ended and (error is not None or not self.pending):
                self.error = error
                self._ended.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended, or for `timeout_s`; returns whether it has ended."""
        return self._ended.wait(timeout_s)


@dataclass(kw_only=True)
class Metrics:
    """Counts of what was read for one iterator.

    Attributes:
      num_bytes: Bytes of staging rows that were filled.
      num_records: Records that were handed on, resident ones included.
      read_s: Seconds that threads spent on each source, by name; several at once count each.
      waited_s: Seconds spent in waiting for data.
      waits: The number of requests for data, and of those whose data was ready.
      last: How often each source was the last to arrive, by name, when data was waited for.
      begun: When counting began, in seconds.
      source_bytes: The part of `num_bytes` that each source has, by name.
      waited_for: The part of `waited_s` in which each source was the last to arrive, by name.
    """

    num_bytes: int = 0
    num_records: int = 0
    read_s: dict[str, float] = field(default_factory=dict)
    waited_s: float = 0.0
    waits: tuple[int, int] = (0, 0)
    last: dict[str, int] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)
    source_bytes: dict[str, int] = field(default_factory=dict)
    waited_for: dict[str, float] = field(default_factory=dict)

    def of(self, source: str) -> dict[str, float]:
        """The bytes read of a source per second, and the seconds in which it was waited for as the last."""
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        return {
            "bytes_per_s": self.source_bytes.get(source, 0) / seconds,
            "waited_s": self.waited_for.get(source, 0.0),
        }

    def report(self) -> dict[str, Any]:
        """The counts as people read them; `window_fill` is the share of requests whose data was ready."""
        requests, ready = self.waits
        return {
            "bytes": self.num_bytes,
            "bytes_per_record": self.num_bytes / max(self.num_records, 1),
            "bytes_per_s": self.num_bytes / max(time.perf_counter() - self.begun, 1e-9),
            "waited_s": self.waited_s,
            "window_fill": ready / requests if requests else None,
            "last_source": max(self.last, key=self.last.__getitem__, default=None),
            "read_s": dict(self.read_s),
        }


class HostReader:
    """The records of the fed sources of a mix, read by one pool of threads.

    Args:
      sources: All sources by name, in order.
      specs: The spec of each source's records as they are stored.
      groups: The indices of each storage group's sources.
      fed: The names of the sources that are read on the host.
      threads: The number of threads; None for `default_threads`.
      prefetch_bytes: The most bytes of records that an iterator reads ahead.
      in_place: Whether records in memory, or in mapped files, may be used in place.

    Attributes:
      specs: The spec of the fed records of each storage group; empty if there are none.
      is_fed: Whether each source is read here, bool [num_sources].
      in_place: For each storage group, leaf name to the array of each fed source, for leaves that are used in place.
      views: The views that devices have of `in_place`, by device; see `readers.fed.views`.
      token: The number by which compiled programs know this reader.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        specs: Mapping[str, Spec],
        groups: Sequence[Sequence[int]],
        fed: Sequence[str],
        *,
        threads: int | None = None,
        prefetch_bytes: int | None = None,
        in_place: bool = True,
    ) -> None:
        self.names, self._sources = list(sources), list(sources.values())
        self._stored = [specs[name] for name in self.names]
        self._source_specs: list[Spec] = [dict(source.spec) for source in self._sources]
        self.is_fed = np.array([*map(frozenset(fed).__contains__, self.names)])
        self.specs: list[Spec] = [
            self._stored[members[0]] if self.is_fed[list(members)].any() else {} for members in groups
        ]
        self._group = np.zeros(len(self.names), np.int64)
        for group, members in enumerate(groups):
            self._group[list(members)] = group
        # The sources sorted by group: the order of staging rows.
        self._ordered = np.argsort(self._group, kind="stable")
        self._rank = np.argsort(self._ordered)
        of_rank = self._group[self._ordered]
        self._first_of_group = np.searchsorted(of_rank, of_rank)  # the first rank of each one's group
        self._are_all_fed = bool(self.is_fed.all())
        self._record_bytes = [bytes_of(spec) for spec in self._stored]
        sizes = np.maximum(self._record_bytes, 1)[self._ordered]
        self._record_s = sizes * _SLOW_S  # per record of each source, in that order
        self.threads = threads or default_threads()
        self.prefetch_bytes = prefetch_bytes or PREFETCH_BYTES
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        self._ahead: dict[bytes, Reading] = {}
        self._ahead_lock = threading.Lock()
        self._users: WeakSet[object] = WeakSet()
        self._has_nan: set[tuple[int, str]] = set()
        self.views: dict[Any, Any] = {}
        self.token = token_of(self)
        for source in np.flatnonzero(self.is_fed).tolist():
            self._open(source)
        self.in_place = [self._in_place(members) if in_place else {} for members in groups]
        self._mapped = self._bounded_mappings()

    @property
    def record_bytes(self) -> int:
        """Bytes of one staging row of all groups."""
        return sum(bytes_of(spec) for spec in self.specs)

    def _in_place(self, members: Sequence[int]) -> dict[str, dict[int, np.ndarray]]:
        """The arrays that hold records of a storage group's fed sources, for leaves that all of them have in memory."""
        fed = [member for member in members if self.is_fed[member]]
        arrays: dict[int, Arrays] = {member: getattr(self._sources[member], "in_memory", {}) for member in fed}
        in_place: dict[str, dict[int, np.ndarray]] = {}
        if not 0 < len(fed) <= _MOST_IN_PLACE:
            return in_place
        for leaf, part in self._stored[fed[0]].items():
            # Floats have to be read here, since NaN among them is logged.
            if np.dtype(part.dtype).kind in "biu":
                lying = {member: _lying(arrays[member].get(leaf), np.dtype(part.dtype)) for member in fed}
                if all(values is not None for values in lying.values()):
                    in_place[leaf] = {member: values for member, values in lying.items() if values is not None}
        return in_place

    def _bounded_mappings(self) -> list[tuple[int, np.ndarray]]:
        """The source and the array of leaves used in mapped files: the smallest ones, up to a bound."""
        mapped: list[tuple[int, np.ndarray]] = []
        leaves = [
            (sum(len(mapping_of(values) or b"") for values in arrays.values()), group, leaf)
            for group, by_leaf in enumerate(self.in_place)
            for leaf, arrays in by_leaf.items()
        ]
        room = MAPPED_BYTES
        for size, group, leaf in sorted(leaves):
            if size > room:
                del self.in_place[group][leaf]
            elif size:
                room -= size
                mapped += self.in_place[group][leaf].items()
        return mapped

    def check_in_place(self) -> None:
        """Check that no file used in place was truncated: reading beyond its end would kill the process.

        Raises:
          DataError: A file was truncated.
        """
        for source, values in self._mapped:
            try:
                before_read(values, 1, 1)
            except DataError as error:
                raise DataError(of_source(self.names[source], str(error))) from error

    def _open(self, source: int) -> None:
        """Read a first record, so that missing data is reported here, and decoding on first use happens in one thread.

        Raises:
          DataError: Data is missing, or a sample of 64-bit numbers does not fit into 32 bits.
        """
        if any(
            np.dtype(part.dtype).kind == "f" and np.dtype(part.dtype).itemsize > np.dtype(stored.dtype).itemsize
            for part, stored in zip(self._source_specs[source].values(), self._stored[source].values(), strict=True)
        ):
            for leaf, values in self._raw(source, self._evenly(source)).items():
                if lost := what_is_lost(values, np.dtype(self._stored[source][leaf].dtype)):
                    raise self._lost(source, leaf, lost)
        else:
            self._raw(source, np.zeros(min(1, self._sources[source].num_records), np.int64))

    def add_user(self, user: object) -> None:
        """Keep the threads until `remove_user`."""
        self._users.add(user)

    def remove_user(self, user: object) -> None:
        """Let the threads end, if there is no other user."""
        self._users.discard(user)
        if not self._users:
            with self._pool_lock:
                pool, self._pool = self._pool, None
            if pool is not None:
                pool.shutdown(wait=False)

    def _submit(self, call: Callable[..., None], *arguments: object) -> None:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, "datamix-read")
            self._pool.submit(call, *arguments)

    def start(self, rows: Rows | Callable[[], Rows], into: Staging, metrics: Metrics) -> Reading:
        """Start to read some records, without waiting for them.

        Args:
          rows: Source and record of each row, or a function that returns them, called by a thread of the pool.
          into: The memory for them, of `count` rows or more.
          metrics: The counts to which what is read is added.
        """
        reading = Reading(into)
        self._submit(self._lay_out, reading, rows, metrics)
        return reading

    def wait(self, reading: Reading, metrics: Metrics) -> None:
        """Wait until records are read; a stall is logged.

        Raises:
          DatamixError: One of them cannot be read.
        """
        requests, ready = metrics.waits
        metrics.waits = requests + 1, ready + reading.has_ended
        if not reading.has_ended:
            begun = time.perf_counter()
            try:
                if not reading.wait(_STALL_S):
                    late = ", ".join(repr(self.names[source]) for source in tuple(reading.pending))
                    missing = f"records of source {late}" if late else "the plan, which says which records to read"
                    _log.warning("waiting for data: over %s s for %s.", _STALL_S, missing)
                    reading.wait()
            finally:
                metrics.waited_s += time.perf_counter() - begun
            if reading.last is not None:
                name = self.names[reading.last]
                metrics.last[name] = metrics.last.get(name, 0) + 1
                metrics.waited_for[name] = metrics.waited_for.get(name, 0.0) + time.perf_counter() - begun
        if reading.error is not None:
            raise reading.error

    def read(
        self,
        source: np.ndarray,
        record: np.ndarray,
        capacity: int | None = None,
        specs: Sequence[Spec] | None = None,
    ) -> Staging:
        """Read some records, and wait for them.

        Args:
          source: The source of each, unsigned [count].
          record: The number of each in its source, unsigned [count].
          capacity: The rows of the staging; `count` by default.
          specs: The leaves to read of each storage group; all by default.

        Raises:
          DatamixError: One of them cannot be read.
        """
        into = Staging(self.specs if specs is None else specs, capacity or len(source))
        return self.finished(self.start((source, record), into, Metrics()))

    def finished(self, reading: Reading) -> Staging:
        """Wait for records, without counting them, and return their memory.

        Raises:
          DatamixError: One of them cannot be read.
        """
        try:
            self.wait(reading, Metrics())
        finally:
            reading.cancelled = True
        return reading.into

    def read_ahead(self, *requests: Rows) -> Reading:
        """Start to read some records, unless that has started, and the next ones.

        Programs that call back have no iterator that reads ahead for them; each call names the records of the next one.

        Args:
          requests: The records needed now, then those needed next, if known.
        """
        with self._ahead_lock:
            for request in requests:
                key = _key(request)
                if (reading := self._ahead.pop(key, None)) is None:
                    reading = self.start(request, Staging(self.specs, len(request[0])), Metrics())
                self._ahead[key] = reading
            reading = self._ahead.pop(_key(requests[0]))
            ahead_bytes = len(self._ahead) * len(requests[0][0]) * self.record_bytes
            if ahead_bytes > self.prefetch_bytes and len(self._ahead) > 1:
                self._ahead.pop(next(iter(self._ahead))).cancelled = True
        return reading

    def _lay_out(self, reading: Reading, rows: Rows | Callable[[], Rows], metrics: Metrics) -> None:
        """Assign a staging row to each record, and start to read them in pieces."""
        try:
            source, record = rows() if callable(rows) else rows
            if not (tasks := self._tasks(reading, source, record)):
                reading.finish()
            for task in tasks[1:]:
                self._submit(self._run, reading, task, metrics)
            for task in tasks[:1]:
                self._run(reading, task, metrics)
        except BaseException as error:  # of any kind, for whoever waits
            reading.finish(error=error)

    def _tasks(
        self, reading: Reading, source: np.ndarray, record: np.ndarray
    ) -> list[list[tuple[int, int, np.ndarray]]]:
        """Sort the records by where they lie; returns tasks of pieces: the source, the first row, the records."""
        ranks = self._rank[source]
        order = np.argsort(ranks << 32 | record)
        index = reading.into.index[: len(source)]
        if not self._are_all_fed:
            order = order[self.is_fed[source[order]]]
            ranks = ranks[order]
            index.fill(0)
        records = record[order].astype(np.int64)
        counts = np.bincount(ranks, minlength=len(self.names))
        begins = np.cumsum(counts) - counts
        firsts = begins[self._first_of_group]
        index[order] = np.arange(len(order)) - np.repeat(firsts, counts)
        present = np.flatnonzero(counts)
        counts, seconds = counts[present], self._record_s[present]
        task_s = min(max(float(counts @ seconds) / self.threads, _TASK_S[0]), _TASK_S[1])
        tasks: list[list[tuple[int, int, np.ndarray]]] = []
        filled_s = task_s
        # Python's numbers take a tenth of the time of NumPy's.
        columns = (self._ordered[present], begins[present], begins[present] + counts, firsts[present], seconds)
        for number, begin, end, first, record_s in zip(*(column.tolist() for column in columns), strict=True):
            while begin < end:
                if filled_s >= task_s:
                    tasks.append([])
                    filled_s = 0.0
                count = min(math.ceil((task_s - filled_s) / record_s), end - begin)
                tasks[-1].append((number, begin - first, records[begin : begin + count]))
                reading.pending[number] = reading.pending.get(number, 0) + 1
                begin, filled_s = begin + count, filled_s + count * record_s
        return tasks

    def _run(self, reading: Reading, task: list[tuple[int, int, np.ndarray]], metrics: Metrics) -> None:
        for source, first, records in task:
            if reading.cancelled or reading.has_ended:
                return
            begun = time.perf_counter()
            rows = {leaf: v[first : first + len(records)] for leaf, v in reading.into.rows[self._group[source]].items()}
            try:
                self._take(source, records, rows)
            except BaseException as error:  # of any kind, for whoever waits
                reading.finish(error=error)
                return
            self._note(metrics, source, len(records), time.perf_counter() - begun)
            reading.finish(source)

    def note_in_place(self, source: np.ndarray, metrics: Metrics) -> None:
        """Count records that were used in place.

        Args:
          source: The source of each, unsigned [count]; resident ones are not counted.
        """
        counts = np.bincount(source, minlength=len(self.names)) * self.is_fed
        for number in np.flatnonzero(counts).tolist():
            self._note(metrics, number, int(counts[number]), 0.0)

    def _note(self, metrics: Metrics, source: int, count: int, seconds: float) -> None:
        """Count some records of a source, and the time that they took."""
        name, rank, num_bytes = self.names[source], self._rank[source], count * self._record_bytes[source]
        with self._pool_lock:
            self._record_s[rank] += (seconds / count - self._record_s[rank]) / 8
            metrics.read_s[name] = metrics.read_s.get(name, 0.0) + seconds
            metrics.num_bytes += num_bytes
            metrics.source_bytes[name] = metrics.source_bytes.get(name, 0) + num_bytes

    def _raw(self, source: int, records: np.ndarray, rows: Arrays | None = None) -> Arrays:
        """Some records as the source gives them, in the memory of `rows` where its dtype is the same."""
        out = {}
        for leaf, part in self._source_specs[source].items():
            if rows is not None and leaf not in rows:
                continue
            shape = (len(records), *part.shape)
            if rows is not None and rows[leaf].dtype == np.dtype(part.dtype):
                out[leaf] = rows[leaf].reshape(shape)
            else:
                out[leaf] = np.empty(shape, part.dtype)
        if out:
            self._sources[source].take(records, out)
        return out

    def _take(self, source: int, records: np.ndarray, rows: Arrays) -> None:
        """Fill staging rows with records of a source.

        Raises:
          DatamixError: A record cannot be read, or its numbers do not fit.
        """
        for leaf, values in self._raw(source, records, rows).items():
            stored = rows[leaf]
            if values.dtype != stored.dtype:
                if (row := beyond(values, stored.dtype)) is not None:
                    lost = what_is_lost(values[row : row + 1], stored.dtype)
                    raise self._lost(source, leaf, lost, int(records[row]))
                stored[...] = values.reshape(stored.shape)
            if stored.dtype.kind == "f" and (source, leaf) not in self._has_nan and np.isnan(stored.min(initial=0)):
                self._warn_of_nan(source, leaf, int(records[np.isnan(stored.reshape(len(stored), -1)).any(1).argmax()]))

    def _warn_of_nan(self, source: int, leaf: str, record: int) -> None:
        with self._pool_lock:
            is_first = (source, leaf) not in self._has_nan
            self._has_nan.add((source, leaf))
        if is_first:
            where = self._place(source, record)
            _log.warning("source %r: the leaf %r holds NaN, first seen in %s.", self.names[source], leaf, where)

    def _lost(self, source: int, leaf: str, lost: str, record: int | None = None) -> DataError:
        name, where = self.names[source], "" if record is None else f" of {self._place(source, record)}"
        column = getattr(self._sources[source], "column_of", {}).get(leaf)
        return DataError(of_source(name, refusal(name, leaf, lost, column=column, where=where)))

    def _place(self, source: int, record: int) -> str:
        """Where a record lies, as far as the source knows."""
        places = getattr(self._sources[source], "places", None)
        place = places(np.array([record]))[0] if places is not None else ""
        return f"record {record} ({place})" if place else f"record {record}"

    def _evenly(self, source: int) -> np.ndarray:
        """Some of a source's records, evenly spaced."""
        size = self._sources[source].num_records
        count = min(size, _SAMPLE_RECORDS, max(_SAMPLE_BYTES // max(bytes_of(self._source_specs[source]), 1), 1))
        return np.linspace(0, max(size - 1, 0), count).astype(np.int64)

    def rows_of(self, source: int, records: np.ndarray) -> Arrays:
        """Some records of a source as they are stored, leaf name to array, shape [count, elements]."""
        rows = {leaf: np.empty((len(records), *part.flat), part.dtype) for leaf, part in self._stored[source].items()}
        self._take(source, records, rows)
        return rows

    def statistics(self, source: int) -> dict[str, LeafStatistics]:
        """The statistics of a source's leaves: those that it has kept, or those of a sample of its records."""
        if (known := statistics_of(self._sources[source])) is not None:
            return dict(known)
        records = self._evenly(source)
        sampled = len(records) < self._sources[source].num_records
        return {leaf: LeafStatistics.of(v, sampled=sampled) for leaf, v in self._raw(source, records).items()}


class SampledStatistics(Mapping[str, Mapping[str, LeafStatistics]]):
    """The statistics of every source; those of fed sources are computed on first use.

    Args:
      names: The names of all sources, in order.
      resident: The statistics of those that are resident.
      host: The reader of the others.
    """

    def __init__(self, names: Sequence[str], resident: Statistics, host: HostReader) -> None:
        self._names, self._known, self._host = tuple(names), dict(resident), host

    def __getitem__(self, name: str) -> Mapping[str, LeafStatistics]:
        if name not in self._known and name in self._names:
            self._known[name] = self._host.statistics(self._names.index(name))
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _lying(values: np.ndarray | None, dtype: np.dtype) -> np.ndarray | None:
    """The array in its stored form, at 32-bit offsets, or a copy of a small one; None if it cannot be used in place."""
    if values is None or not 0 < values.size < 2**32 - xla.ALIGNMENT:
        return None
    if values.dtype == dtype and values.flags.c_contiguous and values.flags.aligned:
        return values
    is_copied = values.nbytes <= COPIED_BYTES and values.dtype.kind in "biu" and beyond(values, dtype) is None
    return np.ascontiguousarray(values, dtype) if is_copied else None


def _key(request: Rows) -> bytes:
    source, record = request
    return source.tobytes() + record.tobytes()
