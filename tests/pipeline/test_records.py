"""Single records by their number, against the rows of batches."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import datamix


@pytest.mark.parametrize("overrides", [(), ("batch.shuffle=true",), ("data.placement=host",)], ids=" ".join)
def test_records_are_the_rows_of_batches(load: Callable[..., datamix.Pipeline], overrides: tuple[str, ...]) -> None:
    pipeline = load("batch.remainder=keep", "stop=all_exhausted", *overrides)
    rows = [
        {leaf: values[i] for leaf, values in batch.items()} for batch in pipeline for i in range(len(batch["label"]))
    ]
    records = pipeline.records()
    assert len(records) == len(rows) == pipeline.plan.length
    assert len(rows) % pipeline.batch_size != 0  # the last batch is short
    for number in (0, 7, 8, len(rows) - 1, 3):
        for leaf, expected in rows[number].items():
            assert records[number][leaf].dtype == expected.dtype
            np.testing.assert_array_equal(records[number][leaf], expected)
            np.testing.assert_array_equal(records[number - len(rows)][leaf], expected)
    several = records.__getitems__([9, 2, 9])
    assert [record["label"] for record in several] == [rows[number]["label"] for number in (9, 2, 9)]
    for number in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=f"record {number} in a mix of {len(rows)}"):
            records[number]
    with pytest.raises(TypeError, match=r"by their numbers, not by slice.*__getitems__"):
        records[:2]  # type: ignore[index]


def test_records_of_an_endless_mix_have_no_length(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever")
    records = pipeline.records()
    assert records[10_000]["label"] == pipeline[1250]["label"][0]
    with pytest.raises(TypeError, match="this mix never ends"):
        len(records)


def test_threads_may_ask_and_processes_may_be_given_them(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever")
    records = pickle.loads(pickle.dumps(pipeline.records()))
    with ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(lambda number: int(records[number]["label"]), range(64)))
    assert labels == [label for step in range(8) for label in pipeline[step]["label"].tolist()]
