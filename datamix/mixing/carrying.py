"""Fill a period for shares that no table holds exactly: choose the slots of a cycle and the swaps between cycles.

1. A cycle gets a length at which the shares of large sources are nearly whole numbers of slots (`carried`).
2. Each source gets whole slots of it, by largest remainders; the difference to its exact share, of either sign, is its
   rest.
3. The sources form a chain in which the sum of the rests before each link stays below one slot (`_chain`). The two
   sources of a link make up for that sum by a swap: one slot of the cycle, which one gives to the other in some cycles.
4. The slots are placed by earliest deadline, those of each source around a line that leaves room for its swaps
   (`_filled`).
5. Longer cycles are tried until a bound on the deviation of every source (`_bound`) is at most 2 slots.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.periods.carried import Carried
from datamix.mixing.periods.table import Table
from datamix.mixing.table_fills import earliest_deadlines

LEAST_SLOTS, _MOST_SLOTS = 2**13, 2**22
"""The smallest and the largest number of slots in a cycle."""
_ENOUGH_RARE_SLOTS = 4  # a cycle is not made longer once the rarest source has this many slots
_MAX_CENTRED_SLOTS = 3  # a source with at most this many slots has them around the middle of the cycle
_LARGE_SHARE = 1 / 32
_WIDTHS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # slots from a source's line; the first that works is used
_NUM_LENGTHS, _MAX_TRIES = 512, 4  # lengths of a cycle compared in a try; tries, each with twice the slots
_SLOTS_PER_SOURCE = 64  # a cycle may have this many slots per source, however small `slots` is
_UNIT = 2**96  # parts of a slot, in which amounts are counted
_ONE = 2**64
_SMALLEST = 2.0**-50
_GOLDEN = (5**0.5 - 1) / 2


def carried(shares: Sequence[Fraction], slots: int) -> Carried:
    """Fill a cycle, and find the swaps between cycles that make the shares exact in the long run.

    Args:
      shares: The shares of all sources, adding up to 1, shape [num_sources]; 0 for one that does not take part.
      slots: The largest length of a cycle; it is longer where many sources have a share of less than one slot of it.

    Returns:
      A period in which at every position every source is within 2 slots of its share.

    Raises:
      ConfigError: A share is too small, or too many are.
    """
    active = [source for source, share in enumerate(shares) if share]
    parts = [shares[source] for source in active]
    sizes = np.asarray([float(part) for part in parts])
    if sizes.min() < _SMALLEST:
        text = f"a share of {sizes.min():.3g} is below one record in 2^50; raise it, or make it 0."
        raise ConfigError(text, key="mix")
    large = sizes >= _LARGE_SHARE
    most, slots = 2 * LEAST_SLOTS, max(slots, _SLOTS_PER_SOURCE * len(parts))
    while most < slots and sizes.min() * most < _ENOUGH_RARE_SLOTS:
        most *= 2
    tries: list[tuple[float, Carried]] = []
    while not tries or (min(tries)[0] > 2 and len(tries) < _MAX_TRIES and most <= slots):
        if most > _MOST_SLOTS:
            text = f"a share of {sizes.min():.3g} is below one record in {_MOST_SLOTS:,}, and there are too many such"
            raise ConfigError(f"{text} shares; raise them, or make some 0.", key="mix")
        # Choose the length at which the shares of large sources are closest to whole numbers of slots.
        lengths = most - np.arange(_NUM_LENGTHS) * (most // 2 // _NUM_LENGTHS)
        over = sizes[large] * lengths[:, None]
        length = int(lengths[np.argmin(np.abs(over - np.rint(over)).max(axis=1, initial=0))])
        amounts = [part.numerator * length * _UNIT // part.denominator for part in parts]
        amounts[int(np.argmax(sizes))] += length * _UNIT - sum(amounts)
        quota = np.asarray([amount // _UNIT for amount in amounts])
        rest = np.asarray([amount % _UNIT / _UNIT for amount in amounts])
        quota[np.argsort(-rest, kind="stable")[: length - int(quota.sum())]] += 1
        rests = [amount - slots * _UNIT for amount, slots in zip(amounts, quota.tolist(), strict=True)]
        if (chain := _chain(quota, rests)) is not None:
            tries.append(_filled(np.asarray(active, np.int32), len(shares), quota, rests, chain))
        most *= 2
    return min(tries, key=lambda pair: pair[0])[1]


def _chain(quota: np.ndarray, rests: Sequence[int]) -> list[int] | None:
    """An order of the sources in which the flow between neighbours stays below one slot; None where none is found.

    A source gives no more slots in a cycle than it has: one without any must take from both neighbours.
    """
    rest = np.asarray([part / _UNIT for part in rests])
    remaining, few = np.ones(len(quota), bool), np.minimum(quota, 2)
    chain: list[int] = []
    flow = 0
    for _ in range(len(quota)):
        after = flow / _UNIT + rest
        fits = remaining & (int(flow > 0) + (after < 0) <= quota) & (np.abs(after) < 1)
        if not fits.any():
            return None
        # Sources that hardly fit anywhere come first. Prefer a running total below zero: a source without a slot of its
        # own can only take one.
        cost = few + 8 * (np.abs(after) > 0.5) + np.abs(after) / 2 + 0.125 * (after > 0)
        chosen = int(np.argmin(np.where(fits, cost, np.inf)))
        remaining[chosen] = False
        flow += rests[chosen]
        chain.append(chosen)
    return chain


def _filled(
    ids: np.ndarray, num_sources: int, quota: np.ndarray, rests: Sequence[int], chain: Sequence[int]
) -> tuple[float, Carried]:
    """A bound on the distance of any source from its share, and the period: the cycle of a chain and its swaps."""
    # The line of a source, and those of its swaps, are shifted so that it deviates as much upwards as downwards.
    spread = np.empty(len(quota))
    spread[np.argsort(quota, kind="stable")] = np.arange(len(quota)) * _GOLDEN % 1 / 2
    center, phases, phase = np.zeros(len(quota)), [], 0.5
    for source in chain[:-1]:
        center[source] = (spread[source] if phase > 0.5 else -spread[source]) * (quota[source] > _MAX_CENTRED_SLOTS)
        phase -= center[source]
        phases.append(phase)
    center[chain[-1]] = phase - 0.5
    large = quota >= _LARGE_SHARE * quota.sum()
    for widest in _WIDTHS:
        width = np.where(large, widest, np.maximum(_WIDTHS[0], widest - 0.1))
        source_of, late = _even(quota, center, width)
        if not late:
            break
    table = Table(ids[source_of], num_sources)
    giver, taker, place, rate, begin = (np.zeros(len(chain) - 1, np.uint64) for _ in range(5))
    flow, num_given = 0, np.zeros(len(quota), int)
    for i, (source, following) in enumerate(itertools.pairwise(chain)):
        flow += rests[source]
        gives, takes = (following, source) if flow > 0 else (source, following)
        slots = table.slots[ids[gives]]
        # The giver's middle slot in the cycle, or the one before it if the middle one is already given.
        place[i] = slots[len(slots) // 2 - num_given[gives]] if flow else 0
        num_given[gives] += bool(flow)
        giver[i], taker[i], rate[i] = ids[gives], ids[takes], abs(flow) * _ONE // _UNIT
        begin[i] = int(phases[i] * _ONE) if flow > 0 else _ONE - 1 - int(phases[i] * _ONE)
    on = rate > 0
    period = Carried(
        table=table,
        giver=giver[on].astype(np.int32),
        taker=taker[on].astype(np.int32),
        place=place[on].astype(np.int64),
        rate=rate[on],
        phase=begin[on],
    )
    return _bound(width, quota, rests, chain, rate / _ONE, place / table.length), period


def _bound(
    width: np.ndarray,
    quota: np.ndarray,
    rests: Sequence[int],
    chain: Sequence[int],
    rate: np.ndarray,
    place: np.ndarray,
) -> float:
    """A bound on the deviation of any source, in slots.

    It adds up what the table, the lines between cycles, and the places of the swaps within a cycle contribute.
    """
    order = np.asarray(chain)
    rest = np.abs([rests[source] / _UNIT for source in chain])
    # The two swaps of each source, with its neighbours before and after it in the chain.
    before, after = np.append(0, rate), np.append(rate, 0)
    place_before, place_after = np.append(0.5, place), np.append(place, 0.5)
    late = rest * np.maximum(np.maximum(place_before, place_after), 1 - np.minimum(place_before, place_after))
    late += np.abs(place_before - place_after) * np.maximum(before, after) * (before > 0) * (after > 0)
    table = np.where(quota > 0, width, 0)[order]
    return float((table + (before > 0) / 2 + (after > 0) / 2 + late).max())


def _even(quota: np.ndarray, center: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, bool]:
    """The slots of a cycle, by earliest deadline, so that each source is within `width` of a line through `center`.

    Returns:
      The source of each slot, int64 [length], and whether a deadline was missed.
    """
    length, count = int(quota.sum()), len(quota)
    source = np.repeat(np.arange(count), quota)
    number = np.arange(length) - np.repeat(np.cumsum(quota) - quota, quota) - center[source]
    slots, width = length / quota[source], width[source]
    release = np.maximum(np.ceil((number + 1 - width) * slots - 1), 0).astype(np.int64)
    due = np.clip(np.floor((number + width) * slots), 0, length - 1).astype(np.int64)
    chosen = earliest_deadlines(release, due * count + source, length)
    return chosen % count, bool((chosen // count < np.arange(length)).any())
