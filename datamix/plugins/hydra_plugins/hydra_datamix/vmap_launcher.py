"""The launchers that run jobs in this process: that of `hydra/launcher=vmap`, and a replacement for Hydra's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

ConfigStore.instance().store(
    group="hydra/launcher",
    name="vmap",
    node={"_target_": f"{__name__}.VmapLauncher", "execution": "auto", "lanes": None},
    provider="datamix",
)


class SerialLauncher(BasicLauncher):
    """Runs the jobs one after another, as Hydra's launcher does, without its six copies of every configuration."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from datamix.sweeps.launching import launch

        return launch(self, job_overrides, initial_job_idx)


class VmapLauncher(BasicLauncher):
    """Trains jobs of a sweep that differ only in weights, seed or learning rate in one program.

    Args:
      execution: "vmap" trains all jobs at once, "threads" in parallel on the processors, "auto" as suits the device.
      lanes: The former name of `execution`.
    """

    def __init__(self, execution: str = "auto", lanes: str | None = None) -> None:
        super().__init__()
        if lanes is not None:
            print("hydra.launcher.lanes is now called hydra.launcher.execution.", file=sys.stderr)
        self.execution = lanes or execution

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from datamix.sweeps.launching import check_execution

        check_execution(self.execution)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from datamix.sweeps.launching import launch

        return launch(self, job_overrides, initial_job_idx, self.execution)
