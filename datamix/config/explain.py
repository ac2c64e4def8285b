"""Turn the errors of Hydra, OmegaConf and PyYAML into one line each, with the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamix.config.check import BY_SOURCE, belongs_to, keys_below, keys_of, unknown_key
from datamix.config.files import choices_of, homes
from datamix.config.own_data import advice
from datamix.config.quoting import in_quotes
from datamix.config.renamed import TARGET
from datamix.config.schema import AdaptConfig
from datamix.errors import ConfigError, first_line, hint

# Messages of the built-in errors that OmegaConf raises if an override names a key below a list.
_NO_INDEX = re.compile(r"^invalid literal for int\(\) with base 10: (.+)$|^Index (.+) \(str\) is not an int$")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the errors of Hydra, OmegaConf and PyYAML into a `ConfigError` of one line."""
    from hydra.errors import HydraException

    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise config_error(error) from error
    except (TypeError, ValueError) as error:
        if not (match := _NO_INDEX.search(str(error))):
            raise
        mend = "there, write a number (operators.0=to_float) or the whole list (operators=[to_float])"
        raise ConfigError(f"an override names {match[1] or match[2]} below a list; {mend}.") from error


def config_error(error: BaseException) -> ConfigError:
    """The error of one line for an error of Hydra, OmegaConf or PyYAML, with the nearest known name."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _override_error(match[1], error.__cause__ or error)
    match = re.search(r"Error parsing override '(.*)'|^LexerNoViableAltException: (.*)", text)
    if override := (match[1] or match[2]) if match else getattr(error, "override", None):
        return ConfigError(f"{override!r} is not an override; write {_meant(override)}.")
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        joint = {"mix.ratio": ":", "source": "+"}.get(match[1])
        one = match[2].replace(",", joint) if joint else f"[{match[2]}]"
        mend = f"Add it, or write {match[1]}={one} for {'one value' if joint else 'a list'}."
        return ConfigError(f"{match[1]}={match[2]} lists several values: -m runs one job for each. {mend}")
    if match := re.match(r"Error merging override ([^=]+)=(.)", text):
        if "could not be converted" in (cause := first_line(error.__cause__ or error)):
            return ConfigError(cause, key=match[1])
        if match[2] == "{":
            return ConfigError("it is a list", key=match[1], hint=f"Write {match[1]}=[…].")
        return ConfigError("it is a group of keys", key=match[1], hint=keys_below(match[1]))
    if match := re.search(r"An item is already at '([^']+)'", text):
        return ConfigError("this key exists already; leave out the +", key=f"+{match[1]}")
    if match := re.search(r"(?:In 'source/(.+)': )?Could not find '([^']+)'", text):
        return _not_found(text, match[1], match[2])
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        mend = "--config-dir DIR adds a folder of your own, and --config-name NAME begins with DIR/NAME.yaml"
        return ConfigError(f"there is no config {match[1]!r} to begin with; {mend}.")
    text = re.sub(r"(?<=To override a value use 'override )(?=\w)", "/", text)  # Hydra's own advice lacks the slash
    if isinstance(error, YAMLError):
        text += "; a YAML file has key: value, and keys of a group begin in one column, after blanks alone."
    text = text or next(filter(None, map(str, (error.__cause__, error.__context__))), type(error).__name__)
    return ConfigError(" ".join(line.strip() for line in text.splitlines() if line.strip()))


def _not_found(text: str, within: str | None, choice: str) -> ConfigError:
    """The error for a choice that Hydra does not find, from Hydra's `text`; `within` is the value of `source=`."""
    group, _, name = choice.rpartition("/")
    options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
    key = {"dataset": "source"}.get(group, group)
    if choices_of(group.rpartition("/")[2]) and "/" in group:
        return _without_slash(group)
    if group == "dataset" and Path(name).exists():
        return ConfigError("it is a path, and no dataset has this name", key=f"{key}={name}", hint=advice(name, within))
    folders = [Path(folder) for folder in re.findall(r"path=file://(.+)$", text, re.MULTILINE)]
    if misplaced := _misplaced(folders, group, name):
        return ConfigError(f"there is no {group} {name!r}", key=f"{key}={name}", hint=misplaced)
    mend = hint(name, options)
    if group == "dataset" and not mend.startswith("Did"):
        mend += (
            f' One of your own is DIR/dataset/{name}.yaml, found by --config-dir DIR, in Python by config_dir="DIR".'
        )
    return ConfigError(f"there is no {group or 'config'} {name!r}", key=f"{key}={name}", hint=mend)


def _misplaced(folders: Sequence[Path], group: str, name: str) -> str:
    """The advice on how to make Hydra find a file of the user's that it ignores; empty if there is none."""
    for folder in folders:
        if (file := folder / group / f"{name}.yml").is_file():
            return f"Hydra reads {file} only as {name}.yaml; rename it."
        if group and folder.as_posix().endswith(f"/{group}") and (file := folder / f"{name}.yaml").is_file():
            return f"{file} is found by --config-dir {folder.as_posix().removesuffix(f'/{group}')}."
    return ""


_WORDS = {"help": "--help or --help mix", "version": "--version", "sweep": "-m job=train mix.share.mnist=0.1,0.5,0.9"}


def _meant(text: str) -> str:
    """What to write in place of a text that is not an override, such as `train` or `path=a (1).csv`."""
    key, equals, value = text.partition("=")
    if key.startswith("/"):
        return text.lstrip("/")
    if key in ("--config-dir", "-cd"):  # the command line takes it out of the overrides
        return f'config_dir="{value or "DIR"}", an argument of its own in Python'
    if equals and re.fullmatch(r"\w+\.[\w.]*/[\w./]+", key):  # a path of sources
        return f"{key.replace('/', '.')}={value}"
    if text == "=" or key.endswith(" ") or value.startswith(" "):
        return f"{key.strip() or 'key'}={value.strip() or 'value'}, without blanks"
    if value.count("[") > value.count("]"):
        return f"quotes around all of it, which the shell has cut at a blank: '{key}=…'"
    if key.endswith(("operators", "schedule")) and (called := re.match(r"(\[?)(?:\w+,)*(\w+)\(", value)):
        return f"its settings by name: '{key}={called[1]}{{{called[2]}: {{SETTING: VALUE}}}}{']' * len(called[1])}'"
    if equals and re.search(r"^,|,,|,$", value):
        return f"one comma between values, and no blanks: {key}={','.join(filter(None, value.split(',')))}"
    if equals and value:
        quoted = re.sub(r'[$`"]|\\(?=["\\$`])', r"\\\g<0>", in_quotes(value))  # within the shell's quotes
        return f'key=value, and quotes around a value with special characters: "{key}={quoted}"'
    if text in _WORDS:
        return _WORDS[text]
    for group in ("job", "source", "experiment", "mix", "stop", "weighting", "model", "optimizer"):
        if {*text.split("+")} <= {*choices_of(group)}:
            return f"{group}={text}" + " (several are joined by +: source=mnist+fashion)" * (group == "source")
    return "key=value; --help shows the keys"


def _without_slash(key: str) -> ConfigError:
    """The error for a choice without a slash in a defaults list, which Hydra searches below the group of its file."""
    key = key.partition("@")[0]
    mend = f"Write it with override and a slash: - override /{key.rpartition('/')[2]}: …"
    return ConfigError("there is no such group within this one", key=key, hint=mend)


def _chosen_by(key: str) -> dict[str, list[str]]:
    """The choices of launchers or sweepers that bring each setting in the group of a key, by the setting's name."""
    group = "/".join(key.split(".")[:-1])
    options = ConfigStore.instance().list(group) if group in ("hydra/launcher", "hydra/sweeper") else ()
    chosen: dict[str, list[str]] = {}
    for file in options:
        # The list also has folders, such as that of Optuna's samplers.
        for name in ConfigStore.instance().load(f"{group}/{file}").node if file.endswith(".yaml") else ():
            chosen.setdefault(str(name), []).append(f"{group}={Path(file).stem}")
    return chosen


def _set_whole(key: str) -> ConfigError:
    """The error for an override of one setting of a schedule, which can only be set as a whole."""
    value = "VALUE"
    for name in reversed(key.split(".")[2:]):
        value = f"{{{name}:{value}}}"
    return ConfigError("a schedule is set with its settings", key=key, hint=f"Write 'optimizer.schedule={value}'.")


def _override_error(key: str, cause: BaseException) -> ConfigError:
    missing = str(getattr(cause, "full_key", None) or key)
    if re.search("is not in struct|^Key '.*' not in '", str(cause)):
        parent, _, name = missing.rpartition(".")
        node = getattr(cause, "parent_node", None)
        known = [str(name) for name in node if name != TARGET] if isinstance(node, DictConfig) else []
        is_policy = parent == "adapt" and isinstance(node, DictConfig) and TARGET in node
        if is_policy and missing in {each.path for each in keys_of(AdaptConfig).values()}:
            mend = f"Write it there, or +{key}=… here."
            return ConfigError("the file of this policy does not have it", key=key, hint=mend)
        if parent.startswith("optimizer.schedule"):
            return _set_whole(key)
        if choices := (chosen := _chosen_by(missing)).get(name):
            return belongs_to(choices, key)
        known += difflib.get_close_matches(name, chosen.keys() - {*known}, n=1)
        kind = "source" if parent == "source" or parent.startswith(BY_SOURCE) else "key"
        return unknown_key(missing, known, kind=kind, key=key)
    if key == "dataset":
        return ConfigError("datasets are chosen by source=, as in source=mnist+fashion", key=key)
    if re.search(r"@\w+\.", key):
        mend = "Let that file begin with the line # @package _global_."
        return ConfigError("a file chooses it below its own group", key=key.partition("@")[0], hint=mend)
    if "defaults list" in str(cause) and "/" in key:
        return _without_slash(key)
    if "defaults list" in str(cause) and key in homes():
        return unknown_key(key, ())
    return ConfigError(first_line(cause), key=key)


def require_choices(overrides: Sequence[str]) -> None:
    """Refuse values that cannot name a choice, such as `job=null` or `mix=[1]`; Hydra would show a traceback."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        group = text.partition("=")[0].lstrip("+").partition("@")[0]
        if not group:
            raise ConfigError(f"{text!r} is not an override; write {_meant(text)}.")
        if not (options := choices_of(group)):
            continue
        try:
            (override,) = parser.parse_overrides([text])
        except HydraException:  # Hydra reports it itself
            continue
        value = override.value()
        names = value if isinstance(value, list) else [value]
        # A group of keys is not a choice either, but Hydra accepts and merges it.
        if override.is_delete() or override.is_sweep_override() or isinstance(value, Mapping):
            continue
        if not all(isinstance(name, str) for name in names):
            mend = hint(str(value), options)
            if group == "stop" and type(value) is int:
                mend += f" After a number of batches, it is stop.batches={value} that ends a mix."
            raise ConfigError("it is the name of a choice", key=group, value=value, hint=mend)
