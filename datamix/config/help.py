"""The meaning of every key, from the comments of the shipped YAML files and the schema of a source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from datamix.config.check import keys_of, unknown_key
from datamix.config.files import choices_of, conf_dir
from datamix.config.schema import SourceConfig

_LINE = re.compile(r"( *)([A-Za-z_]\w*):(?: +(.*?))?(?: *(?<![\w'\"])# (.*))?$")


class SettingLine(NamedTuple):
    """One line of a YAML file."""

    key: str
    default: str
    meaning: str


def settings_of(path: Path, prefix: str = "") -> tuple[str, list[SettingLine]]:
    """The comment at the head of a YAML file, which says what it is for, and its settings with their comments."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    heading = " ".join(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)
    package = "" if "@package _global_" in text else prefix
    return heading, [SettingLine(key, value, meaning) for _, key, value, meaning in _keyed(text, package) if value]


def _keyed(text: str, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Each line of YAML with its full key, value and comment, which are empty if it has none."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if (match := _LINE.match(line)) is None:
            yield line, "", "", ""
            continue
        while parents and parents[-1][0] >= len(match[1]):
            parents.pop()
        parents.append((len(match[1]), match[2]))
        key = ".".join([*([prefix] if prefix else []), *(name for _, name in parents)])
        yield line, key, "" if "defaults" in key else match[3] or "", match[4] or ""


def meanings_of(docstring: str) -> dict[str, str]:
    r"""The meaning of each argument or attribute that a docstring in Google's style lists.

    >>> meanings_of("Go.\n\nArgs:\n  far: How far; None for\n    ever.\n")
    {'far': 'How far; null for ever.'}
    """
    section = re.search(r"^ *(?:Args|Attributes):\n((?:(?:  .*)?\n?)*)", inspect.cleandoc(docstring), re.MULTILINE)
    entries = re.findall(r"^  (\w+): ((?:.|\n    )*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.replace("None", "null").split()) for name, text in entries}


def commented(
    config: DictConfig, choices: Mapping[str, str], topic: str = "", *, resolve: bool = False, own: Path | None = None
) -> str:
    """A configuration in YAML, with the meaning of each key as a comment.

    Args:
      config: The configuration, without Hydra's part.
      choices: The option of each config group, by its name in Hydra, such as `mix` or `dataset@source.mnist`.
      topic: The only group or key to show, with the options to choose from; empty for all.
      resolve: Whether interpolations are resolved.
      own: The directory of the user's own YAML files, which take precedence over shipped ones.

    Raises:
      ConfigError: There is no such group or key.
    """
    files = {"config": ""}
    for group, option in choices.items():
        folder, _, package = group.partition("@")
        files[f"{folder}/{option}"] = package or group

    def path_of(file: str) -> Path:
        user_file = None if own is None else own / f"{file}.yaml"
        return user_file if user_file is not None and user_file.is_file() else conf_dir() / f"{file}.yaml"

    paths = {path_of(file): package for file, package in files.items()}
    known = [each for path, package in paths.items() if path.is_file() for each in settings_of(path, package)[1]]
    meanings = {each.key: each.meaning for each in known if each.meaning}
    fields, lines, shown = meanings_of(SourceConfig.__doc__ or ""), [], ""
    of_source = {
        key.path: fields[name] for name, key in keys_of(SourceConfig).items() if name not in ("name", "settings")
    }
    whole = list(_keyed(OmegaConf.to_yaml(config, resolve=resolve)))
    keys = {key for _, key, _, _ in whole if key}
    for line, key, _, _ in whole:
        shown = key or shown
        meaning = meanings.get(key) or (of_source.get(key.rpartition(".")[2]) if key.startswith("source.") else "")
        if f"{shown}.".startswith(f"{topic}." if topic else ""):
            lines.append(f"{line}  # {meaning}" if meaning else line)
    folder = "dataset" if topic == "source" else topic
    choosable = choices_of(topic, own) if topic else []
    options = [f"{topic}={name}: {settings_of(path_of(f'{folder}/{name}'))[0]}".rstrip(": ") for name in choosable]
    parent, _, name = topic.rpartition(".")
    if parent.startswith("source.") and name in of_source and not lines:
        lines.append(f"{topic}: {of_source[name]}")
    if not lines and not options:
        beside = {key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == parent}
        raise unknown_key(topic, beside if parent else {*beside, *(each for each in choices if each.isidentifier())})
    if topic == "source":
        lines += ["", *(f"source.NAME.{key}: {meaning}" for key, meaning in of_source.items())]
    return "\n".join([*options, *([""] if options else []), *lines])
