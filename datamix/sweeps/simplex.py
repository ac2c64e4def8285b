"""The ratios that `hydra/sweeper=simplex` tries: points of the simplex, whose shares add up to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from omegaconf import DictConfig, OmegaConf

from datamix.config.check import Node, read
from datamix.config.compose import load_plugins
from datamix.config.parse import parse
from datamix.config.schema import Count, Rate
from datamix.errors import ConfigError
from datamix.mixing.groups import resolve
from datamix.mixing.weights import parse_ratio
from datamix.sweeps.sobol import sobol

PARTS = 10_000
"""A share is a multiple of 1 / PARTS."""
_BLOCK, _BLOCKS = 256, 256  # the number of points drawn at a time, and of such blocks before giving up
_SWEEPER = "hydra.sweeper"


@dataclass(frozen=True, kw_only=True)
class Simplex:
    """The settings of the sweeper, below `hydra.sweeper`.

    Attributes:
      num_jobs: The number of ratios, which other swept keys multiply; a larger number begins with the same ratios.
      prior: The ratio around which they are drawn: "7:3", or relative weights by source, where missing ones are 1.
      strength: How close they are to the prior; with 1 and an equal prior, they are uniform over the simplex.
      seed: The seed of the draw.
      min: The least share of a source.
      max_epochs: The most epochs of a source within the budget of records; None for no limit.
      ratios: The ratios themselves, such as ["7:3", "1:1"]; "alone" for each source by itself; None to draw them.
      first_job: The number of the first job if the sweep continues an earlier one in its directory; otherwise 0.
    """

    num_jobs: Count
    prior: Any = None
    strength: Rate = 1.0
    seed: Annotated[int, Meta(ge=0)] = 0
    min: Annotated[float, Meta(ge=0)] = 0.0
    max_epochs: Rate | None = None
    ratios: list[str] | Literal["alone"] | None = None
    first_job: Annotated[int, Meta(ge=0)] = 0


def overrides_of(config: DictConfig, node: DictConfig) -> list[list[str]]:
    """The overrides that set the shares of each ratio.

    Args:
      config: The configuration of the sweep.
      node: The configuration of its first job, which determines the sources and the budget.

    Raises:
      ConfigError: A setting of the sweeper is wrong, or does not fit the sources.
    """
    plain: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    settings = Node({key: plain[key] for key in plain if key not in ("_target_", "max_batch_size", "params")}, _SWEEPER)
    simplex = read(Simplex, settings)
    settings.finish()
    names = [str(name) for name in node.source]
    if len(names) < 2:
        raise ConfigError(f"it draws ratios, and {names[0]} is the only source", key="hydra/sweeper", value="simplex")
    if simplex.ratios == "alone":
        return [share_overrides(names, [PARTS * (name == each) for name in names]) for each in names]
    caps = dict.fromkeys(names, PARTS) if simplex.max_epochs is None else _caps(node, simplex.max_epochs)
    points = _written(simplex.ratios, names) if simplex.ratios is not None else draw(simplex, names, caps)
    return [share_overrides(names, point) for point in points]


def share_overrides(names: Sequence[str], parts: Sequence[int]) -> list[str]:
    """The overrides that set a ratio.

    Args:
      names: The names of the sources.
      parts: The share of each source, in ten-thousandths.

    >>> share_overrides(["a", "b"], [3100, 6900])
    ['mix.share.a=0.3100', 'mix.share.b=0.6900']
    """
    return [f"mix.share.{name}={part / PARTS:.4f}" for name, part in zip(names, parts, strict=True)]


def draw(simplex: Simplex, names: Sequence[str], caps: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Draw ratios: the corners, equal shares, the prior, then points of a Dirichlet distribution.

    These points are the quantiles of a scrambled Sobol sequence, which covers the simplex evenly at every length.

    Args:
      simplex: The settings of the sweeper.
      names: The names of the sources.
      caps: The largest share of each source, in ten-thousandths.

    Returns:
      The shares of each ratio, in ten-thousandths.

    Raises:
      ConfigError: A setting is wrong, or there are not enough ratios within the bounds.

    >>> draw(Simplex(num_jobs=4, min=0.1), ["a", "b"], {"a": 10_000, "b": 10_000})[:3]
    [(9000, 1000), (1000, 9000), (5000, 5000)]
    """
    size, floor = len(names), math.ceil(simplex.min * PARTS - 1e-9)
    free = PARTS - size * floor
    if free < size:
        text = f"{size} sources leave less than that to each; it is below {1 / size:.4g}"
        raise ConfigError(text, key=f"{_SWEEPER}.min", value=simplex.min)
    prior = _prior(simplex.prior, names)
    first = [*np.eye(size), np.full(size, 1 / size), prior]
    points: dict[tuple[int, ...], None] = {}
    for i in range(_BLOCKS):
        uniform = np.clip(sobol(size, simplex.seed, i * _BLOCK, _BLOCK), 1e-9, 1 - 1e-9)
        gamma = _gamma(simplex.strength * size * prior, uniform) + 1e-300  # a Dirichlet draw once divided by its sum
        for shares in [*first, *(gamma / gamma.sum(1, keepdims=True))]:
            point = tuple(floor + part for part in rounded(shares, free))
            if all(part <= caps[name] for name, part in zip(names, point, strict=True)):
                points[point] = None
            if len(points) == simplex.num_jobs:
                return list(points)
        first = []
    text = f"only {len(points)} ratios keep to min, max_epochs and steps of {1 / PARTS}"
    mend = "Ask for fewer, allow more epochs, train for fewer steps, or name a prior that keeps to them."
    raise ConfigError(text, key=f"{_SWEEPER}.num_jobs", value=simplex.num_jobs, hint=mend)


def _gamma(shapes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The quantiles of gamma distributions of the given shape parameters; with 1, these are exponential."""
    if (shapes == 1).all():
        return np.asarray(-np.log1p(-uniform))
    from scipy.special import gammaincinv

    quantiles: np.ndarray = gammaincinv(shapes, uniform)
    return quantiles


def rounded(shares: np.ndarray, total: int = PARTS) -> list[int]:
    """Round shares to whole numbers with the sum `total`, by the largest remainders; each is within 1 of its share.

    >>> rounded([1 / 3, 1 / 3, 1 / 3])
    [3334, 3333, 3333]
    """
    exact = np.asarray(shares) * total
    parts = np.floor(exact).astype(int)
    gaining = np.argsort(parts - exact, kind="stable")[: total - parts.sum()]
    parts[gaining] += 1
    return [int(part) for part in parts]


def _prior(prior: Any, names: Sequence[str]) -> np.ndarray:
    where = f"{_SWEEPER}.prior"
    weights = prior if isinstance(prior, Mapping | None) else parse_ratio(prior, names, where)
    shares = resolve(names, weights=weights, where=where).shares
    if not all(shares):
        zero = names[[bool(share) for share in shares].index(False)]
        raise ConfigError("every source needs a weight above 0", key=f"{where}.{zero}", value=0)
    return np.array([float(share) for share in shares])


def _written(ratios: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    where = f"{_SWEEPER}.ratios"
    if not ratios:
        raise ConfigError("it has no ratio", key=where, value="[]")
    numbers = [list(parse_ratio(ratio, names, where).values()) for ratio in ratios]
    if empty := [ratio for ratio, weights in zip(ratios, numbers, strict=True) if not sum(weights)]:
        raise ConfigError("a ratio needs a number above 0", key=where, value=empty[0])
    return [rounded(np.array([float(weight / sum(weights)) for weight in weights])) for weights in numbers]


def _caps(node: DictConfig, max_epochs: float) -> dict[str, int]:
    """The largest share of each source under `max_epochs`, in ten-thousandths; opens the sources."""
    from datamix.builder.built import build

    where = f"{_SWEEPER}.max_epochs"
    load_plugins(node)
    config = parse(node)
    if (budget := config.budget) is None:
        text = "it needs a budget of records; set train.steps, stop.samples or stop.batches"
        raise ConfigError(text, key=where, value=max_epochs)
    if config.mix.unit != "record":
        raise ConfigError("epochs are counted where mix.unit=record alone", key=where, value=max_epochs)
    sizes = dict.fromkeys([str(name) for name in node.source], 0)
    built = build(config)
    for path, size in zip(built.plan.names, built.plan.sizes, strict=True):
        sizes[path.partition(".")[0]] += size
    caps = {name: min(PARTS, int(max_epochs * size / budget * PARTS)) for name, size in sizes.items()}
    if sum(caps.values()) < PARTS:
        text = f"no ratio of {budget:,} records repeats no source more often than that"
        raise ConfigError(text, key=where, value=max_epochs, hint="Allow more epochs, or train for fewer steps.")
    return caps
