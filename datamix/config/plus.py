"""The config group `source`: any datasets of the group `dataset`, joined by `+`."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from datamix.errors import ConfigError
from datamix.mixing.groups import SELF

MIX = "mix"
"""The `_target_` of a dataset that is itself a mix."""

# What every source understands, whatever it is built from.
_SOURCE_KEYS = ("split", "limit", "seed", "operators", "class_names", "stand_in", "test_split")

_repository: ContextVar[ConfigRepository] = ContextVar("repository")
_load_config = ConfigRepository.load_config


def _load_and_remember(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    token = _repository.set(self)
    try:
        return _load_config(self, config_path)
    finally:
        _repository.reset(token)


# `PlusSource` looks into the datasets it names, and a config source is not told where it is searched from. Patched when
# this is imported, so that it is so as well where a launcher's worker unpickles the source.
ConfigRepository.load_config = _load_and_remember  # type: ignore[method-assign]


class PlusSource(ConfigSource):
    """`source=a+b` stands for the defaults `/dataset@source.a: a` and `/dataset@source.b: b`.

    And for the keys that every source has, so that they can be overridden without Hydra's `+`. Where a dataset is
    itself a mix, the datasets it is made of have them too, under its name.
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
        members = {name: _members(name, ()) for name in names}
        node = {
            "defaults": ["_self_", *({f"/dataset@source.{name}": name} for name in names)],
            "source": {name: _settings(inner) for name, inner in members.items()},
            "mix": {"weights": _blanks(members, SELF), "share": _blanks(members, SELF)},
            "stop": {"epochs": _blanks(members)},
        }
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(node),
            header={"package": "_global_"},
        )


Members = dict[str, Any]
"""What a mix is made of, by name: nothing for a dataset, the members of one that is itself a mix."""


def _members(dataset: str, within: tuple[str, ...]) -> Members:
    """What a dataset is made of, if it is a mix."""
    found = _repository.get().load_config(f"dataset/{dataset}")
    if found is None or not isinstance(found.config, DictConfig) or found.config.get("_target_") != MIX:
        return {}
    if dataset in within:
        raise ConfigError(f"source: the mix {dataset!r} is made of itself: {' -> '.join((*within, dataset))}.")
    members: Members = {}
    for default in found.defaults_list or ():
        if isinstance(default, GroupDefault) and default.group == "/dataset":
            value = default.get_name()
            members[default.package or str(value)] = _members(str(value), (*within, dataset))
    if not members:
        raise ConfigError(
            f"source: {dataset} is a mix of nothing; name what it is made of in its defaults: - /dataset@mnist: mnist"
        )
    return members


def _settings(members: Members) -> dict[str, Any]:
    if not members:
        return dict.fromkeys(_SOURCE_KEYS)
    own = {"ratio": None, "weights": dict.fromkeys(members), "share": dict.fromkeys(members)}
    return own | {name: _settings(inner) for name, inner in members.items()}


def _blanks(members: Members, *own: str) -> dict[str, Any]:
    """A place for a number for each source, and for each within it; a mix has one of its `own` as well."""
    return {name: {**dict.fromkeys(own), **_blanks(inner, *own)} if inner else None for name, inner in members.items()}


class PlusSearchPath(SearchPathPlugin):
    """Puts `PlusSource` where Hydra looks for configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="datamix", path="plus://")
