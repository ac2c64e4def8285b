"""The weights of a run that followed training: for its report, and as a schedule that gives them again."""

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
"""By the first step of each window, the weight of each source in parts of `TOTAL`, and the number of its records."""


def check_export(name: str | None, adapt: Adapt, sources: Sequence[str]) -> None:
    """Refuse what is no name of a choice, and weights that no schedule can say.

    Raises:
      ConfigError: It cannot be written.
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
    """The number of records that each source has given."""
    return [sum(column) for column in zip(*(count for _, count in windows.values()), strict=True)]


def summary(rule: str, names: Sequence[str], windows: Windows) -> dict[str, Any]:
    """Weights and realised shares of each source over the windows, and the mean weight of each.

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
    """By how many records a source was furthest from the sum of its weights, at the end of a window.

    Where the weights are those of losses, `shares` says how the mix is made up.
    """
    weights, records = (np.asarray(each, float) for each in zip(*windows.values(), strict=True))
    wanted = (weights / TOTAL if shares is None else np.asarray(shares)) * records.sum(axis=1, keepdims=True)
    return float(np.abs(np.cumsum(records - wanted, axis=0)).max())


def write_schedule(directory: Path, name: str, names: Sequence[str], windows: Windows, steps: int) -> Path:
    """Write the weights as an order with a schedule, which gives the same records: `--config-dir DIRECTORY mix=NAME`.

    After the last step it goes on with the last weights.
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
