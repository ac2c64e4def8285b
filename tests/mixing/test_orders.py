from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.groups import Group
from datamix.mixing.orders import Demand, concat, proportional, random, round_robin
from datamix.mixing.periods import Carried, Period, Table
from datamix.mixing.plan import Plan
from datamix.mixing.table_fills import TABLE_SLOTS, tijdeman
from datamix.mixing.weights import integer_weights, resolve_shares

CHECK = settings(derandomize=True, deadline=None, max_examples=60)


def shares_of(weights: Sequence[float | Fraction]) -> list[Fraction]:
    return list(resolve_shares([str(i) for i in range(len(weights))], ratio=list(weights)).values())


def demand(weights: Sequence[float | Fraction], lengths: Sequence[int] | None = None, seed: int = 0) -> Demand:
    return Demand(group=Group.flat(shares_of(weights)), remaining=lengths or [100] * len(weights), seed=seed)


def slots(period: Period, count: int, start: int = 0) -> list[int]:
    return [int(source) for source in period.take(start, count)[0]]


def bound(num_sources: int) -> Fraction:
    return 1 - Fraction(1, 2 * num_sources - 2)


def reference(shares: Sequence[Fraction]) -> list[int]:
    """Tijdeman's rule as the paper tells it, slot by slot and slowly, over one period.

    Allowed is who would otherwise be at least 1/(2S-2) behind after this slot; of those, the slot goes to the one
    that would be the first to fall more than 1 - 1/(2S-2) behind. Ties go to the first source.
    """
    slack = Fraction(1, 2 * len(shares) - 2)
    counts = [0] * len(shares)
    sequence = []
    for t in range(1, math.lcm(*(share.denominator for share in shares)) + 1):
        allowed = [i for i, share in enumerate(shares) if share * t - counts[i] >= slack]
        deadlines = {i: (counts[i] + 1 - slack) / shares[i] for i in allowed}
        chosen = min(allowed, key=lambda i: (math.floor(deadlines[i]), i))
        counts[chosen] += 1
        sequence.append(chosen)
    return sequence


def worst_deviation(sequence: Sequence[int] | np.ndarray, shares: Sequence[Fraction]) -> Fraction:
    """The largest distance of any source's count from its share over all prefixes, exactly."""
    scale = math.lcm(*(share.denominator for share in shares))
    positions = np.arange(1, len(sequence) + 1)
    exact = object if scale * len(sequence) >= 2**62 else np.int64
    worst = 0
    for source, share in enumerate(shares):
        count = np.cumsum(np.asarray(sequence) == source).astype(exact)
        off = count * scale - positions.astype(exact) * int(share * scale)
        worst = max(worst, int(np.abs(off).max()))
    return Fraction(worst, scale)


# Exact small sequences.


@pytest.mark.parametrize(
    ("weights", "sequence"),
    [
        ([1], "0"),
        ([1, 1], "01"),
        ([2, 1], "010"),
        ([3, 1], "0010"),
        ([7, 3], "0100010010"),
        ([0.7, 0.3], "0100010010"),
        ([1, 1, 1], "012"),
        ([2, 1, 1], "0102"),
        ([5, 3, 2], "0102010201"),
        ([6, 2, 1, 1], "0010200301"),
    ],
)
def test_proportional_in_full(weights: list[float], sequence: str) -> None:
    expected = [int(source) for source in sequence]
    assert tijdeman(shares_of(weights)).tolist() == expected
    assert slots(proportional(demand(weights)), 3 * len(expected)) == 3 * expected


def test_a_source_without_a_share_gets_no_slot() -> None:
    for weights, sequence in (([0, 2, 1], [1, 2, 1]), ([2, 0, 1], [0, 2, 0]), ([2, 1, 0], [0, 1, 0])):
        assert slots(proportional(demand(weights)), 6) == 2 * sequence
    for weights, sequence in (([0, 1, 1], [1, 2]), ([1, 0, 1], [0, 2]), ([1, 1, 0], [0, 1])):
        assert slots(round_robin(demand(weights)), 6) == 3 * sequence


def test_round_robin_in_full() -> None:
    assert slots(round_robin(demand([1, 1, 1])), 7) == [0, 1, 2, 0, 1, 2, 0]
    assert slots(round_robin(demand([1])), 3) == [0, 0, 0]


def test_concat_in_full() -> None:
    period = concat(demand([1, 1, 1], [2, 1, 3]))
    source, number = period.take(0, 14)
    assert source.tolist() == [0, 0, 1, 2, 2, 2, 0, 0, 1, 2, 2, 2, 0, 0]
    assert number.tolist() == [0, 1, 0, 0, 1, 2, 2, 3, 1, 3, 4, 5, 4, 5]


@pytest.mark.parametrize(("weights", "kept"), [([0, 1, 1], [1, 2]), ([1, 0, 1], [0, 2]), ([1, 1, 0], [0, 1])])
def test_concat_skips_a_source_without_a_share(weights: list[int], kept: list[int]) -> None:
    first, second = kept
    assert slots(concat(demand(weights, [2, 2, 2])), 8) == [first, first, second, second] * 2


def test_random_in_full() -> None:
    """Pinned: the draws depend on the seed and the position alone."""
    expected = [0, 0, 2, 0, 0, 2, 2, 1, 0, 0, 0, 2, 2, 2, 1, 2]
    assert slots(random(demand([1, 1, 2])), 16) == expected
    assert slots(random(demand([1, 1, 2])), 6, start=10) == expected[10:]
    assert slots(random(demand([1, 1, 2], seed=1)), 16) != expected


# Tijdeman's rule.


@CHECK
@given(st.lists(st.integers(1, 12), min_size=2, max_size=7))
def test_proportional_follows_the_rule(weights: list[int]) -> None:
    shares = shares_of(weights)
    expected = reference(shares)
    sequence = tijdeman(shares).tolist()
    assert sequence == expected
    assert [sequence.count(i) for i in range(len(weights))] == integer_weights(shares)
    assert worst_deviation(sequence, shares) <= bound(len(weights))


@CHECK
@given(st.lists(st.integers(1, 500), min_size=2, max_size=40))
def test_integer_weights_keep_the_bound_and_the_exact_quotas(weights: list[int]) -> None:
    shares = shares_of(weights)
    sequence = tijdeman(shares)
    assert len(sequence) == sum(integer_weights(shares))
    assert np.bincount(sequence).tolist() == integer_weights(shares)
    assert worst_deviation(sequence, shares) <= bound(len(weights))


@pytest.mark.parametrize("num_sources", [2, 3, 8, 64])
def test_float_weights_keep_the_bound(num_sources: int) -> None:
    """Their common denominator has up to 18 digits: no table holds a period, but some slots; 64 bits overflow."""
    generator = np.random.default_rng(num_sources)
    weights = np.exp(generator.uniform(np.log(1e-4), 0, num_sources))
    weights[0] = 1
    shares = shares_of([float(weight) for weight in weights])
    assert sum(integer_weights(shares)) > 2**50
    sequence, _ = proportional(replace(demand(weights.tolist()), horizon=20_000)).take(0, 20_000)
    assert worst_deviation(sequence, shares) <= bound(num_sources)


def test_256_sources_keep_the_bound() -> None:
    weights = np.random.default_rng(0).uniform(0.1, 1, 256).tolist()
    sequence, _ = proportional(replace(demand(weights), horizon=6000)).take(0, 6000)
    assert set(sequence.tolist()) == set(range(256))
    assert worst_deviation(sequence, shares_of(weights)) <= bound(256)


def test_the_bound_is_the_best_there_is() -> None:
    """For equal weights no order does better at the first slot of the last source."""
    for num_sources in range(2, 9):
        shares = [Fraction(1, num_sources)] * num_sources
        assert worst_deviation(tijdeman(shares), shares) == 1 - Fraction(1, num_sources)


def test_a_table_holds_the_shares_or_what_will_be_used_of_them() -> None:
    """0.2500001 has a period of ten million slots."""
    share = Fraction(2_500_001, 10_000_000)
    without_end = demand([share, 1 - share])
    assert isinstance(proportional(without_end), Carried)
    assert isinstance(proportional(replace(without_end, horizon=TABLE_SLOTS)), Table)
    assert isinstance(proportional(replace(without_end, horizon=TABLE_SLOTS + 1)), Carried)
    assert isinstance(proportional(demand([Fraction(1, 4), Fraction(3, 4)])), Table)


@pytest.mark.parametrize("weight", [1e-3, 1e-5, 3e-6, 1.24e-6, 1.239e-6, 1e-7, 1e-12])
def test_a_tiny_weight_gets_its_share(weight: float) -> None:
    plan = Plan({"large": 10, "tiny": 10, "other": 10}, {"tiny": weight, "other": 0.3}, stop="forever")
    for position in (10**6, 10**9, 10**13):
        assert abs(plan.counts(position)[1] - plan.shares[1] * position) < 2


# Windows.


@pytest.mark.parametrize("window", [2, 3, 6, 10, 64, 1000])
def test_a_window_keeps_its_counts(window: int) -> None:
    plain = proportional(demand([5, 3, 2]))
    shuffled = proportional(demand([5, 3, 2]), window=window)
    for begin in range(0, 50 * window, window):
        assert sorted(slots(shuffled, window, begin)) == sorted(slots(plain, window, begin))
    assert shuffled.length % 10 == 0
    np.testing.assert_array_equal(shuffled.quota * 10, np.array([5, 3, 2]) * shuffled.length)


def test_a_window_is_shuffled_and_not_sorted() -> None:
    shuffled = proportional(demand([5, 3, 2]), window=10)
    windows = np.asarray(slots(shuffled, 10_000)).reshape(1000, 10)
    assert len({tuple(row) for row in windows}) > 700  # of 2520
    first = np.bincount(windows[:, 0], minlength=3) / 1000
    np.testing.assert_allclose(first, [0.5, 0.3, 0.2], atol=0.08)
    last = np.bincount(windows[:, 9], minlength=3) / 1000
    np.testing.assert_allclose(last, [0.5, 0.3, 0.2], atol=0.08)


def test_the_windows_depend_on_the_seed() -> None:
    one, other = (slots(proportional(demand([5, 3, 2], seed=seed), window=10), 100) for seed in (0, 1))
    assert one != other
    assert slots(proportional(demand([5, 3, 2], seed=0), window=10), 100) == one


def test_a_window_of_one_is_none() -> None:
    plain = slots(proportional(demand([5, 3, 2])), 100)
    assert slots(proportional(demand([5, 3, 2]), window=1), 100) == plain
    assert slots(proportional(demand([5, 3, 2]), window=None), 100) == plain


@pytest.mark.parametrize("window", [0, -5])
def test_a_window_that_is_none(window: int) -> None:
    with pytest.raises(ConfigError, match=rf"^mix\.window = {window}; it is 1 or more, or null for none\.$"):
        proportional(demand([5, 3, 2]), window=window)


# Orders that know no ratio.


@pytest.mark.parametrize(
    ("order", "does"), [(round_robin, "one record of each source in order"), (concat, "every source whole")]
)
def test_an_order_without_a_ratio_refuses_one(order: object, does: str) -> None:
    name = order.__name__  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError,
        match=rf"^mix = .{name}.; it takes {does}.* knows no ratio\. Use mix=proportional, or leave the ratio out\.$",
    ):
        order(demand([2, 1, 0]))  # type: ignore[operator]


# Random draws.


@pytest.mark.parametrize(
    "weights", [[1, 1], [7, 3], [0.999, 0.001], [1, 2, 3, 4], [0, 1, 3], [1, 3, 0], [1, 0, 3], [0, 0, 1, 0]]
)
def test_draws_keep_the_shares_and_never_draw_a_zero_weight(weights: list[float]) -> None:
    count = 200_000
    drawn = np.bincount(random(demand(weights)).take(0, count)[0], minlength=len(weights))
    expected = np.array([float(share) for share in shares_of(weights)]) * count
    positive = expected > 0
    assert drawn[~positive].sum() == 0
    chi_square = float(((drawn - expected)[positive] ** 2 / expected[positive]).sum())
    freedom = positive.sum() - 1
    assert chi_square <= freedom + 5 * np.sqrt(2 * freedom)


def test_the_lowest_and_highest_word_never_draw_a_zero_weight() -> None:
    for weights in ([0, 1, 1, 0], [0, 0, 1, 2, 0, 0], [0, 1, 0]):
        thresholds = random(demand(weights)).thresholds
        word = np.array([0, 2**31 - 1], np.uint32)
        lowest, highest = np.searchsorted(thresholds, word, side="right")
        assert weights[lowest] > 0
        assert weights[highest] > 0


def test_draws_are_independent_of_each_other() -> None:
    drawn = np.asarray(random(demand([1, 1, 1, 1])).take(0, 100_001)[0])
    pairs = np.bincount(drawn[1:] * 4 + drawn[:-1], minlength=16)
    chi_square = float(((pairs - 6250) ** 2 / 6250).sum())
    assert abs(chi_square - 15) / np.sqrt(30) < 5


def test_a_share_below_the_draws_resolution_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^mix = 'random'; it cannot draw a share below 2\^-31\. Raise it, or set it to 0\.$"
    ):
        random(demand([Fraction(1, 2**32), 1]))
    assert random(demand([Fraction(1, 2**31), 1 - Fraction(1, 2**31)])).thresholds.tolist() == [1, 2**31]


def test_the_largest_credit_is_carried_from_one_part_of_a_schedule_to_the_next():
    schedule = [{"until": until, "ratio": ratio} for until, ratio in ((3, "2:1"), (7, "1:5"), (12, "1:1"))]
    plan = Plan({"a": 9, "b": 9}, order="largest_credit", stop="forever", schedule=[*schedule, {"ratio": "1:1"}])
    shares = np.repeat([[2 / 3, 1 / 3], [1 / 6, 5 / 6], [1 / 2, 1 / 2]], [3, 4, 5], axis=0)
    credit, chosen = np.zeros(2), []
    for share in shares:
        credit += share
        chosen.append(int(np.argmax(np.round(credit, 9))))
        credit[chosen[-1]] -= 1
    assert plan.take(0, 12).source.tolist() == chosen
    assert [plan.counts(slot)[0] for slot in range(13)] == [0, *np.cumsum(np.asarray(chosen) == 0).tolist()]


def test_the_largest_credit_without_a_schedule_is_as_proportional():
    plans = [
        Plan({"a": 9, "b": 9}, {"a": 3}, order=order, stop="forever") for order in ("largest_credit", "proportional")
    ]
    assert plans[0].take(0, 40).source.tolist() == plans[1].take(0, 40).source.tolist()
    with pytest.raises(ConfigError, match="it takes no mix within the mix, and follows no lengths"):
        Plan({"a.x": 9, "a.y": 9, "b": 9}, order="largest_credit", stop="forever")


@settings(CHECK, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 8), min_size=2, max_size=6),
    phases=st.lists(st.tuples(st.integers(1, 8), st.lists(st.sampled_from([1, 2, 9, 40]), min_size=6, max_size=6))),
    stop=st.sampled_from(["first_exhausted", "all_exhausted"]),
)
@example([6, 2], [(4, [40, 1]), (3, [3, 9]), (1, [9, 2])], "first_exhausted")  # b ends it, a has no slot in the last
@example(  # a's last slot comes later than any within a slot of its share
    [19, *[99] * 11], [(1, [1] * 12), (99, [33, 1, 2, 5, 1, 5, 1, 1, 5, 1, 1, 5])], "first_exhausted"
)
def test_the_largest_credit_under_a_schedule_is_that_of_its_rule(
    sizes: list[int], phases: list[tuple[int, list[int]]], stop: str
) -> None:
    names = "abcdefghijkl"[: len(sizes)]
    schedule: list[dict[str, object]] = []
    weights_of = []
    for steps, weights in phases:
        weights_of += [weights[: len(sizes)]] * steps
        schedule.append({"until": len(weights_of), "weights": dict(zip(names, weights, strict=False))})
    last = [1, 40, 2, 9, 1, 3, 1, 1, 1, 1, 1, 1][: len(sizes)]
    schedule.append({"weights": dict(zip(names, last, strict=True))})
    slots: list[int] = []
    credit, counts = [Fraction(0)] * len(sizes), [0] * len(sizes)
    while stop == "first_exhausted" or any(count < size for count, size in zip(counts, sizes, strict=True)):
        weights = weights_of[len(slots)] if len(slots) < len(weights_of) else last
        credit = [each + Fraction(weight, sum(weights)) for each, weight in zip(credit, weights, strict=True)]
        source = max(range(len(sizes)), key=lambda i: (credit[i], -i))
        credit[source] -= 1
        if stop == "first_exhausted" and counts[source] == sizes[source]:
            break
        slots.append(source)
        counts[source] += 1
    plan = Plan(dict(zip(names, sizes, strict=True)), order="largest_credit", stop=stop, schedule=schedule)
    assert plan.take(0, len(slots) + 1).source.tolist() == slots


def test_the_largest_credit_of_weights_that_repeat_is_filled_once() -> None:
    plan = Plan({"a": 10**9, "b": 1}, {"a": 10_000}, order="largest_credit", stop="all_exhausted", epochs={"b": 10**5})
    assert plan.stages[0].period.length == 10_001
    assert plan.length == 10_001 * 10**5
    assert plan.counts(10_001 * 99_999) == [10_000 * 99_999, 99_999]


LONG = {"sizes": {"a": 10**6, "b": 10**6}, "weights": {"b": 1.2345678912345e-6}, "order": "largest_credit"}


def test_slots_that_would_be_filled_one_by_one_for_hours_are_refused() -> None:
    message = (
        r"^mix = 'largest_credit'; it fills a stage of this mix slot by slot, 810,00\d,\d{3},\d{3} of them, and at "
        r"most 67,108,864\. Use mix=proportional, or end the mix before, as by stop\.samples\.$"
    )
    with pytest.raises(ConfigError, match=message):
        Plan(**LONG, stop="all_exhausted")
    assert Plan(**(LONG | {"order": "proportional"}), stop="all_exhausted").length
    assert Plan(**LONG, stop="all_exhausted", samples=1000).length == 1000


@CHECK
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    phases=st.lists(st.tuples(st.integers(1, 20), st.lists(st.integers(0, 9), min_size=5, max_size=5)), max_size=4),
    stop=st.sampled_from(["first_exhausted", "exhaust_once"]),
)
def test_the_largest_credit_gives_no_record_twice_where_the_stop_repeats_none(
    sizes: list[int], phases: list[tuple[int, list[int]]], stop: str
) -> None:
    names = "abcde"[: len(sizes)]
    schedule: list[dict[str, object]] = []
    for steps, weights in [*phases, (0, [1, 2, 0, 3, 4])]:
        until = steps + int(str(schedule[-1]["until"])) if schedule else steps
        schedule.append({"until": until, "weights": dict(zip(names, weights, strict=False)) | {"a": 1}})
    del schedule[-1]["until"]
    plan = Plan(dict(zip(names, sizes, strict=True)), order="largest_credit", stop=stop, schedule=schedule)
    for stage in plan.stages:
        assert stage.length is not None
        taken = set(stage.period.take(0, stage.length)[0].tolist())
        assert taken <= {source for source, share in enumerate(stage.shares) if share}
    assert plan.length is not None
    assert plan.take(0, plan.length).epoch.max() == 0


def test_the_largest_credit_takes_a_source_no_further_than_its_cap() -> None:
    ratios = {8: "6:3:5", 13: "0:0:4", 25: "0:6:3"}
    schedule = [*({"until": until, "ratio": ratio} for until, ratio in ratios.items()), {"ratio": "7:8:1"}]
    sizes = {"a": 9, "b": 10, "c": 9}
    plan = Plan(sizes, order="largest_credit", stop="forever", schedule=schedule, max_epochs=dict.fromkeys(sizes, 1))
    assert plan.length == 28
    assert plan.counts(28) == list(sizes.values())


def test_concat_goes_on_where_a_source_has_been_given_whole() -> None:
    halves = Group.flat([Fraction(1, 2), Fraction(1, 2)])
    assert concat(Demand(group=halves, remaining=[-1, 3])).lengths == (0, 3)
    with pytest.raises(
        ConfigError, match=r"^mix = 'concat'; where this mix goes on .* whole\. Use mix=proportional\.$"
    ):
        concat(Demand(group=halves, remaining=[-1, 0]))
