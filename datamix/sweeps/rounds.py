"""Continue a sweep over ratios automatically, in rounds of the most promising ratios (`sweep.auto`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from datamix.config.quoting import in_quotes
from datamix.report.files import write_text
from datamix.sweeps.preparing import config_flags, grid, least_share
from datamix.sweeps.results import (
    ROUNDS,
    SUGGESTION,
    apart_from_ratio,
    by_key,
    number,
    readable,
    sets_no_ratio,
    written_rounds,
)
from datamix.sweeps.simplex import PARTS
from datamix.sweeps.watching import plain_config

_NOT_OF_A_ROUND = re.compile(r"[+~]*(hydra\.sweep\.dir|hydra/sweeper|hydra\.sweeper(?!\.min=))")
_OF_A_ROUND = ("sweep.auto", "sweep.resume")


def rounds(config: DictConfig, loader: ConfigLoaderImpl) -> Iterator[list[str]]:
    """The overrides of one round after another, each proposed from the results of those before, in the same directory.

    A round is written to a file before it begins, so that a resumed sweep continues with the same one. The rounds end
    when no ratio promises an improvement of more than half a deviation over the seeds, and none lies beyond an edge. If
    `num_jobs` has grown since the rounds began, the additional ratios are a separate round.

    Args:
      config: The configuration of the sweep.
      loader: Hydra's loader of configs.

    Raises:
      DataError: The file of the rounds is damaged.
    """
    num_rounds, directory = config.sweep.get("auto") or 0, Path(str(config.hydra.sweep.dir))
    if not isinstance(num_rounds, int):  # the jobs have reported this error
        return
    if config.hydra.sweeper.get("first_job") or not (num_rounds or (directory / ROUNDS).is_file()):
        return  # this sweep is itself a round, or has none
    jobs = grid(config, loader)
    _, written = written_rounds(directory)
    num_asked = sum(len(each["ratios"]) * len(each["seeds"]) for each in written if each["asked"])
    written += _asked_for(jobs, grid(config, loader, whole=True)[len(jobs) + num_asked :], config.seed)
    origin = list(range(len(jobs)))  # for each job, the job of the first part of the sweep with the same other settings
    flags = config_flags(config.hydra)
    num_left, i = num_rounds, 0
    while True:
        if i == len(written):
            head = f"Round {num_rounds - num_left + 1} of {num_rounds}"
            if num_left <= 0 or (chosen := _next(directory, config, head, written)) is None:
                return
            written.append(chosen | {"like": origin[chosen["like"]]})
        this = written[i]
        num_left -= not this["asked"]
        write_text(directory / ROUNDS, json.dumps({"first": len(jobs), "rounds": written}, indent=2) + "\n")
        every: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
        like = loader.load_sweep_config(config, jobs[this["like"]])
        yield [
            *(each for each in every["hydra"] if not _NOT_OF_A_ROUND.match(each)),
            *apart_from_ratio([*flags, *jobs[this["like"]]], plain_config(like).get("mix") or {})[len(flags) :],
            *(each for each in every["task"] if each.startswith("sweep.") and not each.startswith(_OF_A_ROUND)),
            "hydra/sweeper=simplex",
            "hydra.sweeper.params=null",
            f"hydra.sweeper.ratios={json.dumps(this['ratios'])}",
            f"hydra.sweeper.first_job={len(origin)}",
            f"hydra.sweep.dir={in_quotes(str(directory))}",
            f"seed={','.join(this['seeds'])}",
            f"sweep.auto={max(num_left, 0)}",
            "sweep.resume=true",
        ]
        origin += [this["like"]] * (len(this["ratios"]) * len(this["seeds"]))
        i += 1


def _next(directory: Path, config: DictConfig, head: str, written: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The round that the results suggest; None if there is none, and then the reason has been printed."""
    if not (directory / SUGGESTION).is_file():
        return None
    plain = json.loads((directory / SUGGESTION).read_bytes())
    metric = readable(plain["metric"])
    if not plain["promising"]:
        promise, noise = (number(plain[key], plain["metric"]) for key in ("improvement", "noise"))
        print(f"No more rounds: others promise to improve {metric} by {promise}, and the noise is {noise}.")
        return None
    least = least_share(config.hydra) * PARTS
    before = {ratio for each in written for ratio in each["ratios"]}  # suggested again only if their jobs have failed
    ratios = {
        ratio: promise
        for ratio, promise in zip(plain["ratios"], plain["promises"], strict=True)
        if ratio not in before and min(map(int, ratio.split(":"))) >= least
    }
    if not ratios:
        print("No more rounds: what promises most has been tried, or has a share below hydra.sweeper.min.")
        return None
    promise = number(max(ratios.values()), plain["metric"])
    print(f"{head}, to improve {metric} by up to {promise}: {'; '.join(ratios)}", flush=True)
    return {"ratios": [*ratios], "seeds": plain["seeds"], "like": plain["like"], "asked": False}


def _asked_for(jobs: list[list[str]], more: list[list[str]], seed: int) -> list[dict[str, Any]]:
    """The rounds of the jobs that were added to a sweep since its rounds began, one for each of the other settings.

    Args:
      jobs: The overrides of the jobs before the rounds.
      more: The overrides of the additional jobs.
      seed: The seed of jobs whose overrides set none.
    """
    settings = [tuple(filter(sets_no_ratio, job)) for job in jobs]
    entries: dict[int, dict[str, Any]] = {}
    for job in more:
        keys = by_key(job)
        shares = [value for key, value in keys.items() if key.startswith("mix.share.")]
        like = settings.index(tuple(filter(sets_no_ratio, job)))
        entry = entries.setdefault(like, {"ratios": {}, "seeds": {}, "like": like, "asked": True})
        entry["ratios"][":".join(str(round(float(share) * PARTS)) for share in shares)] = None
        entry["seeds"][str(keys.get("seed", seed))] = None
    return [entry | {key: [*entry[key]] for key in ("ratios", "seeds")} for entry in entries.values()]
