"""Statistics of the values of leaves: their smallest, largest and mean, and how many are no numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self, TypeAlias

import numpy as np

_BLOCK_VALUES = 2**18  # small enough that a block stays in the processor's cache while it is looked at several times


@dataclass(frozen=True, kw_only=True)
class LeafStatistics:
    """The statistics of one leaf of a source, over every element of all records.

    Attributes:
      min: The smallest finite value; None if there is none.
      max: The largest finite value; None if there is none.
      mean: The mean of the finite values; None if there is none.
      nan: The share of values that are NaN, in [0, 1].
      inf: The share of values that are infinite, in [0, 1].
      num_negative: The number of values below 0.
      num_records: The number of records that were looked at.
      sampled: Whether these are only some of the records, evenly spaced ones.

    >>> statistics = LeafStatistics.of(np.array([1.0, np.nan, 4.0, -2.0]))
    >>> statistics.min, statistics.max, statistics.mean, statistics.nan
    (-2.0, 4.0, 1.0, 0.25)
    """

    min: float | None
    max: float | None
    mean: float | None
    nan: float = 0.0
    inf: float = 0.0
    num_negative: int = 0
    num_records: int = 0
    sampled: bool = False

    @classmethod
    def of(cls, values: np.ndarray, *, sampled: bool = False) -> Self:
        """The statistics of an array; a large one is gone through block by block."""
        running = RunningStatistics()
        running.add(values)
        return cls(**vars(running.result()) | {"sampled": sampled})

    def num_unlabelled(self, num_records: int) -> int:
        """The number of labels, of so many records, that are negative or NaN, and so no class."""
        return self.num_negative + round(self.nan * num_records)

    def report(self) -> dict[str, float | None]:
        """The entry of the leaf in a report; `sampled` stands there only where it is true."""
        hidden = {"num_negative", "num_records", *(() if self.sampled else ("sampled",))}
        return {key: value for key, value in asdict(self).items() if key not in hidden}


class RunningStatistics:
    """The statistics of a leaf whose records go by block by block.

    Attributes:
      num_records: The number of records so far.
    """

    def __init__(self) -> None:
        self.num_records = 0
        self._low, self._high, self._total = np.inf, -np.inf, 0.0
        self._size = self._count = self._num_nan = self._num_negative = 0

    def add(self, values: np.ndarray) -> None:
        """Look at some records, shape [count, ...]."""
        rows = max(1, _BLOCK_VALUES // max(1, values[:1].size))
        self.num_records += len(values)
        self._size += values.size
        for start in range(0, len(values), rows):
            block = values[start : start + rows].reshape(-1)
            if block.dtype.kind not in "biu":
                block = block if block.dtype.kind == "f" else block.astype(np.float32)  # bfloat16
                finite = np.isfinite(block)
                if not finite.all():
                    self._num_nan += int(np.isnan(block).sum())
                    block = block[finite]
            if not len(block):
                continue
            low = float(block.min())
            self._low, self._high = min(self._low, low), max(self._high, float(block.max()))
            self._total += float(block.sum(dtype=_sum_dtype(block)))
            self._num_negative += int((block < 0).sum()) if low < 0 else 0
            self._count += len(block)

    def result(self) -> LeafStatistics:
        """The statistics of all records so far."""
        size, count = max(self._size, 1), self._count
        return LeafStatistics(
            min=self._low if count else None,
            max=self._high if count else None,
            mean=self._total / count if count else None,
            nan=self._num_nan / size,
            inf=(self._size - count - self._num_nan) / size,
            num_negative=self._num_negative,
            num_records=self.num_records,
        )


def _sum_dtype(block: np.ndarray) -> type[np.number]:
    """The dtype in which a block is added up: one that cannot overflow; pixels take half as long in 32 bits."""
    if block.dtype.kind == "f" or block.itemsize > 4:
        return np.float64
    return np.int32 if block.itemsize == 1 and block.size <= _BLOCK_VALUES else np.int64


Statistics: TypeAlias = Mapping[str, Mapping[str, LeafStatistics]]
"""Source name to leaf name to the statistics of that leaf."""
