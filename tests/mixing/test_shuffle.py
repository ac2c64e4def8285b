from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan


def orders_of(plan: Plan, source: int, num_epochs: int) -> list[list[int]]:
    """The records of a source's first epochs, in order."""
    size = plan.sizes[source]
    share = float(plan.shares[source])
    selection = plan.take(0, int(num_epochs * size / share) + 20 * len(plan.sizes) * plan.slot_records)
    mine = selection.source == source
    return [selection.record[mine & (selection.epoch == epoch)].tolist() for epoch in range(num_epochs)]


def test_exact_shuffle() -> None:
    """Pinned: another order would silently shuffle everybody's data anew."""
    plan = Plan({"a": 6, "b": 4}, stop="forever", seed=3)
    a, b = (orders_of(plan, source, 2) for source in (0, 1))
    assert a == [[0, 1, 2, 3, 4, 5], [1, 3, 4, 0, 2, 5]]
    assert b == [[3, 2, 1, 0], [1, 2, 3, 0]]


def correlation_z(first: list[int], second: list[int]) -> float:
    return float(abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(len(first) - 1))


def test_sources_epochs_and_seeds_are_unrelated() -> None:
    sizes = {"a": 2000, "b": 2000}
    one, other = (Plan(sizes, stop="forever", seed=seed) for seed in (0, 1))
    shuffles = [*orders_of(one, 0, 2), *orders_of(one, 1, 2), *orders_of(other, 0, 2), *orders_of(other, 1, 2)]
    for i, first in enumerate(shuffles):
        for second in shuffles[:i]:
            assert first != second
            assert correlation_z(first, second) < 5


def test_every_epoch_has_its_own_order() -> None:
    plan = Plan({"a": 50, "b": 20}, {"a": 1, "b": 2}, stop="forever")
    for source in (0, 1):
        orders = orders_of(plan, source, 20)
        assert len({tuple(order) for order in orders}) == 20
        assert list(range(plan.sizes[source])) not in orders


def test_a_seed_of_its_own_changes_that_source_alone() -> None:
    sizes = {"a": 50, "b": 50}
    plain, other = Plan(sizes, stop="forever", seed=0), Plan(sizes, stop="forever", seed=0, seeds={"b": 7})
    assert orders_of(other, 0, 3) == orders_of(plain, 0, 3)
    assert orders_of(other, 1, 3) != orders_of(plain, 1, 3)
    assert orders_of(other, 1, 3) == orders_of(Plan(sizes, stop="forever", seed=7), 1, 3)


def test_a_source_keeps_its_order_when_another_is_added_before_it() -> None:
    """Keys come from names, never from list positions; and the weights do not matter either."""
    two = Plan({"a": 50, "b": 70}, stop="forever")
    three = Plan({"new": 10, "b": 70, "a": 50}, {"b": 3}, stop="forever")
    assert orders_of(three, 2, 2) == orders_of(two, 0, 2)
    assert orders_of(three, 1, 2) == orders_of(two, 1, 2)
    renamed = Plan({"c": 50, "b": 70}, stop="forever")
    assert orders_of(renamed, 0, 2) != orders_of(two, 0, 2)


def test_the_batch_size_does_not_change_a_source_s_order() -> None:
    one, four = (Plan({"a": 50, "b": 70}, stop="forever", batch_size=unit, granularity="batch") for unit in (1, 4))
    for source in (0, 1):
        assert orders_of(four, source, 3) == orders_of(one, source, 3)


WINDOWS = [2, 1, 0, 4, 5, 3, 6, 2, 0, 1, 4, 5, 3, 6]


def test_exact_windows() -> None:
    plan = Plan({"a": 7}, shuffle="window(3)", stop="forever")
    taken = plan.take(0, 14)
    assert taken.record.tolist() == WINDOWS
    assert [sorted(WINDOWS[i:j]) for i, j in ((0, 3), (3, 6), (6, 7), (7, 10))] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
        [0, 1, 2],
    ]


@pytest.mark.parametrize("window", [1, 2, 5, 64, 65, 1000])
@pytest.mark.parametrize("size", [1, 5, 63, 64, 65, 1000])
def test_a_window_shuffles_inside_itself(window: int, size: int) -> None:
    record = Plan({"a": size}, shuffle=f"window({window})", stop="forever").take(0, 3 * size).record.reshape(3, size)
    for begin in range(0, size, window):
        end = min(begin + window, size)
        for epoch in record:
            assert sorted(epoch[begin:end].tolist()) == list(range(begin, end))
    if size >= 63 and window >= 5:
        assert (record[0] != record[1]).any()
        assert (record[0] != np.arange(size)).any()


def test_every_place_of_a_window_is_as_likely() -> None:
    # Chi-square of place against record, in whole and in last windows, over epochs and blocks.
    record = Plan({"a": 43}, shuffle="window(8)", stop="forever").take(0, 43 * 2000).record.reshape(2000, 43)
    for begin, size, limit in ((0, 8, 90), (16, 8, 90), (40, 3, 14)):  # above the 99.9th percentile
        table = np.zeros((size, size))
        for place in range(size):
            table[place] = np.bincount(record[:, begin + place] - begin, minlength=size)
        assert ((table - 2000 / size) ** 2 / (2000 / size)).sum() < limit
    first, second = record[:, :8], record[:, 8:16] - 8
    assert 0.08 < (first == second).mean() < 0.17  # windows are unrelated: one place in eight agrees


@pytest.mark.parametrize(("value", "same"), [(True, "full"), (False, "none"), ("window( 7 )", "window(7)")])
def test_other_ways_to_say_it(value: bool | str, same: str) -> None:
    mine, theirs = (Plan({"a": 50}, shuffle=shuffle).take(0, 50).record.tolist() for shuffle in (value, same))
    assert mine == theirs


@pytest.mark.parametrize(
    "value", ["window", "window(0)", "window(-1)", "window(x)", "half", 3, None, "window(4294967296)", "blocks(0)"]
)
def test_a_shuffle_that_is_none(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^shuffle .*; it is full, none, window\(n\) or blocks\(n\)") as caught:
        Plan({"a": 5}, shuffle=value)  # type: ignore[arg-type]
    assert (caught.value.key, caught.value.value) == ("shuffle", value)


BLOCKS = [[7, 6, 8, 1, 0, 2, 4, 10, 5, 9, 3], [0, 10, 1, 2, 9, 5, 3, 7, 8, 4, 6]]


def test_exact_blocks() -> None:
    plan = Plan({"a": 11}, shuffle="blocks(2)", block_records={"a": 3}, stop="forever", seed=1)
    epochs = plan.take(0, 22).record.reshape(2, 11).tolist()
    assert epochs == BLOCKS
    # Blocks 0 and 2, then the short window: block 1 and the short block 3; in the second epoch it comes first.
    assert [sorted(part) for part in (epochs[0][:6], epochs[0][6:])] == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10]]
    assert [sorted(part) for part in (epochs[1][:5], epochs[1][5:])] == [[0, 1, 2, 9, 10], [3, 4, 5, 6, 7, 8]]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 12), st.integers(0, 9))
def test_blocks_are_permuted_and_few_are_open(size: int, block: int, window: int, seed: int) -> None:
    plan = Plan({"a": size}, shuffle=f"blocks({window})", block_records={"a": block}, stop="forever", seed=seed)
    for record in plan.take(0, 3 * size).record.reshape(3, size):
        assert sorted(record.tolist()) == list(range(size))
        number, opened = record // block, []
        first = {each: int(np.flatnonzero(number == each)[0]) for each in set(number.tolist())}
        last = {each: int(np.flatnonzero(number == each)[-1]) for each in first}
        for index in range(size):  # a block is open from its first record to its last
            opened.append(sum(first[each] <= index <= last[each] for each in first))
        assert max(opened) <= window


def test_a_window_over_all_blocks_is_a_full_shuffle() -> None:
    few = [Plan({"a": 50}, shuffle=shuffle, stop="forever") for shuffle in ("blocks(1)", "blocks(9)")]  # of 1,024
    first, second = (plan.take(0, 50).record.tolist() for plan in few)
    assert first == second
    assert sorted(first) == list(range(50))
    assert first != sorted(first)


def test_every_place_of_blocks_is_as_likely() -> None:
    # Chi-square of place against record: 4 blocks of 3, two of which are open at once.
    plan = Plan({"a": 12}, shuffle="blocks(2)", block_records={"a": 3}, stop="forever")
    record = plan.take(0, 12 * 4000).record.reshape(4000, 12)
    table = np.stack([np.bincount(record[:, place], minlength=12) for place in range(12)])
    assert ((table - 4000 / 12) ** 2 / (4000 / 12)).sum() < 175  # the 99.9th percentile of 121 degrees of freedom
    # The short block goes with the short window, here alone, which stands in each of three places.
    plan = Plan({"a": 14}, shuffle="blocks(2)", block_records={"a": 3}, stop="forever")
    record = plan.take(0, 14 * 4000).record.reshape(4000, 14)
    places = np.bincount(np.argmax(record == 13, axis=1), minlength=14)
    assert np.flatnonzero(places).tolist() == [0, 1, 6, 7, 12, 13]
    assert ((places[places > 0] - 4000 / 6) ** 2 / (4000 / 6)).sum() < 20.5
    assert len({tuple(epoch // 3) for epoch in record}) > 3000


def test_blocks_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"^block_records\.a = 0; it is 1 or more, and less than 2\^32\.$"):
        Plan({"a": 5}, shuffle="blocks(2)", block_records={"a": 0})
    with pytest.raises(ConfigError, match=r"^block_records\.b: there is no source 'b' in this mix\. Known: a\.$"):
        Plan({"a": 5}, shuffle="blocks(2)", block_records={"b": 3})
