"""Statistics of leaves: the same as NumPy's over whole arrays, whatever their dtype and size."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamix.sources.statistics import LeafStatistics, RunningStatistics


def test_exact() -> None:
    statistics = LeafStatistics.of(np.array([[1.0, np.nan], [-np.inf, 4.0], [-2.0, np.nan], [-1.0, 8.0]]))
    assert (statistics.min, statistics.max, statistics.mean) == (-2, 8, 2)
    assert (statistics.nan, statistics.inf, statistics.num_negative) == (0.25, 0.125, 2)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.full(4, np.nan)])
def test_without_numbers(values: np.ndarray) -> None:
    statistics = LeafStatistics.of(values)
    assert (statistics.min, statistics.max, statistics.mean) == (None, None, None)
    assert json.loads(json.dumps(statistics.report())) == statistics.report()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "int64", "uint64", "float16", "float32"])
def test_every_dtype(dtype: str) -> None:
    statistics = LeafStatistics.of(np.array([0, 1, 1, 0], dtype))
    assert (statistics.min, statistics.max, statistics.mean, statistics.nan) == (0, 1, 0.5, 0)
    assert LeafStatistics.of(np.array([1.5, np.nan], ml_dtypes.bfloat16)).nan == 0.5


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=3), elements=st.integers(-(2**40), 2**40)))
def test_like_numpy(values: np.ndarray) -> None:
    statistics = LeafStatistics.of(values)
    assert (statistics.min, statistics.max) == (values.min(), values.max())
    assert statistics.mean == pytest.approx(values.mean())
    assert statistics.num_negative == (values < 0).sum()


def test_more_values_than_are_looked_at_in_one_go() -> None:
    values = np.random.default_rng(0).normal(size=(3, 500_000)).astype(np.float32)
    values[1, 7] = np.nan
    statistics = LeafStatistics.of(values)
    assert (statistics.min, statistics.max) == (np.nanmin(values), np.nanmax(values))
    assert statistics.mean == pytest.approx(np.nanmean(values, dtype=np.float64))
    assert statistics.nan == pytest.approx(1 / values.size)
    assert statistics.num_negative == (values < 0).sum()


def test_labels_without_a_class() -> None:
    assert LeafStatistics.of(np.array([-1, 3, -100, 0])).num_unlabelled(4) == 2
    assert LeafStatistics.of(np.array([np.nan, 3.0, -1.0])).num_unlabelled(3) == 2


def test_block_by_block_as_all_at_once() -> None:
    values = np.array([[1.0, np.nan], [-np.inf, 4.0], [-2.0, np.nan], [-1.0, 8.0]])
    running = RunningStatistics()
    for start in range(0, 4, 3):
        running.add(values[start : start + 3])
    assert running.result() == LeafStatistics.of(values)
    assert running.num_records == 4


def test_only_statistics_of_some_records_say_so() -> None:
    values = np.arange(4)
    assert "sampled" not in LeafStatistics.of(values).report()
    assert LeafStatistics.of(values, sampled=True).report()["sampled"] is True
