"""Command lines made out of others: a key may be given one value only."""

from __future__ import annotations

from collections.abc import Sequence


def over(base: Sequence[str], *overrides: str) -> list[str]:
    """The overrides of a command line in which some others take the place of those of the same key."""
    keys = {override.partition("=")[0] for override in overrides if "=" in override}
    return [*(each for each in base if each.partition("=")[0] not in keys), *overrides]
