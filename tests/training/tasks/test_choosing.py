"""What there is to learn from a mix, by the leaves of its records."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.training.data import open_data
from datamix.training.tasks.choosing import classes
from datamix.training.tasks.classification import Classification
from datamix.training.tasks.language import Language
from datamix.training.tasks.regression import Regression

FEATURES = np.random.default_rng(0).random((20, 3)).astype(np.float32)
LABELS = np.arange(20) % 4


@pytest.fixture
def task_of(config_of, tmp_path):
    """The task of a mix of one source of arrays, with and without a second source."""

    def found(*overrides, **leaves):
        np.savez(tmp_path / "x.npz", **leaves)
        text = f"_target_: arrays\npath: {tmp_path}/x.npz\nsplit: train[:15]\ntest_split: train[15:]\n"
        (tmp_path / "dataset" / "x.yaml").write_text(text)
        return open_data(config_of("source=x", "model=mlp", *overrides))

    return found


def test_by_leaves(task_of):
    assert task_of(features=FEATURES, label=LABELS).task == Classification(leaf="features", shape=(3,), num_outputs=4)
    assert task_of(features=FEATURES, label=LABELS / 3).task == Regression(leaf="features", shape=(3,))
    images = FEATURES[:, :, None, None]
    both = task_of(image=images, features=FEATURES, label=LABELS)
    assert both.task == Classification(leaf="image", shape=(3, 1, 1), num_outputs=4)


def test_whoever_gives_tokens_as_arrays_says_how_many_there_are(task_of):
    tokens = np.arange(60, dtype=np.int32).reshape(20, 3)
    with pytest.raises(ConfigError, match=r"^source\.x\.num_classes: of its tokens, nobody knows how many"):
        task_of(tokens=tokens)
    assert task_of("source.x.num_classes=60", tokens=tokens).task == Language(shape=(3,), num_outputs=60)
    with pytest.raises(DataError, match=r"^source 'x': its tokens are 45 to 59, and those of the mix are 50 from 0\."):
        task_of("source.x.num_classes=50", tokens=tokens)


def test_operators_add_tokens_of_their_own(config_of, tmp_path):
    (tmp_path / "t.txt").write_text("one\n\ntwo\n\nthree\n\nfour")
    (tmp_path / "dataset" / "t.yaml").write_text(
        f"_target_: text\npath: {tmp_path}/t.txt\nlength: 8\nsplit: train[:2]\ntest_split: train[2:]\n"
    )
    place = f"data.cache={tmp_path}/cache"
    assert open_data(config_of("source=t", place)).task == Language(shape=(8,), num_outputs=257)
    prefixed = open_data(config_of("source=t", place, "operators=[{prefix_source:{token:300}}]"))
    assert prefixed.task == Language(shape=(8,), num_outputs=301)
    assert prefixed.held_out.known.tolist() == [1] * 256 + [0] * 45


@pytest.mark.parametrize(
    "leaves",
    [
        {"features": FEATURES},
        {"label": LABELS},
        {"features": LABELS[:, None], "label": LABELS},
        {"features": FEATURES, "label": FEATURES},
        {"tokens": FEATURES},
    ],
)
def test_records_without_anything_to_learn(task_of, leaves):
    message = r"a float image and an integer label, or one_hot's; this mix gives .*\. Or with float features"
    with pytest.raises(ConfigError, match=message):
        task_of(**leaves)


def test_classes_are_those_of_each_source(config_of):
    data = open_data(config_of())
    assert classes(data.built) == {"across": range(4), "down": range(4, 8)}
    assert data.held_out.known.tolist() == [0] * 4 + [1] * 4
