"""Leaves made of the columns of Arrow tables: Parquet and Arrow files, Hugging Face datasets and `pyarrow.Table`.

A table consists of groups of rows, such as Parquet's row groups. Groups are read as wholes; the last ones are kept.
"""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from datamix.errors import ConfigError, DataError, InstallationError, hint, install_hint, read_error, unreadable
from datamix.sources.decoding import decode_images
from datamix.sources.images import ImageFormat, image_size
from datamix.sources.sliced import Sliced, sliced
from datamix.sources.splits import located, resolve_split
from datamix.spec import Arrays, LeafSpec, Spec

INDEX = "__index_level_"
"""How the names of the columns begin in which pandas stores row labels."""

KEPT_BYTES = 2**27  # of decoded groups, for all sources of a process together
_GREY = ("1", "L", "LA", "I;16")  # Pillow's modes without colours


class Part(Protocol):
    """A file, or a table in memory.

    Attributes:
      name: Its path, or another name for errors.
      schema: Its columns, a `pyarrow.Schema`.
      rows: The number of rows in each group.
    """

    name: str
    schema: Any
    rows: list[int]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """Read some columns of a group as a `pyarrow.Table` or `RecordBatch`; several threads may call this at once."""
        ...

    def missing(self, column: str) -> int:
        """The number of rows without a value in a column, as far as that is known without reading it."""
        ...


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Raise DataError for what Arrow cannot read, and InstallationError if Arrow is not installed."""
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        text = f"{name} is read with pyarrow, which is not installed: {install_hint('parquet')}."
        raise InstallationError(text) from None
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file.") from None
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{name} cannot be read: {' '.join(str(error).split())}") from error


class _Unfit(Exception):  # noqa: N818
    """Raised when a column, or one of its rows, cannot be a leaf; the code that catches it adds the place."""

    def __init__(self, text: str, row: int = 0) -> None:
        super().__init__(text)
        self.row = row


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that becomes a leaf.

    Attributes:
      kind: The Arrow type of its values.
      image: The format to which its images are decoded; None if it holds none.
      classes: The class names that it holds as text, by class number.
      padded: Whether its lists are padded to the length in `spec`; the leaf `num_<leaf>` has their own lengths.
    """

    leaf: str
    name: str
    kind: Any = field(compare=False)
    spec: LeafSpec
    image: ImageFormat | None = None
    classes: tuple[str, ...] = ()
    padded: bool = False

    @property
    def specs(self) -> dict[str, LeafSpec]:
        return {self.leaf: self.spec} | ({f"num_{self.leaf}": LeafSpec((), "int32")} if self.padded else {})

    def decode(self, values: Any) -> dict[str, Any]:
        """The leaves of a group of rows: arrays [rows, *leaf shape]; images stay as they are stored."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.image is not None:
            return {self.leaf: _stored(values)}
        values = whole(values)
        if self.classes:
            _check_present(values)
            names = pa.array(self.classes, pa.large_string())
            return {self.leaf: pc.index_in(values.cast(pa.large_string()), value_set=names).to_numpy()}
        if not self.padded:
            return {self.leaf: _numbers(values, self.spec.shape)}
        _check_present(values)
        lengths, most = pc.list_value_length(values).to_numpy().astype(np.int32), self.spec.shape[0]
        if len(lengths) and (longest := lengths.max()) > most:
            raise _Unfit(f"is a list of {longest}, longer than pad_to.{self.leaf}={most}", int(lengths.argmax()))
        padded = np.zeros((len(lengths), *self.spec.shape), self.spec.dtype)
        flat = values.flatten()
        if flat.null_count:
            first = flat.is_null().index(True).as_py()
            raise _Unfit("has no value", int(np.searchsorted(np.cumsum(lengths), first, "right")))
        padded[np.arange(most) < lengths[:, np.newaxis]] = _numbers(flat, self.spec.shape[1:])
        return {self.leaf: padded, f"num_{self.leaf}": lengths}


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """The records in the columns of tables: the rows of all parts, numbered consecutively."""

    parts: Sequence[Part]
    columns: Sequence[Column]
    provenance: str
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    _token: object = field(default_factory=object, init=False, repr=False)  # identifies its groups in KEPT

    @property
    def num_records(self) -> int:
        return int(self._ends[-1])

    @property
    def spec(self) -> Spec:
        return {leaf: spec for column in self.columns for leaf, spec in column.specs.items()}

    @property
    def block_records(self) -> int:
        """The number of records that are read together: the size of the largest group of rows."""
        return max(max(part.rows, default=0) for part in self.parts)

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """Write some records into arrays; only the columns of the leaves in `out` are read."""
        columns = tuple(column for column in self.columns if column.specs.keys() & out.keys())
        groups, rows = located(self._ends, indices)
        # Images are copied, so that a few of them do not keep their whole group in memory.
        images = [(column, [b""] * len(indices)) for column in columns if column.image]
        order = np.argsort(groups, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else ():
            group = int(groups[at[0]])
            part = self.parts[self._groups[group, 0]].name
            leaves = KEPT.get((self._token, group, columns), partial(self._decoded, group, columns))
            for leaf in out.keys() - {column.leaf for column, _ in images}:
                out[leaf][at] = leaves[leaf][rows[at]]
            for column, encoded in images:
                for place, row in zip(at.tolist(), rows[at].tolist(), strict=True):
                    try:
                        encoded[place] = _image_bytes(leaves[column.leaf], row, part)
                    except DataError as error:
                        raise unreadable(self._image_place(column, groups, rows, place), error) from error
        for column, encoded in images:
            if column.image is not None:
                place = partial(self._image_place, column, groups, rows)
                decode_images(column.image, encoded.__getitem__, place, out[column.leaf])

    def whole_labels(self) -> np.ndarray:
        """The labels of all splits that have any; the test splits of competitions often have none."""
        column = next(column for column in self.columns if column.leaf == "label")
        labelled = [_type(part, column.name) == column.kind for part in self.parts]
        groups = [group for group, part in enumerate(self._groups[:, 0].tolist()) if labelled[part]]
        return np.concatenate([self._decoded(group, (column,))["label"] for group in groups])

    def places(self, indices: np.ndarray) -> list[str]:
        """The file and the row of each record."""
        return [self._place(group, row) for group, row in np.stack(located(self._ends, indices), 1).tolist()]

    @cached_property
    def _groups(self) -> np.ndarray:
        """The groups of rows of all parts, int64 [num_groups, 3]: the part, the group's number and first row in it."""
        groups = [
            (number, group, first)
            for number, part in enumerate(self.parts)
            for group, first in enumerate(itertools.accumulate([0, *part.rows][:-1]))
        ]
        return np.array(groups, np.int64).reshape(-1, 3)

    @cached_property
    def _ends(self) -> np.ndarray:
        """The number of rows up to the end of each group, over all parts, int64 [num_groups]."""
        return np.cumsum([rows for part in self.parts for rows in part.rows])

    def _place(self, group: int, row: int) -> str:
        part, _, first = self._groups[group].tolist()
        return f"{self.parts[part].name}, row {first + row}"

    def _decoded(self, group: int, columns: Sequence[Column]) -> dict[str, Any]:
        part, number, _ = self._groups[group].tolist()
        leaves: dict[str, Any] = {}
        with reading(self.parts[part].name):
            table = self.parts[part].read(number, list(dict.fromkeys(column.name for column in columns)))
        for column in columns:
            try:
                leaves |= column.decode(table.column(column.name))
            except _Unfit as error:
                raise DataError(f"{self._place(group, error.row)}: column {column.name!r} {error}.") from None
        return leaves

    def _image_place(self, column: Column, groups: np.ndarray, rows: np.ndarray, at: int) -> str:
        return f"{self._place(int(groups[at]), int(rows[at]))}: the image in column {column.name!r}"


def open_columns(
    parts: Mapping[str, Sequence[Part]],
    *,
    provenance: str,
    split: str = "train",
    leaves: Mapping[str, str] | None = None,
    pad_to: Mapping[str, int] | None = None,
    image: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Sliced:
    """Make a source of tables, and choose the columns that become its leaves.

    Args:
      parts: Split to its tables.
      leaves: Leaf name to its column; by default, all columns that can be leaves, under their own names. The leaf
        `label` may be a column of text, whose values are the names of classes.
      pad_to: Leaf name to the length to which its lists are padded with zeros; longer lists are refused. The leaf
        `num_<leaf>` has their own lengths, int32.
      image: The settings of `datamix.sources.images.ImageFormat`. If `height` and `width` are None, all images must
        have the size of the first one; if `mode` is None, they are decoded to the colours of the first one.

    Raises:
      ConfigError: A setting does not fit the columns.
      DataError: A file is damaged, lacks a column or values, or no column can be a leaf.
    """
    every = [part for of_split in parts.values() for part in of_split]
    sizes = {name: sum(sum(part.rows) for part in of_split) for name, of_split in parts.items()}
    chosen = resolve_split(split, sizes)
    used = [part for name in dict.fromkeys(each[0] for each in chosen) for part in parts[name] if sum(part.rows)]
    if not used:
        empty = chosen[0][0]
        place = "".join(f"{part.name}: " for part in parts[empty][:1])
        raise DataError(f"{place}the split {empty!r} holds no rows.")
    choice = _Choice(used, every, image or {}, bool(leaves))
    columns, left_out = choice.columns(leaves, pad_to or {})
    label = next((column for column in columns if column.leaf == "label"), None)
    names = (label.classes or _feature(used[0].schema, label.name).get("names")) if label else ()
    notes_on_columns = [f"columns are left out: {'; '.join(left_out)}."] if left_out else []
    whole = Columns(
        parts=every,
        columns=columns,
        provenance=provenance,
        class_names=tuple(map(str, names)) if isinstance(names, list | tuple) else (),
        notes=(*notes, *notes_on_columns, *choice.missing(columns)),
    )
    return sliced(whole, split, sizes)


@dataclass(frozen=True)
class _Choice:
    """What the leaves of a dataset are chosen from. The first part that is used determines the types of columns.

    Attributes:
      used: The parts with rows in the splits that are read.
      every: The parts of all splits.
      image: The settings of images.
      named: Whether the user has named the leaves.
    """

    used: Sequence[Part]
    every: Sequence[Part]
    image: Mapping[str, Any]
    named: bool

    def columns(self, leaves: Mapping[str, str] | None, pad_to: Mapping[str, int]) -> tuple[list[Column], list[str]]:
        """The columns that become leaves, and texts on those that are left out and why."""
        first = self.used[0]
        names: list[str] = first.schema.names
        columns, left_out, encoded = [], [], []
        for leaf, name in (leaves or {name: name for name in names if not name.startswith(INDEX)}).items():
            if name not in names:
                text = f"{first.name} has no such column"
                raise ConfigError(text, key=f"leaves.{leaf}", value=name, hint=hint(str(name), names))
            try:
                columns.append(self._column(leaf, name, pad_to.get(leaf)))
            except _Unfit as error:
                if self.named:
                    raise ConfigError(f"the column {error}", key=f"leaves.{leaf}", value=name) from None
                left_out.append(f"{name}, which {error}")
                encoded += [name] * (_is_bytes(_type(first, name)) and bool(self.image))
        if not leaves:
            others = dict.fromkeys(name for part in self.used[1:] for name in part.schema.names if name not in names)
            left_out += [f"{name}, which {first.name} has not" for name in others if not name.startswith(INDEX)]
        if encoded:
            chosen = ", ".join([f"image: {encoded[0]}", *(f"{column.leaf}: {column.name}" for column in columns)])
            left_out.append(f"leaves={{{chosen}}} decodes images in {encoded[0]}")
        if not columns:
            texts = [name for name in names if is_text(_type(first, name))] if self.image and not encoded else []
            left_out += [f"{{_target_: text, column: {name}}} reads text" for name in texts[:1]]
            raise DataError(f"{first.name} has no column that can be a leaf: {'; '.join(left_out)}.")
        leaf_names = [leaf for column in columns for leaf in column.specs]
        for leaf, most in pad_to.items():
            if (known := leaf_names.count(leaf)) and leaf_names.count(f"num_{leaf}") == 1:
                continue
            text = f"there is another leaf num_{leaf}; rename it in leaves" if known else "there is no such leaf"
            help_ = "" if known else hint(leaf, leaf_names)
            raise ConfigError(text, key=f"pad_to.{leaf}", value=most, hint=help_)
        if self.image.get("height") is not None and not any(column.image for column in columns):
            text = "no column is one of images; leaves={image: COLUMN} names one that holds their bytes"
            raise ConfigError(text, key="height", value=self.image["height"])
        return columns, left_out

    def missing(self, columns: Sequence[Column]) -> list[str]:
        """Check that all parts have these columns, and that only floats lack values, on which it returns notes."""
        first, notes = self.used[0], []
        for column in columns:
            want, total, name = column.kind, 0, column.name
            for part in self.used:
                if (kind := _type(part, name)) != want:
                    has = f"there is no column {name!r}" if kind is None else f"column {name!r} is {kind}"
                    raise DataError(f"{part.name}: {has}; in {first.name} it is {want}.")
                total += part.missing(name)
            if total and (column.classes or (not column.image and not column.spec.shape)):
                rows = sum(sum(part.rows) for part in self.used)
                text = f"{total:,} of {rows:,} rows have no value in column {name!r}"
                if np.dtype(column.spec.dtype).kind != "f":
                    raise DataError(f"{text}, and {want} has no NaN to say so; fill them, or leave the column out.")
                notes.append(f"{text}; it is NaN.")
        return notes

    def _column(self, leaf: str, name: str, most: int | None) -> Column:
        """Make the column of a leaf."""
        import pyarrow.types as types

        if (kind := _type(self.used[0], name)) is None:
            raise _Unfit("is there twice")
        column = partial(Column, leaf=leaf, name=name, kind=kind)
        element = _element(kind)
        if most is not None:
            if not isinstance(most, int) or most < 1 or element in (None, kind) or types.is_fixed_size_list(kind):
                text = f"lists of varying length are padded, to 1 or more; column {name!r} is {kind}"
                raise ConfigError(text, key=f"pad_to.{leaf}", value=most)
            inner = self._first(name, lambda values: _numbers(whole(values).flatten(), None))
            return column(spec=LeafSpec((most, *inner.shape[1:]), str(inner.dtype)), padded=True)
        stored = types.is_struct(kind) and {field.name for field in kind} <= {"bytes", "path"}
        if stored and _feature(self.used[0].schema, name).get("_type", "Image") != "Image":
            raise _Unfit("holds no images")
        if stored or (self.named and _is_bytes(kind)):
            image = self._first(name, self._format)
            return column(spec=image.spec, image=image)
        if leaf == "label" and is_text(kind):
            return column(spec=LeafSpec((), "int32"), classes=self._classes(name))
        if element is None:
            raise _Unfit(f"is {kind}")
        if element == kind:
            return column(spec=LeafSpec((), str(np.dtype(kind.to_pandas_dtype()))))
        numbers = self._first(name, lambda values: _numbers(whole(values), None))
        return column(spec=LeafSpec(numbers.shape[1:], str(numbers.dtype)))

    def _first(self, name: str, make: Callable[[Any], Any]) -> Any:
        """The result of `make` for the first group of rows of a column."""
        part = self.used[0]
        with reading(part.name):
            group = next(group for group, rows in enumerate(part.rows) if rows)
            values = part.read(group, [name]).column(name)
        try:
            return make(values)
        except _Unfit as error:
            raise _Unfit(f"{error} (row {error.row})") from None

    def _format(self, values: Any) -> ImageFormat:
        """The format of images, from the settings and the first image; all must have its size if none is set."""
        settings, part = {"height": None, "width": None, "mode": None, **self.image}, self.used[0]
        is_exact = settings["height"] is None and settings["width"] is None
        if is_exact or settings["mode"] is None:
            with read_error(f"{part.name}, row 0"):
                height, width, mode = image_size(_image_bytes(_stored(values), 0, part.name))
            settings["mode"] = settings["mode"] or ("L" if mode in _GREY else "RGB")
            settings |= {"height": height, "width": width} if is_exact else {}
        return ImageFormat(**settings, is_exact=is_exact)

    def _classes(self, name: str) -> tuple[str, ...]:
        """The distinct texts in a column of the whole dataset, sorted."""
        texts: set[str] = set()
        for part in self.every:
            for group in [group for group, rows in enumerate(part.rows) if rows and _type(part, name)]:
                with reading(part.name):
                    column = whole(part.read(group, [name]).column(name))
                    texts.update(column.unique().drop_null().to_pylist())
        return tuple(sorted(texts))


def _type(part: Part, name: str) -> Any:
    """The type of a column's values; None if there is no such column, or several."""
    index = part.schema.get_field_index(name)
    kind = part.schema.field(index).type if index >= 0 else None
    return getattr(kind, "value_type", kind) if hasattr(kind, "index_type") else kind  # of a dictionary


def _is_bytes(kind: Any) -> bool:
    """Whether an Arrow type holds bytes, such as those of an image file."""
    return str(kind) in ("binary", "large_binary")


def _feature(schema: Any, name: str) -> dict[str, Any]:
    """What the metadata of a table from Hugging Face says about a column; empty if nothing."""
    with suppress(ValueError, LookupError, TypeError):  # metadata of another form
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][name]
        return feature if isinstance(feature, dict) else {}
    return {}


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds text."""
    return str(kind) in ("string", "large_string", "string_view")


def _element(kind: Any) -> Any:
    """The type of the numbers in a type of (nested) lists, or the type itself; None if it holds no numbers."""
    import pyarrow as pa

    while not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        inner = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else getattr(kind, "value_type", None)
        if inner is None or hasattr(kind, "item_type"):  # a map
            return None
        kind = inner
    return kind


def _numbers(values: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """The numbers of a column, [rows, *shape]; a `shape` of None means that of the first row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count, per_row, lengths = len(values), 1, list[int]()
    while values.type != _element(values.type):
        if isinstance(values.type, pa.BaseExtensionType):
            tensor_shape = tuple(getattr(values.type, "shape", ()))
            shape = tensor_shape if tensor_shape and None not in tensor_shape else shape
            values = values.storage
            continue
        _check_present(values, per_row)
        if pa.types.is_fixed_size_list(values.type):
            length = values.type.list_size
        else:
            all_lengths = pc.list_value_length(values).to_numpy()
            length = shape[len(lengths)] if shape is not None else int(all_lengths[0]) if len(all_lengths) else 0
            if len(uneven := np.flatnonzero(all_lengths != length)):
                text = f"is a list of {all_lengths[uneven[0]]}, others are of {length}"
                raise _Unfit(f"{text}; pad_to takes lists of any length", int(uneven[0]) // per_row)
        values = values.flatten()
        lengths.append(length)
        per_row *= max(length, 1)
    if lengths or not pa.types.is_floating(values.type):  # missing floats become NaN
        _check_present(values, per_row)
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(count, *(lengths if shape is None else shape))


def _check_present(values: Any, per_row: int = 1) -> None:
    """Check that no value is missing; each row has `per_row` values."""
    if values.null_count:
        missing = values.is_null().to_numpy(zero_copy_only=False)
        raise _Unfit("has no value", int(missing.argmax()) // per_row)


def whole(values: Any) -> Any:
    """A column as one array, even if it is stored in several pieces or as a dictionary."""
    import pyarrow as pa

    pieces, kind = values.chunks if isinstance(values, pa.ChunkedArray) else [values], values.type
    if pa.types.is_dictionary(kind):
        kind = pa.large_string() if values.type.value_type == pa.string_view() else values.type.value_type
        pieces = [piece.dictionary.cast(kind).take(piece.indices) for piece in pieces]  # `take` lacks string_view
    return pieces[0] if len(pieces) == 1 else pa.chunked_array(pieces, kind).combine_chunks()


def _stored(values: Any) -> list[Any]:
    """A column of images as arrays: of bytes, of paths, or of both."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [field.name for field in values.type] if pa.types.is_struct(values.type) else []
    arrays = [pc.struct_field(values, name) for name in ("bytes", "path") if name in names] or [values]
    # Only large_binary can hold pieces that are larger than 2 GiB together.
    return [whole(each.cast(pa.large_binary()) if pa.types.is_binary(each.type) else each) for each in arrays]


def _image_bytes(stored: Sequence[Any], row: int, part: str) -> bytes:
    for array in stored:
        content: bytes | str | None = array[row].as_py()
        if isinstance(content, bytes):
            return content
        if content is not None:
            with read_error(f"its path alone is stored; {content}"):
                if not (file := Path(part).parent / content).is_file():  # reading a device might never end
                    raise DataError("there is no such file.")
                return file.read_bytes()
    raise DataError("there is none.")


class Kept:
    """A cache of the results used last, up to so many bytes but at least one; several threads may use it at once."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._results: OrderedDict[Any, tuple[Future[dict[str, Any]], int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result kept under a key; if there is none, one thread makes it, and others wait."""
        with self._lock:
            is_kept = key in self._results
            result, _ = self._results.setdefault(key, (Future(), 0))
            self._results.move_to_end(key)
        if is_kept:
            return result.result()
        try:
            leaves = make()
        except BaseException as error:
            with self._lock:
                del self._results[key]
            result.set_exception(error)
            raise
        result.set_result(leaves)
        arrays = [array for leaf in leaves.values() for array in (leaf if isinstance(leaf, list) else [leaf])]
        size = sum(array.nbytes for array in arrays)
        with self._lock:
            self._results[key] = result, size
            self._room -= size
            for oldest in [other for other, (_, bytes_) in self._results.items() if bytes_ and other != key]:
                if self._room >= 0:
                    break
                self._room += self._results.pop(oldest)[1]
        return leaves


KEPT = Kept(KEPT_BYTES)
