"""From a checked configuration, through the registry, to sources, a plan, a graph and a pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamix import registry
from datamix.build.opening import OpenSource, open_source
from datamix.config.compose import compose
from datamix.config.files import conf_dir
from datamix.config.parse import check_components, parse
from datamix.config.schema import Config, OperatorConfig
from datamix.errors import ConfigError, DataError, SpecError, hint
from datamix.mixing.groups import resolve
from datamix.mixing.plan import Plan
from datamix.pipeline.batching import num_batches
from datamix.pipeline.graph import Graph, Operation
from datamix.pipeline.lowering import check_specs
from datamix.pipeline.pipeline import Pipeline, fingerprint
from datamix.pipeline.readers.base import Reader
from datamix.sources.base import Source
from datamix.spec import LeafSpec, Spec


@dataclass(frozen=True, kw_only=True)
class Built:
    """All that a job may need.

    Attributes:
      config: it was built from.
      sources: by name, in order.
      graph: with the settings known before the data is read.
      plan: of the mix.
    """

    config: Config
    sources: Mapping[str, OpenSource]
    graph: Graph
    plan: Plan

    @property
    def notes(self) -> list[str]:
        """What a user must know of the sources."""
        notes = [source.note for source in self.sources.values() if source.note]
        if notes:
            notes[-1] += " For the real data, set data.dir=, or pip install 'datamix[prepare]' and run with a network."
        return notes

    def offset(self, source: str) -> int | None:
        """What is added to a source's labels; None if that depends on data not yet read."""
        return next(
            (
                node.operation.settings["offset"]
                for node in self.graph.chain(source)
                if node.operation
                and node.operation.operator == "offset_label"
                and "leaf" not in node.operation.settings
            ),
            0,
        )

    def spec(self) -> dict[str, LeafSpec]:
        """Shape and dtype of each leaf of a finished record, without reading any.

        Raises:
          SpecError: the sources do not fit together.
        """
        return check_specs(self.graph, {name: source.spec for name, source in self.sources.items()})

    def completed(self) -> Built:
        """The same, with the label offsets that need the labels themselves to be read.

        Raises:
          SpecError: the sources do not fit together; found before any data is read.
        """
        if None not in (self.offset(name) for name in self.sources):
            return self
        self.spec()
        read = {name: replace(source, source=source.in_memory()) for name, source in self.sources.items()}
        counts = [source.num_classes() for source in read.values()]
        return replace(self, sources=read, graph=_with_offsets(self.graph, _offsets(list(read), counts)))

    def num_batches(self) -> int | None:
        """Batches in the whole mix; None without end."""
        return num_batches(self.plan.length, self.config.batch_size, self.config.remainder)

    def num_records(self) -> int | None:
        """Records that these batches hold; None without end."""
        if self.plan.length is None or self.config.remainder == "keep":
            return self.plan.length
        return self.plan.length // self.config.batch_size * self.config.batch_size

    def fingerprint(self) -> str:
        """The digest of all that determines the sequence, as `Pipeline.fingerprint`."""
        return fingerprint(self._identity(), self.plan, self.config.batch_size, self.config.remainder)

    def pipeline(self, reader: Reader | None = None) -> Pipeline:
        """Read the data, or share that of another pipeline of the same sources; see `Pipeline` for errors."""
        built = self.completed()
        return Pipeline(
            built.sources,
            built.graph,
            built.plan,
            batch_size=self.config.batch_size,
            remainder=self.config.remainder,
            shuffle_rows=self.config.shuffle_rows,
            seeds=_seeds(self.config),
            identity=self._identity(),
            reader=reader,
        )

    def _identity(self) -> dict[str, object]:
        """What determines the sequence, by the key that sets it; not where the data lies."""
        config = self.config
        identity: dict[str, object] = {
            "source": [source.name for source in config.sources],
            "seed": config.seed,
            "shuffle": config.shuffle,
            "labels": config.labels,
            "mix.order": [config.mix.order, dict(config.mix.settings), config.mix.granularity],
            "stop": [config.mix.stop, config.mix.samples, dict(config.mix.epochs)],
            "mix.unit": config.mix.unit,
            "operators": [[operator.name, dict(operator.settings)] for operator in config.operators],
        }
        if config.shuffle_rows:
            identity["batch.shuffle"] = True
        places = ("data_dir", "cache_dir", "path", "files", "url")
        for source in config.sources:
            opened = self.sources[source.name]
            identity[f"source.{source.name}"] = [
                source.target, opened.provenance, opened.num_records, len(opened.class_names), source.seed,
                {key: value for key, value in source.settings.items() if key not in places},
                {leaf: str(part) for leaf, part in opened.spec.items()},
                [[operator.name, dict(operator.settings)] for operator in source.operators],
            ]  # fmt: skip
        return identity


def load(
    *overrides: str,
    config_dir: str | Path | None = None,
    sources: Mapping[str, Source | Mapping[str, Any]] | None = None,
) -> Pipeline:
    """Build the pipeline that a command line describes.

    Args:
      overrides: as on the command line: "source=mnist+fashion", "mix.ratio=7:3", "batch.size=256".
      config_dir: a directory with more configs, as `--config-dir`.
      sources: sources in memory, by the name that `source=` may use: arrays by leaf, of the same length along their
        first axis. Without a `source=` among the overrides, they are the mix.

    Raises:
      DatamixError: in one line, what is wrong and how to mend it.

    >>> import numpy as np
    >>> few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
    >>> pipeline = load("batch.size=4", "stop=all_exhausted", sources={"few": few, "fewer": few})
    >>> len(pipeline), next(iter(pipeline))["source_id"].tolist()
    (3, [0, 1, 0, 1])
    """
    memory = dict(sources or {})
    for name in memory:
        if (conf_dir() / "dataset" / f"{name}.yaml").exists():
            raise ConfigError(f"sources: {name!r} is the name of a dataset that is shipped; give yours another.")
    arguments = list(overrides)
    if memory and not any(argument.startswith("source=") for argument in arguments):
        arguments.insert(0, f"source={'+'.join(memory)}")
    datasets = {name: {"_target_": "arrays"} for name in memory}
    config = parse(compose(arguments, config_dir=config_dir, datasets=datasets))
    built = build(config, memory)
    for note in built.notes:
        warnings.warn(note, stacklevel=2)
    return built.pipeline()


def build(config: Config, memory: Mapping[str, Source | Mapping[str, Any]] | None = None) -> Built:
    """Open the sources of a configuration, and lay out its plan and graph; no record is read.

    Raises:
      DatamixError: in one line, what is wrong and how to mend it.
    """
    check_components(config)
    names, mix = [source.name for source in config.sources], config.mix
    # Before any dataset is looked for, which may take seconds.
    resolve(names, ratio=mix.ratio, weights=mix.weights, share=mix.share)
    opened = {source.name: open_source(source, config, memory or {}) for source in config.sources}
    sizes = {name: source.num_records for name, source in opened.items()}
    for name, size in sizes.items():
        if not size:
            split = next(s for s in config.sources if s.name == name).settings.get("split")
            raise DataError(
                f"source {name!r} is empty{f' (split {split})' if split else ''}; leave it out of source=, "
                f"or choose other records with source.{name}.split."
            )

    lengths = None
    if mix.unit != "record":
        lengths = {name: _lengths(source, mix.unit) for name, source in opened.items()}
    plan = Plan(
        sizes=sizes,
        weights=mix.weights,
        ratio=mix.ratio,
        share=mix.share,
        weighting=mix.weighting,
        schedule=mix.schedule,
        group_weights=mix.group_weights,
        order=mix.order,
        stop=mix.stop,
        epochs=mix.epochs,
        samples=mix.samples,
        seed=config.seed,
        shuffle=config.shuffle,
        seeds=_seeds(config),
        batch_size=config.batch_size,
        granularity=mix.granularity,
        lengths=lengths,
        **mix.settings,
    )

    branches = {source.name: _chain(config, i, opened[source.name].spec) for i, source in enumerate(config.sources)}
    graph = Graph.of(branches, [_operation(operator) for operator in config.operators])
    counts = [len(source.class_names) for source in opened.values()]
    known = _offsets(names, counts) if all(counts[:-1]) else {}
    return Built(
        config=config,
        sources=opened,
        graph=_with_offsets(graph, known),
        plan=plan,
    )


def _lengths(source: OpenSource, leaf: str) -> np.ndarray:
    """The lengths of a source's records.

    Raises:
      SpecError: it has no such leaf.
    """
    spec = source.spec
    if leaf not in spec or spec[leaf].shape:
        whole = [name for name, part in spec.items() if not part.shape]
        raise SpecError(
            f"mix.unit = {leaf}: source {source.name!r} has no leaf {leaf!r} with one number a record. "
            f"{hint(leaf, ['record', *whole])}"
        )
    return source.read()[leaf]


def _operation(operator: OperatorConfig) -> Operation:
    return Operation(
        operator=operator.name, function=registry.lookup("operator", operator.name), settings=operator.settings
    )


def _chain(config: Config, source_id: int, spec: Spec) -> list[Operation]:
    """A source's operators, with those that every source has: numbering its classes apart, and saying which it is.

    Raises:
      SpecError: the source has a leaf of the name that is given to the source's number.
    """
    source = config.sources[source_id]
    if "source_id" in spec:
        raise SpecError(
            f"source {source.name!r} has a leaf 'source_id' of its own, which the source's number would overwrite; "
            f"choose its leaves with source.{source.name}.leaves."
        )
    own = {operator.name for operator in source.operators if "leaf" not in operator.settings}
    label = spec.get("label")
    classes = label is not None and not label.shape and np.dtype(label.dtype).kind in "biu"
    chain = list(source.operators)
    if config.labels == "union" and classes and "offset_label" not in own:
        # Before the others, which may make a vector of the label.
        chain.insert(0, OperatorConfig(name="offset_label", settings={"offset": None}))
    if "tag_source" not in own:
        chain.append(OperatorConfig(name="tag_source", settings={"source_id": source_id}))
    return [_operation(operator) for operator in chain]


def _offsets(names: Sequence[str], num_classes: Sequence[int]) -> dict[str, int]:
    return {name: sum(num_classes[:i]) for i, name in enumerate(names)}


def _with_offsets(graph: Graph, offsets: Mapping[str, int]) -> Graph:
    """The graph with the label offsets set that were left open."""
    nodes = list(graph.nodes.values())
    for name, offset in offsets.items():
        for node in graph.chain(name):
            if node.operation and node.operation.settings.get("offset", offset) is None:
                operation = replace(node.operation, settings={"offset": offset})
                nodes[nodes.index(node)] = replace(node, operation=operation)
    return Graph(nodes)


def _seeds(config: Config) -> dict[str, int]:
    return {source.name: config.seed if source.seed is None else source.seed for source in config.sources}
