"""Records in Parquet files and Hugging Face datasets: numbers, lists of numbers, images, class labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamix.errors import DataError, expanded, read_error
from datamix.sources.arrow import ArrowFile
from datamix.sources.columns import open_columns, reading
from datamix.sources.files import files_of, notes_on
from datamix.sources.images import Fit, Mode
from datamix.sources.sliced import Sliced


def parquet(
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
) -> Sliced:
    """Rows of Parquet files, Arrow files or folders of Hugging Face's `save_to_disk`; also named `huggingface`.

    Images, see `datamix.sources.images.ImageFormat`, must all have the size of the first unless a size is set.

    Args:
      path: A file, a folder, a glob or a list of them; a mapping from splits to them; or a folder of `save_to_disk`,
        which has its own splits.
      leaves: Leaf name to column; see `datamix.sources.columns.open_columns`.
      pad_to: Leaf name to the length to which its lists, of varying length, are padded.
      split: The records to read, in TFDS's syntax.
    """
    files = saved_files(expanded(path)) if isinstance(path, str) else None
    is_saved = files is not None
    files = files or files_of(path, suffixes=[".parquet", ".arrow"])
    every = [file for of_split in files.values() for file in of_split]
    kinds = {file: ParquetFile if file.suffix.lower() == ".parquet" else ArrowFile for file in every}
    return open_columns(
        {name: [kinds[file](file) for file in of_split] for name, of_split in files.items()},
        provenance="parquet" if ParquetFile in kinds.values() else "huggingface",
        split=split,
        leaves=leaves,
        pad_to=pad_to,
        image={"height": height, "width": width, "mode": mode, "fit": fit, "background": background},
        notes=() if is_saved else notes_on(path, files),
    )


def saved_files(folder: Path) -> dict[str, tuple[Path, ...]] | None:
    """The files of each split in a folder that `save_to_disk` wrote; None if the folder is no such one."""
    splits = {"train": folder}
    with read_error(str(folder)):
        has_splits, is_split = ((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if not is_split:
        if not has_splits:
            return None
        splits = {
            name: folder / name for name in _names(folder / "dataset_dict.json", lambda content: content["splits"])
        }
    files = {name: _names(place / "state.json", _data_files) for name, place in splits.items()}
    return {name: tuple(splits[name] / file for file in each) for name, each in files.items()}


def _data_files(state: Any) -> list[object]:
    return [each["filename"] for each in state["_data_files"]]


def _names(file: Path, find: Callable[[Any], Sequence[object]]) -> list[str]:
    try:
        return [str(name) for name in find(json.loads(file.read_bytes()))]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} does not say its files or splits: {type(error).__name__} {error}.") from error


class ParquetFile:
    """A Parquet file, whose row groups are its groups of rows; see `datamix.sources.columns.Part`."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        with reading(path):
            import pyarrow.parquet as pq

            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                self._metadata, self.schema = file.metadata, file.schema_arrow
        self.rows = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """Read some columns of a group. The file is opened anew, as an open one serves only one thread."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.name, metadata=self._metadata, page_checksum_verification=True) as file:
            return file.read_row_group(group, columns=columns)

    def missing(self, column: str) -> int:
        """The number of missing values, from the statistics that most files hold; 0 if there are none."""
        index = self.schema.get_field_index(column)
        paths = [self._metadata.schema.column(number).path for number in range(self._metadata.num_columns)]
        if index < 0 or column not in paths:  # a list, or a struct
            return 0
        number = paths.index(column)
        statistics = [self._metadata.row_group(group).column(number).statistics for group in range(len(self.rows))]
        return sum(each.null_count for each in statistics if each is not None and each.has_null_count)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)
