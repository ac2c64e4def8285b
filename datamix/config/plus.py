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
    """
    node: dict[str, Any] = {
        "defaults": ["_self_", *({f"/dataset@source.{name}": dataset} for name, dataset in datasets_of(text).items())],
        "source": _open(),
        "mix": {"weights": _open(), "share": _open()},
        "stop": {"epochs": _open()},
        "sweep": {"goal_weights": _open()},
    }
    return OmegaConf.create(node)


def datasets_of(text: str) -> dict[str, str]:
    """The dataset of each source that `source=` names.

    >>> datasets_of("mnist+fashion+mnist@easy")
    {'mnist': 'mnist', 'fashion': 'fashion', 'easy': 'mnist'}
    """
    datasets: dict[str, str] = {}
    for part in text.split("+"):
        dataset, at, name = part.partition("@")
        name = name if at else dataset
        for each in (dataset, name):
            if not re.fullmatch(r"[A-Za-z_]\w*", each):
                raise ConfigError(f"{each!r} is not the name of a dataset; write source=mnist+fashion", key="source")
        if name in datasets:
            mend = f"give its second use a name of its own, as in source={dataset}+{dataset}@again"
            raise ConfigError(f"{name!r} is named twice; {mend}", key="source")
        datasets[name] = dataset
    return datasets


def _open() -> DictConfig:
    # Hydra closes the whole configuration before it applies the overrides; a node's own flag wins.
    return OmegaConf.create({}, flags={"struct": False})


def in_memory() -> DictConfig:
    """The config of a source whose arrays lie in memory."""
    return OmegaConf.create({"_target_": "arrays"})
