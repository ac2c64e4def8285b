"""Text as the value of an override: in the quotes of Hydra's grammar where it needs them."""

from __future__ import annotations

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def in_quotes(text: str) -> str:
    r"""A text in the quotes of Hydra's grammar.

    >>> print(in_quotes("it's"), in_quotes("a\\"))
    'it\'s' 'a\\'
    """
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", text)
    return "'{}'".format(doubled.replace("'", r"\'"))


def as_value(text: str) -> str:
    """A text as a value, or as an item of a list; in quotes if Hydra would read anything else without them.

    >>> print(as_value("sweeps/one"), as_value("1"), as_value("a, b"))
    sweeps/one '1' 'a, b'
    """
    try:
        (override,) = OverridesParser.create().parse_overrides([f"key=[{text}]"])
    except HydraException:
        return in_quotes(text)
    return text if override.value() == [text] else in_quotes(text)
