"""Look at a mix: tables, its first batches, a figure of its records, and its speed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from datamix.builder.built import Built, build
from datamix.config.schema import Config
from datamix.errors import ConfigError, counted
from datamix.pipeline.pipeline import Pipeline
from datamix.report import tokens
from datamix.report.console import console_of, percent, print_notes, table
from datamix.report.contents import report_of_pipeline
from datamix.report.files import write_report
from datamix.report.record_figure import alone, figure_of
from datamix.report.records import column_names, holds_images, records_table
from datamix.sources.statistics import Statistics
from datamix.spec import Batch

_MOST_BATCHES = 10_000
_MEASURE_S = 0.1
_LABELS_OF = 2**14  # records of a source whose labels are examined, if it is on the device
_LABELS_READ = 2**9  # the same for a source on the host, each record of which must be read
_MOST_COLUMNS = 32  # whose names are shown
_FIRST_RECORDS = 10  # records that are shown if they hold no images


def run(config: Config, directory: Path, *, batches: int = 10) -> dict[str, Any]:
    """Preview a mix by its first batches.

    Args:
      batches: The number of batches; fewer if the mix ends before.

    Raises:
      ConfigError: `batches` is out of bounds, or the mix has no leaf `source_id`.
    """
    if not 1 <= batches <= _MOST_BATCHES:  # all are in memory at once
        raise ConfigError(f"it is 1 or more, and {_MOST_BATCHES:,} or less", key="job.batches", value=batches)
    built = build(config)
    out = console_of(built.notes)
    built = built.completed()
    pipeline = built.pipeline()
    names = list(built.sources)
    if "source_id" not in pipeline.spec:
        raise ConfigError("an operator drops or renames the leaf source_id, by which a mix is shown", key="operators")

    first_batches: list[Batch] = list(islice(pipeline, batches))
    source_id = np.concatenate([batch["source_id"] for batch in first_batches])
    counts = {name: int((source_id == i).sum()) for i, name in enumerate(names)}
    labels = _label_ranges(names, pipeline, first_batches)
    rate = _records_per_s(pipeline)

    notes = [*built.plan.drawn(), *built.notes_on(pipeline)]
    print_notes(out, "Note", notes)
    out.print(_sources_table(built, pipeline, labels))
    out.print(_leaves_table(pipeline.statistics))
    shown = ", ".join(f"{leaf} {part}" for leaf, part in pipeline.spec.items())
    out.print(f"Each batch: {config.batch_size} × {shown}")
    if columns := column_names(pipeline):
        out.print(f"features: {', '.join([*columns[:_MOST_COLUMNS], *['…'] * (len(columns) > _MOST_COLUMNS)])}")
    for i, batch in enumerate(first_batches):
        by_source = "  ".join(f"{name} {int((batch['source_id'] == j).sum())}" for j, name in enumerate(names))
        has_labels = "label" in batch and batch["label"].ndim == 1
        leaf = next((leaf for leaf in ("image", "tokens") if leaf in batch), next(iter(batch)))
        shape = f"{leaf} {batch[leaf].dtype} {list(batch[leaf].shape)}"
        first = f"  labels {' '.join(f'{label:.6g}' for label in batch['label'][:8])} …" if has_labels else ""
        out.print(f"batch {i:>3}  {shape}{first}  {by_source}")
    for line in (documents := [*tokens.documents(out, built.sources, first_batches)]):
        out.print(line)
    if not documents and not holds_images(pipeline.spec):
        rows = range(min(_FIRST_RECORDS, len(first_batches[0]["source_id"])))
        of_source = {"source": [names[first_batches[0]["source_id"][row]] for row in rows]}
        leaves = [leaf for leaf in first_batches[0] if leaf != "source_id"]
        out.print(records_table("First records", first_batches[0], of_source, rows, leaves))
    total = len(source_id)
    report = report_of_pipeline(
        built,
        pipeline,
        batches=len(first_batches),
        counts=counts,
        records=total,
        labels=labels,
        samples_per_s=rate,
        figure=_draw(directory, built, pipeline, first_batches),
    )
    report["notes"] = notes
    mixed = ", ".join(f"{name} {count} ({percent(count / total)})" for name, count in counts.items())
    unit = "records" if report["unit"] == "record" else report["unit"]
    off = f"{report['max_deviation']:.2f} {unit}"
    out.print(f"\nIn {total} records: {mixed}; at no point more than {off} from the exact shares.")
    whole, length = built.num_batches(), pipeline.plan.length
    ends = (
        " never ends."
        if whole is None or length is None
        else f": {counted(length, 'record')}, {counted(whole, 'batch')}."
    )
    out.print(f"The whole mix{ends}")
    if never := pipeline.plan.never_shown():
        out.print(never)
    out.print(f"About {round(rate, -4):,.0f} samples/s, at a first look.")
    figure = f"\nFigure: {directory / report['figure']}" if report["figure"] else ""
    out.print(f"Report: {write_report(directory, report)}{figure}")
    return report


def _sources_table(built: Built, pipeline: Pipeline, labels: Mapping[str, tuple[int, int]]) -> Any:
    rows = [
        (
            name,
            source.provenance,
            built.placements[name],
            f"{source.num_records:,}",
            percent(float(pipeline.plan.targets[i])),
            f"{labels[name][0]} to {labels[name][1]}" if name in labels else "–",
            _normalization(built, name),
        )
        for i, (name, source) in enumerate(built.sources.items())
    ]
    columns = ["source", "provenance", "placement", "records", "target share", "labels", "normalization"]
    return table("Sources", columns, rows)


def _leaves_table(statistics: Statistics) -> Any:
    """The table of the values of leaves before any operator."""

    def shown(number: float | None) -> str:
        return "–" if number is None else f"{number:.6g}"

    every = [(name, leaf, each) for name, leaves in statistics.items() for leaf, each in leaves.items()]
    sampled = {name: f"{name} {each.num_records:,}" for name, _, each in every if each.sampled}
    title = "Values before any operator" + (f"; of some records: {', '.join(sampled.values())}" if sampled else "")
    rows = [
        (name, leaf, shown(each.min), shown(each.max), shown(each.mean), percent(each.nan), percent(each.inf))
        for name, leaf, each in every
    ]
    return table(title, ["source", "leaf", "min", "max", "mean", "NaN", "infinite"], rows)


def _normalization(built: Built, name: str) -> str:
    settings = [
        f"mean {node.operation.settings['mean']}, std {node.operation.settings['std']}"
        for node in built.graph.chain(name)
        if node.operation and node.operation.operator == "normalize"
    ]
    return "; ".join(settings) or "none"


def _label_ranges(names: list[str], pipeline: Pipeline, seen: list[Batch]) -> dict[str, tuple[int, int]]:
    if (label := pipeline.spec.get("label")) is None or label.shape or not label.dtype.startswith(("int", "uint")):
        return {}
    ranges = {}
    for i, name in enumerate(names):
        # Each source alone, so that its labels show even if its share is small or its first record comes late.
        records = _LABELS_OF if pipeline.placements[name] == "device" else _LABELS_READ
        batches = alone(name, pipeline, seen, records)
        if len(labels := np.concatenate([batch["label"][batch["source_id"] == i] for batch in batches])):
            ranges[name] = (int(labels.min()), int(labels.max()))
    return ranges


def _records_per_s(pipeline: Pipeline) -> float:
    """The number of records per second that a loop over batches yields, once compiled."""
    batches, records = chain.from_iterable(repeat(pipeline)), 0
    next(batches)
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < _MEASURE_S:
        records += len(next(batches)["source_id"])
    return records / passed


def _draw(directory: Path, built: Built, pipeline: Pipeline, seen: list[Batch]) -> str | None:
    holds = holds_images(pipeline.spec)
    if not holds and (packed := tokens.draw(directory, built.sources)):
        return packed
    name = "samples.png" if holds else "values.png"
    provenances = {name: source.provenance for name, source in built.sources.items()}
    drawn = figure_of(pipeline, seen, directory / name, provenances, built.caution)
    return None if drawn is None else name
