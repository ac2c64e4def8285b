"""Suggest the best ratio and the next ratios to try, from the finished jobs of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamix.config.schema import Config
from datamix.errors import ConfigError, hint
from datamix.report.console import console
from datamix.report.figures import save
from datamix.report.files import write_report
from datamix.sweeps.figure import draw_suggestion
from datamix.sweeps.mixmin import mixmin
from datamix.sweeps.results import read_sweeps
from datamix.sweeps.suggesting import SCHEDULED, suggest, weighted


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Print the suggestion from the sweeps of `sweep.dir`, and write it to `suggest.json` and `suggest.png`.

    The mixture of predictions, if there is one, is written to `mixmin.json`. No source is opened.

    Raises:
      ConfigError: The results of the sweeps allow no suggestion.
    """
    sweeps = read_sweeps(config.sweep.directories)
    results = [result for each in sweeps.values() for result in each]
    results, goal = weighted(results, config.sweep.metric, config.sweep.goal, config.sweep.goal_weights)
    suggestion = suggest(results, goal, config.sweep.num_next)
    if isinstance(suggestion, str):
        where = ", ".join(map(str, sweeps))
        mend = "hydra/sweeper=simplex tries as many ratios as hydra.sweeper.num_jobs says; sweep.metric is the goal."
        if suggestion == SCHEDULED:
            mend = "Sweeps without mix.schedule lead to some."
        metrics = {metric for result in results for metric in result.metrics}
        if (metric := config.sweep.metric) not in ("auto", *metrics):
            raise ConfigError(suggestion, key="sweep.metric", value=metric, hint=hint(metric, metrics))
        raise ConfigError(suggestion, key="sweep.dir", value=where, hint=mend)
    out = console()
    out.print(suggestion.errors())
    out.print(suggestion.table())
    out.print(suggestion.words())
    plain = suggestion.write(directory, list(sweeps))
    out.print(suggestion.head(), *plain["commands"], sep="\n  ")
    save(draw_suggestion(suggestion), directory / "suggest.png")
    if (mixture := mixmin(results, goal)) is not None:
        out.print(mixture.words(suggestion))
        mixture.write(directory, suggestion)
    report = {"job": "suggest", "seed": config.seed, "figure": "suggest.png", "sources": {}}
    report |= {"sweeps": [str(path) for path in sweeps], "suggest": plain}
    out.print(f"Suggestion: {directory / 'suggest.json'}\nFigure: {directory / 'suggest.png'}")
    out.print(f"Report: {write_report(directory, report)}")
    return report
