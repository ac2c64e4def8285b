"""Slices of a source in TFDS's split syntax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datamix.sources.base import LabelledSource, PartOfSource, Source, read_all, read_leaf, reads_whole, take_all
from datamix.sources.splits import records_of_ranges, split_ranges
from datamix.sources.statistics import LeafStatistics, statistics_of
from datamix.spec import Arrays


def sliced(source: Source, split: str, sizes: Mapping[str, int] | None = None) -> Sliced:
    """The records of a source in a split.

    Args:
      source: A source of all records, split after split.
      split: The records to read, in TFDS's syntax.
      sizes: The number of records in each split, in the order of the source; by default, all are the split `train`.

    >>> from datamix.sources.objects import as_source
    >>> whole = as_source({"x": np.arange(10)})
    >>> sliced(whole, "train[80%:]+train[:1]").read()["x"].tolist()
    [8, 9, 0]
    """
    sizes = {"train": source.num_records} if sizes is None else sizes
    return Sliced(source, split_ranges(split, sizes))


@dataclass(frozen=True)
class Sliced(PartOfSource):
    """Ranges of the records of a source, each as (start, stop)."""

    source: Source
    ranges: Sequence[tuple[int, int]]

    @property
    def num_records(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    @property
    def reads_whole(self) -> bool:
        """Whether the whole source is read at once."""
        return reads_whole(self.source)

    def read(self) -> Arrays:
        if not reads_whole(self.source):  # decode no records outside the ranges
            return take_all(self, self.num_records)
        whole = read_all(self.source)
        parts = [{leaf: values[start:stop] for leaf, values in whole.items()} for start, stop in self.ranges]
        return parts[0] if len(parts) == 1 else {leaf: np.concatenate([part[leaf] for part in parts]) for leaf in whole}

    @property
    def in_memory(self) -> Arrays:
        """The arrays in memory in which the records lie, by leaf; empty unless the slice is one range."""
        if len(self.ranges) != 1:
            return {}
        start, stop = self.ranges[0]
        return {leaf: values[start:stop] for leaf, values in getattr(self.source, "in_memory", {}).items()}

    def statistics(self) -> Mapping[str, LeafStatistics] | None:
        """The statistics that the source has stored, if the slice is all of it; otherwise None."""
        return statistics_of(self.source) if list(self.ranges) == [(0, self.source.num_records)] else None

    def _of_whole(self, indices: np.ndarray) -> np.ndarray:
        return records_of_ranges(self.ranges, indices)

    def whole_labels(self) -> np.ndarray:
        if isinstance(self.source, LabelledSource):
            return self.source.whole_labels()
        return read_leaf(self.source, "label")

    @property
    def block_records(self) -> int | None:
        """The number of records that are stored together, if the source says it; the ends of ranges may have fewer."""
        return getattr(self.source, "block_records", None)
