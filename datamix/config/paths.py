"""Relative paths of a configuration, which are relative to the directory in which the command was typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_NAMES = ("cache", "dir", "directory", "file", "files", "folder", "path", "paths")


def with_absolute_paths(node: DictConfig, directory: Path) -> DictConfig:
    """A copy of a configuration with absolute paths, for a job that runs in another directory.

    Paths are the values of keys such as `path`, `files` or `data_dir` in `data`, in `sweep` and in sources.

    >>> node = OmegaConf.create({"source": {"own": {"path": "own.npz", "split": "train"}}, "data": {"dir": None}})
    >>> OmegaConf.to_container(with_absolute_paths(node, Path("/here")))
    {'source': {'own': {'path': '/here/own.npz', 'split': 'train'}}, 'data': {'dir': None}}
    """
    moved = node.copy()
    for key in list(_paths(node, "", ("data", "source", "sweep"))):
        value = OmegaConf.select(node, key)
        if isinstance(value, ListConfig):
            OmegaConf.update(moved, key, [_absolute(entry, directory) for entry in value])
        else:
            OmegaConf.update(moved, key, _absolute(value, directory))
    return moved


def _absolute(value: object, directory: Path) -> object:
    relative = isinstance(value, str) and value and not value.startswith("~") and "://" not in value
    return str(directory / str(value)) if relative else value


def _paths(node: DictConfig, prefix: str, names: tuple[str, ...] | None = None) -> Iterator[str]:
    for name in names or [str(key) for key in node]:
        try:
            value = node.get(name)
        except OmegaConfBaseException:  # the job will report it
            continue
        if isinstance(value, DictConfig):
            yield from _paths(value, f"{prefix}{name}.")
        elif value is not None and name.rpartition("_")[2] in _NAMES:
            yield f"{prefix}{name}"
