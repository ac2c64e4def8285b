"""Arrow tables: in memory, in files of Arrow's own formats, and in Hugging Face's `datasets.Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamix.sources.columns import open_columns, reading
from datamix.sources.sliced import Sliced

_GROUP_ROWS = 1000  # in a group of a `datasets.Dataset`, as in files of `save_to_disk`


def tabular(data: Any) -> Sliced | None:
    """The columns of a `datasets.Dataset` or a `pyarrow.Table`; images keep their size, which all must share.

    Returns:
      A source; None for anything else, and for a dataset with a `set_transform`, which makes records as they are read.

    >>> import pyarrow
    >>> source = tabular(pyarrow.table({"age": [41, 7], "name": ["Ada", "Bo"]}))
    >>> list(source.spec), source.notes
    (['age'], ('columns are left out: name, which is string.',))
    """
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if kind == "datasets.Dataset" and data.format["type"] != "custom":
        return open_columns({"train": [_Dataset(data)]}, provenance="huggingface")
    if kind == "pyarrow.Table":
        return open_columns({"train": [ArrowTable("this Table", data)]}, provenance="arrays")
    return None


class ArrowTable:
    """A table in memory, whose record batches are its groups of rows; see `datamix.sources.columns.Part`."""

    def __init__(self, name: str, table: Any) -> None:
        self.name, self.schema = name, table.schema
        self._batches = table.to_batches()
        self.rows = [batch.num_rows for batch in self._batches]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """Read some columns of a group. It is validated, since a damaged one could point anywhere in memory."""
        batch = self._batches[group].select(columns)
        batch.validate(full=True)
        return batch

    def missing(self, column: str) -> int:
        return sum(batch.column(column).null_count for batch in self._batches)


class ArrowFile(ArrowTable):
    """A file in one of Arrow's own formats, mapped into memory; its record batches are the groups of rows."""

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
        return self._data.select_columns(list(columns))[group * _GROUP_ROWS : (group + 1) * _GROUP_ROWS]

    def missing(self, column: str) -> int:
        """The number of missing values; 0 if indices choose among the rows, since it is then unknown."""
        table = self._data.data
        return int(table.column(column).null_count) if table.num_rows == len(self._data) else 0
