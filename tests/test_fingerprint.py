"""What determines a sequence, digested."""

from __future__ import annotations

from typing import Any

import pytest

from datamix.fingerprint import causes, changes, digest, in_words, settings_of, shortened
from datamix.mixing.plan import Plan

IDENTITY = {"seed": 0, "source": ["a", "b"]}


def plan(**keywords: Any) -> Plan:
    return Plan(sizes={"a": 5, "b": 3}, **keywords)


def test_a_digest_is_of_the_value_and_not_of_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest(1) == "f6fc42039fba3776"
    assert len({digest(value) for value in (1, "1", [1], {"a": 1}, True, None)}) == 6


def test_each_setting_has_the_name_of_its_key() -> None:
    assert settings_of(IDENTITY, plan(), 4, "drop") == {
        **IDENTITY,
        "mix.weights": {"a": "1/2", "b": "1/2"},
        "batch.size": 4,
        "batch.remainder": "drop",
    }
    scheduled = plan(stop="forever", schedule=[{"until": 3, "ratio": "1:0"}, {"ratio": "1:3"}])
    assert settings_of({}, scheduled, 4, "drop")["mix.schedule"] == [(3, {"a": "1"}), (None, {"a": "1/4", "b": "3/4"})]


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda: settings_of(IDENTITY | {"seed": 1}, plan(), 4, "drop"), "seed was 0 and is 1"),
        (
            lambda: settings_of(IDENTITY, plan(weights={"a": 2}), 4, "drop"),
            "mix.weights.a was 1/2 and is 2/3, mix.weights.b was 1/2 and is 1/3",
        ),
        (lambda: settings_of(IDENTITY, plan(), 5, "drop"), "batch.size was 4 and is 5"),
        (lambda: settings_of(IDENTITY, plan(), 4, "keep"), "batch.remainder was drop and is keep"),
        (
            lambda: settings_of(IDENTITY | {"skip": ((1, 2),)}, plan(), 4, "drop"),
            "skip was not set and is [[1, 2]]",
        ),
    ],
)
def test_what_differs_is_told_by_its_key(other: Any, text: str) -> None:
    assert in_words(changes(settings_of(IDENTITY, plan(), 4, "drop"), other())) == text


def test_what_is_long_is_kept_as_its_digest() -> None:
    kept = shortened({"seed": 0, "mix.schedule": list(range(200))})
    assert kept == {"seed": 0, "mix.schedule": f"#{digest(list(range(200)))}"}
    assert in_words(changes(kept, {"seed": 0, "mix.schedule": [1]})) == "mix.schedule differs"
    many = shortened({"seed": 0, **{f"source.{i}.limit": "x" * 100 for i in range(99)}})
    assert many == {"seed": 0}
    assert in_words({str(i): (0, 1) for i in range(9)}).endswith("5 was 0 and is 1, and 3 more")


def test_that_is_blamed_which_has_changed_a_sequence() -> None:
    changed = dict.fromkeys(("stop", "seed", "mix.weights.a", "skip", "source.a.limit", "batch.size"), (1, 2))
    for part, keys in {
        "mix": ["mix.weights.a"],
        "skip": ["skip"],
        "source.a": ["source.a.limit"],
        "source.b": ["seed"],
        "batch.shuffle": ["batch.size"],
    }.items():
        assert list(causes([part], changed)) == keys
    assert list(causes(["mix"], {"stop": (1, 2)})) == ["stop"]
