"""Sources of one spec, such as the files of a dataset, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamix.errors import DataError
from datamix.sources.base import LabelledSource, Source, read_all
from datamix.spec import Arrays, Spec


@dataclass(frozen=True)
class Joined:
    """The records of several sources of one spec, in their order.

    Attributes:
      parts: The sources, at least one.

    >>> from datamix.sources.objects import as_source
    >>> both = Joined([as_source({"x": np.arange(3)}), as_source({"x": np.arange(10, 13)})])
    >>> both.take(np.array([4, 0, 2]), out := {"x": np.zeros(3, np.int64)})
    >>> out["x"].tolist()
    [11, 0, 2]
    """

    parts: Sequence[Source]

    def __post_init__(self) -> None:
        for part in self.parts:
            if dict(part.spec) != dict(self.spec):
                first, other = (
                    ", ".join(f"{leaf} {of}" for leaf, of in spec.items()) for spec in (self.spec, part.spec)
                )
                raise DataError(f"records that are read together are alike, and here are {first} and {other}.")

    @property
    def provenance(self) -> str:
        """The kind of place where the records come from."""
        return self.parts[0].provenance

    @property
    def num_records(self) -> int:
        """The number of records."""
        return sum(part.num_records for part in self.parts)

    @property
    def spec(self) -> Spec:
        """The shape and dtype of each leaf."""
        return self.parts[0].spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.parts[0].class_names

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the sources, each once."""
        return tuple(dict.fromkeys(note for part in self.parts for note in getattr(part, "notes", ())))

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        for part, rows, own in self._split(indices):
            if len(rows) == rows[-1] + 1 - rows[0]:  # in one piece, as a reader asks that sorts by place
                part.take(own, {leaf: values[rows[0] : rows[-1] + 1] for leaf, values in out.items()})
                continue
            some = {leaf: np.empty((len(rows), *values.shape[1:]), values.dtype) for leaf, values in out.items()}
            part.take(own, some)
            for leaf, values in some.items():
                out[leaf][rows] = values

    def places(self, indices: np.ndarray) -> list[str]:
        """Where some records lie: file and place in it, as far as the sources say it."""
        places = [""] * len(indices)
        for part, rows, own in self._split(indices):
            for row, place in zip(rows.tolist(), part.places(own) if hasattr(part, "places") else (), strict=False):
                places[row] = place
        return places

    def whole_labels(self) -> np.ndarray:
        """See `datamix.sources.base.LabelledSource`."""
        parts = [
            part.whole_labels() if isinstance(part, LabelledSource) else read_all(part)["label"] for part in self.parts
        ]
        return np.concatenate(parts)

    def _split(self, indices: np.ndarray) -> list[tuple[Source, np.ndarray, np.ndarray]]:
        """The sources that records lie in, with the places of these in `indices` and their numbers in the source."""
        ends = np.cumsum([part.num_records for part in self.parts])
        number = np.searchsorted(ends, indices, side="right")  # of the source that a record lies in
        split = []
        for each in np.unique(number).tolist():
            rows = np.flatnonzero(number == each)
            part = self.parts[each]
            split.append((part, rows, indices[rows] - (ends[each] - part.num_records)))
        return split
