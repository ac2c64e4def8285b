from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix import registry
from datamix.errors import ConfigError
from datamix.mixing.periods import Draws
from datamix.mixing.plan import Plan

NAMES = "abcdefgh"


def plan_of(sizes: tuple[int, ...], weights: tuple[float, ...] | None = None, **settings: Any) -> Plan:
    named = dict(zip(NAMES, weights, strict=False)) if weights else None
    return Plan(dict(zip(NAMES, sizes, strict=False)), named, shuffle=False, **settings)


def records(plan: Plan, count: int | None = None) -> list[int]:
    """Ten times the source and the record: 21 is record 1 of source 2."""
    selection = plan.take(0, plan.length if count is None else count)  # type: ignore[arg-type]
    return (selection.source * 10 + selection.record).tolist()


# Exact small sequences.

ROUND_ROBIN, CONCAT, TWO_TO_ONE = ("round_robin", None), ("concat", None), ("proportional", (2, 1))


@pytest.mark.parametrize(
    ("order", "stop", "expected"),
    [
        (ROUND_ROBIN, "first_exhausted", [0, 10, 1, 11, 2, 12, 3]),
        (ROUND_ROBIN, "all_exhausted", [0, 10, 1, 11, 2, 12, 3, 10, 4]),
        (ROUND_ROBIN, "exhaust_once", [0, 10, 1, 11, 2, 12, 3, 4]),
        (CONCAT, "first_exhausted", [0, 1, 2, 3, 4, 10, 11, 12]),
        (CONCAT, "all_exhausted", [0, 1, 2, 3, 4, 10, 11, 12]),
        (CONCAT, "exhaust_once", [0, 1, 2, 3, 4, 10, 11, 12]),
        (TWO_TO_ONE, "first_exhausted", [0, 10, 1, 2, 11, 3, 4, 12]),
        (TWO_TO_ONE, "all_exhausted", [0, 10, 1, 2, 11, 3, 4, 12]),
        (TWO_TO_ONE, "exhaust_once", [0, 10, 1, 2, 11, 3, 4, 12]),
    ],
)
def test_record_by_record(order: tuple[str, Any], stop: str, expected: list[int]) -> None:
    plan = plan_of((5, 3), order[1], order=order[0], stop=stop)
    assert plan.length == len(expected)
    assert records(plan) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (ROUND_ROBIN, [0, 10, 1, 11, 2, 12, 3, 10, 4, 11, 0, 12, 1, 10]),
        (CONCAT, [0, 1, 2, 3, 4, 10, 11, 12, 0, 1, 2, 3, 4, 10]),
        (TWO_TO_ONE, [0, 10, 1, 2, 11, 3, 4, 12, 0, 1, 10, 2, 3, 11]),
    ],
)
def test_forever(order: tuple[str, Any], expected: list[int]) -> None:
    plan = plan_of((5, 3), order[1], order=order[0], stop="forever")
    assert plan.length is None
    assert records(plan, 14) == expected
    source = plan.take(10**15, 1000).source
    assert abs(int((source == 0).sum()) / 1000 - float(plan.targets[0])) < 0.01


@pytest.mark.parametrize(
    ("order", "stop", "expected"),
    [
        ("round_robin", "first_exhausted", [0, 1, 10, 11, 2, 3]),
        ("round_robin", "all_exhausted", [0, 1, 10, 11, 2, 3, 12, 10, 4, 0]),
        ("round_robin", "exhaust_once", [0, 1, 10, 11, 2, 3]),
        ("concat", "first_exhausted", [0, 1, 2, 3, 10, 11]),
        ("concat", "all_exhausted", [0, 1, 2, 3, 4, 0, 10, 11, 12, 10]),
        ("concat", "exhaust_once", [0, 1, 2, 3, 10, 11]),
    ],
)
def test_batch_by_batch(order: str, stop: str, expected: list[int]) -> None:
    """Five and three records in batches of two.

    Where nothing may repeat, the last record of both is left out; elsewhere a batch straddles two epochs.
    """
    plan = plan_of((5, 3), order=order, stop=stop, batch_size=2, granularity="batch")
    assert plan.length == len(expected)
    assert records(plan) == expected


def test_forever_batch_by_batch() -> None:
    plan = plan_of((5, 3), order="round_robin", stop="forever", batch_size=2, granularity="batch")
    selection = plan.take(0, 16)
    assert (selection.source * 10 + selection.record).tolist() == [
        0,
        1,
        10,
        11,
        2,
        3,
        12,
        10,
        4,
        0,
        11,
        12,
        1,
        2,
        10,
        11,
    ]
    assert selection.epoch.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 2, 2]


def test_a_finished_source_drops_out_and_the_rest_keep_their_weights() -> None:
    plan = plan_of((2, 20, 10), (2, 2, 1), stop="exhaust_once")
    sequence = plan.take(0, 32).source
    assert plan.length == 32
    assert sequence[:4].tolist().count(0) == 2
    rest = sequence[5:]
    assert 0 not in rest
    for end in range(3, 28, 3):
        assert rest[:end].tolist().count(1) == 2 * end // 3
    assert [float(stage.shares[1] / sum(stage.shares[1:])) for stage in plan.stages[:2]] == [2 / 3, 2 / 3]


@pytest.mark.parametrize(
    ("stop", "repeating"),
    [("first_exhausted", False), ("exhaust_once", False), ("all_exhausted", True), ("forever", True)],
)
def test_which_stops_repeat(stop: str, repeating: bool) -> None:
    assert registry.lookup("stop", stop)().repeats is repeating


def test_a_source_that_fills_no_batch() -> None:
    for stop in ("first_exhausted", "exhaust_once"):
        with pytest.raises(
            ConfigError,
            match=r"^batch\.size = 4; source 'b' has 3 records, which fill no batch\. Make it 3 or less, or use "
            r"mix\.granularity=record\.$",
        ):
            plan_of((5, 3), stop=stop, batch_size=4, granularity="batch")
    assert records(plan_of((5, 3), stop="all_exhausted", batch_size=4, granularity="batch"))[:8] == [
        0,
        1,
        2,
        3,
        10,
        11,
        12,
        10,
    ]


# Side by side with others, on three lists [0, 1, 2], [10, 11, 12, 13], [20, 21, 22, 23, 24].

SAME, PREFIX, LONGER, REORDERED = "the same", "ours ends sooner", "ours goes on", "the same records in another order"
UP_TO_22 = [0, 10, 20, 1, 11, 21, 2, 12, 22]
UP_TO_24 = [*UP_TO_22, 0, 13, 23, 1, 10, 24]
ONCE = [*UP_TO_22, 13, 23, 24]


def related(ours: list[int], theirs: list[int]) -> str:
    if ours == theirs:
        return SAME
    if ours == theirs[: len(ours)]:
        return PREFIX
    if theirs == ours[: len(theirs)]:
        return LONGER
    return REORDERED if sorted(ours) == sorted(theirs) else "something else"


@pytest.mark.parametrize(
    ("library", "theirs", "stop", "relation"),
    [
        ("HF map-style first_exhausted", UP_TO_22, "first_exhausted", SAME),
        ("HF iterable first_exhausted", UP_TO_22[:7], "first_exhausted", LONGER),
        ("HF all_exhausted", UP_TO_24, "all_exhausted", SAME),
        ("HF all_exhausted_without_replacement", ONCE, "exhaust_once", SAME),
        ("torchdata FIRST_DATASET_EXHAUSTED", UP_TO_22, "first_exhausted", SAME),
        ("torchdata ALL_DATASETS_EXHAUSTED", ONCE, "exhaust_once", SAME),
        ("torchdata CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED", [*UP_TO_24, 2, 11], "all_exhausted", PREFIX),
    ],
)
def test_round_robin_beside_others(library: str, theirs: list[int], stop: str, relation: str) -> None:
    """Round robin over lists of three, four and five.

    Under first_exhausted we stop where a record would be repeated, as torchdata's `MultiNodeWeightedSampler` does, here
    under the draws a, b, c, a, …, and Hugging Face datasets' map-style `interleave_datasets`; its iterable stops right
    after a source's last unseen record. Under all_exhausted we stop right after the last unseen record of all, as both
    of these do, while torchdata goes on until a source is drawn that has none left.
    """
    ours = records(plan_of((3, 4, 5), order="round_robin", stop=stop))
    assert related(ours, theirs) == relation
    assert ours == {"first_exhausted": UP_TO_22, "all_exhausted": UP_TO_24, "exhaust_once": ONCE}[stop]


def test_forever_beside_torchdata() -> None:
    """CYCLE_FOREVER under the draws a, b, c, a, …: no end, and every source goes round by itself."""
    theirs = [*UP_TO_24, 2, 11, 20, 0, 12, 21, 1, 13, 22, 2, 10, 23, 0, 11, 24]
    assert records(plan_of((3, 4, 5), order="round_robin", stop="forever"), 30) == theirs


def test_round_robin_goes_on_with_the_next_when_one_drops_out() -> None:
    """Where the source that finishes is not the last of its round, the next one follows, as with the others."""
    theirs = [0, 10, 20, 1, 11, 21, 2, 22, 3, 23]
    assert records(plan_of((4, 2, 4), order="round_robin", stop="exhaust_once")) == theirs
    assert records(plan_of((1, 3, 2), order="round_robin", stop="exhaust_once")) == [0, 10, 20, 11, 21, 12]


@pytest.mark.parametrize(
    ("sizes", "weights", "theirs", "ours", "relation"),
    [
        # list(MapDataset.mix([MapDataset.range(5), MapDataset.range(7, 10)])) of its documentation: [0, 7, 1, 8, 2, 9]
        ((5, 3), (1, 1), [0, 10, 1, 11, 2, 12], [0, 10, 1, 11, 2, 12, 3], LONGER),
        (
            (5, 6),
            (1, 2),
            [0, 10, 11, 1, 12, 13, 2, 14, 15],
            [10, 0, 11, 12, 1, 13, 14, 2, 15],
            REORDERED,
        ),
        (
            (6, 3),
            (2, 1),
            [0, 1, 10, 2, 3, 11, 4, 5, 12],
            [0, 10, 1, 2, 11, 3, 4, 12, 5],
            REORDERED,
        ),
    ],
)
def test_first_exhausted_beside_grain(
    sizes: tuple[int, ...], weights: tuple[int, ...], theirs: list[int], ours: list[int], relation: str
) -> None:
    """`MapDataset.mix` takes the first source as early as it can and ends at min(size / share).

    We end where a record would be repeated, which Tijdeman's rule puts off for less than a record of each source.
    """
    mine = records(plan_of(sizes, weights, stop="first_exhausted"))
    assert mine == ours
    assert related(ours, theirs) == relation
    assert len(theirs) <= len(ours) <= len(theirs) + 1


@pytest.mark.parametrize(
    ("weights", "theirs", "ours", "theirs_keep_the_bound"),
    [
        ((1, 1, 1, 1), [0, 10, 20, 30, 1, 11, 21, 31, 2, 12], [0, 10, 20, 30, 1, 11, 21, 31, 2, 12], True),
        ((5, 3, 2), [0, 10, 20, 1, 11, 2, 21, 3, 12, 4], [0, 10, 1, 20, 2, 11, 3, 21, 4, 12], True),
        ((6, 2, 1, 1), [0, 10, 20, 1, 30, 2, 3, 11, 4, 5], [0, 1, 10, 2, 20, 3, 4, 30, 5, 11], False),
        ((1, 1, 1, 7), [30, 0, 31, 10, 32, 20, 33, 34, 35, 36], [30, 31, 0, 32, 33, 34, 10, 20, 35, 36], False),
    ],
)
def test_proportional_beside_megatron(
    weights: tuple[int, ...], theirs: list[int], ours: list[int], theirs_keep_the_bound: bool
) -> None:
    """Megatron's blended index takes whoever is furthest behind: the same counts in the end, but unbounded between."""
    assert records(plan_of((50,) * len(weights), weights, stop="forever"), 10) == ours
    assert related(ours, theirs) in (SAME, REORDERED)
    shares = np.array(weights) / sum(weights)

    def keeps_the_bound(sequence: list[int]) -> bool:
        taken = np.array(sequence)[:, None] // 10 == np.arange(len(weights))
        off = np.abs(taken.cumsum(axis=0) - shares * np.arange(1, 11)[:, None])
        return bool(off.max() <= 1 - 1 / (2 * len(weights) - 2) + 1e-12)

    assert keeps_the_bound(ours)
    assert keeps_the_bound(theirs) is theirs_keep_the_bound


@pytest.mark.parametrize(
    ("sizes", "theirs", "ours"),
    [
        ((5, 3), [0, 10, 1, 11, 2, 3, 12, 4], [0, 10, 1, 2, 11, 3, 12, 4]),
        ((3, 2, 5), [20, 0, 10, 21, 1, 22, 11, 23, 2, 24], [20, 0, 10, 21, 1, 22, 23, 11, 2, 24]),
    ],
)
def test_exhaust_once_beside_megatron(sizes: tuple[int, ...], theirs: list[int], ours: list[int]) -> None:
    """Its exhaustive index and ours, with the sizes as weights: every record once, spread over the whole mix."""
    assert records(plan_of(sizes, sizes, stop="exhaust_once")) == ours
    assert related(ours, theirs) == REORDERED


@pytest.mark.parametrize("more", [{}, {"stratify": True}, {"granularity": "batch"}])
def test_a_source_may_reach_its_cap_before_another_has_had_a_record(more: dict[str, Any]) -> None:
    settings = {"stop": "all_exhausted", "max_epochs": {"a": 1}, "batch_size": 5, **more}
    plan = Plan({"a": 5, "b": 100}, {"a": 99}, **settings)
    assert plan.counts(plan.length) == [5, 100]
    assert plan.take(0, 5).source.tolist() == [0] * 5
    with pytest.raises(ConfigError, match=r"^mix\.max_epochs\.a: the mix goes through a once more from record 5 on\."):
        Plan({"a": 5, "b": 100}, {"a": 99}, at_max_epochs="error", **settings)


def test_sources_that_drop_out_leave_the_others_at_the_sum_of_their_shares() -> None:
    """Each of up to 40 stages goes on where the one before left off; anew, they would be 10 records off."""
    draw = np.random.default_rng(0)
    sizes = {f"s{i}": int(size) for i, size in enumerate(draw.integers(10, 20, 40))}
    plan = Plan(sizes, stop="exhaust_once")
    assert plan.counts(plan.length) == list(sizes.values())
    assert len(plan.stages) > 8
    assert plan.max_deviation()[0] < 3


# Properties, against a walk record by record.

mixes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=5)
orders = st.sampled_from(["proportional", "round_robin", "concat", "random"])


def walked_end(slots: list[int], left: list[int], stop: str) -> int:
    """Where a mix ends, walked slot by slot: how many of `slots` it has, when each source can fill `left` of them."""
    left = list(left)
    for slot, source in enumerate(slots):
        if stop == "first_exhausted" and not left[source]:
            return slot
        left[source] -= 1
        if stop == "all_exhausted" and max(left) <= 0:
            return slot + 1
    raise AssertionError("the walk is too short")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(mixes, orders, st.sampled_from(["first_exhausted", "all_exhausted"]), st.sampled_from([1, 1, 2, 3]), st.data())
def test_a_mix_ends_where_a_walk_ends(
    mix: list[tuple[int, int]], order: str, stop: str, unit: int, data: st.DataObject
) -> None:
    sizes = tuple(max(size, unit) for size, _ in mix)
    weights = tuple(weight for _, weight in mix) if order in ("proportional", "random") else None
    epochs = {NAMES[i]: data.draw(st.sampled_from([1, 1, 2, 3])) for i in range(len(mix))}
    settings = {"order": order, "batch_size": unit, "granularity": "batch"}
    plan = plan_of(sizes, weights, stop=stop, epochs=epochs, **settings)
    assert plan.length is not None
    left = [size * times for size, times in zip(sizes, epochs.values(), strict=True)]
    left = [n // unit if stop == "first_exhausted" else -(-n // unit) for n in left]
    # The same order without end; concat has as many slots in a row as each source can fill.
    endless = plan_of(tuple(n * unit for n in left), weights, stop="forever", **settings)
    slots = endless.take(0, plan.length + 5 * unit).source[::unit].tolist()
    assert plan.length == walked_end(slots, left, stop) * unit
    assert plan.take(0, plan.length).source[::unit].tolist() == slots[: plan.length // unit]
    if stop == "first_exhausted":
        taken = plan.take(0, plan.length)
        for source, times in enumerate(epochs.values()):
            seen = np.bincount(taken.record[taken.source == source], minlength=sizes[source])
            assert seen.max() <= times


def test_two_sources_of_one_size_are_given_whole() -> None:
    plan = Plan({"a": 8000, "b": 8000})
    assert plan.length == 16_000
    taken = plan.take(0, 16_000)
    assert len({*zip(taken.source.tolist(), taken.record.tolist(), strict=True)}) == 16_000


def test_a_mix_may_end_with_a_phase_whose_first_slot_finds_nothing_left() -> None:
    """All of b is given when the second phase begins with it."""
    schedule = [{"until": 4, "ratio": "1:1"}, {"ratio": "0:1"}]
    plan = plan_of((9, 4), schedule=schedule, batch_size=2)
    assert records(plan) == [0, 10, 1, 11, 2, 12, 3, 13]
    assert len(plan.stages) == 1
    later = plan_of((9, 4), schedule=[{"until": 4, "ratio": "1:1"}, {"ratio": "1:0"}], batch_size=2)
    assert records(later) == [0, 10, 1, 11, 2, 12, 3, 13, 4, 5, 6, 7, 8]  # b, which is not mixed any more, ends nothing


@pytest.mark.parametrize("window", [2, 5, 64])
def test_windows_end_where_a_walk_ends(window: int) -> None:
    plan = plan_of((40, 30), (3, 2), window=window)
    endless = plan_of((40, 30), (3, 2), window=window, stop="forever")
    assert plan.length is not None
    slots = endless.take(0, plan.length + 70).source.tolist()
    assert plan.length == walked_end(slots, [40, 30], "first_exhausted")


def test_lengths_end_where_a_record_would_be_repeated() -> None:
    lengths = {"a": np.arange(1, 41), "b": np.arange(30, 0, -1)}
    plan = plan_of((40, 30), lengths=lengths)
    endless = plan_of((40, 30), lengths=lengths, stop="forever")
    assert plan.length is not None
    slots = endless.take(0, plan.length + 70).source.tolist()
    assert plan.length == walked_end(slots, [40, 30], "first_exhausted")


@settings(derandomize=True, deadline=None, max_examples=120)
@given(mixes, orders, st.sampled_from([1, 1, 2, 3]))
def test_exhaust_once_gives_every_record_of_a_whole_batch_once(
    mix: list[tuple[int, int]], order: str, unit: int
) -> None:
    sizes = tuple(max(size, unit) for size, _ in mix)
    weights = tuple(weight for _, weight in mix) if order in ("proportional", "random") else None
    plan = plan_of(sizes, weights, order=order, stop="exhaust_once", batch_size=unit, granularity="batch")
    selection = plan.take(0, 10**6)
    assert len(selection.source) == plan.length
    assert not selection.epoch.any()
    for source, size in enumerate(sizes):
        assert selection.record[selection.source == source].tolist() == list(range(size - size % unit))


def test_a_short_random_mix_is_not_walked_to_the_end_of_its_largest_source(drawn_slots: list[int]) -> None:
    """Only draws before the end of the mix are of interest; all of b's would take hours."""
    plan = plan_of((1000, 4 * 10**9), order="random", stop="first_exhausted")
    assert plan.length is not None
    assert 1500 < plan.length < 2500
    once = plan_of((1000, 2000, 2**20), order="random", stop="exhaust_once")
    assert once.length == 3000 + 2**20
    for built in (plan, once):
        report = built.report()
        assert isinstance(built.stages[0].period, Draws)
        assert report.sources["a"].exhausted_at is not None
    assert plan.report().sources["b"].exhausted_at is None
    assert 0 < sum(drawn_slots) < 2**24


# A source's own number of epochs, and limits.


def test_a_source_may_be_gone_through_several_times() -> None:
    sizes = {"a": 4, "b": 2}
    plan = Plan(sizes, epochs={"b": 2}, order="round_robin", shuffle=False)
    assert records(plan) == [0, 10, 1, 11, 2, 10, 3, 11]  # a's first record would come a second time, b's a third
    assert Plan(sizes, order="round_robin").length == 5
    once = Plan(sizes, epochs={"b": 3}, order="concat", stop="exhaust_once", shuffle=False)
    assert records(once) == [0, 1, 2, 3, 10, 11, 10, 11, 10, 11]
    every = Plan(sizes, epochs={"b": 5}, order="round_robin", stop="all_exhausted", shuffle=False)
    assert every.length == 20
    assert every.report().sources["a"].epochs == 2.5


@given(times=st.tuples(st.integers(1, 4), st.integers(1, 4)), order=st.sampled_from(["proportional", "random"]))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_exhaust_once_gives_every_record_as_often_as_its_source_says(times: tuple[int, int], order: str) -> None:
    plan = Plan(
        {"a": 9, "b": 14}, {"a": 3}, epochs=dict(zip("ab", times, strict=True)), stop="exhaust_once", order=order
    )
    taken = plan.take(0, 1000)
    assert plan.length == len(taken.source) == 9 * times[0] + 14 * times[1]
    for source, (size, often) in enumerate(zip((9, 14), times, strict=True)):
        assert np.bincount(taken.record[taken.source == source], minlength=size).tolist() == [often] * size


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ({"z": 2}, r"^stop\.epochs\.z: there is no source 'z' in this mix\. Known: a, b\.$"),
        ({"a": 0}, r"^stop\.epochs\.a = 0; it is a whole number, 1 or more\.$"),
        ({"a": 1.5}, r"^stop\.epochs\.a = 1\.5; it is a whole number, 1 or more\.$"),
        ({"a": True}, r"^stop\.epochs\.a = True; it is a whole number, 1 or more\.$"),
    ],
)
def test_epochs_that_are_none(epochs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan({"a": 4, "b": 2}, epochs=epochs)


def test_a_limit_is_followed_exactly_to_its_end() -> None:
    weights = {"a": 0.7310585786300049, "b": 0.2689414213699951}
    plan = Plan({"a": 10**6, "b": 10**6}, weights, stop="forever", samples=250_000)
    assert plan.max_deviation() == (pytest.approx(0.5, abs=1e-3), 250_000)
    rare = Plan({"a": 10**6, "b": 10**6}, {"b": 1e-5}, stop="all_exhausted", samples=1000)
    assert rare.length == 1000
