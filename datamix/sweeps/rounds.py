"""A sweep over ratios that goes on by itself, in rounds of the ratios that promise most, as `sweep.auto` asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from datamix.errors import DataError
from datamix.report.files import write_text
from datamix.sweeps.preparing import grid
from datamix.sweeps.results import ROUNDS, SUGGESTION, readable, sets_no_ratio
from datamix.sweeps.table import number

_NOT_OF_A_ROUND = ("hydra.sweep.dir", "hydra/sweeper", "hydra.sweeper")
_OF_A_ROUND = ("sweep.auto", "sweep.resume")


def rounds(config: DictConfig, loader: ConfigLoaderImpl) -> Iterator[list[str]]:
    """The overrides of one round after another, each proposed from the results of those before, in the same directory.

    A round is written down before it begins, so that a sweep that is resumed goes on with the same one. It ends when no
    ratio promises more than half a deviation over the seeds.
    """
    number_of_rounds = config.sweep.get("auto") or 0
    if not number_of_rounds or config.hydra.sweeper.get("first_job"):  # which is a round itself
        return
    directory, jobs = Path(str(config.hydra.sweep.dir)), grid(config, loader)
    written: list[dict[str, Any]] = _read(directory / ROUNDS) if (directory / ROUNDS).is_file() else []
    origin = list(range(len(jobs)))  # of each job, the one at the sweep's beginning whose other settings it has
    for i in range(number_of_rounds):
        if i == len(written):
            if not (directory / SUGGESTION).is_file():
                print("sweep.auto: this sweep leads to no suggestion (see job=suggest), and there is nothing to try.")
                return
            plain = json.loads((directory / SUGGESTION).read_bytes())
            metric = readable(plain["metric"])
            promise, noise = (number(plain[key], plain["metric"]) for key in ("improvement", "noise"))
            if not plain["promising"]:
                expected = f"others promise to improve {metric} by {promise}"
                print(f"No more rounds: {expected}, and the noise is {noise}.")
                return
            head = f"Round {i + 1} of {number_of_rounds}, to improve {metric} by {promise}"
            print(f"{head}: {'; '.join(plain['next'])}", flush=True)
            written.append({"ratios": plain["ratios"], "seeds": plain["seeds"], "like": origin[plain["like"]]})
            write_text(directory / ROUNDS, json.dumps(written, indent=2) + "\n")
        ratios, seeds, like = (written[i][key] for key in ("ratios", "seeds", "like"))
        every: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
        yield [
            *(each for each in every["hydra"] if not each.lstrip("+~").startswith(_NOT_OF_A_ROUND)),
            *filter(sets_no_ratio, jobs[like]),
            *(each for each in every["task"] if each.startswith("sweep.") and not each.startswith(_OF_A_ROUND)),
            "hydra/sweeper=simplex",
            "hydra.sweeper.params=null",
            f"hydra.sweeper.ratios={json.dumps(ratios)}",
            f"hydra.sweeper.first_job={len(origin)}",
            f"hydra.sweep.dir={directory}",
            f"seed={','.join(seeds)}",
            f"sweep.auto={number_of_rounds - i - 1}",
            "sweep.resume=true",
        ]
        origin += [like] * (len(ratios) * len(seeds))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        written = [
            {
                "ratios": [str(ratio) for ratio in each["ratios"]],
                "seeds": [str(int(seed)) for seed in each["seeds"]],
                "like": int(each["like"]),
            }
            for each in json.loads(path.read_bytes())
        ]
    except (ValueError, KeyError, TypeError) as error:
        mend = "delete it, and the rounds are chosen anew"
        raise DataError(f"{path} is damaged ({error!r}); {mend}.") from error
    return written
