"""The directory of a run or a sweep, locked for one process; if it is named by the time, only one run gets it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamix.config.quoting import in_quotes
from datamix.errors import ConfigError

_LOCK = ".lock"
_BY_TIME = "${now:"
_SWEEP = "multirun.yaml"  # written by Hydra into the directory of a sweep


def not_written(error: OSError, key: str, path: Path | None = None) -> ConfigError:
    """The error for a file of a run or a sweep that cannot be written.

    Args:
      error: What the system said.
      key: "hydra.run.dir" or "hydra.sweep.dir".
      path: The file, if the system's error has none.
    """
    text = f"{error.filename or path} cannot be written: {error.strerror}"
    return ConfigError(text, key=key, hint=f"Write to another directory: {key}=DIR.")


@contextmanager
def directory_in_use(config: DictConfig, key: str) -> Iterator[None]:
    """Make the directory that a run or a sweep writes to, and keep other processes out during the block.

    A directory that is named by the time, as by default, gets a number after its name if another run of the same second
    has taken that name. Directories that were made here and are still empty at the end are removed.

    Args:
      config: The composed configuration with Hydra's part. If the path has interpolations, it is replaced by the
        resolved path, which also becomes an override of all jobs.
      key: "hydra.run.dir" or "hydra.sweep.dir".

    Raises:
      ConfigError: Another process is using the directory, or it cannot be written.
    """
    parent, _, name = key.rpartition(".")
    raw = str(OmegaConf.to_container(OmegaConf.select(config, parent), resolve=False)[name])  # type: ignore[index,call-overload]
    try:
        path = Path(str(OmegaConf.select(config, key)))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).partition("\n")[0], key=key) from error
    _check_outside_sweeps(path.absolute(), key)
    try:
        new_directories = [each for each in (path, *path.parents) if not each.exists()]
        if _BY_TIME in raw:
            path = _make_new(path)
            new_directories = [path, *(each for each in new_directories if each in path.parents)]
        else:
            path.mkdir(parents=True, exist_ok=True)
        if "${" in raw:  # resolved once, not again for each job
            OmegaConf.update(config, key, str(path))
            config.hydra.overrides.hydra.append(f"{key}={in_quotes(str(path))}")
        lock = FileLock(path.absolute() / _LOCK, blocking=False)
        lock.acquire()
    except Timeout:
        mend = "Wait until that one has ended, or choose another directory."
        raise ConfigError("another process is using it", key=key, value=str(path), hint=mend) from None
    except OSError as error:
        raise not_written(error, key, path) from error
    new_directories = [each.absolute() for each in new_directories]  # the job may change the current directory
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)  # before the release, after which it may be another's
        lock.release()
        with suppress(OSError):
            for each in new_directories:
                each.rmdir()


def _check_outside_sweeps(path: Path, key: str) -> None:
    """Check that the path is not in the directory of a running sweep, whose jobs write there."""
    for parent in path.parents:
        if (parent / _SWEEP).exists() and (parent / _LOCK).exists():
            try:
                with suppress(PermissionError), FileLock(parent / _LOCK, blocking=False):
                    pass
            except Timeout:
                text = f"a sweep is running in {parent}, and its jobs have their directories there"
                hint = "Wait until it has ended, or choose another directory."
                raise ConfigError(text, key=key, value=str(path), hint=hint) from None


def _make_new(path: Path) -> Path:
    """Make a directory that does not exist yet, with a number after its name if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            candidate.mkdir()
            return candidate
    raise AssertionError
