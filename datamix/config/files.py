"""The shipped configs: where they lie, and what their groups bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Groups whose files bring what the user of a dataset or an experiment chooses.
_OTHERS = ("dataset", "experiment", "hydra")


@cache
def conf_dir() -> Path:
    """The directory of the shipped configs: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next(path for path in (package / "conf", package.parent / "conf") if (path / "config.yaml").is_file())


def choices_of(group: str, own: Path | None = None) -> list[str]:
    """The options that are shipped for a group, and those in a directory of one's own, sorted; none for no group.

    `source` chooses datasets.
    """
    folder = "dataset" if group == "source" else group
    directories = [conf_dir(), *([] if own is None else [own])]
    return sorted({path.stem for directory in directories for path in (directory / folder).glob("*.yaml")})


@cache
def homes() -> dict[str, tuple[str, ...]]:
    """The choices that bring a key, by key: "mix.window" comes with "mix=proportional".

    A key of config.yaml needs no choice.
    """
    there = set(_keys(_load(conf_dir() / "config.yaml"), ""))
    choices: dict[str, list[str]] = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        group, option = path.parent.name, path.stem
        if group in _OTHERS:
            continue
        node = _load(path)
        defaults = node.pop("defaults", ())
        is_global = "@package _global_" in path.read_text(encoding="utf-8").partition("\n")[0]
        # A choice of a group that config.yaml does not choose from: `/model: cnn` brings the group model.
        brought = [name.lstrip("/") for each in defaults if isinstance(each, Mapping) for name in each]
        keys = [*_keys(node, "" if is_global else f"{group}."), *(name for name in brought if " " not in name)]
        for key in dict.fromkeys(keys):
            if key not in there:
                choices.setdefault(key, []).append(f"{group}={option}")
    return {key: tuple(each) for key, each in choices.items()}


@cache
def all_keys() -> tuple[str, ...]:
    """The keys that are shipped, those of config.yaml first; not those of datasets."""
    return tuple(dict.fromkeys([*_keys(_load(conf_dir() / "config.yaml"), ""), *homes()]))


def _load(path: Path) -> dict[str, Any]:
    node = OmegaConf.load(path)
    plain = OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _keys(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """All keys below a node, those of groups as well."""
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")
