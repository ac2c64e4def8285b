"""Suggest the best ratio from the results of sweeps, in words and as JSON, with the commands to continue."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from datamix.config.compose import typed, typed_text
from datamix.config.schema import SweepConfig
from datamix.errors import ConfigError, counted, unknown_source
from datamix.report.console import percent, table
from datamix.report.files import write_text
from datamix.sweeps.analysis import Answer, Combine, Evidence, analyse
from datamix.sweeps.results import (
    SUGGESTION,
    Result,
    apart_from_ratio,
    best,
    goal_of,
    metric_of,
    number,
    readable,
    seed_groups,
)
from datamix.sweeps.simplex import PARTS, rounded, share_overrides

_FEWEST = 3  # ratios that a suggestion needs
_NAMED = 8  # jobs that a sentence names
_RATIO = ("share", "ratio", "weights")
SCHEDULED = "ratios under mix.schedule are not proposed, as the schedule is what the shares change by"
"""The reason why there is no suggestion from jobs under a schedule."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The goal of a sweep.

    Attributes:
      metric: The metric that jobs are judged by; one that ends in `/weighted` is the mean over sources by `weights`.
      kind: "max" or "min".
      asked: The overrides that set the goal.
      weights: The setting `sweep.goal_weights`, by source; empty for none.
    """

    metric: str
    kind: str
    asked: Sequence[str]
    weights: Mapping[str, float]


def weighted(
    results: Sequence[Result], metric: str, goal: str, weights: Mapping[str, float]
) -> tuple[list[Result], Goal]:
    """Add the metric that `sweep.goal_weights` asks for.

    Args:
      results: The results of the jobs.
      metric: The setting `sweep.metric`.
      goal: The setting `sweep.goal`.
      weights: The setting `sweep.goal_weights`; empty for none.

    Returns:
      The results, with the weighted metric if there are weights, and the goal.

    Raises:
      ConfigError: A weight is of an unknown source, or all weights are 0.
    """
    asked = [f"sweep.metric={metric}"] * (metric != "auto") + [f"sweep.goal={goal}"] * (goal != "auto")
    asked += [f"sweep.goal_weights.{name}={weight:g}" for name, weight in weights.items()]
    metric = metric_of(metric, {name for result in results for name in result.metrics})
    if not weights:
        return list(results), Goal(metric=metric, kind=goal_of(metric, goal), asked=asked, weights={})
    family = metric.partition("/")[0]
    names = list(dict.fromkeys(name for result in results for name in result.sources))
    for name in weights:
        if name not in names:
            raise unknown_source(name, names, f"sweep.goal_weights.{name}")
    if not sum(weights.values()):
        raise ConfigError("a source needs a weight above 0", key="sweep.goal_weights", value=dict(weights))
    name, total = f"{family}/weighted", sum(weights.values())
    goals = []
    for result in results:
        parts = {source: result.metrics.get(f"{family}/{source}") for source in weights}
        products = [weight * part for source, weight in weights.items() if (part := parts[source]) is not None]
        mean = {name: sum(products) / total} if len(products) == len(parts) else {}
        goals.append(replace(result, metrics={**result.metrics, **mean}))
    return goals, Goal(metric=name, kind=goal_of(metric, goal), asked=asked, weights=weights)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """The best ratio of a sweep, and the jobs from which it follows.

    Attributes:
      answer: The best ratio.
      goal: The goal of the sweep.
      shares: The shares of each job with a known goal, [num_jobs, num_sources].
      values: The goal that each of these jobs has reached, [num_jobs].
      reference: A job of the best setting.
      seeds: The seeds of the jobs.
      left_out: Sentences on how many jobs do not count, or only for some metrics, and why; empty if all count.
    """

    answer: Answer
    goal: Goal
    shares: np.ndarray
    values: np.ndarray
    reference: Result
    seeds: Sequence[Any]
    left_out: str = ""

    @property
    def names(self) -> Sequence[str]:
        """The names of the sources, or of mixes within the mix."""
        return self.answer.names

    @property
    def promising(self) -> bool:
        """Whether to try a ratio beyond an edge, or one that promises more than half a deviation over the seeds."""
        answer = self.answer
        return answer.beyond or (answer.verdict != "flat" and answer.improvement > answer.noise / 2)

    def json(self) -> dict[str, Any]:
        """The contents of `suggest.json`, without the commands."""
        answer = self.answer
        return {
            "metric": self.goal.metric,
            "goal": self.goal.kind,
            "model": answer.model,
            "error": answer.errors[answer.model],
            "verdict": answer.verdict,
            **together(self.names, rounded(answer.best), answer.interval),
            "predicted": answer.predicted,
            "gain": answer.gain,
            "gain_interval": list(answer.gain_interval),
            "noise": answer.noise,
            "errors": dict(answer.errors),
            "jobs": len(self.values),
            "improvement": answer.improvement,
            "promising": self.promising,
            "next": [" ".join(share_overrides(self.names, rounded(ratio))) for ratio in answer.next],
            "ratios": self._ratios(),
            "promises": answer.promises.tolist(),
            "seeds": list(self.seeds),
            "like": self.reference.job,
        }

    def write(self, directory: Path, sweeps: Sequence[Path]) -> dict[str, Any]:
        """Write `suggest.json`, and return its contents."""
        plain = self.json() | {"commands": self.commands(sweeps)}
        write_text(directory / SUGGESTION, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        return plain

    def predicted(self, results: Sequence[Result]) -> list[float | None]:
        """The predicted goal at the ratio of each job; None for jobs with other sources or settings."""
        jobs = [names_of(r) == list(self.names) and comparable(r, self.reference) for r in results]
        if not any(jobs):
            return [None] * len(results)
        shares = [[share_of(r, name) for name in self.names] for r, job in zip(results, jobs, strict=True) if job]
        means = iter(self.answer.goal(np.array(shares))[0])
        return [float(next(means)) if job else None for job in jobs]

    def words(self) -> str:
        """The answer in sentences; shares and accuracies are in per cent."""
        answer, metric, name = self.answer, self.goal.metric, readable(self.goal.metric)
        plain = self.json()
        low, high = answer.gain_interval
        first = f"Predicted best: {in_words(plain)}, with {name} of {number(answer.predicted, metric)}"
        gain = f"{signed(answer.gain, metric)} ({signed(low, metric)} to {signed(high, metric)})"
        noise = number(answer.noise, metric)
        deviations = f"two deviations over the seeds ({noise} each)"
        if not answer.seeded:
            why = "for want of a second seed" if len(self.seeds) == 1 else "as too few ratios have a second seed"
            deviations = f"twice what the models leave unexplained ({noise}), {why}"
        unsure = f"Most draws gain {deviations} or more over equal shares, but some lose: a gain is likely, not sure."
        is_sure = (low if self.goal.kind == "max" else -high) > 0
        edges = ", ".join(
            f"{name} {percent(share)}"
            for name, share, at_edge in zip(self.names, answer.best, answer.edges, strict=True)
            if at_edge
        )
        edge = f"It lies at the edge of what was tried ({edges}): a better one may lie beyond."
        sentence = {
            "clear": "The optimum is clear." if is_sure else unsure,
            "edge": edge if is_sure else f"{edge} {unsure}",
            "noise": f"That is inside the noise: less than {deviations}, or not surely a gain; equal shares may do as "
            "well.",
            "flat": f"The curve is flat: the ratios that were tried differ in {name} by no more than {deviations}, or "
            "than chance explains.",
        }[answer.verdict]
        return f"{first}, {gain} against equal shares. {sentence}{self.left_out and f' {self.left_out}'}"

    def _ratios(self) -> list[str]:
        return [":".join(map(str, rounded(ratio))) for ratio in self.answer.next]

    def errors(self) -> Table:
        """The table of the models and their errors, the best model first."""
        rows = [
            ("★" if name == self.answer.model else "", name, number(error, self.goal.metric))
            for name, error in sorted(self.answer.errors.items(), key=lambda item: item[1])
        ]
        return table("Models, and their error at a ratio left out", ["", "model", readable(self.goal.metric)], rows)

    def table(self) -> Table:
        """The table of the shares of each source: the best, its interval, and the range of those tried."""
        plain, ranges = self.json(), zip(self.shares.min(0), self.shares.max(0), strict=True)
        rows = [
            (name, percent(share), " to ".join(map(percent, plain["interval"][name])), " to ".join(map(percent, each)))
            for (name, share), each in zip(plain["best"].items(), ranges, strict=True)
        ]
        return table("The best ratio", ["source", "share", "90 % of draws", "tried"], rows)

    def head(self) -> str:
        """The line above the commands."""
        if self.promising:
            return "To try the next ratios, to ask again, to use the best:"
        least = number(self.answer.noise / 2, self.goal.metric)
        text = f"No other ratio promises to improve {readable(self.goal.metric)} by more than {least}, half the noise."
        if self.answer.verdict == "flat":
            text = "As the curve is flat, no other ratio is worth a try."
        return f"{text} To try some all the same, to ask again, to use the best:"

    def commands(self, directories: Sequence[Path]) -> list[str]:
        """The command lines that try the next ratios, suggest again from all results, and run the best ratio."""
        fixed, launch = _fixed(self.reference), map(typed, self.reference.launch)
        beyond = ["hydra.sweeper.params=null"] * any(each.startswith("experiment=") for each in fixed)
        ratios = "hydra.sweeper.ratios=[{}]".format(",".join(f'"{ratio}"' for ratio in self._ratios()))
        base = re.sub(r"-next\d*$", "", str(directories[0]))
        count = next(i for i in range(2, 10_000) if not Path(f"{base}-next{i}").exists())
        following = f"{base}-next{count}" if Path(f"{base}-next").exists() else f"{base}-next"
        seeds = ",".join(map(str, self.seeds))
        every = [*map(str, directories), following]
        best_ratio = " ".join(share_overrides(self.names, rounded(self.answer.best)))
        lines = (
            ["datamix -m", *fixed, *launch, "hydra/sweeper=simplex", *beyond, shlex.quote(ratios),
             f"seed={seeds}", *self.goal.asked, typed_text("hydra.sweep.dir", following)],
            ["datamix job=suggest", typed_text("sweep.dir", every), *self.goal.asked],
        )  # fmt: skip
        return [*(" ".join(line) for line in lines), run_of(self.reference, best_ratio)]


def together(names: Sequence[str], parts: Sequence[int], interval: np.ndarray) -> dict[str, Any]:
    """The best shares and their intervals in JSON's types, as fractions by source.

    Args:
      names: The names of the sources.
      parts: The best share of each, in ten-thousandths.
      interval: The bounds of each share, [num_sources, 2]; they are widened to include the best.
    """
    bounds = {
        name: [min(part, math.floor(low * PARTS)) / PARTS, max(part, math.ceil(high * PARTS)) / PARTS]
        for name, part, (low, high) in zip(names, parts, interval, strict=True)
    }
    return {"best": {name: part / PARTS for name, part in zip(names, parts, strict=True)}, "interval": bounds}


def in_words(plain: Mapping[str, Any]) -> str:
    """The shares of `together` in readable form."""
    return ", ".join(
        f"{source} {percent(share)} (90 %: {' to '.join(map(percent, plain['interval'][source]))})"
        for source, share in plain["best"].items()
    )


def run_of(reference: Result, ratio: str) -> str:
    """The command line of one run in a ratio, with the other settings of a job of a sweep.

    Args:
      reference: The result of that job.
      ratio: The overrides that set the ratio.
    """
    fixed = _fixed(reference)
    once = ["hydra.mode=RUN"] * any(each.startswith("experiment=") for each in fixed)  # an experiment may be a sweep
    return " ".join(["datamix", *fixed, *once, ratio])


def _fixed(reference: Result) -> list[str]:
    """The arguments of a job that stay where its ratio and seed change, for a shell."""
    return list(map(typed, apart_from_ratio(reference.command, reference.config.get("mix") or {})))


def signed(value: float, metric: str) -> str:
    """The value of a metric in readable form, with its sign."""
    return f"{'+' if value >= 0 else '−'}{number(abs(value), metric)}"


def suggest(results: Sequence[Result], goal: Goal, num_next: int) -> Suggestion | str:
    """Suggest the best ratio from the results of jobs.

    The jobs that count are done, and differ from those of the best setting only in ratio, seed and the choice of
    sources. A job with fewer sources counts for the metrics of those that it has.

    Args:
      results: The results of the jobs.
      goal: The goal.
      num_next: The number of ratios to propose.

    Returns:
      The suggestion, or the reason why there is none.
    """
    done = [result for result in results if result.status == "done" and len(result.sources) > 1]
    most = max((len(names_of(result)) for result in done), default=0)
    if (chosen := best(seed_groups([r for r in done if len(names_of(r)) == most]), goal.metric, goal.kind)) is None:
        return f"no job of two or more sources reports {goal.metric}"
    reference = chosen.first
    if (reference.config.get("mix") or {}).get("schedule"):
        return SCHEDULED
    names = names_of(reference)
    alike = [r for r in done if set(names_of(r)) <= set(names) and comparable(r, reference)]
    # A ratio that was run twice with one seed, as in two sweeps, counts once: equal results would hide the noise.
    jobs = list({(str(r.seed), *_targets(r)): r for r in alike}.values())
    metrics, source_of, combine = _fitted(reference, goal)
    shares = np.array([[share_of(result, name) for name in names] for result in jobs])
    shares /= shares.sum(1, keepdims=True)
    values = {name: np.array([result.metrics.get(name, np.nan) for result in jobs]) for name in metrics}
    goals = combine(np.stack(list(values.values())))
    num_tried = len(np.unique(shares[np.isfinite(goals)].round(4), axis=0))
    if num_tried < _FEWEST:
        return f"it takes {_FEWEST} ratios or more, and jobs that differ in ratio and seed alone have tried {num_tried}"
    if (shares.max(1) > 1 - 1e-9).all():
        return "each job has trained on one source alone, and none on a mix"
    sign, complete = 1 if goal.kind == "max" else -1, np.isfinite(goals)
    evidence = Evidence(
        names=names,
        shares=shares,
        metrics=values,
        source_of=source_of,
        combine=combine,
        sign=sign,
        least=min(result.least_share for result in jobs),
    )
    asked = [f"sweep.num_next={num_next}"] * (num_next != SweepConfig.num_next)
    return Suggestion(
        answer=analyse(evidence, num_next=num_next),
        goal=replace(goal, asked=[*goal.asked, *asked]),
        shares=shares[complete],
        values=goals[complete],
        reference=reference,
        seeds=sorted({str(result.seed) for result in jobs}, key=lambda seed: (len(seed), seed)),
        left_out=" ".join(filter(None, [_left_out(results, done, alike, jobs), _incomplete(jobs, values)])),
    )


def _left_out(
    results: Sequence[Result], done: Sequence[Result], alike: Sequence[Result], jobs: Sequence[Result]
) -> str:
    """A sentence on how many results do not count, and why.

    Args:
      results: All results.
      done: Those that are done and have several sources.
      alike: Those of them that are comparable.
      jobs: Those of them that count: one for each ratio and seed.
    """
    ended = sum(result.status == "done" for result in results)
    reasons = {
        ("is not done", "are not done"): len(results) - ended,
        ("has one source", "have one source"): ended - len(done),
        ("differs in more than ratio and seed", "differ in more than ratio and seed"): len(done) - len(alike),
        ("repeats a ratio and a seed", "repeat a ratio and a seed"): len(alike) - len(jobs),
    }
    phrases = [f"{count} {words[count > 1]}" for words, count in reasons.items() if count]
    number = len(results) - len(jobs)
    return (
        f"Of {len(results)} jobs, {number} do{'es' * (number == 1)} not count: {', '.join(phrases)}." if phrases else ""
    )


def _incomplete(jobs: Sequence[Result], values: Mapping[str, np.ndarray]) -> str:
    """A sentence on the jobs that lack some of the fitted metrics; empty if there are none."""
    lacks = {name: ~np.isfinite(each) for name, each in values.items()}
    lacking = [str(job.directory) for job, *each in zip(jobs, *lacks.values(), strict=True) if any(each)]
    if not lacking:
        return ""
    one, more = len(lacking) == 1, len(lacking) - _NAMED
    metrics = " or ".join(readable(name) for name, each in lacks.items() if each.any())
    rest = f"count{'s' * one} for the rest alone" if len(values) > 1 else f"do{'es' * one} not count"
    named = ", ".join(lacking[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{counted(len(lacking), 'job')} report{'s' * one} no {metrics}, and {rest}: {named}."


def names_of(result: Result) -> list[str]:
    """The names of the sources of a job, or of the mixes within its mix."""
    return list(dict.fromkeys(path.partition(".")[0] for path in result.sources))


def _targets(result: Result) -> list[tuple[str, float]]:
    """The target share of each source."""
    return [(path, round(source["target"] or 0.0, 6)) for path, source in result.sources.items()]


def share_of(result: Result, name: str) -> float:
    """The target share of a source, or of a mix within the mix."""
    return math.fsum(s["target"] or 0.0 for path, s in result.sources.items() if path.partition(".")[0] == name)


def comparable(result: Result, reference: Result) -> bool:
    """Whether two jobs differ only in ratio, seed and the choice of sources."""

    def rest(config: Mapping[str, Any]) -> dict[str, Any]:
        mix = {key: value for key, value in (config.get("mix") or {}).items() if key not in _RATIO}
        train = {key: value for key, value in (config.get("train") or {}).items() if key != "keep_predictions"}
        kept = {key: value for key, value in config.items() if key not in ("seed", "source")}
        return kept | {"mix": mix, "train": train}

    one, two = (each.config.get("source") or {} for each in (result, reference))
    return rest(result.config) == rest(reference.config) and all(one[name] == two[name] for name in one if name in two)


def _fitted(reference: Result, goal: Goal) -> tuple[list[str], dict[str, int | None], Combine]:
    """The metrics to fit, the index of the source of each, and the function that combines them to the goal.

    If the goal is the worst or a mean of all sources, the metric of each source is fitted.
    """
    family, _, kind = goal.metric.partition("/")
    paths, names = list(reference.sources), names_of(reference)
    metrics = [f"{family}/{path}" for path in paths]
    places = [names.index(path.partition(".")[0]) for path in paths]
    source_of: dict[str, int | None] = dict(zip(metrics, places, strict=True))
    if goal.metric in metrics:
        return [goal.metric], source_of, lambda values: values[0]
    if kind not in ("worst", "mean", "weighted") or not all(metric in reference.metrics for metric in metrics):
        return [goal.metric], {goal.metric: None}, lambda values: values[0]
    if kind == "worst":
        least = goal_of(goal.metric, "auto") == "max"  # which source is worst does not depend on sweep.goal
        return metrics, source_of, (lambda values: values.min(0)) if least else (lambda values: values.max(0))
    weights = np.array([goal.weights.get(path, 0.0) if goal.weights else 1.0 for path in paths])
    return metrics, source_of, lambda values: np.tensordot(weights / weights.sum(), values, 1)
