"""The settings that select the records of a source, or say how they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datamix.builder.open_source import OpenSource, named, naming
from datamix.errors import ConfigError, DataError, DatamixError, hint
from datamix.mixing.sampling import ByClass, ByWeight, Sampling
from datamix.rng.hash import key_for
from datamix.rng.permute import domain, permute
from datamix.sources.base import read_leaf
from datamix.sources.selected import Selected, records_of, where


def select(source: OpenSource, *, records: str | np.ndarray | None = None, condition: str | None = None) -> OpenSource:
    """The same source with only some of its records.

    Args:
      source: The source.
      records: The numbers of the records, or an `.npy` file of them; None for all.
      condition: A condition that they must meet in addition; None for none.

    Raises:
      DatamixError: The numbers or the condition do not fit the source.
    """
    inner, selection = source.source, source.selection
    try:
        if records is not None:
            inner = selected = records_of(inner, records, source.setting("records"))
            selection += ("records", hashlib.blake2b(selected.indices.tobytes(), digest_size=8).hexdigest())
        if condition is not None:
            inner = where(inner, condition, source.setting("where"))
            selection += ("where", condition)
    except DatamixError as error:
        raise error if error.key else named(source.name, error) from error
    return replace(source, source=inner, selection=selection)


def simulate(sources: Sequence[OpenSource], budget: int | None, simulated: int) -> list[OpenSource]:
    """A part of each source, of a size that this run repeats as often as a larger run would repeat the whole source.

    The draw depends only on the name of the source, so that runs of all seeds use the same records.

    Args:
      sources: The sources.
      budget: The number of records that this run goes through; None if no setting says it.
      simulated: The number of records that the larger run would go through.

    Raises:
      ConfigError: There is no budget, it is larger than `simulated`, or a source would be left without records.
    """
    key = "mix.simulate_budget"
    if budget is None:
        text = "it needs a budget of records of this run, too; set train.steps, stop.samples or stop.batches"
        raise ConfigError(text, key=key, value=simulated)
    if budget > simulated:
        raise ConfigError(f"this run goes through {budget:,} records, which is more", key=key, value=simulated)
    parts = []
    for source in sources:
        size = source.num_records
        count = round(size * budget / simulated)
        if size and not count:
            text = f"of the {size:,} records of source {source.name!r}, {size * budget / simulated:.2g} would be left"
            raise ConfigError(text, key=key, value=simulated, hint="Let this run go through more records.")
        first, second = np.array(key_for(0, "simulate", source.name), np.uint32)[:, np.newaxis]
        indices = permute(np.arange(count, dtype=np.uint32), domain([max(size, 1)]), (first, second))
        note = f"{count:,} of its {size:,} records take part: the run repeats them as often as one of {simulated:,} "
        part = Selected(source.source, np.sort(indices).astype(np.int64), f"{note}records would repeat them all.")
        selection = (*source.selection, "simulate_budget", [budget, simulated])
        parts.append(replace(source, source=part, limit=None, selection=selection, kept=None))
    return parts


def sampling_of(source: OpenSource) -> Sampling | None:
    """How the records of a source are drawn; None if each epoch goes through all of them."""
    if source.balance is None and source.record_weight is None:
        return None
    if source.balance is not None and source.record_weight is not None:
        text = "a source is drawn by weight, or balanced; leave one of both out"
        raise ConfigError(text, key=source.setting("record_weight"), value=source.record_weight)
    if source.record_weight is not None:
        key, leaf = source.setting("record_weight"), source.record_weight
        try:
            return ByWeight.of(_column(source, leaf, key))
        except ConfigError as error:
            if error.key:
                raise
            raise DataError(f"as {error}", key=key, value=leaf) from error
    assert source.balance is not None
    key, leaf = source.setting("balance"), source.balance
    values = _column(source, leaf, key)
    if values.dtype.kind not in "biu" and (broken := values != np.floor(values)).any():
        example = f"{values[broken][0]:g}".replace("nan", "NaN")
        raise DataError(f"its values are no classes, which are whole numbers, such as {example}", key=key, value=leaf)
    if leaf == "label" and (lacking := int((values < 0).sum())):
        text = f"{lacking:,} of {len(values):,} records have a negative label, and so no class"
        mend = f"{source.choice('where', 'label >= 0')} leaves them out."
        raise DataError(text, key=key, value=leaf, hint=mend)
    return ByClass.of(values)


def _column(source: OpenSource, leaf: str, key: str) -> np.ndarray:
    """A leaf with one number per record, shape [num_records], of the records that are used."""
    spec = source.source.spec
    if leaf not in spec or spec[leaf].shape not in ((), (1,)):
        scalars = [name for name, part in spec.items() if part.shape in ((), (1,))]
        what = f"it is {spec[leaf]}, and no single number a record" if leaf in spec else "there is no such leaf"
        raise ConfigError(what, key=key, value=leaf, hint=hint(leaf, scalars))
    with naming(source.name):
        return read_leaf(source.source, leaf, source.num_records).reshape(-1)
