"""Check the `hydra` part of a configuration: what it builds, after resolving, must have a name in a fixed set.

Hydra builds its launcher, sweeper, callbacks and logging from names in the configuration, which may come from somebody
else. So the `hydra` part is checked before Hydra reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamix.config.check import unknown_key
from datamix.errors import ConfigError, RegistryError

_SAMPLERS = {
    f"optuna.samplers.{name}Sampler"
    for name in ("BruteForce", "CmaEs", "Grid", "MOTPE", "NSGAII", "NSGAIII", "QMC", "Random", "TPE")
}
_LOGGING = {
    *("colorlog.ColoredFormatter", "rich.logging.RichHandler"),
    *(f"logging.{name}" for name in ("FileHandler", "Filter", "Formatter", "NullHandler", "StreamHandler")),
    *(f"logging.handlers.{name}FileHandler" for name in ("Rotating", "TimedRotating", "Watched")),
}
_STREAMS = {"ext://sys.stdout", "ext://sys.stderr"}
# Prefixes of values that logging looks up, as a name in any module (ext) or as a part of its configuration (cfg).
_LOOKED_UP = re.compile(r"\s*(ext|cfg)\s*:")
# Variables of the environment by which programs find their code.
_OF_PROGRAMS = re.compile(r"PATH$|PYTHON|LD_|DYLD_", re.IGNORECASE)
# Interpolations at the start of a value of logging whose values are only known in a job, and have no such prefix.
_LATER = re.compile(r"\$\{(hydra\.(runtime\.(cwd|output_dir)|job\.(id|name|num)|run\.dir|sweep\.dir)\}|now:|oc\.env:)")


def check_hydra_node(node: DictConfig) -> None:
    """Refuse a `hydra` part that would build or look up anything except Hydra's own plugins, samplers and logging."""
    _check_keys(node)
    _check_plugins(node.hydra)
    for part in ("job_logging", "hydra_logging"):
        for key, name, value, written in _values(node.hydra, part, f"hydra.{part}"):
            _check_logging(key, name, value, written)
    for key, name, value, _ in _values(node.hydra.job, "env_set", "hydra.job.env_set"):
        if _OF_PROGRAMS.match(str(name)) and os.environ.get(str(name)) != value:  # equal: from env_copy
            text = "it decides which code the processes run that a job starts"
            raise ConfigError(text, key=key, value=value, hint="Set it in the shell.")
    for parent, name in (("job", "name"), ("run", "dir"), ("sweep", "dir")):  # what logging may refer to
        for key, _, value, _ in _values(node.hydra[parent], name, f"hydra.{parent}.{name}"):
            if _is_looked_up(value):
                _refuse(key, value)


def _check_keys(node: DictConfig) -> None:
    """Refuse keys that an override has added, as in +hydra.run.dri=x, and that Hydra would ignore."""
    schema = ConfigStore.instance().load("hydra/config.yaml").node
    for part, known in (("", [*schema, "env"]), *((f".{part}", [*schema[part]]) for part in ("job", "run", "sweep"))):
        for name in OmegaConf.select(node, f"hydra{part}"):
            if name not in known:
                raise unknown_key(f"hydra{part}.{name}", known)


def _check_plugins(hydra: DictConfig) -> None:
    """Refuse callbacks, and launchers and sweepers that are not plugins of Hydra or call a function by its name."""
    for part in ("launcher", "sweeper"):
        if not isinstance(value := hydra[part], DictConfig | None):
            mend = f"Write hydra/{part}={value}."
            raise ConfigError("it is chosen with a slash", key=f"hydra.{part}", value=value, hint=mend)
    for part in ("callbacks", "launcher", "sweeper"):
        for key, name, value, _ in _values(hydra, part, f"hydra.{part}"):
            called = name == "custom_search_space" and value is not None
            if called or (name == "_target_" and value not in _targets(key)):
                _refuse(key, value)


def _check_logging(key: str, name: object, value: object, written: object) -> None:
    # Each job of a sweep is composed anew: names of what is built must be literal, so that no other key changes them.
    refers = isinstance(written, str) and written.lstrip().startswith("${") and not _LATER.match(written.lstrip())
    if refers or (name in ("_target_", "class", "()") and written not in _LOGGING):
        _refuse(key, written)
    if _is_looked_up(value) and value not in _STREAMS:
        _refuse(key, value)
    if name == "filename" and not str(written).endswith(".log"):
        text = "a log file of a configuration ends in .log, so that it takes no other file's place"
        raise ConfigError(text, key=key, value=written)


def _is_looked_up(value: object) -> bool:
    return isinstance(value, str) and _LOOKED_UP.match(value) is not None


def _targets(key: str) -> set[str]:
    """The names that are allowed as a `_target_`, by its key."""
    kinds: dict[str, type[Any]] = {"hydra.launcher._target_": Launcher, "hydra.sweeper._target_": Sweeper}
    if key in kinds:
        plugins = Plugins.instance().discover(kinds[key])
        return {f"{plugin.__module__}.{plugin.__name__}" for plugin in plugins}
    return _SAMPLERS if key.startswith("hydra.sweeper.") else set()


def _refuse(key: str, value: object) -> None:
    raise RegistryError("nothing but Hydra's own plugins can be built here", key=key, value=value)


def _values(parent: DictConfig | ListConfig, name: Any, key: str) -> Iterator[tuple[str, object, object, object]]:
    """The values at and below a node: full key, name, value (resolved if possible), and value as it is written."""
    written: object = None
    if OmegaConf.is_interpolation(parent, name):
        written = OmegaConf.to_container(parent, resolve=False)[name]  # type: ignore[index]
    try:
        value = parent[name]
    except OmegaConfBaseException:  # missing, or known only once a job runs
        value = written
    if isinstance(value, DictConfig | ListConfig):
        if written is not None:
            yield key, name, None, written
        for inner in value if isinstance(value, DictConfig) else range(len(value)):
            yield from _values(value, inner, f"{key}.{inner!s}")
    else:
        yield key, name, value, value if written is None else written
