"""Find the best ratio from the results of a sweep, its uncertainty, and the ratios to try next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from datamix.sweeps.surfaces import Fitted, models

Combine: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From the stacked metrics [K, ...] to the goal [...]; also another function from an array to an array."""

_DRAWS = 200  # draws of the bootstrap
_POPULATION, _GENERATIONS = 40, 60  # the size of the search for the best ratio
_CANDIDATES = 2000  # ratios from which the next ones are chosen
_LEAST = 0.01  # the least distance of the bounds of an interval from the best share
_SPARE = 3  # ratios beyond its parameters that a model needs to estimate the noise; (ratios - 1) / 2 if that is less
_AMONG = 4  # the least number of interior ratios to judge models by; with fewer, all ratios judge
_TRIED = 1e-3  # shares that differ by no more count as the same
_SEEDED = 3  # degrees of freedom from which the noise is estimated from the seeds
_CLEAR = 2.0  # the gain that is needed, in deviations over the seeds


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements of a sweep.

    Attributes:
      names: The names of the sources, or of mixes within the mix.
      shares: The share of each in each job, float [num_jobs, num_sources], with rows that add up to 1.
      metrics: The metrics to fit, by name, float [num_jobs] each; NaN if a job does not report it.
      source_of: The index in `names` of the source of each metric; None for a metric of the whole mix.
      combine: The function from the stacked metrics [K, ...] to the goal [...].
      sign: 1 if a larger goal is better, -1 if a smaller one is.
      least: The least share that may be proposed beyond the edge of what was tried.
    """

    names: Sequence[str]
    shares: np.ndarray
    metrics: Mapping[str, np.ndarray]
    source_of: Mapping[str, int | None]
    combine: Combine
    sign: int
    least: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The best ratio according to a sweep.

    Attributes:
      names: The names of the sources, or of mixes within the mix.
      model: The name of the chosen model.
      errors: The leave-one-ratio-out root mean square error of each model, in the unit of the goal.
      verdict: "clear"; "edge" if the best ratio is at the edge of those tried; "noise" if its gain over equal shares is
        within the noise; "flat" if neither the predictions nor the measurements show that the ratio matters.
      best: The best ratio, [num_sources].
      edges: Whether each of its shares is the least of those tried, but not 0, or the largest, but not 1.
      interval: The bounds of each share, [num_sources, 2], that include `best` and 90 % of the best ratios of the
        bootstrap.
      predicted: The goal predicted at the best ratio.
      gain: The goal at the best ratio minus that at equal shares.
      gain_interval: The interval of the gain that includes 90 % of the bootstrap.
      noise: The standard deviation of the goal of a job over seeds.
      seeded: Whether it was measured over seeds; otherwise it is what the models leave unexplained.
      next: The ratios to try next, [num_next, num_sources]: one beyond the edge if there is any, then the most
        promising first.
      promises: The expected improvement on `predicted` of each of them, 0 or more, [num_next].
      beyond: Whether the first of them lies beyond the edge of what was tried.
      goal: The function from ratios [M, num_sources] to the mean, 5 % and 95 % of the goal, [3, M].
    """

    names: Sequence[str]
    model: str
    errors: Mapping[str, float]
    verdict: Literal["clear", "flat", "edge", "noise"]
    best: np.ndarray
    edges: np.ndarray
    interval: np.ndarray
    predicted: float
    gain: float
    gain_interval: tuple[float, float]
    noise: float
    seeded: bool
    next: np.ndarray
    promises: np.ndarray
    beyond: bool
    goal: Callable[[np.ndarray], np.ndarray]

    @property
    def improvement(self) -> float:
        """The largest of `promises`."""
        return float(self.promises.max())


class _Data:
    """The measurements of K metrics at N ratios: standardised means over the jobs of each ratio, with their weights.

    A job that lacks a metric counts for the other metrics, but not for the goal.

    Attributes:
      ratios: The ratios, [N, num_sources].
      values: The mean of each metric at each ratio, standardised, [K, N].
      counts: The number of jobs in each mean, [K, N].
      centre, scale: The mean and deviation of each metric, [K, 1].
      num_goals: The number of jobs at each ratio whose goal is known, [N].
      measured: Whether there are any, [N].
      goals: The mean of their goals, [N]; NaN if there are none.
      judged: The weight of each ratio in the error of a model, [N].
      weights: The weights of the measurements in a fit, [K, N].
      deviations: The standard deviation of each metric over the seeds of a ratio, standardised, [K, 1].
      seeded: Whether enough jobs share their ratio with others to estimate the noise from them.
      num_free: The number of these jobs, without one for each ratio: the degrees of freedom of `pooled`.
      pooled: The standard deviation of the goal over the seeds of a ratio, if it is the same for all ratios.
      noise: The same at the best ratio; ratios near the best count for more.
      freedom: The effective degrees of freedom of `noise`.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.ratios, place = np.unique(evidence.shares.round(6), axis=0, return_inverse=True)
        place = place.reshape(-1)
        raw = np.stack(list(evidence.metrics.values()))
        is_known = np.isfinite(raw)
        raw = np.where(is_known, raw, np.nan)
        member = np.eye(len(self.ratios))[place]  # [jobs, N]
        self.counts = is_known @ member
        means = np.where(is_known, raw, 0) @ member / np.maximum(self.counts, 1)
        total = np.maximum(self.counts.sum(1, keepdims=True), 1)
        self.centre = (means * self.counts).sum(1, keepdims=True) / total
        among = (self.counts * (means - self.centre) ** 2).sum(1, keepdims=True) / total
        around, free = np.where(is_known, raw - means[:, place], 0) ** 2 @ member, np.maximum(self.counts - 1, 0)
        # Means may be equal by chance, although the jobs of each ratio differ.
        around_mean = around.sum(1, keepdims=True) / np.maximum(free.sum(1, keepdims=True), 1) / (1 + free.max())
        self.scale = np.sqrt(np.maximum(among, around_mean)) + 1e-12
        self.values = np.where(self.counts > 0, (means - self.centre) / self.scale, 0)
        goals = evidence.combine(raw)
        spread = [goals[(place == i) & np.isfinite(goals)] for i in range(len(self.ratios))]
        self.num_goals = np.array(list(map(len, spread)))
        self.measured = self.num_goals > 0
        self.goals = np.array([each.mean() if len(each) else np.nan for each in spread])
        gaps = np.nanmax(evidence.sign * self.goals) - evidence.sign * self.goals
        near = 1 / (1 + (gaps / (2 * np.nanmedian(gaps) + 1e-12)) ** 2)
        # The error at a ratio that alone has the least or largest share is one of extrapolation, whereas the best is
        # sought among the tried ratios.
        order = np.sort(self.ratios, 0)
        is_interior = self.measured & ~((self.ratios < order[1]) | (self.ratios > order[-2])).any(1)
        self.judged = np.where(is_interior if is_interior.sum() >= _AMONG else self.measured, near, 0)
        near = np.where(self.measured, near, np.nanmin(near))
        self.weights = self.counts * near
        self.deviations = np.sqrt(around @ near / np.maximum(free @ near, 1e-12))[:, None] / self.scale
        squares = np.array([((each - each.mean()) ** 2).sum() if len(each) else 0 for each in spread])
        # The goal of a ratio at the bottom, such as the accuracy of a source that it lacks, cannot vary.
        is_bottom = (squares == 0) & (gaps > 0) & (gaps == np.nanmax(gaps))
        free = np.where(is_bottom, 0, np.maximum(self.num_goals - 1, 0))
        self.num_free = int(free.sum())
        self.seeded = self.num_free >= _SEEDED
        self.pooled = float(np.sqrt(squares.sum() / max(self.num_free, 1)))
        self.freedom = float((near @ free) ** 2 / max(near**2 @ free, 1e-12))
        self.noise = float(np.sqrt(near @ squares / max(near @ free, 1e-12)))

    def goal(self, predictions: np.ndarray) -> np.ndarray:
        """The goal [B, M] of predicted metrics, standardised, [K, B, M]."""
        # A model may diverge where there are no measurements, so that predictions are limited to thrice their range.
        limit = 3 * np.abs(self.values).max(1)[:, None, None] + 1
        bounded = np.clip(predictions, -limit, limit)
        return self.evidence.combine(bounded * self.scale[..., None] + self.centre[..., None])

    def goal_at(self, fitted: Sequence[Fitted], ratios: np.ndarray) -> np.ndarray:
        """The goal at ratios, predicted by the model that was fitted to each metric."""
        return self.goal(np.stack([each.predict(ratios) for each in fitted]))


def analyse(evidence: Evidence, *, num_next: int = 3, seed: int = 0) -> Answer:
    """Fit every model to every metric, choose one by its error at ratios left out, and find the best ratio.

    The models are those of `datamix.sweeps.surfaces`. The intervals are those of a wild bootstrap of each ratio's mean
    over its seeds: each draw adds noise, draws a model by how well it predicts ratios left out, fits it, and finds its
    best ratio. The search begins at convex combinations of the tried ratios, and stays within the range of each share.

    Args:
      evidence: The measurements.
      num_next: The number of ratios to propose.
      seed: The seed of the draws; the same evidence gives the same answer.
    """
    random, sign = np.random.default_rng(seed), evidence.sign
    data = _Data(evidence)
    fits = [models(evidence.source_of[name]) for name in evidence.metrics]
    validations = {
        name: _validate(data, [each[name] for each in fits]) for name in fits[0] if all(name in each for each in fits)
    }
    # With few ratios, a constant may have the least error even if one ratio is worse by far more than the noise.
    differ = data.seeded and _differ(data, data.pooled, data.num_free, random)
    errors, model, numbers = _judge(data, validations, random, constant=not differ)
    point = [
        fit[model](data.ratios, *each)
        for fit, *each in zip(fits, data.values[:, None], data.weights[:, None], strict=True)
    ]
    equal = np.full(data.ratios.shape[1], 1 / data.ratios.shape[1])
    if model == "constant":
        best = data.ratios[np.abs(data.ratios - equal).sum(1).argmin()]
    else:
        best = _best(data, model, point, 1, random)[0]
    noise, deviations, freedom = data.noise, data.deviations, data.freedom
    if not data.seeded:
        at_best = np.stack([each.predict(best[None, None])[0] for each in point])
        noise, deviations, freedom = _noise(data, validations.values(), at_best, random)
    least = deviations / np.sqrt(np.maximum(data.counts, 1))
    bootstrap = [
        (
            name,
            number,
            _bootstrap(data, [each[name] for each in fits], validations[name], least, freedom, number, random),
        )
        for name, number in numbers.items()
    ]

    def draws_at(at: np.ndarray) -> np.ndarray:
        return np.concatenate([data.goal_at(each, at[None]) for _, _, each in bootstrap])

    best_draws = np.concatenate([_best(data, name, each, number, random) for name, number, each in bootstrap])
    low, high = np.quantile(best_draws, (0.05, 0.95), axis=0)
    # The bootstrap does not see an error that all models share: no share is known to less than _LEAST.
    interval = np.stack([np.minimum(low, best - _LEAST), np.maximum(high, best + _LEAST)], 1).clip(0, 1)
    both = np.stack([best, equal])
    predicted, at_equal = data.goal_at(point, both[None])[0]
    gains = np.subtract(*draws_at(both).T)
    gain = float(predicted - at_equal)
    gain_interval = (min(gain, float(np.quantile(gains, 0.05))), max(gain, float(np.quantile(gains, 0.95))))
    noises = noise * _uncertainty(freedom, _DRAWS, random)
    spread = np.ptp(data.goal_at(point, data.ratios[None])[0])
    if not data.seeded:
        differ = _differ(data, noise, freedom, random)
    alike = spread < _CLEAR * noise and not differ
    verdict = "flat" if alike else _verdict(data, best, sign * gains, noises)
    beyond = _beyond(data, best) if verdict == "edge" else np.empty((0, len(best)))

    def promise_at(at: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(sign * (draws_at(at) - predicted), 0).mean(0))

    following, promises = _propose(data, best, beyond, promise_at, num_next, random)

    def goal(at: np.ndarray) -> np.ndarray:
        return np.concatenate([data.goal_at(point, at[None]), np.quantile(draws_at(at), (0.05, 0.95), axis=0)])

    return Answer(
        names=evidence.names,
        model=model,
        errors=errors,
        verdict=verdict,
        best=best,
        edges=np.logical_or(*_at_ends(data, best)),
        interval=interval,
        predicted=float(predicted),
        gain=gain,
        gain_interval=gain_interval,
        noise=noise,
        seeded=data.seeded,
        next=following,
        promises=promises,
        beyond=len(beyond) > 0,
        goal=goal,
    )


@dataclass(frozen=True)
class _Validation:
    """The results of a model that was fitted to all ratios, and without each ratio in turn.

    Attributes:
      predicted: The metrics that the fit to all ratios predicts, standardised, [K, N].
      left_out: The residuals at each ratio of the fit without it, [K, N].
      errors: The errors of the goal at each ratio of the fit without it, [N]; 0 if the goal is not measured.
      parameters: The effective number of parameters for each metric, [K].
    """

    predicted: np.ndarray
    left_out: np.ndarray
    errors: np.ndarray
    parameters: np.ndarray


def _validate(data: _Data, fits: Sequence[Callable[..., Fitted]]) -> _Validation:
    size = len(data.ratios)
    masks = np.concatenate([np.ones((1, size)), 1 - np.eye(size)])
    rows = zip(fits, data.values, data.weights, strict=True)
    fitted = [fit(data.ratios, np.broadcast_to(values, masks.shape), weights * masks) for fit, values, weights in rows]
    predictions = np.stack([each.predict(data.ratios[None]) for each in fitted])  # [K, 1 + N, N]
    without = np.diagonal(predictions[:, 1:], axis1=1, axis2=2)
    errors = np.where(data.measured, data.goals - data.goal(without[:, None])[0], 0)
    return _Validation(predictions[:, 0], data.values - without, errors, np.array([each.parameters for each in fitted]))


def _judge(
    data: _Data, validations: Mapping[str, _Validation], random: np.random.Generator, *, constant: bool
) -> tuple[dict[str, float], str, dict[str, int]]:
    """Choose a model, and the models of the bootstrap.

    With few ratios an error is uncertain: each draw weights the ratios anew, and draws a model by its likelihood under
    these weights. Source: Y. Yao et al., Using stacking to average Bayesian predictive distributions (2018),
    pseudo-BMA+.

    Args:
      data: The measurements.
      validations: The results of each model.
      random: The generator of the draws.
      constant: Whether the goal may be the same at all ratios.

    Returns:
      The error of each model, the name of the chosen model, and the number of draws for each model of the bootstrap.
    """
    squares = np.stack([data.judged * validation.errors**2 for validation in validations.values()])
    errors = dict(zip(validations, np.sqrt(squares.sum(1) / data.judged.sum()).tolist(), strict=True))
    if constant and errors["constant"] <= 1.15 * min(errors.values()):
        model = "constant"
    else:
        model = min((name for name in errors if name != "constant"), key=errors.__getitem__)
    size = data.judged.sum() ** 2 / (data.judged**2).sum()
    log_errors = np.log(random.exponential(size=(_DRAWS, len(data.ratios))) @ squares.T + 1e-300)
    likelihoods = random.gumbel(size=log_errors.shape) - size / 2 * log_errors
    if not constant:
        likelihoods[:, list(validations).index("constant")] = -np.inf
    indices = likelihoods.argmax(1)
    numbers = zip(validations, np.bincount(indices, minlength=len(validations)).tolist(), strict=True)
    return errors, model, {name: number for name, number in numbers if number}


def _noise(
    data: _Data, validations: Iterable[_Validation], at_best: np.ndarray, random: np.random.Generator
) -> tuple[float, np.ndarray, float]:
    """Estimate the deviation of the goal at the best ratio from residuals, if few ratios have several jobs.

    It is that of the model with the least residual variance, corrected for its parameters as in Mallows's Cp: a model
    that misses something leaves more than noise. The correlation of the residuals of different metrics estimates the
    noise that all metrics of a job share.

    Args:
      data: The measurements.
      validations: The results of the models.
      at_best: The predicted metrics at the best ratio, standardised, [K, 1].
      random: The generator of the draws.

    Returns:
      The deviation, that of each metric, standardised, [K, 1], and the degrees of freedom.
    """
    number = data.counts.astype(bool).sum(1)
    weights = data.weights * (data.counts.sum(1) / data.weights.sum(1))[:, None]
    least = np.inf
    for validation in validations:
        free = number - validation.parameters
        enough = (free >= np.minimum(_SPARE, (number - 1) / 2)).all()
        residuals = (data.values - validation.predicted) * np.sqrt(weights / np.maximum(free, 1)[:, None])
        spread = np.sqrt((residuals**2).sum(1, keepdims=True)) + 1e-12
        if enough and (size := np.log(spread).mean()) < least:
            least, deviations, parts, freedom = size, spread, residuals / spread, free.mean()
    metrics = len(data.values)
    common = np.clip(((parts.sum(0) ** 2).sum() - metrics) / max(metrics * (metrics - 1), 1), 0, 1)
    separate, shared = random.normal(size=(metrics, 4000)), random.normal(size=4000)
    draws = at_best + deviations * (np.sqrt(1 - common) * separate + np.sqrt(common) * shared)
    noise, freedom = data.goal(draws[:, None]).std(), freedom * (metrics * (1 - common) + common)
    return float(noise), deviations, float(freedom)


def _uncertainty(freedom: float, number: int, random: np.random.Generator) -> np.ndarray:
    """Draws of the ratio of a deviation to its estimate that has so many degrees of freedom, [number]."""
    return np.sqrt(freedom / random.chisquare(freedom, number))


def _bootstrap(
    data: _Data,
    fits: Sequence[Callable[..., Fitted]],
    validation: _Validation,
    least: np.ndarray,
    freedom: float,
    number: int,
    random: np.random.Generator,
) -> list[Fitted]:
    """Fit a model to its predictions with noise, the wild bootstrap, whose residuals are those at ratios left out.

    The typical residual, 1.5 times the median of their sizes, counts as much as the ratio's own: a residual may be
    small by chance, and that of a corner, which is far from all other ratios, says little about noise. None is smaller
    than `least` [K, N], the noise of the mean, which is itself known only to so many degrees of freedom: a model may
    pass through few ratios whatever was measured there.
    """
    typical = 1.5 * np.median(np.abs(validation.left_out[:, data.measured]), 1, keepdims=True)
    residuals = np.sqrt((np.minimum(validation.left_out**2, 4 * typical**2) + typical**2) / 2)
    uncertainty = _uncertainty(max(freedom, _SEEDED), number, random)[:, None]
    residuals = np.maximum(residuals[:, None], least[:, None] * uncertainty)
    noise = random.normal(size=(len(fits), number, len(data.ratios)))
    values = validation.predicted[:, None] + residuals * noise
    return [
        fit(data.ratios, each, np.broadcast_to(weight, each.shape), random)
        for fit, each, weight in zip(fits, values, data.weights, strict=True)
    ]


def _combinations(data: _Data, number: int, random: np.random.Generator) -> np.ndarray:
    """The tried ratios and random convex combinations of them, [number, num_sources]."""
    weights = random.dirichlet(np.full(len(data.ratios), 0.3), size=max(number - len(data.ratios), 0))
    return np.concatenate([data.ratios, weights @ data.ratios])[:number]


def _best(data: _Data, model: str, fitted: Sequence[Fitted], number: int, random: np.random.Generator) -> np.ndarray:
    """The best ratio under each of several fits of a model, [number, num_sources]."""
    if model == "constant":  # all ratios are equally good
        return _combinations(data, len(data.ratios) + number, random)[-number:]
    return _search(data, lambda at: data.evidence.sign * data.goal_at(fitted, at), number, random)


def _search(data: _Data, goal: Combine, number: int, random: np.random.Generator) -> np.ndarray:
    """Maximise each of several goals by differential evolution; returns the best ratios, [number, num_sources].

    Source: R. Storn, K. Price, Differential evolution (1997). A step is a combination of differences of ratios, so
    that shares keep their sum; it is shortened where a share would leave the range of those tried.
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
        # The share of the step after which the first share reaches a bound.
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(step > 0, (high - ratios) / step, np.where(step < 0, (low - ratios) / step, np.inf))
        trials = ratios + np.clip(room.min(-1, keepdims=True), 0, 1) * step
        trial_goals = goal(trials)
        better = trial_goals > values
        ratios, values = np.where(better[..., None], trials, ratios), np.where(better, trial_goals, values)
    return np.asarray(ratios[np.arange(number), values.argmax(1)].clip(0, 1))


def _at_ends(data: _Data, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each share of the best ratio is the least of those tried but not 0, or the largest but not 1."""
    low, high = data.ratios.min(0), data.ratios.max(0)
    return (best <= low + _TRIED) & (low > 1e-6), (best >= high - _TRIED) & (high < 1 - 1e-6)


def _verdict(data: _Data, best: np.ndarray, gains: np.ndarray, noises: np.ndarray) -> Literal["clear", "edge", "noise"]:
    """The verdict, see `Answer`, if the curve is not flat.

    Args:
      data: The measurements.
      best: The best ratio.
      gains: Draws of the gain of the best ratio over equal shares; positive if it is better.
      noises: Draws of the noise.
    """
    if (gains > _CLEAR * noises).mean() < 0.5:
        return "noise"
    return "edge" if np.any(_at_ends(data, best)) else "clear"


def _differ(data: _Data, noise: float, freedom: float, random: np.random.Generator) -> bool:
    """Whether the measured goals differ by more than two deviations, and by more than means do by chance.

    As in Tukey's test, chance is the 95 % quantile of the range of as many means of as many jobs each, with the noise
    drawn by its degrees of freedom. A model may miss such a difference: with few ratios, a constant may have the least
    error.
    """
    means = random.normal(size=(4000, data.measured.sum())) / np.sqrt(data.num_goals[data.measured])
    noises = noise * _uncertainty(freedom, 4000, random)
    chance = np.quantile(np.ptp(means, axis=1) * noises, 0.95)
    return bool(np.nanmax(data.goals) - np.nanmin(data.goals) > max(_CLEAR * noise, chance))


def _propose(
    data: _Data, best: np.ndarray, beyond: np.ndarray, promise_at: Combine, number: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The ratios to try next, [number, num_sources], and the improvement that each promises, [number]."""

    def is_tried_at(at: np.ndarray) -> np.ndarray:
        return np.asarray(np.min([np.abs(at - ratio).max(1) for ratio in data.ratios], 0) <= _TRIED)

    # If none promises more, the best ratio itself comes first, unless it has been tried.
    candidates = np.concatenate([best[None], _combinations(data, _CANDIDATES, random)])
    is_tried = is_tried_at(candidates)
    promise = np.where(is_tried, 0, promise_at(candidates))
    # A ratio that was tried is only proposed if there is no other.
    worth = np.where(is_tried, 1e-15, promise + 1e-9 * promise.max() + 1e-12)
    first = beyond[promise_at(beyond).argmax()] if len(beyond) else candidates[worth.argmax()]
    chosen = _spread(candidates, worth, first, number)
    return chosen, np.where(is_tried_at(chosen), 0, promise_at(chosen))


def _beyond(data: _Data, best: np.ndarray) -> np.ndarray:
    """Ratios beyond the edge, one per share at an edge, which moves halfway to 0 or 1; the rest keeps its proportions.

    Ratios that differ from the best by no more than `_LEAST`, or have a share below `least`, are left out.
    """
    ratios, (at_low, at_high) = np.empty((0, len(best))), _at_ends(data, best)
    for i in np.flatnonzero(at_low | at_high):
        share = best[i] / 2 if at_low[i] else (1 + best[i]) / 2
        if abs(share - best[i]) > _LEAST and best[i] < 1:
            ratio = best * (1 - share) / (1 - best[i])
            ratio[i] = share
            ratios = np.concatenate([ratios, ratio[None]])
    return ratios[(ratios >= data.evidence.least - 1e-9).all(1)]


def _spread(candidates: np.ndarray, worth: np.ndarray, first: np.ndarray, number: int) -> np.ndarray:
    """The first ratio, and the candidates of most worth that are not too close to those before."""
    chosen = [first]
    while len(chosen) < number:
        distance = np.min([np.abs(candidates - each).sum(1) for each in chosen], 0)
        chosen.append(candidates[np.argmax(worth * (1 - np.exp(-((distance / 0.1) ** 2))))])
    return np.stack(chosen)
