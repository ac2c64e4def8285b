"""Mixes in Grain."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix

grain = pytest.importorskip("grain")

PROCESSES = """
import multiprocessing, os
from concurrent.futures import ThreadPoolExecutor
import datamix, grain, numpy as np
from absl import flags

def numbers(batches):
    return [int(batch["x"][0]) // 4 for batch in batches]

if __name__ == "__main__":
    flags.FLAGS(["script"])
    mix = datamix.mix({"a": {"x": np.arange(36)}}, batch_size=4, shuffle="none", skip=[[0, 1], [4, 5]])
    batches = datamix.interop.grain.batches(mix).filter(lambda batch: batch["x"][0] < 32)
    batches = batches.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=2))
    iterator, states = iter(batches), []
    for _ in range(4):
        states.append(iterator.get_state())
        next(iterator)
    resumed = [iter(batches) for _ in states]
    for each, state in zip(resumed, states):
        each.set_state(state)
    with ThreadPoolExecutor() as pool:  # as each waits for its workers to start
        for found in pool.map(numbers, [*resumed, grain.experimental.RepeatIterDataset(batches, 2)]):
            print(found, flush=True)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)  # as Grain would wait half a minute for its workers
"""


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


@pytest.mark.slow
def test_worker_processes_resume_also_before_all_have_delivered(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "script.py"  # a file, which spawned workers can import
    path.write_text(PROCESSES)
    command = [sys.executable, "-W", "ignore", str(path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    kept = [1, 2, 3, 5, 6, 7]
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [kept, kept[1:], kept[2:], kept[3:], kept * 2]


def worker(pipeline: datamix.Pipeline, number: int, count: int) -> Any:
    """The iterator of one worker of several, as Grain slices it in a process of the worker."""
    batches = copy.deepcopy(datamix.interop.grain.batches(pipeline, shard=(1, 2)))
    batches.set_slice(slice(number, None, count))
    return iter(batches)


@pytest.mark.parametrize("skip", [[], [[0, 2], [4, 5]]])
def test_a_worker_begins_in_its_turn_from_a_state_of_all_batches(skip: list[list[int]]) -> None:
    pipeline = datamix.mix({"a": {"x": np.arange(48)}}, batch_size=4, shuffle="none", skip=skip)
    shards = [batch["x"].tolist() for batch in pipeline.iterator(shard=(1, 2))]
    start = iter(datamix.interop.grain.batches(pipeline, shard=(1, 2))).get_state()
    for number in range(3):
        resumed = worker(pipeline, number, 3)
        list(resumed)
        resumed.set_state(json.loads(json.dumps(start)))
        assert [batch["x"].tolist() for batch in resumed] == shards[number::3]


def test_a_workers_state_is_that_of_the_same_worker() -> None:
    def pipeline(**settings: Any) -> datamix.Pipeline:
        return datamix.mix({"a": {"x": np.arange(48)}}, shuffle="none", **({"batch_size": 4} | settings))

    begun = worker(pipeline(), 1, 2)
    next(begun)
    own = json.loads(json.dumps(begun.get_state()))
    start, whole = (iter(datamix.interop.grain.batches(pipeline())) for _ in range(2))
    next(whole)
    for resumed, state, message in (
        (worker(pipeline(), 1, 3), own, "worker 1 of 2, and this is worker 1 of 3; restore it with num_workers=2"),
        (worker(pipeline(), 0, 2), own, "worker 1 of 2, and this is worker 0 of 2; restore it with num_workers=2"),
        (worker(pipeline(), 1, 2), whole.get_state(), "worker 0 of 1, and this .*; restore it with num_workers=1"),
        (whole, own, "worker 1 of 2, and this is worker 0 of 1; restore it with num_workers=2"),
        (worker(pipeline(batch_size=2), 1, 2), own, "with this batch.size or skip it is another; restore it under"),
        (worker(pipeline(skip=[[0, 1]]), 1, 2), start.get_state(), "with this batch.size or skip it is another"),
    ):
        with pytest.raises(datamix.StateError, match=message):
            resumed.set_state(state)
    resumed = worker(pipeline(), 1, 2)
    resumed.set_state(own)
    assert [batch["x"][0] for batch in resumed] == [14, 22, 30, 38, 46]


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
