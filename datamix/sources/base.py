"""What a source is: a number of records of one spec, read as whole arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from datamix import registry
from datamix.spec import Arrays, Spec


@runtime_checkable
class Source(Protocol):
    """Records of one dataset. Everything but `read` is known without reading the records.

    Attributes:
      provenance: where the records come from: "tfds", "arrays", "procedural", …
      num_records: how many there are.
      spec: shape and dtype of each leaf of one record.
      class_names: name of each label, by label; empty where there are none.
    """

    @property
    def provenance(self) -> str: ...
    @property
    def num_records(self) -> int: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...

    def read(self) -> Arrays:
        """All records: leaf name to array, shape [num_records, *leaf shape]; may be memory-mapped."""
        ...


def source(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function or class as a source, under its name in snake_case.

    It is called with the keyword settings of the dataset's YAML file and gives a `Source`, or simply its records: a
    dict of arrays of the same length along their first axis.

    Raises:
      RegistryError: the name is taken.

    >>> @source
    ... def ramp_for_doctest(*, num_records: int = 3):
    ...     return {"image": np.zeros((num_records, 2, 2, 1), np.uint8), "label": np.arange(num_records)}
    """
    registry.register("source", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", function.__name__).lower(), function)
    return function
