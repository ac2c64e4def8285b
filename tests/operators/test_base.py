from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from datamix import registry
from datamix.errors import RegistryError, SpecError
from datamix.operators.base import Traits, leaf_of, operator, traits
from datamix.spec import Record


def test_the_function_is_registered_under_its_name_and_stays_itself() -> None:
    @operator
    def halve(record: Record, *, leaf: str = "image") -> Record:
        """Half of it."""
        return record | {leaf: record[leaf] / 2}

    assert registry.lookup("operator", "halve") is halve
    assert (halve.__name__, halve.__doc__) == ("halve", "Half of it.")
    assert list(registry.settings(halve)) == ["leaf"]
    record = {"image": jnp.array([2.0]), "label": jnp.array(4)}
    assert {name: leaf.tolist() for name, leaf in halve(record).items()} == {"image": [1.0], "label": 4}
    assert record["image"].tolist() == [2.0]


def test_traits() -> None:
    def plain(record: Record) -> Record:
        return record

    def scaled(record: Record, key: jax.Array, *, factor: float) -> Record:
        return record

    assert traits(operator(plain)) == Traits(random=False, elementwise=False, traced=())
    assert operator(random=True, elementwise=True, traced=("factor",))(scaled) is scaled
    assert traits(scaled) == Traits(random=True, elementwise=True, traced=("factor",))
    assert registry.lookup("operator", "scaled") is scaled


def test_no_traits_without_the_decorator() -> None:
    def plain(record: Record) -> Record:
        return record

    assert traits(plain) == Traits()
    plain.traits = "random"  # type: ignore[attr-defined]  # an attribute of that name is not ours
    assert traits(plain) == Traits()


def test_a_name_that_is_taken() -> None:
    with pytest.raises(
        RegistryError, match=r"^operator 'resize' is registered twice: as datamix\.operators\.image:res"
    ):

        @operator(elementwise=True)
        def resize(record: Record) -> Record:
            return record


def test_built_in_traits() -> None:
    operators = {name: registry.lookup("operator", name) for name in registry.names("operator")}
    built_in = ("datamix.operators.image", "datamix.operators.label", "datamix.operators.leaf")
    promised = {name: traits(function) for name, function in operators.items() if function.__module__ in built_in}
    assert [name for name, each in promised.items() if each.random] == ["flip_horizontal"]
    assert [name for name, each in promised.items() if not each.elementwise] == [
        "add_axis", "center_crop", "channels_last", "drop_alpha", "flip_horizontal", "offset_one_hot", "one_hot", "pad",
        "resize", "squeeze", "to_grayscale", "to_rgb", "transpose",
    ]  # fmt: skip
    assert {name: each.traced for name, each in promised.items() if each.traced} == {
        "clip": ("low", "high"),
        "log": ("offset",),
        "normalize": ("mean", "std"),
        "offset_label": ("offset",),
        "offset_one_hot": ("offset",),
        "tag_loss_weight": ("loss_weight",),
        "tag_source": ("source_id",),
    }


def test_leaf_of() -> None:
    record = {"image": jnp.ones(2), "label": jnp.array(1)}
    assert leaf_of(record, "image", "halve") is record["image"]
    message = r"^operator 'halve': records have no leaf 'imag'\. Did you mean 'image'\? Known: image, label\.$"
    with pytest.raises(SpecError, match=message):
        leaf_of(record, "imag", "halve")
