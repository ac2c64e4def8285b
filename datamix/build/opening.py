"""From the configuration of one source, through the registry, to a source that can be read, or its stand-in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamix import registry
from datamix.config.schema import Config, SourceConfig
from datamix.errors import ConfigError, DataError, DatamixError
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import Source
from datamix.sources.tfds.prepare import Unavailable
from datamix.spec import Arrays, Spec


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source of a mix, opened but not read; itself a `Source`.

    Attributes:
      name: in the mix.
      source: what reads it.
      provenance: where its records come from.
      limit: how many of its records are used at most, None for all.
      named: names for its classes, in place of the source's own.
      note: what a user must know of it, such as that another dataset stands in; empty if nothing.
    """

    name: str
    source: Source
    provenance: str
    limit: int | None = None
    named: tuple[str, ...] = ()
    note: str = ""

    @property
    def num_records(self) -> int:
        whole = self.source.num_records
        return whole if self.limit is None else min(whole, self.limit)

    @property
    def spec(self) -> Spec:
        return self.source.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.named or self.source.class_names

    def num_classes(self) -> int:
        """Number of classes: as many as have names, otherwise the largest label and one."""
        return len(self.class_names) or (int(labels.max()) + 1 if len(labels := self.read()["label"]) else 0)

    def in_memory(self) -> MemoryArrays:
        """The same records, read."""
        return MemoryArrays(self.read(), self.provenance, self.class_names)

    def read(self) -> Arrays:
        """See `datamix.sources.base.Source`."""
        try:
            arrays = {leaf: values[: self.num_records] for leaf, values in self.source.read().items()}
        except DatamixError as error:
            raise _named(self.name, error) from error
        labels, known = arrays.get("label"), len(self.class_names)
        if known and labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu" and labels.max() >= known:
            raise DataError(
                f"source {self.name!r}: label {labels.max()} has no name among the {known} class_names; name every "
                f"class in source.{self.name}.class_names."
            )
        return arrays


def open_source(source: SourceConfig, config: Config, memory: Mapping[str, Source | Mapping[str, Any]]) -> OpenSource:
    """Open one source, or its stand-in where it cannot be had and one is allowed; no record is read.

    Args:
      source: of the mix.
      config: of the run.
      memory: the sources given in memory, by name.

    Raises:
      DatamixError: the source cannot be had, or its settings do not fit it.
    """
    if source.name in memory:
        for key in source.settings:
            raise ConfigError(
                f"source.{source.name}.{key}: {source.name} was given in memory and takes no {key}; "
                f"source.{source.name}.limit takes its first records."
            )
        held = memory[source.name]
        given = held if isinstance(held, Source) else MemoryArrays({k: np.asarray(v) for k, v in held.items()})
        return OpenSource(
            name=source.name, source=given, provenance=given.provenance, limit=source.limit, named=source.class_names
        )
    function = registry.lookup("source", source.target)
    takes = registry.settings(function)
    settings = dict(source.settings)
    for key, value in (("data_dir", config.data_dir), ("cache_dir", config.cache_dir)):
        if key in takes and value is not None:
            settings.setdefault(key, value)
    try:
        made = function(**settings)
        made = made if isinstance(made, Source) else MemoryArrays(_checked(source, made), provenance=source.target)
        opened = OpenSource(
            name=source.name, source=made, provenance=made.provenance, limit=source.limit, named=source.class_names
        )
        _ = opened.num_records, opened.spec  # a source may look only now whether its data is there
        return opened
    except Unavailable as error:
        return _stand_in(source, config, error)
    except DatamixError as error:
        raise _named(source.name, error) from error


def _stand_in(source: SourceConfig, config: Config, missing: Unavailable) -> OpenSource:
    """The look-alike of a source that cannot be had, where one is allowed.

    Raises:
      DataError: none is; names the ways out.
    """
    if source.stand_in is None or not config.stand_in:
        way_out = (
            f"leave {source.name} out of source="
            if source.stand_in is None
            else f"set data.stand_in=true to go on with the built-in look-alike {source.stand_in!r}"
        )
        raise DataError(
            f"source {source.name!r}: {missing.tried}. Point data.dir= at a directory that holds it prepared; or pip "
            f"install 'datamix[prepare]' and run once with a network; or {way_out}."
        ) from missing
    split = {key: value for key, value in source.settings.items() if key == "split"}
    note = (
        f"{source.name}: the built-in look-alike {source.stand_in!r} stands in for the real data, which is "
        f"{missing.tried}."
    )
    return OpenSource(
        name=source.name,
        source=registry.lookup("source", source.stand_in)(**split),
        provenance="stand-in",
        limit=source.limit,
        named=source.class_names,
        note=note,
    )


def _checked(source: SourceConfig, made: object) -> Arrays:
    if not isinstance(made, Mapping):
        raise ConfigError(
            f"{source.target} must give a Source, or its records as a dict of arrays; it gave {type(made).__name__}."
        )
    return {str(leaf): np.asarray(values) for leaf, values in made.items()}


def _named(name: str, error: DatamixError) -> DatamixError:
    """The same error, under the name that the source has in the mix."""
    text = re.sub(r"^source '[^']*': ", "", str(error))
    return type(error)(f"source {name!r}: {text}")
