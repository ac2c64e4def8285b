"""Records in Hugging Face's datasets: Parquet files, folders of `save_to_disk`, and `datasets.Dataset` itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamix.errors import DataError, expanded
from datamix.sources.columns import Columns, open_columns, reading
from datamix.sources.files import files_of, notes_on
from datamix.sources.images import Fit, Mode
from datamix.sources.parquet import ParquetFile

_GROUP_ROWS = 1000  # of a dataset in Python, as files of `save_to_disk` have


def huggingface(
    *,
    path: str | Sequence[str] | Mapping[str, str | Sequence[str]],
    leaves: Mapping[str, str] | None = None,
    pad_to: Mapping[str, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    mode: Mode = "L",
    fit: Fit = "resize",
    background: str = "white",
    split: str = "train",
) -> Columns:
    """A dataset of Hugging Face on this machine, read without its library.

    Args:
      path: A folder that `save_to_disk` wrote, or files as `datamix.sources.parquet.parquet` takes them, `.parquet` or
        `.arrow`.
      leaves: As for `parquet`, like all that follow.
      pad_to: See there.
      height: See there.
      width: See there.
      mode: See there.
      fit: See there.
      background: See there.
      split: See there; the splits of a folder of `save_to_disk` are its own.

    Raises:
      ConfigError: A setting does not fit the files.
      DataError: A file is missing or damaged, lacks a column or values, or differs from the first one.
    """
    files = _saved(expanded(path)) if isinstance(path, str) else None
    files, notes = (
        (files, ()) if files else (found := files_of(path, suffixes=[".parquet", ".arrow"]), notes_on(path, found))
    )
    parts = {
        name: [(ParquetFile if file.suffix.lower() == ".parquet" else ArrowFile)(file) for file in of_split]
        for name, of_split in files.items()
    }
    return open_columns(
        parts,
        provenance="huggingface",
        split=split,
        leaves=leaves,
        pad_to=pad_to,
        image={"height": height, "width": width, "mode": mode, "fit": fit, "background": background},
        notes=notes,
    )


def tabular(data: Any) -> Columns | None:
    """The columns of a `datasets.Dataset` or a `pyarrow.Table`; its images keep their size, which is that of all.

    Args:
      data: Whatever a user calls a source.

    Returns:
      A source; None for anything else, and for a dataset whose records are made as they are read, by `set_transform`.

    Raises:
      DataError: There is nothing to make a leaf of.

    >>> import pyarrow
    >>> source = tabular(pyarrow.table({"age": [41, 7], "name": ["Ada", "Bo"]}))
    >>> list(source.spec), source.notes
    (['age'], ('columns are left out: name, which is string.',))
    """
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if kind == "datasets.Dataset" and data.format["type"] != "custom":
        return open_columns({"train": [_Dataset(data)]}, provenance="huggingface")
    if kind == "pyarrow.Table":
        return open_columns({"train": [Table("this Table", data)]}, provenance="arrays")
    return None


def _saved(folder: Path) -> dict[str, tuple[Path, ...]] | None:
    """The files of each split of a folder that `save_to_disk` wrote; None if this is no such folder.

    Raises:
      DataError: What the folder says of its files cannot be read.
    """
    splits = {"train": folder}
    if not (folder / "state.json").is_file():
        if not (folder / "dataset_dict.json").is_file():
            return None
        splits = {str(name): folder / str(name) for name in _said(folder / "dataset_dict.json", "splits")}
    return {
        name: tuple(place / file["filename"] for file in _said(place / "state.json", "_data_files"))
        for name, place in splits.items()
    }


def _said(file: Path, key: str) -> Any:
    """An entry of a JSON file."""
    try:
        return json.loads(file.read_bytes())[key]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} does not say its {key}: {type(error).__name__} {error}.") from error


class Table:
    """A table in memory, whose pieces are the groups of rows; see `datamix.sources.columns.Part`."""

    def __init__(self, name: str, table: Any) -> None:
        self.name, self.schema = name, table.schema
        self._batches = table.to_batches()
        self.rows = [batch.num_rows for batch in self._batches]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """See `datamix.sources.columns.Part`; a damaged batch could lead anywhere in memory, and is refused."""
        batch = self._batches[group].select(columns)
        batch.validate(full=True)
        return batch

    def missing(self, column: str) -> int:
        """See `datamix.sources.columns.Part`."""
        return sum(batch.column(column).null_count for batch in self._batches)


class ArrowFile(Table):
    """A file in one of Arrow's own formats, mapped into memory; its record batches are the groups of rows.

    Raises:
      DataError: It is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        with reading(path):
            import pyarrow as pa

            with pa.memory_map(str(path)) as file:
                is_file = file.size() > 6 and file.read(6) == b"ARROW1"
                file.seek(0)
                table = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file).read_all()
        super().__init__(str(path), table)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)


class _Dataset:
    """A `datasets.Dataset`, whose rows may be chosen and ordered by indices."""

    def __init__(self, data: Any) -> None:
        self.name, self._data, self.schema = "this Dataset", data.with_format("arrow"), data.features.arrow_schema
        self.rows = [min(_GROUP_ROWS, len(data) - start) for start in range(0, len(data), _GROUP_ROWS)]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """See `datamix.sources.columns.Part`."""
        return self._data.select_columns(list(columns))[group * _GROUP_ROWS :][:_GROUP_ROWS]

    def missing(self, column: str) -> int:
        """See `datamix.sources.columns.Part`; it is not known where indices choose among the rows."""
        table = self._data.data
        return int(table.column(column).null_count) if table.num_rows == len(self._data) else 0
