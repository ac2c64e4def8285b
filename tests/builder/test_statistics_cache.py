"""Statistics that are completed once and kept: whole, in parts, after a kill, and until the records change."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamix.builder.statistics_cache import KeptStatistics
from datamix.config.schema import SourceConfig
from datamix.sources.arrays import MemoryArrays, arrays
from datamix.sources.base import Source
from datamix.sources.statistics import LeafStatistics
from threads import run_in_threads

SIZE = 5000


class Counted(MemoryArrays):
    """Records that count how many of them are read."""

    lock = threading.Lock()

    def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
        with self.lock:
            read.append(len(indices))
        super().take(indices, out)


read: list[int] = []
RECORDS = {
    "image": np.random.default_rng(0).normal(size=(SIZE, 3, 2)).astype(np.float32),
    "label": np.arange(SIZE) % 7 - 1,
}
RECORDS["image"][[3, 4000], 1] = np.nan, np.inf


@pytest.fixture(autouse=True)
def _nothing_read() -> None:
    read.clear()


def config(**settings: Any) -> SourceConfig:
    own = {key: settings.pop(key) for key in ("limit", "name", "seed") if key in settings}
    return SourceConfig(**{"name": "own", "target": "arrays", "settings": settings, **own})


def kept(cache: Path, source: Source | None = None, count: int = SIZE, **settings: Any) -> KeptStatistics:
    return KeptStatistics(config(**settings), source or Counted(RECORDS), count, str(cache))


def nothing(done: int, total: int) -> None:
    """No progress."""


def assert_right(statistics: Any, count: int = SIZE) -> None:
    assert statistics.keys() == RECORDS.keys()
    for leaf, values in RECORDS.items():
        expected = LeafStatistics.of(values[:count])
        assert statistics[leaf].mean == pytest.approx(expected.mean)
        assert vars(statistics[leaf]) | {"mean": 0} == vars(expected) | {"mean": 0}


@pytest.mark.parametrize("count", [SIZE, 1, 1025])
def test_they_are_those_of_all_records_that_are_used(tmp_path: Path, count: int) -> None:
    progress = []
    assert kept(tmp_path, count=count).read() is None
    assert_right(kept(tmp_path, count=count).complete(lambda *each: progress.append(each)), count)
    assert progress[-1] == (count, count)
    read.clear()
    assert_right(kept(tmp_path, count=count).read(), count)
    assert_right(kept(tmp_path, count=count).complete(nothing), count)
    assert max(read) <= 64  # by which it is seen that the records are the same
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_the_work_are_joined_by_the_last(tmp_path: Path, parts: int) -> None:
    order = np.random.default_rng(parts).permutation(parts).tolist()
    for part in order[:-1]:
        done = kept(tmp_path).complete(nothing, part=part, parts=parts)
        if parts <= 5:  # as many as there are pieces
            assert done is None
            assert kept(tmp_path).read() is None
    assert_right(kept(tmp_path).complete(nothing, part=order[-1], parts=parts))
    assert_right(kept(tmp_path).read())


def test_jobs_that_want_the_same_at_once_do_not_disturb_one_another(tmp_path: Path) -> None:
    for number in range(5):
        cache = tmp_path / str(number)
        ends: list[Any] = []

        def work(part: int, cache: Path = cache, ends: list[Any] = ends) -> None:
            parts = 1 + part % 3
            ends.append(kept(cache).complete(nothing, part=part // 3 % parts, parts=parts))

        run_in_threads(work, 9)
        assert len(ends) == 9
        assert_right(kept(cache).read())
        for end in filter(None, ends):
            assert_right(end)
        assert not list(cache.glob("*.parts"))


def test_a_part_that_is_missing_is_done_by_a_job_that_does_all(tmp_path: Path) -> None:
    assert kept(tmp_path).complete(nothing, part=1, parts=2) is None
    read.clear()
    assert_right(kept(tmp_path).complete(nothing))
    assert sum(read) < SIZE


class Late(Counted):
    """Records of which the last ones are refused, but not where only a few are looked at."""

    def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
        if len(indices) > 64 and indices.max() >= 4000:
            raise OSError("the machine goes down")
        super().take(indices, out)


def test_what_was_done_before_it_ended_is_not_done_again(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="goes down"):
        kept(tmp_path, Late(RECORDS)).complete(nothing)
    assert kept(tmp_path).read() is None
    read.clear()
    assert_right(kept(tmp_path).complete(nothing))
    assert sum(read) <= SIZE - 3000 + 2 * 64  # the first three of five pieces were done


def test_a_piece_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    kept(tmp_path).complete(nothing, part=0, parts=2)
    (parts,) = tmp_path.glob("*.parts")
    (parts / "2.json").write_text("{")
    assert kept(tmp_path).complete(nothing, part=1, parts=2) is None
    assert_right(kept(tmp_path).complete(nothing))


def test_they_belong_to_settings_files_and_records(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **RECORDS)
    cache = tmp_path / "cache"
    source = arrays(path=str(path))

    def again(source: Source = source, **settings: Any) -> KeptStatistics:
        return kept(cache, source, **{"path": str(path)} | settings)

    again().complete(nothing)
    assert again().read() is not None
    assert again(seed=3).read() is not None  # chooses no records
    assert again(split="train[:100%]").read() is None
    assert again(count=10).read() is None
    changed = {leaf: values.copy() for leaf, values in RECORDS.items()}
    changed["image"][0] = 9
    assert again(MemoryArrays(changed)).read() is None  # the first record is looked at
    changed = {leaf: values.copy() for leaf, values in RECORDS.items()}
    changed["image"][1] = 9
    np.savez(path, **changed)
    assert again(arrays(path=str(path))).read() is None  # this one is not, but the time of the file is
    assert json.loads((again().path / "meta.json").read_text())["info"].keys() == {"statistics"}


@pytest.mark.parametrize("where", ["folder", "folder/*/own.npy", "folder/**/*.npy"])
def test_files_in_folders_and_globs_are_looked_at(tmp_path: Path, where: str) -> None:
    file = tmp_path / "folder" / "a" / "own.npy"
    file.parent.mkdir(parents=True)
    np.save(file, RECORDS["label"])
    first = kept(tmp_path / "cache", path=str(tmp_path / where)).place
    assert kept(tmp_path / "cache", path=str(tmp_path / where)).place == first
    np.save(file.with_name("b.npy" if where != "folder/*/own.npy" else "own.npy"), RECORDS["image"])
    second = kept(tmp_path / "cache", path=str(tmp_path / where)).place
    assert second.path == first.path
    assert second.fingerprint != first.fingerprint
