"""The number of records that come several times: among those to train on, or to train and to test on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from datamix.builder.open_source import OpenSource
from datamix.rng.hash import key_for
from datamix.spec import Arrays

_PART_BYTES = 2**24


def overlaps(
    training: Mapping[str, OpenSource], held_out: Mapping[str, OpenSource]
) -> tuple[dict[str, int], dict[str, int]]:
    """The records of each source that equal another one before them in the sources, where there are any.

    Returns:
      The number of such records to train on, and that of test records that equal a record to train on.
    """
    seen, repeated = np.zeros(0, np.uint64), {}
    for name, source in training.items():
        seen = np.unique(np.concatenate([before := seen, digests(source.read())]))
        repeated[name] = source.num_records - len(seen) + len(before)
    tested = {name: int(np.isin(digests(source.read()), seen).sum()) for name, source in held_out.items()}
    repeated, tested = ({name: count for name, count in each.items() if count} for each in (repeated, tested))
    return repeated, tested


def digests(arrays: Arrays) -> np.ndarray:
    """A number for each record, uint64 [num_records]; records of the same bytes in the same leaves have the same.

    Others have another but for one pair in 2^64: the words of a record are multiplied by random numbers and added up.

    >>> found = digests({"x": np.array([[1, 2], [2, 1], [1, 2]], np.uint8)})
    >>> bool(found[0] == found[2]), bool(found[0] == found[1])
    (True, False)
    """
    total = np.zeros(len(next(iter(arrays.values()))), np.uint64)
    for leaf, values in arrays.items():
        spec = f"{values.dtype}{values.shape[1:]}"
        total += np.concatenate([*_of_leaf(f"{leaf} {spec}", values), np.empty(0, np.uint64)])
    return total


def _of_leaf(name: str, values: np.ndarray) -> Iterable[np.ndarray]:
    row_bytes = int(values.dtype.itemsize * np.prod(values.shape[1:]))
    num_words = -(-row_bytes // 8)
    draw = np.random.default_rng(key_for(0, "overlap", name))
    factors = draw.integers(2**64, size=num_words + 1, dtype=np.uint64) | np.uint64(1)
    rows = max(1, _PART_BYTES // max(row_bytes, 1))
    for start in range(0, len(values), rows):
        part = np.ascontiguousarray(values[start : start + rows])
        words = np.zeros((len(part), num_words * 8), np.uint8)
        words[:, :row_bytes] = part.reshape(len(part), -1).view(np.uint8).reshape(len(part), row_bytes)
        mixed = words.view(np.uint64)
        mixed ^= mixed >> np.uint64(32)  # the low bits of a product know only the low bits of a factor
        yield (mixed * factors[:-1]).sum(axis=1, dtype=np.uint64) * factors[-1]
