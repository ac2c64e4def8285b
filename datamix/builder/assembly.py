"""Assemble opened sources, operators and the settings of a mix into a plan, a graph and a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from datamix import registry
from datamix.builder.adapt_settings import adapt_of
from datamix.builder.labels import Labels, Numbering, decide
from datamix.builder.open_source import OpenSource, is_shipped, takes_leaves
from datamix.builder.placement import Choice, placed
from datamix.builder.selecting import sampling_of
from datamix.builder.value_checks import check_largest, notes_on_casts, notes_on_scale, notes_on_values
from datamix.errors import ConfigError, DataError, SpecError, hint, of_source
from datamix.fingerprint import digest, settings_of
from datamix.mixing.loss_weights import loss_weights
from datamix.mixing.plan import Plan
from datamix.mixing.plan_spec import PlanSpec
from datamix.mixing.shuffle import parse_shuffle
from datamix.operators.label import tag_loss_weight, tag_source
from datamix.pipeline.batching import Remainder, num_batches, parse_skip
from datamix.pipeline.graph import Graph, Operation, written
from datamix.pipeline.lowering import check_specs
from datamix.pipeline.state import identities
from datamix.sources.statistics import Statistics
from datamix.spec import LeafSpec

if TYPE_CHECKING:
    from datamix.pipeline.adapt import Adapt
    from datamix.pipeline.pipeline import Pipeline, Placement
    from datamix.pipeline.readers.base import Reader

_MOST_SHOWN = 10  # columns of a table


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How the records of a mix are read and handed out.

    Attributes:
      remainder: "drop" or "keep" the records at the end of the mix that do not fill a batch.
      shuffle_rows: Whether the rows of each batch are permuted.
      skip: The steps that iterators leave out; see `parse_skip`.
      placement: Where the records of sources lie; see `datamix.builder.placement.placed`.
      device_bytes: The limit on the bytes of records on the device under "auto"; None for the default.
      prefetch_bytes: The limit on the bytes of records read ahead on the host; None for the default.
      threads: The number of threads that read on the host; None for the default.
    """

    remainder: Remainder = "drop"
    shuffle_rows: bool = False
    skip: Any = ()
    placement: Choice = "auto"
    device_bytes: int | None = None
    prefetch_bytes: int | None = None
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A mix with its plan and graph, before its data is read.

    Attributes:
      operators: The operators on every record, after the mix.
      labels: The meaning of the labels, as far as it is known before the data is read.
      seed: The seed of all random draws, except those of sources that have their own.
      delivery: How the records are read and handed out; its `skip` is parsed.
      identity: The settings that determine the sequence, by key, without the location of the data.
      loss_weight: The weights of the sources in the loss, by name; empty for none.
      adapt: How the weights follow training; None if they do not.
    """

    sources: Mapping[str, OpenSource]
    operators: Sequence[Operation]
    labels: Labels
    graph: Graph
    plan: Plan
    seed: int
    batch_size: int
    delivery: Delivery
    identity: Mapping[str, object]
    loss_weight: Mapping[str, float]
    adapt: Adapt | None = None

    @property
    def placements(self) -> dict[str, Placement]:
        """Where the records of each source lie, by name."""
        return {name: "host" if source.placement == "host" else "device" for name, source in self.sources.items()}

    def offset(self, source: str) -> int | None:
        """The number that is added to a source's labels; None if it depends on labels that are not read yet."""
        return self.graph.label_offset(source)

    def spec(self) -> dict[str, LeafSpec]:
        """The shape and dtype of each leaf of a finished record, without reading any.

        Raises:
          SpecError: The sources do not fit together.
        """
        return check_specs(self.graph, {name: source.spec for name, source in self.sources.items()}, self.sources)

    def num_batches(self) -> int | None:
        """The number of batches in the whole mix; None if it never ends."""
        return num_batches(self.plan.length, self.batch_size, self.delivery.remainder)

    def num_records(self) -> int | None:
        """The number of records in these batches; None if the mix never ends."""
        if self.plan.length is None or self.delivery.remainder == "keep":
            return self.plan.length
        return self.plan.length // self.batch_size * self.batch_size

    def fingerprint(self) -> str:
        """The digest of all settings that determine the sequence; the contents of records do not count."""
        return digest(settings_of(self.identity, self.plan, self.batch_size, self.delivery.remainder))

    def completed(self, *, all_counts: bool = False) -> Self:
        """The same mix with the numbers of classes of its sources, for which labels are read where necessary.

        Args:
          all_counts: Whether to include numbers of classes that the numbering of classes does not need.

        Raises:
          SpecError: The sources do not fit together; this is checked before any data is read.
        """
        if self.labels.complete and not (all_counts and None in self.labels.num_classes.values()):
            return self
        self.spec()
        opened, labels = decide(list(self.sources.values()), self.labels.numbering, self.operators, complete=True)
        labels = replace(labels, notes=tuple(dict.fromkeys((*self.labels.notes, *labels.notes))))
        sources = {source.name: source for source in opened}
        graph = _graph(opened, labels, self.operators, self.loss_weight)
        return replace(self, sources=sources, labels=labels, graph=graph)

    def notes_on(self, pipeline: Pipeline) -> list[str]:
        """The notes on the records, labels and values of the mix, one sentence each, once its data is read."""
        on_values = notes_on_values(self.sources, pipeline.statistics, self.labels)
        on_values += notes_on_scale(self.sources, self.operators, pipeline.statistics)
        on_values += notes_on_casts(self.sources, self.operators, pipeline.statistics)
        return [*self.notes_on_records(), *self.labels.notes, *on_values]

    def notes_on_records(self) -> list[str]:
        """The notes on records left out and on features that differ, one sentence each, before the data is read."""
        left_out = [of_source(name, note) for name, source in self.sources.items() for note in source.notes]
        features = _notes_on_features(list(self.sources.values()))
        return [*left_out, *features, *filter(None, [self.plan.left_behind()]), *self.plan.unseen()]

    def pipeline(self, reader: Reader | None = None, statistics: Statistics | None = None) -> Pipeline:
        """Read the data, or share that of another pipeline of the same sources; see `Pipeline` for errors."""
        from datamix.pipeline.pipeline import Pipeline

        complete, delivery = self.completed(), self.delivery
        if reader is None:
            complete.spec()  # before `Pipeline`, whose error would not say which setting of a source fixes it
        return Pipeline(
            complete.sources,
            complete.graph,
            complete.plan,
            batch_size=self.batch_size,
            remainder=delivery.remainder,
            shuffle_rows=delivery.shuffle_rows,
            skip=delivery.skip,
            seeds=_seeds(self.sources.values(), self.seed),
            identity=self.identity,
            reader=reader,
            statistics=statistics,
            placements=self.placements,
            threads=delivery.threads,
            prefetch_bytes=delivery.prefetch_bytes,
            adapt=self.adapt,
        )


def assemble(
    sources: Sequence[OpenSource],
    mix: PlanSpec,
    delivery: Delivery | None = None,
    *,
    operators: Sequence[Operation] = (),
    labels: Numbering = "union",
    labels_like: Labels | None = None,
    unit: str = "record",
    loss_weight: object = None,
    adapt: Mapping[str, Any] | None = None,
) -> Assembly:
    """Lay out the plan and the graph of a mix.

    Only leaves that decide the plan are read (lengths, and leaves to balance or draw by), and labels whose kind is not
    clear from their declaration and dtype.

    Args:
      sources: The sources, in order.
      mix: The inputs of the plan; the sizes, seeds and lengths of the sources are filled in here.
      delivery: How the records are read and handed out.
      operators: The operators on every record, after the mix.
      labels: "union" gives the classes of each source numbers of their own, in the order of the sources; "keep" leaves
        labels as they are.
      labels_like: The labels of a mix of other records of these sources, which are then numbered as there.
      unit: What follows the ratio: "record", "tokens", or the leaf that holds each record's length.
      loss_weight: The weights of the sources in the loss, or the rule for them; see `datamix.mixing.loss_weights`.
      adapt: How the weights follow training: the policy's name under "rule", the settings that every policy has, and
        its own; None if they do not.

    Raises:
      DatamixError: A source is empty, or the settings and the sources do not fit together.
    """
    for source in sources:
        if not source.num_records:
            split, mend = source.settings.get("split"), "Leave it out, or choose other records."
            key = f"{source.key}.split" if split else source.key or f"sources[{source.name!r}]"
            raise DataError(f"source {source.name!r} is empty", key=key, value=split or ..., hint=mend)
    delivery = delivery or Delivery()
    delivery = replace(delivery, skip=parse_skip(delivery.skip))
    seeds = _seeds(sources, mix.seed)
    lengths = None if unit == "record" else {each.name: _lengths(each, unit, "mix.unit", unit) for each in sources}
    num_tokens = {source.name: source.num_tokens for source in sources if source.num_tokens is not None}
    if mix.tokens is not None:
        num_tokens = {source.name: _lengths(source, "tokens", "stop.tokens", mix.tokens) for source in sources}
    _check_tokenizers(sources)
    _check_features(sources)
    _check_leaves(sources)
    sizes = {source.name: source.num_records for source in sources}
    blocks = {}
    if parse_shuffle(mix.shuffle)[0] == "blocks":
        blocks = {source.name: size for source in sources if (size := getattr(source.source, "block_records", None))}
    sampling = {source.name: by for source in sources if (by := sampling_of(source)) is not None}
    mix = replace(mix, sizes=sizes, seeds=seeds, lengths=lengths, num_tokens=num_tokens)
    plan = Plan.of(replace(mix, block_records=blocks, sampling=sampling))
    weights = loss_weights(loss_weight, plan.names, plan.targets)
    check_largest(sources, operators)
    sources = placed(sources, delivery.placement, delivery.device_bytes)
    if labels_like is None:
        opened, decided = decide(sources, labels, operators)
    else:
        opened, decided = [labels_like.known_to(source) for source in sources], labels_like
    identity: dict[str, object] = {
        "source": list(sizes),
        "seed": mix.seed,
        "shuffle": [mix.shuffle, blocks] if blocks else mix.shuffle,
        "labels": labels,
        "mix.order": mix.order,
        **{f"mix.{key}": value for key, value in mix.settings.items()},
        "mix.granularity": mix.granularity,
        "stop": mix.stop,
        "stop.epochs": dict(mix.epochs or {}),
        **{f"stop.{key}": end for key, end in (("samples", mix.samples), ("tokens", mix.tokens)) if end is not None},
        "mix.unit": unit,
        "operators": identities(operators),
        # Only if set, so that all other mixes keep their fingerprints.
        **({"batch.shuffle": True} if delivery.shuffle_rows else {}),
        **({"skip": delivery.skip} if delivery.skip else {}),
        **({} if adapt is None else {"adapt": dict(adapt)}),
    }
    if mix.max_epochs:
        identity["mix.max_epochs"] = [dict(mix.max_epochs), mix.at_max_epochs]
    if weights:
        identity["mix.loss_weight"] = loss_weight if isinstance(loss_weight, str) else weights
    for source in sources:
        identity |= _identity(source)
    return Assembly(
        sources={source.name: source for source in opened},
        operators=tuple(operators),
        labels=decided,
        graph=_graph(opened, decided, operators, weights),
        plan=plan,
        seed=mix.seed,
        batch_size=mix.batch_size,
        delivery=delivery,
        identity=identity,
        loss_weight=weights,
        adapt=None
        if adapt is None
        else adapt_of(adapt, plan, mix, unit, delivery.remainder, loss_weight, delivery.skip),
    )


def _identity(source: OpenSource) -> dict[str, object]:
    """The settings that determine the records of a source, by key; without locations and settings that are None."""
    places = ("data_dir", "cache_dir", "cache", "path", "files", "url", "offsets", "tokenizer")
    settings = {
        **{key: value for key, value in source.settings.items() if key not in places},
        "_target_": source.target,
        "provenance": source.provenance,
        "num_records": source.num_records,
        "class_names": len(source.class_names) or None,
        "seed": source.seed,
        "leaves": {leaf: str(part) for leaf, part in source.spec.items()},
        "operators": identities(source.operators) or None,
        "tokenizer": source.tokenizer_digest or None,
        **dict(zip(map(str, source.selection[::2]), source.selection[1::2], strict=True)),
        "balance": source.balance,
        "record_weight": source.record_weight,
        "label": source.label,
        "num_classes": source.chosen_num_classes,
        "unlabelled": source.unlabelled if source.unlabelled != "refuse" else None,
    }
    return {f"source.{source.name}.{key}": value for key, value in settings.items() if value is not None}


def _check_tokenizers(sources: Sequence[OpenSource]) -> None:
    known = [source for source in sources if source.tokenizer_digest]
    for first, second in itertools.pairwise(known):
        if first.tokenizer_digest == second.tokenizer_digest:
            continue
        # Advise to change the default tokenizer, not a chosen one, and never that of tokens in a file.
        source, other = sorted((second, first), key=lambda each: (each.target == "tokens", _tokenizer(each) != "bytes"))
        text = f"it is another tokenizer than that of {other.name}, and a mix has one"
        mend = f"Set {source.choice('tokenizer', _tokenizer(other))}."
        if source.target == "tokens":
            mend = "Mix token files that one tokenizer made."
        elif not source.key or not other.key:
            mend = "Open both sources with one."
        raise ConfigError(text, key=source.setting("tokenizer"), hint=mend)


def _tokenizer(source: OpenSource) -> str:
    return str(source.settings.get("tokenizer") or "bytes")


def _check_features(sources: Sequence[OpenSource]) -> None:
    """Refuse tables of the same columns in different orders, which would silently mix up features."""
    for first, source, names, other_names in _other_features(sources):
        if sorted(names) == sorted(other_names):
            text = f"sources {first.name!r} and {source.name!r} do not fit together: their features are"
            text += f" {_some(names)} in {first.name}, but {_some(other_names)} in {source.name}"
            listed = f"[{written(names)}]"
            mend = f'set "{source.choice("features", listed)}"' if source.key else f"open it with features={names}"
            raise SpecError(f"{text}; {mend}.")


def _check_leaves(sources: Sequence[OpenSource]) -> None:
    """Refuse operators on a leaf that a source has by another name."""
    for source in sources:
        for i, each in enumerate(source.operators):
            setting = registry.settings(each.function).get("leaf")
            if setting is None or not is_shipped(each):
                continue
            leaf = each.settings.get("leaf", setting.default)
            if leaf in source.spec:
                continue
            everywhere = [name for name in source.spec if all(name in other.spec for other in sources)]
            if mend := source.calling([leaf] if len(source.spec) == 1 else [leaf, "label"], everywhere):
                text = f"{each.operator} takes a leaf {leaf!r}, and {source.name} has {', '.join(source.spec)}"
                raise SpecError(f"{source.key}.operators[{i}]: {text}; to mend it, {mend}.")


def _notes_on_features(sources: Sequence[OpenSource]) -> list[str]:
    notes = []
    for first, source, names, other_names in _other_features(sources):
        pairs = [(there, here) for there, here in zip(names, other_names, strict=True) if there != here]
        places = [
            f"{here} {'stands ' * (i == 0)}where {first.name} has {there}" for i, (there, here) in enumerate(pairs)
        ]
        notes.append(of_source(source.name, f"of its features, {_some(places, '; ')}."))
    return notes


def _other_features(
    sources: Sequence[OpenSource],
) -> Iterator[tuple[OpenSource, OpenSource, list[str], list[str]]]:
    """The first table and each later one with as many features, but not the same ones in order; with those of both.

    Sources with operators of the user's own are left out, since these may reorder features.
    """
    tables = [(source, [*source.feature_names]) for source in sources if source.feature_names]
    for source, other_names in tables[1:]:
        first, names = tables[0]
        if names != other_names and len(names) == len(other_names):
            yield first, source, names, other_names


def _some(texts: Sequence[str], between: str = ", ") -> str:
    """Texts in one line, which shows only the first `_MOST_SHOWN`."""
    return between.join([*texts[:_MOST_SHOWN], *(["…"] if len(texts) > _MOST_SHOWN else [])])


def _lengths(source: OpenSource, leaf: str, key: str, value: object) -> np.ndarray:
    """The length of each record, shape [num_records]: the value of a leaf, or for "tokens" its number of tokens."""
    if leaf == "tokens" and source.num_tokens is not None:
        return source.num_tokens
    spec = source.spec
    if leaf == "tokens" and "num_tokens" in spec:
        leaf = "num_tokens"
    if leaf == "tokens" and leaf in spec and len(spec[leaf].shape) == 1:
        return np.full(source.num_records, spec[leaf].shape[0])
    if leaf not in spec or spec[leaf].shape:
        text = f"source {source.name!r} has no leaf {leaf!r} with one number a record"
        numbers = [name for name, part in spec.items() if not part.shape]
        raise SpecError(text, key=key, value=value, hint=hint(leaf, ["record", *numbers]))
    return source.read_leaf(leaf)


def _graph(
    sources: Sequence[OpenSource], labels: Labels, operators: Sequence[Operation], loss_weight: Mapping[str, float]
) -> Graph:
    branches = {source.name: _chain(source, i, labels) for i, source in enumerate(sources)}
    for name in loss_weight:  # the weights themselves are looked up by stage and source, see `arrays_of`
        one = {"loss_weight": 1.0}
        branches[name].append(Operation(operator="tag_loss_weight", function=tag_loss_weight, settings=one))
    return Graph.of(branches, operators)


def _chain(source: OpenSource, source_id: int, labels: Labels) -> list[Operation]:
    """The operators of a source, with those that number its classes and add `source_id`."""
    without = f"choose its leaves with {source.key}.leaves" if takes_leaves(source) else "leave it out"
    if (empty := next((leaf for leaf, part in source.spec.items() if 0 in part.shape), None)) is not None:
        text = f"its leaf {empty!r} is {source.spec[empty]}, which holds no numbers; {without}."
        raise SpecError(of_source(source.name, text))
    if "source_id" in source.spec:
        mend = without if takes_leaves(source) else f"rename it, or {without}"
        text = f"it has a leaf 'source_id' of its own, which the source's number would overwrite; {mend}."
        raise SpecError(of_source(source.name, text))
    chain = list(labels.operators(source))
    if not any(each.operator == "tag_source" and "leaf" not in each.settings for each in source.operators):
        chain.append(Operation(operator="tag_source", function=tag_source, settings={"source_id": source_id}))
    return chain


def _seeds(sources: Iterable[OpenSource], seed: int) -> dict[str, int]:
    return {source.name: seed if source.seed is None else source.seed for source in sources}
