"""Draw a sweep's table, figure and page from the result files of its jobs, or compare sweeps."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamix.config.schema import Config
from datamix.errors import ConfigError
from datamix.report.console import console, print_notes
from datamix.report.files import whole_file, write_report, write_text
from datamix.sweeps.figure import draw
from datamix.sweeps.page import page
from datamix.sweeps.results import Result, best, read_results, related, settings, stand_ins
from datamix.sweeps.table import as_csv, failures, rows, summary, verdict


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Report on the sweeps of `sweep.dir`; no source is opened.

    Args:
      config: of the run; its `sweep` says which and by what they are judged.
      directory: where `report.json` goes, and what compares several sweeps; what is drawn of one goes to that one.

    Returns:
      The report.
    """
    if not config.sweep.directories:
        raise ConfigError("sweep.dir is missing; it is the directory of a sweep, or a list of them: sweep.dir=[A,B].")
    sweeps = {}
    for name in config.sweep.directories:
        if not (found := read_results(Path(name))):
            raise ConfigError(f"sweep.dir: no job of a sweep has left its result in {name}.")
        sweeps[Path(name)] = found
    into = next(iter(sweeps)) if len(sweeps) == 1 else directory
    held = gather(sweeps, into, metric=config.sweep.metric, goal=config.sweep.goal)
    report = {
        "job": "report",
        "seed": config.seed,
        "figure": str(into / "sweep.png"),
        "sources": {},
        "sweeps": [str(path) for path in sweeps],
        "rows": held,
    }
    console().print(f"Report: {write_report(directory, report)}")
    return report


def gather(sweeps: Mapping[Path, Sequence[Result]], directory: Path, *, metric: str, goal: str) -> list[dict[str, Any]]:
    """Print a sweep's table and write `sweep.json`, `sweep.csv`, `sweep.png` and `sweep.html`.

    Args:
      sweeps: the results of each, by its directory.
      directory: where the files go.
      metric: by which jobs are compared.
      goal: "max", "min" or "auto".

    Returns:
      The rows of `sweep.json`.
    """
    out = console()
    several = len(sweeps) > 1
    results = [
        replace(result, sweep=str(path)) if several else result for path, found in sweeps.items() for result in found
    ]
    chosen = best(settings(results), metric, goal)
    held = rows(results, chosen, directory)
    write_text(directory / "sweep.json", json.dumps(held, indent=2, ensure_ascii=False) + "\n")
    write_text(directory / "sweep.csv", as_csv(held))
    print_notes(out, "Stand-in", [f"{name} is a built-in look-alike, not real data" for name in stand_ins(results)])
    out.print(summary(results, chosen, metric))
    if (unfinished := failures(results)) is not None:
        out.print(unfinished)
    said = verdict(results, chosen, metric, goal)
    out.print(said)
    vector = ""
    if (figure := draw(results, chosen, metric)) is not None:
        with whole_file(directory / "sweep.png") as part:
            figure.savefig(part)
        text = io.StringIO()
        figure.savefig(text, format="svg")
        vector = text.getvalue()
    metrics = related(results, metric)
    write_text(directory / "sweep.html", page(results, chosen, said, metrics, vector, directory))
    out.print(f"Sweep: {directory / 'sweep.html'}")
    return held
