"""MixMin: the best ratio from one run per source, by mixing the predictions of their models.

The method assumes that a model trained on a mix predicts the average of the predictions of the models trained on each
source, weighted by the shares. Source: A. Thudi et al., MixMin: finding data mixtures via convex minimization (arXiv
2502.10510).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import DataError
from datamix.report.console import percent
from datamix.report.files import write_text
from datamix.sweeps.results import MIXMIN, Result, best, number, readable, seed_groups
from datamix.sweeps.simplex import rounded, share_overrides
from datamix.sweeps.suggesting import (
    Goal,
    Suggestion,
    comparable,
    in_words,
    names_of,
    run_of,
    share_of,
    signed,
    together,
)
from datamix.training.predictions import read_predictions

_DRAWS = 200  # draws of the bootstrap
_STEPS, _GAP = 2000, 1e-5  # the most steps; the distance from the least loss at which to stop, in nats


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The mixture of predictions with the least loss.

    Attributes:
      names: The names of the sources.
      best: The share of each source, float [num_sources].
      interval: The bounds of each share, [num_sources, 2], that include `best` and 90 % of the bootstrap.
      loss: The loss of the best mixture on the target, in nats per record or per token.
      gain: That loss minus the loss of the mixture in equal shares.
      gain_interval: The interval of the gain that includes 90 % of the bootstrap.
      alone: The loss of the model of each source alone.
      target: The weight of each source whose test records the mixture should predict; they add up to 1.
      num_seeds: The least number of runs of a source.
      reference: A run of one source.
    """

    names: Sequence[str]
    best: np.ndarray
    interval: np.ndarray
    loss: float
    gain: float
    gain_interval: tuple[float, float]
    alone: Sequence[float]
    target: Mapping[str, float]
    num_seeds: int
    reference: Result

    def json(self, suggestion: Suggestion | None = None) -> dict[str, Any]:
        """The contents of `mixmin.json`: fields of `suggest.json`, and the prediction of a sweep here as `grid`."""
        parts, grid = rounded(self.best), None
        ratio = " ".join(share_overrides(self.names, parts))
        if suggestion is not None and set(self.names) <= {*suggestion.names}:
            share = dict(zip(self.names, self.best, strict=True))
            here = suggestion.answer.goal(np.array([[share.get(name, 0.0) for name in suggestion.names]]))
            best = suggestion.answer.predicted
            grid = {"metric": suggestion.goal.metric, "here": [float(each) for each in here[:, 0]], "best": best}
        return {
            "metric": "loss",
            "goal": "min",
            "model": "mixture of predictions",
            "verdict": "clear" if self.gain_interval[1] < 0 else "noise",
            **together(self.names, parts, self.interval),
            "predicted": self.loss,
            "gain": self.gain,
            "gain_interval": list(self.gain_interval),
            "alone": dict(zip(self.names, self.alone, strict=True)),
            "target": dict(self.target),
            "seeds": self.num_seeds,
            "next": [ratio],
            "commands": [run_of(self.reference, ratio)],
            "grid": grid,
        }

    def words(self, suggestion: Suggestion | None = None) -> str:
        """The answer in sentences."""
        plain = self.json(suggestion)
        target = " + ".join(f"{name} {percent(share)}" for name, share in self.target.items() if share)
        low, high = (signed(each, "loss") for each in self.gain_interval)
        mixture = f"Their mixture has a loss of {number(self.loss, 'loss')} on {target}, {signed(self.gain, 'loss')}"
        may = ", which may do as well" * (plain["verdict"] != "clear")
        sentences = [
            f"MixMin, from the predictions of one run a source: {in_words(plain)}.",
            f"{mixture} ({low} to {high}) against equal shares{may}.",
            *["With one seed, the intervals know of the test records alone."] * (self.num_seeds == 1),
        ]
        if (grid := plain["grid"]) is not None:
            here, least, most, best = (number(each, grid["metric"]) for each in [*grid["here"], grid["best"]])
            there = f"There the sweep predicts {readable(grid['metric'])} of {here} ({least} to {most})"
            sentences.append(f"{there}, and {best} at its own best.")
        return " ".join(sentences)

    def write(self, directory: Path, suggestion: Suggestion | None = None) -> dict[str, Any]:
        """Write `mixmin.json`, and return its contents."""
        plain = self.json(suggestion)
        write_text(directory / MIXMIN, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        return plain


def mixmin(results: Sequence[Result], goal: Goal) -> Mixture | None:
    """Find the best mixture of predictions.

    If runs have several settings, those of the setting that is best by `goal` count. The target is the sources of
    `sweep.goal_weights`, or the source of the metric, or all sources equally; it may include a source that was tested
    but never trained on.

    Args:
      results: The results of the jobs.
      goal: The goal of the sweep.

    Returns:
      The mixture; None if fewer than two sources have a run that was trained on one source alone and has kept its
      predictions.

    Raises:
      DataError: Two runs were tested on different records, or a file is damaged.
    """
    alone = [each for each in results if each.status == "done" and any(_share_is_1(each, n) for n in names_of(each))]
    read = ((each, read_predictions(each.directory)) for each in alone)
    kept = [(each, predictions) for each, predictions in read if predictions is not None]
    chosen = best(seed_groups([each for each, _ in kept]), goal.metric, goal.kind)
    if chosen is None:
        return None
    reference = chosen.first
    of_seeds: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for result, predictions in sorted(kept, key=lambda pair: str(pair[0].seed)):
        if names_of(result) == names_of(reference) and comparable(result, reference):
            name = next(name for name in names_of(result) if _share_is_1(result, name))
            of_seeds.setdefault(name, {})[str(result.seed)] = predictions
    runs = {name: [*each.values()] for name, each in of_seeds.items()}
    names = [name for name in names_of(reference) if name in runs]
    if len(names) < 2:
        return None
    of = goal.metric.partition("/")[2]
    asked = dict(goal.weights) or ({of: 1.0} if of in reference.sources else dict.fromkeys(reference.sources, 1.0))
    target = {name: weight / sum(asked.values()) for name, weight in asked.items()}
    shapes = [{name: each[name].shape for name in target} for of in runs.values() for each in of]
    if any(shape != shapes[0] for shape in shapes):
        text = "the runs of one source each were not tested on the same records"
        raise DataError(f"{reference.directory}: {text}; begin that sweep anew, in another hydra.sweep.dir.")
    counts = {path: runs[names[0]][0][path][1] for path in target}
    weights = [np.full(len(counts[path]), weight / counts[path].sum()) for path, weight in target.items()]
    logs = {name: [np.concatenate([each[path][0] for path in target]) for each in runs[name]] for name in names}
    return _mixture(names, logs, weights, target=target, reference=reference)


def _mixture(
    names: Sequence[str], logs: Mapping[str, Sequence[np.ndarray]], weights: Sequence[np.ndarray], **more: Any
) -> Mixture:
    """Find the best mixture of predictions.

    Args:
      names: The names of the sources.
      logs: The log-probabilities of the test records under each run of each source, [num_records].
      weights: The weights of the records in the loss, for each source of the target.
      more: Further fields of the mixture.
    """
    random, num_seeds = np.random.default_rng(0), min(map(len, logs.values()))
    equal, every = np.full(len(names), 1 / len(names)), np.concatenate(weights)
    # The loss is the mean over seeds: the records under each seed count as different records.
    all_logs = np.stack([np.concatenate(logs[name][:num_seeds]).astype(float) for name in names])
    all_weights = np.tile(every, num_seeds) / num_seeds
    shares = least(all_logs, all_weights)
    at_best, at_equal = (loss(all_logs, all_weights, each) for each in (shares, equal))
    draws, gains = [], []
    for _ in range(_DRAWS):
        run_logs = np.stack([logs[name][int(random.integers(len(logs[name])))].astype(float) for name in names])
        draw_weights = np.concatenate([of * random.dirichlet(np.ones(len(of))) * len(of) for of in weights])
        draws.append(least(run_logs, draw_weights, shares))
        gains.append(loss(run_logs, draw_weights, shares) - loss(run_logs, draw_weights, equal))
    gain = at_best - at_equal
    low, high = np.quantile([*draws, shares], (0.05, 0.95), axis=0)
    return Mixture(
        names=names,
        best=shares,
        interval=np.stack([np.minimum(low, shares), np.maximum(high, shares)], 1),
        loss=at_best,
        gain=gain,
        gain_interval=(min(gain, float(np.quantile(gains, 0.05))), max(gain, float(np.quantile(gains, 0.95)))),
        alone=[loss(all_logs, all_weights, each) for each in np.eye(len(names))],
        num_seeds=num_seeds,
        **more,
    )


def loss(logs: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> float:
    """The loss of a mixture of predictions: minus the weighted sum of the logarithms of its probabilities.

    Args:
      logs: The log-probabilities of the records, one row per source, [num_sources, num_records].
      weights: The weight of each record, [num_records].
      shares: The share of each source, [num_sources].

    >>> round(loss(np.log([[0.5, 0.5], [0.1, 0.9]]), np.array([0.5, 0.5]), np.array([1.0, 0.0])), 4)  # ln 2
    0.6931
    """
    with np.errstate(divide="ignore"):
        return float(-weights @ np.logaddexp.reduce(logs + np.log(shares)[:, None], axis=0))


def least(logs: np.ndarray, weights: np.ndarray, begin: np.ndarray | None = None) -> np.ndarray:
    """Find the mixture of predictions with the least `loss`, by exponentiated gradient: shares ∝ shares · exp(-rate g).

    The loss is convex. A rate that increases the loss is halved, any other is doubled. The search stops when no mixture
    can be better by more than a small gap; the bound is the mean of the gradient, weighted by the shares, minus its
    least element.

    Args:
      logs: The log-probabilities of the records, one row per source, [num_sources, num_records].
      weights: The weight of each record, 0 or more, [num_records].
      begin: The initial shares; None for equal ones.

    Returns:
      The share of each source, [num_sources].

    >>> least(np.log([[0.9, 0.1], [0.1, 0.9]]), np.array([0.5, 0.5])).tolist()
    [0.5, 0.5]
    """
    equal = np.full(len(logs), 1 / len(logs))
    # No initial share is 0, as it would stay 0.
    shares, rate = equal if begin is None else 0.99 * begin + 0.01 * equal, 1.0
    most = logs.max(0)
    ratios, parts = np.exp(logs - most), weights / weights.sum()
    mixed = shares @ ratios
    for _ in range(_STEPS):
        gains = ratios @ (parts / mixed)  # the negative gradient; its mean, weighted by the shares, is 1
        if gains.max() <= 1 + _GAP:
            break
        while True:
            tried = shares * np.exp(rate * (gains - gains.max()))
            tried /= tried.sum()
            tried_mixed = tried @ ratios
            if (tried_mixed > 0).all() and parts @ np.log(tried_mixed / mixed) >= 0:
                break
            rate /= 2
        shares, mixed, rate = tried, tried_mixed, 2 * rate
    return np.asarray(shares)


def _share_is_1(result: Result, name: str) -> bool:
    return share_of(result, name) > 1 - 1e-9
