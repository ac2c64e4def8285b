"""Figures of a mix and of its plan, as a notebook shows them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import datamix
from datamix.errors import ConfigError
from datamix.sources.table import table
from datamix.testing import registered

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 1), np.uint8)


with registered():  # this module is imported before any test begins

    @datamix.operator
    def reverse_features(record: Any) -> Any:
        """Reverse the features of a record."""
        return record | {"features": record["features"][::-1]}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def shown(figure: Any) -> np.ndarray:
    """The pixels that a notebook shows."""
    return np.asarray(imread(io.BytesIO(figure._repr_png_())))


def test_images_are_shown_by_source_with_their_classes() -> None:
    sources = {name: {"image": IMAGES, "label": np.arange(30) % 2} for name in "ab"}
    pipeline = datamix.mix(sources, class_names={"b": ["cat", "dog"]}, batch_size=8)
    figure = datamix.preview(pipeline)
    assert shown(figure)[..., :3].std() > 0.05
    titles = texts(figure)
    assert {"a", "b", "0", "1", "2\ncat", "3\ndog"} <= {*titles}
    assert sum(axis.images != [] and len(axis.images) for axis in figure.axes) == 8 + 10 + 10
    assert datamix.preview(pipeline.with_weights({"a": 3})).get_suptitle() == "Samples of the mix"


def test_labels_that_are_blended_say_of_what() -> None:
    sources = {name: {"image": IMAGES, "label": np.arange(30) % 2} for name in "ab"}
    blend = ("mixup", {"alpha": 5.0})
    pipeline = datamix.mix(sources, shared_operators=[("one_hot", {"num_classes": 4}), blend], batch_size=8)
    assert any(text.count("%") == 2 for text in texts(datamix.preview(pipeline)))


def test_numbers_are_shown_as_histograms() -> None:
    pipeline = datamix.mix({"a": {"x": np.arange(60.0).reshape(20, 3)}, "b": {"x": np.ones((20, 3))}}, batch_size=4)
    figure = datamix.preview(pipeline)
    assert [axis.get_title() for axis in figure.axes][:3] == ["x[0]", "x[1]", "x[2]"]
    assert shown(figure)[..., :3].std() > 0.05


def test_numbers_of_a_table_are_shown_with_the_names_of_their_columns(tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text("rooms,price in $ per m$,rent\n" + "3,4.5,6\n4,5.5,7\n" * 4)
    houses = [f"source.my_table.path={tmp_path / 'houses.csv'}", "source.my_table.target=rent", "batch.size=4"]
    pipeline = datamix.load("source=my_table", *houses)
    figure = datamix.preview(pipeline)
    titles = [axis.get_title() for axis in figure.axes][:3]
    assert titles == ["features[0]: rooms", "features[1]: price in $ per m$", "label"]
    assert figure.axes[0].get_xticks().tolist() == [2, 3, 4, 5]  # rooms are whole numbers
    assert shown(figure)[..., :3].std() > 0.05
    rows = {"houses": table(path=str(tmp_path / "houses.csv"), target="rent")}
    for operators, title in (({}, "features[0]: rooms"), ({"shared_operators": [reverse_features]}, "features[0]")):
        assert datamix.preview(datamix.mix(rows, batch_size=4, **operators)).axes[0].get_title() == title
    other = datamix.mix({"a": {"features": np.ones((8, 2), np.float32)}}, batch_size=4)
    assert datamix.preview(other).axes[0].get_title() == "features[0]"


def test_records_without_anything_to_draw_are_refused() -> None:
    pipeline = datamix.mix({"a": {"x": np.ones(20, bool)}}, batch_size=4)
    with pytest.raises(ConfigError, match=r"records of source_id int32 \[\], x bool \[\] hold no image and no number"):
        datamix.preview(pipeline)
    dropped = datamix.mix({"a": {"x": np.ones(20)}}, shared_operators=[lambda record: {"x": record["x"]}], batch_size=4)
    with pytest.raises(ConfigError, match="drops or renames the leaf source_id"):
        datamix.preview(dropped)
