"""The table of a sweep: in the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from datamix.errors import counted, printable
from datamix.report.console import percent, table
from datamix.sweeps.results import (
    Result,
    Setting,
    as_good,
    complaints,
    direction,
    is_tie,
    number,
    readable,
    related,
    seed_groups,
    shown_value,
    swept,
)

_COLUMNS_SHOWN = 6  # metrics in the terminal; the files have all of them


def rows(results: Sequence[Result], chosen: Setting | None, directory: Path) -> list[dict[str, Any]]:
    """The rows of `sweep.json`, one per job.

    Args:
      results: The results of the jobs.
      chosen: The best setting, whose jobs are marked; None if there is none.
      directory: The directory of the file, to which those of jobs are relative.
    """
    return [
        ({"sweep": result.sweep} if result.sweep else {})
        | {
            "job": result.job,
            "overrides": [f"{key}={value}" for key, value in result.overrides.items()],
            "status": result.status,
            "error": result.why,
            "dir": Path(os.path.relpath(result.directory, directory)).as_posix(),
            "seed": result.seed,
            "seconds": result.seconds,
            "shares": {name: source["share"] for name, source in result.sources.items()},
            "provenance": {name: source["provenance"] for name, source in result.sources.items()},
            "best": chosen is not None and result in chosen.results and result.status == "done",
            "metrics": dict(result.metrics),
        }
        for result in results
    ]


def as_csv(lines: Sequence[dict[str, Any]]) -> str:
    """The rows of `sweep.json` as CSV, with a column for each override, share and metric."""
    flat = []
    for row in lines:
        cells = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        pairs = (override.partition("=") for override in row["overrides"])
        cells |= {key: value for key, _, value in pairs if key not in cells}
        cells |= {f"share/{name}": share for name, share in row["shares"].items()}
        flat.append(cells | row["metrics"])
    columns = list(dict.fromkeys(column for cells in flat for column in cells))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_plain_cell, columns))
    writer.writerows([_plain_cell(cells.get(column)) for column in columns] for cells in flat)
    return text.getvalue()


def _plain_cell(value: object) -> object:
    """A cell that a spreadsheet shows as it is: a text that would be a formula gets an apostrophe in front.

    >>> _plain_cell("=1+1"), _plain_cell("-0.5"), _plain_cell("a=b")
    ("'=1+1", '-0.5', 'a=b')
    """
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if value.lstrip()[:1] in _BEGIN_FORMULAS and not _NUMBER.fullmatch(value) else value


_BEGIN_FORMULAS = tuple("=+-@")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def summary(results: Sequence[Result], chosen: Setting | None, metric: str) -> Table:
    """The table in the terminal, with one row per setting."""
    columns, lines = by_setting(results, chosen, columns_of(related(results, metric))[:_COLUMNS_SHOWN])
    return table("The sweep", [re.sub(r"([/.])", r"\1\n", column) for column in columns], lines)


def columns_of(metrics: Sequence[str]) -> list[str]:
    """The metrics that have a column, without shares, which have columns of their own before these."""
    return [name for name in metrics if not name.startswith("share/")]


def by_setting(
    results: Sequence[Result], chosen: Setting | None, names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a table with one row per setting.

    Args:
      results: The results of the jobs.
      chosen: The best setting, which is marked; None if there is none.
      names: The metrics to show, as mean ± deviation over the seeds.
    """
    keys = swept(results)
    sources = list(dict.fromkeys(name for result in results for name in result.sources))
    sources = [name for name in sources if f"mix.share.{name}" not in keys]
    groups = seed_groups(results)
    columns = ["", *keys, *(["seeds"] if len(groups) < len(results) else []), "status", *sources]
    columns += [f"{readable(name)}{' %' * name.startswith('accuracy')}" for name in names]
    lines = []
    for group in groups:
        done = [result for result in group.results if result.status == "done"]
        counts = {status: sum(result.status == status for result in group.results) for status in _STATUSES}
        lines.append(
            [
                "★" if group is chosen or (chosen and group.results == chosen.results) else "",
                *(shown_value(group.first, key) for key in keys),
                *([str(len({str(result.seed) for result in done}))] if "seeds" in columns else []),
                ", ".join(f"{n} {status}" if len(group.results) > 1 else status for status, n in counts.items() if n),
                *(share_text(group.first, name) for name in sources),
                *(cell(group, name).removesuffix(" %") for name in names),
            ]
        )
    return columns, lines


def failures(results: Sequence[Result]) -> Table | None:
    """The table of the errors that ended jobs; None if all are done."""
    lines = [(", ".join(map(str, jobs)), why) for why, jobs in complaints(results).items()]
    return table("Not done", ["jobs", "why"], lines) if lines else None


_STATUSES = ("done", "failed", "interrupted")


def share_text(result: Result, source: str) -> str:
    """The target share of a source; a dash if the job does not have it."""
    share = result.sources.get(source, {}).get("target")
    return "–" if share is None else percent(share)


def cell(group: Setting, metric: str) -> str:
    """The mean of a metric, with its deviation if there are several seeds; a dash if no job reports it."""
    mean, values = group.mean(metric), group.values(metric)
    if mean is None:
        return "–"
    deviation = group.deviation(metric)
    if len(values) < 2 or (not deviation and all(value.is_integer() for value in values)):
        return number(mean, metric)
    return f"{number(mean, metric).removesuffix(' %')} ± {number(deviation, metric)}"


def verdict(results: Sequence[Result], chosen: Setting | None, metric: str, goal: str) -> str:
    """The best setting in a sentence; if no job reports the metric, the metrics that they do report."""
    if not any(result.status == "done" for result in results):
        return "No job is done, and there is none to compare."
    if chosen is None:
        names = ", ".join(related(results, metric)) or "no number"
        return f"No job reports {metric}, by which they are compared; sweep.metric can be one of: {names}."
    groups = seed_groups(results)
    if is_tie(groups, chosen, metric):
        alike = len([group for group in groups if group.mean(metric) is not None])
        mean = number(chosen.mean(metric) or 0.0, metric)
        return f"No setting is best: all {alike} have the same {readable(metric)}, {mean}."
    keys = swept(results)
    named = ", ".join(f"{key}={shown_value(chosen.first, key)}" for key in keys) or "the only setting"
    mixed = ", ".join(f"{name} {share_text(chosen.first, name)}" for name in chosen.first.sources)
    seeds = f" over {n} seeds" if (n := len(chosen.values(metric))) > 1 else ""
    judged = f"{readable(metric)} ({direction(metric, goal)})"
    ties = len(as_good(groups, chosen, metric))
    tie = f", as {'has' if ties == 1 else 'have'} {counted(ties, 'other setting')}" if ties else ""
    return f"Best: {named} ({mixed}), by {judged}: {cell(chosen, metric)}{seeds}{tie}."
