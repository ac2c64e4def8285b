"""Operators on pairs of records of a batch, whatever their sources; labels become mixtures of two."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from datamix.errors import ConfigError, SpecError
from datamix.operators.base import Number, RandomKey, leaf_of, operator
from datamix.operators.image import image_of, in_dtype
from datamix.spec import Record

_NUM_QUANTILES = 2**12


@operator(random=True, paired=True, traced=("probability",))
def mixup(
    record: Record,
    partner: Record,
    key: RandomKey,
    *,
    alpha: float = 0.2,
    probability: Number = 1.0,
    leaf: str = "image",
    label: str = "label",
) -> Record:
    """Blend a record with its partner, and their labels in the same proportion.

    Args:
      record: The record; its label is a vector of floats with one element per class, as from `one_hot`.
      partner: Another record of the batch.
      key: The key of the draw.
      alpha: The partner's part is drawn from Beta(alpha, alpha), separately for each record.
      probability: The probability that a record is blended.
      leaf: The name of the leaf that is blended; its dtype is kept.
      label: The name of the label.

    Source: H. Zhang et al., mixup: beyond empirical risk minimization, ICLR (2018).
    """
    value, other = leaf_of(record, leaf, "mixup"), partner[leaf]
    kept, _ = _kept("mixup", key, alpha, probability)
    blended = kept * value.astype(jnp.float32) + (1 - kept) * other.astype(jnp.float32)
    return record | {leaf: in_dtype(blended, value.dtype)} | _labels("mixup", record, partner, label, kept)


@operator(random=True, paired=True, traced=("probability",))
def cutmix(
    record: Record,
    partner: Record,
    key: RandomKey,
    *,
    alpha: float = 1.0,
    probability: Number = 1.0,
    leaf: str = "image",
    label: str = "label",
) -> Record:
    """Paste a rectangle of the partner's image into a record's; its part of the area is the partner's in the label.

    Args:
      record: The record, as for `mixup`.
      partner: Another record of the batch.
      key: The key of the draws.
      alpha: The part of the area is drawn from Beta(alpha, alpha), separately for each record; a rectangle is cut off
        at the border of the image.
      probability: The probability that a record gets a rectangle.
      leaf: The name of the leaf.
      label: The name of the label.

    Source: S. Yun et al., CutMix: regularization strategy to train strong classifiers with localizable features,
      ICCV (2019).
    """
    value = image_of(record, leaf, "cutmix")
    kept, draws = _kept("cutmix", key, alpha, probability)
    inside, area = jnp.ones((1, 1, 1), bool), jnp.float32(1)
    for axis, center in zip((0, 1), jax.random.uniform(draws, (2,)), strict=True):
        length = value.shape[axis]
        half = jnp.sqrt(1 - kept) / 2
        first, end = (jnp.clip(jnp.round((center + side) * length), 0, length) for side in (-half, half))
        index = jnp.arange(length).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        inside = inside & (index >= first) & (index < end)
        area = area * ((end - first) / length)
    pasted = jnp.where(inside, partner[leaf], value)
    return record | {leaf: pasted} | _labels("cutmix", record, partner, label, 1 - area)


def _kept(name: str, key: RandomKey, alpha: float, probability: Number) -> tuple[Float[jax.Array, ""], RandomKey]:
    """The part of itself that a record keeps, from 0 to 1, and a key for other draws."""
    if alpha <= 0:
        raise ConfigError("it is above 0", key=f"{name}.alpha", value=float(alpha))
    if not isinstance(probability, jax.Array) and not 0 <= probability <= 1:
        raise ConfigError("it is from 0 to 1", key=f"{name}.probability", value=float(probability))
    blend_key, part_key, other_key = jax.random.split(key, 3)
    part = jax.random.choice(part_key, _quantiles(alpha))
    return jnp.where(jax.random.bernoulli(blend_key, jnp.asarray(probability, jnp.float32)), part, 1), other_key


@lru_cache(16)
def _quantiles(alpha: float) -> np.ndarray:
    """Equally probable values of Beta(alpha, alpha), to draw from; `jax.random.beta` takes seconds to compile."""
    from scipy.special import betaincinv

    middles = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    values: np.ndarray = betaincinv(alpha, alpha, middles).astype(np.float32)
    return values


def _labels(name: str, record: Record, partner: Record, leaf: str, kept: jax.Array) -> Record:
    """The mixture of two labels, as a record; empty if records have no label."""
    if leaf not in record:
        return {}
    label = record[leaf]
    if label.ndim == 0 and not jnp.issubdtype(label.dtype, jnp.floating):
        mend = f"Put one_hot: {{num_classes: N}} before {name}, N the classes of the whole mix."
        raise SpecError(f"operator {name!r} blends labels, and cannot blend {label.dtype}. {mend}")
    return {leaf: (kept * label + (1 - kept) * partner[leaf]).astype(label.dtype)}
