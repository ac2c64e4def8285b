"""The settings by which records of a source are selected, or drawn."""

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
    """The same source with the records of some numbers, or of a file of these, and of them those of a condition."""
    inner, selection = source.source, source.selection
    try:
        if records is not None:
            inner = some = records_of(inner, records, source.setting("records"))
            selection += ("records", hashlib.blake2b(some.indices.tobytes(), digest_size=8).hexdigest())
        if condition is not None:
            inner = where(inner, condition, source.setting("where"))
            selection += ("where", condition)
    except DatamixError as error:
        raise error if error.key else named(source.name, error) from error
    return replace(source, source=inner, selection=selection)


def simulate(sources: Sequence[OpenSource], budget: int | None, simulated: int) -> list[OpenSource]:
    """A part of each source, which a run repeats as often as a larger one would repeat the whole of it.

    The records are drawn by the name of the source alone, so that runs of all seeds share them.

    Args:
      budget: The records that the run goes through.
      simulated: The records that the larger one would.
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
        drawn = permute(np.arange(count, dtype=np.uint32), domain([max(size, 1)]), (first, second))
        note = f"{count:,} of its {size:,} records take part: the run repeats them as often as one of {simulated:,} "
        some = Selected(source.source, np.sort(drawn).astype(np.int64), f"{note}records would repeat them all.")
        selection = (*source.selection, "simulate_budget", [budget, simulated])
        parts.append(replace(source, source=some, limit=None, selection=selection, kept=None))
    return parts


def sampling_of(source: OpenSource) -> Sampling | None:
    """How the records of a source are drawn; None where they are gone through one after the other."""
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
    """One number of each record that is used, [num_records]."""
    spec = source.source.spec
    if leaf not in spec or spec[leaf].shape not in ((), (1,)):
        scalars = [name for name, part in spec.items() if part.shape in ((), (1,))]
        what = f"it is {spec[leaf]}, and no single number a record" if leaf in spec else "there is no such leaf"
        raise ConfigError(what, key=key, value=leaf, hint=hint(leaf, scalars))
    with naming(source.name):
        return read_leaf(source.source, leaf, source.num_records).reshape(-1)
