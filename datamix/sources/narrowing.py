"""Checks whether 64-bit numbers can be stored in 32 bits without becoming other numbers."""

from __future__ import annotations

import numpy as np

_MOST_COLUMNS = 4096  # each element of a vector is checked by itself, in vectors of at most this length
_LEAST_STEPS = 2**16  # of float32 between the smallest and the largest value: as many as 16-bit pixels have
_NOISE = 2.0**-44  # relative to the largest value: smaller differences come from rounding in 64 bits


def what_is_lost(values: np.ndarray, dtype: np.dtype) -> str:
    """What is lost if values are stored in another dtype, as a phrase after "leaf 'x' "; empty if nothing is.

    Rounding is no loss. It is a loss if whole numbers become others, if values become infinite, or if the differences
    between values disappear.

    >>> what_is_lost(np.array([1750000001.0, 1750000002.0]), np.dtype(np.float32))
    'holds 1750000001, which becomes 1750000000 in float32'
    >>> what_is_lost(np.array([0.1, 0.2]), np.dtype(np.float32))
    ''
    """
    narrowing = Narrowing(dtype)
    narrowing.add(values)
    return narrowing.lost()


class Narrowing:
    """Collects what is lost if the values of a leaf, added chunk by chunk, are stored in another dtype.

    Values are compared with one another: each element of a vector by itself, an image as a whole.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        # Floats, by column: the smallest and largest finite value, the first value that the dtype changes (NaN if
        # there is none), and whether all are whole numbers. Integers: the smallest and largest value of all columns.
        self._low = self._high = self._changed = np.zeros(0)
        self._is_whole = np.zeros(0, bool)
        self._limits: tuple[int, int] | None = None

    def add(self, values: np.ndarray) -> None:
        """Add the values of some records, shape [count, ...]."""
        if not values.size or values.dtype.itemsize <= self._dtype.itemsize or values.dtype.kind != self._dtype.kind:
            return
        if values.dtype.kind in "iu":
            low, high = self._limits or (0, 0)
            self._limits = min(low, int(values.min())), max(high, int(values.max()))
        elif self._dtype.kind == "f":
            columns = values if values.ndim == 2 and values.shape[1] <= _MOST_COLUMNS else values.reshape(-1, 1)
            with np.errstate(over="ignore"):
                self._add(np.where(np.isfinite(columns), columns, np.nan))

    def _add(self, columns: np.ndarray) -> None:
        width = columns.shape[1]
        if not len(self._low):
            self._low, self._high, self._changed = np.full((3, width), np.nan)
            self._is_whole = np.ones(width, bool)
        self._low = np.fmin(self._low, np.fmin.reduce(columns))
        self._high = np.fmax(self._high, np.fmax.reduce(columns))
        changed = (columns.astype(self._dtype).astype(columns.dtype) != columns) & ~np.isnan(columns)
        first = columns[changed.argmax(axis=0), np.arange(width)]
        self._changed = np.where(np.isnan(self._changed) & changed.any(axis=0), first, self._changed)
        self._is_whole &= ((columns == np.floor(columns)) | np.isnan(columns)).all(axis=0)

    def lost(self) -> str:
        """What is lost of the values added so far; see `what_is_lost`."""
        if self._limits is not None:
            limits = np.iinfo(self._dtype)
            outside = next((value for value in self._limits if not limits.min <= value <= limits.max), None)
            return "" if outside is None else f"holds numbers that do not fit {self._dtype}, such as {outside}"
        columns = zip(self._low, self._high, self._changed, self._is_whole, strict=True)
        return next(filter(None, (self._of_column(*map(float, column)) for column in columns)), "")

    def _of_column(self, low: float, high: float, changed: float, is_whole: float) -> str:
        dtype, top = self._dtype, max(abs(low), abs(high))
        if top > float(np.finfo(dtype).max):
            return f"holds {low if abs(low) == top else high:g}, which is beyond {dtype}"
        if np.isnan(changed):
            return ""
        if is_whole and top < 2**64:  # beyond, all numbers are whole, and none counts anything
            return f"holds {changed:.0f}, which becomes {dtype.type(changed):.0f} in {dtype}"
        step = float(np.spacing(dtype.type(top)))
        if top * _NOISE < high - low < step * _LEAST_STEPS:
            return f"lies between {low:.17g} and {high:.17g}, where {dtype} has steps of {step:.3g} alone"
        return ""


def beyond(values: np.ndarray, dtype: np.dtype) -> int | None:
    """The index of the first row with a number outside the range of a dtype; None if there is none.

    >>> beyond(np.array([1, 2**40, 3]), np.dtype(np.int32))
    1
    """
    kind = values.dtype.kind
    if not values.size or values.dtype.itemsize <= dtype.itemsize or kind != dtype.kind or kind not in "iuf":
        return None
    limits = np.iinfo(dtype) if kind in "iu" else np.finfo(dtype)
    outside = (values > limits.max) | (values < limits.min)
    if kind == "f":
        outside &= np.isfinite(values)
    rows = outside.reshape(len(values), -1).any(axis=1)
    return int(rows.argmax()) if rows.any() else None


def refusal(name: str, leaf: str, lost: str, *, column: str | None = None, where: str = "") -> str:
    """The sentence on a loss that `what_is_lost` found, with advice. Casting with an operator would come too late.

    Args:
      name: The name of the source.
      lost: What was found.
      column: The column of a table that the leaf is, whose files keep no leaves to choose.
      where: The record, where it is one.
    """
    is_float = column is None and "float" in lost
    mend = "save it as float32 if that is enough, subtract" if is_float else "subtract"
    mend = "divide it" if "beyond" in lost else f"{mend} what its values have in common"
    if column is not None:
        return f"the target {column!r}{where} {lost}; {mend}."
    return f"leaf {leaf!r}{where} {lost}; {mend}, or leave it out: of files, source.{name}.leaves chooses the leaves."
