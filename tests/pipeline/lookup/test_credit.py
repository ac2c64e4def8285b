"""Slots under weights that change: as the rule says it, within the bound at every prefix."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.mixing.plan import Plan
from datamix.pipeline.cursor import Cursor, Online
from datamix.pipeline.locate import PlanArrays, arrays_of, cursor_at, locate
from datamix.pipeline.lookup.credit import TOTAL, CreditLookup, settled, whole_weights


def lookup(num_sources: int) -> CreditLookup:
    return CreditLookup.of(Plan({f"s{i}": 9 for i in range(num_sources)}, stop="forever"))


def cursor_of(weight: np.ndarray, credit: np.ndarray) -> Cursor:
    zeros = jnp.zeros(len(weight), jnp.uint32)
    word = jnp.uint32(0)
    return Cursor(jnp.zeros(2, jnp.uint32), word, word, zeros, zeros, Online(jnp.asarray(weight), jnp.asarray(credit)))


@jax.jit
def taken(slots: CreditLookup, cursor: Cursor, ahead: jax.Array) -> tuple[jax.Array, jax.Array, Online]:
    here = jnp.ones(len(ahead), bool)
    source, rank = slots.take(cursor, ahead, here)
    _, counts = slots.advance(cursor, jnp.uint32(len(ahead)), source, here)
    return source, rank, settled(cursor.online, jnp.uint32(len(ahead)), counts)


def reference(weights: list[list[int]]) -> list[int]:
    """The rule with Python's integers, the weights of each slot given."""
    credit, chosen = [0] * len(weights[0]), []
    for weight in weights:
        credit = [a + b for a, b in zip(credit, weight, strict=True)]
        source = max(range(len(credit)), key=lambda i: (credit[i], -i))
        credit[source] -= TOTAL
        chosen.append(source)
    return chosen


def test_the_first_slots_of_two_to_one():
    weight = np.asarray(whole_weights(jnp.asarray([2 / 3, 1 / 3])))
    assert weight.sum() == TOTAL
    source, rank, online = taken(lookup(2), cursor_of(weight, np.zeros(2, np.int32)), jnp.arange(6, dtype=jnp.uint32))
    assert source.tolist() == [0, 1, 0, 0, 1, 0]
    assert rank.tolist() == [0, 0, 1, 2, 1, 3]
    assert np.abs(np.asarray(online.credit)).max() < 10


def test_a_cursor_moves_on_by_the_slots_that_are_asked_for():
    slots, cursor = lookup(2), cursor_of(np.full(2, TOTAL // 2, np.int32), np.zeros(2, np.int32))
    here = jnp.arange(6) < 3
    source, _ = slots.take(cursor, jnp.arange(6, dtype=jnp.uint32), here)
    _, counts = slots.advance(cursor, jnp.uint32(3), source, here)
    assert counts.tolist() == [2, 1]


def test_equal_credits_go_by_order():
    source, _, _ = taken(
        lookup(4), cursor_of(np.full(4, TOTAL // 4, np.int32), np.zeros(4, np.int32)), jnp.arange(8, dtype=jnp.uint32)
    )
    assert source.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.sampled_from([2, 3, 8]), st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_counts_are_within_the_bound_of_moving_weights_at_every_prefix(num_sources, seed, concentration):
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(num_sources, concentration), 12) + 1e-6
    windows = [np.asarray(whole_weights(jnp.asarray(share, jnp.float32))) for share in shares]
    slots, online, chosen = lookup(num_sources), Online(None, np.zeros(num_sources, np.int32)), []
    for weight in windows:
        source, _, online = taken(slots, cursor_of(weight, online.credit), jnp.arange(16, dtype=jnp.uint32))
        chosen += source.tolist()
    every = [weight.tolist() for weight in windows for _ in range(16)]
    assert chosen == reference(every)
    wanted = np.cumsum(every, axis=0) / TOTAL
    counts = np.cumsum(np.eye(num_sources)[chosen], axis=0)
    assert np.abs(wanted - counts).max() <= 1 + math.log(num_sources)
    np.testing.assert_allclose(np.asarray(online.credit) / TOTAL, wanted[-1] - counts[-1], atol=1e-9)


@partial(jax.jit, static_argnums=2)
def located(arrays: PlanArrays, cursor: Cursor, count: int) -> tuple[list[jax.Array], Cursor]:
    records, after = locate(arrays, cursor, count)
    return [records.source, records.epoch, records.record], after


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20), st.sampled_from([0, 10**9, 2**40]))
def test_a_schedule_of_the_weights_gives_the_same_records(seed, concentration, epochs):
    num_sources = 5
    draw = np.random.default_rng(seed)
    sizes = {f"s{i}": int(10 ** draw.uniform(0, 6)) for i in range(num_sources)}
    shares = draw.dirichlet(np.full(num_sources, concentration), 6) + 1e-6
    shares *= np.where(draw.random(shares.shape) < 0.2, 0, 1)
    shares[:, 0] += 1e-3  # some sources are left out for a while, the first never
    weights = [np.asarray(whole_weights(jnp.asarray(each, jnp.float32))) for each in shares]
    windows = [dict(zip(sizes, each.tolist(), strict=True)) for each in weights]
    schedule = [{"until": 100 * (i + 1), "weights": each} for i, each in enumerate(windows)]
    replay = Plan(sizes, order="largest_credit", stop="forever", schedule=[*schedule, {"weights": windows[-1]}])
    plan = Plan(sizes, stop="forever")
    arrays = replace(arrays_of(plan), slots=CreditLookup.of(plan))
    # Wherever the sources stand: they go on from there.
    cursor = cursor_at(plan, 0)._replace(epoch=np.full(num_sources, epochs % 2**32, np.uint32))
    credit, parts = np.zeros(num_sources, np.int32), []
    for weight in weights:
        taken, cursor = located(arrays, cursor._replace(online=Online(weight, credit)), 100)
        credit = cursor.online.credit
        parts.append(taken)
    source, epoch, record = (np.concatenate(column) for column in zip(*parts, strict=True))
    expected = replay.take(0, 600)
    np.testing.assert_array_equal(source, expected.source)
    np.testing.assert_array_equal(epoch, (expected.epoch + epochs).astype(np.uint32))
    if not epochs:  # another epoch has another shuffle
        np.testing.assert_array_equal(record, expected.record)


@pytest.mark.parametrize("num_sources", [2, 3, 8, 64])
def test_the_worst_weights_reach_what_is_said_and_no_more(num_sources):
    # All that are not served yet share the weight: the last of them has got 1/S + … + 1/2 when there are two left.
    credit, alive = [0.0] * num_sources, list(range(num_sources))
    while len(alive) > 1:
        credit = [each + (i in alive) / len(alive) for i, each in enumerate(credit)]
        chosen = max(range(num_sources), key=lambda i: (credit[i], -i))
        credit[chosen] -= 1
        alive.remove(chosen)
    reached = max(credit)
    assert reached == pytest.approx(sum(1 / n for n in range(2, num_sources + 1)))
    assert reached <= 1 + math.log(num_sources)


@pytest.mark.parametrize("shares", [[float("nan"), 1.0], [-0.1, 1.1], [0.0, 0.0], [float("inf"), 1.0]])
def test_what_are_no_shares_is_marked(shares):
    assert whole_weights(jnp.asarray(shares)).tolist() == [-1, -1]
