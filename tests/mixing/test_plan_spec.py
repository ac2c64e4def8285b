from __future__ import annotations

import pytest

from datamix.errors import ConfigError, RegistryError
from datamix.mixing.plan import Plan

ORDERS = ["proportional", "random", "round_robin", "concat"]


STOPS = ["first_exhausted", "all_exhausted", "exhaust_once", "forever"]


def test_no_source() -> None:
    with pytest.raises(ConfigError, match=r"^a mix needs at least one source\.$"):
        Plan({})


def test_names_that_are_not_known() -> None:
    with pytest.raises(RegistryError, match=r"^no order 'proportionl'\. Did you mean 'proportional'\?"):
        Plan({"a": 1}, order="proportionl")
    with pytest.raises(
        RegistryError, match=r"^no stop 'sometime'\. Known: all_exhausted, exhaust_once, first_exhausted, forever\.$"
    ):
        Plan({"a": 1}, stop="sometime")
    with pytest.raises(ConfigError, match=r"^mix\.weights\.bb: there is no source 'bb' in this mix\. "):
        Plan({"a": 1, "b": 1}, {"bb": 2})


def test_settings_that_the_order_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.windw: there is no such setting\. Did you mean 'window'\?"):
        Plan({"a": 1}, windw=3)
    with pytest.raises(ConfigError, match=r"^mix\.window: there is no such setting\. There are none\.$"):
        Plan({"a": 1}, order="round_robin", window=3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stop", STOPS)
def test_an_empty_source(order: str, stop: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^source 'b' is empty; leave it out of source=, or set mix\.weights\.b=0\.$"
    ):
        Plan({"a": 5, "b": 0}, order=order, stop=stop)
    plan = Plan({"a": 5, "b": 0}, {"b": 0}, order=order, stop=stop)
    assert not plan.take(0, 20).source.any()
    assert plan.length == (None if stop == "forever" else 5)
    row = plan.report().sources["b"]
    assert (row.records, row.share, row.exhausted_at) == (0, 0, None)


@pytest.mark.parametrize("size", [-1, 2**32])
def test_a_size_that_is_none(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^source 'b' has {size} records; a source has at most 2\^32 - 1\.$"):
        Plan({"a": 5, "b": size})


@pytest.mark.parametrize("samples", [0, -3])
def test_a_limit_that_is_none(samples: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^stop\.samples = {samples}; it is at least 1, or null for no such limit\.$"
    ):
        Plan({"a": 5}, samples=samples)


@pytest.mark.parametrize("batch_size", [0, -4])
def test_batches_of_nothing(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^batch\.size = {batch_size}; it is at least 1\.$"):
        Plan({"a": 5}, batch_size=batch_size, granularity="batch")


def test_all_weights_zero() -> None:
    with pytest.raises(ConfigError, match=r"^all weights are 0; at least one source needs a weight above 0\.$"):
        Plan({"a": 5, "b": 5}, {"a": 0, "b": 0})
