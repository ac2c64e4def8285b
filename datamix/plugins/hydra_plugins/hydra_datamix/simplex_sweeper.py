"""The sweeper behind `hydra/sweeper=simplex`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

_DEFAULTS: dict[str, Any] = {
    "num_jobs": 16,
    "prior": DictConfig({}, flags={"struct": False}),
    "strength": 1.0,
    "seed": 0,
    "min": 0.01,
    "max_epochs": None,
    "ratios": None,
    "first_job": 0,
}

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="simplex",
    node={"_target_": f"{__name__}.SimplexSweeper", **_DEFAULTS, "max_batch_size": None, "params": None},
    provider="datamix",
)


class SimplexSweeper(BasicSweeper):
    """Sweeps the ratio of all sources of the mix, combined with all other swept values.

    For its settings, see `datamix.sweeps.simplex.Simplex`.
    """

    def __init__(
        self, max_batch_size: int | None = None, params: Any = None, first_job: int = 0, **_settings: Any
    ) -> None:
        super().__init__(max_batch_size, params)
        self.first_job = first_job

    def setup(self, **context: Any) -> None:
        super().setup(**context)
        assert self.launcher is not None
        launch = self.launcher.launch
        # Hydra's own sweep() numbers jobs from 0.
        self.launcher.launch = partial(self._launch_on, launch)  # type: ignore[method-assign]

    def _launch_on(self, launch: Callable[..., Any], jobs: Any, initial_job_idx: int) -> Any:
        return launch(jobs, initial_job_idx + self.first_job)

    def split_arguments(  # type: ignore[override]  # needs the sweep, not only its overrides
        self, _overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        from datamix.sweeps.preparing import grid

        assert self.config is not None
        assert self.hydra_context is not None
        jobs = grid(self.config, self.hydra_context.config_loader)  # type: ignore[arg-type]  # Hydra's only one
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))
