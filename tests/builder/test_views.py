"""Views of a mix: which records, how prepared, in which order."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.builder import opening, views
from datamix.errors import ConfigError, DataError


def few(size: int, first: int = 0) -> dict[str, np.ndarray]:
    image = np.arange(first, first + size, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    image[..., 0, 0] += 100  # so that a flip is seen
    return {"image": image, "label": np.arange(size) % 3}


SOURCES: dict[str, Any] = {"a": few(10), "b": few(7, 50)}
RANDOM = ["source.a.operators=[flip_horizontal,to_float]", "source.b.operators=[to_float,flip_horizontal]"]


def first_pixels(pipeline: datamix.Pipeline) -> list[int]:
    return [round(255 * float(value)) for batch in pipeline for value in np.asarray(batch["image"])[:, 0, 1, 0]]


def test_the_records_of_the_mix_once_as_they_are_stored_without_what_is_drawn() -> None:
    pipeline = datamix.load(
        *RANDOM, "stop=forever", "batch.size=4", "mix.loss_weight.a=2", "mix.max_epochs.b=3", sources=SOURCES
    )
    view = pipeline.view(None)
    assert [len(batch["label"]) for batch in view] == [4, 4, 4, 4, 1]
    assert first_pixels(view) == [*range(10), *range(50, 57)]
    labels = np.concatenate([batch["label"] for batch in view])
    assert labels.tolist() == [*(SOURCES["a"]["label"]), *(SOURCES["b"]["label"] + 3)]  # numbered as in the mix
    assert sorted(view.spec) == ["image", "label", "source_id"]
    assert pipeline.with_weights({"a": 5}).view(None).fingerprint == view.fingerprint
    mixed = datamix.mix(SOURCES, operators=["flip_horizontal", "to_float"], batch_size=4, stop="forever").view(None)
    assert first_pixels(mixed) == first_pixels(view)


def test_what_is_drawn_and_another_order_where_they_are_asked_for() -> None:
    pipeline = datamix.load(*RANDOM, "stop=forever", "batch.size=4", sources=SOURCES)
    flipped = first_pixels(pipeline.view(None, random=True))
    assert flipped != first_pixels(pipeline.view(None))
    assert {pixel % 100 for pixel in flipped} == {*range(10), *range(50, 57)}
    shuffled = first_pixels(pipeline.view(None, shuffle="full"))
    assert shuffled != sorted(shuffled)
    assert sorted(shuffled[:10]) == list(range(10))


def test_another_split_of_every_source() -> None:
    splits = ["source.a.split=train[:6]", "source.a.test_split=train[6:]", "source.b.split=train[1:]"]
    more = ["source.b.test_split=train[:1]", "source.a.limit=2", "batch.size=2", "stop=forever", "data.placement=host"]
    pipeline = datamix.load(*splits, *more, *RANDOM, sources=SOURCES)
    assert first_pixels(pipeline.view()) == [*range(6, 10), 50]
    assert first_pixels(pipeline.view("train[:2]")) == [0, 1, 50, 51]
    assert first_pixels(pipeline.view(None)) == [0, 1, *range(51, 57)]
    assert first_pixels(pickle.loads(pickle.dumps(pipeline.view()))) == [*range(6, 10), 50]


def test_other_records_of_every_source() -> None:
    others = {"a": few(3, 80), "b": [{leaf: values[i] for leaf, values in few(2, 90).items()} for i in range(2)]}
    settings: dict[str, Any] = {"operators": ["to_float"], "batch_size": 2, "limit": {"a": 5}}
    view = datamix.mix(SOURCES, stop="forever", **settings).view(others)
    assert first_pixels(view) == [80, 81, 82, 90, 91]
    batches = list(view)
    assert np.concatenate([batch["label"] for batch in batches]).tolist() == [0, 1, 2, 3, 4]  # numbered as in the mix
    assert np.concatenate([batch["source_id"] for batch in batches]).tolist() == [0, 0, 0, 1, 1]
    assert first_pixels(pickle.loads(pickle.dumps(view))) == first_pixels(view)
    assert first_pixels(datamix.load("batch.size=2", *RANDOM, sources=SOURCES).view(others)) == first_pixels(view)


def test_each_source_of_a_view_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = ["source.a.split=train[:6]", "source.a.test_split=train[6:]", "source.b.test_split=train[:1]"]
    pipeline, opened = datamix.load("batch.size=2", *splits, *RANDOM, sources=SOURCES), []

    def open_source(source: Any, *arguments: Any) -> Any:
        opened.append((source.name, source.settings["split"]))
        return opening.open_source(source, *arguments)

    monkeypatch.setattr(views, "open_source", open_source)
    pipeline.view()
    assert opened == [("a", "train[6:]"), ("b", "train[:1]")]


def test_what_cannot_be_viewed() -> None:
    pipeline = datamix.mix(SOURCES, batch_size=4)
    with pytest.raises(
        ConfigError,
        match=r"^split = 'test'; sources that are Python objects have no splits\. .* as in view\(\{'a': …\}\)",
    ):
        pipeline.view()
    with pytest.raises(
        ConfigError, match=r"^split: it has other records of each of a, b, and of no others\. .* leave out 'b', 'c'\."
    ):
        pipeline.view({"a": few(3), "c": few(3)})
    with pytest.raises(ConfigError, match="source 'b': int is no source; it needs len"):
        pipeline.view({"a": few(3), "b": 3})
    with pytest.raises(ConfigError, match=r"views are of pipelines that datamix\.load or datamix\.mix has made"):
        pipeline.view(None).view(None)
    loaded = datamix.load("batch.size=4", sources=SOURCES)
    with pytest.raises(ConfigError, match="source 'a' has no split 'test' to be tested on; hold some of its records"):
        loaded.view()
    with pytest.raises(ConfigError, match="there is no split 'tset'"):
        loaded.view("tset")
    with pytest.raises(ConfigError, match="shuffle = 'most'"):
        loaded.view(None, shuffle="most")


def test_an_empty_split_is_no_split_to_be_tested_on() -> None:
    empty = "source.a.test_split=train[:0]"
    with pytest.raises(
        DataError, match=r"^source\.a\.test_split = 'train\[:0\]'; it holds no records\. Choose others\.$"
    ):
        datamix.load("batch.size=4", empty, sources=SOURCES).view()
    pipeline = datamix.load("batch.size=4", sources=SOURCES)
    with pytest.raises(
        DataError, match=r"^source 'a': there are no records in its split 'train\[9:9\]' to be tested on"
    ):
        pipeline.view("train[9:9]")


@pytest.mark.parametrize(
    ("split", "other", "records"), [("train", "val", 3), ("train[:50%]", "dev", 3), ("train+val", "val", None)]
)
def test_a_split_for_validation_is_advised_where_there_is_none_for_tests(
    tmp_path: Path, split: str, other: str, records: int | None
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "1.5,0\n2.5,1\n" * 4)
    (tmp_path / "b.csv").write_text("x,y\n3.5,0\n4.5,1\n5.5,1\n")
    paths = f"source.my_table.path={{train: {tmp_path}/a.csv, {other}: {tmp_path}/b.csv}}"
    overrides = ["source=my_table", paths, "source.my_table.target=y", "batch.size=2", f"source.my_table.split={split}"]
    with pytest.raises(ConfigError, match=r"^source 'my_table' has no split 'test' to be tested on; ") as raised:
        datamix.load(*overrides).view("test")
    chosen = re.search(
        r"; set (source\.my_table\.test_split=\w+), or hold some of its records out: ", str(raised.value)
    )
    if records is None:  # it is trained on
        assert chosen is None
    else:
        assert chosen is not None
        assert datamix.load(*overrides, chosen[1]).view("test").plan.length == records
