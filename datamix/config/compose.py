"""From the overrides of a command line to a composed configuration: all that knows how Hydra does it.

Composing and printing help import neither JAX nor TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from datamix.config.explain import one_line_errors, require_choices
from datamix.config.files import conf_dir
from datamix.config.plus import PlusSearchPath, PlusSource
from datamix.config.renamed import rename_overrides
from datamix.errors import RegistryError
from datamix.mixing.groups import SELF
from datamix.sweeps import launcher

# What Hydra may build from its own part of a configuration: its plugins at the top, samplers of a sweeper's below.
_HYDRA_PLUGINS = ("hydra._internal.", "hydra_plugins.", launcher.VMAP)
_HYDRA_BUILT = tuple(f"hydra.{part}" for part in ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging"))
_HYDRA_PARTS = ("optuna.samplers.",)
_LOGGING_PARTS = ("logging.", "colorlog.", "rich.logging.")


def register_with_hydra() -> None:
    """Make `source=a+b` known to Hydra, and what it may build; before `hydra.main` or `compose`."""
    for plugin in (PlusSource, PlusSearchPath):
        Plugins.instance().register(plugin)
    launcher.register_with_hydra()
    ConfigLoaderImpl.load_configuration = _load_checked  # type: ignore[method-assign]
    # Hydra copies the whole store for each group that help lists, and copies what it takes out of it anyway: with the
    # launchers' configs in it, 2 of help's 3 seconds.
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]


_load_configuration = ConfigLoaderImpl.load_configuration


def _load_checked(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
    """Hydra's loading of a configuration, whose `hydra` part could otherwise name any class to build and call."""
    loaded = _load_configuration(self, *args, **kwargs)
    part = OmegaConf.to_container(loaded.hydra, resolve=False) if "hydra" in loaded else {}
    for key, value in _leaves(part, "hydra"):
        name = key.rpartition(".")[2]
        logs = key.startswith(("hydra.job_logging.", "hydra.hydra_logging."))
        plugin = key in ("hydra.launcher._target_", "hydra.sweeper._target_")
        allowed = _LOGGING_PARTS if logs else _HYDRA_PLUGINS if plugin else _HYDRA_PARTS
        builds = name == "_target_" or (logs and name in ("class", "()"))
        # A node that stands outside of Hydra's part could be brought in by interpolation.
        brought = key.startswith(_HYDRA_BUILT) and re.fullmatch(r"\$\{(?!hydra\.[\w.]+\})[^}]*\}", str(value))
        called = key == "hydra.sweeper.custom_search_space" and value is not None
        if brought or called or (builds and not str(value).startswith(allowed)):
            raise RegistryError(f"{key} = {value!r}: nothing but Hydra's own plugins can be built here.")
    return loaded


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping | list):
        for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}")
    else:
        yield key, node


def quote_splits(overrides: Sequence[str]) -> list[str]:
    """Quote what Hydra's grammar would refuse: the brackets and colons of `….split=`, `window(n)`, the tilde of a home.

    >>> quote_splits(["source.mnist.split=train[:10],test", "seed=1"])
    ["source.mnist.split='train[:10]','test'", 'seed=1']
    """
    quoted = []
    overrides = rename_overrides(overrides)
    require_choices(overrides)
    keys = [override.partition("=")[0] for override in overrides]
    for override in overrides:
        key, equals, value = override.partition("=")
        if key.startswith(("mix.weights.", "mix.share.")) and any(other.startswith(f"{key}.") for other in keys):
            key += f".{SELF}"  # of a mix within the mix, beside those of its members
        split = key.endswith((".split", ".test_split")) and "[" in value and not re.match(r"\w+\(", value)
        windows = key == "shuffle" and "window(" in value and not re.match(r"(choice|sort|shuffle)\(", value)
        needed = split or windows or value.startswith("~/")
        if equals and needed and not re.match(r"['\"]", value):
            value = ",".join(f"'{part}'" for part in value.split(","))
        quoted.append(key + equals + value)
    return quoted


def compose(
    overrides: Sequence[str],
    *,
    config_dir: str | Path | None = None,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
) -> DictConfig:
    """Compose the configuration of a command line, without running a job.

    Args:
      overrides: as on the command line.
      config_dir: more configs, searched first.
      datasets: more options of the group `dataset`, by name.

    Raises:
      ConfigError: an override that the configuration does not know or allow.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    register_with_hydra()
    arguments = quote_splits(overrides)
    if config_dir is not None:
        arguments.append(f"hydra.searchpath=['file://{Path(config_dir).absolute()}']")
    with (
        _stored_datasets(datasets or {}),
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
        one_line_errors(),
    ):
        return hydra_compose("config", arguments)


@contextmanager
def _stored_datasets(datasets: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    store = ConfigStore.instance()
    for name, node in datasets.items():
        store.store(name=name, group="dataset", node=dict(node))
    try:
        yield
    finally:
        for name in datasets:
            del store.repo["dataset"][f"{name}.yaml"]
