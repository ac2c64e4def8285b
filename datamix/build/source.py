"""A source as it takes part in a mix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datamix.errors import DataError, DatamixError
from datamix.pipeline.graph import Operation
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import Source, read_all
from datamix.spec import Arrays, Spec


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source of a mix, opened but not read; itself a `Source`.

    Attributes:
      name: Its name in the mix.
      source: What reads its records.
      provenance: Where its records come from.
      operators: The operators on each of its records.
      seed: The seed of its shuffle and random operators, None for the seed of the mix.
      limit: how many of its records are used at most, None for all.
      chosen_names: names for its classes, in place of the source's own.
      target: the registered name of what built it.
      settings: The settings it was built with.
      key: the key of its settings in the configuration; empty where Python code gives them.
      note: what a user must know of it, such as that another dataset stands in; empty if nothing.
    """

    name: str
    source: Source
    provenance: str
    operators: tuple[Operation, ...] = ()
    seed: int | None = None
    limit: int | None = None
    chosen_names: tuple[str, ...] = ()
    target: str = "arrays"
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    note: str = ""

    @property
    def num_records(self) -> int:
        """The number of records that are used."""
        whole = self.source.num_records
        return whole if self.limit is None else min(whole, self.limit)

    @property
    def spec(self) -> Spec:
        """The shape and dtype of each leaf."""
        return self.source.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label, by label."""
        return self.chosen_names or self.source.class_names

    def num_classes(self) -> int:
        """The number of classes: as many as have names, otherwise the largest label and one."""
        return len(self.class_names) or (int(labels.max()) + 1 if len(labels := self.read()["label"]) else 0)

    def in_memory(self) -> MemoryArrays:
        """The same records, read."""
        return MemoryArrays(self.read(), self.provenance, self.class_names)

    def read(self) -> Arrays:
        """See `datamix.sources.base.ReadableSource`."""
        try:
            arrays = read_all(self.source, self.num_records)
        except DatamixError as error:
            raise named(self.name, error) from error
        self._check_labels(arrays)
        return arrays

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        try:
            self.source.take(indices, out)
        except DatamixError as error:
            raise named(self.name, error) from error
        self._check_labels(out)

    def _check_labels(self, arrays: Arrays) -> None:
        """Raise DataError if a class has no name while others have one."""
        labels, count = arrays.get("label"), len(self.class_names)
        if not count or labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            return
        if labels.max() >= count:
            names = f"{self.key}.class_names" if self.key else f"class_names[{self.name!r}]"
            raise DataError(
                f"source {self.name!r}: label {labels.max()} has no name among the {count} class_names; name every "
                f"class in {names}."
            )


def named(name: str, error: DatamixError) -> DatamixError:
    """The same error, under the name that the source has in the mix."""
    text = re.sub(r"^source '[^']*': ", "", str(error))
    kind = next(each for each in type(error).__mro__ if each.__module__ == DatamixError.__module__)
    renamed: DatamixError = kind(f"source {name!r}: {text}")
    renamed.__dict__.update(vars(error))
    return renamed
