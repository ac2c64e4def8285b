"""ArrayRecord files: `tf.train.Example`s, parsed without TensorFlow, or raw bytes of one length."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError, hint, read_error
from datamix.sources.base import read_leaf
from datamix.sources.cache import CachePlace, cache_directory, stamp
from datamix.sources.decoding import decode_images
from datamix.sources.files import Paths, files_of, notes_on
from datamix.sources.images import Fit, ImageFormat, Mode, image_format
from datamix.sources.sliced import Sliced, sliced
from datamix.sources.splits import located, sizes_of
from datamix.spec import Arrays, LeafSpec, Spec

_SETTINGS = ("column", "dtype", "shape")  # of a leaf
_OPEN_FILES = 256  # at most; many systems allow a process no more than 1,024
# The first bytes of image files: JPEG, PNG, GIF, BMP, TIFF, WebP.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


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
) -> Sliced:
    """Records in ArrayRecord files, with random access.

    A `tf.train.Example` has columns: lists of int64 or float32, where a single number becomes a scalar leaf, or bytes,
    which are encoded images. The first record determines what each column is; all others must match it.

    `datamix.sources.images.ImageFormat` describes the settings of images.

    Args:
      path: A file, a folder, a glob or a list of them; or a mapping from splits to these, see `files_of`.
      leaves: Leaf name to the name of a column, or to a mapping with `column`, `dtype` and `shape`. Bytes that hold an
        array need all three, lists may be given another `shape` and `dtype`, and without `column`, the whole record is
        one array. By default, all columns of numbers and images; `notes` names the others.
      split: The records to read, in TFDS's syntax.
      cache_dir: The directory of the cache, which stores the labels.
    """
    splits = files_of(path, suffixes=[".array_record", ".arrayrecord"])
    files = _Files([file for of_split in splits.values() for file in of_split])
    if not files.num_records:
        raise DataError(f"{files.paths[0]}: there is no record in it.")
    first = files.read(np.arange(min(files.num_records, 20)))
    with read_error(files.place(0)):
        columns, left_out = _columns(first[0], leaves)
    form = None
    if images := [column for column in columns.values() if column.spec is None]:
        contents = (io.BytesIO(images[0].values(record, _example(record))) for record in first)
        form = image_format(contents, height=height, width=width, mode=mode, fit=fit, background=background)
    note = f"{', '.join(left_out)}: no numbers or images, and left out; leaves={{LEAF: COLUMN}} chooses others."
    whole = ArrayRecord(
        files=files,
        columns=columns,
        form=form,
        notes=(*notes_on(path, splits), *([note] if left_out else [])),
        cache_dir=cache_directory(cache_dir),
    )
    return sliced(whole, split, sizes_of(splits, files.counts.tolist()))


@dataclass(frozen=True, kw_only=True)
class ArrayRecord:
    """The records of ArrayRecord files."""

    files: _Files
    columns: Mapping[str, _Column]
    form: ImageFormat | None
    notes: tuple[str, ...]
    cache_dir: Path
    class_names: tuple[str, ...] = ()
    provenance: str = "array_record"

    @property
    def num_records(self) -> int:
        return self.files.num_records

    @property
    def spec(self) -> Spec:
        image = LeafSpec((), "uint8") if self.form is None else self.form.spec
        return {leaf: column.spec or image for leaf, column in self.columns.items()}

    def places(self, indices: np.ndarray) -> list[str]:
        return [self.files.place(record) for record in indices.tolist()]

    def whole_labels(self) -> np.ndarray:
        """The labels of all splits, stored in the cache; see `datamix.sources.base.LabelledSource`."""
        spec, column = self.spec["label"], self.columns["label"]
        place = CachePlace(
            cache_dir=self.cache_dir,
            name=f"{self.files.paths[0].name}-labels",
            key={"files": [str(path.absolute()) for path in self.files.paths], "column": [column.name, str(spec)]},
            fingerprint={"files": [stamp(path.stat()) for path in self.files.paths]},
        )
        return place.load(lambda: ({"label": read_leaf(self, "label")}, {})).arrays["label"]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        contents = self.files.read(indices)
        columns = {leaf: self.columns[leaf] for leaf in out}
        parsed = any(column.name is not None for column in columns.values())
        images: dict[str, list[bytes]] = {leaf: [] for leaf, column in columns.items() if column.spec is None}
        for row, content in enumerate(contents):
            with read_error(self.files.place(int(indices[row]))):
                example: Mapping[str, Any] = _example(content) if parsed else {}
                for leaf, column in columns.items():
                    values = column.values(content, example)
                    if leaf in images:
                        images[leaf].append(values)
                    else:
                        out[leaf][row] = values
        for leaf, encoded in images.items():
            if self.form is not None:
                decode_images(
                    self.form, encoded.__getitem__, lambda row: self.files.place(int(indices[row])), out[leaf]
                )


@dataclass(frozen=True, kw_only=True)
class _Column:
    """How a leaf is made: of the column `name`, or of the whole record if that is None; images have no `spec`."""

    leaf: str
    name: str | None
    spec: LeafSpec | None

    def values(self, record: bytes, example: Mapping[str, Any]) -> Any:
        """The leaf of a record: numbers with the shape and dtype of the spec, or the bytes of an image."""
        content: Any = record if self.name is None else _content(example.get(self.name))
        if content is None or (self.spec is None and not isinstance(content, bytes)):
            raise DataError(f"column {self.name!r} of leaf {self.leaf!r} is not there, or of another kind")
        if self.spec is None:
            return content
        size, dtype, leaf = math.prod(self.spec.shape), np.dtype(self.spec.dtype), f"leaf {self.leaf!r} is {self.spec}"
        if isinstance(content, bytes):
            if len(content) != size * dtype.itemsize:
                raise DataError(f"{leaf}, {size * dtype.itemsize} bytes; here are {len(content)}")
            return np.frombuffer(content, dtype).reshape(self.spec.shape)
        numbers = content.astype(dtype)
        if numbers.size != size or (numbers != content).any():
            raise DataError(f"{leaf}; here are {content.size} values, or some it cannot hold")
        return numbers.reshape(self.spec.shape)


def _columns(
    first: bytes, leaves: Mapping[str, str | Mapping[str, Any]] | None
) -> tuple[dict[str, _Column], list[str]]:
    named = {leaf: {"column": each} if isinstance(each, str) else dict(each) for leaf, each in (leaves or {}).items()}
    is_example = leaves is None or any("column" in each for each in named.values())
    example: Mapping[str, Any] = _example(first) if is_example else {}
    columns, left_out = {}, []
    if leaves is None:
        named = {name: {"column": name} for name in sorted(example)}
    for leaf, settings in named.items():
        key, name, shape = f"leaves.{leaf}", settings.get("column"), settings.get("shape")
        if unknown := [setting for setting in settings if setting not in _SETTINGS]:
            raise ConfigError("there is no such setting", key=f"{key}.{unknown[0]}", hint=hint(unknown[0], _SETTINGS))
        if name is not None and name not in example:
            raise ConfigError("there is no such column", key=key, value=name, hint=hint(str(name), example))
        content = first if name is None else _content(example[name])
        numbers = content if isinstance(content, np.ndarray) else None
        dtype = settings.get("dtype", None if numbers is None else str(numbers.dtype))
        spec = None
        if dtype is not None or name is None:
            default = numbers.shape if numbers is not None and numbers.size > 1 else ()
            spec = _spec(dtype, default if shape is None else shape, key)
        elif content is None or not bytes(content).startswith(_IMAGES):
            if leaves is not None:
                text = f"column {name!r} holds no numbers and no image of a known format"
                mend = f"Bytes that are an array need {{column: {name}, dtype: …, shape: […]}}."
                raise ConfigError(text, key=key, hint=mend)
            left_out.append(str(name))
            continue
        columns[leaf] = _Column(leaf=leaf, name=name, spec=spec)
        columns[leaf].values(first, example)
    if not columns:
        raise DataError(f"its records have no numbers and no images; their columns are {', '.join(left_out)}")
    return columns, left_out


def _spec(dtype: object, shape: object, key: str) -> LeafSpec:
    """The spec that the settings of a leaf define."""
    if not isinstance(shape, Sequence) or not all(isinstance(length, int) and length > 0 for length in shape):
        raise ConfigError("it is a list of lengths, such as [28, 28, 1]", key=f"{key}.shape", value=shape)
    try:
        known = np.dtype(str(dtype))
    except TypeError:
        known = np.dtype(object)
    if known.kind not in "biuf":
        raise ConfigError("it is a type of numbers, such as uint8 or float32", key=f"{key}.dtype", value=dtype)
    return LeafSpec(tuple(shape), str(known))


def _example(record: bytes) -> Mapping[str, Any]:
    """The columns of a `tf.train.Example`."""
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
    """The content of a column: numbers, shape [length], or a single value of bytes; None if it is neither."""
    if feature is None or feature.WhichOneof("kind") == "bytes_list":
        return bytes(feature.bytes_list.value[0]) if feature and len(feature.bytes_list.value) == 1 else None
    numbers = feature.int64_list.value or feature.float_list.value
    return np.array(numbers, np.int64 if feature.int64_list.value else np.float32) if numbers else None


class _Files:
    """ArrayRecord files, whose records are numbered consecutively."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        # A reader that leaves this cache is closed once no thread reads from it any more.
        self._reader = lru_cache(_OPEN_FILES)(partial(_opened, self.paths))
        self.counts = np.array([self._reader(number).num_records() for number in range(len(paths))], np.int64)
        self._ends = np.cumsum(self.counts)
        self.num_records = int(self.counts.sum())

    def __reduce__(self) -> tuple[Any, ...]:
        return _Files, (self.paths,)  # open files cannot be pickled

    def place(self, record: int) -> str:
        (number,), (within,) = located(self._ends, np.array([record]))
        return f"{self.paths[number]}, record {within}"

    def read(self, records: np.ndarray) -> list[bytes]:
        """The content of some records."""
        contents = [b""] * len(records)
        numbers, within = located(self._ends, records)
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            reader = self._reader(number)
            try:
                parts = reader.read(within[rows].tolist())
            except RuntimeError as error:
                if len(records) > 1:  # find the damaged one
                    return [self.read(record)[0] for record in records[:, np.newaxis]]
                raise _damaged(self.place(int(records[0])), error) from error
            for row, content in zip(rows.tolist(), parts, strict=True):
                contents[row] = content
        return contents


def _opened(paths: Sequence[Path], number: int) -> Any:
    """Open a file; several threads may use the reader at once."""
    from array_record.python.array_record_module import ArrayRecordReader

    # No reading ahead, since records are read in any order.
    options = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 1 << 15}
    reader = ArrayRecordReader(str(paths[number]), **options)
    if not reader.ok():  # it gives the reason only on reading; else it merely seems to be empty
        try:
            reader.read([0])
        except RuntimeError as error:
            raise _damaged(str(paths[number]), error) from error
    return reader


def _damaged(place: str, error: BaseException) -> DataError:
    return DataError(f"{place} cannot be read: {' '.join(str(error).split()).rstrip('.')}.")
