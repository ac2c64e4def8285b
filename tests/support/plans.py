"""Plans drawn at random, for the properties that all of them have."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from datamix.mixing.plan import Plan, Selection

ORDERS = ["proportional", "random", "round_robin", "concat"]
STOPS = ["first_exhausted", "all_exhausted", "exhaust_once", "forever"]
CHECK = settings(derandomize=True, deadline=None, max_examples=80)

mixes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=5)
units = st.sampled_from([1, 1, 2, 5])


def plan_of(mix: list[tuple[int, int]], order: str, unit: int = 1, **settings: Any) -> Plan:
    """A plan of sources a, b, c, … with a size and, where the order knows one, a weight each."""
    names = "abcdefgh"[: len(mix)]
    sizes = {name: max(size, unit) for name, (size, _) in zip(names, mix, strict=True)}
    weights = {name: weight for name, (_, weight) in zip(names, mix, strict=True)}
    known = weights if order in ("proportional", "random") else None
    return Plan(sizes, known, order=order, batch_size=unit, granularity="batch", **settings)


def rows(selection: Selection) -> list[tuple[int, int, int]]:
    """Source, epoch and record of each position."""
    return list(zip(*(field.tolist() for field in selection), strict=True))
