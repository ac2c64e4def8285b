"""What data looks like."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.spec import LeafSpec, spec_of


@pytest.mark.parametrize(
    ("shape", "text", "flat"),
    [
        ((28, 28, 1), "uint8 [28, 28, 1]", (784,)),
        ((3,), "uint8 [3]", (3,)),
        ((), "uint8 []", ()),
    ],
)
def test_a_leaf_as_text_and_as_a_row(shape: tuple[int, ...], text: str, flat: tuple[int, ...]) -> None:
    leaf = LeafSpec(shape, "uint8")
    assert (str(leaf), leaf.flat) == (text, flat)


def test_leaves_are_equal_by_shape_and_dtype() -> None:
    assert len({LeafSpec((2,), "uint8"), LeafSpec((2,), "uint8"), LeafSpec((2,), "int8"), LeafSpec((3,), "uint8")}) == 3


def test_the_spec_of_arrays_is_that_of_one_record() -> None:
    arrays = {"image": np.zeros((5, 2, 3, 1), np.uint8), "label": np.zeros(5), "text": np.asarray(["one"] * 5)}
    assert spec_of(arrays) == {
        "image": LeafSpec((2, 3, 1), "uint8"),
        "label": LeafSpec((), "float64"),
        "text": LeafSpec((), "<U3"),
    }
    assert spec_of({"label": np.zeros(0, np.int8)}) == {"label": LeafSpec((), "int8")}
