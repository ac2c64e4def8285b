"""Make the table, figure and page of a sweep from the result files of its jobs, or compare sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamix.config.schema import Config
from datamix.report.console import console
from datamix.report.files import write_report
from datamix.sweeps.gathering import gather
from datamix.sweeps.results import read_sweeps


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Report on the sweeps of `sweep.dir`; the files of one sweep go to its directory. No source is opened."""
    sweeps = read_sweeps(config.sweep.directories)
    into = next(iter(sweeps)) if len(sweeps) == 1 else directory
    judged: Any = {key: getattr(config.sweep, key) for key in ("metric", "goal", "goal_weights", "num_next")}
    rows = gather(sweeps, into, **judged)
    figure, paths = str(into / "sweep.png"), [str(path) for path in sweeps]
    report = {"job": "report", "seed": config.seed, "figure": figure, "sources": {}, "sweeps": paths, "rows": rows}
    console().print(f"Report: {write_report(directory, report)}")
    return report
