"""How a mix is cut into batches, and a batch into shards; and the shuffle of a batch's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from datamix.errors import ConfigError
from datamix.lazy import jax, jnp
from datamix.mixing.plan import Plan
from datamix.rng import permute
from datamix.rng.hash import KeyWords, Words, fold, key_for

Remainder = Literal["drop", "keep"]

Skip = tuple[tuple[int, int], ...]
"""Ranges of steps [first, end) that iterators leave out, in order."""

_NEVER = (2**32 - 1, 2**32 - 1)
_MOST_SLOTS = 2**22  # searched for a pattern, in some 50 ms


def num_batches(length: int | None, batch_size: int, remainder: Remainder) -> int | None:
    """The number of batches in a mix of `length` records; None if it never ends.

    >>> num_batches(10, 4, "drop"), num_batches(10, 4, "keep"), num_batches(None, 4, "keep")
    (2, 3, None)
    """
    if length is None:
        return None
    return length // batch_size if remainder == "drop" else -(-length // batch_size)


def shard_rows(num_rows: int, rank: int, num_shards: int) -> slice:
    """The rows of a batch that make up one rank's shard: contiguous; the first shards may be one row larger.

    >>> [shard_rows(8, rank, 3) for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
    """
    least, longer = divmod(num_rows, num_shards)
    first = rank * least + min(rank, longer)
    return slice(first, first + least + (rank < longer))


def parse_skip(value: object) -> Skip:
    """Parse the setting `skip`, a list of ranges of steps.

    Raises:
      ConfigError: It is not such a list; the message names the range.

    >>> parse_skip([[10, 12], [40, 41]])
    ((10, 12), (40, 41))
    """
    if not isinstance(value, Sequence | None) or isinstance(value, str):
        raise ConfigError("it is a list of ranges of steps, as in [[100, 110]]", key="skip", value=value)
    end, ranges = 0, []
    for i, pair in enumerate(value or ()):
        is_pair = isinstance(pair, Sequence) and len(pair) == 2
        if not is_pair or any(isinstance(step, bool) or not isinstance(step, int) for step in pair):
            text = (
                "it is two whole numbers, the first step that is left out and the first that is not, as in [[100, 110]]"
            )
            raise ConfigError(text, key=f"skip[{i}]", value=pair)
        if not end <= pair[0] < pair[1]:
            text = f"it begins at {end} or later, where the range before ends" if i else "it begins at 0 or later"
            raise ConfigError(f"{text}, and ends after it begins", key=f"skip[{i}]", value=pair)
        end = pair[1]
        ranges.append((pair[0], end))
    return tuple(ranges)


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How a mix is cut into batches.

    Attributes:
      length: Records in the mix; None if it never ends.
      batch_size: Records in a batch.
      remainder: Whether records at the end that do not fill a batch are dropped, or make a short batch.
      skip: The steps that iterators leave out.

    Raises:
      ConfigError: The mix has no batch, or `skip` leaves out all of them.
    """

    length: int | None
    batch_size: int
    remainder: Remainder = "drop"
    skip: Skip = ()

    def __post_init__(self) -> None:
        if self.num_batches == 0:
            raise ConfigError(
                f"it is more than the {self.length} records of the whole mix",
                key="batch.size",
                value=self.batch_size,
                hint="Make it smaller, or set batch.remainder=keep.",
            )
        if self.num_kept == 0:
            text = f"it leaves none of the {self.num_batches} batches of the mix"
            raise ConfigError(text, key="skip", value=[list(steps) for steps in self.skip])

    @property
    def num_batches(self) -> int | None:
        """Batches in the mix; None if it never ends."""
        return num_batches(self.length, self.batch_size, self.remainder)

    @property
    def short_rows(self) -> int:
        """Rows of a last batch that is short; 0 if there is none."""
        return 0 if self.length is None or self.remainder == "drop" else self.length % self.batch_size

    def num_rows(self, step: int) -> int:
        """Rows of the batch at a step, which has to exist."""
        return self.short_rows if self.short_rows and step + 1 == self.num_batches else self.batch_size

    @property
    def num_kept(self) -> int | None:
        """Batches that are not left out; None if the mix never ends."""
        total = self.num_batches
        return None if total is None else sum(end - first for first, end in self.kept_runs(0, total))

    def after(self, step: int, count: int) -> int:
        """The step `count` batches after `step`, or after the next one that is kept; batches left out do not count.

        >>> [Batching(length=None, batch_size=4, skip=((2, 5),)).after(step, 1) for step in range(6)]
        [1, 5, 6, 6, 6, 6]
        """
        for first, end in self.skip:
            if first <= step < end:
                step = end
            elif step < first <= step + count:
                step += end - first
        return step + count

    def kept_runs(self, first: int, end: int) -> list[tuple[int, int]]:
        """The steps in [first, end) that are not left out, as non-empty ranges.

        >>> Batching(length=None, batch_size=4, skip=((2, 5),)).kept_runs(0, 9)
        [(0, 2), (5, 9)]
        """
        borders = [first, *(min(max(step, first), end) for steps in self.skip for step in steps), end]
        return [(begin, until) for begin, until in zip(borders[::2], borders[1::2], strict=True) if begin < until]

    def position(self, step: int) -> int:
        """The position in records before a step."""
        return self.length or 0 if self.short_rows and step == self.num_batches else step * self.batch_size

    def check_shard(self, shard: tuple[int, int]) -> None:
        """Refuse a rank that does not exist, and more ranks than a batch has rows."""
        is_pair = isinstance(shard, Sequence) and len(shard) == 2
        if not is_pair or not all(isinstance(number, int | np.integer) for number in shard):
            raise ConfigError("it is a rank and the number of ranks, as in (0, 2)", key="shard", value=shard)
        rank, num_shards = shard
        if num_shards < 1:
            raise ConfigError("the number of ranks is 1 or more", key="shard", value=shard)
        if not 0 <= rank < num_shards:
            raise ConfigError(f"the rank lies in [0, {num_shards})", key="shard", value=shard)
        if self.batch_size < num_shards:
            text = f"a batch of {self.batch_size} cannot be divided among {num_shards} ranks; make batch.size larger"
            raise ConfigError(text, key="shard", value=shard)


class RowShuffle(NamedTuple):
    """A permutation of each batch's rows, as arrays of a compiled program: a pure function of (seed, step).

    Attributes:
      key: Two words, uint32 [] each.
      whole: Domain of a whole batch, uint32 [] each.
      short: Domain of the last batch, if it is short, uint32 [] each.
      last: Slot at which a short last batch begins, high and low word, uint32 [2].
    """

    key: KeyWords
    whole: permute.Domain
    short: permute.Domain
    last: Words

    @classmethod
    def of(cls, plan: Plan, batching: Batching, name: str = "shuffle") -> RowShuffle:
        """The permutation with a name for a plan and its batches."""
        last = _NEVER
        if batching.short_rows:
            slots = ((batching.num_batches or 1) - 1) * batching.batch_size // plan.slot_records
            last = slots >> 32, slots % 2**32
        whole, short = (
            permute.Domain(*(np.uint32(values[0]) for values in permute.domain([rows])))
            for rows in (batching.batch_size, batching.short_rows or batching.batch_size)
        )
        high, low = key_for(plan.seed, "batch", name)
        return cls((np.uint32(high), np.uint32(low)), whole, short, np.asarray(last, np.uint32))

    def rows(self, position: jax.Array, num_batches: int, batch_size: int, slot_records: int) -> jax.Array:
        """For each row of the next batches, the row of the plan's order that it holds.

        Args:
          position: Number of the slot at which the first batch begins: high and low word, uint32 [2].
          num_batches: How many batches; static.
          batch_size: Records in a batch; static.
          slot_records: Records in a slot; static.

        Returns:
          Rows, counted from the first row of the first batch, uint32 [num_batches * batch_size]. Rows of a short last
          batch past the end of the mix stay where they are.
        """
        return self._rows(position, num_batches, batch_size, slot_records)[0].reshape(-1)

    def partners(self, position: jax.Array, num_batches: int, batch_size: int, slot_records: int) -> jax.Array:
        """The partner of each row: neighbours in the permutation are pairs; for the arguments, see `rows`.

        A row is its partner's partner, so a shard needs only its own rows and their partners. If a batch has an odd
        number of rows, one row is its own partner.

        Returns:
          The distance in rows from each row to its partner, modulo 2**32, uint32 [num_batches * batch_size].
        """
        rows, size = self._rows(position, num_batches, batch_size, slot_records)
        place = jnp.arange(batch_size, dtype=jnp.uint32)
        neighbour = jnp.where(place ^ 1 < size, place ^ 1, place)
        distance = jnp.take_along_axis(rows, neighbour, axis=1) - rows
        return jnp.zeros(rows.size, jnp.uint32).at[rows.reshape(-1)].set(distance.reshape(-1), unique_indices=True)

    def _rows(
        self, position: jax.Array, num_batches: int, batch_size: int, slot_records: int
    ) -> tuple[jax.Array, jax.Array]:
        """The rows, uint32 [num_batches, batch_size], and how many each batch has, uint32 [num_batches, 1]."""
        batch = jnp.arange(num_batches, dtype=jnp.uint32)
        ahead = batch * jnp.uint32(batch_size // slot_records)
        low = position[1] + ahead
        high = position[0] + (low < ahead)
        is_short = (high == self.last[0]) & (low == self.last[1])
        domain = permute.Domain(
            *(jnp.where(is_short, short, whole)[:, None] for short, whole in zip(self.short, self.whole, strict=True))
        )
        first, second = fold(fold(self.key, high), low)
        row = jnp.arange(batch_size, dtype=jnp.uint32)[None, :]
        inside = row < domain.size
        shuffled = permute.permute_traced(jnp.where(inside, row, 0), domain, (first[:, None], second[:, None]))
        rows = jnp.where(inside, shuffled, row) + batch[:, None] * jnp.uint32(batch_size)
        return jnp.asarray(rows), jnp.asarray(domain.size)


class RowOrder(NamedTuple):
    """How the rows of each batch are shuffled and paired before they are computed.

    Attributes:
      shuffle: The permutation of the rows; None if they keep their order.
      pairing: The permutation whose neighbours make pairs, row 0 and 1, 2 and 3, …; None if no operator takes pairs.
    """

    shuffle: RowShuffle | None = None
    pairing: RowShuffle | None = None

    @classmethod
    def of(cls, plan: Plan, batching: Batching, *, shuffled: bool, paired: bool) -> RowOrder:
        """The order of rows for a plan and its batches."""
        return cls(
            RowShuffle.of(plan, batching) if shuffled else None,
            RowShuffle.of(plan, batching, "pairs") if paired else None,
        )


def single_source_rows(plan: Plan, batch_size: int) -> int:
    """Rows of the largest equal shard that would get only records of one source, in every batch.

    An order that repeats with every batch puts the same source into the same row for ever.

    Args:
      plan: The plan of the mix.
      batch_size: Records in a batch.

    Returns:
      A number of rows that divides `batch_size` and is smaller; 0 if every rank gets several sources, whatever the
      number of ranks, or if there is only one source.

    >>> single_source_rows(Plan({"a": 9, "b": 9}, order="round_robin", stop="forever"), 4)
    1
    >>> single_source_rows(Plan({"a": 9, "b": 9}, order="round_robin", stop="forever"), 5)
    0
    """
    if plan.slot_records > 1:
        return 0  # each batch is of one source, the next one of another
    lowest, highest = np.full(batch_size, len(plan.sizes)), np.full(batch_size, -1)
    for stage in plan.stages:
        if stage.period.max_walk is not None:
            return 0  # every draw is independent
        # After this many slots, cycle and batch begin together again, if they ever do.
        slots = int(np.lcm(stage.period.length, batch_size)) if stage.period.length else _MOST_SLOTS
        slots = min(slots, stage.length or _MOST_SLOTS, _MOST_SLOTS)
        source, _ = stage.period.take(0, slots)
        row = (stage.first + np.arange(slots)) % batch_size
        np.minimum.at(lowest, row, source)
        np.maximum.at(highest, row, source)
        if (highest > lowest).all():
            return 0
    if lowest.min() == highest.max():
        return 0  # the mix has one source
    sizes = [rows for rows in range(batch_size // 2, 0, -1) if batch_size % rows == 0]
    for rows in sizes:
        if (lowest.reshape(-1, rows).min(axis=1) == highest.reshape(-1, rows).max(axis=1)).any():
            return rows
    return 0
