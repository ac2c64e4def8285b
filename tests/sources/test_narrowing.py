"""Storing 64 bits in 32: what is lost is said, and rounding is no loss."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.sources.narrowing import Narrowing, beyond, refusal, what_is_lost

FLOAT32, INT32 = np.dtype(np.float32), np.dtype(np.int32)
DRAW = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        (1.75e9 + np.arange(20), "holds 1750000001, which becomes 1750000000 in float32"),
        (np.array([16777217.0]), "holds 16777217, which becomes 16777216 in float32"),
        (np.full(3, 1e300), "holds 1e+300, which is beyond float32"),
        (np.array([0.0, -1e39]), "holds -1e+39, which is beyond float32"),
        (1.75e9 + np.linspace(0, 3600, 20) + 0.25, "lies between 1750000000.25 and 1750003600.25, "),
        (np.array([1e-60, 2e-60]), "lies between "),
        (np.array([1e17, 3e17]), "holds 100000000000000000, which becomes "),
        (np.stack([np.arange(4.0), 2e9 + np.arange(4)], axis=1), "holds 2000000001, which becomes 2000000000"),
    ],
)
def test_floats_that_become_others(values: np.ndarray, lost: str) -> None:
    assert what_is_lost(values, FLOAT32).startswith(lost)
    assert what_is_lost(values, np.dtype(np.float64)) == ""


@pytest.mark.parametrize(
    "values",
    [
        DRAW.random((50, 8, 8, 1)),
        DRAW.normal(size=(500, 7)) * [1e-6, 1e-3, 1, 10, 1e3, 1e6, 1e9],
        np.full(5, 0.1),
        np.array([0.1 * 3, 0.3]),
        np.array([np.nan, np.inf, -np.inf, 0.1]),
        np.arange(1000.0) * 2**20,
        np.zeros((0, 3)),
        1.75e9 + np.linspace(0, 1e9, 50) + 0.5,
    ],
)
def test_rounding_is_no_loss(values: np.ndarray) -> None:
    assert what_is_lost(values, FLOAT32) == ""


def test_integers() -> None:
    assert what_is_lost(np.array([0, 2**31]), INT32) == "holds numbers that do not fit int32, such as 2147483648"
    assert what_is_lost(np.array([-(2**31) - 1]), INT32).endswith("such as -2147483649")
    assert what_is_lost(np.array([-(2**31), 2**31 - 1]), INT32) == ""
    assert what_is_lost(np.array([2**32], np.uint64), np.dtype(np.uint32)).endswith("such as 4294967296")
    assert what_is_lost(np.array([7], np.int8), INT32) == ""


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize(
    "values",
    [
        1.75e9 + np.arange(20),
        np.array([0.5] * 30 + [1e300, np.nan]),
        1.75e9 + np.linspace(0, 3600, 20) + 0.25,
        np.stack([np.arange(40.0), 2e9 + np.arange(40)], axis=1),
        DRAW.random((50, 8, 8, 1)),
        np.array([7, 2**31, -5]),
    ],
)
def test_block_by_block_as_all_at_once(values: np.ndarray, size: int) -> None:
    dtype = INT32 if values.dtype.kind == "i" else FLOAT32
    narrowing = Narrowing(dtype)
    for start in range(0, len(values), size):
        narrowing.add(values[start : start + size])
    assert narrowing.lost() == what_is_lost(values, dtype)


def test_what_lies_outside() -> None:
    assert beyond(np.array([[1, 2], [3, -(2**40)]]), INT32) == 1
    assert beyond(np.array([1.0, np.inf, np.nan, 1e39]), FLOAT32) == 3
    assert beyond(np.array([1.0, np.inf, 0.1]), FLOAT32) is None
    assert beyond(np.array([2**40]), np.dtype(np.int64)) is None
    assert beyond(np.zeros((0, 2)), FLOAT32) is None


def test_a_column_of_a_table_is_named_and_has_no_leaves_to_choose() -> None:
    assert refusal("a", "label", "is beyond float32", column="y", where=" of record 3") == (
        "the target 'y' of record 3 is beyond float32; divide it."
    )
    assert "source.a.leaves" in refusal("a", "label", "is beyond float32")


def test_large_numbers_are_whole_only_because_floats_are() -> None:
    masses = DRAW.normal(size=200) * 1e25
    assert (masses == np.floor(masses)).all()
    assert what_is_lost(masses, FLOAT32) == ""
