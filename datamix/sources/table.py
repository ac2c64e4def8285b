"""Tables of numbers in CSV and Parquet files: columns stacked into the leaf `features`, and one as the label."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from datamix.errors import ConfigError, DataError, counted, hint
from datamix.sources.arrays import MemoryArrays
from datamix.sources.columns import INDEX, is_text, reading, whole
from datamix.sources.files import files_of, not_utf8, notes_on
from datamix.sources.narrowing import what_is_lost
from datamix.sources.splits import resolve_split, split_ranges
from datamix.spec import Arrays

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
# Numbers as people write them, which Arrow reads as text: 1,5 and 1,000.50, 1'000, 12 %, $5, 5 €.
_WRITTEN_NUMBER = r"^\s*\p{Sc}?\s*[-+]?\s*\p{Sc}?[.,]?\d[\d.,'_\s]*([eE][-+]?\d+)?\s*[%\p{Sc}]?\s*$"

_WRITTEN_OTHERWISE = " (a number has a decimal point, and no other marks)"


def table(
    *,
    path: str | Sequence[str] | Mapping[str, str | Sequence[str]],
    target: str | None = None,
    features: Sequence[str] | None = None,
    split: str = "train",
    without_target: Literal["refuse", "drop"] = "refuse",
    without_features: Literal["keep", "drop"] = "keep",
) -> TableRows:
    """Rows of tables, which are read into memory as wholes.

    The first line of a CSV file names the columns; commas, semicolons or tabs separate them.

    Args:
      path: A file, a folder, a glob or a list of them; or a mapping from splits to them.
      target: The column that becomes the leaf `label`: numbers, or text, whose values are the names of classes, sorted.
      features: The columns that become the leaf `features`, float32 [columns]; by default all other columns of numbers.
        A missing number is NaN.
      split: The records to read, in TFDS's syntax, counting only rows that are not left out.
      without_target: Whether rows without a value in the target are refused ("refuse") or left out ("drop").
      without_features: Whether rows in which a feature is missing are kept ("keep") or left out ("drop").
    """
    files = files_of(path, suffixes=[".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"])
    tables = {file: _read(file) for of_split in files.values() for file in of_split}
    empty = {file: each.column(target).null_count for file, each in tables.items() if target in each.column_names}
    if without_target == "drop":
        tables |= {file: tables[file].filter(tables[file].column(target).is_valid()) for file in empty}
    incomplete = dict.fromkeys(tables, 0)
    if without_features == "drop":
        complete = _complete(tables, features, target)
        incomplete = {file: each.num_rows - complete[file].num_rows for file, each in tables.items()}
        tables = complete
    sizes = {name: sum(tables[file].num_rows for file in of_split) for name, of_split in files.items()}
    used = dict.fromkeys(name for name, _, _ in resolve_split(split, sizes))
    rows = {file: tables[file] for name in used for file in files[name]}
    first, names = next((file, each.column_names) for file, each in rows.items())
    # In the order of the columns of the first of all files, so that features have the same order in every split.
    names = sorted(names, key=[*dict.fromkeys(name for each in tables.values() for name in each.column_names)].index)
    _check_names(first, names, features or (), target)
    notes = []
    if num_empty := sum(empty.get(file, 0) for file in rows):
        if without_target == "refuse":
            raise _without_target(rows, target)
        have = "is left out, which has" if num_empty == 1 else "are left out, which have"
        notes.append(f"{counted(num_empty, 'row')} {have} no value in the target {target!r}.")
    if num_incomplete := sum(incomplete[file] for file in rows):
        are = "is" if num_incomplete == 1 else "are"
        notes.append(f"{counted(num_incomplete, 'row')} {are} left out, in which a feature is missing.")
    if notes and not any(each.num_rows for each in rows.values()):
        of = "every feature" if num_incomplete else f"the target {target!r}"
        raise DataError(f"{first} has no row with a value in {of}.")
    default = _default_features(names, target)
    columns, notes_on_columns = _features(rows, features or default, chosen=bool(features))
    arrays: Arrays = {"features": np.stack(list(columns.values()), axis=1)}
    whole_labels, classes = np.empty(0), tuple[str, ...]()
    if target is not None:
        # Other splits may lack the target, as the test splits of competitions do.
        labelled = {file: each for file, each in tables.items() if file in rows or target in each.column_names}
        arrays["label"], whole_labels, classes = _labels(target, _pieces(rows, target), _pieces(labelled, target))
    ranges = [slice(*each) for each in split_ranges(split, {name: sizes[name] for name in used})]
    return TableRows(
        {leaf: np.concatenate([values[each] for each in ranges]) for leaf, values in arrays.items()},
        provenance="table",
        class_names=classes,
        feature_names=tuple(columns),
        column_of={} if target is None else {"label": target},
        notes=(*notes_on(path, files), *notes, *notes_on_columns),
        labels=whole_labels,
    )


@dataclass(frozen=True, kw_only=True)
class TableRows(MemoryArrays):
    """The rows of a table; the elements of the leaf `features` are the columns `feature_names`, others are `column_of`.

    Float labels are numbers to predict, even if all of them are whole.
    """

    feature_names: tuple[str, ...]
    column_of: Mapping[str, str]
    notes: tuple[str, ...]
    labels: np.ndarray
    predicts_fractions: ClassVar[bool] = True

    def whole_labels(self) -> np.ndarray:
        return self.labels


def _default_features(names: Sequence[str], target: str | None) -> list[str]:
    """The columns that may be features by default."""
    return [name for name in names if name != target and not name.startswith(INDEX)]


def _check_names(file: Path, names: Sequence[str], features: Sequence[str], target: str | None) -> None:
    """Refuse chosen columns that are named twice or do not exist."""
    if len({*features}) < len(features):
        raise ConfigError("a column is named twice", key="features", value=[*features])
    for key, name in [("target", target), *(("features", name) for name in features)]:
        if name is not None and name not in names:
            raise ConfigError(f"{file} has no such column", key=key, value=name, hint=hint(name, names))


def _features(tables: Mapping[Path, Any], names: Sequence[str], *, chosen: bool) -> tuple[Arrays, list[str]]:
    """The columns of numbers among `names`, and notes on the others and on missing values; `chosen`: by the user."""
    columns: Arrays = {}
    left_out, missing, notes = [], [], []
    for name in names:
        pieces = _pieces(tables, name)
        if other := _no_numbers(pieces):
            if chosen:
                raise ConfigError(f"the column {other}", key="features", value=name)
            left_out.append(f"{name}, which {other}")
            continue
        columns[name] = _float32(name, pieces)
        if absent := sum(piece.null_count for piece in pieces):
            missing.append(f"{absent:,} of {sum(map(len, pieces)):,} in {name}")
    if not columns:
        others = "; ".join(left_out) or "there is no other"
        raise DataError(f"{next(iter(tables))} has no column of numbers for features: {others}.")
    if left_out:
        notes.append(f"columns are left out: {'; '.join(left_out)}.")
    if missing:
        mend = "without_features=drop leaves their rows out"
        notes.append(f"numbers that are missing are NaN in features: {', '.join(missing)}; {mend}.")
    return columns, notes


def _complete(tables: Mapping[Path, Any], features: Sequence[str] | None, target: str | None) -> dict[Path, Any]:
    """The tables without the rows in which a feature is missing, by default a number in any column of numbers."""
    import pyarrow.compute as pc

    first = next(iter(tables.values()))
    result = dict(tables)
    for name in features or _default_features(first.column_names, target):
        files = [file for file, each in tables.items() if name in each.column_names]
        if _no_numbers([whole(tables[file].column(name)) for file in files]):
            continue
        for file in files:
            missing = pc.is_null(result[file].column(name), nan_is_null=True)
            result[file] = result[file].filter(pc.invert(missing))
    return result


def _without_target(tables: Mapping[Path, Any], target: str | None) -> ConfigError:
    """The error for rows without a value in the target, which names the first one."""
    columns = {file: table.column(target) for file, table in tables.items() if target in table.column_names}
    file, column = next((file, column) for file, column in columns.items() if column.null_count)
    absent, total = (sum(map(count, columns.values())) for count in (lambda each: each.null_count, len))
    row: int = column.is_null().index(True).as_py()
    place = f"row {row:,}" if file.suffix.lower() == ".parquet" else f"line {_line(file, row):,}"
    text = f"{file}, {place}, has no value in the target {target!r}"
    mend = "drop leaves such rows out."
    return ConfigError(
        f"{text}; {absent:,} of {total:,} rows have none", key="without_target", value="refuse", hint=mend
    )


def _read(file: Path) -> Any:
    with reading(file):
        import pyarrow as pa
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet

        if file.suffix.lower() == ".parquet":
            with parquet.ParquetFile(file, page_checksum_verification=True) as opened:
                table = opened.read()
        else:
            data, delimiter = _content(file)
            try:
                table = arrow_csv.read_csv(
                    pa.BufferReader(data),
                    # One block, since Arrow infers the types of columns from the first one.
                    read_options=arrow_csv.ReadOptions(block_size=min(max(data.size, 1), 2**31 - 1)),
                    parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
                    convert_options=arrow_csv.ConvertOptions(strings_can_be_null=True),
                )
            except pa.ArrowInvalid as error:
                if uneven := _uneven_line(pa.BufferReader(data), delimiter):
                    raise DataError(f"{file}, {uneven}") from error
                raise
    names = table.column_names
    if not table.num_rows:
        raise DataError(f"{file} holds no rows.")
    if len(set(names)) < len(names):
        raise DataError(f"{file} has several columns {max(names, key=names.count)!r}; rename them.")
    if file.suffix.lower() != ".parquet" and all(re.match(_NUMBER, name) for name in names):
        raise DataError(f"{file}: its first line is to name the columns, and holds numbers: {', '.join(names[:4])}.")
    return table


def _content(file: Path) -> tuple[Any, str]:
    """The bytes of a CSV file, unpacked, and the delimiter of its columns."""
    import pyarrow as pa

    # Arrow itself does not know .GZ.
    with pa.input_stream(str(file), compression="gzip" if file.suffix.lower() == ".gz" else None) as stream:
        # Arrow's memory: its threads may free it as the process ends, but could not free Python's by then.
        data = stream.read_buffer()
    head = bytes(memoryview(data)[: _end_of_line(data)])
    try:
        head.decode()  # names of columns must be text, while values in another encoding become bytes
    except UnicodeDecodeError as error:
        raise not_utf8(f"{file}, line 1", error) from None
    marks = re.sub(r'"[^"]*"', "", head.decode())  # quoted names of columns may hold delimiters
    return data, max(",;\t", key=marks.count)


def _line(file: Path, row: int) -> int:
    """The line of a CSV file, counted from 1, in which a row ends; its header and blank lines are no rows."""
    import pyarrow as pa

    data, delimiter = _content(file)
    rows = csv.reader(io.TextIOWrapper(pa.BufferReader(data), errors="replace", newline=""), delimiter=delimiter)
    with contextlib.suppress(csv.Error):
        return next(islice((rows.line_num for each in rows if each), row + 1, None))
    return row + 2


def _uneven_line(data: Any, delimiter: str) -> str:
    """What is wrong with the first line of a CSV file that has too many or too few values; empty if none has."""
    width, rows = 0, csv.reader(io.TextIOWrapper(data, errors="replace", newline=""), delimiter=delimiter)
    with contextlib.suppress(csv.Error):
        for row in rows:
            width = width or len(row)
            if row and len(row) != width:
                mark = "a tab" if delimiter == "\t" else f"a {delimiter!r}"
                text = f"line {rows.line_num:,}, has {counted(len(row), 'value')} for {counted(width, 'column')}"
                return f"{text}; each column has one, in quotes where it holds {mark}."
    return ""


def _end_of_line(data: Any) -> int:
    """The index at which the first line of a buffer ends."""
    step, view = 2**16, memoryview(data)
    ends = (
        begin + end
        for begin in range(0, len(view), step)
        if (end := bytes(view[begin : begin + step]).find(b"\n")) >= 0
    )
    return next(ends, len(view))


def _pieces(tables: Mapping[Path, Any], name: str) -> list[Any]:
    for file, table in tables.items():
        if name not in table.column_names:
            raise DataError(f"{file} has no column {name!r}. {hint(name, table.column_names)}")
    return [whole(table.column(name)) for table in tables.values()]


def _no_numbers(pieces: Sequence[Any]) -> str:
    """What a column holds other than numbers, as a phrase; empty if all values are numbers or missing."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    kinds = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    for piece in pieces:
        if any(is_kind(piece.type) for is_kind in kinds):
            continue
        if not is_text(piece.type):
            return "is bytes, and no text in UTF-8" if types.is_binary(piece.type) else f"is {piece.type}"
        texts = piece.drop_null()
        words = texts.filter(pc.invert(pc.match_substring_regex(texts, _NUMBER))) or texts
        # An example helps to spot a mark for missing values in a column of numbers.
        text = "is text" + (f", such as {words[0].as_py()!r} in {len(words):,} of {len(piece):,} rows" if words else "")
        is_written = words and pc.match_substring_regex(words[:1], _WRITTEN_NUMBER)[0].as_py()
        return text + (_WRITTEN_OTHERWISE if is_written else "")
    return "holds no value" if all(types.is_null(piece.type) for piece in pieces) else ""


def _float32(name: str, pieces: Sequence[Any]) -> np.ndarray:
    """The numbers of a column, NaN if they are missing."""
    values = np.concatenate([piece.cast("float64", safe=False).to_numpy(zero_copy_only=False) for piece in pieces])
    if lost := what_is_lost(values, np.dtype(np.float32)):
        raise DataError(f"column {name!r} {lost}; leave it out, by a list of features.")
    narrow: np.ndarray = values.astype(np.float32)
    return narrow


def _labels(name: str, pieces: Sequence[Any], every: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The labels in a column: those of the split and of all files, and the names of classes where they are text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    every = [piece.drop_null() for piece in every]
    other = _no_numbers(every)
    if not other:
        labels, whole_labels = (
            [(piece.cast("float64") if pa.types.is_decimal(piece.type) else piece).to_numpy(False) for piece in each]
            for each in (pieces, every)
        )
        return np.concatenate(labels), np.concatenate(whole_labels), ()
    if not all(is_text(piece.type) for piece in every):
        if " such as " in other:
            text = f"the target {name!r} {other} of one file, and numbers in another"
            raise DataError(f"{text}; make them numbers in all, or text in all.")
        mend = "; convert the file, as by iconv -f latin1 -t utf-8" if "UTF-8" in other else ""
        raise DataError(f"the target {name!r} is to be numbers, or text, and {other}{mend}.")
    words = [[piece.cast(pa.large_string()) for piece in each] for each in (pieces, every)]
    numbers = sum(pc.sum(pc.match_substring_regex(each, _WRITTEN_NUMBER)).as_py() or 0 for each in words[1])
    if 2 * numbers > sum(map(len, every)):
        what = other if other.endswith(_WRITTEN_OTHERWISE) else f"is numbers in {numbers:,} rows, but {other}"
        raise DataError(f"the target {name!r} {what}; correct them.")
    classes = sorted({word for each in words[1] for word in each.unique().to_pylist()})
    known = pa.array(classes, pa.large_string())
    labels, whole_labels = ([pc.index_in(each, value_set=known).to_numpy() for each in column] for column in words)
    return np.concatenate(labels), np.concatenate(whole_labels), tuple(classes)
