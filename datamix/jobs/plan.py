"""Show what a mix will do, from its plan alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamix.builder.built import Built, build
from datamix.builder.texts import packed
from datamix.config.schema import Config
from datamix.errors import counted
from datamix.pipeline.batching import Batching, single_source_rows
from datamix.report import tokens
from datamix.report.console import console_of, percent, print_notes, table
from datamix.report.contents import report_of_whole_mix
from datamix.report.files import write_report
from datamix.report.plan_figure import plot


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Print and write what the mix will do; no record is read, except leaves that the plan or the labels depend on.

    Returns:
      The report. Its `plan` has the batch in which each source is exhausted, the length of the mix, and warnings; its
      `notes` are on records left out, on dividing batches among ranks, and on skipped steps.
    """
    built = build(config)
    out = console_of(built.notes)
    plan, spec = built.plan, built.spec()
    planned, report = plan.report(), report_of_whole_mix(built, spec)
    batches, records = report["batches"], report["samples"]
    exhausted = {
        name: None if (end := row.exhausted_at) is None or end > (records or end) else (end - 1) // config.batch_size
        for name, row in planned.sources.items()
    }
    rows = [
        (
            name,
            row["provenance"],
            row["placement"],
            f"{row['records']:,}",
            percent(row["target"]),
            percent(row["share"]),
            "∞" if row["samples"] is None else f"{row['samples']:,}",
            "∞" if row["epochs"] is None else f"{row['epochs']:.2f}",
            "–" if exhausted[name] is None else f"{exhausted[name]:,}",
        )
        for name, row in report["sources"].items()
    ]
    columns = ["source", "provenance", "placement", "records", "target share", "share", "samples", "epochs"]
    columns.append("exhausted in batch")
    out.print(table("What this mix will do (batches count from 0)", columns, rows))
    of_tokens = packed(built.sources)
    if token_rows := tokens.rows(built.sources, plan, records):
        out.print(table("Tokens", tokens.COLUMNS, token_rows))
    if report["groups"]:
        inner = [(path, percent(row["target"]), percent(row["share"])) for path, row in report["groups"].items()]
        out.print(table("Mixes within it", ["mix", "target share", "share"], inner))
    whole = None if records is None else f"{counted(records, 'record')} in {counted(batches, 'batch')}"
    length = whole or "without end, in batches"
    out.print(f"{config.mix.order}, {config.mix.stop}: {length} of {config.batch_size}")
    if rest := (planned.length or 0) - (records or 0):
        out.print(f"The last {rest} records fill no batch and are dropped; batch.remainder=keep keeps them.")
    walked_whole = planned.length is not None and planned.walked >= planned.length
    over = "" if walked_whole else f" (over the first {planned.walked:,})"
    exact = "the sum of its exact shares" if config.mix.schedule else "its exact share"
    unit = "records" if config.mix.unit == "record" else config.mix.unit
    out.print(f"Largest distance of a source from {exact}: {planned.max_deviation:.3f} {unit}{over}")
    notes = [*built.notes_on_records(), *_shard_notes(built), *_skip_notes(built)]
    print_notes(out, "Note", dict.fromkeys([*planned.warnings, *notes]))
    report["plan"] = {"exhausted_in_batch": exhausted, "length": planned.length, "warnings": list(planned.warnings)}
    if built.delivery.skip:
        report["plan"]["skip"] = [list(steps) for steps in built.delivery.skip]
    if of_tokens:
        report["plan"]["packing"] = {name: source.facts._asdict() for name, source in of_tokens.items()}
    report["notes"] = notes
    report["figure"] = "plan.png"
    plot(plan, directory / "plan.png", built.caution)
    out.print(f"Report: {write_report(directory, report)}\nFigure: {directory / report['figure']}")
    return report


def _shard_notes(built: Built) -> list[str]:
    """The note that a rank with few rows would get the same single source in every batch; empty if none would."""
    size = built.batch_size
    rows = 0 if built.delivery.shuffle_rows else single_source_rows(built.plan, size)
    if not rows:
        return []
    ranks = f"{size // rows} ranks, {rows} row{'s' * (rows > 1)} each"
    return [f"divided among {ranks}, every batch gives some rank the same single source; batch.shuffle=true mends it."]


def _skip_notes(built: Built) -> list[str]:
    """The note on the steps that are left out; empty if there are none."""
    if not built.delivery.skip:
        return []
    size, remainder, skip = built.batch_size, built.delivery.remainder, built.delivery.skip
    batching = Batching(length=built.plan.length, batch_size=size, remainder=remainder, skip=skip)
    ranges = ", ".join([f"{first:,} to {end - 1:,}" for first, end in skip[:4]] + ["…"] * (len(skip) > 4))
    kept = "" if batching.num_kept is None else f"; {batching.num_kept:,} of {batching.num_batches:,} batches are given"
    return [f"skip leaves out the steps {ranges}, which keep their numbers and their records{kept}."]
