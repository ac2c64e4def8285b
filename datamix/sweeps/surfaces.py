"""Models of a metric as a function of the shares of a mix, fitted to many sets of measurements at once.

A model is fitted to values [B, N] at N ratios with weights [B, N], where each of the B rows is a separate fit: to the
measurements, to those without one ratio (weight 0), or to a draw of a bootstrap. Values have mean 0 and deviation 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From ratios [1 or B, M, num_sources] to values [B, M]."""


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its prediction, and its effective number of parameters, that of the first row."""

    predict: Predict
    parameters: float


# The length scales of a Gaussian process, and its noise variances relative to that of the signal.
_LENGTHS, _NOISES = np.geomspace(0.1, 10, 24), np.geomspace(1e-5, 20, 30)

_Random: TypeAlias = np.random.Generator | None
Fit: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator | None], Fitted]
"""From ratios [N, num_sources], values [B, N] and weights [B, N] to a fit of each row.

With a generator, a model that averages over several shapes draws one of them for each row instead.
"""


def models(source: int | None) -> Mapping[str, Fit]:
    """The models by name.

    Args:
      source: The index of the source of the metric; None for a metric of the whole mix.
    """
    fits: dict[str, Fit] = {"constant": _linear(lambda ratios: np.ones((*ratios.shape[:-1], 1)), 0)}
    fits["linear"] = _linear(lambda ratios: ratios, 1e-3)
    if source is not None:
        fits["law of its own share"] = _own_share(source, None)
        fits["law of its own share, with transfer"] = _own_share(source, 0.03)
    else:
        fits["additive quadratic"] = _linear(_additive, 1e-3)
    fits |= {"quadratic": _linear(_quadratic, 1e-2), "log-linear mixing law": _log_linear(source)}
    return fits | {"Gaussian process": _gaussian_process}


def _quadratic(ratios: np.ndarray) -> np.ndarray:
    """The features of Scheffé's canonical polynomial of mixtures: shares and their pairwise products."""
    first, second = np.triu_indices(ratios.shape[-1], 1)
    return np.concatenate([ratios, 4 * ratios[..., first] * ratios[..., second]], -1)


def _additive(ratios: np.ndarray) -> np.ndarray:
    """The features of shares, the sum of their squares, and each square.

    The sum stands for a common curvature; the smaller squares, which ridge regression penalises more, for differences.
    """
    squares = ratios**2
    return np.concatenate([ratios, 4 * squares.sum(-1, keepdims=True), 0.3 * squares], -1)


def _linear(features: Callable[[np.ndarray], np.ndarray], ridge: float) -> Fit:
    def fit(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, _random: _Random = None) -> Fitted:
        inputs = features(ratios)
        solution, parameters = _least_squares(inputs, values, weights, ridge)
        return Fitted(lambda at: np.matmul(features(at), solution[:, :, None])[..., 0], float(parameters))

    return fit


def _least_squares(
    inputs: np.ndarray, values: np.ndarray, weights: np.ndarray, ridge: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of each row on inputs [..., N, P].

    Args:
      inputs: The inputs, [..., N, P].
      values: The values, [B, N].
      weights: The weights of the values, [B, N].
      ridge: The penalty on squared coefficients, a scalar or [P].

    Returns:
      The coefficients [..., B, P], and their effective number in the first row [...].
    """
    products = (inputs[..., None] * inputs[..., None, :]).reshape(*inputs.shape[:-1], -1)
    gram = np.matmul(weights, products).reshape(*inputs.shape[:-2], len(weights), *2 * inputs.shape[-1:])
    regular = gram + np.eye(inputs.shape[-1]) * (ridge + 1e-9)
    solution = np.linalg.solve(regular, np.matmul(weights * values, inputs)[..., None])[..., 0]
    return solution, np.linalg.solve(regular[..., 0, :, :], gram[..., 0, :, :]).trace(axis1=-2, axis2=-1)


# Shapes of the effect of a source's own share r: exp(-t r), and the power law (r + e)^-p with which ADO (arXiv
# 2410.11820) and scaling laws describe a loss over the number of records. A row is t, e, p.
_SHAPES = np.array(
    [(rate, 1.0, 0.0) for rate in (-2.0, 0.01, *np.geomspace(1, 80, 40))]
    + [(0.0, *each) for each in itertools.product((1e-3, 0.01, 0.05), (0.25, 0.5, 1.0, 2.0))]
)


def _shape(share: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The value of each shape, given by `parameters` [..., 3], at shares that broadcast with [...]."""
    rate, offset, power = np.moveaxis(parameters, -1, 0)
    return np.asarray(np.exp(-rate * share - power * np.log((share + offset) / (0.5 + offset))))


def _own_share(source: int, transfer: float | None) -> Fit:
    """`a + b f(r)` of one share r, averaged over the shapes f that fit best.

    Args:
      source: The index of the source.
      transfer: The ridge penalty on the effect of the other shares on b; None if they have none.
    """

    def fit(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, random: _Random = None) -> Fitted:
        shape_values = _shape(ratios[:, source], _SHAPES[:, None])[..., None]  # [shapes, N, 1]
        selector = np.delete(np.eye(ratios.shape[1]), source, 1)[:, : None if transfer else 0]
        inputs = np.concatenate([shape_values, shape_values * (ratios @ selector)], -1)
        mean, deviation = inputs.mean(1, keepdims=True), inputs.std(1, keepdims=True) + 1e-12
        inputs = np.concatenate([np.ones_like(shape_values), (inputs - mean) / deviation], -1)
        ridge = np.full(inputs.shape[-1], transfer or 0.0)
        ridge[:2] = 1e-6
        solution, parameters = _least_squares(inputs, values, weights, ridge)  # [shapes, B, P]
        residuals = values - np.matmul(solution, inputs.swapaxes(1, 2))
        errors = (weights * residuals**2).sum(-1) + (ridge * solution**2).sum(-1)
        # An average by Akaike's weights: the best shape, and with it the best ratio, may change with the least noise.
        free = np.maximum(weights.sum(1) ** 2 / (weights**2).sum(1) - 3, 1)
        likelihood = -0.5 * free * (errors / np.maximum(errors.min(0), 1e-12) - 1)
        if random is not None:
            likelihood += random.gumbel(size=errors.shape)
        order = np.argsort(-likelihood, 0, kind="stable")[: 1 if random is not None else None]
        ranked = np.take_along_axis(likelihood, order, 0)
        trust = np.where(ranked > ranked[0] - 3, np.exp(ranked - ranked[0]), 0)
        order = order[: (trust > 0).any(1).sum()]  # [kept, B]
        trust = (trust / trust.sum(0))[: len(order)]
        # The same without standardised inputs: offset + f(own share) * (slope + shares of others @ transfer).
        slopes = solution[..., 1:] / deviation
        offsets = (trust * np.take_along_axis(solution[..., 0] - (slopes * mean).sum(-1), order, 0)).sum(0)
        slopes = trust[..., None] * np.take_along_axis(slopes, order[..., None], 0)

        def predict(at: np.ndarray) -> np.ndarray:
            result = np.broadcast_to(offsets[:, None], (len(values), at.shape[1])).copy()
            for shape, slope in zip(_SHAPES[order], slopes, strict=True):
                factor = slope[:, :1] + np.matmul(at, selector @ slope[:, 1:, None])[..., 0]
                result += factor * _shape(at[..., source], shape[:, None])
            return result

        return Fitted(predict, float(parameters[errors[:, 0].argmin()]) + 1)

    return fit


def _log_linear(source: int | None) -> Fit:
    """`c + k exp(t · r)`, the data mixing law of arXiv 2403.16952, fitted by the Levenberg-Marquardt method.

    A penalty shrinks the coefficients t towards 0, for the shares of other sources more than for the source's own, so
    that few ratios of many sources determine them. The best of several starts is kept.

    Args:
      source: The index of the source; None for a metric of the whole mix.
    """

    def fit(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, _random: _Random = None) -> Fitted:
        centre, (rows, size) = ratios.mean(0), (len(values), ratios.shape[1])
        inputs = ratios - centre
        penalty = np.full(size + 2, 1e-3)
        penalty[:2] = 1e-6  # c, k
        if source is not None:
            penalty[2 + source] = 1e-6
            slopes = [np.eye(size)[source] * rate for rate in (-3.0, -10.0, -30.0)]
        else:
            slopes = [sign * _least_squares(inputs, values[:1], weights[:1], 1e-2)[0][0] for sign in (-1.0, 1.0)]
        starts = []
        for slope in slopes:
            columns = np.stack([np.ones(len(inputs)), np.exp(inputs @ slope)], -1)
            start, _ = _least_squares(columns, values, weights, 1e-6)
            starts.append(np.concatenate([start, np.broadcast_to(slope, (rows, size))], 1))
        many = np.tile(values, (len(starts), 1)), np.tile(weights, (len(starts), 1))
        solution, errors, parameters = _marquardt(inputs, *many, np.concatenate(starts), penalty)
        best_start = errors.reshape(-1, rows).argmin(0)
        solution = solution.reshape(-1, rows, size + 2)[best_start, np.arange(rows)]
        return Fitted(lambda at: _law(at - centre, solution)[0], parameters)

    return fit


def _law(inputs: np.ndarray, solution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The law's values, and its exponential alone, [B, M] both, for rows (c, k, t) of the solution."""
    exponent = np.matmul(np.broadcast_to(inputs, (len(solution), *inputs.shape[-2:])), solution[:, 2:, None])[..., 0]
    power = np.exp(np.clip(exponent, -30, 30))
    return solution[:, :1] + solution[:, 1:2] * power, power


def _marquardt(
    inputs: np.ndarray, values: np.ndarray, weights: np.ndarray, solution: np.ndarray, penalty: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit `_law` by the Levenberg-Marquardt method; returns the solution, its cost, and the effective parameters."""
    damping = np.full(len(values), 1e-2)

    def cost(solution: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        predicted, power = _law(inputs, solution)
        error = values - predicted
        return (weights * error**2).sum(1) + (penalty * solution**2).sum(1), error, power

    errors, residual, power = cost(solution)
    for _ in range(40):
        scaled = solution[:, 1:2] * power
        jacobian = np.concatenate([np.ones_like(power)[..., None], power[..., None], scaled[..., None] * inputs], -1)
        gram = np.matmul((weights[..., None] * jacobian).swapaxes(1, 2), jacobian)
        gradient = np.matmul((weights * residual)[:, None], jacobian)[:, 0] - penalty * solution
        regular = gram + np.diag(penalty)
        diagonal = np.eye(len(penalty)) * np.einsum("bpp->bp", regular)[:, None] + 1e-9
        damped = regular + damping[:, None, None] * diagonal
        step = np.linalg.solve(damped + 1e-9 * np.eye(len(penalty)), gradient[..., None])[..., 0]
        trial_errors, trial_residual, trial_power = cost(solution + step)
        better = trial_errors < errors
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e6)
        solution = np.where(better[:, None], solution + step, solution)
        residual = np.where(better[:, None], trial_residual, residual)
        power = np.where(better[:, None], trial_power, power)
        errors = np.where(better, trial_errors, errors)
    return solution, errors, float(np.trace(np.linalg.solve(regular[0] + 1e-9 * np.eye(len(penalty)), gram[0])))


def _gaussian_process(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, _random: _Random = None) -> Fitted:
    """A Gaussian process with an isotropic kernel, whose length and noise maximise the likelihood of the first row."""
    is_measured = weights[0] > 0
    # With the eigenvectors of the kernels, a likelihood for each noise is only a sum, and the variance has a formula.
    eigenvalues, vectors = _eigen(ratios[is_measured].tobytes(), ratios.shape[1])
    spectrum = np.maximum(eigenvalues, 0)[:, None] + _NOISES[:, None]  # [lengths, noises, N]
    power = (np.matmul(values[0, is_measured], vectors) ** 2)[:, None] / spectrum
    variance = np.clip(power.mean(-1), 0.1, 100)
    likelihood = -(np.log(spectrum).sum(-1) + power.sum(-1) / variance + is_measured.sum() * np.log(variance))
    row, column = np.unravel_index(likelihood.argmax(), likelihood.shape)
    length, noise = _LENGTHS[row], _NOISES[column]
    covariance = np.exp(-0.5 * _distances(ratios) / length**2)
    total = covariance + np.eye(len(ratios)) * (noise / np.maximum(weights, 1e-9))[:, None]
    solution = np.linalg.solve(total, values[..., None])

    def predict(at: np.ndarray) -> np.ndarray:
        squares = (at**2).sum(-1)[..., None] + (ratios**2).sum(-1) - 2 * at @ ratios.T
        return np.asarray(np.matmul(np.exp(-0.5 * squares / length**2), solution)[..., 0])

    return Fitted(predict, float(np.trace(np.linalg.solve(total[0], covariance))))


@lru_cache(2)
def _eigen(ratios: bytes, num_sources: int) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues and eigenvectors of the kernel of each length; cached, as all metrics have the same ratios."""
    distances = _distances(np.frombuffer(ratios).reshape(-1, num_sources))
    return np.linalg.eigh(np.exp(-0.5 * distances / _LENGTHS[:, None, None] ** 2))


def _distances(ratios: np.ndarray) -> np.ndarray:
    """The squared distances between ratios, [N, N]."""
    return np.asarray(((ratios[:, None] - ratios) ** 2).sum(-1))
