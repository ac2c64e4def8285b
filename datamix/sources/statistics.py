"""Statistics of the values of leaves: the smallest, the largest, the mean, and the shares of NaN and infinite ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

import numpy as np

_CHUNK_VALUES = 2**18  # small enough that a chunk stays in the processor's cache while it is read several times


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
      num_records: The number of records that were read.
      sampled: Whether these are only some, evenly spaced, of all records.

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
        """The statistics of an array, computed chunk by chunk."""
        rows = max(1, _CHUNK_VALUES // max(1, values[:1].size))
        smallest, largest, total, count, num_nan, num_negative = np.inf, -np.inf, 0.0, 0, 0, 0
        for start in range(0, len(values), rows):
            chunk = values[start : start + rows].reshape(-1)
            if chunk.dtype.kind not in "biu":
                chunk = chunk if chunk.dtype.kind == "f" else chunk.astype(np.float32)  # bfloat16
                finite = np.isfinite(chunk)
                if not finite.all():
                    num_nan += int(np.isnan(chunk).sum())
                    chunk = chunk[finite]
            if not len(chunk):
                continue
            low = float(chunk.min())
            smallest, largest = min(smallest, low), max(largest, float(chunk.max()))
            total += float(chunk.sum(dtype=_sum_dtype(chunk)))
            num_negative += int((chunk < 0).sum()) if low < 0 else 0
            count += len(chunk)
        size = max(values.size, 1)
        return cls(
            min=smallest if count else None,
            max=largest if count else None,
            mean=total / count if count else None,
            nan=num_nan / size,
            inf=(values.size - count - num_nan) / size,
            num_negative=num_negative,
            num_records=len(values),
            sampled=sampled,
        )

    @classmethod
    def merged(cls, parts: Iterable[tuple[LeafStatistics, int]]) -> Self:
        """The statistics of a leaf, from those of its parts and the number of values in each part.

        >>> whole = [LeafStatistics.of(np.array(values)) for values in ([1.0, np.nan], [4.0])]
        >>> LeafStatistics.merged(zip(whole, (2, 1))).report()
        {'min': 1.0, 'max': 4.0, 'mean': 2.5, 'nan': 0.3333333333333333, 'inf': 0.0}
        """
        parts = list(parts)
        size = sum(count for _, count in parts)
        num_nan, num_inf = (sum(round(getattr(each, kind) * n) for each, n in parts) for kind in ("nan", "inf"))
        total = sum((each.mean or 0) * (n - round(each.nan * n) - round(each.inf * n)) for each, n in parts)
        finite = size - num_nan - num_inf
        return cls(
            min=min((each.min for each, _ in parts if each.min is not None), default=None),
            max=max((each.max for each, _ in parts if each.max is not None), default=None),
            mean=total / finite if finite else None,
            nan=num_nan / max(size, 1),
            inf=num_inf / max(size, 1),
            num_negative=sum(each.num_negative for each, _ in parts),
            num_records=sum(each.num_records for each, _ in parts),
        )

    def num_unlabelled(self, num_records: int) -> int:
        """The number of labels that are negative or NaN, and so no class, among so many records."""
        return self.num_negative + round(self.nan * num_records)

    def report(self) -> dict[str, float | None]:
        """The entry of the leaf in a report; it has `sampled` only if that is true."""
        hidden = {"num_negative", "num_records", *(() if self.sampled else ("sampled",))}
        return {key: value for key, value in asdict(self).items() if key not in hidden}


def _sum_dtype(chunk: np.ndarray) -> type[np.number]:
    """The dtype in which a chunk is added up: one that cannot overflow; pixels take half as long in 32 bits."""
    if chunk.dtype.kind == "f" or chunk.itemsize > 4:
        return np.float64
    return np.int32 if chunk.itemsize == 1 and chunk.size <= _CHUNK_VALUES else np.int64


Statistics: TypeAlias = Mapping[str, Mapping[str, LeafStatistics]]
"""Source name to leaf name to the statistics of that leaf."""


def statistics_of(source: object) -> Mapping[str, LeafStatistics] | None:
    """The statistics of every leaf over all records of a source, if its `statistics()` has them; otherwise None."""
    known: Callable[[], Mapping[str, LeafStatistics] | None] | None = getattr(source, "statistics", None)
    return None if known is None else known()


def to_json(statistics: Mapping[str, LeafStatistics]) -> dict[str, dict[str, float | None]]:
    """The statistics of each leaf as JSON."""
    return {leaf: asdict(each) for leaf, each in statistics.items()}


def from_json(kept: Mapping[str, Mapping[str, Any]]) -> dict[str, LeafStatistics]:
    """The statistics of each leaf from the result of `to_json`.

    >>> from_json(to_json({"x": LeafStatistics.of(np.arange(3))}))["x"].mean
    1.0
    """
    return {leaf: LeafStatistics(**each) for leaf, each in kept.items()}
