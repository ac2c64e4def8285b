"""Look at a mix: tables, its first batches, a figure of samples, how fast it is."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datamix.builder.built import Built
from datamix.config.schema import Config
from datamix.errors import ConfigError
from datamix.pipeline.pipeline import Pipeline
from datamix.report import figures, tokens
from datamix.report.console import percent, print_notes, table
from datamix.report.contents import announced, report_of_pipeline
from datamix.report.files import write_report
from datamix.report.records import class_of, holds_images, label_of, picture, records_table
from datamix.sources.statistics import Statistics
from datamix.spec import Batch

_IMAGES_A_ROW = 10
_MOST_BATCHES = 10_000
_MEASURE_S = 0.3
_LABELS_OF = 2**14  # records whose labels are looked at
_LABELS_READ = 2**9  # of them, where each is read for it
_FIRST_RECORDS = 10  # shown where records hold no images
_RECORDS_OF = 2**11  # of each source, whose numbers are drawn
_MOST_NUMBERS = 16  # of a record, that are drawn


def run(config: Config, directory: Path, *, batches: int = 10) -> dict[str, Any]:
    """Preview a mix: so many of its first batches, or all where it ends before."""
    if not 1 <= batches <= _MOST_BATCHES:  # all are held at once
        raise ConfigError(f"it is 1 or more, and {_MOST_BATCHES:,} or less", key="job.batches", value=batches)
    out, built = announced(config)
    built = built.completed()
    pipeline = built.pipeline()
    names = list(built.sources)
    if "source_id" not in pipeline.spec:
        raise ConfigError("an operator drops or renames the leaf source_id, by which a mix is shown", key="operators")

    seen: list[Batch] = list(islice(pipeline, batches))
    source_id = np.concatenate([batch["source_id"] for batch in seen])
    counts = {name: int((source_id == i).sum()) for i, name in enumerate(names)}
    labels = _label_ranges(names, pipeline, seen)
    rate = _samples_per_s(pipeline)

    notes = [*built.plan.drawn(), *built.notes_on(pipeline)]
    print_notes(out, "Note", notes)
    out.print(_sources_table(built, pipeline, labels))
    out.print(_leaves_table(pipeline.statistics))
    shown = ", ".join(f"{leaf} {part}" for leaf, part in pipeline.spec.items())
    out.print(f"Each batch: {config.batch_size} × {shown}")
    for i, batch in enumerate(seen):
        by_source = "  ".join(f"{name} {int((batch['source_id'] == j).sum())}" for j, name in enumerate(names))
        has_labels = "label" in batch and batch["label"].ndim == 1
        first = " ".join(f"{label:.6g}" for label in batch["label"][:8]) if has_labels else "–"
        leaf = "image" if "image" in batch else next(iter(batch))
        shape = f"{leaf} {batch[leaf].dtype} {list(batch[leaf].shape)}"
        out.print(f"batch {i:>3}  {shape}  labels {first} …  {by_source}")
    for line in (documents := [*tokens.documents(built.sources, seen)]):
        out.print(line)
    if not documents and not holds_images(pipeline.spec):
        rows = range(min(_FIRST_RECORDS, len(seen[0]["source_id"])))
        of_source = {"source": [names[seen[0]["source_id"][row]] for row in rows]}
        leaves = [leaf for leaf in seen[0] if leaf != "source_id"]
        out.print(records_table("First records", seen[0], of_source, rows, leaves))
    total = len(source_id)
    report = report_of_pipeline(
        built,
        pipeline,
        batches=len(seen),
        counts=counts,
        records=total,
        labels=labels,
        samples_per_s=rate,
        figure=_draw(directory, built, pipeline, seen),
    )
    report["notes"] = notes
    mixed = ", ".join(f"{name} {count} ({percent(count / total)})" for name, count in counts.items())
    unit = "records" if report["unit"] == "record" else report["unit"]
    off = f"{report['max_deviation']:.2f} {unit}"
    out.print(f"\nIn {total} records: {mixed}; at no point more than {off} from the exact shares.")
    whole, length = built.num_batches(), pipeline.plan.length
    ends = " never ends." if whole is None else f": {length:,} records, {whole:,} batches."
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
    """The values of the leaves, as they are before any operator."""

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
        # Each source by itself, so that a small share or a late first record hides nothing.
        records = _LABELS_OF if pipeline.placements[name] == "device" else _LABELS_READ
        batches = _alone(name, pipeline, seen, records)
        if len(labels := np.concatenate([batch["label"][batch["source_id"] == i] for batch in batches])):
            ranges[name] = (int(labels.min()), int(labels.max()))
    return ranges


def _samples_per_s(pipeline: Pipeline) -> float:
    """The samples a second that the loop hands out, once compiled."""
    iterator, samples = iter(pipeline), 0
    next(iterator)
    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < _MEASURE_S:
        if (batch := next(iterator, None)) is None:
            iterator = iter(pipeline)
        else:
            samples += len(batch["source_id"])
    return samples / passed


def _draw(directory: Path, built: Built, pipeline: Pipeline, seen: list[Batch]) -> str | None:
    if not holds_images(pipeline.spec):
        return tokens.draw(directory, built.sources) or _draw_numbers(directory, pipeline, seen)
    sources, batch = list(built.sources), seen[0]
    rows: dict[str, list[tuple[np.ndarray, str, int]]] = {"first batch,\nas it comes": []}
    for row, i in enumerate(batch["source_id"][:_IMAGES_A_ROW].tolist()):
        image = picture(batch["image"][row], built, sources[i])
        rows["first batch,\nas it comes"].append(
            (image, sources[i] if len(sources[i]) < 15 else f"{sources[i][:13]}…", i)
        )
    for i, (name, source) in enumerate(built.sources.items()):
        if not pipeline.plan.shares[i]:
            continue
        images_seen = _images_of(seen, i)
        if len(images_seen) < _IMAGES_A_ROW:  # too small a share to be seen often: look at this source alone
            images_seen = _images_of(_alone(name, pipeline, seen, _IMAGES_A_ROW + pipeline.batch_size - 1), i)
        images = []
        for pixels, label in images_seen[:_IMAGES_A_ROW]:
            title = "" if label is None else f"{label}\n{class_of(built, name, label)}".rstrip()
            images.append((picture(pixels, built, name), title, i))
        rows[name if name == source.provenance else f"{name}\n({source.provenance})"] = images
    figures.samples(directory / "samples.png", rows, f"Samples of the mix{built.caution}")
    return "samples.png"


def _draw_numbers(directory: Path, pipeline: Pipeline, seen: list[Batch]) -> str | None:
    """Draw histograms of the first numbers of records, the label last; None where they hold none."""
    names = pipeline.source_names
    rows = {}
    for i, name in enumerate(names):
        batches = _alone(name, pipeline, seen, _RECORDS_OF)
        rows[name] = {leaf: np.concatenate([b[leaf][b["source_id"] == i] for b in batches]) for leaf in pipeline.spec}
    numbers: dict[str, dict[str, np.ndarray]] = {}
    for leaf, part in pipeline.spec.items():
        if leaf == "source_id" or "bool" in part.dtype:
            continue
        for name, leaves in rows.items():
            values = leaves[leaf].reshape(len(leaves[leaf]), math.prod(part.shape))
            for i in range(min(values.shape[1], _MOST_NUMBERS)):
                numbers.setdefault(f"{leaf}[{i}]" if part.shape else leaf, {})[name] = values[:, i]
    label = [key for key in numbers if key.partition("[")[0] == "label"]
    shown = [key for key in numbers if key not in label][: _MOST_NUMBERS - 1] + label[:1]
    if not shown:
        return None
    count = sum(math.prod(part.shape) for leaf, part in pipeline.spec.items() if leaf != "source_id")
    title = "Values in batches" + (f" — the first {len(shown)} numbers of a record" if len(shown) < count else "")
    figures.histograms(directory / "values.png", {key: numbers[key] for key in shown}, names, title)
    return "values.png"


def _alone(name: str, pipeline: Pipeline, seen: list[Batch], records: int) -> list[Batch]:
    """The first batches of one source, as if it were the whole mix; those of the mix where it fills none."""
    weights = {other: int(other == name) for other in pipeline.source_names}
    length = pipeline.plan.with_weights(weights).length
    if length is not None and length < pipeline.batch_size and pipeline.remainder == "drop":
        return seen
    return list(islice(pipeline.with_weights(weights), max(1, records // pipeline.batch_size)))


def _images_of(batches: list[Batch], source: int) -> list[tuple[np.ndarray, int | float | None]]:
    images_seen = []
    for batch in batches:
        for row in np.flatnonzero(batch["source_id"] == source):
            images_seen.append((batch["image"][row], label_of(batch, int(row))))
    return images_seen
