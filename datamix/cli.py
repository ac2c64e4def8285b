"""The command line: the only place with `@hydra.main`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from datamix import __version__, registry
from datamix.config import compose as overrides
from datamix.config.explain import explain
from datamix.config.files import conf_dir
from datamix.config.parse import parse
from datamix.errors import ConfigError, DatamixError
from datamix.sweeps import watching as sweeps

_running = False  # whether Hydra has handed over to a job
_full_error = os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    global _running
    _running = False
    if "--version" in sys.argv[1:]:  # Hydra's own would print the version of Hydra
        print(f"datamix {__version__}")
        return
    overrides.register_with_hydra()
    sweeps.register_with_hydra()
    sys.path.append(str(Path.cwd()))  # where a module of the user's own lies, as `python -m datamix` has it
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its errors to us
    start: Callable[[], Any] = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(run)
    try:
        sys.argv[1:] = overrides.quote_splits(sys.argv[1:])
        start()
    except DatamixError as error:
        _end(error, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _end(error, explain(error))
    except OSError as error:
        if _running:
            raise
        key = "hydra.sweep.dir" if {"-m", "--multirun"} & {*sys.argv} else "hydra.run.dir"
        _end(error, f"{key}: {error.filename or 'it'} cannot be written: {error.strerror}.")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def run(node: DictConfig) -> Any:
    """Run the job that a composed configuration names, in Hydra's run directory."""
    global _running
    _running = True
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return sweeps.run_recorded(node, _work)
    try:
        return _work(node)
    except DatamixError as error:
        if _full_error:
            raise
        _end(error, str(error))


def _work(node: DictConfig) -> Any:
    hydra_config: Any = HydraConfig.get()
    config = parse(node, hydra_config)
    job = registry.lookup("job", config.job)
    registry.check_settings("job", job, config.job_settings)
    directory = Path(hydra_config.runtime.output_dir)
    try:
        return job(config, directory, **config.job_settings)
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(directory)):
            raise
        key = "hydra.sweep.dir" if hydra_config.mode == RunMode.MULTIRUN else "hydra.run.dir"
        raise ConfigError(f"{key}: {error.filename} cannot be written: {error.strerror}.") from error


def _end(error: BaseException, text: str) -> None:
    if _full_error:
        raise error
    kind = next((c.__name__ for c in type(error).__mro__ if c.__module__ == DatamixError.__module__), "ConfigError")
    print(f"{kind}: {text}", file=sys.stderr)
    sys.exit(2)
