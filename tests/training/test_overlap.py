"""Test records that are records to train on as well."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.builder.open_source import OpenSource
from datamix.sources.arrays import MemoryArrays
from datamix.training.overlap import digests, notes_on_overlaps


def opened(name, **arrays):
    return OpenSource(name=name, source=MemoryArrays(arrays), provenance="arrays")


@given(st.integers(1, 40), st.sampled_from([np.uint8, np.int64, np.float32]), st.sampled_from([(), (3,), (5, 2, 1)]))
def test_equal_records_alone_have_equal_digests(num_records, dtype, shape):
    values = np.random.default_rng(0).integers(0, 3, (num_records, *shape)).astype(dtype)
    found = digests({"x": values})
    rows = values.reshape(num_records, -1)
    np.testing.assert_array_equal(found[:, None] == found, (rows[:, None] == rows).all(axis=-1))


def test_each_leaf_and_each_place_count():
    x, y = np.array([[1, 2], [2, 1]], np.uint8), np.array([[3, 4], [4, 3]], np.uint8)
    assert len({*digests({"x": x, "y": y}).tolist(), *digests({"x": y, "y": x}).tolist()}) == 4


@pytest.mark.parametrize(("split", "count"), [(slice(0, 10), 10), (slice(8, 14), 2), (slice(10, 20), 0)])
def test_test_records_that_are_trained_on_are_counted(split, count):
    image = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
    training = {"a": opened("a", image=image[:10]), "b": opened("b", image=255 - image[:10])}
    tests = {"a": opened("a", image=image[split])}
    note = f"source 'a': {count} of its {len(image[split])} test records equal records to train on."
    assert notes_on_overlaps(training, tests) == ([note] if count else [])


def test_records_to_train_on_that_come_several_times_are_counted():
    image = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
    parts = {"a": image[:10], "b": image[5:15], "c": np.repeat(image[15:], 2, axis=0), "d": image[:3]}
    training = {name: opened(name, image=part) for name, part in parts.items()}
    counts = {"b": "5 of its 10", "c": "5 of its 10", "d": "3 of its 3"}
    notes = [f"source {name!r}: {count} records equal others of the mix." for name, count in counts.items()]
    assert notes_on_overlaps(training, {}) == notes
