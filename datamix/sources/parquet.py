"""Records in Parquet files: numbers, lists of numbers, images, class labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamix.sources.columns import Columns, open_columns, reading
from datamix.sources.files import files_of, notes_on
from datamix.sources.images import Fit, Mode


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
) -> Columns:
    """Rows of Parquet files.

    Args:
      path: A file, a folder, a glob or a list of them; or a mapping from splits to them.
      leaves: Leaf name to column; see `datamix.sources.columns.open_columns` for this and the others.
      pad_to: Leaf name to the length that its lists, of varying length, are padded to.
      height: Pixels of images; by default, all have as many as the first.
      width: Likewise.
      mode: "L" or "RGB".
      fit: "resize", "crop" or "pad".
      background: The colour behind transparent pixels.
      split: TFDS's syntax.

    Raises:
      ConfigError: A setting does not fit the files.
      DataError: A file is missing or damaged, lacks a column or values, or differs from the first one.
    """
    files = files_of(path, suffixes=[".parquet"])
    return open_columns(
        {name: [ParquetFile(file) for file in of_split] for name, of_split in files.items()},
        provenance="parquet",
        split=split,
        leaves=leaves,
        pad_to=pad_to,
        image={"height": height, "width": width, "mode": mode, "fit": fit, "background": background},
        notes=notes_on(path, files),
    )


class ParquetFile:
    """A Parquet file, whose row groups are the groups of rows; see `datamix.sources.columns.Part`.

    Raises:
      DataError: It is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        with reading(path):
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                self._metadata, self.schema = file.metadata, file.schema_arrow
        self.rows = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """See `datamix.sources.columns.Part`; the file is opened anew, as one that is open serves one thread."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.name, metadata=self._metadata) as file:
            return file.read_row_group(group, columns=columns)

    def missing(self, column: str) -> int:
        """See `datamix.sources.columns.Part`; statistics, which most files hold, say it."""
        index = self.schema.get_field_index(column)
        paths = [self._metadata.schema.column(number).path for number in range(self._metadata.num_columns)]
        if index < 0 or column not in paths:  # a list, or a struct
            return 0
        number = paths.index(column)
        found = [self._metadata.row_group(group).column(number).statistics for group in range(len(self.rows))]
        return sum(each.null_count for each in found if each is not None and each.has_null_count)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)
