"""The report on a sweep: a table in the console, and files for people and for programs."""

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
from datamix.sweeps.mixmin import mixmin
from datamix.sweeps.page import page
from datamix.sweeps.results import MIXMIN, SUGGESTION, Result, best, is_tie, related, seed_groups, stand_ins
from datamix.sweeps.suggesting import SCHEDULED, Suggestion, suggest, weighted
from datamix.sweeps.table import as_csv, failures, rows, summary, verdict

_NOTES = 5  # shown in the console and on the page; the report of each job has all of its notes


def gather(
    sweeps: Mapping[Path, Sequence[Result]],
    directory: Path,
    *,
    metric: str,
    goal: str,
    goal_weights: Mapping[str, float] | None = None,
    num_next: int = 3,
    rounds: int = 0,
) -> list[dict[str, Any]]:
    """Print the table of a sweep, and write `sweep.json`, `.csv`, `.png` and `.html`.

    If the jobs of one sweep have tried several ratios, the suggestion is printed, drawn, and written to `suggest.json`,
    and each row has the goal `predicted` at its ratio. The mixture of predictions is printed and written to
    `mixmin.json` if jobs that train on one source each have kept their predictions.

    Args:
      sweeps: The results of each sweep by its directory; several sweeps are compared.
      directory: The directory of the files.
      metric: The setting `sweep.metric`.
      goal: The setting `sweep.goal`.
      goal_weights: The setting `sweep.goal_weights`.
      num_next: The number of ratios to propose.
      rounds: The number of rounds that may follow; if there are any and the suggestion is promising, nothing is
        printed.

    Returns:
      The rows of `sweep.json`.
    """
    out = console()
    several = len(sweeps) > 1
    results = [replace(each, sweep=str(path) if several else "") for path, jobs in sweeps.items() for each in jobs]
    results, judged = weighted(results, metric, goal, goal_weights or {})
    metric, goal = judged.metric, judged.kind
    groups = seed_groups(results)
    chosen = best(groups, metric, goal)
    marked = None if is_tie(groups, chosen, metric) else chosen
    suggestion = "sweeps are compared" if several else suggest(results, judged, num_next)
    mixture = mixmin(results, judged)
    lines = rows(results, chosen, directory)
    for name in (SUGGESTION, MIXMIN):  # from an earlier report on fewer jobs
        (directory / name).unlink(missing_ok=True)
    if isinstance(suggestion, Suggestion):
        out.quiet = rounds > 0 and suggestion.promising
        commands = suggestion.write(directory, list(sweeps))["commands"]
        for line, predicted in zip(lines, suggestion.predicted(results), strict=True):
            line["predicted"] = predicted
    write_text(directory / "sweep.json", json.dumps(lines, indent=2, ensure_ascii=False) + "\n")
    write_text(directory / "sweep.csv", as_csv(lines))
    print_notes(out, "Stand-in", [f"{name} is a built-in stand-in, not real data" for name in stand_ins(results)])
    notes = _notes(results)
    more = [f"{len(notes) - _NOTES} more in the reports of the jobs"] * (len(notes) > _NOTES)
    print_notes(out, "Note", notes := [*notes[:_NOTES], *more])
    out.print(summary(results, marked, metric))
    if (unfinished := failures(results)) is not None:
        out.print(unfinished)
    sentences = [verdict(results, chosen, metric, goal)]
    out.print(*sentences)
    if isinstance(suggestion, Suggestion):
        out.print(suggestion.words())
        commands = [suggestion.head(), *commands]
        out.print(*commands, sep="\n  ")
        sentences += [suggestion.words(), *commands]
    elif rounds or suggestion == SCHEDULED:
        out.print(f"{'sweep.auto: no' if rounds else 'No'} suggestion: {suggestion}.")
    if mixture is not None:
        grid = suggestion if isinstance(suggestion, Suggestion) else None
        plain = mixture.write(directory, grid)
        spoken = [mixture.words(grid), "To use that:", *plain["commands"]]
        out.print(*spoken, sep="\n  ")
        sentences += spoken
    vector = ""
    if (figure := draw(results, chosen, metric, suggestion)) is not None:
        save(figure, directory / "sweep.png", vector=(text := io.StringIO()))
        vector = text.getvalue()
    metrics = related(results, metric)
    write_text(directory / "sweep.html", page(results, marked, sentences, metrics, vector, directory, notes))
    out.print(f"Sweep: {directory / 'sweep.html'}")
    return lines


def _notes(results: Sequence[Result]) -> list[str]:
    """The notes of all jobs; a note that some finished jobs lack begins with the numbers of the jobs that have it."""
    jobs: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            jobs.setdefault(note, []).append(str(result.job))
    num_done = sum(result.status == "done" for result in results)
    heads = {
        note: f"job{'s' * (len(numbers) > 1)} {', '.join(numbers)}: "
        for note, numbers in jobs.items()
        if len(numbers) < num_done
    }
    return [heads.get(note, "") + note for note in jobs]
