"""The weights that followed training in a run: for its report, and as a schedule that reproduces them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError
from datamix.pipeline.adapt import Adapt
from datamix.pipeline.lookup.credit import TOTAL
from datamix.report.files import write_text

Windows = Mapping[int, tuple[Sequence[int], Sequence[int]]]
"""The first step of each window to the weight of each source, in parts of `TOTAL`, and its number of records."""


def check_export(name: str | None, adapt: Adapt, sources: Sequence[str]) -> None:
    """Check that the weights of a run can be written as a schedule of this name.

    Args:
      name: The setting `adapt.export`; None to write none.
      adapt: How the weights follow training.
      sources: The names of the sources.

    Raises:
      ConfigError: The name is not one of a config, or no schedule can have such weights.
    """
    if name is not None and adapt.weighs_loss:
        text = f"adapt={adapt.rule} weighs losses, not records, which no schedule does"
        raise ConfigError(text, key="adapt.export", value=name)
    if name is not None and any("." in source for source in sources):
        text = "a schedule of its weights has no place for sources of a mix within the mix"
        raise ConfigError(text, key="adapt.export", value=name)
    if name is not None and not re.fullmatch(r"\w[\w-]*", name):
        raise ConfigError("it is a name of letters, digits, _ and -", key="adapt.export", value=name)


def counts(windows: Windows) -> list[int]:
    """The number of records of each source, over all windows."""
    return [sum(column) for column in zip(*(count for _, count in windows.values()), strict=True)]


def summary(rule: str, names: Sequence[str], windows: Windows) -> dict[str, Any]:
    """The weights and actual shares of each source in each window, and its mean weight.

    >>> summary("odm", ["a", "b"], {0: ([2**23, 2**23], [8, 8]), 10: ([2**22, 3 * 2**22], [4, 12])})["shares"]
    {'a': [0.5, 0.25], 'b': [0.5, 0.75]}
    """
    weights, records = (np.asarray(each, float) for each in zip(*windows.values(), strict=True))
    shares, weights = records / records.sum(axis=1, keepdims=True), weights / TOTAL
    mean = (weights * records.sum(axis=1, keepdims=True)).sum(axis=0) / records.sum()
    return {
        "rule": rule,
        "steps": list(windows),
        "weights": dict(zip(names, weights.T.tolist(), strict=True)),
        "shares": dict(zip(names, shares.T.tolist(), strict=True)),
        "mean": dict(zip(names, mean.tolist(), strict=True)),
    }


def deviation(windows: Windows, shares: Sequence[float] | None = None) -> float:
    """The largest distance of a source from the sum of its weights, in records, over the ends of all windows.

    Args:
      windows: The weights and records of each window.
      shares: The shares of the mix, if the weights are those of losses and not of records; else None.
    """
    weights, records = (np.asarray(each, float) for each in zip(*windows.values(), strict=True))
    wanted = (weights / TOTAL if shares is None else np.asarray(shares)) * records.sum(axis=1, keepdims=True)
    return float(np.abs(np.cumsum(records - wanted, axis=0)).max())


def write_schedule(directory: Path, name: str, names: Sequence[str], windows: Windows, steps: int) -> Path:
    """Write the weights as a config that gives the same records: `--config-dir DIRECTORY mix=NAME`.

    Its order has a schedule, which keeps the last weights after the last step.

    Args:
      directory: The directory of the run.
      name: The name of the config.
      names: The names of the sources.
      windows: The weights and records of each window.
      steps: The number of steps of the run.

    Returns:
      The path of the file.
    """
    entries: list[dict[str, Any]] = []
    for until, (weight, _) in zip([*list(windows)[1:], steps], windows.values(), strict=True):
        weights = dict(zip(names, weight, strict=True))
        if entries and entries[-1]["weights"] == weights:
            entries[-1]["until"] = until
        else:
            entries.append({"until": until, "weights": weights})
    entries.append({"weights": entries[-1]["weights"]})
    path = directory / "mix" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    title = f"# The weights of a run of {steps} steps, which this mix gives again, record by record."
    write_text(
        path,
        "\n".join([title, "_target_: largest_credit", "schedule:", *map("- {}".format, map(json.dumps, entries)), ""]),
    )
    return path
