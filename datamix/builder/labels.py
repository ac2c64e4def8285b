"""The labels of a mix, decided once from their declarations and from the labels of the whole datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from datamix.builder.open_source import LabelKind, OpenSource, is_shipped
from datamix.errors import ConfigError, DataError, SpecError, of_source
from datamix.operators.image import cast
from datamix.operators.label import class_label, offset_label, offset_one_hot, one_hot
from datamix.pipeline.graph import Operation
from datamix.sources.mapped import after_read

Numbering: TypeAlias = Literal["union", "keep"]
"""Whether the classes of each source get numbers of their own ("union"), or labels stay as they are ("keep")."""

_LARGEST = 2**31 - 1  # labels are int32
_CHUNK_LABELS = 2**18  # checked at a time, as they may lie in a mapped file


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The meaning of the labels of a mix.

    Attributes:
      kind: What a label is, the same in every source that has labels.
      num_classes: The number of classes of each source, None if it is not known yet; empty if labels are not classes.
      in_floats: The sources whose integer labels are declared as numbers to predict; they become float32, like those
        of the other sources.
      in_parts: The sources whose vectors, with one element per class, become a part of a vector of all classes.
      keeps_unlabelled: Whether any source keeps records without a class.
    """

    kind: LabelKind
    numbering: Numbering
    num_classes: Mapping[str, int | None]
    in_floats: frozenset[str] = frozenset()
    in_parts: frozenset[str] = frozenset()
    keeps_unlabelled: bool = False
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all numbers of classes that the numbering needs are known."""
        return self.numbering == "keep" or None not in self.num_classes.values()

    def offset(self, source: str) -> int | None:
        """The number added to the classes of a source by the numbering; None if it depends on labels not read yet.

        A user's own `offset_label` may take its place; see `datamix.builder.assembly.Assembly.offset`.
        """
        if self.numbering == "keep" or source not in self.num_classes:
            return 0
        counts = list(self.num_classes.values())[: list(self.num_classes).index(source)]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def operators(self, source: OpenSource) -> tuple[Operation, ...]:
        """The operators of a source, with those that number its classes or turn its labels into floats."""
        operators, label = list(source.operators), source.spec.get("label")
        if source.name in self.in_floats:
            return (
                Operation(operator="cast", function=cast, settings={"dtype": "float32", "leaf": "label"}),
                *operators,
            )
        if label is None or source.name not in self.num_classes:
            return source.operators
        first = []
        if not label.shape and np.dtype(label.dtype).kind not in "biu":
            first.append(Operation(operator="class_label", function=class_label))
        if self.numbering == "union":
            offset = {"offset": self.offset(source.name)}
            if source.name in self.in_parts:
                part = offset | {"num_classes": sum(count or 0 for count in self.num_classes.values())}
                index = 0 if label.shape else 1 + next(i for i, each in enumerate(operators) if _makes_one_hot(each))
                operators.insert(index, Operation(operator="offset_one_hot", function=offset_one_hot, settings=part))
            elif not any(map(_is_label_offset, source.operators)):
                settings = offset | ({"keep_negative": True} if self.keeps_unlabelled else {})
                first.append(Operation(operator="offset_label", function=offset_label, settings=settings))
        return (*first, *operators)

    def known_to(self, source: OpenSource) -> OpenSource:
        """The same source with the kind of its labels and its number of classes, against which it checks labels."""
        label: LabelKind = self.kind if "label" in source.spec else "none"
        count = self.num_classes.get(source.name)
        if label == "vector" and not source.spec["label"].shape and source.name in self.num_classes:
            label = "class"  # an operator turns it into a vector
        if label == "class" and count is not None and source.declared_num_classes is None:
            return replace(source, label=label, chosen_num_classes=count)
        return source if source.label == label else replace(source, label=label)


@dataclass(frozen=True, kw_only=True)
class _Values:
    """The properties of the labels of a whole dataset.

    Attributes:
      whole: Whether all labels are whole numbers or NaN.
      num_nan: The number of labels that are NaN.
      smallest: The smallest label that is not negative; None if there is none.
      largest: The largest label; -1 if all are negative.
      lowest: The smallest label if it is negative; otherwise 0.
      one_hot: Whether all labels are vectors of zeros and a single 1.
    """

    whole: bool
    num_nan: int
    smallest: int | None
    largest: int
    lowest: int
    one_hot: bool

    @classmethod
    def of(cls, parts: Iterable[np.ndarray]) -> _Values:
        whole, one_hot_, num_nan, smallest, largest, lowest = True, True, 0, None, -1, 0
        chunks = (part[i : i + _CHUNK_LABELS] for part in parts for i in range(0, max(len(part), 1), _CHUNK_LABELS))
        for chunk in chunks:
            after_read(chunk, len(chunk))
            labels = chunk.astype(np.float32) if chunk.dtype.name == "bfloat16" else chunk
            if labels.ndim > 1:
                is_one_hot = labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
                whole, one_hot_ = False, one_hot_ and bool(is_one_hot)
                continue
            one_hot_ = False
            if labels.dtype.kind == "f":
                missing = np.isnan(labels)
                num_nan += int(missing.sum())
                labels = labels[~missing]
                if not (np.isfinite(labels).all() and (labels == np.floor(labels)).all()):
                    whole = False
                    continue
            if len(labels):
                largest, lowest = max(largest, int(labels.max())), min(lowest, int(labels.min()))
            if len(classes := labels if labels.dtype.kind in "bu" else labels[labels >= 0]):
                smallest = min(int(classes.min()), int(classes.min()) if smallest is None else smallest)
        return cls(whole=whole, num_nan=num_nan, smallest=smallest, largest=largest, lowest=lowest, one_hot=one_hot_)


def decide(
    sources: Sequence[OpenSource], numbering: Numbering, shared: Sequence[Operation] = (), *, complete: bool = False
) -> tuple[list[OpenSource], Labels]:
    """Decide what the labels of a mix are.

    The labels are read only if their declarations do not suffice, and then those of the whole datasets, so that every
    split and slice of a source is numbered alike.

    Args:
      sources: The sources, in order.
      numbering: See `Numbering`.
      shared: The operators on every record, after the mix.
      complete: Whether the number of classes must be known for every source, even if labels have to be read for it.

    Returns:
      The sources, which know the kind of their labels, and the labels of the mix.

    Raises:
      ConfigError: Declarations do not fit the data, or one another.
      DataError: Labels that should be classes are not.
      SpecError: The labels of two sources do not fit together, or there are too many classes.
    """
    search = _Search(sources)
    labelled = [source.name for source in sources if "label" in source.spec]
    for name in labelled:
        search.check_declared(name)
    vectors = [name for name in labelled if search.is_vector(name)]
    scalars = [name for name in labelled if not search.is_vector(name)]
    if vectors:
        labels = _of_vectors(search, vectors, scalars, numbering)
    elif numbers := [name for name in scalars if search.is_number(name)]:
        _check_all_numbers(search, scalars, numbers[0])
        whole = frozenset(filter(search.becomes_float32, scalars)) if search.has_floats(scalars) else frozenset()
        labels = Labels(kind="number", numbering=numbering, num_classes={}, in_floats=whole)
    elif scalars:
        labels = _of_classes(search, scalars, numbering, complete=complete)
    else:
        labels = Labels(kind="none", numbering=numbering, num_classes={})
    keeps = any(search.sources[name].unlabelled == "keep" for name in labels.num_classes)
    labels = replace(labels, keeps_unlabelled=keeps, notes=tuple(search.notes(numbering)))
    if labels.complete and labels.num_classes and numbering == "union":
        _check_total(search, labels, shared)
    return [labels.known_to(source) for source in search.sources.values()], labels


class _Search:
    """The sources of a mix, with the properties of those labels that were read."""

    def __init__(self, sources: Sequence[OpenSource]) -> None:
        self.sources = {source.name: source for source in sources}
        self._values: dict[str, _Values] = {}

    def values(self, name: str) -> _Values:
        """The properties of a source's labels, which are read by the first call."""
        if name not in self._values:
            self.sources[name] = source = self.sources[name].loaded()
            self._values[name] = _Values.of(source.whole_labels())
        return self._values[name]

    def is_vector(self, name: str) -> bool:
        return bool(self.sources[name].spec["label"].shape)

    def is_number(self, name: str) -> bool:
        source = self.sources[name]
        if source.label in ("class", "number"):
            return source.label == "number"
        if np.dtype(source.spec["label"].dtype).kind in "biu" or source.declared_num_classes:
            return False
        return bool(getattr(source.source, "predicts_fractions", False)) or not self._is_whole(name)

    def has_floats(self, names: Iterable[str]) -> bool:
        """Whether the labels of any of these sources are floats."""
        return any(np.dtype(self.sources[name].spec["label"].dtype).kind not in "biu" for name in names)

    def becomes_float32(self, name: str) -> bool:
        """Whether labels are integers declared as numbers to predict, all of which float32 represents exactly."""
        dtype, source = np.dtype(self.sources[name].spec["label"].dtype), self.sources[name]
        if source.label != "number" or dtype.kind not in "biu":
            return False
        return dtype.itemsize < 4 or max(self.values(name).largest, -self.values(name).lowest) <= 2**24

    def _is_whole(self, name: str) -> bool:
        values, source = self.values(name), self.sources[name]
        if values.whole and values.num_nan and source.unlabelled == "refuse":
            mend = f"{source.choice('unlabelled', 'keep')} keeps these records as unlabelled"
            text = f"{values.num_nan:,} of its labels are NaN, and so no class; {mend}, left out of loss and accuracy."
            raise DataError(of_source(name, text))
        return values.whole

    def check_declared(self, name: str) -> None:
        source = self.sources[name]
        _ = source.declared_num_classes
        if source.label not in (None, "none") and (source.label == "vector") != self.is_vector(name):
            what = "a vector" if self.is_vector(name) else "no vector"
            text = f"the leaf label is {source.spec['label']}, which is {what}"
            raise ConfigError(text, key=source.setting("label"), value=source.label)

    def num_classes(self, name: str) -> int:
        source = self.sources[name]
        if (declared := source.declared_num_classes) is not None:
            return declared
        if not self._is_whole(name):
            mend = f"{source.choice('label', 'number')} takes them as numbers to predict"
            raise DataError(of_source(name, f"its labels are not all whole numbers, and so no classes; {mend}."))
        return self.values(name).largest + 1

    def notes(self, numbering: Numbering) -> list[str]:
        notes = [note for source in self.sources.values() for note in source.shape_notes()]
        for name, values in self._values.items():
            if values.whole and values.smallest == 1 and self.sources[name].label not in ("number", "none"):
                kept = "they stay as they are, so that class 0 has no records and its"
                classes = f"{values.largest + 1} classes are 0 to {values.largest}"
                notes.append(of_source(name, f"its labels begin at 1; {kept} {classes}."))
        return notes + (self._moved_classes() if numbering == "keep" else [])

    def _moved_classes(self) -> list[str]:
        """The note, if there is one, that sources number a class of the same name differently."""
        numbers: dict[str, tuple[str, int]] = {}
        for source in self.sources.values():
            for number, name in enumerate(source.class_names):
                first, other = numbers.setdefault(name, (source.name, number))
                if first != source.name and number != other:
                    text = f"under labels=keep class {name!r} is {other} in {first}, but {number} in {source.name}"
                    return [f"{text}; labels=union gives the classes of each source numbers of their own."]
        return []


def _of_classes(search: _Search, names: Sequence[str], numbering: Numbering, *, complete: bool) -> Labels:
    makers = [name for name in names if any(map(_makes_one_hot, search.sources[name].operators))]
    counted = complete or (makers and numbering == "union")
    counts: dict[str, int | None] = {
        name: search.num_classes(name) if counted else search.sources[name].declared_num_classes for name in names
    }
    parts = _parts(search, counts) if makers and numbering == "union" else {}
    for name in names:
        if makers and name not in makers and _stays_as_it_is(search.sources[name]):
            maker = next(each for each in search.sources[makers[0]].operators if _makes_one_hot(each))
            width, of_all = maker.settings["num_classes"], not parts
            raise _class_beside_vector(search, name, makers[0], width, "keep" if of_all else numbering)
    return Labels(kind="class", numbering=numbering, num_classes=counts | parts, in_parts=frozenset(parts))


def _of_vectors(search: _Search, vectors: Sequence[str], scalars: Sequence[str], numbering: Numbering) -> Labels:
    first = search.sources[vectors[0]]
    width = first.spec["label"].shape[0]
    for name in scalars:
        source = search.sources[name]
        if _stays_as_it_is(source) and not any(map(_makes_one_hot, source.operators)):
            raise _class_beside_vector(search, name, first.name, width, numbering)
    names = [name for name in search.sources if name in {*vectors, *scalars}]
    if numbering == "keep" or len(names) == 1:
        declared = {name: search.sources[name].declared_num_classes for name in scalars}
        return Labels(kind="vector", numbering="keep", num_classes=declared)
    shapes = {name: search.sources[name].spec["label"].shape for name in vectors}
    one_hot_vectors = [name for name in vectors if len(shapes[name]) == 1 and search.values(name).one_hot]
    if not one_hot_vectors and not scalars:
        return Labels(kind="vector", numbering=numbering, num_classes={})
    for name in vectors:
        if name not in one_hot_vectors:
            other = next(each for each in names if each != name)
            text = f"sources {name!r} and {other!r} do not fit together under labels=union: the labels of {name} are"
            text += " vectors of other numbers than a single 1, so that they name no class; set labels=keep."
            raise SpecError(text)
    counts = {name: shapes[name][0] if name in shapes else search.num_classes(name) for name in names}
    parts = _parts(search, counts)
    in_parts = frozenset({*shapes, *parts})
    return Labels(kind="vector", numbering=numbering, num_classes=counts | parts, in_parts=in_parts)


def _parts(search: _Search, counts: Mapping[str, int | None]) -> dict[str, int]:
    """The lengths of the vectors that `one_hot` makes of a source's own classes only, not of all classes, by source."""
    total, parts = sum(count or 0 for count in counts.values()), {}
    for name, count in counts.items():
        for each in search.sources[name].operators:
            if _makes_one_hot(each) and len(counts) > 1 and (length := each.settings["num_classes"]) < total:
                if length < (count or 0):
                    mend = f"it is {count}, or {total} for the classes of all sources."
                    text = f"one_hot: num_classes = {length} has no element for all of its {count} classes; {mend}"
                    raise SpecError(of_source(name, text))
                parts[name] = length
    return parts


def _class_beside_vector(search: _Search, name: str, first: str, width: int, numbering: Numbering) -> SpecError:
    source, shape = search.sources[name], search.sources[first].spec["label"].shape
    what = f"an array {list(shape)}" if len(shape) > 1 else f"a vector of {width}"
    text = f"sources {first!r} and {name!r} do not fit together: label is {what} in {first}"
    if len(shape) > 1 or search.is_number(name):
        mend = f"set {source.choice('label', 'none')} and that of {first} as well, or leave one of both out."
        return SpecError(f"{text}, but one number in {name}; {mend}")
    count = search.num_classes(name)
    if numbering == "keep" and count > width:
        mend = f"there are {count} classes in {name}; under labels=union, one_hot: {{num_classes: {count}}} fits."
        return SpecError(f"{text}, but a class number in {name}, and {mend}")
    length = count if numbering == "union" else width
    mend = source.adding([{"one_hot": {"num_classes": length, "leaf": "label"}}])
    other = search.sources[first]
    if other.spec["label"].shape and np.dtype(other.spec["label"].dtype).kind in "biu":
        mend += f", and {other.adding([{'cast': {'dtype': 'float32', 'leaf': 'label'}}])}"
    return SpecError(f"{text}, but a class number in {name}; {mend}.")


def _check_all_numbers(search: _Search, names: Sequence[str], first: str) -> None:
    for source in [search.sources[name] for name in names]:
        if source.label == "class":
            text = f"the labels of {first} are numbers to predict, and so a label is a number in every source"
            mend = f"Leave it out, or set {search.sources[first].choice('label', 'none')} for {first}."
            raise ConfigError(text, key=source.setting("label"), value="class", hint=mend)


def _check_total(search: _Search, labels: Labels, shared: Sequence[Operation]) -> None:
    """Check that every class of the mix has a number in int32, and an element in vectors made after the mix."""
    total = sum(count or 0 for count in labels.num_classes.values())
    for name, count in labels.num_classes.items():
        source, largest = search.sources[name], (count or 0) - 1
        if largest > _LARGEST and np.dtype(source.spec["label"].dtype).itemsize > 4:
            mend = f"number its classes from 0 on, or leave them out: {source.choice('label', 'none')}"
            shown = largest if largest < 2**64 else float(largest)  # floats may be numbers of 300 digits
            raise SpecError(of_source(name, f"label {shown} is beyond int32; {mend}."))
        most = _LARGEST - max(largest, 0)
        for offset in [each.settings["offset"] for each in source.operators if _is_label_offset(each)]:
            if not -_LARGEST <= offset <= most:
                text = f"offset_label: offset = {offset} and its labels up to {largest} are beyond int32"
                raise SpecError(of_source(name, f"{text}; it is at most {most}."))
    if total - 1 > _LARGEST:
        counts = ", ".join(f"{name} {count:,}" for name, count in labels.num_classes.items())
        text = f"the classes of all sources ({counts}) are {total:,}, more than int32 can number"
        raise SpecError(f"{text}; labels=keep leaves labels as they are.")
    for each in shared:
        if _makes_one_hot(each) and labels.kind == "class" and (length := each.settings["num_classes"]) < total:
            text = f"one_hot: num_classes = {length} has no element for all of the {total} classes of the mix"
            raise SpecError(f"{text}; it is {total}, or set labels=keep", key="operators")


def _makes_one_hot(operation: Operation) -> bool:
    return operation.function is one_hot and operation.settings.get("leaf", "label") == "label"


def _stays_as_it_is(source: OpenSource) -> bool:
    """Whether there is no operator of the user's own, which might turn the label into something else."""
    return all(is_shipped(each) for each in source.operators)


def _is_label_offset(operation: Operation) -> bool:
    return operation.operator == "offset_label" and "leaf" not in operation.settings
