"""From a composed configuration to plain, checked values, each mistake named by its full key.

Importing it imports neither JAX nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamix import registry
from datamix.errors import ConfigError, RegistryError, hint


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
    """

    name: str
    target: str
    settings: Mapping[str, Any]
    operators: tuple[OperatorConfig, ...]
    limit: int | None
    seed: int | None
    class_names: tuple[str, ...]
    stand_in: str | None


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """How the sources are mixed.

    Attributes:
      order: registered name.
      settings: keyword settings of the order.
      granularity: "record" or "batch".
      ratio: of all sources, or None.
      weights: relative, by source.
      share: absolute, by source.
      stop: registered name.
      samples: records after which the mix ends, or None.
    """

    order: str
    settings: Mapping[str, Any]
    granularity: str
    ratio: object
    weights: Mapping[str, Any]
    share: Mapping[str, Any]
    stop: str
    samples: int | None


@dataclass(frozen=True, kw_only=True)
class Config:
    """All of a run's configuration, checked.

    Attributes:
      job: registered name.
      job_settings: keyword settings of the job.
      seed: of everything that is drawn.
      shuffle: whether sources are shuffled.
      labels: "union" or "keep".
      sources: in order.
      mix: how they are mixed.
      operators: on every record after the mix.
      batch_size: records.
      remainder: "drop" or "keep".
      data_dir: of prepared TFDS data, None for TFDS's default.
      cache_dir: of decoded records, None for the default.
      stand_in: whether look-alikes may stand in.
    """

    job: str
    job_settings: Mapping[str, Any]
    seed: int
    shuffle: bool
    labels: str
    sources: tuple[SourceConfig, ...]
    mix: MixConfig
    operators: tuple[OperatorConfig, ...]
    batch_size: int
    remainder: Literal["drop", "keep"]
    data_dir: str | None
    cache_dir: str | None
    stand_in: bool


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
    top = _Reader({str(key): value for key, value in plain.items()}, "")
    registry.load_plugins(top.take("plugins", list, default=[]))
    sources = top.child("source")
    if not sources.node:
        raise ConfigError("source: name at least one dataset, as in source=mnist+fashion.")
    mix, stop, batch, data = (top.child(name) for name in ("mix", "stop", "batch", "data"))
    job = top.child("job")
    result = Config(
        job=job.registered("name", "job"),
        job_settings=job.rest(),
        seed=top.take("seed", int),
        shuffle=top.take("shuffle", bool),
        labels=top.choice("labels", ("union", "keep")),
        sources=tuple(_source(name, sources.child(name)) for name in list(sources.node)),
        mix=MixConfig(
            granularity=mix.choice("granularity", ("record", "batch")),
            ratio=mix.take("ratio", object, default=None),
            weights=mix.take("weights", dict, default={}),
            share=mix.take("share", dict, default={}),
            order=mix.registered("order", "order"),
            settings=mix.rest(),
            stop=stop.registered("rule", "stop"),
            samples=stop.take("samples", int, default=None, least=1),
        ),
        operators=_operators(top.take("operators", list, default=[]), "operators"),
        batch_size=batch.take("size", int, least=1),
        remainder=batch.choice("remainder", ("drop", "keep")),  # type: ignore[arg-type]
        data_dir=data.take("dir", str, default=None),
        cache_dir=data.take("cache", str, default=None),
        stand_in=data.take("stand_in", bool),
    )
    top.node.pop(result.job, None)  # where a job's settings come from: bench.seconds is job.seconds
    for reader in (top, stop, batch, data):
        reader.finish()
    return result


def _source(name: str, reader: _Reader) -> SourceConfig:
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
    )


def _operators(nodes: Sequence[Any], where: str) -> tuple[OperatorConfig, ...]:
    """Read a list such as `[to_float, {normalize: {mean: 0, std: 1}}]`."""
    found = []
    for i, node in enumerate(nodes):
        here = f"{where}[{i}]"
        if isinstance(node, Mapping) and "_target_" in node:
            name: object = node["_target_"]
            settings: object = {key: value for key, value in node.items() if key != "_target_"}
        elif isinstance(node, Mapping) and len(node) == 1:
            name, settings = next(iter(node.items()))
        else:
            name, settings = node, {}
        settings = {} if settings is None else settings
        if not isinstance(name, str) or not isinstance(settings, Mapping):
            raise ConfigError(
                f"{here} = {node!r} is no operator; write a name, or a name with its settings: "
                "normalize: {mean: 0.5, std: 0.5}."
            )
        _refuse_targets(settings, here)
        registry.require("operator", name, here)
        registry.check_settings(f"{here}.{name}", registry.lookup("operator", name), settings)
        found.append(OperatorConfig(name=name, settings=settings))
    return tuple(found)


def _refuse_targets(node: object, where: str) -> None:
    """Nothing but sources and operators is built from a config; Hydra's way of naming more is refused."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            raise RegistryError(
                f"{f'{where}._target_'.lstrip('.')} = {node['_target_']!r}: nothing can be built here; a config builds "
                "sources and operators that the registry holds."
            )
        for key, value in node.items():
            _refuse_targets(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _refuse_targets(value, f"{where}[{i}]")


class _Reader:
    """Takes checked values out of one node of the configuration, and refuses what is left over."""

    def __init__(self, node: dict[str, Any], where: str) -> None:
        self.node, self.where = node, where
        self._known = list(node)

    def _key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def child(self, name: str) -> _Reader:
        node = self.node.pop(name, None)
        if not isinstance(node, Mapping):
            raise ConfigError(f"{self._key(name)} = {node!r}; it is a group of keys.")
        return _Reader({str(key): value for key, value in node.items()}, self._key(name))

    def take(self, name: str, kind: type[Any], *, default: Any = ..., least: int | None = None) -> Any:
        value = self.node.pop(name, None)
        if value is None:
            if default is ...:
                raise ConfigError(f"{self._key(name)} is missing; it is {registry.KINDS[kind]}.")
            return default
        if kind is not object and not registry.is_kind(value, kind):
            raise ConfigError(f"{self._key(name)} = {value!r}; it is {registry.KINDS[kind]}.")
        if least is not None and value < least:
            raise ConfigError(f"{self._key(name)} = {value}; it is {least} or more.")
        return value

    def choice(self, name: str, options: Sequence[str]) -> str:
        value: str = self.take(name, str)
        if value not in options:
            raise ConfigError(f"{self._key(name)} = {value!r}. {hint(value, options)}")
        return value

    def registered(self, name: str, kind: str) -> str:
        value: str = self.take(name, str)
        registry.require(kind, value, self._key(name))
        return value

    def rest(self) -> dict[str, Any]:
        _refuse_targets(self.node, self.where)
        rest, self.node = self.node, {}
        return rest

    def finish(self) -> None:
        for name in self.node:
            known = [key for key in self._known if key not in self.node]
            _refuse_targets(self.node, self.where)
            raise ConfigError(f"{self._key(name)}: there is no such key. {hint(name, known)}")
