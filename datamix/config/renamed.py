"""Keys of earlier releases, which one release still accepts, with a warning."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

TARGET = "_target_"
"""The key that names the component of a group."""

GROUPS = {**dict.fromkeys(("job", "model", "optimizer"), "name"), "mix": "order", "stop": "rule", "weighting": "rule"}
"""The key that named the component of each group in earlier releases, before `_target_`."""

_log = logging.getLogger(__name__)


def rename_keys(plain: dict[str, Any]) -> None:
    """Move values from keys of an earlier release to the present ones, in place."""
    for group, old in GROUPS.items():
        node = plain.get(group)
        # A user's file with the old key takes precedence over the choice with which it is merged.
        if isinstance(node, dict) and node.get(old) is not None:
            node[TARGET] = node.pop(old)
            _warn(f"{group}.{old}", f"{group}.{TARGET}")


def rename_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line with the present keys.

    >>> rename_overrides(["mix.order=random", "seed=1"])
    ['mix._target_=random', 'seed=1']
    """
    renamed = []
    for override in overrides:
        match = re.match(r"(\+{0,2})(\w+)\.(\w+)=", override)
        if match and GROUPS.get(match[2]) == match[3]:
            _warn(f"{match[2]}.{match[3]}", f"{match[2]}.{TARGET}")
            override = f"{match[2]}.{TARGET}={override[match.end() :]}"
        renamed.append(override)
    return renamed


@cache  # one line per key, however many jobs there are
def _warn(old: str, new: str) -> None:
    _log.warning("%s is now %s; the old key is accepted in this release alone.", old, new)
