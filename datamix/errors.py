"""The errors a user can meet, one class a cause, each a single line that says how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class DatamixError(Exception):
    """A user's mistake or a fault of their data; the command line prints it as one line and exits with 2."""


class ConfigError(DatamixError):
    """A setting has a value that is not allowed."""


class RegistryError(DatamixError):
    """A name that the registry does not hold."""


class SpecError(DatamixError):
    """Records whose shapes or dtypes do not fit together."""


class DataError(DatamixError):
    """Data that is missing, empty or damaged."""


class StateError(DatamixError):
    """A state that does not belong to this pipeline."""


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest, and which there are.

    >>> hint("rotat", ["crop", "rotate"])
    "Did you mean 'rotate'? Known: crop, rotate."
    >>> hint("x", [])
    'There are none.'
    """
    names = sorted(known)
    if not names:
        return "There are none."
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(names)}."


def install_hint(extra: str) -> str:
    """Say how to install an extra, in a checkout or where datamix was installed from the index.

    >>> install_hint("prepare").startswith("pip install ")
    True
    """
    in_checkout = Path(__file__).resolve().parents[1].joinpath("pyproject.toml").is_file()
    return f"pip install -e '.[{extra}]'" if in_checkout else f"pip install 'datamix-jax[{extra}]'"
