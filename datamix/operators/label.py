"""Operators on labels, and operators that tag a record with its source or its loss weight."""

from __future__ import annotations

from datamix.errors import ConfigError, SpecError
from datamix.lazy import jax, jnp, lax
from datamix.operators.base import leaf_of, operator, shape_error
from datamix.spec import LeafSpec, Record, Spec


@operator(elementwise=True)
def class_label(record: Record, *, leaf: str = "label") -> Record:
    """Turn class numbers stored as floats into int32; NaN, which is no class, becomes -1."""
    label = leaf_of(record, leaf, "class_label")
    if jnp.issubdtype(label.dtype, jnp.floating):
        label = jnp.where(jnp.isnan(label), -1, label)
    return record | {leaf: label.astype(jnp.int32)}


def _offset(spec: Spec, *, offset: int | None, leaf: str = "label", **_settings: object) -> Spec | None:
    known = type(offset) in (int, type(None)) and leaf in spec and spec[leaf].dtype == "int32"
    return spec if known else None


@operator(elementwise=True, traced=("offset",), after=_offset)
def offset_label(record: Record, *, offset: int, keep_negative: bool = False, leaf: str = "label") -> Record:
    """Add a number to the label, so that the classes of several sources stay apart.

    Booleans, unsigned integers and those of fewer than 32 bits become int32, so that they do not wrap around.

    Args:
      offset: The number to add.
      keep_negative: Whether negative labels, which are no class, are unchanged.
      leaf: The name of the leaf.
    """
    label = leaf_of(record, leaf, "offset_label")
    small = jnp.issubdtype(label.dtype, jnp.integer) and label.dtype.itemsize < 4
    if label.dtype == jnp.bool_ or small or jnp.issubdtype(label.dtype, jnp.unsignedinteger):
        label = label.astype(jnp.int32)
    shifted = label + jnp.asarray(offset, label.dtype)
    return record | {leaf: jnp.where(label < 0, label, shifted) if keep_negative else shifted}


@operator(traced=("offset",))
def offset_one_hot(record: Record, *, offset: int, num_classes: int, leaf: str = "label") -> Record:
    """Place a vector with one element per class in a longer one, so that the classes of several sources stay apart.

    Args:
      offset: The element of the longer vector at which it begins.
      num_classes: The length of the longer vector, which is 0 elsewhere.
      leaf: The name of the leaf.
    """
    label = leaf_of(record, leaf, "offset_one_hot")
    if label.ndim != 1 or label.shape[0] > num_classes:
        raise shape_error("offset_one_hot", f"a vector of at most {num_classes} elements", leaf, label)
    longer = jnp.zeros(num_classes, label.dtype)
    return record | {leaf: lax.dynamic_update_slice(longer, label, (jnp.asarray(offset, jnp.int32),))}


def _tagged(spec: Spec, *, source_id: int, leaf: str = "source_id") -> Spec | None:
    tag = LeafSpec((), "int32")
    return {**spec, leaf: tag} if type(source_id) is int and spec.get(leaf, tag).shape == () else None


@operator(elementwise=True, traced=("source_id",), after=_tagged)
def tag_source(record: Record, *, source_id: int, leaf: str = "source_id") -> Record:
    """Add the number of the source that the record comes from, int32."""
    return record | {leaf: jnp.asarray(source_id, jnp.int32)}


@operator(elementwise=True, traced=("loss_weight",))
def tag_loss_weight(record: Record, *, loss_weight: float) -> Record:
    """Add the weight of the record in the loss, float32, multiplied by the one it already has, if any."""
    return record | {"loss_weight": jnp.asarray(record.get("loss_weight", 1) * loss_weight, jnp.float32)}


@operator
def one_hot(record: Record, *, num_classes: int, leaf: str = "label") -> Record:
    """Turn an integer label into a float32 vector with a single 1, shape [num_classes]; all 0 if it is out of range."""
    label = leaf_of(record, leaf, "one_hot")
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise SpecError(f"operator 'one_hot' takes integers; leaf {leaf!r} is {label.dtype}.")
    if num_classes < 1:
        raise ConfigError("it is 1 or more", key="one_hot.num_classes", value=num_classes)
    return record | {leaf: jax.nn.one_hot(label, num_classes, dtype=jnp.float32)}
