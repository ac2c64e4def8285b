"""From the results of a sweep to the best ratio: what it is, how sure that is, and what to try next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from datamix.sweeps.surfaces import Fitted, models

Combine: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From the metrics [K, ...] to the goal [...], of which more is better."""

_DRAWS = 200  # of the bootstrap
_POPULATION, _GENERATIONS = 40, 60  # of the search for the best ratio
_CANDIDATES = 2000  # ratios among which the next ones are chosen
_LEAST = 0.01  # half the width of an interval
_SPARE = 3  # ratios beyond the parameters of a model that is to tell the noise; half of them, where they are few
_AMONG = 4  # ratios among others by which models are judged; all where they are fewer
_TRIED = 1e-3  # between the shares of two ratios that are the same for a sweep
_SEEDED = 3  # degrees of freedom from which the seeds tell the noise
_CLEAR = 2.0  # seed deviations that a gain is to have


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements of a sweep.

    Attributes:
      names: What a ratio is of: sources, or mixes within the mix.
      shares: The share of each in each job, float [num_jobs, num_sources], with rows that add up to 1.
      metrics: What is fitted, by name, float [num_jobs] each; NaN where a job does not report it.
      source_of: The place in `names` of what a metric is of; None for a metric of the whole mix.
      combine: From the metrics, stacked, to the goal, of which more is better if `sign` is 1, and less if it is -1.
    """

    names: Sequence[str]
    shares: np.ndarray
    metrics: Mapping[str, np.ndarray]
    source_of: Mapping[str, int | None]
    combine: Combine
    sign: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The best ratio, as far as a sweep tells.

    Attributes:
      errors: The leave-one-ratio-out root mean square error of each model, in the unit of the goal.
      verdict: Whether the best is clear, at the edge of what was tried, no better than equal shares by more than noise,
        or whether the ratio hardly matters: neither by what the model predicts nor by what was measured.
      interval: The bounds of each share that hold 90 % of the bootstrap's best ratios, and `best`.
      gain: The goal at the best ratio minus that at equal shares, with an interval of 90 %.
      noise: The deviation of the goal over seeds, of one job.
      improvement: How much better than `predicted` the first of `next` is expected to be, 0 or more.
      next: The ratios to try next, those that promise most first.
      beyond: Whether the first of them lies beyond the edge of what was tried.
      goal: Predicts mean, low and high (5 % and 95 %) of the goal at ratios [M, num_sources]: [3, M].
    """

    names: Sequence[str]
    model: str
    errors: Mapping[str, float]
    verdict: Literal["clear", "flat", "edge", "noise"]
    best: np.ndarray
    interval: np.ndarray
    predicted: float
    gain: float
    gain_interval: tuple[float, float]
    noise: float
    improvement: float
    next: np.ndarray
    beyond: bool
    goal: Callable[[np.ndarray], np.ndarray]


class _Data:
    """The measurements by ratio: means over the jobs of one ratio, standardised, with their weights.

    A job that lacks a metric counts for the others, and not for the goal.

    Attributes:
      values: The mean of each metric at each, standardised, [K, N].
      counts: The jobs that stand behind each, [K, N]; 0 for none.
      num_goals: The jobs whose goal is known at each, [N].
      goals: The mean of those, [N]; NaN where there is none.
      judged: How much each ratio counts in the error of a model, [N].
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.ratios, place = np.unique(evidence.shares.round(6), axis=0, return_inverse=True)
        place = place.reshape(-1)
        raw = np.stack(list(evidence.metrics.values()))
        there = np.isfinite(raw)
        raw = np.where(there, raw, np.nan)
        member = np.eye(len(self.ratios))[place]  # [jobs, N]
        self.counts = there @ member
        means = np.where(there, raw, 0) @ member / np.maximum(self.counts, 1)
        total = np.maximum(self.counts.sum(1, keepdims=True), 1)
        self.centre = (means * self.counts).sum(1, keepdims=True) / total
        self.scale = np.sqrt((self.counts * (means - self.centre) ** 2).sum(1, keepdims=True) / total) + 1e-12
        self.values = np.where(self.counts > 0, (means - self.centre) / self.scale, 0)
        goals = evidence.combine(raw)
        spread = [goals[(place == i) & np.isfinite(goals)] for i in range(len(self.ratios))]
        self.num_goals = np.array(list(map(len, spread)))
        self.measured = self.num_goals > 0
        self.goals = np.array([each.mean() if len(each) else np.nan for each in spread])
        gaps = np.nanmax(evidence.sign * self.goals) - evidence.sign * self.goals
        near = 1 / (1 + (gaps / (2 * np.nanmedian(gaps) + 1e-12)) ** 2)
        # A ratio that is alone at an end of a share tells how a model extrapolates; the best is sought among the tried.
        order = np.sort(self.ratios, 0)
        among = self.measured & ~((self.ratios < order[1]) | (self.ratios > order[-2])).any(1)
        self.judged = np.where(among if among.sum() >= _AMONG else self.measured, near, 0)
        self.weights = self.counts * np.where(self.measured, near, np.nanmin(near))
        self.freedom = int(np.maximum(self.num_goals - 1, 0).sum())
        squares = sum(((each - each.mean()) ** 2).sum() for each in spread if len(each))
        self.noise = float(np.sqrt(squares / max(self.freedom, 1)))

    def goal(self, predictions: np.ndarray) -> np.ndarray:
        # A model that runs away where it has seen nothing predicts no more than thrice what was measured.
        limit = 3 * np.abs(self.values).max(1)[:, None, None] + 1
        bounded = np.clip(predictions, -limit, limit)
        return self.evidence.combine(bounded * self.scale[..., None] + self.centre[..., None])

    def goal_at(self, fitted: Sequence[Fitted], ratios: np.ndarray) -> np.ndarray:
        """The goal at ratios, by what was fitted to each metric."""
        return self.goal(np.stack([each.predict(ratios) for each in fitted]))


def analyse(evidence: Evidence, *, num_next: int = 3, seed: int = 0) -> Answer:
    """Fit every metric by every model, choose by the error at ratios left out, and find the best ratio.

    The models are those of `datamix.sweeps.surfaces`. The interval is that of a wild bootstrap of each ratio's mean
    over its seeds: noise is drawn anew, a model is drawn by how well it predicts what it has not seen, it is fitted,
    and has a best ratio of its own. Ratios are searched for inside what was tried: combinations of tried ones.

    Args:
      num_next: How many ratios to propose.
      seed: The seed of the draws; the same evidence gives the same answer.
    """
    random, sign = np.random.default_rng(seed), evidence.sign
    data = _Data(evidence)
    fits = [models(evidence.source_of[name]) for name in evidence.metrics]
    validations = {
        name: _validate(data, [each[name] for each in fits]) for name in fits[0] if all(name in each for each in fits)
    }
    # Where few ratios decide, a constant predicts best, even beside one that is far worse than the noise of the seeds.
    differ = data.freedom >= _SEEDED and _differ(data, data.noise, data.freedom, random)
    errors, model, numbers = _judge(data, validations, random, constant=not differ)
    point = [
        fit[model](data.ratios, *each)
        for fit, *each in zip(fits, data.values[:, None], data.weights[:, None], strict=True)
    ]
    drawn = [
        (name, number, _bootstrap(data, [each[name] for each in fits], validations[name], number, random))
        for name, number in numbers.items()
    ]

    def draws_at(at: np.ndarray) -> np.ndarray:
        return np.concatenate([data.goal_at(each, at[None]) for _, _, each in drawn])

    equal = np.full(data.ratios.shape[1], 1 / data.ratios.shape[1])
    if model == "constant":
        best = data.ratios[np.abs(data.ratios - equal).sum(1).argmin()]
    else:
        best = _best(data, model, point, 1, random)[0]
    others = np.concatenate([_best(data, name, each, number, random) for name, number, each in drawn])
    low, high = np.quantile(others, (0.05, 0.95), axis=0)
    # The bootstrap does not see what is wrong with every model: no share is known better than to _LEAST.
    interval = np.stack([np.minimum(low, best - _LEAST), np.maximum(high, best + _LEAST)], 1).clip(0, 1)
    both = np.stack([best, equal])
    predicted, at_equal = data.goal_at(point, both[None])[0]
    gains = np.subtract(*draws_at(both).T)
    gain = float(predicted - at_equal)
    gain_interval = (min(gain, float(np.quantile(gains, 0.05))), max(gain, float(np.quantile(gains, 0.95))))
    noise, freedom = data.noise, float(data.freedom)
    if freedom < _SEEDED:
        at_best = np.stack([each.predict(best[None, None])[0] for each in point])
        noise, freedom = _noise(data, validations.values(), at_best, random)
    noises = noise * np.sqrt(freedom / random.chisquare(freedom, _DRAWS))
    spread = np.ptp(data.goal_at(point, data.ratios[None])[0])
    alike = spread < _CLEAR * noise and not (differ or _differ(data, noise, freedom, random))
    verdict = "flat" if alike else _verdict(data, best, sign * gains, noises)
    beyond = _beyond(data, best) if verdict == "edge" else np.empty((0, len(best)))

    def promise_at(at: np.ndarray) -> np.ndarray:
        return np.maximum(sign * (draws_at(at) - predicted), 0).mean(0) if len(at) else np.zeros(0)

    following, improvement = _propose(data, best, beyond, promise_at, num_next, random)

    def goal(at: np.ndarray) -> np.ndarray:
        return np.concatenate([data.goal_at(point, at[None]), np.quantile(draws_at(at), (0.05, 0.95), axis=0)])

    return Answer(
        names=evidence.names,
        model=model,
        errors=errors,
        verdict=verdict,
        best=best,
        interval=interval,
        predicted=float(predicted),
        gain=gain,
        gain_interval=gain_interval,
        noise=noise,
        improvement=improvement,
        next=following,
        beyond=len(beyond) > 0,
        goal=goal,
    )


@dataclass(frozen=True)
class _Validation:
    """A model that was fitted without each ratio in turn, where it has been measured.

    Attributes:
      predicted: The predicted metrics, standardised, [K, N].
      left_out: The residuals of each ratio where it is left out, [K, N].
      errors: Those of the goal, [N]; 0 where a metric is missing.
      parameters: How many are spent on each metric, [K].
    """

    predicted: np.ndarray
    left_out: np.ndarray
    errors: np.ndarray
    parameters: np.ndarray


def _validate(data: _Data, fits: Sequence[Callable[..., Fitted]]) -> _Validation:
    size = len(data.ratios)
    seen = np.concatenate([np.ones((1, size)), 1 - np.eye(size)])
    rows = zip(fits, data.values, data.weights, strict=True)
    fitted = [fit(data.ratios, np.broadcast_to(values, seen.shape), weights * seen) for fit, values, weights in rows]
    predictions = np.stack([each.predict(data.ratios[None]) for each in fitted])  # [K, 1 + N, N]
    without = np.diagonal(predictions[:, 1:], axis1=1, axis2=2)
    errors = np.where(data.measured, data.goals - data.goal(without[:, None])[0], 0)
    return _Validation(predictions[:, 0], data.values - without, errors, np.array([each.parameters for each in fitted]))


def _judge(
    data: _Data, validations: Mapping[str, _Validation], random: np.random.Generator, *, constant: bool
) -> tuple[dict[str, float], str, dict[str, int]]:
    """The error of each model, the one that is chosen, and how many draws each of the bootstrap's models has.

    Few ratios make an error uncertain: each draw weighs them anew, and takes a model by its likelihood then. Source:
    Y. Yao et al., Using stacking to average Bayesian predictive distributions (2018), pseudo-BMA+.

    Args:
      constant: Whether the goal may be the same at all ratios.
    """
    squares = np.stack([data.judged * validation.errors**2 for validation in validations.values()])
    errors = dict(zip(validations, np.sqrt(squares.sum(1) / data.judged.sum()).tolist(), strict=True))
    if constant and errors["constant"] <= 1.15 * min(errors.values()):
        model = "constant"
    else:
        model = min((name for name in errors if name != "constant"), key=errors.__getitem__)
    size = data.judged.sum() ** 2 / (data.judged**2).sum()
    weighed = np.log(random.exponential(size=(_DRAWS, len(data.ratios))) @ squares.T + 1e-300)
    likelihoods = random.gumbel(size=weighed.shape) - size / 2 * weighed
    if not constant:
        likelihoods[:, list(validations).index("constant")] = -np.inf
    chosen = likelihoods.argmax(1)
    numbers = zip(validations, np.bincount(chosen, minlength=len(validations)).tolist(), strict=True)
    return errors, model, {name: number for name, number in numbers if number}


def _noise(
    data: _Data, validations: Iterable[_Validation], at_best: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    """The deviation of the goal at the best ratio, where few ratios have several jobs, and its degrees of freedom.

    It is what the model that leaves least leaves, for the parameters that it spends, as in Mallows's Cp: a model that
    misses something leaves more than noise. What all metrics of a job have in common is told by the correlation of
    their residuals.
    """
    number = data.counts.astype(bool).sum(1)
    weights = data.weights * (data.counts.sum(1) / data.weights.sum(1))[:, None]
    least = np.inf
    for validation in validations:
        free = number - validation.parameters
        enough = (free >= np.minimum(_SPARE, (number - 1) / 2)).all()
        rest = (data.values - validation.predicted) * np.sqrt(weights / np.maximum(free, 1)[:, None])
        spread = np.sqrt((rest**2).sum(1, keepdims=True)) + 1e-12
        if enough and (size := np.log(spread).mean()) < least:
            least, deviations, parts, freedom = size, spread, rest / spread, free.mean()
    metrics = len(data.values)
    common = np.clip(((parts.sum(0) ** 2).sum() - metrics) / max(metrics * (metrics - 1), 1), 0, 1)
    own, alike = random.normal(size=(metrics, 4000)), random.normal(size=4000)
    draws = at_best + deviations * (np.sqrt(1 - common) * own + np.sqrt(common) * alike)
    return float(data.goal(draws[:, None]).std()), float(freedom * (metrics * (1 - common) + common))


def _bootstrap(
    data: _Data,
    fits: Sequence[Callable[..., Fitted]],
    validation: _Validation,
    number: int,
    random: np.random.Generator,
) -> list[Fitted]:
    """Fits to predictions with noise: the wild bootstrap, whose residuals are those of ratios left out.

    The median, which is 1.5 deviations of normal ones, counts as much as a ratio's own: a residual may be small by
    chance, and that of a corner, which is far from all others, says little of noise.
    """
    usual = 1.5 * np.median(np.abs(validation.left_out[:, data.measured]), 1, keepdims=True)
    residuals = np.sqrt((np.minimum(validation.left_out**2, 4 * usual**2) + usual**2) / 2)
    noise = random.normal(size=(len(fits), number, len(data.ratios)))
    values = validation.predicted[:, None] + residuals[:, None] * noise
    return [
        fit(data.ratios, each, np.broadcast_to(weight, each.shape), random)
        for fit, each, weight in zip(fits, values, data.weights, strict=True)
    ]


def _combinations(data: _Data, number: int, random: np.random.Generator) -> np.ndarray:
    """Ratios inside what was tried, [number, num_sources]: the tried ones, and random combinations of them."""
    weights = random.dirichlet(np.full(len(data.ratios), 0.3), size=max(number - len(data.ratios), 0))
    return np.concatenate([data.ratios, weights @ data.ratios])[:number]


def _best(data: _Data, model: str, fitted: Sequence[Fitted], number: int, random: np.random.Generator) -> np.ndarray:
    """The best ratio by each of several fits of a model, [number, num_sources]."""
    if model == "constant":  # any ratio is as good
        return _combinations(data, len(data.ratios) + number, random)[-number:]
    return _search(data, lambda at: data.evidence.sign * data.goal_at(fitted, at), number, random)


def _search(data: _Data, goal: Combine, number: int, random: np.random.Generator) -> np.ndarray:
    """The best ratio of each of several goals, [number, num_sources], by differential evolution.

    Source: R. Storn, K. Price, Differential evolution (1997). Differences of ratios keep their sum, and stay among
    the combinations of those that were tried.
    """
    begin = _combinations(data, 512, random)
    values = np.broadcast_to(goal(begin[None]), (number, len(begin)))
    first = np.argsort(-values, 1, kind="stable")[:, :_POPULATION]
    ratios, values = begin[first], np.take_along_axis(values, first, 1)
    size, rows = ratios.shape[1], np.arange(number)[:, None]
    low, high = data.ratios.min(0), data.ratios.max(0)
    for _ in range(_GENERATIONS):
        best = ratios[rows, values.argmax(1)[:, None]]
        one, two = random.integers(size, size=(2, number, size))
        step = 0.5 * (best - ratios) + 0.6 * (ratios[rows, one] - ratios[rows, two])
        # As far as the bounds of the shares allow.
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(step > 0, (high - ratios) / step, np.where(step < 0, (low - ratios) / step, np.inf))
        tried = ratios + np.clip(room.min(-1, keepdims=True), 0, 1) * step
        reached = goal(tried)
        better = reached > values
        ratios, values = np.where(better[..., None], tried, ratios), np.where(better, reached, values)
    return np.asarray(ratios[np.arange(number), values.argmax(1)].clip(0, 1))


def _at_ends(data: _Data, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each share of the best ratio is the least, or the largest, of those tried, and not 0 or 1."""
    low, high = data.ratios.min(0), data.ratios.max(0)
    return (best <= low + 1e-3) & (low > 1e-6), (best >= high - 1e-3) & (high < 1 - 1e-6)


def _verdict(data: _Data, best: np.ndarray, gains: np.ndarray, noises: np.ndarray) -> Literal["clear", "edge", "noise"]:
    """See `Answer`; where the ratios that were tried differ.

    Args:
      gains: Draws of how much better the best ratio is than equal shares.
      noises: Draws of the noise.
    """
    if (gains > _CLEAR * noises).mean() < 0.5:
        return "noise"
    return "edge" if np.any(_at_ends(data, best)) else "clear"


def _differ(data: _Data, noise: float, freedom: float, random: np.random.Generator) -> bool:
    """Whether goals that were measured differ by more than two deviations, and by more than means do by chance.

    Chance is the range of as many means, of as many jobs each, of a noise that is known by its degrees of freedom, as
    in Tukey's test. A model may miss such a difference: where few ratios decide, a constant predicts best.
    """
    means = random.normal(size=(4000, data.measured.sum())) / np.sqrt(data.num_goals[data.measured])
    noises = noise * np.sqrt(freedom / random.chisquare(freedom, 4000))
    chance = np.quantile(np.ptp(means, axis=1) * noises, 0.95)
    return bool(np.nanmax(data.goals) - np.nanmin(data.goals) > max(_CLEAR * noise, chance))


def _propose(
    data: _Data, best: np.ndarray, beyond: np.ndarray, promise_at: Combine, number: int, random: np.random.Generator
) -> tuple[np.ndarray, float]:
    """The ratios to try next, [number, num_sources], and the most that any promises."""
    # Where nothing promises more, the best itself is the first, if it has not been tried.
    inside = np.concatenate([best[None], _combinations(data, _CANDIDATES, random)])
    promise, there = promise_at(inside), promise_at(beyond)
    tried = np.min([np.abs(inside - ratio).max(1) for ratio in data.ratios], 0) < _TRIED
    promise = np.where(tried, 0, promise)
    # A ratio that was tried, with the seeds there are, is proposed where there is no other alone.
    worth = np.where(tried, 1e-15, promise + 1e-9 * promise.max() + 1e-12)
    first = beyond[there.argmax()] if len(beyond) else inside[worth.argmax()]
    return _spread(inside, worth, first, number), float(max(*promise, *there))


def _beyond(data: _Data, best: np.ndarray) -> np.ndarray:
    """Ratios half the way on from the best to 0, or to 1, in each share at an edge; the others keep their proportions.

    None are given that differ from the best by no more than a share is known to.
    """
    ratios, (at_low, at_high) = np.empty((0, len(best))), _at_ends(data, best)
    for i in np.flatnonzero(at_low | at_high):
        share = best[i] / 2 if at_low[i] else (1 + best[i]) / 2
        if abs(share - best[i]) > _LEAST and best[i] < 1:
            ratio = best * (1 - share) / (1 - best[i])
            ratio[i] = share
            ratios = np.concatenate([ratios, ratio[None]])
    return ratios


def _spread(candidates: np.ndarray, worth: np.ndarray, first: np.ndarray, number: int) -> np.ndarray:
    """The first ratio, and others that are worth most, each a little away from those before."""
    chosen = [first]
    while len(chosen) < number:
        distance = np.min([np.abs(candidates - each).sum(1) for each in chosen], 0)
        chosen.append(candidates[np.argmax(worth * (1 - np.exp(-((distance / 0.1) ** 2))))])
    return np.stack(chosen)
