"""Weightings, rules for sources without a weight from the user: those that are built in, and how to add your own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from datamix import registry
from datamix.errors import ConfigError
from datamix.mixing.weights import Number


def weighting(function: Callable[..., Mapping[str, Number]]) -> Callable[..., Mapping[str, Number]]:
    """Register a function as a weighting, under its own name.

    The function takes the number of records of each source, by name, and the keyword settings of the weighting's YAML
    file, and returns one relative weight, 0 or more, for each of the names. Where the mix has groups, it is also called
    for each group, with the names and sizes of its members; the size of a group is the sum of the sizes of its sources.

    Raises:
      RegistryError: The name is taken, or a setting is called `rule`.

    >>> @weighting
    ... def root_for_doctest(sizes, *, power: float = 0.5):
    ...     return {name: size**power for name, size in sizes.items()}
    >>> from datamix.mixing.plan import Plan
    >>> [str(share) for share in Plan({"a": 900, "b": 100}, weighting="root_for_doctest").shares]
    ['3/4', '1/4']
    """
    registry.register("weighting", function.__name__, function)
    return function


@weighting
def equal(sizes: Mapping[str, int]) -> dict[str, Number]:
    """Give every source the same weight, 1.

    >>> equal({"a": 5, "b": 3})
    {'a': 1, 'b': 1}
    """
    return dict.fromkeys(sizes, 1)


@weighting
def size(sizes: Mapping[str, int], *, temperature: float = 1, cap: float | None = None) -> dict[str, Number]:
    """Weigh a source by its number of records, up to a cap, flattened by a temperature: min(n, cap)^(1/T).

    A weight that a user sets beside this rule is in the same unit: records^(1/T).

    Args:
      sizes: The number of records of each source, by name.
      temperature: T, above 0; 1 mixes in proportion to size, and larger values make the weights more equal.
      cap: The largest number of records that counts, above 0; None for no limit.

    Raises:
      ConfigError: The temperature or cap is not above 0, or the temperature is so low that a weight overflows.

    Source: C. Raffel et al., Exploring the limits of transfer learning with a unified text-to-text transformer, JMLR
    21 (2020), section 3.5.2; the order of the two is SeqIO's.

    >>> size({"a": 10_000, "b": 100}, temperature=2)
    {'a': 100.0, 'b': 10.0}
    """
    if not 0 < temperature < math.inf:
        text = "it is above 0: 1 for the sizes as they are"
        raise ConfigError(text, key="weighting.temperature", value=temperature)
    if cap is not None and not 0 < cap < math.inf:
        raise ConfigError("it is above 0, or null for no limit", key="weighting.cap", value=cap)
    counted = {name: n if cap is None else min(n, cap) for name, n in sizes.items()}
    if temperature == 1:
        return dict(counted)
    try:
        return {name: n ** (1 / temperature) for name, n in counted.items()}
    except OverflowError:
        text = "weights of sources so large are beyond numbers; make it larger"
        raise ConfigError(text, key="weighting.temperature", value=temperature) from None
