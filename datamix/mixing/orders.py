"""In which order the sources take turns: each order fills the periods of the plan's stages.

A period is an endless sequence of seats, each for one record (or one whole batch) of one source. It answers three
questions at any position without walking there: who sits here, how often was each source seated before, and where is
a source's n-th seat.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.weights import integer_weights
from datamix.rng import draw_at, key_for

Shares = Sequence[Fraction]
"""Share of each source, adding up to 1; zero for a source that does not take part."""

# The compiled pipeline has room for a table of the first size whatever the shares, so that another ratio is no other
# program; only shares too small for it move on to the second. A short period is unrolled to the third, so that the
# pipeline seldom wraps.
TABLE_SLOTS = 2**18
LONG_TABLE_SLOTS = 2**20
SHORT_TABLE_SLOTS = 2**13
_DRAW_BLOCK = 2**16
MAX_DRAWS = 2**27  # draws that may be walked to find a seat: some seconds


class Period(Protocol):
    """The seats of one stage."""

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Seats [start, start + count).

        Returns:
          Source, int32 [count], and how many seats it had before this one, int64 [count].
        """
        ...

    def counts(self, position: int) -> list[int]:
        """Seats of each source before `position`."""
        ...

    def position_of(self, source: int, number: int) -> int:
        """Position of a source's seat number `number`, from 0."""
        ...


@dataclass(frozen=True, eq=False)
class Table:
    """A short sequence that repeats, as a table.

    Attributes:
      source_of: source of each slot, int32 [length].
      num_sources: how many sources there are, seated or not.
    """

    source_of: np.ndarray
    num_sources: int

    @classmethod
    def unrolled(cls, source_of: np.ndarray, num_sources: int, slots: int = SHORT_TABLE_SLOTS) -> Table:
        """The same endless sequence, from a table of about `slots` slots if the sequence is shorter."""
        return cls(np.tile(source_of, max(1, slots // len(source_of))).astype(np.int32), num_sources)

    @property
    def length(self) -> int:
        return len(self.source_of)

    @cached_property
    def quota(self) -> np.ndarray:
        """Slots of each source, int64 [num_sources]."""
        return np.bincount(self.source_of, minlength=self.num_sources)

    @cached_property
    def slots(self) -> list[np.ndarray]:
        """The slots of each source, ascending."""
        order = np.argsort(self.source_of, kind="stable")
        return np.split(order, np.cumsum(self.quota)[:-1])

    @cached_property
    def rank_of(self) -> np.ndarray:
        """How many earlier slots belong to the slot's source, int64 [length]."""
        rank = np.empty(self.length, np.int64)
        for slots in self.slots:
            rank[slots] = np.arange(len(slots))
        return rank

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        block, slot = divmod(start, self.length)
        slots = slot + np.arange(count, dtype=np.int64)
        blocks, slots = np.divmod(slots, self.length)
        source = self.source_of[slots]
        return source, (block + blocks) * self.quota[source] + self.rank_of[slots]

    def counts(self, position: int) -> list[int]:
        block, slot = divmod(position, self.length)
        part = np.bincount(self.source_of[:slot], minlength=self.num_sources)
        return [block * int(quota) + int(rest) for quota, rest in zip(self.quota, part, strict=True)]

    def position_of(self, source: int, number: int) -> int:
        block, rank = divmod(number, int(self.quota[source]))
        return block * self.length + int(self.slots[source][rank])


@dataclass(frozen=True)
class Runs:
    """One run of each source after the other, again and again.

    Attributes:
      lengths: seats of each source in a row; zero for one that does not take part.
    """

    lengths: tuple[int, ...]

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each run ends, int64 [num_sources]."""
        return np.cumsum(np.asarray(self.lengths, np.int64))

    @property
    def length(self) -> int:
        return int(self.ends[-1])

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        block, slot = divmod(start, self.length)
        blocks, slots = np.divmod(slot + np.arange(count, dtype=np.int64), self.length)
        source = np.searchsorted(self.ends, slots, side="right").astype(np.int32)
        lengths = np.asarray(self.lengths, np.int64)
        return source, (block + blocks) * lengths[source] + slots - (self.ends - lengths)[source]

    def counts(self, position: int) -> list[int]:
        block, slot = divmod(position, self.length)
        starts = (int(end) - length for end, length in zip(self.ends, self.lengths, strict=True))
        return [
            block * length + min(max(slot - begin, 0), length)
            for begin, length in zip(starts, self.lengths, strict=True)
        ]

    def position_of(self, source: int, number: int) -> int:
        block, rank = divmod(number, self.lengths[source])
        return block * self.length + int(self.ends[source]) - self.lengths[source] + rank


@dataclass(frozen=True, eq=False)
class Draws:
    """An independent draw for each position, by its hash.

    A hash has no shortcut to the counts before a position: they are summed up once, block by block, about 10 ns a
    position, and kept.

    Attributes:
      thresholds: upper end of each source's share of the range [0, 2^31], uint32 [num_sources].
      first: position in the whole mix at which the stage begins.
      key: of the draws.
      replacement: whether the record within the source is drawn as well.
    """

    thresholds: np.ndarray
    first: int
    key: tuple[int, int]
    replacement: bool

    @cached_property
    def _sums(self) -> list[np.ndarray]:
        return [np.zeros(len(self.thresholds), np.int64)]  # counts before each block

    def sources(self, start: int, count: int) -> np.ndarray:
        """Sources of the positions [start, start + count), int32 [count]."""
        word = draw_at(self.key, np.uint64(self.first + start) + np.arange(count, dtype=np.uint64)) >> np.uint32(1)
        return np.searchsorted(self.thresholds, word, side="right").astype(np.int32)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Sources of one block, and the counts before it."""
        while len(self._sums) <= block:
            drawn = self.sources((len(self._sums) - 1) * _DRAW_BLOCK, _DRAW_BLOCK)
            self._sums.append(self._sums[-1] + np.bincount(drawn, minlength=len(self.thresholds)))
        return self.sources(block * _DRAW_BLOCK, _DRAW_BLOCK), self._sums[block]

    def counts(self, position: int) -> list[int]:
        block, rest = divmod(position, _DRAW_BLOCK)
        drawn, before = self._block(block)
        return [int(n) for n in before + np.bincount(drawn[:rest], minlength=len(self.thresholds))]

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        before = self.counts(start)
        source = self.sources(start, count)
        table = Table(source, len(self.thresholds))
        return source, table.rank_of + np.asarray(before, np.int64)[source]

    def position_of(self, source: int, number: int) -> int:
        block = 0
        while len(self._sums) <= block + 1 or self._sums[block + 1][source] <= number:
            self._block(block + 1)
            block += int(self._sums[block + 1][source] <= number)
        drawn, before = self._block(block)
        return block * _DRAW_BLOCK + int(np.flatnonzero(drawn == source)[number - int(before[source])])


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What an order is told of a stage it is to fill.

    Attributes:
      shares: of each source, adding up to 1; zero for one that does not take part.
      lengths: seats each source can fill once over.
      first: position in the whole mix at which the stage begins.
      seed: of the mix.
      last: the source that was seated last before the stage, None at the beginning.
      horizon: seats within which the stage ends if every source keeps within one seat of its share; None without end.
    """

    shares: Shares
    lengths: Sequence[int]
    first: int
    seed: int
    last: int | None = None
    horizon: int | None = None

    @property
    def seated(self) -> np.ndarray:
        """The sources that take part, int32."""
        return np.flatnonzero([bool(share) for share in self.shares]).astype(np.int32)


def proportional(demand: Demand, *, window: int | None = None) -> Table:
    """Seat each source as evenly as its share allows, by Tijdeman's rule.

    Args:
      demand: of the stage.
      window: shuffle the seats inside windows of so many: looks random, keeps every window's counts. The shuffles
        repeat with the table, after some 2^18 seats.

    Returns:
      A period in which, without a window, every source at every position is within 1 - 1/(2S-2) of its share.

    Raises:
      ConfigError: the window is not positive, or a share is too small, see `tijdeman`.
    """
    if window is not None and window < 1:
        raise ConfigError(f"mix.window = {window}; it is 1 or more, or null for none.")
    # The windows past the stage's end reach into it.
    horizon = None if demand.horizon is None else demand.horizon + (window or 0)
    source_of = demand.seated[tijdeman([share for share in demand.shares if share], horizon)]
    if window is None or window == 1:
        return Table.unrolled(source_of, len(demand.shares))
    table = Table.unrolled(source_of, len(demand.shares), TABLE_SLOTS)
    slot = np.arange(table.length, dtype=np.uint64)
    word = draw_at(key_for(demand.seed, "mix", "window", demand.first), slot)
    return Table(table.source_of[np.lexsort((word, slot // np.uint64(window)))], table.num_sources)


def round_robin(demand: Demand) -> Table:
    """One seat for each source in turn, going on where the last stage left off."""
    _refuse_weights(demand, "round_robin", "takes one of each source in turn")
    turn = 0 if demand.last is None else int(np.searchsorted(demand.seated, demand.last, side="right"))
    return Table.unrolled(np.roll(demand.seated, -turn), len(demand.shares))


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
    if len({share for share in demand.shares if share}) > 1:
        raise ConfigError(f"mix={order} {does} and knows no ratio; use mix=proportional, or leave the ratio out.")


def tijdeman(shares: Shares, horizon: int | None = None) -> np.ndarray:
    """Fill one period by Tijdeman's rule.

    Each source's n-th seat has an earliest and a latest position; the free seat goes to the earliest deadline among
    those allowed. Shares whose common denominator is larger than the table are followed exactly up to the table's
    end, which is put where the counts come closest to the shares.

    Args:
      shares: positive, adding up to 1, shape [num_sources].
      horizon: seats that will be used; a longer period is cut there.

    Returns:
      Source ids, int32 [period]. At every prefix each source is within 1 - 1/(2S-2) of its share.

    Raises:
      ConfigError: a share is so small that the longest table has no seat for it.

    Source: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980).
    """
    weights = integer_weights(shares)
    total = sum(weights)
    if len(weights) == 1:
        return np.zeros(1, np.int32)
    slots = TABLE_SLOTS if min(shares) * TABLE_SLOTS >= 100 else LONG_TABLE_SLOTS
    cut = horizon is not None and horizon <= min(total, slots)
    length = horizon if horizon is not None and cut else min(total, slots)
    if not cut and min(shares) * length < 1:
        raise ConfigError(
            f"a share of {float(min(shares)):.3g} is below one record in {LONG_TABLE_SLOTS:,}; raise it, or make it 0."
        )
    slack = 2 * len(weights) - 2
    releases, tickets = [], []
    for source, weight in enumerate(weights):
        number = np.arange(length * weight // total + 2)
        releases.append(_ceil_ratio(number * slack + 1, total, slack * weight) - 1)
        # The deadline, and the source to break ties, in one integer.
        tickets.append(-_ceil_ratio(1 - (number + 1) * slack, total, slack * weight) * len(weights) + source)
    release = np.concatenate(releases)
    order = np.argsort(release, kind="stable")
    release_list, ticket_list = release[order].tolist(), np.concatenate(tickets)[order].tolist()
    waiting: list[int] = []
    seats = np.empty(length, np.int64)
    upcoming = 0
    for seat in range(length):
        while upcoming < len(release_list) and release_list[upcoming] <= seat:
            heapq.heappush(waiting, ticket_list[upcoming])
            upcoming += 1
        seats[seat] = heapq.heappop(waiting)
    seats = (seats % len(weights)).astype(np.int32)
    return seats if cut or length == total else seats[: _best_end(seats, shares)]


def _ceil_ratio(numbers: np.ndarray, total: int, divisor: int) -> np.ndarray:
    """ceil(numbers * total / divisor), exactly, int64 [count]."""
    if int(np.abs(numbers).max()) * total < 2**62:
        return -((-numbers * total) // divisor)
    # The decimals of float weights overflow 64 bits; floats decide all but the few quotients next to an integer.
    quotient = numbers * (total / divisor)
    result = np.ceil(quotient).astype(np.int64)
    for i in np.flatnonzero(np.abs(quotient - np.rint(quotient)) <= np.abs(quotient) * 2.0**-48):
        result[i] = -((-int(numbers[i]) * total) // divisor)
    return result


def _best_end(seats: np.ndarray, shares: Shares) -> int:
    """The length in the last quarter of `seats` whose counts come closest to the shares, relative to each share."""
    three_quarters = len(seats) * 3 // 4
    positions = np.arange(1, len(seats) + 1)
    worst = np.zeros(len(seats))
    for source, share in enumerate(shares):
        off = np.cumsum(seats == source) - float(share) * positions
        worst = np.maximum(worst, np.abs(off) / float(share))
    return three_quarters + 1 + int(np.argmin((worst / positions)[three_quarters:]))
