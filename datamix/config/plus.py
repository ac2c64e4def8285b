"""The config group `source`: any datasets of the group `dataset`, joined by `+`."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from datamix.errors import ConfigError

MIX = "mix"
"""The `_target_` of a dataset that is itself a mix."""


def joined(text: str) -> DictConfig:
    """The config that `source=a+b` stands for: the defaults `/dataset@source.a: a` and `/dataset@source.b: b`.

    Its nodes with a key for each source are open, so that the command line may set any key of a source without Hydra's
    `+`. Which of these keys mean something is checked where the configuration is parsed.

    Raises:
      ConfigError: A name is none, or stands there twice.
    """
    names = text.split("+")
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"{name!r} is not the name of a dataset; write source=mnist+fashion", key="source")
        if names.count(name) > 1:
            raise ConfigError(f"{name!r} is named twice; give its second use a YAML file of its own name", key="source")
    node: dict[str, Any] = {
        "defaults": ["_self_", *({f"/dataset@source.{name}": name} for name in names)],
        "source": _open(),
        "mix": {"weights": _open(), "share": _open()},
        "stop": {"epochs": _open()},
    }
    return OmegaConf.create(node)


def _open() -> DictConfig:
    # Hydra closes the whole configuration before it applies the overrides; a node's own flag wins.
    return OmegaConf.create({}, flags={"struct": False})


def in_memory() -> DictConfig:
    """The config of a source whose arrays lie in memory."""
    return OmegaConf.create({"_target_": "arrays"})
