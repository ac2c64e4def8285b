"""Keys of earlier releases, which are accepted for one release with a warning."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

TARGET = "_target_"
"""The key that names the component of a group."""

GROUPS = {**dict.fromkeys(("job", "model", "optimizer"), "name"), "mix": "order", "stop": "rule", "weighting": "rule"}
"""The key that named the component of each group before `_target_` did in all of them."""

_log = logging.getLogger(__name__)


def rename_keys(plain: dict[str, Any]) -> None:
    """Put what a configuration says under a key of an earlier release where it belongs now, in place."""
    for group, old in GROUPS.items():
        node = plain.get(group)
        # A file of the user's that has the old key comes over the choice that it is merged with.
        if isinstance(node, dict) and node.get(old) is not None:
            node[TARGET] = node.pop(old)
            _warn(f"{group}.{old}", f"{group}.{TARGET}")


def rename_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line with the keys that there are now.

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


@cache  # one line a key, however many jobs there are
def _warn(old: str, new: str) -> None:
    _log.warning("%s is now %s; the old key is accepted in this release alone.", old, new)
