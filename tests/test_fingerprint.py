"""What determines a sequence, digested."""

from __future__ import annotations

from typing import Any

import pytest

from datamix.fingerprint import digest, fingerprint, parts
from datamix.mixing.plan import Plan

IDENTITY = {"seed": 0, "source": ["a", "b"]}


def plan(**keywords: Any) -> Plan:
    return Plan(sizes={"a": 5, "b": 3}, **keywords)


def test_a_digest_is_of_the_value_and_not_of_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest(1) == "f6fc42039fba3776"
    assert len({digest(value) for value in (1, "1", [1], {"a": 1}, True, None)}) == 6


def test_each_part_has_the_name_of_its_key() -> None:
    digests = parts(IDENTITY, plan(), 4, "drop")
    assert list(digests) == ["seed", "source", "mix", "batch.size", "batch.remainder"]
    assert digests["batch.size"] == digest(4)


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (lambda: parts(IDENTITY | {"seed": 1}, plan(), 4, "drop"), "seed"),
        (lambda: parts(IDENTITY, plan(weights={"a": 2}), 4, "drop"), "mix"),
        (lambda: parts(IDENTITY, plan(), 5, "drop"), "batch.size"),
        (lambda: parts(IDENTITY, plan(), 4, "keep"), "batch.remainder"),
        (lambda: parts(IDENTITY | {"batch.shuffle": True}, plan(), 4, "drop"), "batch.shuffle"),
    ],
)
def test_what_differs_is_told_by_its_key(other: Any, key: str) -> None:
    before, after = parts(IDENTITY, plan(), 4, "drop"), other()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {key}


def test_one_digest_of_all() -> None:
    assert fingerprint(IDENTITY, plan(), 4, "drop") == digest(parts(IDENTITY, plan(), 4, "drop"))
    assert fingerprint(IDENTITY, plan(ratio="2:2"), 4, "drop") == fingerprint(IDENTITY, plan(), 4, "drop")
