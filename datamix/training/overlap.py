"""Repeated records: among the records to train on, and between these and the test records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from datamix.builder.open_source import OpenSource
from datamix.errors import of_source
from datamix.rng.hash import key_for
from datamix.spec import Arrays

_PART_BYTES = 2**24


def notes_on_overlaps(training: Mapping[str, OpenSource], held_out: Mapping[str, OpenSource]) -> list[str]:
    """The notes on records to train on that equal earlier ones of the mix, and on test records that equal any of them.

    Args:
      training: The sources to train on, by name.
      held_out: The test records, by source.
    """
    known, notes = np.zeros(0, np.uint64), []
    for name, source in training.items():
        before, known = len(known), np.unique(np.concatenate([known, digests(source.read())]))
        if count := before + source.num_records - len(known):
            notes.append(of_source(name, f"{count:,} of its {source.num_records:,} records equal others of the mix."))
    for name, source in held_out.items():
        if count := int(np.isin(digests(source.read()), known).sum()):
            of_all = f"{count:,} of its {source.num_records:,} test records"
            notes.append(of_source(name, f"{of_all} equal records to train on."))
    return notes


def digests(arrays: Arrays) -> np.ndarray:
    """A digest of each record, uint64 [num_records], which is the same for records with equal bytes in equal leaves.

    Different records have the same digest with a probability of about 2^-64: the words of a record are multiplied by
    random numbers and added up.

    Args:
      arrays: The leaves of the records, [num_records, *leaf shape] each.

    >>> numbers = digests({"x": np.array([[1, 2], [2, 1], [1, 2]], np.uint8)})
    >>> bool(numbers[0] == numbers[2]), bool(numbers[0] == numbers[1])
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
        mixed ^= mixed >> np.uint64(32)  # the low bits of a product depend only on the low bits of its factors
        yield (mixed * factors[:-1]).sum(axis=1, dtype=np.uint64) * factors[-1]
