"""Measure how fast a configured mix is, and where the time goes."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from datamix.builder.built import build
from datamix.config.schema import Config
from datamix.errors import ConfigError
from datamix.pipeline import tracing, xla
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.chunks import span_steps
from datamix.pipeline.iterator import BatchIterator
from datamix.pipeline.locate import Located
from datamix.pipeline.pipeline import Pipeline
from datamix.pipeline.program import Program, compiled_chunk, locate_span
from datamix.pipeline.readers.base import Reader
from datamix.pipeline.readers.fed import Fed
from datamix.report import figures
from datamix.report.console import console_of, percent, print_notes, table
from datamix.report.contents import report_of_whole_mix
from datamix.report.files import write_report
from datamix.spec import FlatRows, bytes_of

_MOST_S = 86_400
_ROUNDS = 5  # the median counts; every round measures all tasks, so that a busy moment affects all of them
_PATHS: dict[xla.Path, str] = {
    "fast": "fast, with calls of JAX and XLA that are not documented",
    "portable": "portable, as the installed JAX lacks the calls that the fast path takes",
}
_PARTS = {
    "plan": "which record stands where",
    "read": "reading records on the host",
    "gather": "copying records together",
    "operators": "computing, and writing what comes out",
    "output": "handing out batches",
}


def run(config: Config, directory: Path, *, seconds: float = 3) -> dict[str, Any]:
    """Measure the speed of a mix.

    Args:
      seconds: How long to measure, in seconds; above 0.

    Returns:
      The report. Its `bench` has the speed of the loop in GB/s, the code path, the speed of merely filling the same
      bytes and the share of it that the loop reaches, and the nanoseconds per record of each part, run by itself. On
      several cores the parts overlap, and may add up to more than the time of the loop.

    Raises:
      ConfigError: `seconds` is out of bounds.
    """
    if not 0 < seconds <= _MOST_S:
        raise ConfigError(f"it is above 0, and {_MOST_S:,} or less", key="bench.seconds", value=seconds)
    built = build(config)
    out = console_of(built.notes)
    print_notes(out, "Note", built.notes_on_records())
    pipeline = built.pipeline()
    record_bytes = bytes_of(pipeline.spec)
    with contextlib.closing(pipeline.iterator()) as iterator:
        seconds_of = _measured(_tasks(pipeline, iterator), seconds)
    computed, fed = seconds_of["computed"], iterator.metrics()
    # Run by itself, it writes to new memory each time, which may take longer than the whole computation.
    gather = min(seconds_of["gather"], computed)
    if fed["window_fill"] is None:  # records are used in place, without a read
        seconds_of["read"] = 0.0
    parts = {
        "plan": seconds_of["plan"],
        **({"read": seconds_of["read"]} if seconds_of["read"] else {}),
        "gather": gather,
        "operators": computed - gather,
        "output": max(seconds_of["loop"] - seconds_of["plan"] - seconds_of["read"] - computed, 0),
    }
    rate = 1 / seconds_of["loop"]
    measured = {
        "seconds": seconds,
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "path": xla.path(),
        "bytes_per_sample": record_bytes,
        "gb_per_s": rate * record_bytes / 1e9,
        "fill_gb_per_s": record_bytes / seconds_of["fill"] / 1e9,
        "share_of_fill": seconds_of["fill"] / seconds_of["loop"],
        "ns_per_sample": {part: time_s * 1e9 for part, time_s in parts.items()},
    }
    measured["fed"] = {key: fed[key] for key in ("waited_s", "window_fill", "last_source", "read_s")}
    measured["fed"]["bytes_per_s"] = fed["bytes_per_record"] * rate
    report = report_of_whole_mix(built, pipeline.spec, pipeline.statistics)
    report |= {"samples_per_s": rate, "figure": "bench.png", "bench": measured}
    rows = [(part, f"{parts[part] * 1e9:,.0f}", what) for part, what in _PARTS.items() if part in parts]
    out.print(table("Nanoseconds a sample, each part by itself", ["part", "ns", "what it does"], rows))
    out.print(f"Path: {_PATHS[xla.path()]}.")
    _print_fed(out, pipeline, measured["fed"])
    reached = f"{percent(measured['share_of_fill'])} of the {measured['fill_gb_per_s']:.2f} GB/s of filling these bytes"
    speed = f"{rate:,.0f} samples/s in batches of {config.batch_size}"
    out.print(f"{speed}: {measured['gb_per_s']:.2f} GB/s, {reached}.")
    figures.parts_of_time(directory / "bench.png", measured["ns_per_sample"], f"{speed}, {reached}")
    out.print(f"Report: {write_report(directory, report)}\nFigure: {directory / 'bench.png'}")
    return report


def _print_fed(out: Console, pipeline: Pipeline, fed: Mapping[str, Any]) -> None:
    if "host" not in pipeline.placements.values():
        return
    placements = ", ".join(f"{name} {placement}" for name, placement in pipeline.placements.items())
    out.print(f"Placement: {placements}.")
    read = f"Read on the host: {fed['bytes_per_s'] / 1e9:.2f} GB/s"
    if fed["window_fill"] is None:
        out.print(f"{read}, where the records lie.")
        return
    last = f"; last to arrive: {fed['last_source']}" if fed["last_source"] else ""
    there = f"there when asked for: {percent(fed['window_fill'])} of the times{last}"
    out.print(f"{read}; {fed['waited_s']:.2f} s waited for data; {there}.")


def _tasks(pipeline: Pipeline, iterator: BatchIterator) -> dict[str, tuple[int, Callable[[], object]]]:
    """The number of records of each call to measure, and the call, by name."""
    compiled, size = pipeline.compiled, pipeline.batch_size
    program = iterator.program
    count, num_located = program.num_steps * size, span_steps(program) * size
    cursor, start = pipeline.start(), iterator.state()

    def plan() -> tuple[Located, object]:
        return locate_span(compiled, cursor, num_located // size)

    located, _ = plan()
    chunk: Located = jax.tree.map(lambda field: field[:count], located)
    rows, reader = _by_group(program, chunk), compiled.reader
    places = np.asarray(chunk.source), np.asarray(chunk.record)
    if isinstance(reader, Fed):
        reader = jax.device_put(reader.with_rows(pipeline.read_on_host(*places)))
    batch = [np.empty((size, *part.shape), part.dtype) for part in pipeline.spec.values()]

    def loop() -> None:
        for _ in range(program.num_steps):
            if next(iterator, None) is None:
                iterator.restore(start)

    def read() -> object:
        return pipeline.read_on_host(*places) if isinstance(compiled.reader, Fed) else None

    def gather() -> object:
        return [_gathered(reader, group, located) for group, located in rows.items()]

    def fill() -> None:
        for values in batch:
            values.fill(1)

    buffers, zero = Buffers(program), jnp.uint32(0)

    def computed() -> FlatRows:
        chunk = compiled_chunk()(program, reader, compiled.numbers, located, zero, None, buffers.take())
        buffers.give_back(chunk, ())
        return chunk

    calls = {"loop": loop, "plan": plan, "read": read, "gather": gather, "computed": computed, "fill": fill}
    return {name: ({"plan": num_located, "fill": size}.get(name, count), call) for name, call in calls.items()}


def _by_group(program: Program, chunk: Located) -> dict[int, Located]:
    """The records of a chunk by storage group, so that each group has as many as in the mix."""
    group_of = {source: branch.group for branch in program.branches for source in branch.sources}
    groups = np.array([group_of[source] for source in np.asarray(chunk.source).tolist()])
    return {
        group: jax.tree.map(lambda field, group=group: jnp.asarray(np.asarray(field)[groups == group]), chunk)
        for group in sorted({*groups.tolist()})
    }


def _measured(tasks: dict[str, tuple[int, Callable[[], object]]], seconds: float) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _, call in tasks.values():
        jax.block_until_ready(call())  # compile
    for _ in range(_ROUNDS):
        for name, (count, call) in tasks.items():
            begun, calls = time.perf_counter(), 0
            while not calls or time.perf_counter() - begun < seconds / _ROUNDS / len(tasks):
                jax.block_until_ready(call())
                calls += 1
            times[name].append((time.perf_counter() - begun) / calls / count)
    return {name: statistics.median(values) for name, values in times.items()}


def _read_group(reader: Reader, group: int, located: Located) -> FlatRows:
    return reader.read(group, located, jnp.arange(len(located.source), dtype=jnp.uint32), None)


_gathered = tracing.jit(_read_group, static_argnums=1)
