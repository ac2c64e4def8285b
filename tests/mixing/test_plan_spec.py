from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datamix.errors import ConfigError, RegistryError
from datamix.mixing.plan import Plan
from datamix.mixing.plan_spec import PlanSpec, resolve_spec
from datamix.mixing.stops import Stop

ORDERS = ["proportional", "random", "round_robin", "concat"]


STOPS = ["first_exhausted", "all_exhausted", "exhaust_once", "forever"]


def test_no_source() -> None:
    with pytest.raises(ConfigError, match=r"^a mix needs at least one source\.$"):
        Plan({})


def test_names_that_are_not_known() -> None:
    with pytest.raises(RegistryError, match=r"^no order 'proportionl'\. Did you mean 'proportional'\?"):
        Plan({"a": 1}, order="proportionl")
    with pytest.raises(
        RegistryError, match=r"^no stop 'sometime'\. Known: all_exhausted, exhaust_once, first_exhausted, forever\."
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
        ConfigError, match=r"^mix\.weights\.b: source 'b' is empty\. Leave it out of source=, or set its weight to 0\.$"
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


@pytest.mark.parametrize("sizes", [[3, 4], "ab", {"a": 3.5}, {"a": "3"}])
def test_sizes_are_whole_numbers_by_name(sizes: Any) -> None:
    with pytest.raises(ConfigError, match=r"^sizes = .*; it is a number of records by name, as in {'a': 5, 'b': 3}"):
        Plan(sizes)
    assert Plan({"a": np.int32(3), "b": np.int64(3)}).length == 6


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
    with pytest.raises(ConfigError, match=r"^mix\.weights: all are 0; at least one source needs one above 0\.$"):
        Plan({"a": 5, "b": 5}, {"a": 0, "b": 0})


@pytest.mark.parametrize("kind", ["stop", "weighting"])
@pytest.mark.parametrize("value", [{"source": "a"}, {"rule": 3}, None, 3])
def test_a_rule_without_a_name(kind: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{kind} .*; it is a name, or a name under 'rule' and its ") as caught:
        Plan({"a": 5}, **{kind: value})  # type: ignore[arg-type]
    assert (caught.value.key, caught.value.value) == (kind, value)


def test_what_a_plan_is_resolved_to() -> None:
    spec = PlanSpec(
        sizes={"a": 5, "b": 7},
        schedule=[{"until": 3, "ratio": "9:1"}, {"ratio": "1:1"}],
        batch_size=4,
        granularity="batch",
        epochs={"b": 2},
        samples=30,
        shuffle="window(3)",
    )
    mix = resolve_spec(spec)
    assert [(end, [str(share) for share in group.leaf_shares()]) for end, group in mix.phases] == [
        (3, ["9/10", "1/10"]),
        (None, ["1/2", "1/2"]),
    ]
    assert (mix.demand.names, mix.sizes, mix.demand.slot_records, mix.limit) == (("a", "b"), (5, 7), 4, 8)
    assert mix.demand.remaining == [1, 3]  # whole batches, of five records and of twice seven
    assert (mix.stop, mix.shuffle.kind, mix.shuffle.window) == (Stop(waits_for="any"), "window", 3)
    repeating = resolve_spec(replace(spec, stop="all_exhausted"))
    assert repeating.demand.remaining == [2, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": {"c": 1}}, r"^mix\.max_epochs\.c: there is no source 'c' in this mix\. Known: a, b\.$"),
        ({"max_epochs": {"a": 0}}, r"^mix\.max_epochs\.a = 0; it is a whole number, 1 or more\.$"),
        ({"max_epochs": {"a": True}}, r"^mix\.max_epochs\.a = True; it is a whole number"),
        (
            {"max_epochs": {"a": 1}, "epochs": {"a": 2}, "stop": "all_exhausted"},
            r"^mix\.max_epochs\.a = 1; the mix goes on until a has been gone through 2 times\. See stop\.epochs\.a\.$",
        ),
        (
            {"max_epochs": {"a": 1}, "granularity": "batch", "batch_size": 8, "weights": {"a": 0}},
            r"^mix\.max_epochs\.a = 1; its records fill no batch of 8\.$",
        ),
        (
            {"max_epochs": {"a": 1}, "order": "concat"},
            r"^mix\.max_epochs: this order gives every source whole; leave it out",
        ),
    ],
)
def test_epochs_that_cannot_be_a_cap(settings, message):
    with pytest.raises(ConfigError, match=message):
        Plan({"a": 5, "b": 50}, **{"stop": "forever", **settings})


def test_a_cap_is_in_slots_and_only_where_records_may_repeat():
    spec = PlanSpec(sizes={"a": 10, "b": 50}, max_epochs={"a": 3}, stop="forever")
    assert resolve_spec(spec).caps == {0: 30}
    assert resolve_spec(replace(spec, granularity="batch", batch_size=4)).caps == {0: 7}
    for stop in ("first_exhausted", "exhaust_once"):
        assert resolve_spec(replace(spec, stop=stop)).caps == {}
        for how in ("drop", "error"):
            plan = Plan.of(replace(spec, stop=stop, at_max_epochs=how))
            assert plan.length == Plan.of(replace(spec, stop=stop, max_epochs=None)).length
