"""Operators on the shapes and names of leaves."""

from __future__ import annotations

import jax.numpy as jnp

from datamix.errors import ConfigError, SpecError
from datamix.operators.base import leaf_of, operator
from datamix.spec import Record


@operator
def add_axis(record: Record, *, axis: int = -1, leaf: str = "image") -> Record:
    """Add an axis of length 1 to a leaf, the last one by default: [height, width] becomes [height, width, 1].

    >>> add_axis({"image": jnp.zeros((28, 28))})["image"].shape
    (28, 28, 1)
    """
    value = leaf_of(record, leaf, "add_axis")
    if not -value.ndim - 1 <= axis <= value.ndim:
        text = f"it is from {-value.ndim - 1} to {value.ndim}, as leaf {leaf!r} has shape {list(value.shape)}"
        raise ConfigError(text, key="add_axis.axis", value=axis)
    return record | {leaf: jnp.expand_dims(value, axis)}


@operator
def squeeze(record: Record, *, axis: int | None = None, leaf: str = "image") -> Record:
    """Drop an axis of length 1 from a leaf; by default, all of them.

    >>> squeeze({"image": jnp.zeros((1, 28, 28, 1))}, axis=0)["image"].shape
    (28, 28, 1)
    """
    value = leaf_of(record, leaf, "squeeze")
    if axis is not None and (not -value.ndim <= axis < value.ndim or value.shape[axis] != 1):
        text = f"leaf {leaf!r} has shape {list(value.shape)}, with no axis of length 1 there"
        raise SpecError(text, key="squeeze.axis", value=axis)
    return record | {leaf: jnp.squeeze(value, axis)}


@operator
def transpose(record: Record, *, axes: list[int], leaf: str = "image") -> Record:
    """Permute the axes of a leaf, such as [1, 0, 2] to put the columns of an image before its rows.

    >>> transpose({"image": jnp.zeros((28, 32, 1))}, axes=[1, 0, 2])["image"].shape
    (32, 28, 1)
    """
    value = leaf_of(record, leaf, "transpose")
    if sorted(axes) != list(range(value.ndim)):
        text = f"leaf {leaf!r} has shape {list(value.shape)}; it is the numbers from 0 to {value.ndim - 1}, each once"
        raise ConfigError(text, key="transpose.axes", value=list(axes))
    return record | {leaf: jnp.transpose(value, axes)}


@operator(elementwise=True)
def select(record: Record, *, leaves: list[str]) -> Record:
    """Keep only these leaves, and the `source_id` that a mix adds.

    >>> select({"image": 0, "mask": 1, "label": 2}, leaves=["image", "label"])
    {'image': 0, 'label': 2}
    """
    if not leaves:
        raise ConfigError("it names one leaf or more", key="select.leaves", value=leaves)
    kept = [*leaves, *(leaf for leaf in ("source_id",) if leaf in record and leaf not in leaves)]
    return {leaf: leaf_of(record, leaf, "select") for leaf in kept}


@operator(elementwise=True)
def rename(record: Record, *, leaf: str, to: str) -> Record:
    """Rename a leaf; the other leaves keep their names.

    To make a leaf the label, name it in the dataset's `leaves` instead, since a mix counts and numbers classes before.

    >>> rename({"photo": 0, "label": 1}, leaf="photo", to="image")
    {'image': 0, 'label': 1}
    """
    value = leaf_of(record, leaf, "rename")
    if to == leaf:
        return record
    if to == "label":
        leaves = {to: leaf} | {name: name for name in record if name not in (leaf, "source_id")}
        listed = ", ".join(f"{name}: {column}" for name, column in leaves.items())
        mend = f"Name it where the dataset is described, as in leaves: {{{listed}}}."
        raise ConfigError("a mix numbers the classes before", key="rename.to", value=to, hint=mend)
    if to in record:
        raise SpecError(f"records have such a leaf already, which {leaf!r} would overwrite", key="rename.to", value=to)
    return {to: value} | {name: other for name, other in record.items() if name != leaf}
