"""Weights in the loss: how much the records of a source count in training, independent of their share of the mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from datamix.errors import ConfigError, check_sources
from datamix.mixing.groups import by_path
from datamix.mixing.weights import as_fraction

INVERSE_SHARE = "inverse_share"
_KEY = "mix.loss_weight"
_MOST = 1e30  # losses are multiplied by the weight, and float32 ends at 3.4e38


def loss_weights(rule: object, names: Sequence[str], shares: Sequence[Fraction]) -> dict[str, float]:
    """The weight of each source's records in the loss, by name; empty where no weights are set.

    Args:
      rule: Weights by source, where one not named has 1; or "inverse_share", see `inverse_shares`; or None.
      names: The names of the sources, in order.
      shares: The shares of the sources, in the unit that is mixed.

    Raises:
      ConfigError: The rule is none of these, names an unknown source, has a weight out of range, or leaves every record
        without weight.

    >>> loss_weights("inverse_share", ["a", "b"], [Fraction(3, 4), Fraction(1, 4)])
    {'a': 0.6666666666666666, 'b': 2.0}
    >>> loss_weights({"b": 3}, ["a", "b"], [Fraction(3, 4), Fraction(1, 4)])
    {'a': 1.0, 'b': 3.0}
    """
    if rule == INVERSE_SHARE:
        return dict(zip(names, inverse_shares(shares), strict=True))
    if not isinstance(rule, Mapping | None):
        text = f"it is a weight for each source, as in {_KEY}.{names[0]}=2, or {INVERSE_SHARE}"
        raise ConfigError(text, key=_KEY, value=rule)
    by_source = by_path(rule)
    check_sources(by_source, names, _KEY)
    if not by_source:
        return {}
    weights = {name: float(as_fraction(by_source.get(name, 1), f"{_KEY}.{name}", name)) for name in names}
    for name, weight in weights.items():
        if weight > _MOST:
            raise ConfigError(f"a weight in the loss is {_MOST:g} at most", key=f"{_KEY}.{name}", value=weight)
    if not any(weight for weight, share in zip(weights.values(), shares, strict=True) if share):
        raise ConfigError("every source that has a share has weight 0, so that nothing is learnt", key=_KEY)
    return weights


def inverse_shares(shares: Sequence[Fraction]) -> list[float]:
    """1 / (K share) where K sources have a share, so that all count alike and the mean weight is 1; else 0."""
    count = sum(share > 0 for share in shares)
    return [float(1 / (count * share)) if share else 0.0 for share in shares]
