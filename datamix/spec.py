"""The shape of data: leaves, records, batches, and whole datasets as arrays. No JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Record: TypeAlias = dict[str, Any]
"""One record: leaf name to the array of that leaf, NumPy's or JAX's."""

FlatRows: TypeAlias = dict[str, Any]
"""Many records: leaf name to array, shape [rows, elements], or [rows] for a scalar leaf."""

Batch: TypeAlias = dict[str, Any]
"""A batch of records: leaf name to array, shape [batch, *leaf shape]."""

Arrays = dict[str, np.ndarray]
"""Leaf name to array, shape [num_records, *leaf shape]."""


@dataclass(frozen=True)
class LeafSpec:
    """One leaf of one record.

    >>> str(LeafSpec((28, 28, 1), "uint8"))
    'uint8 [28, 28, 1]'
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def flat(self) -> tuple[int, ...]:
        """The flattened shape: (elements,), or () for a scalar."""
        return (math.prod(self.shape),) if self.shape else ()

    @property
    def has_channels_first(self) -> bool:
        """Whether this looks like an image [channels, height, width]; operators and models take channels last."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3, 4) and self.shape[2] not in (1, 3, 4)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


Spec = Mapping[str, LeafSpec]
"""Leaf name to the shape and dtype of that leaf in one record."""


def spec_of(arrays: Arrays) -> dict[str, LeafSpec]:
    """The spec of one record of `arrays`.

    >>> spec_of({"label": np.zeros(3, np.int64)})
    {'label': LeafSpec(shape=(), dtype='int64')}
    """
    return {name: LeafSpec(tuple(leaf.shape[1:]), str(leaf.dtype)) for name, leaf in arrays.items()}


def bytes_of(spec: Spec) -> int:
    """The size of one record in bytes.

    >>> bytes_of({"image": LeafSpec((28, 28, 1), "uint8"), "label": LeafSpec((), "int64")})
    792
    """
    return sum(math.prod(part.shape) * np.dtype(part.dtype).itemsize for part in spec.values())
