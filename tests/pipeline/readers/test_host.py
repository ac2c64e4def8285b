"""Threads that fill staging rows: order, numbers that do not fit, stalls, and their end."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.errors import DataError
from datamix.pipeline.lowering import stored_spec
from datamix.pipeline.readers.host import HostReader, SampledStatistics, default_threads
from datamix.sources.arrays import MemoryArrays
from datamix.spec import Arrays


class Watched(MemoryArrays):
    """A source that notes what it is asked for."""

    asked: list[list[int]]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        self.__dict__.setdefault("asked", []).append(indices.tolist())
        super().take(indices, out)


def reader(**sources: Any) -> HostReader:
    """A reader of sources, those of one spec in one group."""
    specs = {name: stored_spec(name, source.spec) for name, source in sources.items()}
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(sources):
        groups.setdefault(str(specs[name]), []).append(i)
    return HostReader(sources, specs, list(groups.values()), list(sources), threads=2)


def test_records_are_read_in_the_order_in_which_they_lie() -> None:
    a, c = (Watched({"x": np.arange(first, first + 9, dtype=np.uint8)}) for first in (0, 100))
    host = reader(a=a, b=MemoryArrays({"y": np.arange(5.0)}), c=c)
    source, record = np.array([2, 1, 0, 2, 0, 0], np.uint32), np.array([5, 3, 7, 1, 2, 7], np.uint32)
    a.asked.clear()
    staging = host.read(source, record)
    assert a.asked == [[2, 7, 7]]
    (group, row) = ([0, 1, 0, 0, 0, 0], staging.index)
    values = [float(next(iter(staging.rows[g].values()))[r]) for g, r in zip(group, row, strict=True)]
    assert values == [105, 3, 7, 101, 2, 7]


def test_a_large_read_is_cut_into_pieces() -> None:
    source = Watched({"x": np.zeros((640, 2**16), np.uint8)})
    for count, pieces in ((64, [32, 32]), (640, [153, 153, 153, 153, 28])):  # one a thread; of 10 MB, 0.1 s if slow
        host = reader(a=source)
        source.asked.clear()
        host.read(np.zeros(count, np.uint32), np.arange(count, dtype=np.uint32))
        assert sorted(map(len, source.asked), reverse=True) == pieces


def test_the_smallest_mapped_leaves_are_looked_at_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {}
    for name, width in {"a": 16, "b": 8, "c": 40}.items():
        np.save(tmp_path / f"{name}.npy", np.zeros((10, width), np.uint8))
        sources[name] = MemoryArrays({name: np.load(tmp_path / f"{name}.npy", mmap_mode="r"), "n": np.arange(10)})
    for most, leaves in ((10**4, ["a", "b", "c"]), (600, ["a", "b"]), (300, ["b"]), (0, [])):
        monkeypatch.setattr("datamix.pipeline.readers.host.MAPPED_BYTES", most)
        in_place = [leaf for each in reader(**sources).in_place for leaf in each]
        assert [leaf for leaf in in_place if leaf != "n"] == leaves
        assert in_place.count("n") == 3  # in memory, of another dtype


def test_what_was_read_ahead_is_not_read_again() -> None:
    source = Watched({"x": np.arange(99, dtype=np.uint8)})
    host = reader(a=source)
    asked = [(np.zeros(2, np.uint32), np.arange(first, first + 2, dtype=np.uint32)) for first in (0, 2, 4, 6)]
    source.asked.clear()
    for step in range(3):
        staging = host.finished(host.read_ahead(asked[step], asked[step + 1]))
        assert staging.rows[0]["x"].tolist() == [2 * step, 2 * step + 1]
    host.finished(host.read_ahead(asked[3]))
    # Two threads read what is asked and what is read ahead, in whichever order.
    assert sorted(source.asked) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    # A batch that comes after itself, and more programs than there is memory to read ahead for.
    host.finished(host.read_ahead(asked[0], asked[0]))
    host.prefetch_bytes = 5
    for each in asked:
        assert host.finished(host.read_ahead(each, asked[1])).rows[0]["x"].tolist() == each[1].tolist()


def test_a_read_of_nothing() -> None:
    host = reader(a=MemoryArrays({"x": np.arange(3)}))
    assert host.read(np.zeros(0, np.uint32), np.zeros(0, np.uint32), 4).index.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([0] * 4999 + [2**40]),
            "source 'a': leaf 'x' of record 4999 holds numbers that do not fit int32, such",
        ),
        (np.array([0.5] * 4998 + [1e300, 0.5]), "source 'a': leaf 'x' of record 4998 holds 1e[+]300, which is beyond"),
    ],
)
def test_numbers_that_do_not_fit(values: np.ndarray, message: str) -> None:
    host = reader(a=MemoryArrays({"x": values}))
    host.read(np.zeros(2, np.uint32), np.array([0, 7], np.uint32))
    with pytest.raises(DataError, match=message):
        host.read(np.zeros(5000, np.uint32), np.arange(5000, dtype=np.uint32))


def test_times_that_float32_cannot_tell_apart_are_refused_before_any_batch() -> None:
    with pytest.raises(DataError, match=r"source 'a': leaf 'x' holds 1750000001, which becomes 1750000000 in float32"):
        reader(a=MemoryArrays({"x": 1.75e9 + np.arange(20)}))


def test_nan_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    host = reader(a=MemoryArrays({"x": np.array([[0.5, 1], [2, np.nan], [np.nan, 0]], np.float32)}))
    for _ in range(2):
        host.read(np.zeros(3, np.uint32), np.arange(3, dtype=np.uint32))
    assert [record.message for record in caplog.records] == [
        "source 'a': the leaf 'x' holds NaN, first seen in record 1."
    ]


class Slow(MemoryArrays):
    """A source whose threads wait for an event, once it is set up."""

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        gate = self.__dict__.get("gate")
        if gate is not None:
            gate.wait(0.9)
        super().take(indices, out)


@pytest.fixture
def slow() -> tuple[Slow, threading.Event]:
    source, gate = Slow({"label": np.arange(600)}), threading.Event()
    return source, gate


def test_a_stall_names_the_source(slow: tuple[Slow, threading.Event], caplog: pytest.LogCaptureFixture) -> None:
    source, gate = slow
    pipeline = datamix.mix({"slow": source}, batch_size=50, placement="host", labels="keep", shuffle="none")
    source.__dict__["gate"] = gate
    iterator = pipeline.iterator()
    with caplog.at_level(logging.WARNING, "datamix"):
        assert next(iterator)["label"].tolist() == list(range(50))
    assert [record.message for record in caplog.records] == [
        "waiting for data: over 0.5 s for records of source 'slow'."
    ]
    metrics = iterator.metrics()
    assert metrics["waited_s"] > 0.5
    assert (metrics["last_source"], metrics["step"]) == ("slow", 1)
    assert metrics["bytes"] == 4 * 600
    row = metrics["sources"]["slow"]
    assert (row["waited_s"], row["records"]) == (pytest.approx(metrics["waited_s"], rel=0.1), 50)
    assert 0 < row["bytes_per_s"] <= 4 * 600 / metrics["waited_s"]
    iterator.close()


def test_ctrl_c_while_waiting_skips_nothing(
    slow: tuple[Slow, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, gate = slow
    pipeline = datamix.mix({"slow": source}, batch_size=50, placement="host", labels="keep", shuffle="none")
    iterator = pipeline.iterator()
    next(iterator)
    source.__dict__["gate"] = gate

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    iterator.restore(iterator.state())
    with monkeypatch.context() as patch:
        patch.setattr(HostReader, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
    gate.set()
    assert next(iterator)["label"].tolist() == list(range(50, 100))


def test_threads_end_with_the_last_iterator() -> None:
    source = Watched({"label": np.arange(600)})
    pipeline = datamix.mix({"a": source}, batch_size=50, placement="host", labels="keep")
    others = threading.enumerate()
    first, second = pipeline.iterator(), pipeline.iterator()
    next(first), next(second)
    before = [each for each in threading.enumerate() if each.name.startswith("datamix-read") and each not in others]
    assert before
    assert not any(thread.daemon for thread in before)
    first.close()
    assert next(second)["label"].shape == (50,)
    second.close()
    for thread in before:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in before)
    with pytest.raises(ValueError, match="this iterator is closed"):
        next(second)


def test_what_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Watched({"x": np.zeros((4000, 2**10), np.uint8), "label": np.arange(4000) % 3})
    pipeline = datamix.mix({"a": source}, batch_size=8, placement="host", prefetch_bytes=2**15, stop="forever")
    iterator = pipeline.iterator()
    source.asked.clear()
    next(iterator)
    time.sleep(0.05)
    assert 8 <= sum(map(len, source.asked)) <= 4 * 32
    source.asked.clear()
    step = pipeline[400]
    assert sum(map(len, source.asked)) == len(step["label"])


def test_a_shard_reads_its_own_rows() -> None:
    source = Watched({"label": np.arange(4000) % 3})
    pipeline = datamix.mix({"a": source}, batch_size=8, placement="host", samples=80)
    source.asked.clear()
    iterator = pipeline.iterator(shard=(3, 4))
    batches = list(iterator)
    assert sum(map(len, source.asked)) == sum(len(batch["label"]) for batch in batches) == 20


def test_statistics_are_those_of_some_records_and_made_when_asked_for() -> None:
    source = Watched({"x": np.arange(10_000.0, dtype=np.float32)})
    host = reader(a=source)
    statistics = SampledStatistics(("a",), {}, host)
    source.asked.clear()
    assert (len(statistics), list(statistics), source.asked) == (1, ["a"], [])
    leaf = statistics["a"]["x"]
    assert (leaf.sampled, leaf.num_records, leaf.min, leaf.max) == (True, 4096, 0, 9999)
    assert leaf.report()["sampled"] is True
    assert statistics["a"]["x"] is leaf
    with pytest.raises(KeyError):
        statistics["b"]


def test_digests_are_those_of_resident_records() -> None:
    draw = np.random.default_rng(0)
    for size in (3, 700, 3000):  # the last of more than a mebibyte
        data = {"image": draw.integers(0, 256, (size, 20, 20, 1), dtype=np.uint8), "label": np.arange(size) % 3}
        prints = {
            placement: datamix.mix({"a": data}, batch_size=2, placement=placement).fingerprint
            for placement in ("device", "host")
        }
        assert prints["device"] == prints["host"]


def test_the_number_of_threads() -> None:
    assert 2 <= default_threads() <= 16
