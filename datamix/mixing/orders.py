"""Orders, which spread the sources over slots: each fills the periods of the stages of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from itertools import accumulate

import numpy as np

from datamix import registry
from datamix.errors import ConfigError
from datamix.mixing.carrying import carried
from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group
from datamix.mixing.periods import Carried, Draws, Period, Queues, Runs, Table
from datamix.mixing.plan_spec import PlanSpec
from datamix.mixing.record_lengths import RecordLengths
from datamix.mixing.table_fills import Shares, by_credit, by_length, credit_within, evenly, holds, stratified
from datamix.mixing.weights import integer_weights
from datamix.rng.hash import draw_at, key_for

# `Plan` takes the settings of an order as keywords beside its own, so their names must not collide.
registry.reserve("order", (field.name for field in fields(PlanSpec)))

_MOST_CREDIT_SLOTS = 2**26  # filling them slot by slot takes a minute or more


def order(function: Callable[..., Period]) -> Callable[..., Period]:
    """Register a function as an order, under its own name.

    The function takes the demand of a stage and the keyword settings of the order's YAML file, and returns the period
    of the stage: usually `Table.of(source_ids, demand.num_sources)`, a sequence that repeats. It must be a pure
    function, give slots only to the sources in `demand.active`, and raise a `ConfigError` for a demand that it cannot
    follow, such as groups within the mix (`demand.group.depth > 1`) or lengths (`demand.lengths`).

    Raises:
      RegistryError: The name is taken, or a setting has the name of a setting of the mix itself.

    >>> @order
    ... def pairs_for_doctest(demand: Demand) -> Table:
    ...     return Table.of(np.repeat(demand.active, 2), demand.num_sources)
    >>> from datamix.mixing.plan import Plan
    >>> Plan({"a": 9, "b": 9}, order="pairs_for_doctest").take(0, 6).source.tolist()
    [0, 0, 1, 1, 0, 0]
    """
    registry.register("order", function.__name__, function)
    return function


@order
def proportional(demand: Demand, *, window: int | None = None, stratify: bool = False) -> Table | Carried | Queues:
    """Spread the slots of each source as evenly as its share allows, by Tijdeman's rule.

    Args:
      window: Shuffle the slots within windows of this many: they look random, and every window keeps its counts. The
        shuffles repeat with the table, after some 2^18 slots.
      stratify: Give every batch the exact quota of each source, rounded down or up, and carry the remainder over.

    Returns:
      A period. Without a window, every source at every position is within 1 - 1/(2S-2) slots of its share where a
      table holds the shares, and within 2 elsewhere, see `datamix.mixing.carrying`. With lengths, the summed lengths of
      every source are within one longest record of its share. A stage starts with the deviation from the summed
      shares at the end of the previous one, see `datamix.mixing.table_fills.tijdeman`, or, where no table holds it,
      without.

    Raises:
      ConfigError: The window is not positive or does not divide the batch of a stratified mix, `stratify` is used with
        lengths or batches of one source, or shares are too small, see `carried`.
    """
    _check_window(demand, window, stratify)
    # The window at the end of the stage reaches past it, and its shuffle moves slots from there into the stage.
    horizon = None if demand.horizon is None else demand.horizon + (window or 0)
    key = key_for(demand.seed, "mix", "window", demand.first)
    period: Table | Carried
    if demand.lengths:
        if demand.most is None or demand.most > demand.table_slots:
            return _queues(demand, demand.lengths, window or 1, key)
        period = _queued(demand, demand.lengths, min(horizon or demand.most, demand.most))
    elif stratify:
        credit = credit_within(demand.shares, demand.credit)
        source_of = stratified(demand.shares, demand.batch_size, demand.first, horizon, demand.table_slots, credit)
        period = Table(source_of, demand.num_sources)
    else:
        period = _spread(demand, horizon, demand.credit)
    shuffles = window is not None and window > 1
    if isinstance(period, Table):
        period = Table.unrolled(period.source_of, demand.num_sources, *([demand.table_slots] if shuffles else []))
    if not shuffles:
        return period
    # Windows are aligned with batches.
    begin = demand.first % demand.batch_size if stratify else 0
    cycle = period.table if isinstance(period, Carried) else period
    slot = np.arange(cycle.length, dtype=np.uint64) + np.uint64(begin)
    word = draw_at(key, slot)
    return period.shuffled(np.lexsort((word, slot // np.uint64(window or 1))))


def _check_window(demand: Demand, window: int | None, stratify: bool) -> None:
    if window is not None and window < 1:
        raise ConfigError("it is 1 or more, or null for none", key="mix.window", value=window)
    if stratify and demand.slot_records > 1:
        raise ConfigError("a batch of one source has no quotas; use mix.granularity=record", key="mix.stratify")
    if stratify and demand.batch_size % (window or 1):
        text = f"with mix.stratify it divides the batch's {demand.batch_size} records"
        raise ConfigError(text, key="mix.window", value=window)
    if stratify and demand.lengths:
        raise ConfigError("it counts records; leave mix.unit=record, or leave it out", key="mix.stratify")


def _queues(demand: Demand, lengths: RecordLengths, window: int, key: tuple[int, int]) -> Queues:
    """Slots by lengths, without end or more than a table holds."""
    shares, base = demand.group.leaf_shares(), tuple(demand.base) or (0,) * demand.num_sources
    credit = credit_within(shares, demand.credit)
    return Queues(shares=shares, lengths=lengths, base=base, credit=credit, window=window, key=key)


def _queued(demand: Demand, lengths: RecordLengths, count: int) -> Table:
    """The first slots by lengths, as a table."""
    shares, base = demand.group.leaf_shares(), demand.base or (0,) * demand.num_sources
    ahead = [-float(part) for part in credit_within(shares, demand.credit)]
    return Table(by_length(shares, lengths.of, base, count, ahead=ahead), demand.num_sources)


def _spread(demand: Demand, horizon: int | None, credit: Shares = ()) -> Table | Carried:
    """Slots spread as evenly as the shares allow: a table where one holds them, otherwise a table with swaps."""
    if holds(demand.group, horizon, demand.table_slots):
        return Table(evenly(demand.group, horizon, credit), demand.num_sources)
    return carried(demand.group.leaf_shares(), demand.table_slots)


@order
def largest_credit(demand: Demand) -> Period:
    """Follow a schedule by the rule that `adapt` uses, so that it can replay such a run; end as `proportional` does.

    At every position each source is within 1 + ln S slots of the sum of its shares, across the parts of the schedule;
    only its last part, if that has no end, is filled as by `proportional`. Where the epochs of sources are limited, a
    source that loses its share leaves to the others the slots that it is behind.

    Raises:
      ConfigError: The mix has groups or follows lengths, or too many slots would have to be filled one by one.
    """
    if demand.group.depth > 1 or demand.lengths:
        text = "it takes no mix within the mix, and follows no lengths"
        raise ConfigError(text, key="mix", value="largest_credit", hint="Use mix=proportional.")
    if demand.horizon is None:
        return proportional(demand)
    credit = demand.credit if demand.scheduled else ()
    slots, begins = demand.credit_horizon or demand.horizon, any(credit)
    if not begins:  # the sequence repeats after one cycle, when all credits are 0 again
        slots = min(slots, sum(integer_weights(demand.shares)))
    if slots > _MOST_CREDIT_SLOTS:
        text = f"it fills a stage of this mix slot by slot, {slots:,} of them, and at most {_MOST_CREDIT_SLOTS:,}"
        mend = "Use mix=proportional, or end the mix before, as by stop.samples."
        raise ConfigError(text, key="mix", value="largest_credit", hint=mend)
    source_of = by_credit(demand.shares, credit, slots, active_only=demand.capped)
    return Table(source_of, demand.num_sources) if begins else Table.unrolled(source_of, demand.num_sources)


@order
def round_robin(demand: Demand) -> Table | Carried:
    """One slot for each source in turn, continuing where the last stage left off; a group counts as one source."""
    _refuse_weights(demand, "round_robin", "takes one record of each source in order")
    period = _spread(demand, None)
    if isinstance(period, Carried):
        return period
    source_of = period.source_of
    if demand.last is not None and demand.group.depth == 1:
        source_of = np.roll(source_of, -int(np.searchsorted(source_of, demand.last, side="right")))
    return Table.unrolled(source_of, demand.num_sources)


@order
def concat(demand: Demand) -> Runs:
    """Every source whole, one after the other."""
    _refuse_weights(demand, "concat", "takes every source whole, one after the other")
    # In a mix that continues another one, a source may already have been given whole, or more than once.
    lengths = tuple(max(n, 0) if share else 0 for n, share in zip(demand.remaining, demand.shares, strict=True))
    if not any(lengths):
        text = "where this mix goes on with another one, every source has been given whole"
        raise ConfigError(text, key="mix", value="concat", hint="Use mix=proportional.")
    return Runs(lengths)


@order
def random(demand: Demand, *, replacement: bool = False) -> Draws:
    """Draw every slot's source independently, in proportion to the shares.

    Args:
      replacement: Draw the record within the source independently as well, instead of taking its next one.

    Raises:
      ConfigError: A share is below the resolution of the draw, 2^-31.
    """
    if min(share for share in demand.shares if share) < Fraction(1, 2**31):
        text, mend = "it cannot draw a share below 2^-31", "Raise it, or set it to 0."
        raise ConfigError(text, key="mix", value="random", hint=mend)
    ends = [int(end * 2**31) for end in accumulate(demand.shares)]
    return Draws(np.asarray(ends, np.uint32), demand.first, key_for(demand.seed, "mix"), replacement)


def _refuse_weights(demand: Demand, name: str, does: str) -> None:
    if demand.scheduled:
        raise ConfigError(f"mix={name} knows no ratio; use mix=proportional or random", key="mix.schedule")
    if demand.lengths:
        raise ConfigError(f"mix={name} {does} and follows no lengths; use mix=proportional or random", key="mix.unit")
    if not _equal(demand.group):
        mend = "Use mix=proportional, or leave the ratio out."
        raise ConfigError(f"it {does} and knows no ratio", key="mix", value=name, hint=mend)


def _equal(group: Group) -> bool:
    """Whether all members that take part have the same share, at every level."""
    inner = (member for member in group.members if isinstance(member, Group))
    return len({share for share in group.shares if share}) <= 1 and all(map(_equal, inner))
