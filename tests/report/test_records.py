"""Single records as pictures and as rows of a table."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.builder.built import build
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.report.console import console
from datamix.report.records import class_of, holds_images, label_of, picture, records_table
from datamix.spec import LeafSpec


@pytest.fixture(scope="module")
def built():
    return build(parse(compose(["source=digits+garments", "source.digits.limit=30", "source.garments.limit=30"])))


@pytest.mark.parametrize(
    ("shape", "drawn"), [((2, 2, 1), True), ((2, 2, 3), True), ((2, 2, 4), False), ((2, 2), False), (None, False)]
)
def test_which_images_can_be_drawn(shape, drawn):
    assert holds_images({} if shape is None else {"image": LeafSpec(shape, "uint8")}) is drawn


def test_labels_and_classes(built):
    pipeline = built.pipeline()
    assert label_of({"label": np.array([4, 13])}, 1) == 13
    assert label_of({"label": np.eye(3)}, 1) is None
    assert label_of({"x": np.zeros(3)}, 1) is None
    assert class_of(pipeline, "digits", 4) == "four"
    assert class_of(pipeline, "garments", 10) == built.sources["garments"].class_names[0]  # as the union numbers it
    assert [class_of(pipeline, "digits", label) for label in (None, -1, 10, 1.5)] == [""] * 4


def test_normalization_is_undone_and_whole_numbers_are_scaled(built):
    pixels = (np.float32([[[0.0], [0.5], [1.0]]]) - 0.1307) / 0.3081
    np.testing.assert_allclose(picture(pixels, built.graph, "digits"), [[[0], [0.5], [1]]], atol=1e-6)
    plain = build(parse(compose(["source=digits", "source.digits.limit=30", "source.digits.operators=[]"])))
    assert picture(np.array([[[255, 51]]], np.uint8), plain.graph, "digits").tolist() == [[[1, pytest.approx(0.2)]]]


def test_a_table_has_a_row_a_record():
    batch = {"x": np.arange(20.0).reshape(2, 10) / 3, "n": np.array([7, 8])}
    out = console()
    with out.capture() as printed:
        out.print(records_table("Records", batch, {"row": [1]}, [1], ["x", "n"]))
    (line,) = [line for line in printed.get().splitlines() if line.startswith("│")]
    assert line.strip("│").split("│") == ["   1 ", " 3.333 3.667 4 4.333 4.667 5 … ", " 8 "]
