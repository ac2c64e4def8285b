"""The config group `source`: any datasets of the group `dataset`, joined by `+`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from datamix.errors import ConfigError

MIX = "mix"
"""The `_target_` of a dataset that is itself a mix."""

_ARRAYS = {"_target_": "arrays"}


def joined(text: str, memory: Sequence[str] = ()) -> DictConfig:
    """The config that `source=a+b` stands for: the defaults `/dataset@source.a: a` and `/dataset@source.b: b`.

    Groups with a key for each source are open, so that the command line can set any key of a source without Hydra's
    `+`. Whether these keys are known is checked when the configuration is parsed.

    Args:
      text: The names of datasets, joined by `+`; `mnist@easy` is the dataset `mnist` as the source `easy`.
      memory: The datasets in memory. If there are no others, no defaults are listed, as Hydra merges each of them with
        all others.
    """
    datasets = datasets_of(text)
    node: dict[str, Any] = {
        "source": _open(),
        "mix": {name: _open() for name in ("weights", "share", "loss_weight", "max_epochs")},
        "stop": {"epochs": _open()},
        "sweep": {"goal_weights": _open()},
        "adapt": {"reference": _open()},
    }
    if set(datasets.values()) <= set(memory):
        node["source"] = OmegaConf.create(dict.fromkeys(datasets, _ARRAYS), flags={"struct": False})
    else:
        node["defaults"] = ["_self_", *({f"/dataset@source.{name}": dataset} for name, dataset in datasets.items())]
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
                ratio = " mix.ratio=7:3" if re.search("[:*]", each) else ""
                mend = f"write source=mnist+fashion{ratio}, as names have letters, digits and _"
                raise ConfigError(f"{each!r} is not the name of a dataset; {mend}", key="source")
        if name in datasets:
            mend = f"give its second use a name of its own, as in source={dataset}+{dataset}@again"
            raise ConfigError(f"{name!r} is named twice; {mend}", key="source")
        datasets[name] = dataset
    return datasets


def _open() -> DictConfig:
    # Hydra closes the whole configuration before it applies the overrides; a node's own flag takes precedence.
    return OmegaConf.create({}, flags={"struct": False})


def in_memory() -> DictConfig:
    """The config of a source whose arrays are in memory."""
    return OmegaConf.create(_ARRAYS)
