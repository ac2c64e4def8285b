"""Selections of a source's records: by their numbers, by a condition, or every n-th one."""

from __future__ import annotations

import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from datamix.errors import ConfigError, DataError, expanded, read_error
from datamix.sources.base import PartOfSource, Source, read_leaf
from datamix.sources.conditions import Condition


@dataclass(frozen=True, eq=False)
class Selected(PartOfSource):
    """Some records of a source, in a given order.

    Attributes:
      indices: Their numbers in the source, int64 [num_records].
      note: A sentence for the user on the selection; empty if there is none.

    >>> from datamix.sources.objects import as_source
    >>> some = Selected(as_source({"x": np.arange(10)}), np.array([7, 2, 4]))
    >>> read_leaf(some, "x").tolist()
    [7, 2, 4]
    """

    source: Source
    indices: np.ndarray
    note: str = ""

    @property
    def num_records(self) -> int:
        return len(self.indices)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*super().notes, *([self.note] if self.note else []))

    def _of_whole(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self.indices[indices])


def stepped(source: Source, parts: Sequence[tuple[int, int]]) -> Selected:
    """Every n-th record of each part of a source, given the size and the n of each part.

    >>> from datamix.sources.objects import as_source
    >>> stepped(as_source({"x": np.arange(10)}), [(6, 3), (4, 2)]).indices.tolist()
    [0, 3, 6, 8]
    """
    firsts = np.cumsum([0, *(size for size, _ in parts)])
    ranges = zip(firsts, parts, strict=False)
    return Selected(source, np.concatenate([np.arange(first, first + size, step) for first, (size, step) in ranges]))


def where(source: Source, condition: str, key: str) -> Selected:
    """The records of a source for which a condition holds; see `datamix.sources.conditions.Condition`.

    Raises:
      ConfigError: It is no condition on leaves of this source.
      DataError: It holds for no record.

    >>> from datamix.sources.objects import as_source
    >>> some = where(as_source({"x": np.arange(10)}), "x < 2 or x == 7", "source.a.where")
    >>> some.indices.tolist(), some.note
    ([0, 1, 7], 'where x < 2 or x == 7: 3 of its 10 records take part.')
    """
    parsed = Condition.parse(condition, key, source.spec)
    columns = {leaf: read_leaf(source, leaf).reshape(-1) for leaf in parsed.leaves}
    indices = np.flatnonzero(parsed.holds(columns))
    whole = f"{source.num_records:,} records"
    if not len(indices):
        raise DataError(f"it holds for none of the {whole}", key=key, value=condition)
    return Selected(source, indices, f"where {condition}: {len(indices):,} of its {whole} take part.")


def records_of(source: Source, records: str | np.ndarray, key: str) -> Selected:
    """The records with these numbers, int [count] or the path of an `.npy` file of them, in this order.

    Raises:
      ConfigError: These are no numbers of records of this source, or one is repeated.
      DataError: The file is missing or damaged.
    """
    path = records if isinstance(records, str) else None
    numbers = np.asarray(records) if path is None else _loaded(path, key)
    shown: object = ... if path is None else path
    size = source.num_records
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        mend = f"numpy.flatnonzero makes them of a mask of {size:,}." if numbers.dtype == bool else ""
        text = f"it holds {numbers.dtype}{list(numbers.shape)}, and the numbers of records are whole, in one row"
        raise ConfigError(text, key=key, value=shown, hint=mend)
    if not len(numbers):
        raise ConfigError("it holds no number of a record", key=key, value=shown)
    if (outside := (numbers < 0) | (numbers >= size)).any():
        place = int(outside.argmax())
        text = f"entry {place} is {numbers[place]}, and the source has the records 0 to {size - 1}"
        raise ConfigError(text, key=key, value=shown)
    indices = numbers.astype(np.int64)
    ordered = np.sort(indices)
    if len(repeated := ordered[1:][ordered[1:] == ordered[:-1]]):
        text = f"record {repeated[0]} is in it {np.count_nonzero(indices == repeated[0])} times"
        mend = "Name each once; record_weight makes some come more often."
        raise ConfigError(f"{text}, and nothing is repeated unasked", key=key, value=shown, hint=mend)
    of_file = f" of {path}" if path else ""
    note = f"the {len(indices):,} records{of_file} take part, of its {size:,}, in the order that they have there."
    return Selected(source, indices, note)


def _loaded(path: str, key: str) -> np.ndarray:
    file: Path = expanded(path)
    with read_error(path):
        is_file = file.is_file()
    if not is_file:  # opening a pipe would block
        raise DataError(f"there is no such file (looked for it at {file.absolute()})", key=key, value=path)
    try:
        with file.open("rb") as opened:
            numbers: np.ndarray = npy.read_array(opened, allow_pickle=False)
    except (OSError, ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError) as error:  # by the damage
        raise DataError(f"it is no .npy file of numbers, or a damaged one: {error}", key=key, value=path) from error
    return numbers
