"""The checks before a sweep: the direction of its search, what its jobs may change, and where they write."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from datamix.config.compose import hydra_config
from datamix.config.hydra_node import check_hydra_node
from datamix.errors import ConfigError
from datamix.sweeps.results import goal_of, written_rounds

_BASIC = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
_SIMPLEX = "hydra_plugins.hydra_datamix.simplex_sweeper.SimplexSweeper"
_BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
# The keys that determine the ratio, which the simplex sweeper draws.
_RATIO = re.compile(r"mix\.(ratio|schedule)|mix\.share(\..+)?|mix\.weights(\.[^.]+)?|source")


def config_flags(node: Any) -> list[str]:
    """The flags with which another command line finds the same configs.

    Args:
      node: Hydra's part of the configuration.
    """
    flags = [f"--config-dir={each.path}" for each in node.runtime.config_sources if each.provider == "command-line"]
    return flags + [f"--config-name={name}" for name in [node.job.config_name] if name != "config"]


def launch_overrides(node: Any) -> list[str]:
    """The overrides that choose how the jobs of a sweep are launched, and the least share that it tries.

    Args:
      node: Hydra's part of the configuration.
    """
    kept = re.compile(r"\+*(hydra/launcher|hydra\.launcher\.(?!_target_)|hydra\.sweeper\.min$)")
    return [each for each in map(str, node.overrides.hydra) if kept.match(each.partition("=")[0])]


def least_share(node: Any) -> float:
    """The least share of a source that a sweep tries by itself; 0 if none is set.

    Args:
      node: Hydra's part of the configuration.
    """
    return float(node.sweeper.get("min") or 0) if node.sweeper._target_ == _SIMPLEX else 0.0


def is_search(node: DictConfig) -> bool:
    """Whether the sweeper chooses each job by the results of those before.

    Args:
      node: Hydra's part of the configuration.
    """
    return node.sweeper._target_ not in (_BASIC, _SIMPLEX)


def settle(config: DictConfig) -> None:
    """Replace some of Hydra's defaults, in the configuration of a sweep and in the overrides of its jobs.

    Args:
      config: The configuration of the sweep, which is changed in place.

    Raises:
      ConfigError: A key that a sweep needs is missing.
    """
    for key in ("hydra.sweeper", "hydra.launcher", "sweep.metric", "sweep.goal"):
        if OmegaConf.select(config, key) is None:
            raise ConfigError("a sweep needs it", key=key, value=None)
    sweeper = config.hydra.sweeper
    chosen = {override.partition("=")[0].lstrip("+") for override in _as_typed(config, "hydra")}
    settled: dict[str, str | float] = {}
    if config.hydra.launcher.get("_target_") == _BASIC_LAUNCHER:
        settled["hydra.launcher._target_"] = "hydra_plugins.hydra_datamix.vmap_launcher.SerialLauncher"
    if sweeper.get("direction") is not None and not OmegaConf.is_list(sweeper.direction):
        # Optuna's plugin minimises by default: it would search for the worst ratio.
        goal = goal_of(config.sweep.metric, config.sweep.goal)
        settled["hydra.sweeper.direction"] = {"max": "maximize", "min": "minimize"}[goal]
    if "max_failure_rate" in sweeper:
        settled["hydra.sweeper.max_failure_rate"] = 1.0  # a job that fails is one failed trial: the search continues
    if not config.sweep.get("verbose") and OmegaConf.select(config, "hydra.hydra_logging.root.level") == "INFO":
        settled["hydra.hydra_logging.root.level"] = "WARNING"  # each job prints its result in a line
    settled = {key: value for key, value in settled.items() if key not in chosen}
    for key, value in settled.items():
        OmegaConf.update(config, key, value)
    config.hydra.overrides.hydra.extend([f"{key}={value}" for key, value in settled.items()])


def sweep_overrides(config: DictConfig, loader: ConfigLoaderImpl) -> list[Override]:
    """The overrides of a sweep, those of `hydra.sweeper.params` first."""
    params = config.hydra.sweeper.get("params") or {}
    lines = [*(f"{key}={value}" for key, value in params.items()), *_as_typed(config, "task")]
    return list(OverridesParser.create(config_loader=loader).parse_overrides(lines))


def grid(config: DictConfig, loader: ConfigLoaderImpl, *, whole: bool = False) -> list[list[str]]:
    """The overrides of every job.

    Args:
      config: The configuration of the sweep.
      loader: Hydra's loader of configs.
      whole: Whether to include the jobs by which `num_jobs` of the simplex sweeper has grown since its rounds began;
        these run after the rounds.

    Returns:
      The overrides of each job; empty for a search, whose jobs are not known beforehand.

    Raises:
      ConfigError: A setting of the sweeper is wrong, or the sweep has no job.
    """
    if is_search(config.hydra):
        return []
    if (batch_size := config.hydra.sweeper.max_batch_size) is not None and batch_size < 1:
        raise ConfigError("it is 1 or more", key="hydra.sweeper.max_batch_size", value=batch_size)
    overrides = sweep_overrides(config, loader)
    jobs = BasicSweeper.split_arguments(overrides, None)[0]
    if not jobs:
        swept = ", ".join(str(override.input_line) for override in overrides if override.is_sweep_override())
        raise ConfigError("there is nothing to choose from, and the sweep has no job", key=swept)
    if config.hydra.sweeper._target_ != _SIMPLEX:
        return jobs
    jobs = _on_simplex(config, loader, overrides, jobs)
    sweeper = config.hydra.sweeper
    first, _ = (0, []) if sweeper.first_job else written_rounds(Path(str(config.hydra.sweep.dir)))
    if len(jobs) < first:
        text = f"rounds have followed the {first} jobs that it made; it may become more and not less"
        raise ConfigError(text, key="hydra.sweeper.num_jobs", value=sweeper.num_jobs)
    return jobs[:first] if first and not whole else jobs


def _on_simplex(
    config: DictConfig, loader: ConfigLoaderImpl, overrides: Sequence[Override], jobs: list[list[str]]
) -> list[list[str]]:
    """Every job in every ratio that the simplex sweeper draws, ordered by ratio."""
    from datamix.sweeps.simplex import overrides_of

    for override in overrides:
        key = str(override.get_key_element()).lstrip("+")
        if override.value() is None:  # it clears what a file sets
            continue
        if _RATIO.fullmatch(key) and (key != "source" or override.is_sweep_override()):
            text = "hydra/sweeper=simplex draws the shares of all sources itself, of the same ones in every job"
            raise ConfigError(text, key=key, hint="Leave it out, or sweep without that sweeper.")
    ratios = overrides_of(config, loader.load_sweep_config(config, jobs[0]))
    return [[*job, *ratio] for ratio in ratios for job in jobs]


def _as_typed(config: DictConfig, part: str) -> list[str]:
    plain: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    return [str(override) for override in plain[part]]


def check_jobs(config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Check that no job sets what belongs to the whole sweep, or what `check_hydra_node` refuses.

    Raises:
      ConfigError: A job does.
    """
    for key in (str(key) for name in ("params", "search_space") for key in config.hydra.sweeper.get(name) or {}):
        if key.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise ConfigError(f"{key} cannot be swept; set it for the whole sweep", key="hydra.sweeper")
    fixed, swept = _group_choices(config, loader)
    # Only config groups reach Hydra's part. If none is swept, the sweeper's `params` may still set one for all jobs.
    for chosen in itertools.product(*swept) if swept or config.hydra.sweeper.get("params") else ():
        node = loader.load_sweep_config(config, [*fixed, *chosen])
        check_hydra_node(node)
        for part in ("sweeper", "launcher"):
            if _plain(node.hydra, part) != _plain(config.hydra, part):
                text = f"{' '.join(chosen or fixed)} sets hydra.{part}, which belongs to a whole sweep"
                raise ConfigError(f"{text} and not to one of its jobs; run it by itself.")


def check_directories(config: DictConfig, loader: ConfigLoaderImpl, jobs: Sequence[Sequence[str]]) -> None:
    """Check that no two jobs write to the same directory.

    Raises:
      ConfigError: Two jobs do.
    """
    raw: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if re.search(r"\bjob\.(num|id)\b", str(raw["subdir"])):
        return
    first: dict[str, int] = {}
    for number, overrides in enumerate(jobs):
        node = loader.load_sweep_config(config, list(overrides))
        with open_dict(node):
            node.hydra.job.id, node.hydra.job.num = str(number), number
        directory = job_directory(node)
        if directory in first:
            raise shared_directory(directory, first[directory], number)
        first[directory] = number


def job_directory(node: DictConfig) -> str:
    """The directory of a job within that of its sweep, as Hydra's `run_job` resolves it."""
    with hydra_config(node):
        return os.path.normpath(str(node.hydra.sweep.subdir))


def shared_directory(directory: str, first: int, second: int) -> ConfigError:
    """The error for two jobs that write to one directory."""
    text, mend = f"jobs {first} and {second} would both write to it", "Put ${hydra.job.num} into it, or leave it out."
    return ConfigError(text, key="hydra.sweep.subdir", value=directory, hint=mend)


def _plain(node: DictConfig, part: str) -> object:
    return OmegaConf.to_container(OmegaConf.masked_copy(node, [part]), resolve=False)


def _group_choices(config: DictConfig, loader: ConfigLoaderImpl) -> tuple[list[str], list[list[str]]]:
    """The overrides that every job has, and the choices of each config group that is swept."""
    fixed, swept = [], []
    for override in sweep_overrides(config, loader):
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
        elif override.is_discrete_sweep() and _is_group(override.key_or_group, config, loader):
            swept.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
    return fixed, swept


def _is_group(key: str, config: DictConfig, loader: ConfigLoaderImpl) -> bool:
    named: Any = {"config_name": config.hydra.job.config_name, "overrides": _as_typed(config, "hydra")}
    return "." not in key and bool(loader.get_group_options(key, **named))
