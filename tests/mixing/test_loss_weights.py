"""Weights in the loss, apart from shares."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.loss_weights import loss_weights

NAMES, SHARES = ["a", "b", "vision.c"], [Fraction(1, 2), Fraction(1, 2), Fraction(0)]


def test_weights_by_source() -> None:
    assert loss_weights({"a": 3, "vision": {"c": "1/2"}}, NAMES, SHARES) == {"a": 3, "b": 1, "vision.c": 0.5}
    assert loss_weights(None, NAMES, SHARES) == loss_weights({}, NAMES, SHARES) == {}
    assert loss_weights("inverse_share", NAMES, SHARES) == {"a": 1, "b": 1, "vision.c": 0}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any))
def test_under_the_inverse_of_shares_every_source_counts_alike(numbers: list[int]) -> None:
    shares = [Fraction(number, sum(numbers)) for number in numbers]
    weights = loss_weights("inverse_share", [str(i) for i in range(len(shares))], shares)
    parts = [weight * share for weight, share in zip(weights.values(), shares, strict=True) if share]
    assert parts == pytest.approx([1 / len(parts)] * len(parts))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("inverse", r"mix.loss_weight = 'inverse'; it is a weight for each source, as in mix.loss_weight.a=2, or inv"),
        (3, "mix.loss_weight = 3; it is a weight for each source"),
        ({"d": 1}, "mix.loss_weight.d: there is no source 'd' in this mix. Known: a, b, vision.c"),
        ({"a": -1}, "mix.loss_weight.a = -1; a weight is 0 or more"),
        ({"a": "much"}, "mix.loss_weight.a = 'much'; a weight is a number, 0 or more"),
        ({"a": float("nan")}, "mix.loss_weight.a = nan; a weight is a number"),
        ({"b": 1e300}, r"mix.loss_weight.b = 1e\+300; a weight in the loss is 1e\+30 at most"),
        ({"a": 0, "b": 0}, "mix.loss_weight: every source that has a share has weight 0"),
    ],
)
def test_mistakes(rule: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss_weights(rule, NAMES, SHARES)
