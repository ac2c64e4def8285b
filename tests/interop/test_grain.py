"""Mixes in Grain."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import datamix

grain = pytest.importorskip("grain")


def mix(stop: str = "forever") -> datamix.Pipeline:
    arrays = {"label": np.arange(50), "x": np.arange(100, dtype=np.float32).reshape(50, 2)}
    return datamix.mix({"a": arrays, "b": arrays}, batch_size=4, stop=stop, labels="keep")


def test_records_go_through_grain() -> None:
    pipeline = mix()
    dataset = datamix.interop.grain.dataset(pipeline)
    assert len(dataset) == sys.maxsize
    batches = iter(dataset.map(lambda record: record["label"]).batch(4).to_iter_dataset())
    for step in range(5):
        assert next(batches).tolist() == pipeline[step]["label"].tolist()
    state = batches.get_state()
    expected = next(batches).tolist()
    batches.set_state(state)
    assert next(batches).tolist() == expected == pipeline[5]["label"].tolist()
    assert len(datamix.interop.grain.dataset(mix("all_exhausted"))) == 100


def test_batches_have_grains_states() -> None:
    pipeline = mix()
    batches = datamix.interop.grain.batches(pipeline, shard=(1, 2)).map(lambda batch: batch["x"])
    iterator = iter(batches)
    for step in range(3):
        np.testing.assert_array_equal(next(iterator), pipeline[step]["x"][2:])
    resumed = iter(batches)
    resumed.set_state(json.loads(json.dumps(iterator.get_state())))
    np.testing.assert_array_equal(next(resumed), pipeline[3]["x"][2:])
    with pytest.raises(datamix.ConfigError, match="a batch of 4 cannot be divided among 5 ranks"):
        datamix.interop.grain.batches(pipeline, shard=(0, 5))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_take_batches_in_turn(workers: int) -> None:
    arrays = {"label": np.arange(50)}
    pipeline = datamix.mix({"a": arrays}, batch_size=4, remainder="keep", skip=[[1, 2], [4, 6]])
    batches = datamix.interop.grain.batches(pipeline).map(lambda batch: batch["label"].tolist())
    expected = [batch["label"].tolist() for batch in pipeline]

    def parted(**settings: bool) -> grain.DatasetIterator:
        return iter(grain.experimental.multithread_prefetch(batches, num_threads=workers, buffer_size=1, **settings))

    iterator, resumed = parted(), parted()
    begun = [next(iterator) for _ in range(4)]
    resumed.set_state(iterator.get_state())
    rest = list(iterator)
    assert begun + rest == expected
    assert list(resumed) == rest
    if workers > 1:
        with pytest.raises(datamix.ConfigError, match=r"sequential_slice = True; workers take .* in turn"):
            next(parted(sequential_slice=True))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(datamix.interop, "grain", raising=False)
    monkeypatch.delitem(sys.modules, "datamix.interop.grain", raising=False)
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(datamix.InstallationError, match=r"datamix.interop.grain needs Grain: pip install .*grain"):
        _ = datamix.interop.grain


def test_what_is_no_pipeline() -> None:
    with pytest.raises(
        datamix.ConfigError,
        match=r"^pipeline = 'mix'; it is a pipeline, as load and mix return it\.$",
    ):
        datamix.interop.grain.dataset("mix")
