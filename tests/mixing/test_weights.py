from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.weights import as_fraction, integer_weights, over_common, parse_ratio, resolve_shares

NAMES = ["mnist", "fashion", "svhn"]
CHECK = settings(derandomize=True, deadline=None, max_examples=100)


def shares(**rules: Any) -> list[Fraction]:
    resolved = resolve_shares(NAMES, **rules)
    assert list(resolved) == NAMES
    return list(resolved.values())


def test_without_a_rule_all_sources_are_equal() -> None:
    assert shares() == [Fraction(1, 3)] * 3
    assert shares(weights={}, share={}) == [Fraction(1, 3)] * 3
    assert shares(weights={"mnist": None}, share={"svhn": None}) == [Fraction(1, 3)] * 3


def test_a_ratio_is_of_all_sources_in_their_order() -> None:
    assert shares(ratio="7:2:1") == [Fraction(7, 10), Fraction(2, 10), Fraction(1, 10)]
    assert shares(ratio=" 7 : 2 : 1 ") == shares(ratio="7:2:1")
    assert shares(ratio=[7, 2, 1]) == shares(ratio="7:2:1")
    assert shares(ratio=(0.7, 0.2, 0.1)) == shares(ratio="7:2:1")
    assert shares(ratio=["0.7", "1/5", 0.1]) == shares(ratio="7:2:1")
    assert shares(ratio="1:0:1") == [Fraction(1, 2), 0, Fraction(1, 2)]
    assert resolve_shares(["mnist"], ratio="5") == {"mnist": 1}


def test_a_source_without_a_weight_keeps_one() -> None:
    assert shares(weights={"fashion": 3}) == [Fraction(1, 5), Fraction(3, 5), Fraction(1, 5)]
    assert shares(weights={"fashion": 0}) == [Fraction(1, 2), 0, Fraction(1, 2)]


def test_the_others_divide_what_a_share_leaves_by_their_weights() -> None:
    assert shares(share={"mnist": 0.5}) == [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
    assert shares(share={"mnist": 0.5}, weights={"svhn": 3}) == [Fraction(1, 2), Fraction(1, 8), Fraction(3, 8)]
    assert shares(share={"mnist": 0.5, "svhn": 0.1}) == [Fraction(5, 10), Fraction(4, 10), Fraction(1, 10)]
    assert shares(share={"mnist": 0.7, "fashion": 0.3}) == [Fraction(7, 10), Fraction(3, 10), 0]


def test_a_sweep_of_a_share_reaches_both_ends() -> None:
    for name in ("mnist", "svhn"):
        for value in (0, 0.1, 0.5, 0.9, 1):
            resolved = resolve_shares(NAMES, share={name: value})
            assert resolved[name] == Fraction(str(value))
            assert {resolved[other] for other in NAMES if other != name} == {(1 - Fraction(str(value))) / 2}


def test_a_share_of_one_needs_no_other_source() -> None:
    assert resolve_shares(["mnist"], share={"mnist": 1}) == {"mnist": 1}
    assert shares(share={"mnist": 1}, weights={"fashion": 0, "svhn": 0}) == [1, 0, 0]


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (0.7, Fraction(7, 10)),
        (0.1, Fraction(1, 10)),
        (1e-4, Fraction(1, 10_000)),
        (3, Fraction(3)),
        (10**30 + 1, Fraction(10**30 + 1)),
        ("0.7", Fraction(7, 10)),
        ("1/3", Fraction(1, 3)),
        ("1e-3", Fraction(1, 1000)),
        (Fraction(2, 6), Fraction(1, 3)),
        (np.float64(0.7), Fraction(7, 10)),
        (np.int64(7), Fraction(7)),
        (0, Fraction(0)),
        (-0.0, Fraction(0)),
    ],
)
def test_a_number_is_taken_as_it_was_written(value: object, exact: Fraction) -> None:
    assert as_fraction(value, "mix.weights.mnist") == exact


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "nan", "inf", True, False, "much", "", "7:3", "1/0", None, [1], {}, 1j]
)
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^mix\.weights\.mnist .*; a weight is a number, 0 or more\.$") as caught:
        as_fraction(value, "mix.weights.mnist")
    assert caught.value.key == "mix.weights.mnist"


@pytest.mark.parametrize("value", [-0.2, "-0.2", Fraction(-1, 5)])
def test_a_negative_weight(value: object) -> None:
    message = r"^mix\.weights\.svhn = -0\.2; a weight is 0 or more\. To drop svhn, set it to 0\.$"
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_shares(NAMES, weights={"svhn": value})
    assert (caught.value.key, caught.value.value) == ("mix.weights.svhn", -0.2)
    assert resolve_shares(NAMES, weights={"svhn": 0})["svhn"] == 0  # as the error advises


def test_a_negative_share() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.share\.svhn = -0\.2; a weight is 0 or more\. To drop svhn, set"):
        resolve_shares(NAMES, share={"svhn": -0.2})


def test_a_negative_number_in_a_ratio_names_the_source_it_is_for() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.ratio = -2; a weight is 0 or more\. To drop fashion, set it to 0\.$"):
        resolve_shares(NAMES, ratio="7:-2:1")


def test_all_weights_zero() -> None:
    for rules in ({"weights": dict.fromkeys(NAMES, 0)}, {"ratio": "0:0:0"}):
        with pytest.raises(ConfigError, match=r"^mix\.weights: all are 0; at least one source needs one above 0\.$"):
            resolve_shares(NAMES, **rules)


def test_shares_that_leave_something_to_nobody() -> None:
    message = (
        r"^mix\.share: it adds up to 0\.5 and no other source has a weight to take the rest\. Make the shares add up"
    )
    with pytest.raises(ConfigError, match=message):
        resolve_shares(NAMES, share={"mnist": 0.5}, weights={"fashion": 0, "svhn": 0})
    with pytest.raises(ConfigError, match=message.replace(r"0\.5", "0")):
        resolve_shares(["mnist"], share={"mnist": 0})


@pytest.mark.parametrize("group", ["weights", "share"])
def test_an_unknown_source_is_refused_with_a_hint(group: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^mix\.{group}\.mnits: there is no source 'mnits' in this mix\. Did you mean 'mnist'\? "
        r"Known: fashion, mnist, svhn\.$",
    ):
        resolve_shares(NAMES, **{group: {"mnits": 0.5}})


def test_shares_above_one() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^mix\.share\.mnist = 3; a share lies in \[0, 1\]\. For a relative weight, set mix\.weights\.mnist\.$",
    ):
        resolve_shares(NAMES, share={"mnist": 3})
    with pytest.raises(ConfigError, match=r"^mix\.share: 0\.7 \+ 0\.4 = 1\.1; shares may add up to 1 at most\.$"):
        resolve_shares(NAMES, share={"mnist": 0.7, "svhn": 0.4})


def test_ten_shares_of_a_tenth_are_one() -> None:
    """In binary numbers they would be 0.9999999999999999."""
    names = [f"s{i}" for i in range(10)]
    assert set(resolve_shares(names, share=dict.fromkeys(names, 0.1)).values()) == {Fraction(1, 10)}


def test_two_rules_for_one_source() -> None:
    with pytest.raises(
        ConfigError, match=r"^mix\.weights\.mnist = .*; it and mix\.share\.mnist both say how much of mnist\. Give"
    ):
        resolve_shares(NAMES, weights={"mnist": 1}, share={"mnist": 0.5})
    for rules, other in (({"weights": {"svhn": 1}}, "weights.svhn"), ({"share": {"svhn": 1}}, "share.svhn")):
        with pytest.raises(
            ConfigError, match=rf"^mix\.ratio = .*; it and mix\.{other} both say how much of each source\. Give"
        ):
            resolve_shares(NAMES, ratio="1:1:1", **rules)  # type: ignore[arg-type]


def test_a_ratio_without_a_number() -> None:
    with pytest.raises(
        ConfigError, match=r"^mix\.ratio = 'abc'; it is no ratio\. Write one number a source, as in 7:3"
    ):
        parse_ratio("abc", NAMES)


@pytest.mark.parametrize("ratio", ["7:3", [7, 3], "1:1:1:1", [], "7"])
def test_a_ratio_of_the_wrong_length(ratio: object) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^mix\.ratio = .*; it has [0124] numbers?, but there are 3 sources \(mnist, fashion, svhn\)\. Give",
    ) as caught:
        parse_ratio(ratio, NAMES)
    assert (caught.value.key, caught.value.value) == ("mix.ratio", ratio)


@pytest.mark.parametrize("ratio", [423, 0.5, True, {"mnist": 7, "fashion": 3}, [7, None]])
def test_what_is_no_ratio(ratio: object) -> None:
    """YAML reads an unquoted 7:3 in base 60."""
    assert 7 * 60 + 3 == 423
    with pytest.raises(
        ConfigError, match=r"it is no ratio\. Write '7:3' or \[7, 3\]\. .*unquoted, 7:3 is the number 423"
    ):
        parse_ratio(ratio, ["mnist", "fashion"])


@pytest.mark.parametrize("ratio", ["7:", "7:x", [7, "x"], [True, 1], [7, math.nan]])
def test_a_ratio_with_something_else_than_numbers(ratio: object) -> None:
    with pytest.raises(ConfigError, match=r"^mix\.ratio = .*; a weight is a number, 0 or more\.$"):
        parse_ratio(ratio, ["mnist", "fashion"])


def test_a_message_names_the_key_of_its_group() -> None:
    with pytest.raises(ConfigError, match=r"^mix\.inner\.ratio = '7'; it has 1 number"):
        parse_ratio("7", ["mnist", "fashion"], where="mix.inner.ratio")


weights_of_sources = st.lists(
    st.one_of(st.integers(0, 1000), st.floats(0, 1000, allow_nan=False)), min_size=1, max_size=20
).filter(lambda weights: any(weights))


@CHECK
@given(weights_of_sources)
def test_shares_add_up_to_one_and_keep_the_ratio(weights: list[float]) -> None:
    names = [f"s{i}" for i in range(len(weights))]
    resolved = list(resolve_shares(names, weights=dict(zip(names, weights, strict=True))).values())
    assert sum(resolved) == 1
    exact = [as_fraction(weight, "weight") for weight in weights]
    for i in range(len(weights)):
        assert resolved[i] * sum(exact) == exact[i]
    assert list(resolve_shares(names, ratio=weights).values()) == resolved


@CHECK
@given(weights_of_sources, st.fractions(0, 1))
def test_a_share_is_taken_as_it_is(weights: list[float], share: Fraction) -> None:
    names = [f"s{i}" for i in range(len(weights))]
    resolved = resolve_shares(["fixed", *names], share={"fixed": share}, weights=dict(zip(names, weights, strict=True)))
    assert resolved["fixed"] == share
    assert sum(resolved.values()) == 1
    others = list(resolve_shares(names, weights=dict(zip(names, weights, strict=True))).values())
    assert [resolved[name] for name in names] == [(1 - share) * other for other in others]


@CHECK
@given(weights_of_sources)
def test_integer_weights_are_the_smallest_in_the_same_ratio(weights: list[float]) -> None:
    exact = [as_fraction(weight, "weight") for weight in weights]
    whole = integer_weights(exact)
    assert math.gcd(*whole) == 1
    assert [Fraction(w, sum(whole)) for w in whole] == [w / sum(exact) for w in exact]
    assert all(isinstance(w, int) for w in whole)


@CHECK
@given(st.lists(st.fractions(), max_size=6))
def test_numbers_over_their_least_common_denominator(numbers: list[Fraction]) -> None:
    numerators, unit = over_common(numbers)
    assert [Fraction(numerator, unit) for numerator in numerators] == numbers
    assert math.gcd(unit, *numerators) == 1
