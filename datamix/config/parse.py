"""Read a composed configuration into the checked dataclasses of `datamix.config.schema`.

Parsing imports neither JAX nor TensorFlow; the settings of operators, models and optimizers, whose modules need JAX,
are checked when the mix is built.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from datamix import registry
from datamix.config.check import BY_SOURCE, Node, keys_of, leaves_of, read, refuse_targets, unknown_key
from datamix.config.plus import MIX
from datamix.config.renamed import TARGET, rename_keys
from datamix.config.schema import (
    LARGEST,
    AdaptConfig,
    Config,
    MixConfig,
    OperatorConfig,
    SourceConfig,
    SweepConfig,
    TrainConfig,
)
from datamix.errors import ConfigError, first_line, hint, nearest
from datamix.mixing.groups import SELF, by_path, groups_of, resolve
from datamix.mixing.weights import parse_ratio

_RULES = ("ratio", "weights", "share")
# Settings of a dataset that a mix within the mix does not have; they are set for its members.
_SETTINGS = {"split", *(field.name for field in fields(SourceConfig))} - {"name", "target", "settings"}


def without_hydra(node: DictConfig) -> DictConfig:
    """A composed configuration without Hydra's own part; the configuration itself, if it has none."""
    if "hydra" not in node:
        return node
    copy = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
    assert isinstance(copy, DictConfig)
    return copy


def parse(node: DictConfig, hydra: DictConfig | None = None) -> Config:
    """Check a composed configuration and read it into dataclasses.

    Args:
      node: The configuration. The modules that its `plugins` names are imported before anything else is resolved, since
        they may register resolvers.
      hydra: Hydra's own part of it, if that is not in the node. Its choices and interpolations decide which keys of the
        top level are the user's own.

    Raises:
      DatamixError: A key is unknown, or its value is wrong.
    """
    registry.load_plugins(_plugins(node))
    hydra = node.get("hydra") if hydra is None else hydra
    plain = _plain(without_hydra(node))
    rename_keys(plain)
    top = Node(plain)
    top.take("plugins")

    nodes = top.group("source")
    if not nodes.values:
        raise ConfigError("name at least one dataset, as in source=mnist+fashion", key="source")
    group_weights: dict[str, Any] = {}
    sources = tuple(_sources(nodes, "", group_weights))
    config = read(
        Config,
        top,
        sources=sources,
        mix=_mix(top, [source.name for source in sources], group_weights),
        operators=_operators(top.take("operators"), "operators"),
        shuffle="null" if (shuffle := top.take("shuffle")) is None else shuffle,
        adapt=_adapt(top),
        sweep=_sweep(top),
        train=_train(top, hydra) if "train" in top.values else None,
        **({} if "job" in top.values else {"job": "", "job_settings": {}}),
    )
    if config.job in top.values:  # to which the job's settings refer: job.seconds is ${bench.seconds}
        settings = top.group(config.job)
        for name in config.job_settings:
            settings.take(name)
    experiment = top.values.get("experiment")
    misplaced = next((key for key in experiment if key in node), "") if isinstance(experiment, Mapping) else ""
    if misplaced:
        mend = "Let the file of the experiment begin with the line # @package _global_."
        raise ConfigError("it sets nothing there", key=f"experiment.{misplaced}", hint=mend)
    users = _user_keys(node, hydra) if top.values else ()
    for name in [name for name in top.values if name in users]:
        refuse_targets(top.values.pop(name), name)
    top.finish()
    mix = config.mix
    ends = [mix.samples, None if mix.batches is None else min(mix.batches * config.batch_size, LARGEST)]
    return replace(config, mix=replace(mix, samples=min((end for end in ends if end is not None), default=None)))


def _plain(node: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(node, resolve=resolve, throw_on_missing=resolve)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        other = _mistyped(node, key)
        mend = f"Did you mean it by {other}? " * bool(other) + f"Write {key}=…."
        raise ConfigError("it has no default", key=key, value=None, hint=mend) from error
    except OmegaConfBaseException as error:
        text, mend = first_line(error), ""
        if match := re.search(r"Environment variable '(.*)' not found", text):
            text = f"there is no variable {match[1]} in the environment"
            mend = f"Set it, or say what it is without: ${{oc.env:{match[1]},VALUE}}."
        raise ConfigError(text, key=error.full_key or "a key", hint=mend) from error
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deeply; give its values in fewer levels.") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _mistyped(node: DictConfig, missing: str) -> str:
    """A key of the same source that is similar to a missing one, and that the source does not take; else empty."""
    parent, _, name = missing.rpartition(".")
    beside = OmegaConf.select(node, parent) if parent.startswith("source.") else {}
    target = beside.get(TARGET)
    if target not in registry.names("source"):
        return ""
    known = {
        *registry.settings(registry.lookup("source", target)),
        *(key.path for key in keys_of(SourceConfig).values()),
    }
    others = (str(other) for other in beside if other not in known)
    return next((f"{parent}.{other}" for other in others if nearest(other, [name])), "")


def _plugins(node: DictConfig) -> list[Any]:
    plugins = _plain(OmegaConf.masked_copy(node, ["plugins"])).get("plugins") if "plugins" in node else None
    if not isinstance(plugins, list | None):
        raise _no_list("plugins", str(plugins).removesuffix(".py"))
    return plugins or []


def _user_keys(node: DictConfig, hydra: DictConfig | None) -> set[str]:
    """The user's own names at the top level: `vars`, config groups, and names to which interpolations refer."""
    parts = [node] if hydra is None else [node, hydra]
    texts = [text for part in parts for text in _interpolations(_plain(part, resolve=False))]
    # Names among the arguments of a resolver count, too: ${product:${mine.records},2}, ${oc.select:mine.records}.
    names = {name for text in texts for name in re.findall(r"[{:,]\s*['\"]?([A-Za-z_]\w*)", text)}
    choices = (OmegaConf.select(hydra, "runtime.choices") if hydra is not None else None) or {}
    return {"vars", *names, *(str(group).partition("/")[0].partition("@")[0] for group in choices)}


def _interpolations(node: object) -> Iterator[str]:
    if isinstance(node, Mapping | list):
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _interpolations(value)
    elif isinstance(node, str) and "${" in node:
        yield node


def _mix(top: Node, names: Sequence[str], group_weights: Mapping[str, Any]) -> MixConfig:
    known = {*names, *groups_of(names)}
    for key in BY_SOURCE:
        group, _, name = key.partition(".")
        value = top.group(group).values.get(name)
        if registry.is_kind(value, float) or (isinstance(value, str) and key != "mix.loss_weight"):
            several, number = (
                (names[:1], 2) if isinstance(value, str) else (names[: 1 if name == "share" else 3], value)
            )
            each = " ".join(f"{key}.{source}={number}" for source in several)
            mend = f"Write mix.ratio={value}." if ":" in str(value) else f"Write them as in {each}."
            raise ConfigError("it has a number for each source", key=key, value=value, hint=mend)
        _require_sources(value, "", key, known)
    mix = read(MixConfig, top, group_weights=group_weights)
    _require_known(top.group("mix"), "order", mix.order, mix.settings)
    _require_known(top.group("stop"), "stop", mix.stop, mix.stop_settings)
    _require_known(top.group("weighting"), "weighting", mix.weighting_rule, mix.weighting_settings)
    return replace(mix, epochs=by_path(mix.epochs), max_epochs=by_path(mix.max_epochs))


def _require_sources(node: object, prefix: str, key: str, known: Collection[str]) -> None:
    """Refuse names in a group, and in groups within it, that are not paths of sources."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        path = f"{prefix}{name}"
        if name == SELF and prefix:
            continue
        if path not in known:
            beside = {other[len(prefix) :].partition(".")[0] for other in known if other.startswith(prefix)}
            error = unknown_key(f"{key}.{name}", beside, kind="source")
            raise _within(error, key, name, known if not prefix else ()) or error
        _require_sources(value, f"{path}.", f"{key}.{name}", known)


def _sources(nodes: Node, prefix: str, group_weights: dict[str, Any]) -> Iterator[SourceConfig]:
    """The sources of a group, and of mixes within the mix, by their paths; weights of such members are added to a dict.

    Args:
      nodes: The group.
      prefix: The path of the group, with a dot at its end; empty for the mix itself.
      group_weights: The dict of weights by path, to which those of members are added.
    """
    names = [name for name, value in nodes.values.items() if isinstance(value, Mapping) and TARGET in value]
    paths = [*_paths(nodes.values)]
    for name in list(nodes.values):
        node = nodes.group(name)
        if name not in names:
            error = _unknown_source(node, names)
            raise _within(error, nodes.where, name, paths) or error
        if node.values[TARGET] == MIX:
            group_weights.update(_weights_of(node, prefix + name))
            yield from _sources(node, f"{prefix}{name}.", group_weights)
        else:
            yield _source(prefix + name, node)


def _paths(sources: Mapping[str, Any]) -> Iterator[str]:
    """The path of each source in a group, including those in mixes within it."""
    for name, value in sources.items():
        if isinstance(value, Mapping) and TARGET in value:
            yield name
            yield from (f"{name}.{path}" for path in _paths(value))


def _within(error: ConfigError, parent: str, name: str, paths: Collection[str]) -> ConfigError | None:
    """The error for a name without its path, of a member of a mix within the mix; None if there is no such member."""
    rest = f"{error.key}"[len(f"{parent}.{name}") :]
    meant = [f"{parent}.{path}{rest}" for path in sorted(paths) if path.endswith(f".{name}")]
    text = f"there is no source {name!r} in {parent}"
    return ConfigError(text, key=error.key, hint=f"Did you mean {' or '.join(meant)}?") if meant else None


def _unknown_source(node: Node, names: Sequence[str]) -> ConfigError:
    parent, _, name = node.where.rpartition(".")
    key, _ = next(leaves_of(node.values, node.where))
    near = hint(name, names)
    mend = f"To mix {name}, name it in source=; if it is there, its file needs a line _target_: FORMAT."
    advice = near if near.startswith("Did") else f"{near} {mend}" if names else mend
    return ConfigError(f"there is no source {name!r} in {parent}", key=key, hint=advice)


def _weights_of(node: Node, path: str) -> dict[str, Any]:
    """The weights of the members of a source that is itself a mix, by their path."""
    node.take(TARGET)
    ratio, weights, share = (node.take(rule) for rule in _RULES)
    members = [name for name, value in node.values.items() if isinstance(value, Mapping)]
    for name in [name for name in node.values if name not in members]:
        if node.values.pop(name) is None:
            continue
        if name not in _SETTINGS:
            raise unknown_key(node.key(name), [*_RULES, *members])
        mend = f"Set {name} of what it is made of: {node.key(next(iter(members), 'NAME'))}.{name}."
        raise ConfigError(f"{path} is a mix, and takes ratio, weights and share", key=node.key(name), hint=mend)
    members = [name for name in members if TARGET in node.values[name]]
    if not members:
        text = f"{path} is a mix of nothing; name what it is made of in its defaults: - /dataset@mnist: mnist"
        raise ConfigError(text, key="source")
    for name, value in (("weights", weights), ("share", share)):
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError("it is a group of keys", key=node.key(name), value=value)
    shares = resolve(members, ratio=ratio, weights=weights, share=share, where=node.where).shares
    if not by_path(share):
        # The numbers as given, not shares of 1, so that a weight in mix.weights counts in the same unit.
        numbers = parse_ratio(ratio, members) if ratio is not None else dict.fromkeys(members, 1) | by_path(weights)
        shares = tuple(numbers[name] for name in members)
    return {f"{path}.{name}": number for name, number in zip(members, shares, strict=True)}


def _source(name: str, node: Node) -> SourceConfig:
    class_names = node.take("class_names")
    source = read(
        SourceConfig,
        node,
        name=name,
        operators=_operators(node.take("operators"), node.key("operators")),
        class_names=[str(each) for each in class_names] if isinstance(class_names, list) else class_names or (),
    )
    settings = {key: value for key, value in source.settings.items() if value is not None}
    function = registry.lookup("source", source.target)
    parameters = registry.settings(function)
    arguments = {key: value for key, value in settings.items() if key != "split" or key in parameters}
    if len(arguments) < len(settings) and not isinstance(settings["split"], str):  # datamix slices the records
        raise ConfigError("it is text", key=node.key("split"), value=settings["split"])
    _require_known(node, "source", source.target, arguments)
    registry.check_settings(node.where, function, arguments)
    return replace(source, settings=settings)


def _require_known(node: Node, kind: str, name: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that a component does not take; the error has the nearest of all keys that its group may have."""
    component = registry.lookup(kind, name)
    parameters = registry.settings(component) if callable(component) else ()
    for key in settings:
        if key not in parameters:
            raise unknown_key(node.key(key), {*parameters, *node.known})


def _sweep(top: Node) -> SweepConfig:
    directories = top.group("sweep").take("dir") or []
    several = directories if isinstance(directories, list) else [directories]
    if not all(isinstance(directory, str) for directory in several):
        raise ConfigError("it is the directory of a sweep, or a list of them", key="sweep.dir", value=directories)
    return read(SweepConfig, top, directories=several)


def _adapt(top: Node) -> AdaptConfig | None:
    if "adapt" not in top.values:
        return None
    node = top.group("adapt")
    if not node.values.get("reference"):  # `source=a+b` brings it for the policies that take it
        node.values.pop("reference", None)
    if not node.values:  # adapt=none
        return None
    if TARGET not in node.values:
        raise unknown_key(node.key(next(iter(node.values))), ())
    return read(AdaptConfig, top)


def _train(top: Node, hydra: DictConfig | None) -> TrainConfig:
    schedule, settings = _named(top.take("optimizer.schedule"), "schedule", "optimizer.schedule")
    train = read(TrainConfig, top, schedule=schedule, schedule_settings=settings)
    alone = hydra is None or hydra.mode != RunMode.MULTIRUN  # the page of a sweep draws the curves of its jobs
    return replace(train, curves=alone) if train.curves is None else train


def _no_list(key: str, value: object) -> ConfigError:
    return ConfigError("it is a list", key=key, value=value, hint=f"Write {key}=[{value}]." if value else "")


def _operators(nodes: object, where: str) -> tuple[OperatorConfig, ...]:
    if not isinstance(nodes, list | None):
        raise _no_list(where, nodes)
    named = [_named(node, "operator", f"{where}[{i}]") for i, node in enumerate(nodes or ())]
    return tuple(OperatorConfig(name=name, settings=settings) for name, settings in named)


def _named(node: object, kind: str, where: str) -> tuple[str, Mapping[str, Any]]:
    """Read a registered name, alone or with settings, as in `{normalize: {mean: 0, std: 1}}`."""
    if isinstance(node, Mapping) and TARGET in node:
        name: object = node[TARGET]
        settings: object = {key: value for key, value in node.items() if key != TARGET}
    elif isinstance(node, Mapping) and len(node) == 1:
        name, settings = next(iter(node.items()))
    else:
        name, settings = node, {}
    settings = {} if settings is None else settings
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        example = {"operator": "{normalize: {mean: 0.5, std: 0.5}}", "schedule": "{cosine: {end: 0.1}}"}[kind]
        if isinstance(name, str):
            registry.require(kind, name, where)
            mend = registry.example(name, registry.lookup(kind, name), settings)
            raise ConfigError("its settings have names", key=where, value=node, hint=mend)
        mend = f"Write a name, or a name with its settings: {example}."
        raise ConfigError(f"it is no {kind}", key=where, value=node, hint=mend)
    refuse_targets(settings, where)
    registry.require(kind, name, where)
    return name, settings
