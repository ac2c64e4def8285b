"""`datamix.prepare`: streams that are written once into the cache, and mixed from there."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, DataError, ResourceError


def stream(size: int | None = None, begun: list[int] | None = None) -> Iterator[dict[str, Any]]:
    for i in count() if size is None else range(size):
        if begun is not None:
            begun.append(i)
        yield {"image": np.full((4, 4, 1), i % 251, np.uint8), "label": i % 3}


def test_any_record_can_be_read_and_mixed(tmp_path: Path) -> None:
    source = datamix.prepare("web", stream(700), limit=1000, directory=tmp_path)
    assert (source.num_records, source.provenance, source.notes) == (700, "prepared", ())
    out = {"image": np.empty((3, 4, 4, 1), np.uint8), "label": np.empty(3, np.int64)}
    source.take(np.array([699, 0, 256]), out)
    assert out["label"].tolist() == [0, 0, 1]
    assert out["image"][:, 0, 0, 0].tolist() == [699 % 251, 0, 5]
    other = {"image": np.zeros((8, 4, 4, 1), np.uint8), "label": np.arange(8) % 2}
    pipeline = datamix.mix({"web": source, "other": other}, shuffle="none", batch_size=4)
    assert pipeline[0]["label"].tolist() == [0, 3, 1, 4]
    place = pipeline.where(0)[2]
    assert (place.source, place.record, place.place) == ("web", 1, f"{source.path}, row 1")


def test_statistics_are_those_of_what_was_written(tmp_path: Path) -> None:
    source = datamix.prepare("web", stream(700), limit=600, directory=tmp_path)
    assert (source.statistics()["image"].min, source.statistics()["image"].max) == (0, 250)
    assert source.statistics()["label"].mean == pytest.approx(np.mean(np.arange(600) % 3))


def test_no_more_than_the_limit_is_taken_of_an_endless_stream_and_the_rest_is_told(tmp_path: Path) -> None:
    begun: list[int] = []
    source = datamix.prepare("web", stream(begun=begun), limit=300, directory=tmp_path)
    assert source.num_records == 300
    assert len(begun) == 301  # one more, to know that there is one
    assert source.notes == ("the stream holds more than the 300 records that limit allows; the others are left out.",)
    whole = datamix.prepare("whole", stream(300), limit=300, directory=tmp_path)
    assert whole.notes == ()


def test_what_is_there_is_used_again_and_told(tmp_path: Path) -> None:
    datamix.prepare("web", stream(5), limit=10, directory=tmp_path)
    begun: list[int] = []
    again = datamix.prepare("web", stream(7, begun), limit=10, directory=tmp_path)
    assert (again.num_records, begun) == (5, [])
    assert again.notes == (f"its records were prepared before; to write them anew, delete {again.path}.",)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        datamix.mix({"web": again}, batch_size=1)
    assert "source 'web': its records were prepared before" in str(caught[0].message)
    assert datamix.prepare("web", stream(7), limit=6, directory=tmp_path).num_records == 6  # as another limit is asked


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield from stream(500)
        raise ConnectionError("reset")

    with pytest.raises(ConnectionError, match="reset"):
        datamix.prepare("web", broken(), limit=1000, directory=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert datamix.prepare("web", stream(5), limit=10, directory=tmp_path).num_records == 5


def test_memory_holds_a_block_at_a_time(tmp_path: Path) -> None:
    records = ({"x": np.full(10_000, i % 256, np.uint8)} for i in range(3000))
    tracemalloc.start()
    source = datamix.prepare("large", records, limit=3000, directory=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.num_records * 10_000 > 3 * peak


@pytest.mark.parametrize(
    ("records", "error", "message"),
    [
        (iter([]), DataError, r"source 'web': the stream holds no record\."),
        (iter([{"x": 1}, {"x": 2.5}]), DataError, r"source 'web': leaf 'x' of record 1 is float64 \[\], but that of "),
        (
            ({"x": np.zeros(2 if i < 300 else 3)} for i in range(400)),
            DataError,
            r"leaf 'x' of record 300 is float64 \[3\]",
        ),
        (iter([{"text": "a"}]), DataError, r"source 'web': leaf 'text' of record 0 is text; "),
        (5, ConfigError, r"int is no stream of records; it needs iter\(\)"),
        ("web.jsonl", ConfigError, r"str is no stream of records"),
    ],
)
def test_what_is_no_stream_of_records_is_refused(
    tmp_path: Path, records: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        datamix.prepare("web", records, limit=1000, directory=tmp_path)


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, None])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(ConfigError, match=r"^limit .*a whole number of records, 1 or more\.$"):
        datamix.prepare("web", stream(3), limit=limit, directory=tmp_path)
    with pytest.raises(ConfigError, match=r"^name = ''; it is the name"):
        datamix.prepare("", stream(3), limit=3, directory=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=rf"{tmp_path}/file.* cannot be written: Not a directory; directory= names"):
        datamix.prepare("web", stream(3), limit=3, directory=tmp_path / "file" / "cache")
