"""Compose a configuration from the overrides of a command line; how Hydra does it is known only here.

Hydra is used through a loader of our own, so that no state which a host program shares with Hydra stays changed.
Composing and printing help import neither JAX nor TensorFlow.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import GroupDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from datamix import registry
from datamix.config.explain import one_line_errors, require_choices
from datamix.config.files import all_keys, conf_dir
from datamix.config.own_data import refuse_paths
from datamix.config.plus import MIX
from datamix.config.quoting import as_value, in_quotes
from datamix.config.renamed import rename_overrides
from datamix.errors import ConfigError, expanded
from datamix.mixing.groups import SELF

VERSION_BASE = "1.3"
"""The version of Hydra whose defaults apply to our configs."""

_PLUS = "plus://"
SEARCH_PATH = f"hydra.searchpath=[{_PLUS}]"
"""The override that lets Hydra find `source=a+b`."""

# Keys whose value may be a list; and keys that an interrupted run or sweep advises to add to its command.
_LISTS = re.compile(r"\.(path|offsets)$|^sweep\.dir$")
_ADVISED = re.compile(r"^hydra\.(run|sweep)\.dir$|^(train|sweep)\.resume$")

# Hydra creates its singletons on first use, and two threads would create them twice.
_composing = RLock()


def search_path(datasets: Sequence[str] = ()) -> str:
    """The override that lets Hydra find `source=a+b`, and complete the names of the user's own `datasets`."""
    return f"{SEARCH_PATH[:-1]},{_PLUS}+{'+'.join(datasets)}]" if datasets else SEARCH_PATH


def check_repeated(overrides: Sequence[str]) -> list[str]:
    """Notes on keys to which a command line gives several values, of which Hydra takes the last.

    A shell expands braces, as in `source.x.path={a,b}.csv`, to two overrides, so that data would be lost.

    Raises:
      ConfigError: A key that may have a list (paths, directories of sweeps) is given several values.

    >>> check_repeated(["batch.size=4", "batch.size=8"])
    ['batch.size is given 2 values, 4, 8; the last one counts.']
    >>> check_repeated(["source.x.path=a.csv", "source.x.path=b.csv"])
    Traceback (most recent call last):
    ...
    datamix.errors.ConfigError: source.x.path: it is given 2 values, a.csv, b.csv, and the last alone would count. \
Write 'source.x.path=[a.csv,b.csv]' for all of them.
    """
    values_of: dict[str, dict[str, None]] = {}
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        if equals and not key.startswith("~") and not _ADVISED.search(key):
            values_of.setdefault(key, {})[value] = None
    notes = []
    for key, values in values_of.items():
        if len(values) == 1:
            continue
        text = f"is given {len(values)} values, {', '.join(values)}"
        if _LISTS.search(key):
            items = [value[1:-1] if re.fullmatch(r"\[.*\]", value) else value for value in values]
            mend = f"Write '{key}=[{','.join(filter(None, items))}]' for all of them."
            raise ConfigError(f"it {text}, and the last alone would count", key=key, hint=mend)
        names = dict.fromkeys(name for value in values for name in value.split("+"))
        mixed = f" (source={'+'.join(names)} mixes them)" if key == "source" and "," not in "".join(names) else ""
        notes.append(f"{key} {text}; the last one counts{mixed}.")
    return notes


def prepared(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line in the form that Hydra understands.

    Text that Hydra's grammar would refuse is quoted: brackets and colons of `….split=`, comparisons of `….where=`,
    `window(n)`, the tilde of a home directory. The entry that joins datasets is added to the search path.

    Raises:
      ConfigError: An override is a path, or not the name of a choice, or there are several in one argument.

    >>> prepared(["source.mnist.split=train[:10],test", "hydra.searchpath=[file:///conf]"])
    ["source.mnist.split='train[:10]','test'", 'hydra.searchpath=[file:///conf,plus://]']
    >>> prepared(["seed=1"])
    ['seed=1', 'hydra.searchpath=[plus://]']
    """
    result = []
    _refuse_joint(overrides)
    overrides = rename_overrides(overrides)
    require_choices(overrides)
    keys = [override.partition("=")[0] for override in overrides]
    for override in overrides:
        key, equals, value = override.partition("=")
        if key == "source":
            refuse_paths(value)
        if value == "null" and (key == "hydra" or key.startswith("hydra/")):  # Hydra would show a traceback
            raise ConfigError("it is the name of a choice", key=key, value=None)
        if key.startswith(("mix.weights.", "mix.share.")) and any(other.startswith(f"{key}.") for other in keys):
            key += f".{SELF}"  # of a mix within the mix, some of whose members are set as well
        if equals:
            value = _quoted(key, value)
        if key.lstrip("+") == "hydra.searchpath" and _PLUS not in value and re.fullmatch(r"\[.*\]", value):
            entries = value[1:-1].strip()
            value = f"[{entries},{_PLUS}]" if entries else f"[{_PLUS}]"
        result.append(key + equals + value)
    if not any(key.lstrip("+") == "hydra.searchpath" for key in keys):
        # Not in config.yaml: Hydra reads a search path only from the primary config, which may be the user's own.
        result.append(SEARCH_PATH)
    return result


def _refuse_joint(overrides: Sequence[str]) -> None:
    """Refuse several overrides in one argument."""
    for override in overrides:
        groups = [] if override.startswith("+vars.") else re.findall(r"\s(\w+)[\w.]*=(?!=)", override)
        # `all_keys` reads many files, so it is called only if there may be a second override.
        if groups and {*groups} & {key.partition(".")[0] for key in all_keys()}:
            mend = "each has an argument of its own: 'source=mnist+fashion' 'mix.ratio=7:3'"
            raise ConfigError(f"{override!r} is not one override; {mend}.")


def _quoted(key: str, value: str) -> str:
    """A value with the quotes that Hydra's grammar needs; in a sweep, each of several values has its own."""
    split = key.endswith((".split", ".test_split")) and "[" in value and not re.match(r"\w+\(", value)
    if split and value.startswith("["):
        mend = f"Write {key}={'+'.join(part.strip() for part in value[1:-1].split(','))}."
        raise ConfigError("it is text, not a list", key=key, value=value, hint=mend)
    if re.match(r"['\"]", value):
        return value
    sweeps = re.match(r"(choice|sort|shuffle)\(", value)
    if key.endswith(".where") and value not in ("", "null") and not sweeps:
        return in_quotes(value)  # as a whole: its commas separate items of lists
    if key == "sweep.dir" and value != "null" and (plain := re.fullmatch(r"(\[?)([\w./+,-]+)(\]?)", value)):
        return plain[1] + ",".join(map(as_value, plain[2].split(","))) + plain[3]  # names that look like numbers
    windows = key == "shuffle" and re.search(r"\w\(", value) and not sweeps
    if split or windows or value.startswith("~/"):
        return ",".join(f"'{part}'" for part in value.split(","))
    return value


def typed(override: str) -> str:
    """An override for a shell, with only the quotes that are needed, without those that `prepared` adds.

    >>> print(typed("source.a.split='train[::4]'"), typed("seed=1"), typed("+vars.a='x y'"))
    'source.a.split=train[::4]' seed=1 "+vars.a='x y'"
    """
    key, _, value = override.partition("=")
    plain = f"{key}={value[1:-1]}"
    if re.fullmatch("'.*'", value) and prepared([plain])[0] == override:
        return shlex.quote(plain)
    return _for_shell(override)


def typed_text(key: str, text: str | Sequence[str]) -> str:
    """The override that sets a key to a text, or to a list of texts, for a shell.

    >>> print(typed_text("hydra.sweep.dir", "a (1)"), typed_text("sweep.dir", ["s", "1"]))
    "hydra.sweep.dir='a (1)'" "sweep.dir=[s,'1']"
    """
    value = as_value(text) if isinstance(text, str) else "[{}]".format(",".join(map(as_value, text)))
    return _for_shell(f"{key}={value}")


def _for_shell(override: str) -> str:
    return f'"{override}"' if "'" in override and not re.search(r'["$`\\!]', override) else shlex.quote(override)


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes only once what the jobs of a sweep have in common.

    Hydra composes each job twice, to check it and to run it, in 90 ms each. A copy with other values takes 6 ms, and
    the copy that was checked is the one that is run.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self._shared: dict[str, DictConfig] = {}
        self._checked: dict[tuple[str, ...], DictConfig] = {}
        self._parsed: dict[str, Override] = {}

    def check_mode(self, config: DictConfig, overrides: Sequence[str], mode: RunMode) -> None:
        """Apply Hydra's checks for a run or a sweep to a configuration that was composed without them."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        self.validate_sweep_overrides_legal(parsed, mode, from_shell=True)
        if mode == RunMode.RUN and "???" in config.hydra.runtime.choices.values():
            self.load_configuration(config.hydra.job.config_name, list(overrides), mode)  # raises, naming the group

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Any], repo: Any) -> None:
        """Refuse the folder of a module, which Hydra would import; only modules in `plugins` are imported."""
        primary = repo.load_config(config_name) if config_name else None
        entries = [OmegaConf.select(primary.config, "hydra.searchpath")] if primary else []
        entries += [each.value() for each in parsed_overrides if each.get_key_element() == "hydra.searchpath"]
        for entry in [each for some in entries if isinstance(some, Sequence) for each in some]:
            _refuse_module("hydra.searchpath", entry)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of a job; see `ConfigLoaderImpl`."""
        checked = self._checked.pop(tuple(sweep_overrides), None)
        if checked is not None and OmegaConf.is_missing(checked.hydra.job, "num"):  # else it has been run
            OmegaConf.copy_cache(from_config=master_config, to_config=checked)
            return checked
        overrides = [self._parse(text) for text in sweep_overrides]
        # Overrides that may choose a config, or are Hydra's own, are composed; a key with a dot is not a group.
        values = [each for each in overrides if "." in each.key_or_group and not each.is_hydra_override()]
        self.validate_sweep_overrides_legal(values, RunMode.RUN, from_shell=True)
        composed = [str(each.input_line) for each in overrides if each not in values]
        key = repr((composed, OmegaConf.to_container(master_config.hydra.overrides.hydra, resolve=False)))
        if key not in self._shared:
            self._shared[key] = super().load_sweep_config(master_config, composed)
        config = copy.deepcopy(self._shared[key])
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        self._apply_overrides_to_config(values, config)
        job, tasks = config.hydra.job, [each for each in overrides if not each.is_hydra_override()]
        config.hydra.overrides.task = [each.input_line for each in tasks]
        job.override_dirname = get_overrides_dirname(tasks, **job.config.override_dirname)
        if len(self._checked) < 256:  # so that a large sweep does not keep as many copies as jobs
            self._checked[tuple(sweep_overrides)] = config
        return config

    def _parse(self, override: str) -> Override:
        """Parse an override, once: jobs have most overrides in common."""
        if override not in self._parsed:
            (self._parsed[override],) = OverridesParser.create().parse_overrides([override])
        return self._parsed[override]


def config_loader(
    config_dir: str | Path | None = None, *, config_path: str | Path | None = None, datasets: Sequence[str] = ()
) -> Loader:
    """Make Hydra's loader of configurations.

    Args:
      config_dir: A directory with configs of the user's own, in addition to the shipped ones.
      config_path: A directory that replaces the shipped configs.
      datasets: The names of sources in memory.

    Raises:
      ConfigError: A directory is missing, cannot be read, or has a name of a shipped config.
    """
    if not any(source.scheme() == "plus" for source in Plugins.instance().discover(ConfigSource)):  # type: ignore[attr-defined]
        mend = "install datamix again (pip install -e . in a checkout), or add its folder datamix/plugins to PYTHONPATH"
        raise ConfigError(f"datamix's plugins for Hydra are not installed; {mend}.")
    _refuse_module("--config-path", config_path)
    search_path = create_config_search_path(str(config_path or conf_dir()))
    before_schema = SearchPathQuery(provider="schema")
    if config_dir is not None:
        directory = expanded(config_dir).absolute()
        try:
            if not directory.is_dir():
                raise ConfigError(f"--config-dir {config_dir}: there is no such directory.")
            os.scandir(directory).close()
            os.stat(f"{directory}/.")  # noqa: PTH116  # fails if files in it cannot be opened; `Path` would drop the dot
        except OSError as error:
            raise ConfigError(f"--config-dir {config_dir}: it cannot be read: {error.strerror}.") from None
        _refuse_shipped_names(directory)
        search_path.prepend(provider="command-line", path=f"file://{directory}", anchor=before_schema)
    # First, since looking up so long a name in a file system raises an error.
    search_path.prepend(provider="datamix", path=f"{_PLUS}+{'+'.join(datasets)}")
    if datasets:
        search_path.prepend(provider="datamix", path=_PLUS + "+".join(datasets), anchor=before_schema)
    return Loader(search_path)


def _refuse_shipped_names(directory: Path) -> None:
    """Refuse the user's own options that have names of shipped ones, which Hydra would read instead."""
    for shipped in conf_dir().glob("*/**/*.yaml"):
        name = shipped.relative_to(conf_dir())
        own = directory / name
        if own.is_file() and own.read_bytes() != shipped.read_bytes():
            what, mend = f"{name.parts[0]} {name.stem!r}", own.with_name(f"my_own_{name.stem}.yaml")
            raise ConfigError(f"{own} has the name of the {what} that is shipped, which would be read. Call it {mend}.")


def _refuse_module(key: str, place: object) -> None:
    if str(place).startswith("pkg:"):
        mend = "Name its folder, as in file:///DIR."
        raise ConfigError("it would import a module", key=key, value=place, hint=mend)


def compose(
    overrides: Sequence[str], *, config_dir: str | Path | None = None, datasets: Sequence[str] = ()
) -> DictConfig:
    """Compose the configuration of a command line, without running a job.

    Hydra's own part is left out, and so are its resolvers: `${now:…}` and `${hydra:…}` refer to the run of a job, and
    there is none. In a program that has registered them, as every Hydra application does, they work as they do there.

    Args:
      overrides: The overrides.
      config_dir: A directory with configs of the user's own.
      datasets: The names of sources in memory.

    Raises:
      ConfigError: An override or a config is wrong.
    """
    with _composing, _version_base(), one_line_errors():
        loader = config_loader(config_dir, datasets=datasets)
        with named_faults(loader):
            node = loader.load_configuration("config", prepared(overrides), RunMode.RUN)
            require_keys(node, config_dir)
    with open_dict(node):
        del node["hydra"]
    return node


@contextmanager
def hydra_config(config: DictConfig) -> Iterator[None]:
    """Let `${hydra:…}` refer to a configuration that has Hydra's part."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = config  # type: ignore[assignment]
    try:
        yield
    finally:
        instance.cfg = before


@contextmanager
def _version_base() -> Iterator[None]:
    """Compose with the defaults of `VERSION_BASE`, whichever version the host program has chosen."""
    base = version.VersionBase.instance()
    before = base.version_base
    version.setbase(VERSION_BASE)
    try:
        yield
    finally:
        base.version_base = before


def load_plugins(node: DictConfig) -> None:
    """Import the modules in a configuration's `plugins`, which may register resolvers for its other keys."""
    modules = OmegaConf.select(node, "plugins", default=None)
    registry.load_plugins(modules if OmegaConf.is_list(modules) else [])


def require_keys(node: DictConfig, config_dir: str | Path | None) -> None:
    """Refuse the user's own config if it is a list, which Hydra would silently ignore."""
    for group, names in node.hydra.runtime.choices.items() if config_dir is not None else ():
        for name in names if OmegaConf.is_list(names) else [names]:
            path = expanded(str(config_dir)) / str(group).partition("@")[0] / f"{name}.yaml"
            if path.is_file() and OmegaConf.is_list(OmegaConf.load(path)):
                raise ConfigError(f"{path} is a list; a config is a group of keys, as in `batch: {{size: 32}}`.")


def choices(config_dir: str | Path | None = None) -> dict[str, list[str]]:
    """The options of every config group, shipped ones and the user's own, by group."""
    options: dict[str, set[str]] = {}
    for directory in [conf_dir(), *([] if config_dir is None else [Path(config_dir)])]:
        for path in directory.rglob("*.yaml"):
            group = path.parent.relative_to(directory).as_posix()
            if group != "." and not group.startswith("hydra"):
                options.setdefault(group, set()).add(path.stem)
    return {group: sorted(options[group]) for group in sorted(options)}


@contextmanager
def named_faults(loader: ConfigLoaderImpl) -> Iterator[None]:
    """Turn what Hydra shows as a traceback, such as a mix made of itself or a file that is not text, into one line."""
    try:
        yield
    except (AttributeError, AssertionError) as error:  # of OmegaConf, if an override names a key below null
        if not re.search(r"full_key: hydra\.sweeper\.params|root: NoneType", str(error)):
            raise
        text = "the command line sets no key below null"
        mend = "Sweep a key by its own values, as in -m seed=1,2, or set the whole group in a YAML file."
        raise ConfigError(text, key="hydra.sweeper.params", hint=mend) from error
    except KeyError as error:
        if Path(traceback.extract_tb(error.__traceback__)[-2].filename).name != "config_loader_impl.py":
            raise
        text, mend = "there is no such variable in the environment", "Set it, or leave it out."
        raise ConfigError(text, key="hydra.job.env_copy", value=error.args[0], hint=mend) from error
    except UnicodeDecodeError as error:
        for directory in loader.get_search_path().get_path():
            for path in Path(str(directory.path).removeprefix("file://")).rglob("*.yaml"):
                if path.is_file() and path.read_bytes() == error.object:
                    raise ConfigError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}.") from None
        raise
    except RecursionError as error:
        raise _without_end(loader, error) from None


def _without_end(loader: ConfigLoaderImpl, error: RecursionError) -> ConfigError:
    """The error for a configuration that Hydra would follow without end."""
    for dataset in loader.get_group_options("dataset"):
        if loop := _loop(loader, dataset, ()):
            return ConfigError(f"the mix {dataset!r} is made of itself: {' -> '.join(loop)}", key="source")
    files = {Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)[-9:]}
    if "defaults_list.py" in files:
        return ConfigError("a config names itself in its defaults list, by itself or through others.")
    return ConfigError("values are nested too deeply; give them in fewer levels.")


def _loop(loader: ConfigLoaderImpl, dataset: str, within: tuple[str, ...]) -> tuple[str, ...]:
    """The names through which a mix leads back to the first of them; empty if it does not."""
    if dataset in within:
        return (*within, dataset) if dataset == within[0] else ()
    loaded = loader.repository.load_config(f"dataset/{dataset}")
    if loaded is None or not isinstance(loaded.config, DictConfig) or loaded.config.get("_target_") != MIX:
        return ()
    for default in loaded.defaults_list or ():
        is_member = isinstance(default, GroupDefault) and default.group == "/dataset"
        if is_member and (loop := _loop(loader, str(default.get_name()), (*within, dataset))):
            return loop
    return ()
