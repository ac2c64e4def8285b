"""Models of a metric as a function of the shares of a mix, fitted to many sets of measurements at once.

A model is fitted to values [B, N] at N ratios with weights [B, N], where each of the B rows is a fit of its own: to the
measurements, to those without one ratio (weight 0), to a bootstrap's. Values are standardised: mean 0, deviation 1.
"""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From ratios, [1 or B, M, num_sources], to values, [B, M]."""


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its prediction, and how many parameters it has spent on the data (of each row)."""

    predict: Predict
    parameters: float


_Random: TypeAlias = np.random.Generator | None
Fit: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator | None], Fitted]
"""From ratios [N, num_sources], values [B, N] and weights [B, N] to a fit of each row.

With a generator, what averages over several shapes draws one of them for each row.
"""


def models(source: int | None) -> Mapping[str, Fit]:
    """The models by name, for a metric of one `source`, or of the whole mix (None)."""
    fits: dict[str, Fit] = {"constant": _linear(lambda ratios: np.ones((*ratios.shape[:-1], 1)), 0)}
    fits["linear"] = _linear(lambda ratios: ratios, 1e-3)
    if source is not None:
        fits["law of its own share"] = _own_share(source, None)
        fits["law of its own share, with transfer"] = _own_share(source, 0.03)
    else:
        fits["additive quadratic"] = _linear(_additive, 1e-3)
    fits |= {"quadratic": _linear(_quadratic, 1e-2), "log-linear mixing law": _log_linear(source)}
    if importlib.util.find_spec("sklearn") is not None:
        fits["Gaussian process"] = _gaussian_process
    return fits


def _quadratic(ratios: np.ndarray) -> np.ndarray:
    """Scheffé's canonical polynomial of mixtures: shares, and their products by twos."""
    first, second = np.triu_indices(ratios.shape[-1], 1)
    return np.concatenate([ratios, 4 * ratios[..., first] * ratios[..., second]], -1)


def _additive(ratios: np.ndarray) -> np.ndarray:
    """Shares and their squares, whose sum is apart: one curvature for all shares, from which each may differ."""
    squares = ratios**2
    return np.concatenate([ratios, 4 * squares.sum(-1, keepdims=True), 0.3 * squares], -1)


def _linear(features: Callable[[np.ndarray], np.ndarray], ridge: float) -> Fit:
    def fit(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, _random: _Random = None) -> Fitted:
        inputs = features(ratios)
        solution, parameters = _least_squares(inputs, values, weights, ridge)
        return Fitted(lambda at: np.matmul(features(at), solution[:, :, None])[..., 0], parameters)

    return fit


def _least_squares(
    inputs: np.ndarray, values: np.ndarray, weights: np.ndarray, ridge: float | np.ndarray
) -> tuple[np.ndarray, float]:
    """Ridge regression of each row: coefficients [B, P], and the effective number of them in the first row."""
    gram = np.einsum("bn,np,nq->bpq", weights, inputs, inputs, optimize=True)
    regular = gram + np.eye(inputs.shape[1]) * (ridge + 1e-9)
    solution = np.linalg.solve(regular, np.einsum("bn,np->bp", weights * values, inputs)[..., None])[..., 0]
    return solution, float(np.trace(np.linalg.solve(regular[0], gram[0])))


# Shapes of what a source's own share brings: exp(-t r), and the power law (r + e)^-p with which ADO (arXiv 2410.11820)
# and scaling laws describe a loss over the number of records.
_SHAPES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    *((lambda share, rate=rate: np.exp(-rate * share)) for rate in (-2.0, 0.01, *np.geomspace(1, 80, 40))),
    *(
        (lambda share, offset=offset, power=power: ((share + offset) / (0.5 + offset)) ** -power)
        for offset, power in itertools.product((1e-3, 0.01, 0.05), (0.25, 0.5, 1.0, 2.0))
    ),
)


def _own_share(source: int, transfer: float | None) -> Fit:
    """`a + b f(r)` of one share, with the shapes f of the least squares; with transfer, other shares change b."""

    def columns(ratios: np.ndarray, shape: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        own_share = shape(ratios[..., source])[..., None]
        if transfer is None:
            return own_share
        return np.concatenate([own_share, own_share * np.delete(ratios, source, -1)], -1)

    def fit(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, random: _Random = None) -> Fitted:
        parts = []
        for shape in _SHAPES:
            inputs = columns(ratios, shape)
            mean, deviation = inputs.mean(0), inputs.std(0) + 1e-12
            inputs = np.concatenate([np.ones((len(inputs), 1)), (inputs - mean) / deviation], -1)
            ridge = np.full(inputs.shape[1], transfer or 0.0)
            ridge[:2] = 1e-6
            solution, parameters = _least_squares(inputs, values, weights, ridge)
            errors = (weights * (values - solution @ inputs.T) ** 2).sum(1) + (ridge * solution**2).sum(1)
            parts.append((errors, solution, mean, deviation, parameters))
        # Akaike's weights: the best shape alone would change at the smallest noise, and the best ratio with it.
        errors = np.stack([errors for errors, *_ in parts])
        free = np.maximum(weights.sum(1) ** 2 / (weights**2).sum(1) - 3, 1)
        likelihood = -0.5 * free * (errors / np.maximum(errors.min(0), 1e-12) - 1)
        if random is None:
            shares = np.where(likelihood > -3, np.exp(likelihood), 0)
            shares /= shares.sum(0)
        else:
            shares = np.zeros_like(errors)
            chosen = (likelihood + random.gumbel(size=errors.shape)).argmax(0)
            shares[chosen, np.arange(len(values))] = 1

        def predict(at: np.ndarray) -> np.ndarray:
            at = np.broadcast_to(at, (len(values), *at.shape[1:]))
            result = np.zeros(at.shape[:2])
            for shape, share, (_, solution, mean, deviation, _) in zip(_SHAPES, shares, parts, strict=True):
                rows = share > 0
                if rows.any():
                    scaled = (columns(at[rows], shape) - mean) / deviation
                    part = solution[rows, :1] + np.matmul(scaled, solution[rows, 1:, None])[..., 0]
                    result[rows] += share[rows, None] * part
            return result

        return Fitted(predict, parts[errors[:, 0].argmin()][-1] + 1)

    return fit


def _log_linear(source: int | None) -> Fit:
    """`c + k exp(t · r)`, the data mixing law of arXiv 2403.16952, by the method of Levenberg and Marquardt.

    Coefficients are drawn towards 0, those of other sources' shares more than that of its own, so that few ratios of
    many sources determine them. Of several starts, the one that ends best is kept.
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
        chosen = errors.reshape(-1, rows).argmin(0)
        solution = solution.reshape(-1, rows, size + 2)[chosen, np.arange(rows)]
        return Fitted(lambda at: _law(at - centre, solution)[0], parameters)

    return fit


def _law(inputs: np.ndarray, solution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exponent = np.matmul(np.broadcast_to(inputs, (len(solution), *inputs.shape[-2:])), solution[:, 2:, None])[..., 0]
    power = np.exp(np.clip(exponent, -30, 30))
    return solution[:, :1] + solution[:, 1:2] * power, power


def _marquardt(
    inputs: np.ndarray, values: np.ndarray, weights: np.ndarray, solution: np.ndarray, penalty: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    damping = np.full(len(values), 1e-2)

    def cost(solution: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        predicted, power = _law(inputs, solution)
        error = values - predicted
        return (weights * error**2).sum(1) + (penalty * solution**2).sum(1), error, power

    errors, residual, power = cost(solution)
    for _ in range(40):
        scaled = solution[:, 1:2] * power
        jacobian = np.concatenate([np.ones_like(power)[..., None], power[..., None], scaled[..., None] * inputs], -1)
        gram = np.einsum("bn,bnp,bnq->bpq", weights, jacobian, jacobian, optimize=True)
        gradient = np.einsum("bn,bnp->bp", weights * residual, jacobian) - penalty * solution
        regular = gram + np.diag(penalty)
        diagonal = np.eye(len(penalty)) * np.einsum("bpp->bp", regular)[:, None] + 1e-9
        damped = regular + damping[:, None, None] * diagonal
        step = np.linalg.solve(damped + 1e-9 * np.eye(len(penalty)), gradient[..., None])[..., 0]
        tried, tried_residual, tried_power = cost(solution + step)
        better = tried < errors
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e6)
        solution = np.where(better[:, None], solution + step, solution)
        residual = np.where(better[:, None], tried_residual, residual)
        power = np.where(better[:, None], tried_power, power)
        errors = np.where(better, tried, errors)
    return solution, errors, float(np.trace(np.linalg.solve(regular[0] + 1e-9 * np.eye(len(penalty)), gram[0])))


def _gaussian_process(ratios: np.ndarray, values: np.ndarray, weights: np.ndarray, _random: _Random = None) -> Fitted:
    """A Gaussian process whose kernel is that of the first row's greatest likelihood."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1.0, (0.1, 100)) * RBF(0.5, (0.1, 10)) + WhiteKernel(0.05, (1e-4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is a length like another
        seen = weights[0] > 0
        process = GaussianProcessRegressor(kernel, random_state=0).fit(ratios[seen], values[0, seen])
    signal, noise = process.kernel_.k1, process.kernel_.k2.noise_level
    covariance = signal(ratios)
    spread = noise / np.maximum(weights, 1e-9)
    total = covariance + np.eye(len(ratios)) * spread[:, None]
    solution = np.linalg.solve(total, values[..., None])

    def predict(at: np.ndarray) -> np.ndarray:
        across = signal(at.reshape(-1, at.shape[-1]), ratios).reshape(*at.shape[:-1], len(ratios))
        return np.asarray(np.matmul(across, solution)[..., 0])

    return Fitted(predict, float(np.trace(np.linalg.solve(total[0], covariance))))
