"""Sources made of Python objects: arrays by leaf, lists of records, datasets with `len()` and `[i]`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, cast

import numpy as np

from datamix.errors import ConfigError, DataError
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import PartOfSource, Source, TakeFromRead
from datamix.spec import Arrays, LeafSpec, Spec, spec_of

PAIR = ("image", "label")
"""The leaves of records that are pairs."""


def as_source(data: object, provenance: str | None = None) -> Source:
    """Turn what a user has into a source.

    Args:
      data: One of

        - a `Source`; `provenance` and `class_names` may be missing, and instead of `take` it may have `read`;
        - a dict of arrays, by leaf, of the same length along their first axis; a pair of such arrays, `(image, label)`;
          a DataFrame, whose columns of numbers become leaves, without its other columns; a `pyarrow.Table`, or a
          `datasets.Dataset`, see `datamix.sources.arrow.tabular`;
        - any object with `len()` whose `[i]` is record i, such as a list, or a torch or Grain dataset. A record is a
          dict of numbers and arrays, a named tuple of them, or a pair `(image, label)`; Pillow images become arrays,
          converted to RGB if they have a palette or other colours, such as CMYK. All records must have the leaves,
          shapes and dtypes of the first one. The names of classes come from `classes`, as torchvision has them, or from
          Hugging Face's `features`. If the object has `__getitems__(indices)`, records are read in chunks; if it has
          `take(indices, out)`, it fills the arrays itself.

        Several threads may call the `take` of a source or an object at once. They call `[i]` and `__getitems__` one at
        a time, as few datasets are made for more than one thread.
      provenance: The kind of place that reports give for the records; by default "arrays" or "objects".

    Raises:
      ConfigError: `data` is none of these.
      DataError: A leaf does not hold numbers, or the arrays differ in length.

    >>> source = as_source([{"x": [0.5, 1.0], "label": 3}, {"x": [2.0, 2.5], "label": 4}])
    >>> source.num_records, str(source.spec["x"])
    (2, 'float64 [2]')
    """
    if isinstance(data, Source):
        return data
    if type(data).__module__.partition(".")[0] in ("datasets", "pyarrow"):
        from datamix.sources.arrow import tabular

        if (columns := tabular(data)) is not None:
            return columns
    if hasattr(data, "num_records") and hasattr(data, "spec") and (hasattr(data, "read") or hasattr(data, "take")):
        return UserReadableSource(data, provenance) if hasattr(data, "read") else UserSource(data, provenance)
    if isinstance(data, Mapping) and hasattr(data, "column_names"):  # Hugging Face's DatasetDict
        raise ConfigError(f"{_kind(data)} holds splits, and a source is one of them: data[{next(iter(data), '…')!r}].")
    names = getattr(getattr(data, "dtype", None), "names", None)
    if names or (hasattr(data, "columns") and hasattr(data, "to_numpy")):
        return _columns(data, names or list(data.columns), provenance or "arrays")  # type: ignore[attr-defined]
    if isinstance(data, list | tuple) and len(data) == len(PAIR) and all(getattr(each, "ndim", 0) for each in data):
        data = dict(zip(PAIR, data, strict=True))
    if isinstance(data, Mapping):
        arrays = {str(leaf): _array(str(leaf), values, "") for leaf, values in data.items()}
        return MemoryArrays(arrays, provenance=provenance or "arrays")
    if isinstance(data, str | bytes):
        raise ConfigError(f"{_kind(data)} is no source; datasets by name are for datamix.load('source=mnist+fashion').")
    if hasattr(data, "dtype"):
        raise ConfigError(f"{_kind(data)} alone is no source; give arrays by leaf, as in {{'image': …, 'label': …}}.")
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return Objects(data, provenance or "objects", _class_names(data))
    if isinstance(data, Iterable):
        raise _stream(data)
    raise ConfigError(f"{_kind(data)} is no source; it needs len(), and [i] that gives record i.")


def _columns(data: Any, names: Sequence[Any], provenance: str) -> MemoryArrays:
    arrays: Arrays = {}
    left_out, texts = [], [*map(str, names)]
    if len({*texts}) < len(texts):
        raise DataError(f"a {_kind(data)} has several columns {max(texts, key=texts.count)!r}; rename them.")
    for name in names:
        try:
            arrays[str(name)] = _array(str(name), data[name], "")
        except DataError:
            left_out.append(str(name))
    if not arrays:
        raise DataError(f"{_kind(data)} has no column of numbers; its columns are {', '.join(left_out) or 'none'}.")
    notes = (f"{', '.join(left_out)}: no numbers, and left out.",) if left_out else ()
    return MemoryArrays(arrays, provenance=provenance, notes=notes)


def _class_names(data: Any) -> tuple[str, ...]:
    features = getattr(data, "features", None)
    label = features.get("label") if isinstance(features, Mapping) else None
    names = getattr(data, "classes", None) if label is None else getattr(label, "names", None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


def _stream(data: object) -> ConfigError:
    """The error for data that can only be iterated in order."""
    text = f"{_kind(data)} is no source: it gives its records in order alone, and a mix asks for any by its number"
    mend = "datamix.prepare(NAME, records, limit=…) writes so many of them to the disk once and gives a source"
    return ConfigError(f"{text}; {mend}, and list(…) holds all of them in memory.")


@dataclass(frozen=True)
class Objects:
    """The records of an object with `len()` and `[i]`; Python's numbers become int64 and float64, as in NumPy."""

    data: Any
    provenance: str = "objects"
    class_names: tuple[str, ...] = ()
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.provenance, self.class_names)  # a lock cannot be pickled

    @property
    def num_records(self) -> int:
        return len(self.data)

    @property
    def spec(self) -> Spec:
        return spec_of({leaf: values[np.newaxis] for leaf, values in self._first.items()})

    @cached_property
    def _first(self) -> dict[str, np.ndarray]:
        """The leaves of the first record, which all others must match."""
        if not self.num_records:
            return {}
        try:
            first = self.data[0]
        except (LookupError, TypeError, NotImplementedError) as error:
            if isinstance(error, NotImplementedError) and isinstance(self.data, Iterable):
                raise _stream(self.data) from error
            text = f"{_kind(self.data)} is no source: its [0] raises {type(error).__name__}: {error}"
            raise ConfigError(f"{text}; [i] is to give record i.") from error
        return _leaves(first, 0)

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        if self._fills_arrays:
            self.data.take(indices, out)
            return
        numbers, like = indices.tolist(), self._first
        if hasattr(self.data, "__getitems__"):
            with self._lock:
                records = self.data.__getitems__(numbers)
            if len(records) != len(numbers):
                raise DataError(f"__getitems__ gives {len(records)} records for {len(numbers)} indices.")
        else:
            records = map(self._record, numbers)
        for row, (number, record) in enumerate(zip(numbers, records, strict=True)):
            leaves = _leaves(record, number)
            if leaves.keys() != like.keys():
                text = f"record {number} has the leaves {sorted(leaves)}, but record 0 has {sorted(like)}"
                raise DataError(f"{text}; all records have the same ones.")
            for leaf, value in leaves.items():
                if (value.shape, value.dtype) != (like[leaf].shape, like[leaf].dtype):
                    text = f"leaf {leaf!r} of record {number} is {LeafSpec(value.shape, str(value.dtype))}"
                    raise DataError(f"{text}, but that of record 0 is {self.spec[leaf]}; make all records alike.")
                if leaf in out:
                    out[leaf][row] = value

    def _record(self, number: int) -> Any:
        with self._lock:
            return self.data[number]

    @cached_property
    def _fills_arrays(self) -> bool:
        """Whether the object has a `take(indices, out)`; the `take` of other libraries has other parameters."""
        take: Callable[..., Any] | None = getattr(self.data, "take", None)
        try:
            return take is not None and list(inspect.signature(take).parameters)[1:2] == ["out"]
        except (TypeError, ValueError):  # a function in C without a signature
            return False


@dataclass(frozen=True)
class UserSource(PartOfSource):
    """A user's source that has `take`, but lacks other members of `Source`."""

    source: Any
    named: str | None = None

    @property
    def provenance(self) -> str:
        return getattr(self.source, "provenance", None) or self.named or "objects"

    @property
    def num_records(self) -> int:
        return int(self.source.num_records)


class UserReadableSource(UserSource, TakeFromRead):
    """A user's source that has `read`, and perhaps `take`."""

    def read(self) -> Arrays:
        return cast("Arrays", self.source.read())

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        (UserSource if hasattr(self.source, "take") else TakeFromRead).take(self, indices, out)


def _leaves(record: object, number: int) -> dict[str, np.ndarray]:
    """The leaves of a record."""
    if isinstance(record, tuple) and hasattr(record, "_asdict"):
        record = record._asdict()
    elif isinstance(record, Sequence) and not isinstance(record, str | bytes) and len(record) == len(PAIR):
        record = dict(zip(PAIR, record, strict=True))
    if not isinstance(record, Mapping):
        size = f" of {len(record)}" if isinstance(record, list | tuple) else ""
        mend = "a record is a dict of numbers and arrays, as in {'image': …, 'label': 3}, or a pair (image, label)"
        raise DataError(f"record {number} is {_kind(record)}{size}; {mend}.")
    return {str(leaf): _array(str(leaf), value, f" of record {number}") for leaf, value in record.items()}


def _array(leaf: str, value: object, where: str) -> np.ndarray:
    """A leaf as an array of numbers."""
    mend = "a pipeline computes with numbers: leave it out, or turn it into numbers."
    if value is None or isinstance(value, str | bytes | Mapping):
        raise DataError(f"leaf {leaf!r}{where} is {'None' if value is None else _kind(value)}; {mend}")
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise DataError(f"leaf {leaf!r}{where} is a masked array, and a batch has no mask; give it filled(…), or nan.")
    try:
        if type(value).__module__.startswith("PIL."):
            value = _with_known_colours(value)
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors on another device
        raise DataError(f"leaf {leaf!r}{where} is {_kind(value)}, and no array: {error}") from error
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DataError(f"leaf {leaf!r}{where} is {array.dtype}; {mend}")
    return array


def _with_known_colours(image: Any) -> Any:
    """The Pillow image, converted to RGB or RGBA unless its values are grey or RGB, with or without alpha."""
    if image.mode in ("1", "L", "LA", "RGB", "RGBA") or image.mode.startswith(("I", "F")):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _kind(value: object) -> str:
    names: dict[type, str] = {str: "text", bytes: "bytes", dict: "a dict", list: "a list", tuple: "a tuple"}
    return names.get(type(value), type(value).__name__)
