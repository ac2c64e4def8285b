"""Views of a mix: the same sources and preparation with other records, for evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from datamix.builder.assembly import Assembly, assemble
from datamix.builder.built import Built
from datamix.builder.open_source import OpenSource, of_python
from datamix.builder.opening import Locations, open_source
from datamix.config.schema import SourceConfig
from datamix.errors import ConfigError, DataError, DatamixError
from datamix.mixing.plan_spec import PlanSpec
from datamix.operators.base import traits
from datamix.pipeline.graph import Operation
from datamix.pipeline.pipeline import Pipeline


def held_out(source: SourceConfig, locations: Locations, split: str = "test") -> OpenSource:
    """Open a source with the records of another split; for "test", that is its `test_split` if it is set.

    Raises:
      ConfigError: The source has no such split.
      DataError: There are no records in the split.
    """
    try:
        opened = open_source(of_split(source, split), locations)
    except ConfigError as error:
        if split != "test" or source.test_split is not None or error.key != "split":  # the advice below does not apply
            raise
        other = _for_validation(source, locations)
        choice = f"set source.{source.name}.test_split={other}, or " if other else ""
        text = f"source {source.name!r} has no split {split!r} to be tested on; {choice}hold some of its records out"
        raise ConfigError(f"{text}: {holding_out(source.name)}.") from error
    if not opened.num_records:
        if split == "test" and source.test_split is not None:
            key = f"source.{source.name}.test_split"
            raise DataError("it holds no records", key=key, value=source.test_split, hint="Choose others.")
        raise DataError(f"source {source.name!r}: there are no records in its split {split!r} to be tested on.")
    return opened


def _for_validation(source: SourceConfig, locations: Locations) -> str | None:
    """The validation split of a dataset, if it has one that is not trained on; otherwise None."""
    for split in ("validation", "val", "valid", "dev"):
        if not re.search(rf"\b(all|{split})\b", source.settings.get("split", "")):
            with suppress(DatamixError):
                if open_source(of_split(source, split), locations).num_records:
                    return split
    return None


def holding_out(name: str) -> str:
    """The overrides that hold out every fourth record of a source.

    Not the last quarter, since folders of images and many files are ordered by class.
    """
    key = f"source.{name}"
    return f"{key}.split=train[1::4]+train[2::4]+train[3::4] {key}.test_split=train[::4]"


def of_split(source: SourceConfig, split: str = "test") -> SourceConfig:
    """The configuration of a source with the records of another split; see `held_out`."""
    # `where` applies to test records, too; limit, records, balance and record_weight only to records to train on.
    test_split = source.test_split if split == "test" else None
    settings = {**source.settings, "split": test_split or split}
    return replace(source, settings=settings, limit=None, records=None, balance=None, record_weight=None)


def viewed(
    mix: Assembly,
    sources: Sequence[OpenSource],
    *,
    shuffle: bool | str = "none",
    random: bool = False,
    batch_size: int | None = None,
) -> Assembly:
    """All records of some sources once, one source after the other, prepared as in a mix; see `Pipeline.view`.

    Args:
      mix: The mix, whose labels are complete.
      sources: The sources of the mix, or other splits of them.
      shuffle: How records are shuffled within their source.
      random: Whether random operators are kept.
      batch_size: The number of records in a batch; None for that of the mix.
    """

    def chosen(operators: Sequence[Operation]) -> tuple[Operation, ...]:
        return tuple(each for each in operators if random or not traits(each.function).random)

    return assemble(
        [replace(each, operators=chosen(each.operators), balance=None, record_weight=None) for each in sources],
        PlanSpec(
            order="concat",
            stop="exhaust_once",
            seed=mix.seed if random or shuffle not in ("none", False) else 0,  # unused where nothing is drawn
            shuffle=shuffle,
            batch_size=batch_size or mix.batch_size,
        ),
        replace(mix.delivery, remainder="keep", shuffle_rows=False, skip=()),
        operators=chosen(mix.operators),
        labels=mix.labels.numbering,
        labels_like=mix.labels,
    )


def view(
    mix: Assembly,
    pipeline: Pipeline,
    split: str | Mapping[str, Any] | None,
    *,
    shuffle: bool | str,
    random: bool,
) -> Pipeline:
    """The pipeline of a view; see `Pipeline.view`."""
    if split is None:
        assembly = viewed(mix, list(mix.sources.values()), shuffle=shuffle, random=random)
        return assembly.pipeline(pipeline.reader, pipeline.statistics)
    if isinstance(split, Mapping):
        if differing := sorted(split.keys() ^ mix.sources.keys()):
            text = f"it has other records of each of {', '.join(mix.sources)}, and of no others"
            raise ConfigError(text, key="split", hint=f"Add or leave out {', '.join(map(repr, differing))}.")
        sources = [_of_others(source, split[name]) for name, source in mix.sources.items()]
    elif isinstance(mix, Built):
        sources = [held_out(source, mix.locations, split) for source in mix.config.sources]
    else:
        text = "sources that are Python objects have no splits"
        mend = (
            f"Give other records themselves, as in view({{{next(iter(mix.sources))!r}: …}}), or None for the mix's own."
        )
        raise ConfigError(text, key="split", value=split, hint=mend)
    return viewed(mix, sources, shuffle=shuffle, random=random).pipeline()


def _of_others(source: OpenSource, data: object) -> OpenSource:
    """The same source with other records, which are a Python object."""
    other = of_python(source.name, data)
    unset: dict[str, Any] = {"limit": None, "selection": (), "note": "", "loaded_from": None, "kept": None}
    return replace(source, source=other, provenance=other.provenance, other_splits=tuple, **unset)
