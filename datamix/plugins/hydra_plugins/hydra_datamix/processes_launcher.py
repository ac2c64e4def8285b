"""The launcher behind `hydra/launcher=processes`."""

from __future__ import annotations

from functools import partial

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

ConfigStore.instance().store(
    group="hydra/launcher",
    name="processes",
    node={"_target_": f"{__name__}.ProcessesLauncher", "num_processes": 2},
    provider="datamix",
)


class ProcessesLauncher(BasicLauncher):
    """Runs the jobs one after another; each job that trains a model runs in several processes of this machine.

    Args:
      num_processes: The number of processes of each job.
    """

    def __init__(self, num_processes: int = 2) -> None:
        super().__init__()
        self.num_processes = num_processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from datamix.sweeps.processes import check_number, work_of

        check_number(self.num_processes)
        task_function = partial(task_function, work=partial(work_of, self.num_processes))  # type: ignore[call-arg]  # datamix.cli.run
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
