from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datamix.errors import ConfigError, SpecError
from datamix.operators.label import class_label, offset_label, offset_one_hot, one_hot, tag_loss_weight, tag_source
from datamix.spec import Record

LABEL: Record = {"label": jnp.array(2, jnp.int32)}


@pytest.mark.parametrize(("dtype", "to"), [("uint8", "int32"), ("int32", "int32"), ("float32", "float32")])
def test_offset_label(dtype: str, to: str) -> None:
    result = offset_label({"label": jnp.array(2, dtype), "image": jnp.ones(3)}, offset=10)
    assert (result["label"].item(), result["label"].dtype, result["label"].shape) == (12, to, ())
    assert result["image"].tolist() == [1, 1, 1]
    assert offset_label(LABEL, offset=-2)["label"].item() == 0
    assert offset_label({"class": jnp.array([0, 5])}, offset=3, leaf="class")["class"].tolist() == [3, 8]


def test_offset_label_of_unsigned_integers_does_not_wrap() -> None:
    result = offset_label({"label": jnp.array(7, jnp.uint32)}, offset=-9)["label"]
    assert (result.item(), result.dtype) == (-2, jnp.int32)


def test_offset_label_may_keep_what_is_no_class() -> None:
    labels = {"label": jnp.array([-1, 0, 3, -100], jnp.int32)}
    assert offset_label(labels, offset=10, keep_negative=True)["label"].tolist() == [-1, 10, 13, -100]
    assert offset_label(labels, offset=10)["label"].tolist() == [9, 10, 13, -90]


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "bool"])
def test_class_label(dtype: str) -> None:
    result = class_label({"label": jnp.array([0, 1, 1], dtype)})["label"]
    assert (result.tolist(), result.dtype) == ([0, 1, 1], jnp.int32)


def test_class_label_of_nan_is_none() -> None:
    assert class_label({"y": jnp.array([2.0, jnp.nan, -1.0])}, leaf="y")["y"].tolist() == [2, -1, -1]


def test_offset_one_hot() -> None:
    vector = {"label": jnp.array([0, 1, 0], jnp.uint8)}
    result = offset_one_hot(vector, offset=2, num_classes=6)["label"]
    assert (result.tolist(), result.dtype) == ([0, 0, 0, 1, 0, 0], jnp.uint8)
    assert jax.jit(partial(offset_one_hot, num_classes=3))(vector, offset=0)["label"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("label", [jnp.array(1), jnp.ones((2, 2)), jnp.ones(4)])
def test_offset_one_hot_takes_shorter_vectors_alone(label: jax.Array) -> None:
    with pytest.raises(
        SpecError, match=r"^operator 'offset_one_hot' takes a vector of at most 3 elements; leaf 'label'"
    ):
        offset_one_hot({"label": label}, offset=0, num_classes=3)


def test_tag_loss_weight() -> None:
    result = tag_loss_weight(LABEL, loss_weight=3)["loss_weight"]
    assert (result.item(), result.dtype, result.shape) == (3, "float32", ())
    assert tag_loss_weight({"loss_weight": np.float32(0.5)}, loss_weight=3)["loss_weight"].item() == 1.5


def test_tag_source() -> None:
    result = tag_source(LABEL, source_id=3)
    assert result.keys() == {"label", "source_id"}
    assert (result["source_id"].item(), result["source_id"].dtype, result["source_id"].shape) == (3, jnp.int32, ())
    assert tag_source({}, source_id=1, leaf="origin")["origin"].item() == 1


@pytest.mark.parametrize(
    ("label", "want"),
    [(0, [1, 0, 0]), (2, [0, 0, 1]), (3, [0, 0, 0]), (-1, [0, 0, 0]), (2**31 - 1, [0, 0, 0])],
)
def test_one_hot(label: int, want: list[float]) -> None:
    result = one_hot({"label": jnp.array(label, jnp.int32)}, num_classes=3)["label"]
    assert (result.tolist(), result.dtype) == (want, jnp.float32)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32"])
def test_one_hot_of_other_integers(dtype: str) -> None:
    result = one_hot({"y": jnp.array([1, 0], dtype)}, num_classes=2, leaf="y")["y"]
    assert result.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("dtype", ["float32", "bool", "bfloat16"])
def test_one_hot_takes_integers_alone(dtype: str) -> None:
    with pytest.raises(SpecError, match=rf"^operator 'one_hot' takes integers; leaf 'label' is {dtype}\.$"):
        one_hot({"label": jnp.array(1, dtype)}, num_classes=3)


def test_one_hot_has_a_class() -> None:
    with pytest.raises(ConfigError, match=r"^one_hot\.num_classes = 0; it is 1 or more\.$"):
        one_hot(LABEL, num_classes=0)


@pytest.mark.parametrize(
    ("function", "name"),
    [(partial(offset_label, offset=1), "offset_label"), (partial(one_hot, num_classes=3), "one_hot")],
)
def test_missing_leaf(function: partial[Record], name: str) -> None:
    message = rf"^operator '{name}': records have no leaf 'label'\. Did you mean 'labels'\? Known: image, labels\.$"
    with pytest.raises(SpecError, match=message):
        function({"image": jnp.ones(3), "labels": jnp.array(1)})


def test_jitted_is_the_same() -> None:
    def chain(record: Record, offset: int, source_id: int) -> Record:
        record = tag_source(offset_label(record, offset=offset), source_id=source_id)
        return one_hot(record, num_classes=7)

    got, want = jax.jit(chain)(LABEL, 3, 1), chain(LABEL, 3, 1)
    assert got.keys() == want.keys()
    for leaf in want:
        np.testing.assert_array_equal(got[leaf], want[leaf], strict=True)
    assert want["label"].tolist() == [0, 0, 0, 0, 0, 1, 0]
