"""Read plain values into the dataclasses of `datamix.config.schema`; errors name the full key of a mistake."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, Literal, TypeVar

import msgspec

from datamix import registry
from datamix.config.files import all_keys, choices_of, homes
from datamix.config.renamed import TARGET
from datamix.config.schema import Key, SourceConfig
from datamix.errors import WORDS_OF_OTHERS, ConfigError, RegistryError, hint

T = TypeVar("T")

# msgspec rather than Pydantic or cattrs: all three check a configuration in 2 to 8 µs, but to get ready, msgspec takes
# 8 ms of CPU, cattrs 20, and Pydantic 75, which is 5 % of the time to build a pipeline of small sources. Also, cattrs
# turns "3" into 3 unless each type gets a hook of its own. What msgspec lacks is done here: path and bound are parsed
# from its messages, which have a fixed form, and unknown names are refused (see `Node`).
_MISTAKE = re.compile(
    r"(?P<text>Expected `(?P<type>\w+)[^`]*`(?: (?P<sign>>=|<=|>) (?P<bound>\S+))?.*|.*) - at "
    r"(?:`key` in )?`\$\.(?P<field>\w+)(?P<inner>.*)`"
)
BY_SOURCE = ("mix.weights", "mix.share", "mix.loss_weight", "mix.max_epochs", "stop.epochs")
"""The groups whose keys are names of sources."""
_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "array": list, "object": dict}
"""The types of `registry.KINDS`, by the names that msgspec gives them."""


class Node:
    """A group of the configuration; its values are taken out one by one, so that only unknown ones are left."""

    def __init__(self, values: object, where: str = "") -> None:
        if not isinstance(values, Mapping):
            mend = f"In a file, it is chosen in the defaults: - override /{where}: {values}"
            mend = mend if choices_of(where) else keys_below(where)
            raise ConfigError("it is a group of keys", key=where, value=values, hint=mend)
        self.values: dict[str, Any] = {str(key): value for key, value in values.items()}
        self.where = where
        self._names: list[str] = []
        self._groups: dict[str, Node] = {}

    def key(self, name: str) -> str:
        """The full key of a name in this group."""
        return f"{self.where}.{name}" if self.where else name

    def group(self, name: str) -> Node:
        """The group of a name within this one; an error if there is none."""
        if name not in self._groups:
            self._groups[name] = Node(self.values.pop(name, None), self.key(name))
        return self._groups[name]

    @property
    def known(self) -> list[str]:
        """The names that have been asked for in this group so far."""
        return [name for name in (*self._names, *self._groups) if not name.startswith("_")]

    def take(self, path: str) -> Any:
        """Take out the value of a key below this group; None if there is none."""
        group, _, name = path.rpartition(".")
        if group:
            return self.group(group).take(name)
        self._names.append(name)
        return self.values.pop(name, None)

    def rest(self) -> dict[str, Any]:
        """Take out all values that are left; an error if one of them has a `_target_`."""
        refuse_targets(self.values, self.where)
        values, self.values = self.values, {}
        return values

    def finish(self) -> None:
        """Refuse what is left in this group and those within it: it is unknown."""
        for group in self._groups.values():
            group.finish()
        for name in self.rest():
            if "." in name:
                mend = f"Write {name.replace('.', ': {')}: …{'}' * name.count('.')}."
                raise ConfigError("in a file, groups lie within each other", key=name, hint=mend)
            raise unknown_key(self.key(name), self.known)


def read(schema: type[T], node: Node, **values: object) -> T:
    """Take the fields of a dataclass out of a group of the configuration and check them.

    Args:
      schema: The dataclass.
      node: The group.
      **values: The values of fields that are not taken from the group.

    Raises:
      ConfigError: A value is missing, or has the wrong type, or is out of bounds.
    """
    dataclass: Any = schema  # mypy thinks that type[T] cannot be hashed
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
    for name, group in settings.items():  # last, as they get all values that other fields have left
        values[name] = (node.group(group) if group else node).rest()
    try:
        checked = msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise _mistake(dataclass, node, values, str(error)) from None
    for name, key in keys.items():
        if key.kind and (value := getattr(checked, name)):
            registry.require(key.kind, value, node.key(key.path))
    return checked


def _mistake(schema: Any, node: Node, values: Mapping[str, Any], text: str) -> ConfigError:
    """The error for a message of msgspec on the values of a dataclass, with the key in the YAML and the value."""
    match = _MISTAKE.fullmatch(text)
    assert match, text
    name, kind, bound = match["field"], match["type"], match["bound"]
    key, value = node.key(keys_of(schema)[name].path) + match["inner"], values[name]
    for i in re.findall(r"\[(\d+)\]", match["inner"]):
        value = value[int(i)]
    if options := _options(_hints(schema)[name]):
        return ConfigError(key=key, value=value, hint=hint(str(value), options))
    if match["sign"] == ">=":
        sentence = f"it is {bound} or more"
    elif match["sign"] == ">":
        sentence = f"it is above {float(bound):g}"
    elif match["sign"] == "<=":
        sentence = f"it is {bound} or less" if kind == "int" else "it is a finite number"
    elif kind in _TYPES:
        sentence = f"it is {registry.KINDS[_TYPES[kind]]}"
    else:
        sentence = match["text"].lower()
    mend = ""
    if kind == "int" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        mend = f"Write {int(value)}."
    elif kind in ("int", "float") and isinstance(value, str):
        optional = any(field.name == name and field.default is None for field in fields(schema))
        mend = _number_meant(value) or "Write null to leave it out." * optional
    elif kind == "array" and isinstance(value, str):
        mend = f"Write {key}=[{value}]."
    return ConfigError(sentence, key=key, value=value, hint=mend)


def _number_meant(text: str) -> str:
    """The advice on what to write in place of a text that is not a number; empty if that is unclear."""
    if match := re.fullmatch(r"(\d+) ?([kKMG])(i?)B?", text):
        return f"Write {int(match[1]) * (1024 if match[3] else 1000) ** ('KMG'.index(match[2].upper()) + 1)}."
    if re.fullmatch(r"[-+]?[\d.]+(e-?\d+)?", text):
        return "Write it without quotes; of a variable, write ${oc.decode:${oc.env:NAME}}."
    return ""


def _options(annotation: Any) -> list[str]:
    """The values that an annotation lists; none if it has no `Literal`."""
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    parts = typing.get_args(annotation)
    options = [option for part in parts for option in _options(part)]
    return [*options, "true", "false"] if options and bool in parts else options


@cache
def _hints(schema: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(schema, include_extras=True)


@cache
def keys_of(schema: Hashable) -> dict[str, Key]:
    """The key in the YAML of each field of a dataclass, relative to the group from which it is read."""
    return {
        name: next((part for part in getattr(annotation, "__metadata__", ()) if isinstance(part, Key)), Key(name))
        for name, annotation in _hints(schema).items()
    }


def keys_below(group: str) -> str:
    """The advice on which keys a group has and how to set one."""
    if group in BY_SOURCE:
        return f"Set one of them, as in {group}.NAME=…; a ratio of all sources is mix.ratio=7:3."
    keys = [key for key in all_keys() if key.startswith(f"{group}.") and not key.endswith(TARGET)]
    listing = {"hydra": "--cfg hydra shows its keys.", "source": f"--help {group} shows its keys."}
    return f"Set one of them: {', '.join(sorted(keys))}." if keys else listing.get(group.partition(".")[0], "")


def component_kind(key: str) -> str:
    """The kind of component that a key of the configuration names, one or a list; empty if it names none.

    >>> component_kind("mix._target_"), component_kind("source.mnist.operators"), component_kind("seed")
    ('order', 'operator', '')
    """
    name = key.rpartition(".")[2]
    kinds = {"mix": "order", "adapt": "policy"} | {
        kind: kind for kind in ("source", "stop", "weighting", "model", "optimizer")
    }
    return "operator" if name == "operators" else kinds.get(key.partition(".")[0], "") * (name in (TARGET, "stand_in"))


def unknown_key(path: str, known: Collection[str], *, kind: str = "key", key: str | None = None) -> ConfigError:
    """The error for an unknown key, with the choices that bring it, or the nearest known key.

    Args:
      path: The key up to its unknown part.
      known: The names that are allowed in place of that part.
      kind: What the unknown part names: "key" or "source".
      key: The whole key, as the user wrote it; None for `path`.
    """
    key = key or path
    if choices := homes().get(path):
        return belongs_to(choices, key)
    parent, _, name = path.rpartition(".")
    text = f"there is no {kind} {name!r}{f' in {parent}' if parent else ''}"
    mend = f"Add it: +{key}=…" if path == "vars" else hint(name, known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
    if kind == "key" and not nearest and (others := _elsewhere(path, known)):
        mend = f"Did you mean {' or '.join(others)}? {mend[mend.index('Known') :] if known else ''}".strip()
    return ConfigError(text, key=key, hint=mend)


def belongs_to(choices: Sequence[str], key: str) -> ConfigError:
    """The error for a key that only some choices bring."""
    add = f"Add {choices[0]}" if len(choices) == 1 else "Add one of them"
    return ConfigError(f"it belongs to {' or '.join(choices)}", key=key, hint=f"{add}, or leave it out.")


def _elsewhere(path: str, beside: Collection[str]) -> list[str]:
    """At most three keys that end in the name of an unknown one, or equal it but for dots in place of underscores.

    Of a source's keys, only those of the source end alike: `job.vocab_size` says nothing of a dataset's vocabulary.
    """
    parent, _, name = path.rpartition(".")
    name = WORDS_OF_OTHERS.get(path) or WORDS_OF_OTHERS.get(name, name)
    if name in beside or "." in name:
        return name.split(",") if "." in name else []
    in_source = parent.startswith("source.")
    source = parent.removeprefix("source.") if in_source else "NAME"
    names = [*(key.path for key in keys_of(SourceConfig).values()), "split", "path"]
    of_source = [key for each in names if (key := f"source.{source}.{each}") != path]
    near = [*BY_SOURCE, *of_source] if in_source else [*all_keys(), *of_source]
    ending = [key for key in near if key.endswith(f".{name}")]
    ending += [key for key in all_keys() if "_" in name and key.replace(".", "_") == name]
    return [f"{key}.{source}" if key in BY_SOURCE else key for key in ending[:3]]


def leaves_of(node: object, key: str = "") -> Iterator[tuple[str, Any]]:
    """The full key of each value in a group that is not itself a group, and the value."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from leaves_of(value, f"{key}.{name}" if key else name)
    else:
        yield key, node


def refuse_targets(node: object, where: str) -> None:
    """Refuse every `_target_` below a node, with which Hydra could build something that is not in the registry."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            key, mend = f"{where}._target_", "A config builds what the registry has, where it has a place for it."
            raise RegistryError("nothing can be built here", key=key.lstrip("."), value=node["_target_"], hint=mend)
        for key, value in node.items():
            refuse_targets(value, f"{where}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            refuse_targets(value, f"{where}[{i}]")
