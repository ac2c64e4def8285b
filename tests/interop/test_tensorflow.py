"""Mixes in `tf.data`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import datamix

SCRIPT = """
import datamix, numpy as np
import tensorflow as tf

arrays = {"image": np.random.default_rng(0).random((50, 4, 4, 1), np.float32), "label": np.arange(50)}
finite = datamix.mix({"a": arrays}, batch_size=4, remainder="keep")
dataset = datamix.interop.tensorflow.dataset(finite)
assert len(dataset) == 13
assert dataset.element_spec["image"] == tf.TensorSpec((None, 4, 4, 1), tf.float32)
for batch, expected in zip(dataset, finite, strict=True):
    for leaf, values in batch.items():
        np.testing.assert_array_equal(values.numpy(), expected[leaf])
endless = datamix.mix({"a": arrays}, batch_size=4, stop="forever")
dataset = datamix.interop.tensorflow.dataset(endless, shard=(1, 2))
assert dataset.element_spec["label"] == tf.TensorSpec((2,), tf.int32)
assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
for step, batch in enumerate(dataset.take(20).prefetch(2)):
    np.testing.assert_array_equal(batch["image"].numpy(), endless[step]["image"][2:])
cut = datamix.mix({"a": arrays}, batch_size=4, remainder="keep", skip=[[1, 3], [12, 13]])
dataset = datamix.interop.tensorflow.dataset(cut)
assert len(dataset) == 10
for batch, expected in zip(dataset, cut, strict=True):
    np.testing.assert_array_equal(batch["label"].numpy(), expected["label"])
print("same")
"""


@pytest.mark.slow
def test_batches_go_through_tensorflow() -> None:
    pytest.importorskip("tensorflow")
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False)
    assert ended.stdout.strip() == "same", ended.stderr


def test_what_is_missing_or_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = datamix.mix({"a": {"x": np.arange(20)}}, batch_size=4)
    with pytest.raises(datamix.ConfigError, match="a batch of 4 cannot be divided among 5 ranks"):
        datamix.interop.tensorflow.dataset(pipeline, shard=(0, 5))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(datamix.InstallationError, match=r"needs TensorFlow: pip install .*prepare"):
        datamix.interop.tensorflow.dataset(pipeline)


def test_what_is_no_pipeline() -> None:
    with pytest.raises(
        datamix.ConfigError,
        match=r"^pipeline = 'mix'; it is a pipeline, as load and mix return it\.$",
    ):
        datamix.interop.tensorflow.dataset("mix")
