"""What every key means: from the comments of the shipped YAML files, and from the schema of a source."""

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
    """What a YAML file is for, by its first comment, and its settings with the comments that stand beside them."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    heading = " ".join(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)
    package = "" if "@package _global_" in text else prefix
    return heading, [SettingLine(key, value, meaning) for _, key, value, meaning in _keyed(text, package) if value]


def _keyed(text: str, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Each line of YAML, its full key, its value and its comment; these are empty where there are none."""
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
    """A configuration in YAML with the meaning of its keys beside them.

    Args:
      config: The configuration, without Hydra's part.
      choices: The option of each config group, as Hydra keeps them: `dataset@source.mnist` for a part.
      topic: A group or a key, which alone is shown, with what may be chosen for it; empty for all.
      resolve: Whether interpolations are resolved.
      own: The directory of one's own YAML files, which go before those that are shipped.

    Raises:
      ConfigError: There is no such group or key.
    """
    files = {"config": ""}
    for group, option in choices.items():
        folder, _, package = group.partition("@")
        files[f"{folder}/{option}"] = package or group

    def path_of(file: str) -> Path:
        mine = None if own is None else own / f"{file}.yaml"
        return mine if mine is not None and mine.is_file() else conf_dir() / f"{file}.yaml"

    paths = {path_of(file): package for file, package in files.items()}
    known = [each for path, package in paths.items() if path.is_file() for each in settings_of(path, package)[1]]
    meanings = {each.key: each.meaning for each in known if each.meaning}
    said, lines, shown = meanings_of(SourceConfig.__doc__ or ""), [], ""
    of_source = {
        key.path: said[name] for name, key in keys_of(SourceConfig).items() if name not in ("name", "settings")
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
