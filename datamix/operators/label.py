"""Operators on labels, and on where a record comes from."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from datamix.errors import ConfigError, SpecError
from datamix.operators.base import leaf_of, operator
from datamix.spec import Record


@operator(elementwise=True, traced=("offset",))
def offset_label(record: Record, *, offset: int, leaf: str = "label") -> Record:
    """Add a number to the label, so that the classes of several sources do not fall together.

    Integers of fewer than 32 bits become int32, so that they do not wrap round.
    """
    label = leaf_of(record, leaf, "offset_label")
    if label.dtype == jnp.bool_ or (jnp.issubdtype(label.dtype, jnp.integer) and label.dtype.itemsize < 4):
        label = label.astype(jnp.int32)
    return record | {leaf: label + jnp.asarray(offset, label.dtype)}


@operator(elementwise=True, traced=("source_id",))
def tag_source(record: Record, *, source_id: int, leaf: str = "source_id") -> Record:
    """Add the number of the source that the record comes from, int32."""
    return record | {leaf: jnp.asarray(source_id, jnp.int32)}


@operator
def one_hot(record: Record, *, num_classes: int, leaf: str = "label") -> Record:
    """Turn an integer label into a float32 vector with a single 1, shape [num_classes]; all 0 for a label outside."""
    label = leaf_of(record, leaf, "one_hot")
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise SpecError(f"operator 'one_hot' takes integers; leaf {leaf!r} is {label.dtype}.")
    if num_classes < 1:
        raise ConfigError(f"operator 'one_hot': num_classes = {num_classes}; it is 1 or more.")
    return record | {leaf: jax.nn.one_hot(label, num_classes, dtype=jnp.float32)}
