"""From Hydra's configs to plain, checked values: the only module that knows Hydra's and OmegaConf's types.

Importing it, composing and printing help import neither JAX nor TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamix import registry
from datamix.errors import ConfigError, RegistryError, hint

# What every source understands, whatever it is built from.
_SOURCE_KEYS = ("split", "limit", "seed", "operators", "class_names", "stand_in")


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


def conf_dir() -> Path:
    """Where the shipped configs lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if (path / "config.yaml").is_file())


class PlusSource(ConfigSource):
    """The config group `source`: any datasets of the group `dataset`, joined by `+`.

    `source=a+b` stands for the defaults `/dataset@source.a: a` and `/dataset@source.b: b`, and for the keys that every
    source has, so that they can be overridden without Hydra's `+`.
    """

    @staticmethod
    def scheme() -> str:
        return "plus"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path == "source"

    def is_config(self, config_path: str) -> bool:
        return config_path.startswith("source/")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:  # noqa: ARG002
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        names = config_path.removeprefix("source/").removesuffix(".yaml").split("+")
        for name in names:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ConfigError(f"source: {name!r} is not the name of a dataset; write source=mnist+fashion.")
            if names.count(name) > 1:
                raise ConfigError(f"source: {name!r} is named twice; give its second use a YAML file of its own name.")
        defaults: list[Any] = ["_self_", *({f"/dataset@source.{name}": name} for name in names)]
        node = {
            "defaults": defaults,
            "source": {name: dict.fromkeys(_SOURCE_KEYS) for name in names},
            "mix": {"weights": dict.fromkeys(names), "share": dict.fromkeys(names)},
        }
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(node),
            header={"package": "_global_"},
        )


class PlusSearchPath(SearchPathPlugin):
    """Puts `PlusSource` where Hydra looks for configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="datamix", path="plus://")


def register_with_hydra() -> None:
    """Make `source=a+b` known to Hydra; before `hydra.main` or `compose`."""
    for plugin in (PlusSource, PlusSearchPath):
        Plugins.instance().register(plugin)


def quote_splits(overrides: Sequence[str]) -> list[str]:
    """Quote what Hydra's grammar would refuse: the brackets and colons of `….split=`, the tilde of a home.

    >>> quote_splits(["source.mnist.split=train[:10],test", "seed=1"])
    ["source.mnist.split='train[:10]','test'", 'seed=1']
    """
    quoted = []
    for override in overrides:
        key, equals, value = override.partition("=")
        needed = (key.endswith(".split") and "[" in value) or value.startswith("~/")
        if equals and needed and not re.match(r"['\"]|\w+\(", value):
            value = ",".join(f"'{part}'" for part in value.split(","))
        quoted.append(key + equals + value)
    return quoted


def compose(
    overrides: Sequence[str],
    *,
    config_dir: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
) -> DictConfig:
    """Compose the configuration of a command line, without running a job.

    Args:
      overrides: as on the command line.
      config_dir: more configs, searched first.
      datasets: more options of the group `dataset`, by name.

    Raises:
      ConfigError: an override that the configuration does not know or allow.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    register_with_hydra()
    arguments = quote_splits(overrides)
    if config_dir is not None:
        arguments.append(f"hydra.searchpath=['file://{Path(config_dir).absolute()}']")
    with (
        _stored_datasets(datasets or {}),
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
        one_line_errors(),
    ):
        return hydra_compose("config", arguments)


@contextmanager
def _stored_datasets(datasets: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    store = ConfigStore.instance()
    for name, node in datasets.items():
        store.store(name=name, group="dataset", node=dict(node))
    try:
        yield
    finally:
        for name in datasets:
            del store.repo["dataset"][f"{name}.yaml"]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into a `ConfigError` of one line."""
    from hydra.errors import HydraException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def explain(error: BaseException) -> str:
    """Say in one line what Hydra or OmegaConf says in several, with the nearest known name."""
    text = str(error)
    cause = error.__cause__ or error
    if match := re.search(r"Could not override '([^']+)'", text):
        missing = str(getattr(cause, "full_key", None) or match[1])
        parent, _, name = missing.rpartition(".")
        if "is not in struct" in str(cause):
            node = getattr(cause, "parent_node", None)
            known = [str(key) for key in node] if isinstance(node, DictConfig) else []
            kind = "source" if parent in ("source", "mix.weights", "mix.share") else "key"
            return f"{match[1]}: there is no {kind} {name!r}{f' in {parent}' if parent else ''}. {hint(name, known)}"
        return f"{match[1]}: {str(cause).splitlines()[0]}"
    if match := re.search(r"Error parsing override '(.*)'", text):
        return (
            f"{match[1]!r} is not an override; write key=value, and put quotes around a value with special "
            "characters: key='[a]'."
        )
    if match := re.search(r"An item is already at '([^']+)'", text):
        return f"+{match[1]}: this key exists already; leave out the +."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, name = match[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        kind = {"dataset": "source"}.get(group, group)
        return f"{kind}={name}: there is no {group or 'config'} {name!r}. {hint(name, options)}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


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
    for reader in (top, stop, batch, data):
        reader.finish()
    return result


def _source(name: str, reader: _Reader) -> SourceConfig:
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
