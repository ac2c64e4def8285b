"""How a mix is cut into batches and shards, and the shuffle of a batch's rows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.mixing.plan import Plan
from datamix.pipeline.batching import Batching, RowShuffle, shard_rows, single_source_rows
from datamix.rng import permute
from datamix.rng.hash import fold, key_for


@pytest.mark.parametrize(
    ("length", "remainder", "batches", "rows"),
    [
        (10, "drop", 2, [4, 4]),
        (10, "keep", 3, [4, 4, 2]),
        (8, "keep", 2, [4, 4]),
        (3, "keep", 1, [3]),
        (None, "keep", None, [4, 4, 4]),
    ],
)
def test_batches(length: int | None, remainder: Any, batches: int | None, rows: list[int]) -> None:
    batching = Batching(length=length, batch_size=4, remainder=remainder)
    assert batching.num_batches == batches
    assert [batching.num_rows(step) for step in range(len(rows))] == rows
    assert batching.short_rows == (rows[-1] if rows[-1] < 4 else 0)


@pytest.mark.parametrize("shard", [3, (0, 1, 2), ("0", "2"), "02", (0.5, 2), (0, 1.5), (None, 2)])
def test_what_is_no_shard(shard: Any) -> None:
    with pytest.raises(ConfigError, match=r"; it is a rank and the number of ranks, as in \(0, 2\)\.$"):
        Batching(length=8, batch_size=4).check_shard(shard)


@pytest.mark.parametrize("shard", [(0, 0), (1, -2)])
def test_there_is_at_least_one_rank(shard: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"^shard = \(.*\); the number of ranks is 1 or more\.$"):
        Batching(length=8, batch_size=4).check_shard(shard)


def test_ranks_are_whole_numbers_of_any_library() -> None:
    Batching(length=8, batch_size=4).check_shard((np.int64(1), np.uint8(2)))


def test_no_batch_at_all() -> None:
    with pytest.raises(
        ConfigError, match=r"^batch\.size = 4; it is more than the 3 records of the whole mix"
    ) as caught:
        Batching(length=3, batch_size=4)
    assert (caught.value.key, caught.value.value) == ("batch.size", 4)
    assert caught.value.hint == "Make it smaller, or set batch.remainder=keep."
    assert Batching(length=3, batch_size=4, remainder="keep").num_batches == 1
    assert Batching(length=3, batch_size=3).num_batches == 1


@settings(derandomize=True)
@given(st.integers(0, 40), st.integers(1, 12))
def test_shards_are_contiguous_and_differ_by_a_row_at_most(num_rows: int, num_shards: int) -> None:
    shards = [shard_rows(num_rows, rank, num_shards) for rank in range(num_shards)]
    assert [row for shard in shards for row in range(shard.start, shard.stop)] == list(range(num_rows))
    sizes = [shard.stop - shard.start for shard in shards]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


def reference(plan: Plan, batching: Batching, step: int) -> list[int]:
    """The rows of one batch, shuffled on the host, batch by batch."""
    size = batching.batch_size
    first, rows = step * size // plan.slot_records, batching.num_rows(step)
    key = key_for(plan.seed, "batch", "shuffle")
    words = tuple(np.asarray([word], np.uint32) for word in key)
    for word in (first >> 32, first % 2**32):
        words = fold(words, np.asarray([word], np.uint32))  # type: ignore[arg-type]
    shuffled = permute.permute(np.arange(rows, dtype=np.uint32), permute.domain([rows]), words)  # type: ignore[arg-type]
    return [*shuffled.tolist(), *range(rows, size)]


@pytest.mark.parametrize("granularity", ["record", "batch"])
@pytest.mark.parametrize("first", [0, 3, 2**32 // 6 - 2, 2**40])
def test_rows_are_shuffled_as_on_the_host(granularity: str, first: int) -> None:
    length = 6 * (first + 3) + 5
    plan = Plan({"a": 50, "b": 9}, stop="forever", batch_size=6, granularity=granularity, seed=4)
    batching = Batching(length=length, batch_size=6, remainder="keep")
    slot = first * 6 // plan.slot_records
    position = np.asarray([slot >> 32, slot % 2**32], np.uint32)
    shuffle = jax.device_put(RowShuffle.of(plan, batching))
    rows = shuffle.rows(position, 4, 6, plan.slot_records)
    expected = [[6 * i + row for row in reference(plan, batching, first + i)] for i in range(4)]
    assert np.asarray(rows).reshape(4, 6).tolist() == expected
    assert expected[-1][-1] == 23  # past the end of the mix: it stays


@pytest.mark.parametrize(
    ("sizes", "settings", "batch_size", "rows"),
    [
        ((9, 9), {"order": "round_robin"}, 4, 1),  # abab
        ((9, 9), {"order": "round_robin"}, 5, 0),  # ababa babab
        ((9, 9, 9), {"order": "round_robin"}, 12, 1),
        ((99, 1, 1), {"weights": {"a": 14}}, 16, 4),  # of the four quarters, one or two are of a alone
        ((9, 9), {"order": "random"}, 4, 0),
        ((9, 9), {"order": "round_robin", "granularity": "batch", "batch_size": 4}, 4, 0),
        ((9,), {}, 4, 0),
        ((9, 9), {"weights": {"b": 0}}, 4, 0),
        ((40, 40), {"order": "concat"}, 4, 0),
        ((2, 2), {"order": "concat"}, 4, 2),  # aabb
        ((6, 3), {"order": "round_robin", "stop": "exhaust_once"}, 3, 0),  # aba bab aaa: then a alone, elsewhere both
        ((2, 9), {"order": "round_robin", "stop": "exhaust_once"}, 4, 1),  # abab bbbb
    ],
)
def test_the_largest_shard_of_one_source(
    sizes: tuple[int, ...], settings: dict[str, Any], batch_size: int, rows: int
) -> None:
    plan = Plan(dict(zip("abc", sizes, strict=False)), **{"stop": "forever"} | settings)
    assert single_source_rows(plan, batch_size) == rows
    if rows:  # as the records themselves have it
        length = min(plan.length or 4096, 4096) // batch_size * batch_size
        source = plan.take(0, length).source.reshape(-1, batch_size // rows, rows)
        assert any(len(set(source[:, rank].ravel().tolist())) == 1 for rank in range(batch_size // rows))


def test_a_pattern_that_hardly_ever_changes_is_told() -> None:
    plan = Plan({"a": 9, "b": 9}, {"a": 1.00001234}, stop="forever")
    assert plan.stages[0].period.length is None
    assert single_source_rows(plan, 4) == 1
    assert single_source_rows(plan.with_weights({"a": 1.1234567}), 4) == 0
