"""Statistics of leaves: the same as NumPy's over whole arrays, whatever their dtype and size."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamix.sources.statistics import LeafStatistics, from_json, statistics_of, to_json


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


@given(
    hnp.arrays(
        np.float32, st.integers(0, 40), elements=st.floats(-100, 100, width=32) | st.sampled_from([np.nan, np.inf])
    ),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_parts_give_what_the_whole_gives(values: np.ndarray, cuts: list[int]) -> None:
    parts = np.split(values, sorted(min(cut, len(values)) for cut in cuts))
    merged = LeafStatistics.merged((LeafStatistics.of(part), part.size) for part in parts)
    whole = LeafStatistics.of(values)
    assert merged.mean == (whole.mean if whole.mean is None else pytest.approx(whole.mean, abs=1e-4))
    assert vars(merged) | {"mean": 0} == vars(whole) | {"mean": 0}


def test_they_are_kept_as_json_to_the_last_bit() -> None:
    statistics = {"x": LeafStatistics.of(np.array([0.1, np.nan, 1e300])), "none": LeafStatistics.of(np.zeros(0))}
    assert from_json(json.loads(json.dumps(to_json(statistics)))) == statistics


def test_a_source_that_keeps_none_has_none() -> None:
    assert statistics_of(object()) is None


def test_only_statistics_of_some_records_say_so() -> None:
    values = np.arange(4)
    assert "sampled" not in LeafStatistics.of(values).report()
    assert LeafStatistics.of(values, sampled=True).report()["sampled"] is True
