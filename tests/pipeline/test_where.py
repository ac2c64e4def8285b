"""`pipeline.where`: the records that a batch says it holds are those that it holds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.builder.open_source import OpenSource
from datamix.pipeline.where import Place
from datamix.sources.arrays import MemoryArrays, arrays


def numbered(size: int, first: int) -> dict[str, np.ndarray]:
    """Records that say who they are."""
    return {"number": np.arange(first, first + size, dtype=np.int32)}


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(
    sizes=st.lists(st.integers(9, 30), min_size=1, max_size=3),
    order=st.sampled_from(["proportional", "random", "round_robin"]),
    stop=st.sampled_from(["first_exhausted", "all_exhausted", "forever"]),
    batch_size=st.sampled_from([1, 4, 9]),
    shuffle_rows=st.booleans(),
    granularity=st.sampled_from(["record", "batch"]),
    step=st.integers(0, 10),
    seed=st.integers(0, 5),
)
def test_a_batch_holds_the_records_that_it_is_said_to_hold(
    sizes, order, stop, batch_size, shuffle_rows, granularity, step, seed
):
    sources = {f"s{i}": numbered(size, 100 * i) for i, size in enumerate(sizes)}
    pipeline = datamix.mix(
        sources,
        order=order,
        stop=stop,
        batch_size=batch_size,
        shuffle_rows=shuffle_rows,
        granularity=granularity,
        seed=seed,
        remainder="keep",
    )
    if stop != "forever":
        step %= len(pipeline)
    batch, places = pipeline[step], pipeline.where(step)
    assert [100 * int(place.source[1:]) + place.record for place in places] == batch["number"].tolist()
    assert [int(place.source[1:]) for place in places] == batch["source_id"].tolist()


def test_epochs_and_places(tmp_path):
    np.savez(tmp_path / "a.npz", **numbered(10, 0))
    half = arrays(path=str(tmp_path / "a.npz"), split="train[6:8]+train[:1]")
    pipeline = datamix.mix({"a": half, "b": numbered(4, 50)}, shuffle="none", stop="all_exhausted", batch_size=4)
    assert pipeline.where(1) == [
        Place(source="a", epoch=0, record=2, place=f"{tmp_path / 'a.npz'}, row 0"),
        Place(source="b", epoch=0, record=2),
        Place(source="a", epoch=1, record=0, place=f"{tmp_path / 'a.npz'}, row 6"),
        Place(source="b", epoch=0, record=3),
    ]
    assert pipeline.where(-1) == pipeline.where(1)
    assert [place.source for place in pipeline.with_weights({"a": 0}).where(0)] == ["b"] * 4


def test_there_is_no_such_batch():
    pipeline = datamix.mix({"a": numbered(10, 0)}, batch_size=4)
    with pytest.raises(IndexError, match="batch 2 in a mix of 2 batches"):
        pipeline.where(2)


def test_nothing_is_read(monkeypatch):
    pipeline = datamix.mix({"a": numbered(10, 0), "b": numbered(10, 20)}, batch_size=4)

    def refuse(*_args):
        raise AssertionError("a record was read")

    monkeypatch.setattr(MemoryArrays, "take", refuse)
    monkeypatch.setattr(MemoryArrays, "read", refuse)
    assert len(pipeline.where(3)) == 4


def test_a_source_that_was_read_for_its_labels_still_says_where_records_lie():
    class Files(MemoryArrays):
        def places(self, indices):
            return [f"file {index}" for index in indices]

    class Taking:
        """The same without `read`, so that it is loaded to look at its labels."""

        num_records, spec, class_names, provenance = 3, {}, (), "own"

        def __init__(self):
            self.files = Files({"label": np.arange(3)})
            self.spec, self.take, self.places = self.files.spec, self.files.take, self.files.places

    opened = OpenSource(name="own", source=Taking(), provenance="own").loaded()
    assert isinstance(opened.source, MemoryArrays)
    assert opened.places(np.array([2])) == ["file 2"]


@pytest.mark.parametrize(
    ("settings", "rows"),
    [(["source.own.where=label > 6"], [7, 8, 9]), (["source.own.split=train[4::3]", "source.own.limit=2"], [4, 7])],
)
def test_places_are_those_of_the_records_that_are_selected(tmp_path, settings, rows):
    np.savez(tmp_path / "own.npz", label=np.arange(10))
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "own.yaml").write_text(f"_target_: arrays\npath: {tmp_path / 'own.npz'}\nnum_classes: 10\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how many take part
        pipeline = datamix.load("source=own", "shuffle=none", "batch.size=1", *settings, config_dir=tmp_path)
    for step, row in enumerate(rows):
        (place,) = pipeline.where(step)
        assert (place.record, place.place) == (step, f"{tmp_path / 'own.npz'}, row {row}")
        assert pipeline[step]["label"].tolist() == [row]


def test_there_is_no_such_step():
    pipeline = datamix.mix({"a": numbered(20, 0)}, batch_size=4, stop="forever")
    for ask in (pipeline.where, pipeline.__getitem__):
        for step in ("3", 1.5, None):
            with pytest.raises(TypeError, match="a pipeline is indexed by the number of a batch, not by"):
                ask(step)
        with pytest.raises(IndexError, match="there is no batch 9223372036854775808 in a mix of endless batches"):
            ask(2**63)
