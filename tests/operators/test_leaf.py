"""Operators on the shapes and names of leaves."""

from __future__ import annotations

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, SpecError
from datamix.operators.leaf import add_axis, rename, select, squeeze, transpose

VALUE = jnp.arange(6).reshape(1, 2, 3)
RECORD = {"image": VALUE, "label": jnp.array(7)}


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (1, 2, 3, 1)), (0, (1, 1, 2, 3)), (3, (1, 2, 3, 1)), (-2, (1, 2, 1, 3))]
)
def test_add_axis(axis: int, shape: tuple[int, ...]) -> None:
    added = add_axis(RECORD, axis=axis)
    assert (added["image"].shape, added["label"]) == (shape, 7)
    np.testing.assert_array_equal(added["image"].reshape(VALUE.shape), VALUE)


def test_add_axis_to_a_number() -> None:
    assert add_axis(RECORD, leaf="label")["label"].tolist() == [7]


@pytest.mark.parametrize("axis", [4, -5])
def test_there_is_no_place_for_an_axis(axis: int) -> None:
    message = rf"^add_axis\.axis = {axis}; it is from -4 to 3, as leaf 'image' has shape \[1, 2, 3\]\.$"
    with pytest.raises(ConfigError, match=message):
        add_axis(RECORD, axis=axis)


@pytest.mark.parametrize("axis", [None, 0, -3])
def test_squeeze(axis: int | None) -> None:
    squeezed = squeeze(RECORD, axis=axis)
    np.testing.assert_array_equal(squeezed["image"], VALUE[0], strict=True)
    assert squeezed["label"] is RECORD["label"]


@pytest.mark.parametrize("axis", [1, 3, -4])
def test_there_is_no_axis_of_length_one(axis: int) -> None:
    with pytest.raises(SpecError, match=rf"^squeeze\.axis = {axis}; .* \[1, 2, 3\], with no axis of length 1"):
        squeeze(RECORD, axis=axis)


def test_transpose() -> None:
    np.testing.assert_array_equal(transpose(RECORD, axes=[2, 0, 1])["image"], VALUE.transpose(2, 0, 1), strict=True)
    for axes in ([0, 1], [0, 0, 1], [1, 2, 3]):
        with pytest.raises(ConfigError, match=r"^transpose\.axes = .* from 0 to 2, each once\.$"):
            transpose(RECORD, axes=axes)


def test_select() -> None:
    assert list(select(RECORD | {"mask": VALUE}, leaves=["mask", "label"])) == ["mask", "label"]
    with pytest.raises(SpecError, match=r"^operator 'select': records have no leaf 'labels'\. Did you mean 'label'"):
        select(RECORD, leaves=["labels"])
    assert list(select(RECORD | {"source_id": VALUE}, leaves=["label"])) == ["label", "source_id"]
    with pytest.raises(ConfigError, match=r"^select\.leaves = \[\]; it names one leaf or more\.$"):
        select(RECORD, leaves=[])


def test_rename() -> None:
    record = {"photo": 1, "label": 2, "other": 3}
    assert rename(record, leaf="photo", to="image") == {"image": 1, "label": 2, "other": 3}
    assert rename(record, leaf="label", to="target") == {"photo": 1, "target": 2, "other": 3}
    assert rename(record, leaf="other", to="other") == record


def test_a_label_is_named_where_the_dataset_is_described(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((6, 4), np.float32), y=np.arange(6) % 3)
    settings = f"_target_: arrays\npath: {tmp_path}/x.npz\n"
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "x1.yaml").write_text(f"{settings}operators: [{{rename: {{leaf: y, to: label}}}}]\n")
    with pytest.raises(ConfigError, match=r"as in leaves: \{label: y, x: x\}\.$") as raised:
        datamix.load("source=x1", config_dir=tmp_path)
    leaves = re.findall(r"leaves: \{.*\}", str(raised.value))[0]
    (tmp_path / "dataset" / "x1.yaml").write_text(f"{settings}{leaves}\n")
    assert {*datamix.load("source=x1", "batch.size=2", config_dir=tmp_path).spec} == {"label", "x", "source_id"}


def test_rename_overwrites_nothing() -> None:
    with pytest.raises(
        SpecError, match=r"^rename\.to = 'b'; records have such a leaf already, which 'a' would overwrite"
    ):
        rename({"a": 1, "b": 2}, leaf="a", to="b")
    with pytest.raises(SpecError, match=r"^operator 'rename': records have no leaf 'imag'\. Did you mean 'image'\?"):
        rename(RECORD, leaf="imag", to="y")


def test_a_label_is_named_where_classes_are_counted() -> None:
    message = r"^rename\.to = 'label'; .* as in leaves: \{label: digit\}\.$"
    with pytest.raises(ConfigError, match=message):
        rename({"digit": 1}, leaf="digit", to="label")


def test_in_a_mix_by_name() -> None:
    gray = {"photo": np.arange(24, dtype=np.uint8).reshape(6, 2, 2), "label": np.arange(6)}
    rename_photo = {"rename": {"leaf": "photo", "to": "image"}}
    settings = {"shuffle": "none", "batch_size": 2}
    batch = next(iter(datamix.mix({"gray": gray}, operators=[rename_photo, "add_axis"], **settings)))
    np.testing.assert_array_equal(batch["image"][..., 0], gray["photo"][:2])
    with pytest.raises(SpecError, match=r"squeeze\.axis = 0"):
        datamix.mix({"gray": gray}, operators=[rename_photo, {"squeeze": {"axis": 0}}], **settings)
