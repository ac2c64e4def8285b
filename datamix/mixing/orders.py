"""In which order the sources take turns: each order fills the periods of the plan's stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.fills import TABLE_SLOTS, Shares, by_length, evenly, stratified
from datamix.mixing.groups import Group
from datamix.mixing.periods import Draws, Runs, Table
from datamix.rng.hash import draw_at, key_for


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Lengths of the sources' records, where these and not the records are to follow the ratio.

    Attributes:
      lengths: of each source's records, int64 [size] each.
      of: lengths of a source's records by their number in the mix, int64 [count] -> int64 [count].
      seats: how many seats, from the first of the mix, are given by these lengths; those after them, by their means.
    """

    lengths: tuple[np.ndarray, ...]
    of: Callable[[int, np.ndarray], np.ndarray]
    seats: int = TABLE_SLOTS

    @cached_property
    def mean(self) -> tuple[Fraction, ...]:
        """Of each source's records, shape [num_sources]; 1 for an empty source."""
        return tuple(Fraction(int(own.sum()) or 1, len(own) or 1) for own in self.lengths)


def checked_lengths(
    lengths: Mapping[str, np.ndarray], sizes: Mapping[str, int], *, by_batch: bool
) -> tuple[np.ndarray, ...]:
    """The lengths of each source's records, int64 [size].

    Raises:
      ConfigError: they are none, or whole batches are mixed.
    """
    if by_batch:
        raise ConfigError("mix.unit follows lengths record by record; set mix.granularity=record.")
    found = []
    for name, size in sizes.items():
        own = np.asarray(lengths[name])
        if own.shape != (size,) or own.dtype.kind not in "iu" or (size and (own.min() < 0 or not own.any())):
            raise ConfigError(
                f"mix.unit: the lengths of source {name!r} are {own.dtype}{list(own.shape)}; they are whole numbers, 0 "
                f"or more, one for each of its {size} records, and not all 0."
            )
        found.append(own.astype(np.int64))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What an order is told of a stage it is to fill.

    Attributes:
      group: the sources, and what each has of what is mixed.
      lengths: seats each source can fill once over.
      first: position in the whole mix at which the stage begins.
      seed: of the mix.
      base: seats each source had before the stage; empty at the beginning.
      batch: seats of a batch.
      slots: length at which a table is cut.
      unit: lengths that follow the ratio; None where that is the number of records.
      last: the source that was seated last before the stage, None at the beginning.
      horizon: seats within which the stage ends if every source keeps within one seat of its share; None without end.
    """

    group: Group
    lengths: Sequence[int]
    first: int = 0
    seed: int = 0
    base: Sequence[int] = ()
    batch: int = 1
    slots: int = TABLE_SLOTS
    unit: Lengths | None = None
    last: int | None = None
    horizon: int | None = None

    @cached_property
    def shares(self) -> Shares:
        """Share of the seats of each source; zero for one that does not take part."""
        shares = self.group.leaf_shares()
        if self.unit is None:
            return shares
        seats = [share / mean for share, mean in zip(shares, self.unit.mean, strict=True)]
        return [share / sum(seats) for share in seats]

    @property
    def seated(self) -> np.ndarray:
        """The sources that take part, int32."""
        return np.flatnonzero([bool(share) for share in self.shares]).astype(np.int32)


def proportional(demand: Demand, *, window: int | None = None, stratify: bool = False) -> Table:
    """Seat each source as evenly as its share allows, by Tijdeman's rule.

    Args:
      demand: of the stage.
      window: shuffle the seats inside windows of so many: looks random, keeps every window's counts. The shuffles
        repeat with the table, after some 2^18 seats.
      stratify: give every batch the exact quota of each source, rounded down or up, and carry the rest over.

    Returns:
      A period in which, without a window, every source at every position is within 1 - 1/(2S-2) of its share.

    Raises:
      ConfigError: the window is not positive, does not fit the batch, or a share is too small, see `tijdeman`.
    """
    if window is not None and window < 1:
        raise ConfigError(f"mix.window = {window}; it is 1 or more, or null for none.")
    if stratify and demand.batch % (window or 1):
        raise ConfigError(f"mix.window = {window}: with mix.stratify it divides the batch's {demand.batch} records.")
    if stratify and demand.unit:
        raise ConfigError("mix.stratify counts records: leave mix.unit=record, or leave it out.")
    # The windows past the stage's end reach into it.
    horizon = None if demand.horizon is None else demand.horizon + (window or 0)
    if demand.unit and demand.first < demand.unit.seats:
        shares, count = demand.group.leaf_shares(), demand.unit.seats - demand.first
        count = count if horizon is None else min(count, horizon)
        source_of = by_length(shares, demand.unit.of, demand.base or (0,) * len(shares), count)
    elif demand.unit:
        source_of = evenly(Group.flat(demand.shares), horizon, demand.slots)
    elif stratify:
        source_of = stratified(demand.shares, demand.batch, demand.first, horizon, demand.slots)
    else:
        source_of = evenly(demand.group, horizon, demand.slots)
    if window is None or window == 1:
        return Table.unrolled(source_of, len(demand.shares))
    table = Table.unrolled(source_of, len(demand.shares), demand.slots)
    # Windows begin where batches do.
    slot = np.arange(table.length, dtype=np.uint64) + np.uint64(demand.first % demand.batch if stratify else 0)
    word = draw_at(key_for(demand.seed, "mix", "window", demand.first), slot)
    return Table(table.source_of[np.lexsort((word, slot // np.uint64(window)))], table.num_sources)


def round_robin(demand: Demand) -> Table:
    """One seat for each source in turn, going on where the last stage left off; a group takes turns as one source."""
    _refuse_weights(demand, "round_robin", "takes one of each source in turn")
    turns = evenly(demand.group, None, demand.slots)
    if demand.last is not None and demand.group.depth == 1:
        turns = np.roll(turns, -int(np.searchsorted(turns, demand.last, side="right")))
    return Table.unrolled(turns, len(demand.shares))


def concat(demand: Demand) -> Runs:
    """Every source whole, one after the other."""
    _refuse_weights(demand, "concat", "takes every source whole, one after the other")
    return Runs(tuple(n if share else 0 for n, share in zip(demand.lengths, demand.shares, strict=True)))


def random(demand: Demand, *, replacement: bool = False) -> Draws:
    """Draw every seat's source independently, in proportion to the shares.

    Args:
      demand: of the stage.
      replacement: draw the record within the source the same way, instead of taking its next one.

    Raises:
      ConfigError: a share is below the resolution of the draw, 2^-31.
    """
    if min(share for share in demand.shares if share) < Fraction(1, 2**31):
        raise ConfigError("mix=random cannot draw a share below 2^-31; raise it, or set it to 0.")
    ends = [int(end * 2**31) for end in accumulate(demand.shares)]
    return Draws(np.asarray(ends, np.uint32), demand.first, key_for(demand.seed, "mix"), replacement)


def _refuse_weights(demand: Demand, order: str, does: str) -> None:
    if demand.unit:
        raise ConfigError(f"mix.unit: mix={order} {does} and follows no lengths; use mix=proportional or random.")
    if not _equal(demand.group):
        raise ConfigError(f"mix={order} {does} and knows no ratio; use mix=proportional, or leave the ratio out.")


def _equal(group: Group) -> bool:
    """Whether all members that take part have the same share, at every level."""
    inner = (member for member in group.members if isinstance(member, Group))
    return len({share for share in group.shares if share}) <= 1 and all(map(_equal, inner))
