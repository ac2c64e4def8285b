"""Conditions on the leaves of records."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.sources.conditions import Condition
from datamix.spec import LeafSpec

COLUMNS: dict[str, np.ndarray] = {
    "label": np.array([0, 1, 2, 3, 200], np.uint8),
    "score": np.array([0.1, 0.2, -0.5, np.nan, 0.3], np.float32),
    "good": np.array([True, False, True, False, True]),
    "one": np.arange(5).reshape(5, 1),
}
SPEC = {leaf: LeafSpec(values.shape[1:], str(values.dtype)) for leaf, values in COLUMNS.items()}
SPEC["image"] = LeafSpec((2, 2, 1), "uint8")


def parse(text: str) -> Condition:
    return Condition.parse(text, "source.a.where", SPEC)


def holds(text: str) -> list[int]:
    condition = parse(text)
    return np.flatnonzero(condition.holds({leaf: COLUMNS[leaf].reshape(-1) for leaf in condition.leaves})).tolist()


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("label < 2", [0, 1]),
        ("2 >= label", [0, 1, 2]),
        ("label != 3", [0, 1, 2, 4]),
        ("0 < label <= 2", [1, 2]),
        ("label in [1, 3, 300]", [1, 3]),
        ("label not in (1, 3)", [0, 2, 4]),
        ("label in []", []),
        ("label < 1000", [0, 1, 2, 3, 4]),
        ("label > -1", [0, 1, 2, 3, 4]),
        ("score == 0.1", [0]),  # in float32, as it is stored
        ("score >= +0.2", [1, 4]),
        ("score < 0", [2]),
        ("score != score", [3]),
        ("not score >= -1", [3]),
        ("good", [0, 2, 4]),
        ("not good and label", None),
        ("good and not label == 2 or label == 3", [0, 3, 4]),
        ("good and not (label == 2 or label == 200)", [0]),
        ("label > score", [1, 2, 4]),
        ("label in [True, 2]", [1, 2]),
        ("  label\n <  1 ", [0]),
        ("one in {1, 4}", [1, 4]),
        ("1 < 2 and label < 1", [0]),
    ],
)
def test_exact_conditions(text: str, records: list[int] | None) -> None:
    if records is None:
        with pytest.raises(ConfigError, match=r"'label' \(at character 14\) is a number, and no condition"):
            parse(text)
    else:
        assert holds(text) == records


def test_it_names_its_leaves() -> None:
    assert parse("good and 0 < label < score").leaves == ("good", "label", "score")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label <", r"it is no condition \(at character \d+\)\. Write comparisons, as in label == 5"),
        ("label = 3", r"it is no condition \(at character \d\)"),
        ("", r"it is no condition \(at character 1\)"),
        ("lable < 3", r"'lable' \(at character 1\) is no leaf of this source\. Did you mean 'label'\? Known: good, "),
        ("good or image > 3", r"'image' \(at character 9\) is uint8 \[2, 2, 1\], .*Known: good, label, one, score\.$"),
        ("label + 1 < 3", r"'label \+ 1' \(at character 1\) is neither a leaf nor a number of 64 bits\."),
        ("label < '3'", r"\"'3'\" \(at character 9\) is neither a leaf nor a number"),
        ("label < 1e3j", r"'1e3j' \(at character 9\) is neither"),
        ("label < 99999999999999999999", r"'9{20}' \(at character 9\) is neither"),
        ("label is 3", r"'label is 3' \(at character 1\) is no comparison that there is\."),
        ("label in 3", r"'3' \(at character 10\) is no list of numbers, as in \[1, 2\]\."),
        ("label in [score]", r"'\[score\]' \(at character 10\) is no list"),
        ("5", r"'5' \(at character 1\) is no comparison, as in label == 5"),
        ("1 < 2", r"it names no leaf\. Known: good, image, label, one, score\."),
        ("__import__('os').system('id')", r"'__import__' \(at character 1\) is no leaf of this source\."),
        ("label if good else label", r" \(at character 1\) is no comparison"),
        ("(lambda: 1)() < label", r" \(at character 1\) is neither"),
        ("label.real < 3", r"'label\.real' \(at character 1\) is neither"),
        ("[label for label in good]", r" is no comparison"),
        ("(x := 3) < label", r"'x' \(at character 2\) is no leaf"),
        ("(good := True) < label", r"'good := True' \(at character 2\) is neither"),
        ("good and label < é", r"'é' \(at character 18\) is no leaf"),
        ("label < 1 or " * 200 + "good", r"it is at most 2,000 characters\."),
        ("label < 3\x00", r"it is no condition"),
        ("0in [label]", r"'\[label\]' \(at character 5\) is no list"),
    ],
)
def test_what_is_no_condition(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text)
    assert caught.value.key == "source.a.where"
    assert "\n" not in str(caught.value)


def test_a_condition_that_is_nested_too_deeply() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        with pytest.raises(ConfigError, match=r"^source\.a\.where = 'not not .*; it is no condition, as in label == 5"):
            parse("not " * 300 + "good")
    finally:
        sys.setrecursionlimit(limit)


LEAVES = st.sampled_from(["x", "y"])
NUMBERS = st.integers(-3, 3)
COMPARISONS = st.builds(
    lambda left, op, right: f"{left} {op} {right}",
    LEAVES,
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.one_of(LEAVES, NUMBERS),
)
AMONG = st.builds(
    lambda leaf, op, numbers: f"{leaf} {op} {numbers}",
    LEAVES,
    st.sampled_from(["in", "not in"]),
    st.lists(NUMBERS, max_size=3),
)
CHAINS = st.builds(lambda low, leaf, high: f"{low} <= {leaf} < {high}", NUMBERS, LEAVES, NUMBERS)
CONDITIONS = st.recursive(
    st.one_of(COMPARISONS, AMONG, CHAINS),
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) and {}".format, inner, inner),
        st.builds("{} or ({})".format, inner, inner),
    ),
    max_leaves=6,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(CONDITIONS)
def test_a_condition_is_what_python_makes_of_it(text: str) -> None:
    x, y = np.arange(-3, 4).repeat(7), np.tile(np.arange(-3, 4), 7)
    condition = Condition.parse(text, "where", {"x": LeafSpec((), "int64"), "y": LeafSpec((), "int64")})
    names: list[dict[str, Any]] = [{"x": int(a), "y": int(b)} for a, b in zip(x, y, strict=True)]
    assert condition.holds({"x": x, "y": y}).tolist() == [bool(eval(text, {}, each)) for each in names]
