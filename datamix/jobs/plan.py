"""Say what a mix will do, from the sizes of its sources alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamix.build import build
from datamix.config import Config
from datamix.report.console import console, percent, print_notes, table
from datamix.report.contents import report_of_whole_mix
from datamix.report.files import write_report


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Print and write what the mix will do; no record is read.

    Args:
      config: of the run.
      directory: where `report.json` goes.

    Returns:
      The report, with `plan`: where each source is exhausted, how long the mix is, and warnings.
    """
    out = console()
    built = build(config)
    print_notes(out, "Stand-in", built.notes)
    plan = built.plan
    spec = built.spec()
    told = plan.report()
    report = report_of_whole_mix(built, spec)
    batches, records = report["batches"], report["samples"]
    exhausted = {
        name: None if (end := row.exhausted_at) is None or end > (records or end) else (end - 1) // config.batch_size
        for name, row in told.sources.items()
    }
    rows = [
        (
            name,
            row["provenance"],
            f"{row['records']:,}",
            percent(row["target"]),
            percent(row["share"]),
            "∞" if row["samples"] is None else f"{row['samples']:,}",
            "∞" if row["epochs"] is None else f"{row['epochs']:.2f}",
            "–" if exhausted[name] is None else f"{exhausted[name]:,}",
        )
        for name, row in report["sources"].items()
    ]
    columns = ["source", "provenance", "records", "target share", "share", "samples", "epochs", "exhausted in batch"]
    out.print(table("What this mix will do (batches count from 0)", columns, rows))
    length = "without end, in batches" if records is None else f"{records:,} records in {batches:,} batches"
    out.print(f"{config.mix.order}, {config.mix.stop}: {length} of {config.batch_size}")
    if rest := (told.length or 0) - (records or 0):
        out.print(f"The last {rest} records fill no batch and are dropped; batch.remainder=keep keeps them.")
    over = "" if told.length is not None and told.walked >= told.length else f" (over the first {told.walked:,})"
    out.print(f"Largest distance of a source from its exact share: {told.max_deviation:.3f} records{over}")
    print_notes(out, "Note", told.warnings)
    report["plan"] = {"exhausted_in_batch": exhausted, "length": told.length, "warnings": list(told.warnings)}
    out.print(f"Report: {write_report(directory, report)}")
    return report
