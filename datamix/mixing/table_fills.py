"""Rules that fill a table: they determine the source of each slot."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.groups import Group
from datamix.mixing.weights import integer_weights, over_common

Shares = Sequence[Fraction]
"""The share of each source, adding up to 1; 0 for one that does not take part."""

# The compiled pipeline pads tables to TABLE_SLOTS, so that changing the ratio does not recompile it; only shares that
# are too small for that size use LONG_TABLE_SLOTS.
TABLE_SLOTS = 2**18
_PAST_ANY_TABLE = 2**40
LONG_TABLE_SLOTS = 2**20
_STRATA, _MOST_STRATA = 2**13, 2**16  # batches in a table
_COUNTS = 2**18  # sources times batches that are filled at a time
_QUEUED = 2**12  # records whose lengths are looked up at a time
_CREDIT_UNIT = 2**24  # parts of a slot; weights under `adapt` are integers that add up to this


def holds(group: Group, horizon: int | None, slots: int) -> bool:
    """Whether a table holds the sequence that `evenly` fills for a group, or as much of it as will be used.

    Args:
      horizon: The number of slots that will be used; None for no bound.
      slots: The length of a table; shares too small for it use a longer one.
    """
    weights, whole = over_common(group.leaf_shares())
    least = Fraction(min(weight for weight in weights if weight), whole)
    return min(_cycle(group), horizon or math.inf) <= _enough(slots, least)


def evenly(group: Group, horizon: int | None, credit: Shares = ()) -> np.ndarray:
    """Fill one cycle by Tijdeman's rule at every level, also among the members of groups.

    Args:
      group: A group whose sequence fits a table, see `holds`.
      horizon: The number of slots that will be used; a longer cycle is cut there.
      credit: How many slots each source is behind its share at the first slot, shape [num_sources]; empty where none
        is.

    Returns:
      Source ids, int32 [cycle]. At every prefix each member of a group of S is within 1 - 1/(2S-2) slots of its share
      of the group's slots, if none is behind at the first slot; otherwise see `tijdeman`.
    """
    return _filled(group, min(_cycle(group), horizon or math.inf), credit)


def _active(group: Group) -> tuple[list[int | Group], list[int]]:
    """The members that take part, and their weights."""
    pairs = [(member, weight) for member, weight in zip(group.members, group.weights, strict=True) if weight]
    return [member for member, _ in pairs], [weight for _, weight in pairs]


def farthest(group: Group, credit: Shares) -> Fraction:
    """The largest distance, in slots, of a member at any level from its share of the slots of its group."""
    members, weights = _active(group)
    inner = [farthest(member, credit) for member in members if isinstance(member, Group)]
    parts, unit = _parts_within(weights, _member_credit(members, credit))
    return max([Fraction(max(map(abs, parts)), unit), *inner])


def credit_within(shares: Shares, credit: Shares) -> list[Fraction]:
    """How many slots each source with a share is behind, relative to these sources alone; adds up to 0.

    Args:
      shares: The shares of all sources, shape [num_sources].
      credit: How many slots each source is behind its share of the whole mix, shape [num_sources]; empty where none is.

    Returns:
      The credit of each source, shape [num_sources]; 0 for one without a share.
    """
    parts, unit = _parts_within(integer_weights(shares), credit)
    return [Fraction(part, unit) for part in parts]


def _parts_within(weights: Sequence[int], credit: Shares) -> tuple[list[int], int]:
    """The result of `credit_within` in parts of a slot, and the number of parts in a slot."""
    if not any(credit):
        return [0] * len(weights), 1
    parts, unit = over_common([part if weight else Fraction(0) for part, weight in zip(credit, weights, strict=True)])
    total, whole = sum(parts), sum(weights)
    return [part * whole - weight * total for part, weight in zip(parts, weights, strict=True)], unit * whole


def _member_credit(members: Sequence[int | Group], credit: Shares) -> Shares:
    """How many slots the active sources of each member are behind, added up; empty where none is."""
    if not any(credit):
        return ()
    return [
        sum((credit[source] for source, share in member.leaves() if share), Fraction(0))
        if isinstance(member, Group)
        else credit[member]
        for member in members
    ]


def _cycle(group: int | Group) -> int:
    """The number of slots after which the sequence of a group repeats; 1 for a source."""
    if not isinstance(group, Group):
        return 1
    members, weights = _active(group)
    cycles = map(_cycle, members)
    rounds = [cycle // math.gcd(cycle, weight) for cycle, weight in zip(cycles, weights, strict=True)]
    return sum(weights) * math.lcm(*rounds)


def _filled(group: Group, count: int | float, credit: Shares) -> np.ndarray:
    """The source ids of the first slots of a group's sequence, int32 [count]."""
    members, weights = _active(group)
    parts, unit = _parts_within(weights, _member_credit(members, credit))
    behind = [rounded(part, unit) for part in parts] if any(parts) else ()
    shares = [share for share in group.shares if share]
    member_of = np.resize(tijdeman(shares, max(int(count), 1), behind), int(count))
    if group.depth == 1:
        source_of: np.ndarray = np.asarray(members, np.int32)[member_of]
        return source_of
    source_of = np.empty(int(count), np.int32)
    for i, member in enumerate(members):
        slots = member_of == i
        source_of[slots] = _filled(member, int(slots.sum()), credit) if isinstance(member, Group) else member
    return source_of


def tijdeman(shares: Shares, horizon: int | None = None, credit: Shares = ()) -> np.ndarray:
    """Fill one cycle by Tijdeman's rule.

    The n-th slot of each source has an earliest and a latest position; the next slot goes to the source with the
    earliest deadline among those allowed.

    Args:
      shares: The shares, positive and adding up to 1, shape [num_sources].
      horizon: The number of slots that will be used; a longer cycle is cut there.
      credit: How many slots each source is behind at the first slot, adding up to 0; empty where none is. A whole cycle
        does not reduce the credit, so there each is first limited to within 1 - 1/(2S-2) of 0.

    Returns:
      Source ids, int32 [cycle]. At every prefix each source is within 1 - 1/(2S-2) of its share, credit included. Where
      the credit does not allow that, it is within the smallest bound found to work, at most that number plus the
      largest credit.

    Source: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980).
    """
    weights = integer_weights(shares)
    total = sum(weights)
    if len(weights) == 1:
        return np.zeros(1, np.int32)
    length = min(total, horizon or total)
    least = 1 - Fraction(1, 2 * len(weights) - 2)
    credit = [rounded(*part.as_integer_ratio()) for part in credit] or [Fraction(0)] * len(weights)
    if length == total and any(credit):
        near = [max(-least, min(part, least)) for part in credit]
        credit = [rounded(*part.as_integer_ratio()) for part in credit_within(shares, near)]
    parts, unit = over_common(credit)
    most = Fraction(max(map(abs, parts)), unit)
    if len(weights) == 2 and most <= least:  # each slot of a source has one position, or two where both may swap
        number = np.arange(weights[0] if length == total else length * weights[0] // total + 2)
        more = _sums(1 - least, credit, -1)
        slots = np.maximum(_slots_until(number, np.zeros(len(number), np.int64), more, weights, up=True) - 1, 0)
        source_of = np.ones(length, np.int32)
        source_of[slots[slots < length]] = 0
        return source_of
    if not most:
        return _by_deadline(weights, length, least, credit)
    # The narrowest width that works: one source far behind is no reason to let the others fall behind as far.
    floats, behind = [weight / total for weight in weights], [part / unit for part in parts]
    for width in (least + most * part / 4 for part in range(5)):
        source_of = _by_deadline(weights, length, width, credit)
        if largest_deviation(source_of, floats, behind) <= max(width, most) + 1e-9:
            break
    return source_of


def rounded(credit: int, unit: int) -> Fraction:
    """The fraction credit / unit of a slot, rounded to a multiple of 2^-24 where its denominator exceeds 2^24.

    Without rounding, denominators would grow with every stage.

    >>> rounded(3, 6), rounded(2**24 + 1, 2**26)
    (Fraction(1, 2), Fraction(1, 4))
    """
    if unit <= _CREDIT_UNIT or unit // math.gcd(credit, unit) <= _CREDIT_UNIT:
        return Fraction(credit, unit)
    number, rest = divmod(2 * credit * _CREDIT_UNIT + unit, 2 * unit)
    return Fraction(number - (not rest and number % 2), _CREDIT_UNIT)  # halves to even numbers, as `round`


def _by_deadline(weights: Sequence[int], length: int, width: Fraction, credit: Shares) -> np.ndarray:
    """Fill slots so that each source is within `width` of its share, credit included, if possible; int32 [length].

    If the length is the sum of the weights, each source fills as many slots as its weight.
    """
    total, num_sources = sum(weights), len(weights)
    if length == total:
        counts = list(weights)
    else:
        wider = (max(-(-number // unit) - 1, 0) for number, unit in _sums(width, credit))
        counts = [length * weight // total + 2 + more for weight, more in zip(weights, wider, strict=True)]
    source = np.repeat(np.arange(num_sources), counts)
    number = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
    # The first and the last slot that may be a source's n-th for it to stay within the width.
    releases = _slots_until(number, source, _sums(1 - width, credit, -1), weights, up=True) - 1
    deadlines = _slots_until(number, source, _sums(width, credit, -1), weights, up=False)
    # The same integer holds the source, which breaks ties.
    chosen = earliest_deadlines(releases, deadlines * num_sources + source, length)
    source_of: np.ndarray = (chosen % num_sources).astype(np.int32)
    return source_of


def _sums(number: Fraction, credit: Shares, sign: int = 1) -> list[tuple[int, int]]:
    """A number plus, or minus, each credit, as pairs of numerator and denominator that may have common divisors."""
    sums = []
    for part in credit:
        unit = math.lcm(number.denominator, part.denominator)
        times = sign * part.numerator * (unit // part.denominator)
        sums.append((number.numerator * (unit // number.denominator) + times, unit))
    return sums


def _slots_until(
    number: np.ndarray, source: np.ndarray, more: Sequence[tuple[int, int]], weights: Sequence[int], *, up: bool
) -> np.ndarray:
    """The number of slots in which a source's share amounts to number + more, rounded up or down, int64 [count].

    Args:
      number: Whole numbers of slots, int64 [count].
      source: The source of each number, int64 [count].
      more: The fraction of a slot to add for each source, as numerator and denominator, shape [num_sources].
      weights: The weights of the sources, shape [num_sources].
      up: Whether to round up.
    """
    total, (parts, units) = sum(weights), zip(*more, strict=True)
    divisors = [weight * unit for weight, unit in zip(weights, units, strict=True)]
    amounts = number * np.asarray(units)[source] + np.asarray(parts)[source]
    return _ceil_ratio(amounts, total, divisors, source) if up else -_ceil_ratio(-amounts, total, divisors, source)


def earliest_deadlines(releases: np.ndarray, tickets: np.ndarray, count: int) -> np.ndarray:
    """Give each slot to the lowest ticket among those released by then, or else to the next to be released.

    Args:
      releases: The first slot that each ticket may have, int64 [num_tickets].
      tickets: Integers that sort by deadline, int64 [num_tickets].
      count: The number of slots, at most `num_tickets`.

    Returns:
      The ticket of each slot, int64 [count].
    """
    order = np.argsort(releases, kind="stable")
    release_list, ticket_list = releases[order].tolist(), tickets[order].tolist()
    waiting: list[int] = []
    chosen = np.empty(count, np.int64)
    upcoming = 0
    for slot in range(count):
        while upcoming < len(release_list) and (release_list[upcoming] <= slot or not waiting):
            heapq.heappush(waiting, ticket_list[upcoming])
            upcoming += 1
        chosen[slot] = heapq.heappop(waiting)
    return chosen


def largest_deviation(
    source: np.ndarray, shares: Sequence[float | Fraction], credit: Sequence[float | Fraction] = ()
) -> float:
    """The largest distance, in slots, of any source's count from its share, over all prefixes.

    Args:
      source: The source of each slot, int [count].
      shares: The shares of the sources, shape [num_sources].
      credit: How many slots each source is behind before the first slot, shape [num_sources]; empty where none is.

    >>> largest_deviation(np.array([0, 1, 0, 0]), [0.75, 0.25])
    0.5
    """
    # A source is farthest above its share right after one of its slots, and farthest below right before one or at the
    # end, so only these positions are checked.
    share, behind = np.asarray(shares, np.float64), np.zeros(len(shares))
    if credit:
        behind = np.asarray(credit, np.float64)
    quota, before = np.bincount(source, minlength=len(shares)), np.arange(len(source))
    rank = np.empty(len(source), np.int64)
    rank[np.argsort(source, kind="stable")] = before - np.repeat(np.cumsum(quota) - quota, quota)
    due = share[source] * before + behind[source]
    above = (rank + 1 - due - share[source]).max(initial=0)
    below = (due - rank).max(initial=0)
    end = np.abs(quota - share * len(source) - behind).max(initial=0)
    return float(max(above, below, end))


def by_credit(shares: Shares, begin: Shares, count: int, *, active_only: bool = False) -> np.ndarray:
    """Give each slot to the source that is farthest behind the sum of its shares, the first of those that tie.

    Args:
      shares: The shares, adding up to 1, shape [num_sources].
      begin: How many slots each source is behind at the first slot, adding up to 0; empty where none is.
      count: The number of slots.
      active_only: Whether a source without a share gets no slot, however far it is behind.

    Returns:
      Source ids, int32 [count].
    """
    total = math.lcm(*(share.denominator for share in (*shares, *begin)))
    # All in parts of a slot, as integers, so that ties are exact; Python's integers where 64 bits might overflow.
    dtype = np.int64 if total * len(shares) < 2**57 else object
    weights = np.asarray([int(share * total) for share in shares], dtype)
    credit = np.asarray([int(part * total) for part in begin], dtype) if begin else np.zeros_like(weights)
    ids = np.arange(len(shares), dtype=np.int32)
    if active_only:
        # What the other sources are behind remains with these: together they are ahead by as much.
        ids = ids[weights > 0]
        weights, credit = weights[ids], credit[ids]
    chosen = np.empty(count, np.int32)
    for slot in range(count):
        credit += weights
        chosen[slot] = place = credit.argmax()
        credit[place] -= total
    return ids[chosen]


def _ceil_ratio(numbers: np.ndarray, total: int, divisors: Sequence[int], source: np.ndarray) -> np.ndarray:
    """ceil(numbers * total / divisor of the source), exact but for results beyond any table, int64 [count]."""
    if int(np.abs(numbers).max()) * total < 2**62 and max(divisors) < 2**62:
        exact: np.ndarray = -((-numbers * total) // np.asarray(divisors)[source])
        return exact
    # Weights with many decimals overflow 64 bits. Floats decide all but the few quotients next to an integer.
    most = _PAST_ANY_TABLE
    ratios = [total / divisor if total < most * divisor else float(most) for divisor in divisors]
    quotient = np.clip(
        numbers.astype(np.float64) * np.asarray(ratios)[source], -float(_PAST_ANY_TABLE), float(_PAST_ANY_TABLE)
    )
    result: np.ndarray = np.ceil(quotient).astype(np.int64)
    for i in np.flatnonzero(np.abs(quotient - np.rint(quotient)) <= np.abs(quotient) * 2.0**-48):
        if abs(quotient[i]) < _PAST_ANY_TABLE:  # a clipped one may need more than 64 bits
            result[i] = -((-int(numbers[i]) * total) // divisors[source[i]])
    return result


def stratified(
    shares: Shares, batch: int, first: int, horizon: int | None, slots: int, credit: Shares = ()
) -> np.ndarray:
    """Fill one cycle so that every batch holds the exact quota of each source, rounded down or up.

    Quotas are first rounded down, and each source keeps the remainder as credit; the slots that remain in a batch go
    to the sources with the largest credit.

    Args:
      shares: The shares of all sources, shape [num_sources].
      batch: The number of slots in a batch.
      first: The slot of the whole mix at which the cycle begins; batches begin at multiples of `batch`.
      horizon: The number of slots that will be used; a longer cycle is cut there.
      slots: The largest length of a cycle that does not end at the horizon; a longer one is cut where its counts are
        closest to the shares. If that is too short for the smallest share to come within 1 % of the requested one,
        `TABLE_SLOTS` or else `LONG_TABLE_SLOTS` takes its place.
      credit: How many slots each source is behind at the first slot, shape [num_sources]; empty where none is. A cycle
        that will be repeated starts without credit.

    Returns:
      Source ids, int32 [cycle]; within a batch, the slots of each source are spread evenly.

    Raises:
      ConfigError: A share is below one slot in the cycle.

    Source: A. Hamilton's method of largest remainders (1792), with the remainders kept.
    """
    weights = np.asarray(_limited(integer_weights(shares)), np.int64)
    total, num_active = int(weights.sum()), int(np.count_nonzero(weights))
    least = min(share for share in shares if share)
    offset = first % batch
    whole = total // math.gcd(total, batch)
    # Every batch is within one record of its quota, so fewer batches than a table holds are accurate enough.
    enough = min(max(_STRATA, math.ceil(100 / (least * batch))), max(1, _enough(slots, least) // batch), _MOST_STRATA)
    num_batches = enough if any(credit) else min(whole, enough)
    cut = horizon is not None and horizon + offset <= num_batches * batch
    if cut and horizon is not None:
        num_batches = -(-(horizon + offset) // batch)
    else:
        num_batches = min(whole, enough)
        _refuse_rare([share for share in shares if share], num_batches * batch)
    quota, rest = np.divmod(weights * batch, total)
    behind, extra = np.zeros(len(weights), np.int64), batch - int(quota.sum())
    if cut and any(credit):
        behind = np.asarray([round(part * total) for part in credit], np.int64)
    raised = np.empty((num_batches, extra), np.int32)  # the sources whose quota of a batch is rounded up
    off = np.zeros(num_batches)
    # A source whose quota is a whole number has no remainder, and is never rounded up.
    never, relative = np.where(rest > 0, 0, -total * num_active), 1 / np.maximum(weights, 1)
    for i in range(num_batches if extra else 0):
        behind += rest
        more = np.argpartition(-(behind + never), extra - 1)[:extra]
        raised[i] = more
        behind[more] -= total
        off[i] = np.abs(behind * relative).max() / (i + 1)
    if not cut and num_batches < whole:
        late = num_batches * 3 // 4
        raised = raised[: late + 1 + int(np.argmin(off[late:]))]
    at_once = max(_COUNTS // len(weights), 1)
    table = np.concatenate([_batches(quota, raised[i : i + at_once]) for i in range(0, len(raised), at_once)])
    return table[offset:] if cut else np.roll(table, -offset)


def _batches(quota: np.ndarray, raised: np.ndarray) -> np.ndarray:
    """The source of each slot of some batches, spread evenly within each, int32 [num_batches * batch].

    Args:
      quota: The slots of each source in every batch, rounded down, int64 [num_sources].
      raised: The sources that have one more slot in each batch, int32 [num_batches, extra].
    """
    counts = np.tile(quota, (len(raised), 1))
    np.put_along_axis(counts, raised, quota[raised] + 1, axis=1)
    flat = counts.reshape(-1)
    by_source = np.repeat(np.tile(np.arange(len(quota), dtype=np.int32), len(counts)), flat)
    within = np.arange(len(by_source)) - np.repeat(np.cumsum(flat) - flat, flat)
    place = (2 * within + 1) / np.repeat(flat, flat)
    source_of: np.ndarray = by_source[np.lexsort((place, np.repeat(np.arange(len(counts)), counts.sum(axis=1))))]
    return source_of


def _limited(weights: list[int]) -> list[int]:
    """Nearly the same ratio, in integers small enough to be added up in 64 bits."""
    excess = max(sum(weights).bit_length() - 40, 0)
    return weights if not excess else [max(weight >> excess, int(weight > 0)) for weight in weights]


def by_length(
    shares: Shares,
    length_of: Callable[[int, np.ndarray], np.ndarray],
    base: Sequence[int],
    count: int,
    *,
    ahead: Sequence[float] = (),
    counts: Sequence[int] = (),
) -> np.ndarray:
    """Fill slots so that the summed lengths of the records, not their number, follow the shares.

    Every source is a queue of its records. Among the sources that are not ahead of their share, the slot goes to the
    one whose next record is due first.

    Args:
      shares: The shares of the summed lengths, shape [num_sources].
      length_of: The lengths of a source's records by their running numbers, int64 [count] -> [count].
      base: The running number of the first record of each source, shape [num_sources].
      count: The number of slots.
      ahead: How far each source is ahead of its share at the first slot, in the unit of the lengths, shape
        [num_sources]; empty where none is.
      counts: The number of slots that each source fills, `count` in total; empty where that is left open.

    Returns:
      Source ids, int32 [count]. At every prefix, the summed length of every source is within one longest record of its
      share.

    Source: J. Bennett and H. Zhang, WF2Q: worst-case fair weighted fair queueing, INFOCOM (1996).
    """
    rate = [float(share) for share in shares]
    queue: list[list[int]] = [[] for _ in shares]  # lengths that were looked up, in reverse
    seen, passed = list(base), [*ahead] or [0.0] * len(rate)
    ends = [begin + most for begin, most in zip(base, counts or [count] * len(rate), strict=True)]
    waiting: list[tuple[float, float, int]] = []  # when a source's next record may begin, when it is due, the source

    def enqueue(source: int) -> None:
        if not queue[source]:
            # More each time, so that a short stage of many sources looks up few records.
            most = _QUEUED if counts else min(max(seen[source] - base[source], 32), _QUEUED)
            numbers = np.arange(seen[source], min(seen[source] + most, ends[source]))
            queue[source] = length_of(source, numbers)[::-1].tolist()
            seen[source] += len(numbers)
        if queue[source]:
            begin, end = passed[source], passed[source] + queue[source][-1]
            heapq.heappush(waiting, (begin / rate[source], end / rate[source], source))

    for source, share in enumerate(shares):
        if share:
            enqueue(source)
    source_of, now = np.empty(count, np.int32), 0
    ready: list[tuple[float, int]] = []
    for slot in range(count):
        while waiting and (waiting[0][0] <= now or not ready):
            _, due, source = heapq.heappop(waiting)
            heapq.heappush(ready, (due, source))
        source = heapq.heappop(ready)[1]
        source_of[slot] = source
        length = queue[source].pop()
        passed[source] += length
        now += length
        enqueue(source)
    return source_of


def _enough(slots: int, least: Fraction) -> int:
    """The length of a table in which the smallest share comes within 1 % of the requested one, or the longest."""
    return next((n for n in (slots, TABLE_SLOTS) if n >= slots and least * n >= 100), max(slots, LONG_TABLE_SLOTS))


def _refuse_rare(shares: Shares, length: int) -> None:
    if min(shares) * length < 1:
        text = f"a share of {float(min(shares)):.3g} is below one record in {LONG_TABLE_SLOTS:,}"
        raise ConfigError(f"{text}; raise it, or make it 0.", key="mix")
