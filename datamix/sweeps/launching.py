"""Launch jobs in one process; under `hydra/launcher=vmap`, their models are trained together first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core import utils
from hydra.core.utils import JobReturn, configure_log
from hydra.types import HydraContext
from omegaconf import Container, DictConfig, OmegaConf, flag_override, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import OmegaConfBaseException

from datamix import interruption
from datamix.config.compose import hydra_config, load_plugins
from datamix.config.parse import parse
from datamix.config.schema import Config
from datamix.errors import ConfigError, DatamixError, hint
from datamix.report.console import console
from datamix.report.progress import progress
from datamix.sweeps.preparing import job_directory
from datamix.sweeps.results import RESULT, read_result
from datamix.sweeps.watching import begin, plain_config

if TYPE_CHECKING:
    from datamix.training.data import Data
    from datamix.training.runs import Run

_EXECUTIONS = ("auto", "threads", "vmap")
_log = logging.getLogger(__name__)


def check_execution(execution: object) -> None:
    """Check the setting `hydra.launcher.execution`.

    Raises:
      ConfigError: It is not "auto", "threads" or "vmap".
    """
    if execution not in _EXECUTIONS:
        advice = hint(str(execution), _EXECUTIONS)
        raise ConfigError(key="hydra.launcher.execution", value=execution, hint=advice)


def launch(
    launcher: BasicLauncher, job_overrides: Sequence[Sequence[str]], first_job: int, execution: str | None = None
) -> list[JobReturn]:
    """Run jobs one after another; with an `execution`, those that train a model are trained together first.

    Any job whose model has not been trained then runs by itself, and reports its own error if it has one.

    Args:
      launcher: Hydra's launcher, after its setup.
      job_overrides: The overrides of each job.
      first_job: The number of the first job.
      execution: The way to train models together, see `datamix.training.replicas.execution_of`; None to train each in
        its job.

    Returns:
      What Hydra returns for each job.
    """
    config, context = launcher.config, launcher.hydra_context
    task: Callable[..., Any] | None = launcher.task_function
    assert config is not None
    assert context is not None
    assert task is not None
    utils.setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    _log.info("Launching %d jobs locally", len(job_overrides))
    composed: Iterable[tuple[DictConfig, DictConfig]] = _composed(config, context, job_overrides, first_job)
    trained = {}
    if execution is not None:
        composed = list(composed)
        configure_log(composed[0][0].hydra.job_logging, config.hydra.verbose)  # otherwise libraries log too much
        trained = _train(composed, execution)
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    returned = []
    for number, (overrides, job) in enumerate(zip(job_overrides, composed, strict=True), start=first_job):
        interruption.check()
        _log.info("\t#%d : %s", number, " ".join(utils.filter_overrides(overrides)))
        run = trained.pop(number - first_job, None)
        returned.append(_run(task if run is None else partial(task, trained=run), *job, context))
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    return returned


def _composed(
    config: DictConfig, context: HydraContext, job_overrides: Sequence[Sequence[str]], first_job: int
) -> Iterator[tuple[DictConfig, DictConfig]]:
    """The configuration of each job with Hydra's part, and without it."""
    for number, overrides in enumerate(job_overrides, start=first_job):
        node = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(node):
            node.hydra.job.id, node.hydra.job.num = str(number), number
        plain = DictConfig({})  # `without_hydra` would copy the node, which no other job uses
        with flag_override(plain, "no_deepcopy_set_nodes", True):
            plain.update({key: part for key, part in node.items_ex(resolve=False) if key != "hydra"})
        yield node, plain


def _run(task: Callable[[DictConfig], Any], node: DictConfig, config: DictConfig, context: HydraContext) -> JobReturn:
    """Run a job as Hydra does, but without its six copies of the configuration, which no other job uses.

    Args:
      task: The function that runs the job.
      node: The configuration of the job.
      config: The configuration without Hydra's part.
      context: Hydra's context.
    """
    hydra, directory = node.hydra, _directory(node)
    if hydra.job.chdir or hydra.job.env_set:
        return utils.run_job(task, node, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    with read_write(hydra.runtime), open_dict(hydra.runtime):
        hydra.runtime.output_dir = str(directory)
    OmegaConf.set_readonly(hydra, True)
    with hydra_config(node):
        overrides = hydra.overrides.task
        job = JobReturn(cfg=config, hydra_cfg=node, overrides=list(overrides))
        job.working_dir, job.task_name = str(Path.cwd()), utils.JobRuntime.instance().get("name")
        directory.mkdir(parents=True, exist_ok=True)
        configure_log(hydra.job_logging, hydra.verbose)
        if hydra.output_subdir is not None:
            kept = directory / hydra.output_subdir
            kept.mkdir(exist_ok=True)
            texts = {"config": _plain(config), "hydra": {"hydra": _plain(hydra)}, "overrides": _plain(overrides)}
            for name, content in texts.items():
                with (kept / f"{name}.yaml").open("w", encoding="utf-8") as file:
                    yaml.dump(content, file, Dumper=_dumper(), allow_unicode=True, sort_keys=False)
        context.callbacks.on_job_start(config=node, task_function=task)
        try:
            job.return_value, job.status = task(config), utils.JobStatus.COMPLETED
        except Exception as error:  # of any class: `JobReturn.return_value` raises it
            job.return_value, job.status = error, utils.JobStatus.FAILED
        context.callbacks.on_job_end(config=node, job_return=job)
    return job


def _plain(node: Container) -> Any:
    return OmegaConf.to_container(node, resolve=False, enum_to_str=True)


@cache
def _dumper() -> Any:
    """OmegaConf's YAML dumper with the emitter in C, if PyYAML has it, which takes a quarter of the time."""
    dumper: Any = type("_Dumper", (getattr(yaml, "CDumper", yaml.Dumper),), {})
    dumper.yaml_representers = get_omega_conf_dumper().yaml_representers
    return dumper


class SharedData:
    """The data of the last job of a sweep that trained a model, for the next one in the same process.

    It belongs to one sweep: files may change before another one reads them.
    """

    def __init__(self) -> None:
        self._latest: tuple[Config, Data] | None = None

    def prepared(self, config: Config, directory: Path) -> Run | DatamixError:
        """The run of a job that trains a model, or the error that keeps it from starting."""
        from datamix.training.runs import prepare, same_data

        if self._latest is not None and not same_data(self._latest[0], config):
            self._latest = None  # free the memory before other records are read
        try:
            run = prepare(config, directory, None if self._latest is None else self._latest[1])
        except DatamixError as error:
            return error
        self._latest = config, run.data
        return run


def _train(composed: Sequence[tuple[DictConfig, DictConfig]], execution: str) -> dict[int, Any]:
    """Train the models of several jobs together.

    Args:
      composed: The configuration of each job with Hydra's part, and without it.
      execution: The way to train them; see `datamix.training.replicas.execution_of`.

    Returns:
      The runs that have ended, or the errors that kept them from starting, by the index of the job.
    """
    jobs: dict[int, tuple[Config, Path]] = {}
    for i, (node, plain) in enumerate(composed):
        try:
            load_plugins(node)
            directory = _directory(node)
            if parse(plain, node.hydra).job == "train" and not _is_done(node, directory):
                directory.mkdir(parents=True, exist_ok=True)
                with hydra_config(node):
                    begin(plain, node.hydra, plain_config(plain), directory)
                jobs[i] = parse(plain, node.hydra), directory  # parse again, as `begin` may have set train.resume
        except (DatamixError, OmegaConfBaseException):  # the job itself will raise it again
            continue
    if not jobs:
        return {}
    from datamix.training.runs import Run, fit, prepare_all

    out = console()
    prepared: Sequence[Run | DatamixError] = []

    def advanced(group: Sequence[Run]) -> str:
        return f"{len(group)} job{'s' * (len(group) > 1)} in one program, at step {group[0].step:,}"

    try:
        prepared = prepare_all(list(jobs.values()))
        runs = [run for run in prepared if isinstance(run, Run)]
        with progress(out, sum(run.steps for run in runs), sum(run.step for run in runs)) as advance:
            fit(runs, lambda group: advance(sum(run.step for run in runs), advanced(group)), execution)
    except Exception as error:  # of any class: the error of one job must not end the others
        interruption.check()
        _log.warning("%s: %s. Each job is run by itself.", type(error).__name__, error)
    # A run that has not ended starts again, by itself.
    return {i: run for i, run in zip(jobs, prepared, strict=False) if isinstance(run, DatamixError) or run.ended}


def _directory(node: DictConfig) -> Path:
    return Path(str(node.hydra.sweep.dir), job_directory(node)).absolute()


def _is_done(node: DictConfig, directory: Path) -> bool:
    result = directory / RESULT
    return bool(OmegaConf.select(node, "sweep.resume")) and result.is_file() and read_result(result).status == "done"
