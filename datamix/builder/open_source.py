"""An opened source, with the settings that it has in a mix."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias, cast

import numpy as np

from datamix import registry
from datamix.errors import ConfigError, DataError, DatamixError, of_kind, of_source
from datamix.pipeline.graph import Operation, written
from datamix.sources.arrays import ArrayFiles, MemoryArrays
from datamix.sources.base import LabelledSource, Source, read_all, read_leaf, reads_whole
from datamix.sources.objects import as_source
from datamix.sources.selected import Selected
from datamix.sources.sliced import Sliced
from datamix.sources.statistics import LeafStatistics, statistics_of
from datamix.spec import Arrays, LeafSpec, Spec

_CHECKED_BYTES = 2**26  # labels in memory up to this size are checked as a whole, to be used without a copy

# The sources whose setting `leaves` names their leaves; usual names of leaves, and the numbers of axes that they have.
_NAMED = ("arrays", "huggingface", "parquet")
_USUAL: dict[str, tuple[str, tuple[int, ...]]] = {
    "image": ("images img imgs x data picture pictures photo photos pixels pixel_values", (2, 3)),
    "features": ("feature x data inputs", (1,)),
    "label": ("labels target targets y kind class classes category cls", (0,)),
}

LabelKind: TypeAlias = Literal["class", "number", "vector", "none"]
"""What the leaf `label` is: the number of a class, a number to predict, a vector, or "none" to leave it out."""


@dataclass(frozen=True, kw_only=True)
class OpenSource:
    """A source of a mix, opened but not read; itself a `Source`.

    Images of shape [height, width] get a channel axis, and labels of shape [1] become scalars.

    Attributes:
      source: The source that reads its records.
      provenance: Where its records come from, such as "tfds", "arrays" or "stand-in".
      seed: The seed of its shuffle and random operators; None for the seed of the mix.
      limit: How many of its records are used at most; None for all.
      selection: Pairs of a setting that selects records and its value, flat and in JSON's types; empty for all records
        of the dataset's split.
      balance: The leaf by whose values its records are balanced; None for none.
      record_weight: The leaf of weights by which its records are drawn; None for none.
      chosen_names: The names of its classes, in place of the source's own.
      chosen_num_classes: The number of its classes, if it is set.
      label: What its labels are; None if that is not decided yet.
      unlabelled: Whether records whose label is negative or NaN, and so not a class, are refused or kept.
      target: The registered name of the function or class that built it.
      key: The key of its settings in the configuration; empty if they come from Python code.
      placement: Where its records lie: "device" or "host"; "auto" or None if that is not decided yet.
      note: A note that a user must not overlook, such as that a stand-in is used; empty for none.
      loaded_from: The `places` of the source before it was loaded into memory.
      kept: Returns the statistics of its records if they were completed and kept before, else None.
      other_splits: Opens the other splits of its dataset, if the source does not know their labels itself.
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
    def feature_names(self) -> tuple[str, ...]:
        """The columns in the leaf `features`; empty if there are none, or the user's own operators may reorder them."""
        return getattr(self.whole, "feature_names", ()) if all(map(is_shipped, self.operators)) else ()

    @property
    def whole(self) -> Source:
        """The source from which its records are selected."""
        source = self.source
        while isinstance(source, Selected | Sliced):
            source = source.source
        return source

    @cached_property
    def num_tokens(self) -> np.ndarray | None:
        """The number of tokens of each record, int64 [num_records]; None if the source does not know it."""
        if (lengths := getattr(self.whole, "lengths", None)) is None:
            return None
        if self.whole is self.source:
            return np.asarray(lengths()[: self.num_records])
        return read_leaf(self.source, "num_tokens", self.num_records) if "num_tokens" in self.spec else None

    @property
    def tokenizer_digest(self) -> str | None:
        """The digest that identifies the tokenizer of its tokens; None if it is not known."""
        return getattr(self.whole, "tokenizer_digest", None)

    @property
    def column_of(self) -> Mapping[str, str]:
        """The column that a leaf is, by leaf, where the source is a table."""
        columns: Mapping[str, str] = getattr(self.whole, "column_of", {})
        return columns

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on records that are left out, one sentence each."""
        return tuple(getattr(self.source, "notes", ()))

    @property
    def places(self) -> Callable[[np.ndarray], list[str]] | None:
        """A function from record numbers to the file and place of each record; None if the source has none."""
        return self.loaded_from or getattr(self.source, "places", None)

    def statistics(self) -> Mapping[str, LeafStatistics] | None:
        """The statistics of every leaf over all records that are used; None if records would have to be read."""
        known = statistics_of(self.source) if self.num_records == self.source.num_records else None
        if known is None and self.kept is not None:
            known = self.kept()
        return None if known is None else {leaf: known[leaf] for leaf in self.spec}

    @property
    def declared_num_classes(self) -> int | None:
        """The number of classes, if it is known without reading labels; otherwise None."""
        names, number = len(self.chosen_names), self.chosen_num_classes
        if names and number and names != number:
            text = f"there are {names} class_names; leave one of both out, or make them agree"
            raise ConfigError(text, key=self.setting("num_classes"), value=number)
        known = getattr(self.source, "num_classes", None)
        of_source = int(known) if isinstance(known, int | np.integer) and known > 0 else None
        return number or names or len(self.source.class_names) or of_source

    def whole_labels(self) -> list[np.ndarray]:
        """The labels of the whole dataset, of which this may be a part: for each split, an array [records, …]."""
        whole = self.source
        while isinstance(whole, Selected):  # a `Sliced` source knows the labels of the whole itself
            whole = whole.source
        with naming(self.name):
            if isinstance(whole, LabelledSource):
                parts = [whole.whole_labels()]
            else:
                sources = [each for each in (whole, *self.other_splits()) if "label" in each.spec]
                parts = [np.asarray(read_leaf(each, "label")) for each in sources]
        return [*map(_used_labels, parts)]

    def loaded(self) -> Self:
        """The same source with its records in memory, unless they stay on the host or a second reading is cheap."""
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
        """One leaf of all its records, as the source stores it, shape [num_records, *leaf shape]."""
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
        """The arrays that hold the records in memory, by leaf; labels only if all of them are valid."""
        known: Arrays = getattr(self.source, "in_memory", {})
        arrays = {leaf: values[: self.num_records] for leaf, values in known.items()}
        if (labels := arrays.pop("label", None)) is not None and labels.nbytes <= _CHECKED_BYTES:
            labels = _used_labels(labels)
            with suppress(DataError):  # `take` raises it when it meets such a label
                self._check_labels({"label": labels})
                arrays["label"] = labels
        return arrays

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`."""
        stored: Arrays = {}
        for leaf, part in self.source.spec.items():
            if leaf not in out and leaf in self.in_memory:
                continue
            if leaf not in out:  # a label that is left out: label="none"
                stored[leaf] = np.empty((len(indices), *part.shape), part.dtype)
            elif leaf == "label" and part.shape == (1,):
                stored[leaf] = out[leaf][:, np.newaxis]
            else:
                stored[leaf] = out[leaf][..., 0] if len(part.shape) + 2 == out[leaf].ndim else out[leaf]
        with naming(self.name):
            self.source.take(indices, stored)
        self._check_labels(out)

    def setting(self, name: str) -> str:
        """The name of a setting of this source, as the user writes it."""
        return f"{self.key}.{name}" if self.key else f"{name}[{self.name!r}]"

    def choice(self, name: str, value: str) -> str:
        """The text that sets a setting of this source to a value, as the user writes it."""
        return f"{self.key}.{name}={value}" if self.key else f"{name}={{{self.name!r}: {value!r}}}"

    def adding(self, operators: Sequence[object], *, first: bool = False) -> str:
        """The advice to add operators, in the form of YAML, to those of this source."""
        if not self.key:
            return f"add {written(operators)} to {self.setting('operators')}{', as the first' * first}"
        # The command line can only set the whole list.
        present = [{each.operator: dict(each.settings)} if each.settings else each.operator for each in self.operators]
        listed = [*operators, *present] if first else [*present, *operators]
        return f'set "{self.choice("operators", f"[{written(listed)}]")}"'

    def fitting(self, leaf: str, other: object, /) -> str:
        """The advice on settings that make a leaf as long as that of another source; empty if there are none."""
        if not isinstance(other, OpenSource) or not self.key:
            return ""
        shape, wanted = (each.spec[leaf].shape if leaf in each.spec else () for each in (self, other))
        if len(wanted) != 1 or shape == wanted:  # if they are equal, the lengths differ by operators
            return ""
        if leaf in ("positions", "segment_ids", "tokens") and "length" in self.settings:
            return f"set {self.choice('length', str(wanted[0]))}"
        columns, other_columns = (getattr(each.whole, "feature_names", ()) for each in (self, other))
        if leaf != "features" or not columns or not other_columns:
            return ""
        if not (shared := [name for name in other_columns if name in columns]):
            longer, names = max(((other, other_columns), (self, columns)), key=lambda each: len(each[1]))
            few = f"[{written(names[: min(len(columns), len(other_columns))])}]"
            return f'choose as many columns of both, as in "{longer.choice("features", few)}"'
        changed = [source for source, names in ((other, other_columns), (self, columns)) if shared != [*names]]
        choices = [f'"{source.choice("features", f"[{written(shared)}]")}"' for source in changed]
        return f"set {' and '.join(choices)}"

    def calling(self, leaves: Sequence[str], /, kept: Collection[str] = ()) -> str:
        """The advice to call its leaves by other names; empty if it is not clear which are which.

        Args:
          leaves: The names to give.
          kept: Leaves to keep under their names, if they do not get one of `leaves`; all others are left out.
        """
        if self.target not in _NAMED or not self.key or self.settings.get("leaves") or not {*leaves} - self.spec.keys():
            return ""
        columns = {leaf: leaf if leaf in self.spec else self._meant(leaf) for leaf in leaves}
        columns |= {leaf: leaf for leaf in kept if leaf in self.spec and leaf not in columns.values()}
        old = self.spec.keys() - columns.keys()
        used = {each.settings.get("leaf") for each in self.operators}
        used |= {leaf for each in self.operators for leaf in each.settings.get("leaves", ())}
        whole = self.whole
        # Arrays called x_train and x_test are leaves by other names already.
        renamed = isinstance(whole, ArrayFiles) and any(leaf != name for leaf, ((_, name), *_) in whole.where.items())
        if None in columns.values() or used & old or renamed or not all(map(is_shipped, self.operators)):
            return ""
        return f'set "{self.choice("leaves", written([columns]))}"'

    def _meant(self, leaf: str) -> str | None:
        """The leaf of this source that others call `leaf`, by its name and shape; None if none or several may be."""
        names, axes = _USUAL.get(leaf, ("", ()))
        fitting = [
            name
            for name, part in self.spec.items()
            if name not in _USUAL and np.dtype(part.dtype).kind in "biuf" and len(part.shape) in axes
        ]
        usual = [name for name in fitting if name.lower() in names.split()] or fitting
        return usual[0] if len(usual) == 1 else None

    def shape_notes(self) -> list[str]:
        """The notes on shapes that change, and on images whose channels seem to come first; one sentence each."""
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
        """Refuse labels that should be classes, but are negative, not whole, NaN or beyond the number of classes."""
        labels, count = arrays.get("label"), self.declared_num_classes
        if labels is None or labels.ndim != 1 or not len(labels):
            return
        if self.label != "class" and (self.label is not None or not count or labels.dtype.kind not in "iu"):
            return
        self._check_whole(labels)
        if count and (largest := int(labels.max(where=labels >= 0, initial=0))) >= count:  # int: float16 is too coarse
            if names := self.class_names if not self.chosen_num_classes else ():
                text = f"has no name among the {len(names)} class_names; name every class in"
                raise DataError(of_source(self.name, f"label {largest} {text} {self.setting('class_names')}."))
            mend = f"set {self.setting('num_classes')}={largest + 1}"
            text = f"label {largest} is none of the {count} classes from 0 on; {mend}."
            raise DataError(of_source(self.name, text))

    def _check_whole(self, labels: np.ndarray) -> None:
        """Refuse labels that are not whole numbers from 0 on, except unlabelled ones if these are kept."""
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
    """Whether the source has a setting `leaves`."""
    if not source.key or not source.settings:
        return False
    return "leaves" in registry.settings(registry.lookup("source", source.target))


def is_shipped(operation: Operation) -> bool:
    """Whether an operator is one of datamix's own, whose effect on leaves is known."""
    return operation.function.__module__.startswith("datamix.operators.")


def of_python(name: str, data: object) -> Source:
    """Make a source of a Python object, see `as_source`; errors have the name of the source in the mix."""
    with naming(name):
        source = as_source(data)
        _ = source.num_records, source.spec
    return source


def named(name: str, error: DatamixError) -> DatamixError:
    """The same error with the name that the source has in the mix."""
    text = re.sub(r"^source '[^']*': ", "", str(error))
    renamed = cast(DatamixError, of_kind(error.kind, of_source(name, text)))
    renamed.key, renamed.value, renamed.hint = error.key, error.value, error.hint
    return renamed


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name that a source has in the mix into errors raised inside the block."""
    try:
        yield
    except DatamixError as error:
        raise named(name, error) from error


def _used_labels(labels: np.ndarray) -> np.ndarray:
    """The labels in the mix: those of the dataset, in which records of shape [1] become scalars."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _used_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a leaf in the mix, from its shape in the dataset."""
    if leaf == "image" and len(shape) == 2:
        return (*shape, 1)
    return () if leaf == "label" and shape == (1,) else shape
