"""From a composed configuration to plain, checked values, each mistake named by its full key.

Importing it imports neither JAX nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamix import registry
from datamix.config.node import NodeReader, refuse_targets
from datamix.config.plus import MIX
from datamix.errors import ConfigError, hint
from datamix.mixing.groups import by_path, resolve
from datamix.mixing.weights import parse_ratio

_RULES = ("ratio", "weights", "share")


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """One operator of a chain.

    Attributes:
      name: registered.
      settings: its keyword settings.
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source.

    Attributes:
      name: in this mix.
      target: registered name of what builds it.
      settings: keyword settings of the target.
      operators: on each of its records.
      limit: use its first records alone.
      seed: of its shuffle and random operators; None for the mix's.
      class_names: of the labels; empty for those that the source gives itself.
      stand_in: registered name of a look-alike.
      test_split: what a model is tested on, None for the split "test".
    """

    name: str
    target: str
    settings: Mapping[str, Any]
    operators: tuple[OperatorConfig, ...]
    limit: int | None
    seed: int | None
    class_names: tuple[str, ...]
    stand_in: str | None
    test_split: str | None


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """How the sources are mixed.

    Attributes:
      order: registered name.
      stop: registered name.
      settings: keyword settings of the order.
      stop_settings: keyword settings of the stop.
      granularity: "record" or "batch".
      ratio: of all sources, or None.
      weights: relative, by source.
      share: absolute, by source.
      group_weights: that sources which are themselves mixes give their members, by path.
      weighting: registered name under "rule", and its settings.
      schedule: entries, see `datamix.mixing.schedules.phases`, or None.
      unit: "record", or the leaf that holds the lengths which follow the ratio.
      epochs: how often a source has to be gone through, by source.
      samples: records after which the mix ends, or None.
    """

    order: str
    stop: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    stop_settings: Mapping[str, Any] = field(default_factory=dict)
    granularity: str = "record"
    ratio: object = None
    weights: Mapping[str, Any] = field(default_factory=dict)
    share: Mapping[str, Any] = field(default_factory=dict)
    group_weights: Mapping[str, Any] = field(default_factory=dict)
    weighting: Mapping[str, Any] = field(default_factory=lambda: {"rule": "equal"})
    schedule: Sequence[Mapping[str, Any]] | None = None
    unit: str = "record"
    epochs: Mapping[str, int] = field(default_factory=dict)
    samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What a multirun is judged by, and where an earlier one lies.

    Attributes:
      metric: by which jobs are compared.
      goal: "max", "min", or "auto" for what the metric's name says.
      resume: whether jobs that are done already are left as they are.
      directories: of sweeps to report on.
    """

    metric: str
    goal: str
    resume: bool
    directories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
      model: registered name.
      model_settings: its keyword settings.
      optimizer: registered name.
      optimizer_settings: its keyword settings.
      learning_rate: at the schedule's peak.
      schedule: registered name.
      schedule_settings: its keyword settings.
      steps: batches to train on; None for the whole mix.
      eval_every: steps between two tests.
      checkpoint_every: steps between two checkpoints, which are taken at tests; None for one at every test.
      resume: whether to go on from the last checkpoint.
    """

    model: str
    model_settings: Mapping[str, Any]
    optimizer: str
    optimizer_settings: Mapping[str, Any]
    learning_rate: float
    schedule: str
    schedule_settings: Mapping[str, Any]
    steps: int | None
    eval_every: int
    checkpoint_every: int | None
    resume: bool


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run's configuration, checked.

    Attributes:
      job: registered name.
      job_settings: keyword settings of the job.
      seed: of everything that is drawn.
      shuffle: how records are shuffled within their source, see `datamix.mixing.plan.Plan`.
      labels: "union" or "keep".
      sources: in order.
      mix: how they are mixed.
      operators: on every record after the mix.
      batch_size: records.
      remainder: "drop" or "keep".
      data_dir: of prepared TFDS data, None for TFDS's default.
      cache_dir: of decoded records, None for the default.
      stand_in: whether look-alikes may stand in.
      sweep: what a multirun is judged by.
      train: for the jobs that train, None for the others.
    """

    job: str
    job_settings: Mapping[str, Any]
    seed: int
    shuffle: bool | str
    labels: str
    sources: tuple[SourceConfig, ...]
    mix: MixConfig
    operators: tuple[OperatorConfig, ...]
    batch_size: int
    remainder: Literal["drop", "keep"]
    data_dir: str | None
    cache_dir: str | None
    stand_in: bool
    sweep: SweepConfig
    train: TrainConfig | None = None


def without_hydra(node: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's own part."""
    own = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
    assert isinstance(own, DictConfig)
    return own


def parse(node: DictConfig) -> Config:
    """Check a composed configuration and read it into plain values.

    Raises:
      ConfigError: a value that is not allowed, by its full key.
      RegistryError: a name that the registry does not hold.
    """
    try:
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "")
        if type(error).__name__ == "MissingMandatoryValue":
            raise ConfigError(f"{key} is missing; it has no default.") from error
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    top = NodeReader({str(key): value for key, value in plain.items()}, "")
    registry.load_plugins(top.take("plugins", list, default=[]))
    sources = top.child("source")
    if not sources.node:
        raise ConfigError("source: name at least one dataset, as in source=mnist+fashion.")
    mix, stop, batch, data, sweep = (top.child(name) for name in ("mix", "stop", "batch", "data", "sweep"))
    job, weighting = top.child("job"), top.child("weighting")
    group_weights: dict[str, Any] = {}
    batch_size = batch.take("size", int, least=1)
    samples = [
        stop.take("samples", int, default=None, least=1),
        None if (batches := stop.take("batches", int, default=None, least=1)) is None else batches * batch_size,
    ]
    stop_rule = stop.registered("rule", "stop")
    stop_takes = registry.settings(registry.lookup("stop", stop_rule))
    stop_settings = {name: stop.node.pop(name) for name in stop_takes if name in stop.node}
    refuse_targets(stop_settings, "stop")
    result = Config(
        job=job.registered("name", "job"),
        job_settings=job.rest(),
        seed=top.take("seed", int),
        shuffle=top.take("shuffle", object, default="null"),
        labels=top.choice("labels", ("union", "keep")),
        sources=tuple(_sources(sources, "", group_weights)),
        mix=MixConfig(
            granularity=mix.choice("granularity", ("record", "batch")),
            ratio=mix.take("ratio", object, default=None),
            weights=mix.take("weights", dict, default={}),
            share=mix.take("share", dict, default={}),
            group_weights=group_weights,
            weighting={"rule": weighting.registered("rule", "weighting"), **weighting.rest()},
            schedule=mix.take("schedule", object, default=None),
            unit=mix.take("unit", str),
            order=mix.registered("order", "order"),
            settings=mix.rest(),
            stop=stop_rule,
            stop_settings=stop_settings,
            epochs=by_path(stop.take("epochs", dict, default={})),
            samples=min((end for end in samples if end is not None), default=None),
        ),
        operators=_operators(top.take("operators", list, default=[]), "operators"),
        batch_size=batch_size,
        remainder=batch.choice("remainder", ("drop", "keep")),  # type: ignore[arg-type]
        data_dir=data.take("dir", str, default=None),
        cache_dir=data.take("cache", str, default=None),
        stand_in=data.take("stand_in", bool),
        sweep=_sweep(sweep),
        train=_train(top) if "train" in top.node else None,
    )
    for name in top.node.pop(result.job, None) or ():  # where a job's settings come from: bench.seconds is job.seconds
        if name not in result.job_settings:
            raise ConfigError(f"{result.job}.{name}: there is no such key. {hint(str(name), result.job_settings)}")
    for reader in (top, stop, batch, data, sweep):
        reader.finish()
    return result


def _sources(reader: NodeReader, prefix: str, group_weights: dict[str, Any]) -> Iterator[SourceConfig]:
    """The sources under a node, those of a mix within the mix by their path; what it weighs them by is put aside."""
    for name in list(reader.node):
        path, child = prefix + name, reader.child(name)
        if child.node.get("_target_") != MIX:
            yield _source(path, child)
            continue
        child.node.pop("_target_")
        names = [key for key, value in child.node.items() if isinstance(value, Mapping) and key not in _RULES]
        ratio = child.take("ratio", object, default=None)
        weights, share = (child.take(key, dict, default={}) for key in ("weights", "share"))
        for key, value in list(child.node.items()):
            if not isinstance(value, Mapping) and child.node.pop(key) is not None:
                raise ConfigError(
                    f"source.{path}.{key}: {path} is a mix, and takes ratio, weights and share; set {key} of what it "
                    f"is made of: source.{path}.{next(iter(names), 'NAME')}.{key}."
                )
        own: tuple[Any, ...] = resolve(names, ratio=ratio, weights=weights, share=share, where=f"source.{path}").shares
        if not by_path(share):
            # As they were given, so that a weight set beside them counts in the same unit.
            numbers = parse_ratio(ratio, names) if ratio is not None else dict.fromkeys(names, 1) | by_path(weights)
            own = tuple(numbers[key] for key in names)
        group_weights.update((f"{path}.{key}", number) for key, number in zip(names, own, strict=True))
        yield from _sources(child, f"{path}.", group_weights)


def _sweep(reader: NodeReader) -> SweepConfig:
    directories = reader.take("dir", object, default=[])
    directories = directories if isinstance(directories, list) else [directories]
    if not all(isinstance(directory, str) for directory in directories):
        raise ConfigError(f"sweep.dir = {directories!r}; it is the directory of a sweep, or a list of them.")
    return SweepConfig(
        metric=reader.take("metric", str),
        goal=reader.choice("goal", ("auto", "max", "min")),
        resume=reader.take("resume", bool),
        directories=tuple(directories),
    )


def _source(name: str, reader: NodeReader) -> SourceConfig:
    if "_target_" not in reader.node:
        raise ConfigError(
            f"source.{name}: settings for a source that is not in this mix; name {name} in source=, or leave them out."
        )
    target = reader.registered("_target_", "source")
    operators = _operators(reader.take("operators", list, default=[]), f"{reader.where}.operators")
    limit = reader.take("limit", int, default=None, least=1)
    seed = reader.take("seed", int, default=None)
    class_names = tuple(str(name) for name in reader.take("class_names", list, default=[]))
    stand_in = reader.registered("stand_in", "source") if reader.node.get("stand_in") is not None else None
    reader.node.pop("stand_in", None)
    test_split = reader.take("test_split", str, default=None)
    settings = {key: value for key, value in reader.rest().items() if value is not None}
    registry.check_settings(reader.where, registry.lookup("source", target), settings)
    return SourceConfig(
        name=name,
        target=target,
        settings=settings,
        operators=operators,
        limit=limit,
        seed=seed,
        class_names=class_names,
        stand_in=stand_in,
        test_split=test_split,
    )


def _train(top: NodeReader) -> TrainConfig:
    model, optimizer, train = (top.child(name) for name in ("model", "optimizer", "train"))
    learning_rate = optimizer.take("learning_rate", float)
    if not 0 < learning_rate < float("inf"):
        raise ConfigError(f"optimizer.learning_rate = {learning_rate}; it is above 0.")
    schedule, schedule_settings = _named(optimizer.take("schedule", object), "schedule", "optimizer.schedule")
    found = TrainConfig(
        model=model.registered("name", "model"),
        model_settings=model.rest(),
        optimizer=optimizer.registered("name", "optimizer"),
        optimizer_settings=optimizer.rest(),
        learning_rate=float(learning_rate),
        schedule=schedule,
        schedule_settings=schedule_settings,
        steps=train.take("steps", int, default=None, least=1),
        eval_every=train.take("eval_every", int, least=1),
        checkpoint_every=train.take("checkpoint_every", int, default=None, least=1),
        resume=train.take("resume", bool),
    )
    train.finish()
    registry.check_settings("model", registry.lookup("model", found.model), found.model_settings)
    registry.check_settings("optimizer", registry.lookup("optimizer", found.optimizer), found.optimizer_settings)
    return found


def _operators(nodes: Sequence[Any], where: str) -> tuple[OperatorConfig, ...]:
    """Read a list such as `[to_float, {normalize: {mean: 0, std: 1}}]`."""
    named = [_named(node, "operator", f"{where}[{i}]") for i, node in enumerate(nodes)]
    return tuple(OperatorConfig(name=name, settings=settings) for name, settings in named)


def _named(node: object, kind: str, where: str) -> tuple[str, Mapping[str, Any]]:
    """Read a registered name, or one with its settings: `{normalize: {mean: 0, std: 1}}`."""
    if isinstance(node, Mapping) and "_target_" in node:
        name: object = node["_target_"]
        settings: object = {key: value for key, value in node.items() if key != "_target_"}
    elif isinstance(node, Mapping) and len(node) == 1:
        name, settings = next(iter(node.items()))
    else:
        name, settings = node, {}
    settings = {} if settings is None else settings
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        example = {"operator": "normalize: {mean: 0.5, std: 0.5}", "schedule": "cosine: {end: 0.1}"}[kind]
        raise ConfigError(f"{where} = {node!r} is no {kind}; write a name, or a name with its settings: {example}.")
    refuse_targets(settings, where)
    registry.require(kind, name, where)
    registry.check_settings(f"{where}.{name}", registry.lookup(kind, name), settings)
    return name, settings
