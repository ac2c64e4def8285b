"""From a graph and the specs of its sources to a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

import datamix
from datamix.errors import DataError, SpecError
from datamix.spec import LeafSpec


def test_sources_of_different_formats(shared_data: Any) -> None:
    digits = dict(np.load(shared_data / "digits8x8.npz"))
    photos = dict(np.load(shared_data / "photo_patches32.npz"))
    resize = "{resize:{height:28,width:28}}"
    pipeline = datamix.load(
        "source=digits+small+photos",
        f"source.small.operators=[{resize},{{to_float:{{largest:16}}}},{{normalize:{{mean:0.1307,std:0.3081}}}}]",
        f"source.photos.operators=[{resize},to_grayscale,to_float,{{normalize:{{mean:0.5,std:0.25}}}}]",
        sources={"small": digits, "photos": photos},
    )
    batch = pipeline[3]
    chosen = pipeline.plan.take(3 * 16, 16)
    assert set(chosen.source.tolist()) == {0, 1, 2}
    for i, (source, record) in enumerate(zip(chosen.source, chosen.record, strict=True)):
        if source == 1:
            image = jax.image.resize(digits["image"][record].astype(np.float32), (28, 28, 1), "linear")
            expected = (np.clip(np.round(image), 0, 255) / 16 - 0.1307) / 0.3081
            assert batch["label"][i] == digits["label"][record] + 10
        elif source == 2:
            image = np.round(jax.image.resize(photos["image"][record].astype(np.float32), (28, 28, 3), "linear"))
            gray = np.round(np.asarray(image) @ np.float32([[0.299], [0.587], [0.114]]))
            expected = (gray / 255 - 0.5) / 0.25
            assert batch["label"][i] == photos["label"][record] + 20
        else:
            continue
        # One gray level of rounding either way.
        np.testing.assert_allclose(batch["image"][i], expected, atol=0.35 if source == 1 else 0.02)


@pytest.mark.parametrize(
    ("shape", "operators", "message"),
    [
        ((8, 8, 1), "[to_float]", r"sources 'a' and 'z' do not fit together: image is float32 \[4, 3, 1\] in a, but "
                                  r"float32 \[8, 8, 1\] in z; resize: \{height: 4, width: 3\} would mend it: add it to "
                                  r"source.z.operators"),
        ((4, 3, 3), "[to_float]", r"float32 \[4, 3, 3\] in z; to_grayscale would mend it"),
        ((4, 3, 1), "[]", r"but uint8 \[4, 3, 1\] in z; to_float would mend it"),
        ((4, 3, 1), "[to_float,{one_hot:{num_classes:4}}]", r"label is int32 \[\] in a, but float32 \[4\] in z"),
        ((4, 3, 1), "[{cast:{dtype:float16}}]", r"but float16 \[4, 3, 1\] in z; cast: \{dtype: float32, leaf: image\}"),
        ((4, 3), "[{resize:{height:4,width:3}}]", r"z/resize: .*takes an image .* leaf 'image' has shape \[4, 3\]"),
    ],
)  # fmt: skip
def test_records_that_do_not_fit(
    arrays: dict[str, dict[str, np.ndarray]], shape: tuple[int, ...], operators: str, message: str
) -> None:
    other = {"image": np.zeros((9, *shape), np.uint8), "label": np.zeros(9, np.int64)}
    with pytest.raises(SpecError, match=message):
        datamix.load("source.a.operators=[to_float]", f"source.z.operators={operators}", "batch.size=4",
                     sources={"a": arrays["a"], "z": other})  # fmt: skip


def test_a_leaf_that_one_source_lacks(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    with pytest.raises(SpecError, match=r"a has a leaf 'label', z has none; choose the leaves of source\.a"):
        datamix.load(sources={"a": arrays["a"], "z": {"image": arrays["b"]["image"]}})


def test_specs_are_checked_before_data_is_read(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    class Unread:
        provenance, num_records, class_names = "unread", 5, ()

        @property
        def spec(self) -> Mapping[str, LeafSpec]:
            return {"image": LeafSpec((2, 2, 1), "uint8")}

        def read(self) -> dict[str, np.ndarray]:
            raise AssertionError("read before the specs were checked")

    with pytest.raises(SpecError, match="do not fit together"):
        datamix.load("batch.size=2", sources={"a": arrays["a"], "unread": Unread()})


def test_texts_are_refused() -> None:
    with pytest.raises(DataError, match="source 'a': leaf 'text' is <U3; a pipeline computes with numbers"):
        datamix.load("batch.size=2", sources={"a": {"text": np.asarray(["one", "two"])}})
