"""ArrayRecord files: `tf.train.Example`s, parsed without TensorFlow, or raw bytes of one length."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError, hint
from datamix.sources.cache import Place, cache_directory
from datamix.sources.files import Paths, files_of, notes_on
from datamix.sources.images import Fit, ImageFormat, Mode, image_sizes, read_error, spread
from datamix.sources.splits import split_records
from datamix.sources.tfds.decode import progress
from datamix.spec import Arrays, LeafSpec, Spec

_BLOCK_RECORDS = 1024
_OPEN_FILES = 256  # at most; a process may often have no more than 1,024
# How files of images begin: JPEG, PNG, GIF, BMP, TIFF, WebP.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_KEYS = ("column", "dtype", "shape")


def array_record(
    *,
    path: Paths,
    leaves: Mapping[str, str | Mapping[str, Any]] | None = None,
    height: int | None = None,
    width: int | None = None,
    mode: Mode = "L",
    fit: Fit = "resize",
    background: str = "white",
    split: str = "train",
    cache_dir: str | None = None,
) -> ArrayRecord:
    """Records in ArrayRecord files, any of which is read by itself.

    A `tf.train.Example` has columns: lists of int64 or of float32, where one number is a scalar leaf, or bytes, which
    are encoded images. The first record says what a column is, and all others are like it.

    Args:
      path: A file, a folder, a glob or a list of them; or these by split, see `files_of`.
      leaves: Leaf name to the name of a column, or to a group of `column`, `dtype` and `shape`: bytes that are an array
        need all three, lists may have another `shape` and `dtype`, and without `column` it is the whole record that is
        an array. By default all columns of numbers and images; `notes` names the others.
      height: Of images; see `ImageFormat`.
      width: See `ImageFormat`, as for the three below.
      mode: See `ImageFormat`.
      fit: See `ImageFormat`.
      background: See `ImageFormat`.
      split: TFDS's syntax.
      cache_dir: The directory of the cache, which keeps the labels.

    Raises:
      ConfigError: A setting is missing or not allowed, or there is no such split or column.
      DataError: A file is missing or damaged, or its records are no examples.
    """
    splits = files_of(path, suffixes=[".array_record", ".arrayrecord"])
    files = _Files([file for of_split in splits.values() for file in of_split])
    first_file, sizes = 0, {}
    for name, of_split in splits.items():
        sizes[name] = int(files.counts[first_file : first_file + len(of_split)].sum())
        first_file += len(of_split)
    if not files.num_records:
        raise DataError(f"{files.paths[0]}: there is no record in it.")
    (first,) = files.read(np.zeros(1, np.int64))
    columns, left_out = _columns(first, leaves, str(files.paths[0]))
    form = None
    if images := [leaf for leaf, column in columns.items() if column.spec is None]:
        if height is None or width is None:
            sample = files.read(np.arange(min(files.num_records, 20)))
            sizes_seen = image_sizes(io.BytesIO(columns[images[0]].values(record)) for record in sample)
            text = f"the first images are {sizes_seen}"
            raise ConfigError(text, key="width" if height else "height", value=None, hint="Set height and width.")
        form = ImageFormat(height=height, width=width, mode=mode, fit=fit, background=background)
    notes = list(notes_on(path, splits))
    if left_out:
        notes.append(
            f"{', '.join(left_out)}: no numbers or images, and left out; leaves={{LEAF: COLUMN}} chooses others."
        )
    return ArrayRecord(
        files=files,
        columns=columns,
        form=form,
        records=split_records(split, sizes, where="split"),
        notes=tuple(notes),
        cache_dir=cache_directory(cache_dir),
    )


@dataclass(frozen=True, kw_only=True)
class ArrayRecord:
    """The records of ArrayRecord files.

    Attributes:
      files: The files of all splits.
      columns: What each leaf is made of.
      form: What images are decoded to; None where there are none.
      records: The records of the split, as `files` numbers them, shape [num_records].
      notes: What is left out.
      cache_dir: The directory of the cache.
      class_names: None are known.
      provenance: Where the records come from.
    """

    files: _Files
    columns: Mapping[str, _Column]
    form: ImageFormat | None
    records: np.ndarray
    notes: tuple[str, ...]
    cache_dir: Path
    class_names: tuple[str, ...] = ()
    provenance: str = "array_record"

    @property
    def num_records(self) -> int:
        """The number of records."""
        return len(self.records)

    @property
    def spec(self) -> Spec:
        """The shape and dtype of each leaf."""
        image = LeafSpec((), "uint8") if self.form is None else self.form.spec
        return {leaf: column.spec or image for leaf, column in self.columns.items()}

    def places(self, indices: np.ndarray) -> list[str]:
        """The file of each record, and its number in it."""
        return [self.files.place(record) for record in self.records[indices].tolist()]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        self._fill(self.records[indices], out)

    def whole_labels(self) -> np.ndarray:
        """The labels of all splits, kept in the cache; see `datamix.sources.base.LabelledSource`."""

        def build() -> tuple[Arrays, dict[str, Any]]:
            count, spec = self.files.num_records, self.spec["label"]
            labels = np.empty((count, *spec.shape), spec.dtype)
            with progress("Reading labels", count) as advance:
                for start in range(0, count, _BLOCK_RECORDS):
                    rows = labels[start : start + _BLOCK_RECORDS]
                    self._fill(np.arange(start, start + len(rows)), {"label": rows})
                    advance(len(rows))
            return {"label": labels}, {}

        column = self.columns["label"]
        stats = [path.stat() for path in self.files.paths]
        place = Place(
            cache_dir=self.cache_dir,
            name=f"{self.files.paths[0].name}-labels",
            key={
                "files": [str(path.absolute()) for path in self.files.paths],
                "column": [column.name, str(column.spec)],
            },
            fingerprint={"files": [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in stats]},
        )
        return place.load(build).arrays["label"]

    def _fill(self, records: np.ndarray, out: Arrays) -> None:
        """Fill arrays with records, numbered as `files` does; images on all cores."""
        contents = self.files.read(records)

        def fill(row: int) -> None:
            with read_error(self.files.place(int(records[row]))):
                example = _example(contents[row]) if any(self.columns[leaf].name is not None for leaf in out) else {}
                for leaf, rows in out.items():
                    values = self.columns[leaf].values(contents[row], example)
                    if self.columns[leaf].spec is None and self.form is not None:
                        self.form.decode(values, rows[row])
                    else:
                        rows[row] = values

        if any(self.columns[leaf].spec is None for leaf in out):
            spread(len(records), fill)
        else:
            for row in range(len(records)):
                fill(row)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What a leaf is made of.

    Attributes:
      leaf: The name of the leaf.
      name: The name of the column; None for the whole record.
      spec: The shape and dtype of its numbers; None for an encoded image.
    """

    leaf: str
    name: str | None
    spec: LeafSpec | None

    def values(self, record: bytes, example: Mapping[str, Any] | None = None) -> Any:
        """The numbers in a record, of the shape and dtype of the spec, or the bytes of an image.

        Raises:
          DataError: The record has no such column, or another number of values.
        """
        content: Any = record
        if self.name is not None:
            feature = (_example(record) if example is None else example).get(self.name)
            content = None if feature is None else _content(feature)
        if content is None or (self.spec is None and not isinstance(content, bytes)):
            raise DataError(f"column {self.name!r} of leaf {self.leaf!r} is not there, or of another kind")
        if self.spec is None:
            return content
        size, dtype = math.prod(self.spec.shape), np.dtype(self.spec.dtype)
        if isinstance(content, bytes):
            if len(content) != size * dtype.itemsize:
                raise DataError(
                    f"leaf {self.leaf!r} is {self.spec}, {size * dtype.itemsize} bytes; here are {len(content)}"
                )
            return np.frombuffer(content, dtype).reshape(self.spec.shape)
        numbers = content.astype(dtype)
        if numbers.size != size or (numbers != content).any():
            raise DataError(
                f"leaf {self.leaf!r} is {self.spec}; here are {content.size} values, or some it cannot hold"
            )
        return numbers.reshape(self.spec.shape)


def _columns(
    first: bytes, leaves: Mapping[str, str | Mapping[str, Any]] | None, place: str
) -> tuple[dict[str, _Column], list[str]]:
    """What each leaf is made of, by the first record; and the columns that are left out."""
    raw = {leaf for leaf, each in (leaves or {}).items() if isinstance(each, Mapping) and "column" not in each}
    with read_error(f"{place}, record 0"):
        example = _example(first) if leaves is None or raw != leaves.keys() else {}
    columns, left_out = {}, []
    for leaf, given in (leaves or {name: name for name in sorted(example)}).items():
        key = f"leaves.{leaf}"
        settings = {"column": given} if isinstance(given, str) else dict(given)
        for setting in settings:
            if setting not in _KEYS:
                raise ConfigError("there is no such setting", key=f"{key}.{setting}", hint=hint(setting, _KEYS))
        name, spec = settings.get("column"), _spec(settings, key)
        if name is None:
            columns[leaf] = _Column(leaf=leaf, name=None, spec=spec)
            continue
        if name not in example:
            raise ConfigError("there is no such column", key=key, value=name, hint=hint(str(name), example))
        content = _content(example[name])
        if isinstance(content, np.ndarray):
            shape = content.shape if content.size != 1 else ()
            spec = LeafSpec(
                spec.shape if spec and "shape" in settings else shape, settings.get("dtype", str(content.dtype))
            )
        elif content is None or (spec is None and not content.startswith(_IMAGES)):
            if leaves is None:
                left_out.append(name)
                continue
            text = f"column {name!r} holds no numbers and no image of a known format"
            mend = f"Bytes that are an array need {{column: {name}, dtype: …, shape: […]}}."
            raise ConfigError(text, key=key, hint=mend)
        columns[leaf] = _Column(leaf=leaf, name=name, spec=spec)
    with read_error(f"{place}, record 0"):
        for column in columns.values():
            column.values(first, example)
    if not columns:
        raise DataError(f"{place}: its records have no numbers and no images; their columns are {', '.join(left_out)}.")
    return columns, left_out


def _spec(settings: Mapping[str, Any], key: str) -> LeafSpec | None:
    """The spec that the settings of a leaf give; None where they give no dtype, and no shape.

    Raises:
      ConfigError: They are none.
    """
    dtype, shape = settings.get("dtype"), settings.get("shape", [])
    if dtype is None and "column" not in settings:
        raise ConfigError("raw records need it, such as uint8", key=f"{key}.dtype", value=None)
    if not isinstance(shape, Sequence) or not all(isinstance(length, int) and length > 0 for length in shape):
        raise ConfigError("it is a list of lengths, such as [28, 28, 1]", key=f"{key}.shape", value=shape)
    try:
        known = np.dtype("uint8" if dtype is None else dtype).kind in "biuf"
    except TypeError:
        known = False
    if not known:
        raise ConfigError("it is a type of numbers, such as uint8 or float32", key=f"{key}.dtype", value=dtype)
    return LeafSpec(tuple(shape), str(np.dtype(dtype))) if dtype is not None else None


def _example(record: bytes) -> Mapping[str, Any]:
    """The columns of a `tf.train.Example`.

    Raises:
      DataError: It is none.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2  # TFDS's own, which needs no TensorFlow

    try:
        columns: Mapping[str, Any] = tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError:
        columns = {}
    if not columns:
        mend = "raw bytes of one length need leaves={LEAF: {dtype: uint8, shape: [28, 28, 1]}}"
        raise DataError(f"it is no tf.train.Example; {mend}")
    return columns


def _content(feature: Any) -> np.ndarray | bytes | None:
    """What a column holds: numbers, shape [length], or one value of bytes; None where it is neither."""
    if feature.WhichOneof("kind") == "bytes_list":
        values = feature.bytes_list.value
        return bytes(values[0]) if len(values) == 1 else None
    numbers = feature.int64_list.value or feature.float_list.value
    return np.array(numbers, np.int64 if feature.int64_list.value else np.float32) if numbers else None


class _Files:
    """ArrayRecord files, whose records are numbered through.

    Args:
      paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self._lock = list(paths), Lock()
        self._open: dict[int, Any] = {}
        self.counts = np.array([self._reader(number).num_records() for number in range(len(paths))], np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Files, (self.paths,)  # open files cannot be pickled

    @property
    def num_records(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.counts)

    def place(self, record: int) -> str:
        """The file of a record, and its number in it."""
        number = int(np.searchsorted(self._ends, record, side="right"))
        return f"{self.paths[number]}, record {record - int(self._ends[number] - self.counts[number])}"

    def read(self, records: np.ndarray) -> list[bytes]:
        """The content of some records.

        Raises:
          DataError: A file is damaged; names the first record that cannot be read.
        """
        contents = [b""] * len(records)
        numbers = np.searchsorted(self._ends, records, side="right")
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            own = (records[rows] - (self._ends[number] - self.counts[number])).tolist()
            reader = self._reader(number)
            try:
                parts = reader.read(own)
            except RuntimeError as error:
                raise DataError(
                    f"{self.paths[number]}, {_first_bad(reader, own)} is damaged: {_line(error)}."
                ) from error
            for row, content in zip(rows.tolist(), parts, strict=True):
                contents[row] = content
        return contents

    def _reader(self, number: int) -> Any:
        """The reader of a file, which several threads may use.

        Raises:
          DataError: The file is missing or damaged.
        """
        from array_record.python.array_record_module import ArrayRecordReader

        with self._lock:
            if number in self._open:
                return self._open[number]
            # Without reading ahead: records are asked for one by one, in any order.
            reader = ArrayRecordReader(
                str(self.paths[number]), options="readahead_buffer_size:0", file_reader_buffer_size=32768
            )
            if not reader.ok():  # it says why only when it is read, and that it has no records
                try:
                    reader.read([0])
                except RuntimeError as error:
                    raise DataError(
                        f"{self.paths[number]} is no ArrayRecord file, or a damaged one: {_line(error)}."
                    ) from error
            if len(self._open) >= _OPEN_FILES:
                del self._open[next(iter(self._open))]  # it is closed when no thread reads from it any more
            self._open[number] = reader
            return reader


def _first_bad(reader: Any, records: Sequence[int]) -> str:
    for record in records:
        try:
            reader.read([record])
        except RuntimeError:
            return f"record {record}"
    return "read at once,"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
