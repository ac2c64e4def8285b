"""Taking values out of a configuration and checking them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from datamix.config.check import Node, keys_of, read, refuse_targets, unknown_key
from datamix.config.schema import Count, Key, Rate
from datamix.errors import ConfigError, RegistryError


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A dataclass whose fields stand in two groups."""

    number: int
    size: Annotated[Count, Key("batch.size")]
    most: Annotated[Count | None, Key("batch.most")] = None
    rate: Annotated[Rate, Key("batch.rate")] = 0.5
    ends: Annotated[bool, Key("stop.ends")] = False
    side: Annotated[Literal["left", "right"], Key("stop.side")] = "left"
    order: Annotated[str, Key("stop._target_", kind="order")] = "random"
    names: tuple[str, ...] = ()
    settings: Annotated[Mapping[str, Any], Key("stop.*")]


def parts(number: object = 1, batch: object = None, names: object = (), **stop: object) -> Parts:
    plain = {"number": number, "batch": {"size": 4} if batch is None else batch, "stop": stop, "names": names}
    return read(Parts, Node(plain))


def test_values_come_from_where_their_keys_say() -> None:
    values = parts(3, {"size": 2, "rate": 1}, names=["a"], ends=True, side="right", order="x", more={"deep": 1})
    assert values == Parts(
        number=3, size=2, rate=1.0, ends=True, side="right", names=("a",), settings={"order": "x", "more": {"deep": 1}}
    )
    assert isinstance(values.rate, float)


def test_null_is_the_default() -> None:
    assert parts(batch={"size": 1, "most": None, "rate": None}, ends=None) == Parts(number=1, size=1, settings={})


def test_where_fields_stand() -> None:
    assert keys_of(Parts)["size"] == Key("batch.size")
    assert keys_of(Parts)["number"] == Key("number")


QUOTES = "Write it without quotes; of a variable, write ${oc.decode:${oc.env:NAME}}."
KEYS = "Set one of them: batch.remainder, batch.shuffle, batch.size."


@pytest.mark.parametrize(
    ("values", "key", "value", "sentence"),
    [
        ({"number": True}, "number", True, "number = True; it is a whole number."),
        ({"number": 3.0}, "number", 3.0, "number = 3.0; it is a whole number. Write 3."),
        ({"number": "3"}, "number", "3", f"number = '3'; it is a whole number. {QUOTES}"),
        ({"number": None}, "number", None, "number is missing; it is a whole number."),
        ({"batch": {}}, "batch.size", None, "batch.size is missing; it is a whole number."),
        ({"batch": {"size": 0}}, "batch.size", 0, "batch.size = 0; it is 1 or more."),
        ({"batch": {"size": 2**63}}, "batch.size", 2**63, f"batch.size = {2**63}; it is {2**63 - 1} or less."),
        ({"batch": {"size": 1e300}}, "batch.size", 1e300, "batch.size = 1e+300; it is a whole number."),
        ({"batch": {"size": 1, "most": 0}}, "batch.most", 0, "batch.most = 0; it is 1 or more."),
        ({"batch": {"size": 1, "rate": 0}}, "batch.rate", 0, "batch.rate = 0; it is above 0."),
        ({"batch": {"size": 1, "rate": True}}, "batch.rate", True, "batch.rate = True; it is a number."),
        ({"batch": {"size": 1, "rate": math.inf}}, "batch.rate", math.inf, "batch.rate = inf; it is a finite number."),
        ({"batch": 3}, "batch", 3, f"batch = 3; it is a group of keys. {KEYS}"),
        ({"ends": 1}, "stop.ends", 1, "stop.ends = 1; it is true or false."),
        ({"ends": "yes"}, "stop.ends", "yes", "stop.ends = 'yes'; it is true or false."),
        ({"side": "rigth"}, "stop.side", "rigth", "stop.side = 'rigth'. Did you mean 'right'? Known: left, right."),
        ({"side": 3}, "stop.side", 3, "stop.side = 3. Known: left, right."),
        ({"_target_": 3}, "stop._target_", 3, "stop._target_ = 3; it is text."),
        ({"names": "abc"}, "names", "abc", "names = 'abc'; it is a list. Write names=[abc]."),
        ({"names": ["a", 2]}, "names[1]", 2, "names[1] = 2; it is text."),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed(values: dict[str, Any], key: str, value: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parts(**values)
    assert (caught.value.key, caught.value.value) == (key, value)
    assert str(caught.value) == sentence


def test_not_a_number_is_no_rate() -> None:
    with pytest.raises(ConfigError, match=r"^batch\.rate = nan; it is above 0\.$"):
        parts(batch={"size": 1, "rate": math.nan})


def test_a_name_that_is_not_registered() -> None:
    with pytest.raises(RegistryError, match=r"^stop\._target_: no order 'randm'\. Did you mean 'random'\?") as caught:
        parts(_target_="randm")
    assert caught.value.key == "stop._target_"


def test_what_is_left_is_refused_with_the_nearest_name() -> None:
    node = Node({"batch": {"size": 1, "moost": 2}, "number": 1, "stop": {}})
    read(Parts, node)
    with pytest.raises(ConfigError, match=r"^batch\.moost: there is no key 'moost' in batch\. Did you mean 'most'\?"):
        node.finish()
    node = Node({"batch": {"size": 1}, "number": 1, "stop": {}, "batches": 3})
    read(Parts, node)
    with pytest.raises(ConfigError, match=r"^batches: there is no key 'batches'\. Did you mean stop\.batches or job\."):
        node.finish()


def test_nothing_is_left_where_all_is_taken() -> None:
    node = Node({"batch": {"size": 1, "most": 2}, "number": 1, "stop": {"more": 1}})
    read(Parts, node)
    node.finish()


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"_target_": "os.system"}, "at._target_"),
        ({"deep": {"_target_": "os.system"}}, "at.deep._target_"),
        ({"deep": [1, {"_target_": "os.system"}]}, "at.deep[1]._target_"),
    ],
)
def test_nothing_is_built_where_there_is_no_place_for_it(node: object, key: str) -> None:
    with pytest.raises(RegistryError, match=r"_target_ = 'os\.system'; nothing can be built here\.") as caught:
        refuse_targets(node, "at")
    assert caught.value.key == key
    with pytest.raises(RegistryError, match=r"^stop\."):
        parts(more=node)


def test_an_unknown_key_says_which_choices_bring_it() -> None:
    error = unknown_key("mix.window", ["unit"])
    assert (str(error), error.key) == (
        "mix.window: it belongs to mix=proportional. Add mix=proportional, or leave it out.",
        "mix.window",
    )
    error = unknown_key("model.hidden", [], key="model.hidden.x")
    assert str(error) == (
        "model.hidden.x: it belongs to model=cnn or model=mlp or model=transformer. Add one of them, or leave it out."
    )
    assert str(unknown_key("source.a.vocab_size", ["num_tokens"])).endswith("in source.a. Known: num_tokens.")
    assert str(unknown_key("source.a.path", ["limit"])).endswith("in source.a. Known: limit.")  # it is not taken
    assert "Did you mean mix.max_epochs.a? Known: " in str(unknown_key("source.a.max_epochs", ["limit"]))
    assert "Did you mean source.a.operators? Known: " in str(unknown_key("source.a.transform", ["limit"]))
    assert str(unknown_key("a.bc", ["bd"], kind="source")) == ("a.bc: there is no source 'bc' in a. Known: bd.")
