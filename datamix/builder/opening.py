"""Open a source from its configuration, through the registry; or its stand-in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from datamix import registry
from datamix.builder.open_source import OpenSource, named
from datamix.builder.selecting import select
from datamix.config.schema import OperatorConfig, SourceConfig
from datamix.errors import ConfigError, DataError, DatamixError, expanded, of_source, prepare_hint, read_error
from datamix.pipeline.graph import Operation
from datamix.sources.base import Source, Unavailable
from datamix.sources.objects import as_source
from datamix.sources.selected import stepped
from datamix.sources.sliced import sliced
from datamix.sources.splits import steps_of


@dataclass(frozen=True, kw_only=True)
class Locations:
    """The places where the data of sources is searched.

    Attributes:
      memory: Sources made in Python, by name.
      data_dir: The directory of prepared TFDS datasets; None for TFDS's default.
      cache_dir: The directory of decoded records; None for the default.
      stand_in: Whether a built-in dataset may stand in for one that is not available.
    """

    memory: Mapping[str, Any] = field(default_factory=dict)
    data_dir: str | None = None
    cache_dir: str | None = None
    stand_in: bool = False


def open_source(source: SourceConfig, locations: Locations) -> OpenSource:
    """Open one source; if it is not available and stand-ins are allowed, open its stand-in."""
    opened = select(_open_split(source, locations), records=source.records, condition=source.where)
    if source.name in locations.memory:
        return opened
    from datamix.builder.statistics_cache import KeptStatistics

    return replace(opened, kept=KeptStatistics(source, opened.source, opened.num_records, locations.cache_dir).read)


def _open_split(source: SourceConfig, locations: Locations) -> OpenSource:
    """Open a source with the records of its split; steps in slices are applied here if the source knows none."""
    split = source.settings.get("split")
    if not isinstance(split, str) or split.count(":") < 2:
        return _open_whole(source, locations)
    parts = steps_of(split, where=f"source.{source.name}.split")

    def open_slices(text: str) -> OpenSource:
        return _open_whole(replace(source, settings={**source.settings, "split": text}), locations)

    whole = open_slices("+".join(part for part, _ in parts))
    if all(step == 1 for _, step in parts):
        return replace(whole, settings=source.settings)
    if getattr(whole.source, "takes_steps", False):
        return open_slices(split)
    alone = len(parts) == 1
    steps = [((whole if alone else open_slices(part)).source.num_records, step) for part, step in parts]
    return replace(whole, source=stepped(whole.source, steps), settings=source.settings)


def _open_whole(source: SourceConfig, locations: Locations) -> OpenSource:
    """Open a source, or its stand-in, with all records of a split that has no steps."""
    if source.name in locations.memory:
        for key in source.settings.keys() - {"split"}:
            mend = f"source.{source.name}.split and source.{source.name}.limit take some of its records"
            text = f"{source.name} was made in Python and takes no {key}; {mend}"
            raise ConfigError(text, key=f"source.{source.name}.{key}")
    try:
        split = source.settings.get("split")
        if source.name in locations.memory:
            whole = as_source(locations.memory[source.name])
            return _open(source, whole if split is None else sliced(whole, split))
        function = registry.lookup("source", source.target)
        parameters = registry.settings(function)
        settings = dict(source.settings)
        if split is not None and "split" not in parameters:
            del settings["split"]
        places = (("data_dir", locations.data_dir), ("cache_dir", locations.cache_dir), ("source_name", source.name))
        for key, value in places:
            if key in parameters and value is not None:
                settings.setdefault(key, value)
        whole = as_source(function(**settings), provenance=source.target)
        if "split" not in parameters:
            return _open(source, whole if split is None else sliced(whole, split))
        opened = _open(source, whole)
        splits = [name for name in _splits(source, parameters["split"].default) if name != settings.get("split")]
        return replace(opened, other_splits=partial(_other_splits, function, settings, splits))
    except Unavailable as error:
        return _stand_in(source, locations, error)
    except DatamixError as error:
        raise named(source.name, error) from error


def _splits(source: SourceConfig, default: object) -> Iterator[str]:
    """The names of splits, without slices, that a dataset is likely to have."""
    texts = [source.settings.get("split"), default, source.test_split or "test"]
    for text in texts:
        if isinstance(text, str):
            yield from (part.partition("[")[0].strip() for part in text.split("+"))


def _other_splits(function: Callable[..., Any], settings: Mapping[str, Any], splits: Sequence[str]) -> list[Source]:
    """Open those of some splits that a dataset has."""
    opened = []
    for split in dict.fromkeys(splits):
        # A user's dataset may raise any error for a split that it does not have; such a split has no labels.
        with contextlib.suppress(DatamixError, LookupError, ValueError, OSError):
            source = as_source(function(**{**settings, "split": split}))
            _ = source.num_records, source.spec
            opened.append(source)
    return opened


def check_data_dir(data_dir: str | None) -> None:
    """Refuse a directory of prepared datasets that does not exist."""
    if data_dir is None:
        return
    with read_error(data_dir):
        is_folder = (path := expanded(data_dir)).is_dir()
    if not is_folder:
        text = f"there is no such directory (looked for it at {path.absolute()}); name one that holds prepared datasets"
        text += ", or make it first if they are to be downloaded into it"
        raise DataError(text, key="data.dir", value=data_dir)


def operations(operators: Sequence[OperatorConfig]) -> tuple[Operation, ...]:
    """The operators of a configuration, looked up in the registry."""
    return tuple(
        Operation(operator=each.name, function=registry.lookup("operator", each.name), settings=each.settings)
        for each in operators
    )


def _open(config: SourceConfig, source: Source, provenance: str | None = None, note: str = "") -> OpenSource:
    _ = source.num_records, source.spec  # a source may check only now whether its data is there
    return OpenSource(
        **shared(OpenSource, config, but=("operators",)),
        source=source,
        provenance=provenance or source.provenance,
        operators=operations(config.operators),
        chosen_names=config.class_names,
        chosen_num_classes=config.num_classes,
        key=f"source.{config.name}",
        note=note,
    )


def shared(kind: type, config: object, but: Collection[str] = ()) -> dict[str, Any]:
    """The values of the fields of a dataclass that a configuration has under the same names, except those in `but`."""
    names = [field.name for field in fields(kind) if field.name not in but]
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _stand_in(source: SourceConfig, locations: Locations, missing: Unavailable) -> OpenSource:
    stand_in = f"the built-in stand-in {source.stand_in!r}"
    if source.stand_in is None or not locations.stand_in:
        instead = f"leave {source.name} out of source="
        if source.stand_in is not None:
            instead = f"set data.stand_in=true to go on with {stand_in}"
        mend = f"Point data.dir= at a directory that holds it prepared; or {prepare_hint()}; or {instead}."
        text = f"{missing.tried}. {mend}"
        raise DataError(of_source(source.name, text)) from missing
    split = {key: value for key, value in source.settings.items() if key == "split"}
    note = f"{source.name}: {stand_in} takes the place of the real data, which is {missing.tried}."
    return _open(source, registry.lookup("source", source.stand_in)(**split), "stand-in", note)
