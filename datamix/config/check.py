"""From plain values to the dataclasses of `datamix.config.schema`, each mistake named by its full key."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from datamix import registry
from datamix.config.files import homes
from datamix.config.schema import Key
from datamix.errors import ConfigError, RegistryError, hint

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")

_TYPES = {
    "int_type": registry.KINDS[int],
    "float_type": registry.KINDS[float],
    "bool_type": registry.KINDS[bool],
    "string_type": registry.KINDS[str],
    "tuple_type": registry.KINDS[list],
    "dict_type": registry.KINDS[dict],
}
"""What Pydantic's types of errors say that a value should have been, as a user knows it."""


class Node:
    """A group of the configuration, whose values are taken out one by one, so that those nobody knows are left."""

    def __init__(self, values: object, where: str = "") -> None:
        if not isinstance(values, Mapping):
            raise ConfigError("it is a group of keys", key=where, value=values)
        self.values: dict[str, Any] = {str(key): value for key, value in values.items()}
        self.where = where
        self._taken: list[str] = []
        self._groups: dict[str, Node] = {}

    def key(self, name: str) -> str:
        """The full key of a name in this group."""
        return f"{self.where}.{name}" if self.where else name

    def group(self, name: str) -> Node:
        """A group within this one.

        Raises:
          ConfigError: There is none of this name.
        """
        if name not in self._groups:
            self._groups[name] = Node(self.values.pop(name, None), self.key(name))
        return self._groups[name]

    @property
    def known(self) -> list[str]:
        """The names that this group has a place for, as far as they have been asked for."""
        return [name for name in (*self._taken, *self._groups) if not name.startswith("_")]

    def take(self, path: str) -> Any:
        """The value of a key below this group, which is taken out of it; None where there is none."""
        group, _, name = path.rpartition(".")
        if group:
            return self.group(group).take(name)
        self._taken.append(name)
        return self.values.pop(name, None)

    def rest(self) -> dict[str, Any]:
        """All values that nobody has taken, which are taken out.

        Raises:
          RegistryError: One of them names something to build.
        """
        refuse_targets(self.values, self.where)
        values, self.values = self.values, {}
        return values

    def finish(self) -> None:
        """Refuse what is left in this group and those within.

        Raises:
          ConfigError: A key that is not known.
        """
        for group in self._groups.values():
            group.finish()
        for name in self.rest():
            raise unknown_key(self.key(name), self.known)


def read(schema: type[T], node: Node, **values: object) -> T:
    """Take the fields of a dataclass out of a group of the configuration and check them.

    Args:
      schema: The dataclass.
      node: The group that the keys of its fields start from.
      values: Fields that are known already.

    Raises:
      ConfigError: A value of another type, or out of its range.
      RegistryError: A name that the registry does not have.
    """
    dataclass: Any = schema  # mypy takes type[T] for something that cannot be hashed
    keys = keys_of(dataclass)
    required = {each.name for each in fields(dataclass) if each.default is each.default_factory is MISSING}
    settings = {}
    for name, key in keys.items():
        if name in values:
            continue
        if key.path.endswith("*"):
            settings[name] = key.path.removesuffix("*").removesuffix(".")
        elif (value := node.take(key.path)) is not None or name in required:
            values[name] = value
    for name, group in settings.items():  # what is left, once the other fields have theirs
        values[name] = (node.group(group) if group else node).rest()
    checked: T = _validate(dataclass, values, {name: node.key(key.path) for name, key in keys.items()})
    for name, key in keys.items():
        if key.kind and (value := getattr(checked, name)):
            registry.require(key.kind, value, node.key(key.path))
    return checked


def _validate(schema: Any, values: Mapping[str, object], keys: Mapping[str, str]) -> Any:
    """Check the fields of a dataclass.

    Args:
      schema: The dataclass.
      values: Its fields.
      keys: The full key of each field, for the error.

    Raises:
      ConfigError: A value of another type, or out of its range.
    """
    from pydantic import ValidationError

    try:
        return _adapter(schema).validate_python(values)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        name, *inner = details["loc"]
        key = keys.get(str(name), str(name)) + "".join(f"[{i}]" if isinstance(i, int) else f".{i}" for i in inner)
        raise _mistake(key, details) from None


def _mistake(key: str, details: ErrorDetails) -> ConfigError:
    """What Pydantic found, as a sentence."""
    kind, value, bounds = details["type"], details["input"], details.get("ctx", {})
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", bounds["expected"])
        return ConfigError(key=key, value=value, hint=hint(str(value), known))
    if kind in _TYPES:
        text = f"it is {_TYPES[kind]}"
    elif kind == "greater_than_equal":
        text = f"it is {bounds['ge']} or more"
    elif kind == "greater_than":
        text = f"it is above {bounds['gt']:g}"
    elif kind == "less_than_equal":
        text = f"it is {bounds['le']} or less"
    elif kind == "less_than":
        text = "it is a finite number"
    else:
        text = details["msg"]
    return ConfigError(text, key=key, value=value)


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    # Pydantic, and neither cattrs nor msgspec: all three check a configuration in 2 to 8 µs, but only Pydantic's errors
    # are data (path, kind, value, bounds); msgspec's path is in a sentence, and it drops unknown keys of a dataclass in
    # silence; cattrs converts "3" to 3 unless every type gets a hook of its own. What it costs is the import: 40 ms of
    # CPU and 20 ms for the adapters (cattrs 15 + 5, msgspec 7 + 3), so it is imported when first needed: help is not.
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


@cache
def keys_of(schema: Any) -> dict[str, Key]:
    """Where each field of a dataclass stands in the YAML, relative to the group it is read from."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {
        field.name: next((part for part in getattr(hints[field.name], "__metadata__", ()) if isinstance(part, Key)),
                         Key(field.name))
        for field in fields(schema)
    }  # fmt: skip


def unknown_key(path: str, known: Collection[str], *, kind: str = "key", key: str | None = None) -> ConfigError:
    """The error for a key that is not known: which choices bring it, or the nearest one that is.

    Args:
      path: The key up to the part that is not known.
      known: The names that stand beside that part.
      kind: What that part names: a key or a source.
      key: The full key; None where it ends with that part.
    """
    key = key or path
    if choices := homes().get(path):
        add = f"Add {choices[0]}" if len(choices) == 1 else "Add one of them"
        return ConfigError(f"it belongs to {' or '.join(choices)}", key=key, hint=f"{add}, or leave it out.")
    parent, _, name = path.rpartition(".")
    text = f"there is no {kind} {name!r}{f' in {parent}' if parent else ''}"
    return ConfigError(text, key=key, hint=hint(name, known))


def refuse_targets(node: object, where: str) -> None:
    """Refuse to build anything but what the registry has; Hydra's way of naming more is a `_target_`.

    Raises:
      RegistryError: There is a `_target_` in the node.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            raise RegistryError(
                "nothing can be built here",
                key=f"{where}._target_".lstrip("."),
                value=node["_target_"],
                hint="A config builds what the registry has, where it has a place for it.",
            )
        for key, value in node.items():
            refuse_targets(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            refuse_targets(value, f"{where}[{i}]")
