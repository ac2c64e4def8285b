"""The shipped configs: where they lie, and which keys their groups bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Groups that bring no keys of their own: those of datasets are below source.NAME, and experiments set those of others.
_WITHOUT_KEYS = ("dataset", "experiment", "hydra")


@cache
def conf_dir() -> Path:
    """The directory of the shipped configs: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next(path for path in (package / "conf", package.parent / "conf") if (path / "config.yaml").is_file())


def choices_of(group: str, own: Path | None = None) -> list[str]:
    """The options of a group, sorted: shipped ones, and those in the user's `own` directory; none for an unknown group.

    Those of `source` are the datasets.
    """
    folder = "dataset" if group == "source" else group
    directories = [conf_dir(), *([] if own is None else [own])]
    return sorted({path.stem for directory in directories for path in (directory / folder).glob("*.yaml")})


@cache
def homes() -> dict[str, tuple[str, ...]]:
    """The choices that bring a key, by key; "mix.window", for example, comes with "mix=proportional".

    Keys of config.yaml are left out, as they need no choice.
    """
    base_keys = set(_keys(_load(conf_dir() / "config.yaml"), ""))
    choices: dict[str, list[str]] = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        group, option = path.parent.name, path.stem
        if group in _WITHOUT_KEYS:
            continue
        node = _load(path)
        defaults = node.pop("defaults", ())
        is_global = "@package _global_" in path.read_text(encoding="utf-8").partition("\n")[0]
        # A default such as `/model: cnn` brings a group from which config.yaml does not choose.
        groups = [name.lstrip("/") for each in defaults if isinstance(each, Mapping) for name in each]
        keys = [*_keys(node, "" if is_global else f"{group}."), *(name for name in groups if " " not in name)]
        for key in dict.fromkeys(keys):
            if key not in base_keys:
                choices.setdefault(key, []).append(f"{group}={option}")
    return {key: tuple(each) for key, each in choices.items()}


@cache
def all_keys() -> tuple[str, ...]:
    """All shipped keys, those of config.yaml first, without those of datasets."""
    return tuple(dict.fromkeys([*_keys(_load(conf_dir() / "config.yaml"), ""), *homes()]))


def _load(path: Path) -> dict[str, Any]:
    node = OmegaConf.load(path)
    plain = OmegaConf.to_container(node) if isinstance(node, DictConfig) else {}
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _keys(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """All keys below a node, including those of groups."""
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")
