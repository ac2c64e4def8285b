"""Checked values out of one node of a configuration, each mistake named by its full key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datamix import registry
from datamix.errors import ConfigError, RegistryError, hint


def refuse_targets(node: object, where: str) -> None:
    """Nothing but sources and operators is built from a config; Hydra's way of naming more is refused."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            raise RegistryError(
                f"{f'{where}._target_'.lstrip('.')} = {node['_target_']!r}: nothing can be built here; a config builds "
                "sources and operators that the registry holds."
            )
        for key, value in node.items():
            refuse_targets(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            refuse_targets(value, f"{where}[{i}]")


class NodeReader:
    """Takes checked values out of one node of the configuration, and refuses what is left over."""

    def __init__(self, node: dict[str, Any], where: str) -> None:
        self.node, self.where = node, where
        self._known = list(node)

    def _key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def child(self, name: str) -> NodeReader:
        node = self.node.pop(name, None)
        if not isinstance(node, Mapping):
            raise ConfigError(f"{self._key(name)} = {node!r}; it is a group of keys.")
        return NodeReader({str(key): value for key, value in node.items()}, self._key(name))

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
        refuse_targets(self.node, self.where)
        rest, self.node = self.node, {}
        return rest

    def finish(self) -> None:
        for name in self.node:
            known = [key for key in self._known if key not in self.node]
            refuse_targets(self.node, self.where)
            raise ConfigError(f"{self._key(name)}: there is no such key. {hint(name, known)}")
