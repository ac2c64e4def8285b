"""From the overrides of a command line to a composed configuration: all that knows how Hydra does it.

Hydra is used through a loader of our own: no state that a host program shares with Hydra is left changed.
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
from datamix.config.renamed import rename_overrides
from datamix.errors import ConfigError, expanded
from datamix.mixing.groups import SELF

VERSION_BASE = "1.3"
"""The version of Hydra whose defaults hold for our configs."""

_PLUS = "plus://"
SEARCH_PATH = f"hydra.searchpath=[{_PLUS}]"
"""The override that lets Hydra find `source=a+b`."""

# Keys whose setting may be a list; those that a run or sweep which was cut short advises to add to the same command.
_LISTS = re.compile(r"\.(path|offsets)$|^sweep\.dir$")
_ADVISED = re.compile(r"^hydra\.(run|sweep)\.dir$|^(train|sweep)\.resume$")

# Hydra makes its singletons when they are first used, and two threads would make them twice.
_composing = RLock()


def search_path(datasets: Sequence[str] = ()) -> str:
    """The override that lets Hydra find `source=a+b`, and complete the names of datasets of one's own."""
    return f"{SEARCH_PATH[:-1]},{_PLUS}+{'+'.join(datasets)}]" if datasets else SEARCH_PATH


def check_repeated(overrides: Sequence[str]) -> list[str]:
    """Notes on keys to which a command line gives several values, of which Hydra takes the last.

    A shell makes two overrides of one that has braces, as in `source.x.path={a,b}.csv`, so that data would be lost.

    Raises:
      ConfigError: Several values of a key that may list them: datasets, paths, directories of sweeps.

    >>> check_repeated(["batch.size=4", "batch.size=8"])
    ['batch.size is given 2 values, 4, 8; the last one counts.']
    >>> check_repeated(["source.x.path=a.csv", "source.x.path=b.csv"])
    Traceback (most recent call last):
    ...
    datamix.errors.ConfigError: source.x.path: it is given 2 values, a.csv, b.csv, and the last alone would count. \
Write 'source.x.path=[a.csv,b.csv]' for all of them.
    """
    values: dict[str, dict[str, None]] = {}
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        if equals and not key.startswith("~") and not _ADVISED.search(key):
            values.setdefault(key, {})[value] = None
    notes = []
    for key, given in values.items():
        if len(given) == 1:
            continue
        text = f"is given {len(given)} values, {', '.join(given)}"
        if key == "source" or _LISTS.search(key):
            whole = f"source={'+'.join(given)}" if key == "source" else f"'{key}=[{','.join(given)}]'"
            raise ConfigError(
                f"it {text}, and the last alone would count", key=key, hint=f"Write {whole} for all of them."
            )
        notes.append(f"{key} {text}; the last one counts.")
    return notes


def prepared(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line as Hydra understands them.

    What Hydra's grammar would refuse is quoted: brackets and colons of `….split=`, comparisons of `….where=`,
    `window(n)`, the tilde of a home.
    The search path gets the entry that joins datasets, beside those of the user.

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
        if value == "null" and (key == "hydra" or key.startswith("hydra/")):  # Hydra would answer with a traceback
            raise ConfigError("it is the name of a choice", key=key, value=None)
        if key.startswith(("mix.weights.", "mix.share.")) and any(other.startswith(f"{key}.") for other in keys):
            key += f".{SELF}"  # of a mix within the mix, beside those of its members
        if equals:
            value = _quoted(key, value)
        if key.lstrip("+") == "hydra.searchpath" and _PLUS not in value and re.fullmatch(r"\[.*\]", value):
            entries = value[1:-1].strip()
            value = f"[{entries},{_PLUS}]" if entries else f"[{_PLUS}]"
        result.append(key + equals + value)
    if not any(key.lstrip("+") == "hydra.searchpath" for key in keys):
        # Not in config.yaml: Hydra takes a search path from a primary config alone, and that may be the user's own.
        result.append(SEARCH_PATH)
    return result


def _refuse_joint(overrides: Sequence[str]) -> None:
    """Refuse several overrides in one text."""
    for override in overrides:
        others = [] if override.startswith("+vars.") else re.findall(r"\s(\w+)[\w.]*=(?!=)", override)
        # All keys are read from many files, and so where there may be another one alone.
        if others and {*others} & {key.partition(".")[0] for key in all_keys()}:
            mend = "each has an argument of its own: 'source=mnist+fashion' 'mix.ratio=7:3'"
            raise ConfigError(f"{override!r} is not one override; {mend}.")


def _quoted(key: str, value: str) -> str:
    """A value with the quotes that Hydra's grammar asks for; each of those that are swept has its own."""
    split = key.endswith((".split", ".test_split")) and "[" in value and not re.match(r"\w+\(", value)
    if split and value.startswith("["):
        mend = f"Write {key}={'+'.join(part.strip() for part in value[1:-1].split(','))}."
        raise ConfigError("it is text, not a list", key=key, value=value, hint=mend)
    if re.match(r"['\"]", value):
        return value
    sweeps = re.match(r"(choice|sort|shuffle)\(", value)
    if key.endswith(".where") and value not in ("", "null") and not sweeps:
        return "'{}'".format(value.replace("'", "\\'"))  # whole: its commas are those of lists
    windows = key == "shuffle" and re.search(r"\w\(", value) and not sweeps
    if split or windows or value.startswith("~/"):
        return ",".join(f"'{part}'" for part in value.split(","))
    return value


def typed(override: str) -> str:
    """An override for a shell, with the quotes that are needed: those that `prepared` puts round a value are not.

    >>> print(typed("source.a.split='train[::4]'"), typed("seed=1"), typed("+vars.a='x y'"))
    'source.a.split=train[::4]' seed=1 "+vars.a='x y'"
    """
    key, _, value = override.partition("=")
    plain = f"{key}={value[1:-1]}"
    if re.fullmatch("'.*'", value) and prepared([plain])[0] == override:
        return shlex.quote(plain)
    return f'"{override}"' if "'" in override and not re.search(r'["$`\\!]', override) else shlex.quote(override)


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes what the jobs of a sweep have in common once.

    Hydra composes each job twice, to check it and to run it, at 90 ms a time; a copy with other values takes 6, and
    that of the check is what is run.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self._shared: dict[str, DictConfig] = {}
        self._checked: dict[tuple[str, ...], DictConfig] = {}
        self._parsed: dict[str, Override] = {}

    def check_mode(self, config: DictConfig, overrides: Sequence[str], mode: RunMode) -> None:
        """Refuse what Hydra refuses in a run, or in a sweep, of what was composed without a look at which it is."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        self.validate_sweep_overrides_legal(parsed, mode, from_shell=True)
        if mode == RunMode.RUN and "???" in config.hydra.runtime.choices.values():
            self.load_configuration(config.hydra.job.config_name, list(overrides), mode)  # says what is missing

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Any], repo: Any) -> None:
        """Refuse the folder of a module, which Hydra would import: a configuration imports what `plugins` names."""
        primary = repo.load_config(config_name) if config_name else None
        entries = [OmegaConf.select(primary.config, "hydra.searchpath")] if primary else []
        entries += [each.value() for each in parsed_overrides if each.get_key_element() == "hydra.searchpath"]
        for entry in [each for some in entries if isinstance(some, Sequence) for each in some]:
            _refuse_module("hydra.searchpath", entry)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of a job; see `ConfigLoaderImpl`."""
        checked = self._checked.pop(tuple(sweep_overrides), None)
        if checked is not None and OmegaConf.is_missing(checked.hydra.job, "num"):  # a launcher numbers what it runs
            OmegaConf.copy_cache(from_config=master_config, to_config=checked)
            return checked
        overrides = [self._parse(text) for text in sweep_overrides]
        # What may choose a config, or belongs to Hydra, is composed; a key with a dot names no group.
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
        if len(self._checked) < 256:  # a sweep of many more would hold as many copies
            self._checked[tuple(sweep_overrides)] = config
        return config

    def _parse(self, override: str) -> Override:
        """An override, parsed; jobs have most of theirs in common."""
        if override not in self._parsed:
            (self._parsed[override],) = OverridesParser.create().parse_overrides([override])
        return self._parsed[override]


def config_loader(
    config_dir: str | Path | None = None, *, config_path: str | Path | None = None, datasets: Sequence[str] = ()
) -> Loader:
    """Hydra's loader of configurations, over those of the user and the shipped ones, or `config_path` instead."""
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
            os.stat(f"{directory}/.")  # noqa: PTH116  # as files in it are; `Path` would leave the dot out
        except OSError as error:
            raise ConfigError(f"--config-dir {config_dir}: it cannot be read: {error.strerror}.") from None
        _refuse_shipped_names(directory)
        search_path.prepend(provider="command-line", path=f"file://{directory}", anchor=before_schema)
    # Before all: what asks a file system for a file of so long a name fails.
    search_path.prepend(provider="datamix", path=f"{_PLUS}+{'+'.join(datasets)}")
    if datasets:
        search_path.prepend(provider="datamix", path=_PLUS + "+".join(datasets), anchor=before_schema)
    return Loader(search_path)


def _refuse_shipped_names(directory: Path) -> None:
    """Refuse options of the user's own that Hydra would pass over, as shipped ones of their names come first."""
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
    """Compose the configuration of a command line, without running a job; `datasets` names sources in memory.

    Hydra's own part is left out, and so are its resolvers: `${now:…}` and `${hydra:…}` name the run of a job, which
    there is none here. In a program that has registered them, as every Hydra application does, they mean what they
    mean there.
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
    """Let `${hydra:…}` refer to a configuration, which has Hydra's part."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = config  # type: ignore[assignment]
    try:
        yield
    finally:
        instance.cfg = before


@contextmanager
def _version_base() -> Iterator[None]:
    """Compose under the defaults of one version of Hydra, whichever the host program has chosen."""
    base = version.VersionBase.instance()
    before = base.version_base
    version.setbase(VERSION_BASE)
    try:
        yield
    finally:
        base.version_base = before


def load_plugins(node: DictConfig) -> None:
    """Import the modules that a configuration names: they may register what its other keys are resolved with."""
    modules = OmegaConf.select(node, "plugins", default=None)
    registry.load_plugins(modules if OmegaConf.is_list(modules) else [])


def require_keys(node: DictConfig, config_dir: str | Path | None) -> None:
    """Refuse what is chosen of the user's own and is a list, which Hydra would leave out without a word."""
    for group, names in node.hydra.runtime.choices.items() if config_dir is not None else ():
        for name in names if OmegaConf.is_list(names) else [names]:
            path = expanded(str(config_dir)) / str(group).partition("@")[0] / f"{name}.yaml"
            if path.is_file() and OmegaConf.is_list(OmegaConf.load(path)):
                raise ConfigError(f"{path} is a list; a config is a group of keys, as in `batch: {{size: 32}}`.")


def choices(config_dir: str | Path | None = None) -> dict[str, list[str]]:
    """The options of every config group, by group: those that are shipped and the user's own."""
    options: dict[str, set[str]] = {}
    for directory in [conf_dir(), *([] if config_dir is None else [Path(config_dir)])]:
        for path in directory.rglob("*.yaml"):
            group = path.parent.relative_to(directory).as_posix()
            if group != "." and not group.startswith("hydra"):
                options.setdefault(group, set()).add(path.stem)
    return {group: sorted(options[group]) for group in sorted(options)}


@contextmanager
def named_faults(loader: ConfigLoaderImpl) -> Iterator[None]:
    """Say in one line what Hydra answers with a traceback, such as a mix made of itself or a file that is no text."""
    try:
        yield
    except (AttributeError, AssertionError) as error:  # OmegaConf's, where an override names a key below null
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
    """The error for what Hydra follows without end."""
    for dataset in loader.get_group_options("dataset"):
        if loop := _loop(loader, dataset, ()):
            return ConfigError(f"the mix {dataset!r} is made of itself: {' -> '.join(loop)}", key="source")
    files = {Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)[-9:]}
    if "defaults_list.py" in files:
        return ConfigError("a config names itself in its defaults list, by itself or through others.")
    return ConfigError("values are nested too deeply; give them in fewer levels.")


def _loop(loader: ConfigLoaderImpl, dataset: str, within: tuple[str, ...]) -> tuple[str, ...]:
    """The names by which a mix leads back to the first of them; empty where it does not."""
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
