"""What Hydra and OmegaConf say in several lines, said in one, with the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from datamix.config.check import unknown_key
from datamix.config.files import homes
from datamix.errors import ConfigError, hint

# Groups whose keys are the names of sources.
_BY_SOURCE = ("mix.weights", "mix.share", "stop.epochs")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into a `ConfigError` of one line."""
    from hydra.errors import HydraException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def explain(error: BaseException) -> str:
    """Say in one line what Hydra or OmegaConf says in several, with the nearest known name."""
    text = str(error)
    cause = error.__cause__ or error
    if match := re.search(r"Could not override '([^']+)'", text):
        return _explain_override(match[1], cause)
    if match := re.search(r"Error parsing override '(.*)'|^LexerNoViableAltException: (.*)", text):
        return (
            f"{match[1] or match[2]!r} is not an override; write key=value, and put quotes around a value with special "
            "characters: key='[a]'."
        )
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        return (
            f"{match[1]}={match[2]} lists several values: -m runs one job for each. For one value write mix.ratio=7:3, "
            f"source=mnist+fashion or {match[1]}=[…]."
        )
    if match := re.search(r"An item is already at '([^']+)'", text):
        return f"+{match[1]}: this key exists already; leave out the +."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, name = match[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        kind = {"dataset": "source"}.get(group, group)
        return f"{kind}={name}: there is no {group or 'config'} {name!r}. {hint(name, options)}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _explain_override(key: str, cause: BaseException) -> str:
    """What is wrong with an override that Hydra cannot apply."""
    missing = str(getattr(cause, "full_key", None) or key)
    parent = missing.rpartition(".")[0]
    if "is not in struct" in str(cause):
        if choices := homes().get(missing):
            return f"{key} belongs to {_listed(choices)}; {_add(choices)}, or leave it out."
        node = getattr(cause, "parent_node", None)
        known = [str(name) for name in node] if isinstance(node, DictConfig) else []
        kind = "source" if parent == "source" or parent.startswith(_BY_SOURCE) else "key"
        error = unknown_key(missing, known, kind=kind)
        return str(error) if missing == key else f"{key}{str(error).removeprefix(missing)}"
    if "defaults list" in str(cause) and (choices := homes().get(key)):
        return f"{key}= belongs to {_listed(choices)}; {_add(choices)}, or leave it out."
    return f"{key}: {str(cause).splitlines()[0]}"


def _listed(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def _add(choices: Sequence[str]) -> str:
    return f"add {choices[0]}" if len(choices) == 1 else "add one of them"
