"""The data of a training job: the mix, and test records of every source."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.training.data import open_data


def test_every_source_has_its_own_test_records(config_of):
    data = open_data(config_of("source.down.test_split=train"))
    assert data.test_records == {"across": 20, "down": 60}
    assert (data.num_classes, data.shape, data.disjoint_classes) == (8, (4, 4, 1), True)
    assert data.num_test_batches == 1
    assert data.tests.num_records == 80
    assert data.tests.source_of_class.tolist() == [0] * 4 + [1] * 4
    (batch,) = data.test_pipeline
    assert batch["source_id"].tolist() == [0] * 20 + [1] * 60
    assert set(batch["label"][20:].tolist()) == {4, 5, 6, 7}


def test_sources_that_share_their_classes(config_of):
    data = open_data(config_of("labels=keep"))
    assert (data.num_classes, data.disjoint_classes) == (4, False)


def test_random_operators_are_left_out_of_tests(config_of):
    data = open_data(config_of("operators=[flip_horizontal]"))
    assert [node for node in data.test_pipeline.graph.nodes if "flip" in node] == []
    assert [node for node in data.pipeline.graph.nodes if "flip" in node] == ["flip_horizontal"]


def test_jobs_that_differ_in_weights_share_their_records(config_of):
    first = open_data(config_of())
    other = open_data(config_of("mix.ratio=1:3"), first)
    assert other.pipeline.reader is first.pipeline.reader
    assert other.tests is first.tests
    counts = np.bincount(np.concatenate([other.pipeline[step]["source_id"] for step in range(4)]))
    assert counts.tolist() == [8, 24]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["source.down.class_names=[]", "source.down.num_classes=3"],
            r"^source 'down': label 3 is none of the 3 classes from 0 on; set source\.down\.num_classes=4\.$",
        ),
        (["labels=keep", "operators=[{one_hot:{num_classes:4}}]"], r"integer label; this mix gives image float32 \[4,"),
        (
            ["source.across.operators=[]", "source.down.operators=[]"],
            r"a float image and an integer label; .* to_float",
        ),
    ],
)
def test_mistakes(config_of, overrides, message):
    with pytest.raises((ConfigError, DataError), match=message):
        open_data(config_of(*overrides))
