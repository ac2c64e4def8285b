from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.mixing.weightings import equal, size


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        # seqio's rate_num_examples(maximum, temperature), computed there as min(n, maximum) ** (1 / temperature).
        ({}, [20_000, 500]),
        ({"cap": 10_000}, [10_000, 500]),
        ({"temperature": 2}, [math.sqrt(20_000), math.sqrt(500)]),
        ({"temperature": 2, "cap": 10_000}, [100, math.sqrt(500)]),
        ({"temperature": 4, "cap": 625}, [5, 500**0.25]),
    ],
)
def test_the_cap_comes_before_the_temperature(settings: dict[str, Any], weights: list[float]) -> None:
    result = size({"a": 20_000, "b": 500}, **settings)
    assert list(result.values()) == pytest.approx(weights, rel=1e-12)
    plan = Plan({"a": 20_000, "b": 500}, weighting={"rule": "size", **settings}, stop="forever")
    asked = weights[1] / sum(weights)
    assert float(plan.shares[1]) == pytest.approx(asked, rel=1e-12)
    drawn = np.bincount(plan.take(0, 100_000).source)
    assert abs(drawn[1] - asked * 100_000) < 1


def test_what_is_said_by_hand_comes_first() -> None:
    sizes = {"a": 400, "b": 100, "c": 100}
    assert [str(share) for share in Plan(sizes, weighting="size").shares] == ["2/3", "1/6", "1/6"]
    assert [str(share) for share in Plan(sizes, {"b": 300}, weighting="size").shares] == ["1/2", "3/8", "1/8"]
    assert [str(s) for s in Plan(sizes, share={"b": "1/2"}, weighting="size").shares] == ["2/5", "1/2", "1/10"]
    assert [str(share) for share in Plan(sizes, ratio="1:1:2", weighting="size").shares] == ["1/4", "1/4", "1/2"]


def test_equal_is_the_default() -> None:
    assert equal({"a": 5, "b": 3}) == {"a": 1, "b": 1}
    assert Plan({"a": 5, "b": 3}).shares == Plan({"a": 5, "b": 3}, weighting="equal").shares


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, r"^weighting\.temperature = 0; it is above 0: 1 for the sizes as they are\.$"),
        ({"temperature": float("nan")}, r"^weighting\.temperature = nan; it is a number, and nan is none"),
        ({"temperature": 0.01}, r"^weighting\.temperature = 0\.01; weights of sources so large are beyond numbers"),
        ({"cap": -1}, r"^weighting\.cap = -1; it is above 0, or null for no limit\.$"),
        ({"cap": "x"}, r"^weighting\.cap = 'x'; it is a number or null\.$"),
        ({"temprature": 2}, r"^weighting\.temprature: there is no such setting\. Did you mean 'temperature'\?"),
    ],
)
def test_what_makes_no_weights(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan({"a": 20_000, "b": 500}, weighting={"rule": "size", **settings})
