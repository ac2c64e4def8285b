"""The end of a sweep: a table in the console, and files for people and for programs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamix.report.console import console, print_notes
from datamix.report.figures import save
from datamix.report.files import write_text
from datamix.sweeps.figure import draw
from datamix.sweeps.page import page
from datamix.sweeps.results import Result, best, related, settings, stand_ins
from datamix.sweeps.table import as_csv, failures, rows, summary, verdict


def gather(sweeps: Mapping[Path, Sequence[Result]], directory: Path, *, metric: str, goal: str) -> list[dict[str, Any]]:
    """Print a sweep's table, write `sweep.json`, `.csv`, `.png` and `.html`, and return the rows of the first."""
    out = console()
    several = len(sweeps) > 1
    results = [
        replace(result, sweep=str(path)) if several else result for path, each in sweeps.items() for result in each
    ]
    chosen = best(settings(results), metric, goal)
    lines = rows(results, chosen, directory)
    write_text(directory / "sweep.json", json.dumps(lines, indent=2, ensure_ascii=False) + "\n")
    write_text(directory / "sweep.csv", as_csv(lines))
    print_notes(out, "Stand-in", [f"{name} is a built-in stand-in, not real data" for name in stand_ins(results)])
    out.print(summary(results, chosen, metric))
    if (unfinished := failures(results)) is not None:
        out.print(unfinished)
    answer = verdict(results, chosen, metric, goal)
    out.print(answer)
    vector = ""
    if (figure := draw(results, chosen, metric)) is not None:
        save(figure, directory / "sweep.png")
        text = io.StringIO()
        save(figure, text, format="svg")
        vector = text.getvalue()
    metrics = related(results, metric)
    write_text(directory / "sweep.html", page(results, chosen, answer, metrics, vector, directory))
    out.print(f"Sweep: {directory / 'sweep.html'}")
    return lines
