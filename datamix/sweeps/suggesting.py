"""From the results of sweeps to a suggestion: the best ratio in words and as JSON, and the commands to go on with."""

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

from datamix.errors import ConfigError, unknown_source
from datamix.report.console import percent, table
from datamix.report.files import write_text
from datamix.sweeps.analysis import Answer, Combine, Evidence, analyse
from datamix.sweeps.results import SUGGESTION, Result, best, goal_of, metric_of, readable, sets_no_ratio, settings
from datamix.sweeps.simplex import PARTS, rounded, share_overrides
from datamix.sweeps.table import number

_FEWEST = 3  # ratios
_RATIO = ("share", "ratio", "weights")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a sweep is judged by; a metric that ends in `/weighted` is the mean of the sources' by `weights`."""

    metric: str
    kind: str
    asked: str
    weights: Mapping[str, float]


def weighted(
    results: Sequence[Result], metric: str, goal: str, weights: Mapping[str, float]
) -> tuple[list[Result], Goal]:
    """The results with the weighted metric that `sweep.goal_weights` asks for, and the goal."""
    asked, metric = metric, metric_of(metric, {name for result in results for name in result.metrics})
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
        known = [weight * part for source, weight in weights.items() if (part := parts[source]) is not None]
        mean = {name: sum(known) / total} if len(known) == len(parts) else {}
        goals.append(replace(result, metrics={**result.metrics, **mean}))
    return goals, Goal(metric=name, kind=goal_of(metric, goal), asked=asked, weights=weights)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """The best ratio of a sweep, with the shares of each job and the goal it has reached, [num_jobs, num_sources]."""

    answer: Answer
    goal: Goal
    shares: np.ndarray
    values: np.ndarray
    reference: Result
    seeds: Sequence[Any]

    @property
    def names(self) -> Sequence[str]:
        return self.answer.names

    @property
    def promising(self) -> bool:
        """Whether the next ratios are worth a try: more than half a deviation over the seeds is expected of them."""
        return self.answer.verdict != "flat" and self.answer.improvement > self.answer.noise / 2

    def json(self) -> dict[str, Any]:
        answer = self.answer
        parts = rounded(answer.best)
        bounds = {
            name: [min(part, math.floor(low * PARTS)) / PARTS, max(part, math.ceil(high * PARTS)) / PARTS]
            for name, part, (low, high) in zip(self.names, parts, answer.interval, strict=True)
        }
        return {
            "metric": self.goal.metric,
            "goal": self.goal.kind,
            "model": answer.model,
            "error": answer.errors[answer.model],
            "verdict": answer.verdict,
            "best": {name: part / PARTS for name, part in zip(self.names, parts, strict=True)},
            "interval": bounds,
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
            "seeds": list(self.seeds),
            "like": self.reference.job,
        }

    def write(self, directory: Path, sweeps: Sequence[Path]) -> dict[str, Any]:
        """Write `suggest.json` and return what it holds."""
        plain = self.json() | {"commands": self.commands(sweeps)}
        write_text(directory / SUGGESTION, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        return plain

    def predicted(self, results: Sequence[Result]) -> list[float | None]:
        """The goal that is predicted at the ratio of each job; None for jobs of other settings."""
        jobs = [_names(r) == list(self.names) and _comparable(r, self.reference) for r in results]
        if not any(jobs):
            return [None] * len(results)
        shares = [[_share(r, name) for name in self.names] for r, job in zip(results, jobs, strict=True) if job]
        means = iter(self.answer.goal(np.array(shares))[0])
        return [float(next(means)) if job else None for job in jobs]

    def words(self) -> str:
        """The answer in sentences; metrics and shares in per cent where they are shares of something."""
        answer, metric, name = self.answer, self.goal.metric, readable(self.goal.metric)
        plain = self.json()
        mix = ", ".join(
            f"{source} {percent(share)} (90 %: {' to '.join(map(percent, plain['interval'][source]))})"
            for source, share in plain["best"].items()
        )
        low, high = answer.gain_interval
        first = f"Predicted best: {mix}, with {name} of {number(answer.predicted, metric)}"
        gain = f"{_signed(answer.gain, metric)} ({_signed(low, metric)} to {_signed(high, metric)})"
        noise = number(answer.noise, metric)
        sentence = {
            "clear": "The optimum is clear.",
            "edge": f"It lies at the edge of what was tried ({', '.join(self._edges())}): a better one may lie beyond.",
            "noise": f"That is inside the noise: less than two deviations over the seeds ({noise} each), or not surely "
            "a gain; equal shares may do as well.",
            "flat": f"The curve is flat: no ratio that was tried changes {name} by more than two deviations over the "
            f"seeds ({noise} each).",
        }[answer.verdict]
        return f"{first}, {gain} against equal shares. {sentence}"

    def _edges(self) -> list[str]:
        low, high = self.shares.min(0), self.shares.max(0)
        return [
            f"{name} {percent(share)}"
            for name, share, least, most in zip(self.names, self.answer.best, low, high, strict=True)
            if min(abs(share - least), abs(share - most)) < 2e-3
        ]

    def _ratios(self) -> list[str]:
        return [":".join(map(str, rounded(ratio))) for ratio in self.answer.next]

    def errors(self) -> Table:
        rows = [
            ("★" if name == self.answer.model else "", name, number(error, self.goal.metric))
            for name, error in sorted(self.answer.errors.items(), key=lambda item: item[1])
        ]
        return table("Models, and their error at a ratio left out", ["", "model", readable(self.goal.metric)], rows)

    def table(self) -> Table:
        """The share of each source: the best, its interval, and the least and largest that were tried."""
        plain, tried = self.json(), zip(self.shares.min(0), self.shares.max(0), strict=True)
        rows = [
            (name, percent(share), " to ".join(map(percent, plain["interval"][name])), " to ".join(map(percent, each)))
            for (name, share), each in zip(plain["best"].items(), tried, strict=True)
        ]
        return table("The best ratio", ["source", "share", "90 % of draws", "tried"], rows)

    def commands(self, directories: Sequence[Path]) -> list[str]:
        """Command lines: to try the next ratios, to look at all results, to run the best ratio."""
        fixed = [shlex.quote(each) for each in self.reference.command if sets_no_ratio(each)]
        beyond = ["hydra.sweeper.params=null"] * any(each.startswith("experiment=") for each in fixed)
        ratios = ",".join(f'"{ratio}"' for ratio in self._ratios())
        asked = [f"sweep.metric={self.goal.asked}"] * (self.goal.asked != "auto")
        asked += [f"sweep.goal_weights.{name}={weight:g}" for name, weight in self.goal.weights.items()]
        base = re.sub(r"-next\d*$", "", str(directories[0]))
        count = next(i for i in range(2, 10_000) if not Path(f"{base}-next{i}").exists())
        following = f"{base}-next{count}" if Path(f"{base}-next").exists() else f"{base}-next"
        seeds = ",".join(map(str, self.seeds))
        every = ",".join(map(str, [*directories, following]))
        best_shares = share_overrides(self.names, rounded(self.answer.best))
        lines = (
            ["datamix -m", *fixed, "hydra/sweeper=simplex", *beyond, shlex.quote(f"hydra.sweeper.ratios=[{ratios}]"),
             f"seed={seeds}", *asked, f"hydra.sweep.dir={shlex.quote(following)}"],
            ["datamix job=suggest", shlex.quote(f"sweep.dir=[{every}]"), *asked],
            ["datamix", *fixed, *best_shares],
        )  # fmt: skip
        return [" ".join(line) for line in lines]


def _signed(value: float, metric: str) -> str:
    return f"{'+' if value >= 0 else '−'}{number(abs(value), metric)}"


def suggest(results: Sequence[Result], goal: Goal, num_next: int) -> Suggestion | str:
    """The suggestion that results lead to, or why there is none.

    Jobs count that are done and differ from those of the best setting in ratio, seed and the choice of sources alone. A
    job of fewer sources counts for the metrics of those that it has.
    """
    done = [result for result in results if result.status == "done" and len(result.sources) > 1]
    most = max((len(_names(result)) for result in done), default=0)
    if (chosen := best(settings([r for r in done if len(_names(r)) == most]), goal.metric, goal.kind)) is None:
        return f"no job of two or more sources reports {goal.metric}"
    reference = chosen.first
    names = _names(reference)
    jobs = [r for r in done if set(_names(r)) <= set(names) and _comparable(r, reference)]
    metrics, source_of, combine = _fitted(reference, goal)
    shares = np.array([[_share(result, name) for name in names] for result in jobs])
    shares /= shares.sum(1, keepdims=True)
    values = {name: np.array([result.metrics.get(name, np.nan) for result in jobs]) for name in metrics}
    reached = combine(np.stack(list(values.values())))
    tried = len(np.unique(shares[np.isfinite(reached)].round(4), axis=0))
    if tried < _FEWEST:
        return f"it takes {_FEWEST} ratios or more, and jobs that differ in ratio and seed alone have tried {tried}"
    sign, complete = 1 if goal.kind == "max" else -1, np.isfinite(reached)
    evidence = Evidence(names=names, shares=shares, metrics=values, source_of=source_of, combine=combine, sign=sign)
    return Suggestion(
        answer=analyse(evidence, num_next=num_next),
        goal=goal,
        shares=shares[complete],
        values=reached[complete],
        reference=reference,
        seeds=sorted({str(result.seed) for result in jobs}, key=lambda seed: (len(seed), seed)),
    )


def _names(result: Result) -> list[str]:
    return list(dict.fromkeys(path.partition(".")[0] for path in result.sources))


def _share(result: Result, name: str) -> float:
    return math.fsum(s["target"] or 0.0 for path, s in result.sources.items() if path.partition(".")[0] == name)


def _comparable(result: Result, reference: Result) -> bool:
    def rest(config: Mapping[str, Any]) -> dict[str, Any]:
        mix = {key: value for key, value in (config.get("mix") or {}).items() if key not in _RATIO}
        return {key: value for key, value in config.items() if key not in ("seed", "source")} | {"mix": mix}

    one, two = (each.config.get("source") or {} for each in (result, reference))
    return rest(result.config) == rest(reference.config) and all(one[name] == two[name] for name in one if name in two)


def _fitted(reference: Result, goal: Goal) -> tuple[list[str], dict[str, int | None], Combine]:
    """The metrics to fit (of each source, where the goal is their worst or mean), what each is of, how they make it."""
    family, _, kind = goal.metric.partition("/")
    paths, names = list(reference.sources), _names(reference)
    metrics = [f"{family}/{path}" for path in paths]
    places = [names.index(path.partition(".")[0]) for path in paths]
    source_of: dict[str, int | None] = dict(zip(metrics, places, strict=True))
    if goal.metric in metrics:
        return [goal.metric], source_of, lambda values: values[0]
    if kind not in ("worst", "mean", "weighted") or not all(metric in reference.metrics for metric in metrics):
        return [goal.metric], {goal.metric: None}, lambda values: values[0]
    if kind == "worst":
        return (
            metrics,
            source_of,
            (lambda values: values.min(0)) if goal.kind == "max" else (lambda values: values.max(0)),
        )
    weights = np.array([goal.weights.get(path, 0.0) if goal.weights else 1.0 for path in paths])
    return metrics, source_of, lambda values: np.tensordot(weights / weights.sum(), values, 1)
