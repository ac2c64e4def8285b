"""The contract of a source: records of one spec, read by their indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from datamix import registry
from datamix.errors import DataError
from datamix.sources.mapped import after_read, before_read
from datamix.spec import Arrays, Spec, bytes_of

_CHUNK_BYTES, _CHUNK_RECORDS = 2**22, 1024


class Unavailable(DataError):  # noqa: N818 - it names the state of the data, which a stand-in may replace
    """Raised when a dataset is neither on disk nor available for download; a stand-in may take its place.

    Attributes:
      tried: What was tried and why it failed, without the advice in the message.
    """

    def __init__(self, message: str, tried: str) -> None:
        super().__init__(message)
        self.tried = tried


@runtime_checkable
class Source(Protocol):
    """The records of one dataset. Everything but the records is known without reading them.

    A source may have other members as well:

    - `read()`: all records at once; see `ReadableSource`.
    - `whole_labels()`: the labels of its whole dataset; see `LabelledSource`.
    - `num_classes`: the number of classes, if they have no names.
    - `places(indices)`: where records lie, one text each.
    - `statistics()`: stored statistics of all its records.
    - `prepare(progress)`: does in advance what the first use would do, and calls `progress(done, total)`.
    - `lengths()` and `tokenizer_digest`: the number of tokens in each record, and what identifies their tokenizer.
    - `in_memory`: its arrays, by leaf, if records lie one after the other in memory or in mapped files; a CPU then
      reads them there.

    Attributes:
      provenance: The kind of place where the records come from: "tfds", "arrays", "procedural", …
      num_records: The number of records.
      spec: The shape and dtype of each leaf of one record.
      class_names: The name of each label, by label; empty if classes have no names.
    """

    @property
    def provenance(self) -> str: ...
    @property
    def num_records(self) -> int: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """Write some records into arrays. Several threads may call this at once, each with its own arrays.

        Args:
          indices: The numbers of the records, int64 [count], each at least 0 and less than `num_records`, in any order;
            numbers may be repeated.
          out: The arrays to fill: leaf name to array, shape [count, *leaf shape], with the dtype in `spec`. It may hold
            only the leaves that are needed; a source that then raises KeyError is called again with all of them.

        Raises:
          DataError: A record cannot be read, or does not match the spec.
        """
        ...


@runtime_checkable
class ReadableSource(Source, Protocol):
    """A source that can hand out all its records at once, faster than by `take`."""

    def read(self) -> Arrays:
        """All records: leaf name to array, shape [num_records, *leaf shape]; may be memory-mapped."""
        ...


@runtime_checkable
class LabelledSource(Source, Protocol):
    """A source that may hand out a part of its dataset, and knows the labels of all of it."""

    def whole_labels(self) -> np.ndarray:
        """The leaf `label` of every record of the dataset, shape [records, *leaf shape], other splits included."""
        ...


class TakeFromRead:
    """A base class for sources with `read()`: `take` looks records up in the arrays that its first call returned."""

    def read(self) -> Arrays:
        """All records: leaf name to array, shape [num_records, *leaf shape]; may be memory-mapped."""
        raise NotImplementedError

    @cached_property
    def _read_once(self) -> Arrays:
        return self.read()

    @property
    def in_memory(self) -> Arrays:
        """The arrays in which `take` looks records up."""
        return self._read_once if type(self).take is TakeFromRead.take else {}

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """Write some records into arrays; see `Source.take`."""
        take_rows(self._read_once, indices, out)


class PartOfSource:
    """A base class for views of some or all records of another source, from which its members are derived."""

    source: Source

    def _of_whole(self, indices: np.ndarray) -> np.ndarray:
        """The indices in the whole source of some records of this part."""
        return indices

    @property
    def provenance(self) -> str:
        return self.source.provenance

    @property
    def spec(self) -> Spec:
        return self.source.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(getattr(self.source, "class_names", ()))

    @property
    def num_classes(self) -> object:
        return getattr(self.source, "num_classes", None)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on the source, one sentence each."""
        return tuple(getattr(self.source, "notes", ()))

    @property
    def places(self) -> Callable[[np.ndarray], list[str]] | None:
        """A function from indices, int64 [count], to texts that say where the records lie; None if there is none."""
        places = getattr(self.source, "places", None)
        return None if places is None else lambda indices: places(self._of_whole(indices))

    @property
    def prepare(self) -> Callable[[Callable[[int, int], None]], None] | None:
        """A function that does in advance what the first use would do; None if the source has none."""
        return getattr(self.source, "prepare", None)

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """Write some records into arrays; see `Source.take`."""
        self.source.take(self._of_whole(indices), out)


def reads_whole(source: Source) -> bool:
    """Whether a source reads all its records at once; for a part of a source, whether the whole source does."""
    return isinstance(source, ReadableSource) and getattr(source, "reads_whole", True)


def read_all(source: Source, count: int | None = None) -> Arrays:
    """Read all records, or the first `count`: by `read()` if the source has it, otherwise by `take`, chunk by chunk."""
    count = source.num_records if count is None else count
    if isinstance(source, ReadableSource) and reads_whole(source):
        arrays = source.read()
        return arrays if count == source.num_records else {leaf: values[:count] for leaf, values in arrays.items()}
    return take_all(source, count)


def taken(source: Source, indices: np.ndarray) -> Arrays:
    """Take records of a source by their indices, int64 [count]: leaf name to array, shape [count, *leaf shape]."""
    out = {leaf: np.empty((len(indices), *part.shape), part.dtype) for leaf, part in source.spec.items()}
    source.take(indices, out)
    return out


def take_all(source: Source, count: int) -> Arrays:
    """Take the first records of a source, chunk by chunk; see `read_all`."""
    arrays = {leaf: np.empty((count, *part.shape), part.dtype) for leaf, part in source.spec.items()}
    for start, chunk in chunks_of(source, count):
        for leaf, values in chunk.items():
            arrays[leaf][start : start + len(values)] = values
    return arrays


def read_leaf(source: Source, leaf: str, count: int | None = None) -> np.ndarray:
    """Read one leaf of the first records of a source, shape [count, *leaf shape].

    A source without `read()` is asked for this leaf only.
    """
    count = source.num_records if count is None else count
    if reads_whole(source):
        return read_all(source, count)[leaf]
    values = np.empty((count, *source.spec[leaf].shape), source.spec[leaf].dtype)
    for start in range(0, count, _CHUNK_RECORDS):
        indices = np.arange(start, min(start + _CHUNK_RECORDS, count))
        out = {leaf: values[start:][: len(indices)]}
        try:
            source.take(indices, out)
        except KeyError:  # a user's source may need arrays for all leaves
            out[leaf][...] = taken(source, indices)[leaf]
    return values


def chunks_of(source: Source, count: int | None = None) -> Iterator[tuple[int, Arrays]]:
    """Read the first records of a source in chunks that fit into a processor's cache.

    Yields:
      The index of the chunk's first record, and the chunk: leaf name to array, shape [records, *leaf shape]. The next
      chunk may overwrite it.
    """
    size = max(1, _CHUNK_BYTES // max(bytes_of(source.spec), 1))
    if reads_whole(source):
        arrays = read_all(source, count)
        for start in range(0, max(map(len, arrays.values())), size):
            chunk = {leaf: values[start : start + size] for leaf, values in arrays.items()}
            for values in chunk.values():
                before_read(values, len(values), len(values))
            yield start, chunk
            for values in chunk.values():
                after_read(values, len(values))
        return
    count = source.num_records if count is None else count
    size = min(size, max(count, 1), _CHUNK_RECORDS)
    arrays = {leaf: np.empty((size, *part.shape), part.dtype) for leaf, part in source.spec.items()}
    for start in range(0, count, size):
        indices = np.arange(start, min(start + size, count))
        chunk = {leaf: values[: len(indices)] for leaf, values in arrays.items()}
        source.take(indices, chunk)
        yield start, chunk


def take_rows(arrays: Arrays, indices: np.ndarray, out: Arrays) -> None:
    """Write rows of arrays into other arrays; see `Source.take`.

    >>> out = {"label": np.zeros(3, np.int64)}
    >>> take_rows({"label": np.array([10, 11, 12])}, np.array([2, 0, 2]), out)
    >>> out["label"]
    array([12, 10, 12])
    """
    for leaf, rows in out.items():
        values = arrays[leaf]
        if not len(indices):
            continue
        low, high = int(indices.min()), int(indices.max())
        if not 0 <= low <= high < len(values):
            raise IndexError(f"records {low} to {high} are asked for, of {len(values)}")
        before_read(values, len(indices), high - low + 1)
        # Indices are checked above: with mode="raise", NumPy would fill `rows` through a buffer.
        np.take(values, indices, axis=0, out=rows, mode="clip")
        after_read(values, len(indices))


def source(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function or class as a source, under its name in snake_case.

    It is called with the keyword settings of the dataset's YAML file, and returns a `Source`, a dict of arrays of the
    same length along their first axis, or any object with `len()` whose `[i]` is record i; see
    `datamix.sources.objects.as_source`.

    Raises:
      RegistryError: The name is taken.

    >>> @source
    ... def ramp_for_doctest(*, num_records: int = 3):
    ...     return {"image": np.zeros((num_records, 2, 2, 1), np.uint8), "label": np.arange(num_records)}
    """
    registry.register("source", registry.name_of(function), function)
    return function
