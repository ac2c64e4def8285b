"""A Hydra launcher that runs the jobs of a sweep which differ in weights, seed or learning rate as one program.

Importing it imports neither JAX nor TensorFlow.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from datamix import registry
from datamix.config.parse import parse, without_hydra
from datamix.config.schema import Config
from datamix.errors import ConfigError, DatamixError, hint

VMAP = f"{__name__}.VmapLauncher"
"""What `hydra.launcher._target_` is under `hydra/launcher=vmap`."""

_LANES = ("auto", "threads", "vmap")
_log = logging.getLogger(__name__)
_instantiate_launcher = Plugins.instantiate_launcher


def register_with_hydra() -> None:
    """Make `hydra/launcher=vmap` known; before `hydra.main`."""
    ConfigStore.instance().store(
        name="vmap", group="hydra/launcher", node={"_target_": VMAP, "lanes": "auto"}, provider="datamix"
    )
    Plugins.instantiate_launcher = _instantiate  # type: ignore[method-assign]


def _instantiate(
    self: Plugins, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Launcher:
    """Hydra's own way, which takes plugins of the package hydra_plugins alone, or ours."""
    if config.hydra.launcher is None or config.hydra.launcher.get("_target_") != VMAP:
        return _instantiate_launcher(self, hydra_context, task_function, config)
    lanes = config.hydra.launcher.get("lanes")
    if lanes not in _LANES:
        raise ConfigError(f"hydra.launcher.lanes = {lanes!r}. {hint(str(lanes), _LANES)}")
    launcher = VmapLauncher(lanes)
    launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return launcher


class VmapLauncher(BasicLauncher):
    """`hydra/launcher=vmap`: trains the jobs of a sweep ahead, those that can in one program, then runs each of them.

    A job that is not trained, or cannot be with others, runs as under Hydra's own launcher; so does one that a mistake
    ends, and says so itself.

    Args:
      lanes: "vmap" trains all at once, "threads" side by side on the processors, "auto" as suits the device.
    """

    def __init__(self, lanes: str) -> None:
        super().__init__()
        self._lanes = lanes

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs; see `hydra.plugins.launcher.Launcher`."""
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        _log.info("Launching %d jobs locally, in one program where they differ in weights alone", len(job_overrides))
        nodes = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            node = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(node):
                node.hydra.job.id = number
                node.hydra.job.num = number
            nodes.append(node)
        self._run_ahead(nodes)
        returned = []
        for number, (overrides, node) in enumerate(zip(job_overrides, nodes, strict=True), start=initial_job_idx):
            _log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            done = run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=node,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            returned.append(done)
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return returned

    def _run_ahead(self, nodes: Sequence[DictConfig]) -> None:
        """Do what can be done for several jobs at once."""
        jobs: dict[str, list[tuple[Config, Path]]] = {}
        for node in nodes:
            try:
                config, directory = parse(without_hydra(node)), _directory(node)
            except (DatamixError, OmegaConfBaseException):  # the job itself will say so
                continue
            if config.job in registry.names("together") and not _is_done(node, directory):
                directory.mkdir(parents=True, exist_ok=True)
                jobs.setdefault(config.job, []).append((config, directory))
        for job, several in jobs.items():
            try:
                registry.lookup("together", job)(several, self._lanes)
            except Exception as error:  # one job's fault must not end the others
                _log.warning("%s: %s. Each job is run by itself.", type(error).__name__, error)


def _directory(node: DictConfig) -> Path:
    """Where a job's files go, as `run_job` finds it."""
    held = HydraConfig.instance()
    before = held.cfg
    held.set_config(node)
    try:
        return Path(str(node.hydra.sweep.dir), str(node.hydra.sweep.subdir)).absolute()
    finally:
        held.cfg = before


def _is_done(node: DictConfig, directory: Path) -> bool:
    """Whether a sweep is resumed that has finished this job."""
    result: Any = directory / "result.json"
    if not OmegaConf.select(node, "sweep.resume") or not result.is_file():
        return False
    return bool(json.loads(result.read_bytes()).get("status") == "done")
