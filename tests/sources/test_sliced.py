"""Parts of sources that have no splits of their own."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.sources.objects import as_source
from datamix.sources.sliced import sliced
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


def test_a_slice_lies_in_blocks_as_the_whole_does():
    whole = as_source(ARRAYS)
    assert sliced(whole, "train[2:]").block_records is None
    object.__setattr__(whole, "block_records", 4)
    assert sliced(whole, "train[2:]").block_records == 4
