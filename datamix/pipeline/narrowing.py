"""Whether numbers of 64 bits can be stored in 32 without becoming other numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_MOST_COLUMNS = 4096  # up to so many elements, a vector's elements are told from one another
_LEAST_STEPS = 2**16  # of float32 between the smallest and the largest value: what 16-bit pixels have
_NOISE = 2.0**-44  # relative to the largest value: what is left of rounding in 64 bits is no difference


def what_is_lost(values: np.ndarray, dtype: np.dtype) -> str:
    """What is lost where values are stored in another dtype, to go on from "leaf 'x' "; empty if nothing is.

    Rounding is no loss; it is one where whole numbers become others, where values become infinite, and where the
    differences between them are no longer seen.

    >>> what_is_lost(np.array([1750000001.0, 1750000002.0]), np.dtype(np.float32))
    'holds 1750000001, which becomes 1750000000 in float32'
    >>> what_is_lost(np.array([0.1, 0.2]), np.dtype(np.float32))
    ''
    """
    if not values.size or values.dtype.itemsize <= dtype.itemsize or values.dtype.kind != dtype.kind:
        return ""
    if values.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        outside = next((value for value in (values.min(), values.max()) if not limits.min <= value <= limits.max), None)
        return "" if outside is None else f"holds numbers that do not fit {dtype}, such as {outside}"
    if dtype.kind != "f":
        return ""
    for column in _columns(values):
        is_finite = np.isfinite(column)
        finite = column if is_finite.all() else column[is_finite]
        if finite.size and (lost := _lost_of_floats(finite, dtype)):
            return lost
    return ""


def _columns(values: np.ndarray) -> Iterator[np.ndarray]:
    """Values that are compared with one another: each element of a vector by itself, an image as a whole."""
    if values.ndim == 2 and values.shape[1] <= _MOST_COLUMNS:
        yield from values.T
    else:
        yield values.reshape(-1)


def _lost_of_floats(values: np.ndarray, dtype: np.dtype) -> str:
    low, high = float(values.min()), float(values.max())
    top = max(abs(low), abs(high))
    if top > float(np.finfo(dtype).max):
        return f"holds {low if abs(low) == top else high:g}, which is beyond {dtype}"
    narrow = values.astype(dtype)
    changed = narrow.astype(values.dtype) != values
    if not changed.any():
        return ""
    if (values == np.floor(values)).all():
        return f"holds {values[changed][0]:.0f}, which becomes {narrow[changed][0]:.0f} in {dtype}"
    step = float(np.spacing(dtype.type(top)))
    if top * _NOISE < high - low < step * _LEAST_STEPS:
        return f"lies between {low:.17g} and {high:.17g}, where {dtype} has steps of {step:.3g} alone"
    return ""
