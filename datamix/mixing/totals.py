"""Totals of the records and tokens that each source has given before a position, a function of the position alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from datamix.mixing.locating import Locator


class Totals(NamedTuple):
    """The records and tokens that each source has given before a position.

    Attributes:
      records: The number of records, shape [num_sources].
      tokens: The number of tokens in them, shape [num_sources]; None where no source has any.
    """

    records: list[int]
    tokens: list[int] | None

    @classmethod
    def at(cls, plan: Locator, position: int) -> Totals:
        """The totals of a plan before a position."""
        counts = plan.counts(position)
        return cls(counts, plan.tokens(counts))

    def without(self, first: Totals, end: Totals) -> Totals:
        """These totals without what was given between two positions, whose totals are `first` and `end`."""
        tokens = None
        if self.tokens is not None and first.tokens is not None and end.tokens is not None:
            tokens = _less(self.tokens, first.tokens, end.tokens)
        return Totals(_less(self.records, first.records, end.records), tokens)


def _less(counts: list[int], first: list[int], end: list[int]) -> list[int]:
    return [count - until + since for count, since, until in zip(counts, first, end, strict=True)]


def source_metrics(plan: Locator, now: Totals, before: Totals) -> dict[str, dict[str, Any]]:
    """The records, epochs and shares of each source, by name; keys with `lately` count from `before` to `now`.

    Shares are fractions of everything given so far, and None where nothing was. Tokens are included where any source
    has some.

    >>> from datamix.mixing.plan import Plan
    >>> plan = Plan({"a": 4, "b": 8}, stop="forever")
    >>> source_metrics(plan, Totals.at(plan, 12), Totals.at(plan, 12))["a"]
    {'records': 6, 'epochs': 1.5, 'share': 0.5, 'share_lately': None}
    """
    columns: dict[str, Sequence[Any]] = {
        "records": now.records,
        "epochs": [count / size if size else 0.0 for count, size in zip(now.records, plan.epoch_records, strict=True)],
        "share": _shares(now.records),
        "share_lately": _shares(now.records, before.records),
    }
    if now.tokens is not None and before.tokens is not None:
        columns |= {
            "tokens": now.tokens,
            "token_share": _shares(now.tokens),
            "token_share_lately": _shares(now.tokens, before.tokens),
        }
    return {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(plan.names)}


def _shares(now: Sequence[int], before: Sequence[int] | None = None) -> list[float | None]:
    counts = [count - since for count, since in zip(now, before or [0] * len(now), strict=True)]
    total = sum(counts)
    return [count / total if total > 0 else None for count in counts]
