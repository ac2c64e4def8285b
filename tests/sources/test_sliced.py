"""Parts of sources that have no splits of their own."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.sources.arrays import MemoryArrays, arrays
from datamix.sources.objects import as_source
from datamix.sources.sliced import sliced
from datamix.sources.statistics import LeafStatistics
from datamix.testing import check_source

ARRAYS = {"image": np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1), "label": np.arange(10) % 3}
RECORDS = [{"x": np.float32(i), "label": i % 2} for i in range(10)]


@pytest.mark.parametrize("data", [ARRAYS, RECORDS], ids=["arrays", "records"])
@pytest.mark.parametrize(
    ("split", "records"),
    [("train", range(10)), ("train[80%:]", (8, 9)), ("train[-1:]+train[:2]", (9, 0, 1)), ("train[4:4]", ())],
)
def test_a_slice_holds_the_records_that_it_names(data, split, records):
    whole = as_source(data)
    part = sliced(whole, split)
    assert part.num_records == len(records)
    labels = np.array([record % (3 if data is ARRAYS else 2) for record in records])
    np.testing.assert_array_equal(part.read()["label"], labels)
    assert len(part.whole_labels()) == 10
    if len(records):
        check_source(part)


def test_there_is_one_split():
    with pytest.raises(ConfigError, match=r"there is no split 'test'\. Known: train\."):
        sliced(as_source(ARRAYS), "test")


def test_a_slice_says_where_its_records_lie(tmp_path):
    np.savez(tmp_path / "own.npz", **ARRAYS)
    part = arrays(path=str(tmp_path / "own.npz"), split="train[-1:]+train[2:4]")
    assert part.places(np.array([0, 2])) == [f"{tmp_path / 'own.npz'}, row {row}" for row in (9, 3)]
    assert part.places([0, 2]) == part.places(np.array([0, 2]))
    assert sliced(as_source(ARRAYS), "train").places is None


def test_a_slice_hands_on_what_its_source_does_ahead():
    class Ahead(MemoryArrays):
        def statistics(self):
            return {"label": LeafStatistics.of(self.arrays["label"])}

        def prepare(self, progress):
            progress(10, 10)

    source, done = Ahead(ARRAYS), []
    sliced(source, "train[:3]").prepare(lambda *each: done.append(each))
    assert done == [(10, 10)]
    assert sliced(source, "train").statistics() == source.statistics()
    assert sliced(source, "train[:3]").statistics() is None  # those of the whole are not those of a part
    assert sliced(as_source(ARRAYS), "train").statistics() is None
    assert sliced(as_source(ARRAYS), "train").prepare is None


def test_a_slice_lies_in_blocks_as_the_whole_does():
    whole = as_source(ARRAYS)
    assert sliced(whole, "train[2:]").block_records is None
    object.__setattr__(whole, "block_records", 4)
    assert sliced(whole, "train[2:]").block_records == 4
