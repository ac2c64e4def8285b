"""Checks of the values of leaves, before a mix is run, for mistakes that dtypes do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from datamix.builder.labels import Labels
from datamix.builder.open_source import OpenSource, is_shipped
from datamix.errors import ConfigError, of_source
from datamix.lazy import jax
from datamix.operators.image import cast, to_float
from datamix.pipeline.graph import Operation
from datamix.sources.base import taken
from datamix.sources.statistics import LeafStatistics, Statistics

_SAMPLE_RECORDS = 4096  # records, evenly spaced
_CHANGE_VALUES = ("to_float", "cast", "normalize", "clip", "log", "color_jitter", "gaussian_noise", "rename")
_MANY = 500  # records, among which at least one should have a white pixel
_USUAL = 255  # white in most images, even if no pixel is quite white


def check_largest(sources: Sequence[OpenSource], shared: Sequence[Operation]) -> None:
    """Refuse `to_float` without `largest`, the value that becomes 1, for integers other than uint8."""
    for source in sources:
        for key, leaf, dtype, white in _to_floats(source, shared):
            if white is None and dtype.kind in "iu" and dtype != np.uint8:
                raise _missing_largest(source, leaf, dtype, f"{key}.to_float.largest")


def notes_on_scale(sources: Mapping[str, OpenSource], shared: Sequence[Operation], statistics: Statistics) -> list[str]:
    """The notes on `to_float` where the largest value becomes far from 1, as with bytes from 0 to 16."""
    notes = []
    for name, source in sources.items():
        for _, leaf, dtype, white in _to_floats(source, shared):
            if source.placement == "host" and dtype.kind in "biu":
                continue  # not worth reading its records on the host
            low, high = statistics[name][leaf].min, statistics[name][leaf].max or 0
            becomes = high / (white or (_USUAL if dtype.kind == "u" else 1))
            is_dark = white is None and dtype.kind == "u" and 0 < becomes < 0.5 and source.num_records >= _MANY
            if low == 0 and (becomes > 2 or is_dark):  # images usually have black pixels
                text = f"the largest {leaf} value is {high:g}, of which to_float makes {becomes:.3g}"
                notes.append(of_source(name, f"{text}; to_float: {{largest: {_white(high):g}}} fits."))
    return notes


def notes_on_casts(sources: Mapping[str, OpenSource], shared: Sequence[Operation], statistics: Statistics) -> list[str]:
    """The notes on `cast` to a dtype that cannot represent all stored values."""
    notes = []
    for name, source in sources.items():
        for _, operation, leaf, dtype in _as_stored(source, shared):
            if operation.function is not cast or (source.placement == "host" and dtype.kind in "biu"):
                continue  # not worth reading its records on the host
            wanted, values = jax.dtypes.canonicalize_dtype(operation.settings["dtype"]), statistics[name][leaf]
            low, high = _kept(dtype, wanted)
            outside = [value for value in (values.min, values.max) if value is not None and not low <= value <= high]
            if outside:
                text = f"the leaf {leaf!r} holds {outside[-1]:.10g}, and cast to {wanted} keeps what lies from"
                notes.append(of_source(name, f"{text} {low:.10g} to {high:.10g}; clip before it bounds them."))
    return notes


def _kept(dtype: np.dtype, wanted: np.dtype) -> tuple[float, float]:
    """The bounds within which values survive a cast from one dtype to another, except for rounding of fractions."""
    numbers: Any = jax.numpy  # some of whose functions have no types
    if wanted.kind == "b":
        return -np.inf, np.inf  # only whether a number is 0 matters
    if wanted.kind in "iu":
        return float(numbers.iinfo(wanted).min), float(numbers.iinfo(wanted).max)
    limits = numbers.finfo(wanted)
    most = 2.0 ** (limits.nmant + 1) if dtype.kind in "iu" else float(limits.max)
    return -most, most


def notes_on_values(sources: Mapping[str, OpenSource], statistics: Statistics, labels: Labels) -> list[str]:
    """The notes on NaN and infinity in images, features and labels, and on records without a class."""
    notes = []
    for name, source in sources.items():
        for leaf in [leaf for leaf in ("image", "features", "label") if leaf in source.spec]:
            is_class = leaf == "label" and name in labels.num_classes
            if source.placement == "host" and not _may_lack(source, leaf, is_class=is_class):
                continue  # not worth reading its records on the host
            statistic = statistics[name][leaf]
            count = statistic.num_records if statistic.sampled else source.num_records
            looked_at = " that were looked at" if statistic.sampled else ""
            if is_class:
                if lacking := statistic.num_unlabelled(count):
                    some = f"{lacking:,} of {count:,} records{looked_at}"
                    notes.append(of_source(name, f"{some} are unlabelled, and left out of loss and accuracy."))
            elif broken := what_is_broken(statistic):
                some = f", in {count:,} records{looked_at}" if looked_at else ""
                notes.append(of_source(name, f"the leaf {leaf!r} holds {broken}{some}."))
    return notes


def _may_lack(source: OpenSource, leaf: str, *, is_class: bool) -> bool:
    """Whether a leaf may hold values to note; class labels only if unlabelled records are kept, not refused."""
    return source.unlabelled == "keep" if is_class else np.dtype(source.spec[leaf].dtype).kind not in "biu"


def what_is_broken(statistic: LeafStatistics) -> str:
    """The shares of NaN and infinity among the values of a leaf, as text; empty if there are none."""
    shares = {"NaN": statistic.nan, "infinity": statistic.inf}
    return " and ".join(f"{what} ({share:.2%} of its values)" for what, share in shares.items() if share)


def _missing_largest(source: OpenSource, leaf: str, dtype: np.dtype, key: str) -> ConfigError:
    """The error for `to_float` without `largest`, with the largest value of some records."""
    count = min(source.num_records, _SAMPLE_RECORDS)
    indices = np.linspace(0, source.num_records - 1, count).astype(np.int64)
    largest = int(taken(source, indices)[leaf].max())
    text = f"it is the value that becomes 1, which {dtype}, the type of {leaf} in {source.name}, does not say"
    hint = f"The largest in {count:,} records is {largest}, so that to_float: {{largest: {max(_white(largest), 1)}}}"
    return ConfigError(text, key=key, value=None, hint=f"{hint} fits.")


def _white(largest: float) -> float:
    """The value of white in images whose largest value is this one."""
    return _USUAL if _USUAL // 2 < largest <= _USUAL else largest


def _to_floats(
    source: OpenSource, shared: Sequence[Operation]
) -> Iterator[tuple[str, str, np.dtype, int | float | None]]:
    """Every `to_float` that is applied to stored values: its key, the leaf, the dtype, and `largest`."""
    for key, operation, leaf, dtype in _as_stored(source, shared):
        if operation.function is to_float:
            yield key, leaf, dtype, operation.settings.get("largest")


def _as_stored(source: OpenSource, shared: Sequence[Operation]) -> Iterator[tuple[str, Operation, str, np.dtype]]:
    """Every operator that is applied to stored values: its key, the operator, the leaf and the dtype."""
    where = f"{source.key}.operators" if source.key else f"operators[{source.name!r}]"
    shared_where = "operators" if source.key else "shared_operators"
    chain = [(f"{where}[{i}]", each) for i, each in enumerate(source.operators)]
    chain += [(f"{shared_where}[{i}]", each) for i, each in enumerate(shared)]
    dtypes = {leaf: np.dtype(part.dtype) for leaf, part in source.spec.items()}
    for key, operation in chain:
        leaf = operation.settings.get("leaf", "image")
        if leaf in dtypes:
            yield key, operation, leaf, dtypes[leaf]
        if not is_shipped(operation):
            return
        if operation.operator in _CHANGE_VALUES:
            dtypes.pop(leaf, None)
