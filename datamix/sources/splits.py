"""TFDS's split syntax, `train[:2000]+test[-10%:]`, without importing TFDS."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from datamix.errors import ConfigError, hint

_BOUND = r"-?\d+(?:_\d+)*(?:\.\d+)?%?"
_STEP = re.compile(r"(?P<part>.*\[[^\[\]:]*:[^\[\]:]*):\s*(?P<step>[^\[\]:]*?)\s*\]\s*")
_PART = re.compile(rf"^\s*(?P<name>[\w.-]+)\s*(?:\[\s*(?P<start>{_BOUND})?\s*:\s*(?P<stop>{_BOUND})?\s*\])?\s*$")


def resolve_split(text: str, sizes: Mapping[str, int], *, where: str = "split") -> list[tuple[str, int, int]]:
    """Turn a split in TFDS's syntax into ranges of records.

    A slice that reaches past the end of its split stops there, as in Python.

    Args:
      text: Names joined by `+`, each with an optional slice in records or percent; a percent sign at one end applies to
        both. `all` means every split.
      sizes: The number of records in each split.
      where: The key that errors name.

    Returns:
      (split, start, stop) for each part, with 0 <= start <= stop <= sizes[split].

    Raises:
      ConfigError: The syntax is not TFDS's, there is no such split, or a share exceeds 100 %.

    >>> resolve_split("train[:2000]+test[-10%:]", {"train": 800, "test": 100}, where="split")
    [('train', 0, 800), ('test', 90, 100)]
    """
    ranges = []
    for part in text.split("+"):
        match = _PART.match(part)
        percent = "%" in part
        if match is None or (not percent and "." in f"{match['start']}{match['stop']}"):
            raise _no_split(text, part, where)
        if percent and any(abs(float(end.rstrip("%"))) > 100 for end in match.group("start", "stop") if end):
            raise ConfigError("a share of a split is 100 % at most", key=where, value=text)
        name = match["name"]
        if name != "all" and name not in sizes:
            raise ConfigError(f"there is no split {name!r}", key=where, value=text, hint=hint(name, sizes))
        for split in sizes if name == "all" and "all" not in sizes else [name]:
            size = sizes[split]
            start = _bound(match["start"], size, percent=percent, default=0)
            stop = _bound(match["stop"], size, percent=percent, default=size)
            ranges.append((split, start, max(start, stop)))
    return ranges


def split_ranges(text: str, sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    """The ranges (start, stop) of the records of a split, counted over all splits.

    >>> split_ranges("test[:2]+train[:1]", {"train": 800, "test": 100})
    [(800, 802), (0, 1)]
    """
    first = dict(zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False))
    return [(first[split] + start, first[split] + stop) for split, start, stop in resolve_split(text, sizes)]


def sizes_of(splits: Mapping[str, Sequence[object]], counts: Iterable[int]) -> dict[str, int]:
    """The number of records in each split, given the files of each split and the number of records in each file.

    >>> sizes_of({"train": ["a", "b"], "test": ["c"]}, [3, 4, 5])
    {'train': 7, 'test': 5}
    """
    count = iter(counts)
    return {name: sum(itertools.islice(count, len(files))) for name, files in splits.items()}


def records_of_ranges(ranges: Sequence[tuple[int, int]], indices: ArrayLike) -> np.ndarray:
    """The records at some indices of several ranges, taken one after the other.

    >>> records_of_ranges([(800, 802), (0, 1)], np.array([2, 0]))
    array([  0, 800])
    """
    starts, stops = np.array(ranges, np.int64).T
    ends, indices = np.cumsum(stops - starts), np.asarray(indices)
    if len(indices) and not 0 <= indices.min() <= indices.max() < ends[-1]:
        raise IndexError(f"records {indices.min()} to {indices.max()} are asked for, of {ends[-1]}")
    return np.asarray(indices + (stops - ends)[np.searchsorted(ends, indices, side="right")])


def located(ends: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part that each record lies in, and its index there, int64 [count] each.

    Args:
      ends: The number of records up to the end of each part, int64 [num_parts].
      indices: The numbers of records, counted over all parts, int64 [count].

    >>> located(np.array([3, 7]), np.array([2, 3, 6]))
    (array([0, 1, 1]), array([2, 0, 3]))
    """
    part = np.searchsorted(ends, indices, side="right")
    return part, indices - np.append(0, ends)[part]


def steps_of(text: str, *, where: str) -> list[tuple[str, int]]:
    """The parts of a split without their steps, which `resolve_split` does not support, and each step, by default 1.

    >>> steps_of("train[:80%:3]+test[1::2]+extra", where="split")
    [('train[:80%]', 3), ('test[1:]', 2), ('extra', 1)]
    """
    parts = []
    for part in text.split("+"):
        match = _STEP.fullmatch(part)
        step = (match["step"] or "1") if match else "1"
        if not re.fullmatch(r"0*[1-9]\d*(_\d+)*", step):
            raise _no_split(text, part, where)
        parts.append((f"{match['part']}]" if match else part, int(step)))
    return parts


def _no_split(text: str, part: str, where: str) -> ConfigError:
    mend = "Write train, train[:2000], train[10%:90%], train[::2] or several joined by +."
    return ConfigError(f"{part.strip()!r} is not a split", key=where, value=text, hint=mend)


def _bound(text: str | None, size: int, *, percent: bool, default: int) -> int:
    if text is None:
        return default
    # Percentages round to the nearest record, half to even, as TFDS's default ("closest") does.
    value = round(float(text.rstrip("%")) * size / 100) if percent else int(text)
    return min(max(value + size if value < 0 else value, 0), size)
