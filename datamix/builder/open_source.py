"""A source as it takes part in a mix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias, cast

import numpy as np

from datamix import registry
from datamix.errors import ConfigError, DataError, DatamixError, of_kind, of_source
from datamix.pipeline.graph import Operation, written
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import LabelledSource, Source, read_all, read_leaf, reads_whole
from datamix.sources.objects import as_source
from datamix.sources.selected import Selected
from datamix.sources.sliced import Sliced
from datamix.sources.statistics import LeafStatistics, statistics_of
from datamix.spec import Arrays, LeafSpec, Spec

_CHECKED_BYTES = 2**26  # of labels, up to which all of them are checked before they are looked at where they lie

LabelKind: TypeAlias = Literal["class", "number", "vector", "none"]
"""What the leaf `label` is: the number of a class, a number to predict, a vector, or nothing."""


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source of a mix, opened but not read; itself a `Source`.

    Images [height, width] get a channel axis, and a leaf `label` of one number a record, [1], becomes that number.

    Attributes:
      source: What reads its records.
      seed: The seed of its shuffle and random operators, None for the seed of the mix.
      limit: How many of its records are used at most, None for all.
      selection: What its records were selected by, in JSON's types; empty for all records of the dataset's split.
      balance: The leaf by whose values its records are balanced, None for none.
      record_weight: The leaf that its records are drawn in proportion to, None for none.
      chosen_names: Names for its classes, in place of the source's own.
      chosen_num_classes: The number of its classes, where it is chosen and not found out.
      label: What its labels are; None where that is not decided yet.
      unlabelled: Whether records whose label is negative, and so no class, are refused or kept.
      target: The registered name of what built it.
      key: The key of its settings in the configuration; empty where Python code gives them.
      placement: Where its records lie: "device", "host", or "auto" and None where that is not decided yet.
      note: What a user must know of it, such as that another dataset stands in; empty if nothing.
      loaded_from: What said where records lie, of a source that was loaded into memory.
      kept: Gives the statistics of its records that were completed before and kept, if there are any.
      other_splits: Opens the other splits of its dataset, where the source cannot know their labels by itself.
    """

    name: str
    source: Source
    provenance: str
    operators: tuple[Operation, ...] = ()
    seed: int | None = None
    limit: int | None = None
    selection: tuple[object, ...] = ()
    balance: str | None = None
    record_weight: str | None = None
    chosen_names: tuple[str, ...] = ()
    chosen_num_classes: int | None = None
    label: LabelKind | None = None
    unlabelled: Literal["refuse", "keep"] = "refuse"
    target: str = "arrays"
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    placement: Literal["auto", "device", "host"] | None = None
    note: str = ""
    loaded_from: Callable[[np.ndarray], list[str]] | None = None
    kept: Callable[[], Mapping[str, LeafStatistics] | None] | None = None
    other_splits: Callable[[], Sequence[Source]] = tuple

    @property
    def num_records(self) -> int:
        """The number of records that are used."""
        whole = self.source.num_records
        return whole if self.limit is None else min(whole, self.limit)

    @property
    def spec(self) -> Spec:
        """The shape and dtype of each leaf."""
        return {
            leaf: LeafSpec(_used_shape(leaf, part.shape), part.dtype)
            for leaf, part in self.source.spec.items()
            if leaf != "label" or self.label != "none"
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label, by label."""
        return self.chosen_names or self.source.class_names

    @property
    def whole(self) -> Source:
        """The source that its records are selected from."""
        source = self.source
        while isinstance(source, Selected | Sliced):
            source = source.source
        return source

    @cached_property
    def num_tokens(self) -> np.ndarray | None:
        """The tokens of each record, int64 [num_records], where the source knows them without reading any."""
        if (lengths := getattr(self.whole, "lengths", None)) is None:
            return None
        if self.whole is self.source:
            return np.asarray(lengths()[: self.num_records])
        return read_leaf(self.source, "num_tokens", self.num_records) if "num_tokens" in self.spec else None

    @property
    def tokenizer_digest(self) -> str | None:
        """What tells the tokenizer of its tokens from all others, where it is known."""
        return getattr(self.whole, "tokenizer_digest", None)

    @property
    def column_of(self) -> Mapping[str, str]:
        """The column that a leaf is, by leaf, where the source is a table."""
        columns: Mapping[str, str] = getattr(self.whole, "column_of", {})
        return columns

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on what is left out of its records, a sentence each."""
        return tuple(getattr(self.source, "notes", ()))

    @property
    def places(self) -> Callable[[np.ndarray], list[str]] | None:
        """What says of some records in which file each lies and where in it; None where the source does not."""
        return self.loaded_from or getattr(self.source, "places", None)

    def statistics(self) -> Mapping[str, LeafStatistics] | None:
        """The statistics of every leaf over all records that are used, where they are known without reading these."""
        known = statistics_of(self.source) if self.num_records == self.source.num_records else None
        if known is None and self.kept is not None:
            known = self.kept()
        return None if known is None else {leaf: known[leaf] for leaf in self.spec}

    @property
    def declared_num_classes(self) -> int | None:
        """The number of classes as far as it is known without a look at the labels; None where it is not."""
        names, number = len(self.chosen_names), self.chosen_num_classes
        if names and number and names != number:
            text = f"there are {names} class_names; leave one of both out, or make them agree"
            raise ConfigError(text, key=self.setting("num_classes"), value=number)
        known = getattr(self.source, "num_classes", None)
        of_source = int(known) if isinstance(known, int | np.integer) and known > 0 else None
        return number or names or len(self.source.class_names) or of_source

    def whole_labels(self) -> list[np.ndarray]:
        """The labels of the whole dataset, of which this may be a part: an array [records, …] for each split."""
        whole = self.source
        while isinstance(whole, Selected):  # what is `Sliced` knows them itself
            whole = whole.source
        with naming(self.name):
            if isinstance(whole, LabelledSource):
                parts = [whole.whole_labels()]
            else:
                sources = [each for each in (whole, *self.other_splits()) if "label" in each.spec]
                parts = [np.asarray(read_leaf(each, "label")) for each in sources]
        return [*map(_used_labels, parts)]

    def loaded(self) -> Self:
        """The same, with its records in memory where a second reading would take long, and they are to lie there."""
        if self.placement == "host" or isinstance(self.source, LabelledSource | MemoryArrays | Selected):
            return self
        with naming(self.name):
            arrays = read_all(self.source)
        source = MemoryArrays(arrays, self.provenance, self.class_names)
        return replace(self, source=source, loaded_from=self.places)

    @property
    def reads_whole(self) -> bool:
        """Whether all records are read at once."""
        return reads_whole(self.source)

    def read_leaf(self, leaf: str) -> np.ndarray:
        """One leaf of all its records, as it lies in the source, shape [num_records, *leaf shape]."""
        with naming(self.name):
            return read_leaf(self.source, leaf, self.num_records)

    def read(self) -> Arrays:
        """See `datamix.sources.base.ReadableSource`."""
        with naming(self.name):
            stored = read_all(self.source, self.num_records)
        arrays = {}
        for leaf, part in self.spec.items():
            values = stored[leaf]
            same = self.source.spec[leaf].shape == part.shape
            arrays[leaf] = values if same else values.reshape(len(values), *part.shape)
        self._check_labels(arrays)
        return arrays

    @cached_property
    def in_memory(self) -> Arrays:
        """The arrays in which records lie, by leaf; of labels, such as are all what they should be."""
        known: Arrays = getattr(self.source, "in_memory", {})
        arrays = {leaf: values[: self.num_records] for leaf, values in known.items()}
        if (labels := arrays.pop("label", None)) is not None and labels.nbytes <= _CHECKED_BYTES:
            labels = _used_labels(labels)
            with suppress(DataError):  # which is told when such a label is taken
                self._check_labels({"label": labels})
                arrays["label"] = labels
        return arrays

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        stored: Arrays = {}
        for leaf, part in self.source.spec.items():
            if leaf not in out and leaf in self.in_memory:
                continue
            if leaf not in out:  # a label that is none
                stored[leaf] = np.empty((len(indices), *part.shape), part.dtype)
            elif leaf == "label" and part.shape == (1,):
                stored[leaf] = out[leaf][:, np.newaxis]
            else:
                stored[leaf] = out[leaf][..., 0] if len(part.shape) + 2 == out[leaf].ndim else out[leaf]
        with naming(self.name):
            self.source.take(indices, stored)
        self._check_labels(out)

    def setting(self, name: str) -> str:
        """The name of a setting of this source where the user gives it."""
        return f"{self.key}.{name}" if self.key else f"{name}[{self.name!r}]"

    def choice(self, name: str, value: str) -> str:
        """The text by which a user gives a setting of this source a value."""
        return f"{self.key}.{name}={value}" if self.key else f"{name}={{{self.name!r}: {value!r}}}"

    def adding(self, operators: Sequence[object], *, first: bool = False) -> str:
        """The text that tells a user to add operators, as YAML has them, to those of this source."""
        if not self.key:
            return f"add {written(operators)} to {self.setting('operators')}{', as the first' * first}"
        # All of them, as the command line sets a list as a whole.
        present = [{each.operator: dict(each.settings)} if each.settings else each.operator for each in self.operators]
        listed = [*operators, *present] if first else [*present, *operators]
        return f'set "{self.choice("operators", f"[{written(listed)}]")}"'

    def fitting(self, leaf: str, other: object, /) -> str:
        """The text that tells a user how settings make a leaf as long as another source's; empty where none do."""
        if not isinstance(other, OpenSource) or not self.key:
            return ""
        shape, wanted = (each.spec[leaf].shape if leaf in each.spec else () for each in (self, other))
        if len(wanted) != 1 or shape == wanted:  # operators make the difference
            return ""
        if leaf in ("positions", "segment_ids", "tokens") and "length" in self.settings:
            return f"set {self.choice('length', str(wanted[0]))}"
        columns, others = (getattr(each.whole, "feature_names", ()) for each in (self, other))
        if leaf != "features" or not (shared := [name for name in others if name in columns]):
            return ""
        changed = [each for each, names in ((other, others), (self, columns)) if shared != [*names]]
        choices = [f'"{each.choice("features", f"[{written(shared)}]")}"' for each in changed]
        return f"set {' and '.join(choices)}"

    def shape_notes(self) -> list[str]:
        """The notes on changes in the shapes of leaves, a sentence each."""
        notes = []
        for leaf, part in self.source.spec.items():
            used = _used_shape(leaf, part.shape)
            if used != part.shape and (leaf != "label" or self.label != "none"):
                what = "get a channel axis" if leaf == "image" else "lose their axis of length 1"
                notes.append(of_source(self.name, f"{leaf}s {list(part.shape)} {what}, and are {list(used)}."))
            unmoved = all(is_shipped(each) and each.operator != "channels_last" for each in self.operators)
            if leaf == "image" and part.has_channels_first and unmoved:
                text = f"images {list(part.shape)} seem to have their channels first, and stay so; operators on images "
                text += "and models take them last, as the operator channels_last makes them."
                notes.append(of_source(self.name, text))
        return notes

    def _check_labels(self, arrays: Arrays) -> None:
        """Refuse labels that are to be classes and are negative, not whole, NaN or beyond the number of classes."""
        labels, count = arrays.get("label"), self.declared_num_classes
        if labels is None or labels.ndim != 1 or not len(labels):
            return
        if self.label != "class" and (self.label is not None or not count or labels.dtype.kind not in "iu"):
            return
        self._check_whole(labels)
        if count and (largest := int(labels.max(where=labels >= 0, initial=0))) >= count:  # as int: float16 has few
            if names := self.class_names if not self.chosen_num_classes else ():
                text = f"has no name among the {len(names)} class_names; name every class in"
                raise DataError(of_source(self.name, f"label {largest} {text} {self.setting('class_names')}."))
            mend = f"set {self.setting('num_classes')}={largest + 1}"
            text = f"label {largest} is none of the {count} classes from 0 on; {mend}."
            raise DataError(of_source(self.name, text))

    def _check_whole(self, labels: np.ndarray) -> None:
        """Refuse labels that are no whole numbers from 0 on, but for those that may be unlabelled."""
        if labels.dtype.kind == "f":
            finite = labels[np.isfinite(labels)]
            if (broken := finite != np.floor(finite)).any() or np.isinf(labels).any():
                value = finite[broken][0] if broken.any() else np.inf
                mend = f"{self.choice('label', 'number')} takes labels as numbers to predict."
                text = f"label {value:g} is no class, which is a whole number; {mend}"
                raise DataError(of_source(self.name, text))
        elif labels.dtype.kind not in "i":
            return
        lacking = labels < 0 if labels.dtype.kind == "i" else (labels < 0) | np.isnan(labels)
        if self.unlabelled == "refuse" and (count := int(lacking.sum())):
            example = f"{labels[lacking][0]:g}".replace("nan", "NaN")
            mend = (
                f"{self.choice('unlabelled', 'keep')} keeps these records as unlabelled, left out of loss and accuracy."
            )
            text = f"{count:,} of {len(labels):,} labels are no class, such as {example}; {mend}"
            raise DataError(of_source(self.name, text))


def takes_leaves(source: OpenSource) -> bool:
    """Whether what built a source has the setting `leaves`."""
    if not source.key or not source.settings:
        return False
    return "leaves" in registry.settings(registry.lookup("source", source.target))


def is_shipped(operation: Operation) -> bool:
    """Whether an operator is one of datamix's own, so that it is known what it does to which leaf."""
    return operation.function.__module__.startswith("datamix.operators.")


def of_python(name: str, data: object) -> Source:
    """The source that something made in Python is, see `as_source`; a mistake is told under its name in the mix."""
    with naming(name):
        source = as_source(data)
        _ = source.num_records, source.spec
    return source


def named(name: str, error: DatamixError) -> DatamixError:
    """The same error, under the name that the source has in the mix."""
    text = re.sub(r"^source '[^']*': ", "", str(error))
    renamed = cast(DatamixError, of_kind(error.kind, of_source(name, text)))
    renamed.key, renamed.value, renamed.hint = error.key, error.value, error.hint
    return renamed


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name that a source has in the mix into the errors that are raised inside."""
    try:
        yield
    except DatamixError as error:
        raise named(name, error) from error


def _used_labels(labels: np.ndarray) -> np.ndarray:
    """Labels in the mix, by those of the dataset: one number a record, [1], becomes that number."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _used_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a leaf in the mix, by its shape in the dataset."""
    if leaf == "image" and len(shape) == 2:
        return (*shape, 1)
    return () if leaf == "label" and shape == (1,) else shape
