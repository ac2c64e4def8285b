"""Mixes within a mix: a source named by a path, `vision.mnist`, belongs to the group `vision`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from datamix.errors import ConfigError, check_sources
from datamix.mixing.weights import Number, integer_weights, resolve_shares

SELF = "_self_"
"""In nested entries, the key of a group's own number, beside those of its members."""

Rule = Callable[[Mapping[str, int]], Mapping[str, Number]]
"""A function from the number of records, by name, to the relative weight, by name."""


@dataclass(frozen=True)
class Group:
    """Sources, and groups of sources, that divide the group's share of the mix.

    Attributes:
      members: The members, each the id of a source of the mix or a group.
      shares: The shares of the members within the group, adding up to 1, or all 0; 0 for one that does not take part.
    """

    members: tuple[int | Group, ...]
    shares: tuple[Fraction, ...]

    @classmethod
    def flat(cls, shares: Sequence[Fraction]) -> Group:
        """One group of all sources."""
        return cls(tuple(range(len(shares))), tuple(shares))

    @property
    def depth(self) -> int:
        """The number of levels of groups, 1 where all members are sources."""
        return 1 + max((member.depth for member in self.members if isinstance(member, Group)), default=0)

    @cached_property
    def weights(self) -> list[int]:
        """The smallest integers in the ratio of the shares, in the order of the members."""
        return integer_weights(self.shares)

    def leaves(self, share: Fraction | None = None) -> Iterator[tuple[int, Fraction]]:
        """Each source and its share of the whole mix, where the group's own share is `share`; None for 1."""
        for member, part in zip(self.members, self.shares, strict=True):
            within = part if share is None else share * part
            if isinstance(member, Group):
                yield from member.leaves(within)
            else:
                yield member, within

    def leaf_shares(self) -> tuple[Fraction, ...]:
        """The share of each source of the mix, in the order of their ids."""
        return self._leaf_shares

    @cached_property
    def _leaf_shares(self) -> tuple[Fraction, ...]:
        return tuple(share for _, share in sorted(self.leaves()))

    def without(self, sources: Collection[int]) -> Group | None:
        """This group after some sources have dropped out and the others keep their ratio; None if none has a share."""
        members, weights = [], []
        for member, weight in zip(self.members, self.weights, strict=True):
            kept = member.without(sources) if isinstance(member, Group) else None if member in sources else member
            members.append(member if kept is None else kept)
            weights.append(0 if kept is None else weight)
        if not (total := sum(weights)):
            return None
        none = Fraction(0)
        return Group(tuple(members), tuple(Fraction(weight, total) if weight else none for weight in weights))

    def between(self, other: Group, blend: Callable[[Sequence[Fraction], Sequence[Fraction]], list[Fraction]]) -> Group:
        """A group of the same members, whose shares `blend` makes from those of both groups, at every level."""
        members = tuple(
            mine.between(theirs, blend) if isinstance(mine, Group) and isinstance(theirs, Group) else mine
            for mine, theirs in zip(self.members, other.members, strict=True)
        )
        blended = blend(self.shares, other.shares)
        total = sum(blended, Fraction(0))
        return Group(members, tuple(share / total for share in blended) if total else tuple(blended))


def resolve(
    names: Sequence[str],
    *,
    ratio: object = None,
    weights: Mapping[str, Any] | None = None,
    share: Mapping[str, Any] | None = None,
    group_weights: Mapping[str, Number] | None = None,
    rule: Rule | None = None,
    sizes: Mapping[str, int] | None = None,
    where: str = "mix",
) -> Group:
    """Turn a user's ratio, weights and shares into the exact share of every source, at every level.

    Args:
      names: The names of the sources, in order; a path names a source within groups.
      ratio: The ratio of the sources and groups at the top level, see `datamix.mixing.weights.parse_ratio`.
      weights: The relative weights of sources and groups within the group they belong to, by path or nested.
      share: The absolute shares of sources and groups in the group they belong to, by path or nested.
      group_weights: The weights that groups themselves give their members, by path.
      rule: The rule that weighs sources and groups without a number, from their sizes; without it they have 1.
      sizes: The number of records of each source, by path, for the rule.
      where: The key of these settings in error messages.

    Raises:
      ConfigError: An unknown source, two rules for one source, or numbers that make no mix.

    >>> group = resolve(["vision.mnist", "vision.fashion", "text"], weights={"vision": 3, "vision.mnist": 2})
    >>> [str(share) for share in group.leaf_shares()]
    ['1/2', '1/4', '1/4']
    """
    weight_by_path, share_by_path = by_path(weights), by_path(share)
    known = {path for name in names for path in _ancestry(name)}
    check_sources(weight_by_path, known, f"{where}.weights")
    check_sources(share_by_path, known, f"{where}.share")
    source_ids = {name: i for i, name in enumerate(names)}
    for name in names:
        if both := source_ids.keys() & set(_ancestry(name)[:-1]):
            text = f"{min(both)!r} is a source, and {name!r} a source within a mix of that name; rename one of them."
            raise ConfigError(text)
    totals = dict.fromkeys(known, 0)  # records of sources and groups
    for name, size in (sizes or {}).items():
        totals.update({path: totals[path] + size for path in _ancestry(name)})

    def level(prefix: str) -> Group:
        heads = [name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)]
        members = [prefix + part for part in dict.fromkeys(heads)]
        inner = {path: level(f"{path}.") for path in members if path not in source_ids}
        default: dict[str, Number] = {}
        if rule is not None:
            default.update(rule({path: totals[path] for path in members}))
        default.update({path: number for path, number in (group_weights or {}).items() if path in members})
        # A group takes no part where none of its members does.
        default.update({path: 0 for path, group in inner.items() if not any(group.shares)})
        shares = resolve_shares(
            members,
            ratio=None if prefix else ratio,
            weights={path: weight_by_path[path] for path in members if path in weight_by_path},
            share={path: share_by_path[path] for path in members if path in share_by_path},
            default=default,
            where=where,
            may_be_empty=bool(prefix),
        )
        for path, group in inner.items():
            if shares[path] and not any(group.shares):
                text = f"{path} has a share, but all weights in it are 0; give one of them a weight"
                raise ConfigError(text, key=where)
        parts = tuple(inner[path] if path in inner else source_ids[path] for path in members)
        return Group(parts, tuple(shares.values()))

    return level("")


def groups_of(names: Sequence[str]) -> dict[str, list[int]]:
    """The indices of the sources in every group, by the path of the group, outermost first.

    >>> groups_of(["vision.mnist", "text", "vision.fashion"])
    {'vision': [0, 2]}
    """
    paths = sorted({path for name in names for path in _ancestry(name)[:-1]}, key=lambda path: path.count("."))
    return {path: [i for i, name in enumerate(names) if name.startswith(f"{path}.")] for path in paths}


def _ancestry(name: str) -> list[str]:
    """The paths of the groups that a source belongs to, outermost first, and then its own."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def by_path(entries: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten entries by name, nested or not, into entries by path; None counts as not set.

    Raises:
      ConfigError: The entries are not a mapping.
    """
    flat: dict[str, Any] = {}
    if not isinstance(entries, Mapping | None):
        mend = "numbers are given by source, as in {'a': 2}; those of all sources in their order are a ratio"
        raise ConfigError(f"{entries!r} names no sources: {mend}.")
    for name, value in (entries or {}).items():
        if isinstance(value, Mapping):
            flat.update(by_path(value, f"{prefix}{name}."))
        elif value is not None:
            flat[prefix.removesuffix(".") if name == SELF else f"{prefix}{name}"] = value
    return flat
