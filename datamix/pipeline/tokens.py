"""Tokens: numbers by which compiled programs, which hold only arrays, refer to objects on the host."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

from datamix.errors import ConfigError

_objects: WeakValueDictionary[int, Any] = WeakValueDictionary()
_tokens = itertools.count(1)


def token_of(target: Any) -> int:
    """A unique number for an object, for as long as others keep the object."""
    _objects[token := next(_tokens)] = target
    return token


def object_of(token: int) -> Any:
    """The object that has a token.

    Raises:
      ConfigError: The object is gone.
    """
    if (target := _objects.get(token)) is None:
        raise ConfigError("the Pipeline that this computes with is gone; keep it as long as its pipeline.compiled.")
    return target
