from __future__ import annotations

import subprocess
import sys
from functools import lru_cache, partial
from itertools import product
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError
from datamix.mixing.loss_weights import inverse_shares
from datamix.mixing.periods import Carried, Draws, Runs, Table
from datamix.mixing.plan import Plan
from datamix.mixing.sampling import ByClass, ByWeight
from datamix.pipeline.cursor import Cursor
from datamix.pipeline.locate import Located, PlanArrays, arrays_of, cursor_at, locate
from datamix.pipeline.lookup.draws import DrawsLookup
from datamix.pipeline.lookup.runs import RunsLookup
from datamix.pipeline.lookup.table import TableLookup
from datamix.rng.hash import draw_at, multiply_high

# These tests compile more than they run. Those of one trace, below, compile as everybody does.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
located = jax.jit(locate, static_argnums=2, compiler_options=QUICK)

SIZES = {"a": 37, "b": 5, "c": 1000}
WEIGHTS = {"a": 2.5, "b": 0.3, "c": 3}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("proportional", {}),
    ("proportional", {"window": 6}),
    ("random", {}),
    ("random", {"replacement": True}),
    ("round_robin", {}),
    ("concat", {}),
]


def plan_of(order: str, stop: str = "forever", sizes: dict[str, int] = SIZES, **settings: Any) -> Plan:
    weights = {name: WEIGHTS[name] for name in sizes} if order in ("proportional", "random") else None
    return Plan(sizes, weights, order=order, stop=stop, **settings)


@lru_cache(maxsize=8)
def on_device(plan: Plan) -> PlanArrays:
    arrays: PlanArrays = jax.device_put(arrays_of(plan))
    return arrays


def assert_located(got: Located, plan: Plan, start: int, count: int) -> None:
    """The same records as the plan's, up to the plan's end."""
    expected = plan.take(start, count)
    for mine, theirs in zip(got[:3], expected, strict=True):
        assert mine.dtype == np.uint32
        np.testing.assert_array_equal(np.asarray(mine)[: len(theirs)], theirs.astype(np.uint32))


def walk(plan: Plan, start: int, num_slots: int, times: int) -> Cursor:
    """Compare a few chained calls with the plan; the cursor behind them."""
    arrays = on_device(plan)
    cursor = cursor_at(plan, start)
    for i in range(times):
        begin = start + i * num_slots * plan.slot_records
        got, cursor = located(arrays, cursor, num_slots)
        assert_located(got, plan, begin, num_slots * plan.slot_records)
    return cursor


# Exact small sequences.


def test_exact_records() -> None:
    plan = Plan({"a": 2, "b": 3}, order="round_robin", stop="forever", shuffle=False)
    arrays = arrays_of(plan)
    assert (arrays.shuffle_kind, arrays.slot_records) == ("none", 1)
    got, cursor = located(arrays, cursor_at(plan, 0), 8)
    assert got.source.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert got.epoch.tolist() == [0, 0, 0, 0, 1, 0, 1, 1]
    assert got.record.tolist() == [0, 0, 1, 1, 0, 2, 1, 0]
    assert (cursor.position.tolist(), int(cursor.stage), int(cursor.slot)) == ([0, 8], 0, 8)


def test_exact_cursors() -> None:
    plan = Plan({"a": 2, "b": 3}, order="concat", stop="forever", shuffle=False)
    cursor = cursor_at(plan, 5 * 2**32 + 7)  # a period has 5 slots
    assert cursor.position.tolist() == [5, 7]
    assert (int(cursor.stage), int(cursor.slot)) == (0, 2)
    assert cursor.epoch.tolist() == [1, 1]  # 2^32 + 1, of which the low word is kept
    assert cursor.offset.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("order", "settings", "lookup", "static"),
    [
        ("proportional", {"batch_size": 4, "granularity": "batch"}, TableLookup, ("full", 4, False)),
        ("round_robin", {"shuffle": False}, TableLookup, ("none", 1, False)),
        ("concat", {}, RunsLookup, ("full", 1, False)),
        ("random", {}, DrawsLookup, ("full", 1, False)),
        ("random", {"replacement": True}, DrawsLookup, ("none", 1, True)),
    ],
)
def test_what_shapes_the_program(order: str, settings: dict[str, Any], lookup: type, static: tuple[Any, ...]) -> None:
    arrays = arrays_of(plan_of(order, **settings))
    assert type(arrays.slots) is lookup
    assert (arrays.shuffle_kind, arrays.slot_records, arrays.slots.draws_records) == static


# The plan, traced.


@pytest.mark.parametrize(("order", "settings"), SETTINGS)
@pytest.mark.parametrize(("unit", "shuffle"), [(1, True), (4, False)])
def test_locate_is_take(order: str, settings: dict[str, Any], unit: int, shuffle: bool) -> None:
    generator = np.random.default_rng(0)
    for stop in ("first_exhausted", "all_exhausted", "exhaust_once", "forever"):
        plan = plan_of(order, stop, batch_size=unit, granularity="batch", shuffle=shuffle, **settings)
        far = [10**5, 2**31 - 64, 2**32 - 64, 12_345_678_900, 2**60 - 10**6] if order != "random" else [10**5, 150_000]
        starts = [0, 3, *generator.integers(0, 2000, 4).tolist(), *far]
        for start in starts:
            begin = start // unit * unit
            if plan.length is None or begin < plan.length:
                walk(plan, begin, 48, 3)


SAMPLING = {
    "a": ByClass.of(np.arange(37) ** 2 % 5),
    "b": ByWeight.of(np.array([0, 1, 2, 3, 1e-12])),
    "c": ByWeight.of(np.arange(1000) % 7),
}


@pytest.mark.parametrize(("order", "settings"), SETTINGS)
@pytest.mark.parametrize("shuffle", ["full", "none"])
def test_locate_is_take_of_drawn_records(order: str, settings: dict[str, Any], shuffle: str) -> None:
    for stop in ("all_exhausted", "forever"):
        plan = plan_of(order, stop, sampling=SAMPLING, shuffle=shuffle, **settings)
        for start in (0, 777, *([10**5, 12_345_678_900] if order != "random" else [])):
            if plan.length is None or start < plan.length:
                walk(plan, start, 48, 2)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 2000)] * 3),
    st.tuples(*[st.integers(1, 200)] * 3),
    st.integers(1, 40),
    st.one_of(st.integers(0, 6000), st.integers(0, 2**60 - 1000)),
)
def test_any_blocks(sizes: tuple[int, ...], blocks: tuple[int, ...], window: int, start: int) -> None:
    names = dict(zip("abc", sizes, strict=True))
    known = dict(zip("abc", blocks, strict=True))
    walk(Plan(names, stop="forever", shuffle=f"blocks({window})", block_records=known), start, 48, 2)


@pytest.mark.parametrize(("order", "unit", "num_slots"), [("round_robin", 1, 20_000), ("concat", 3, 2000)])
def test_a_chunk_longer_than_two_periods(order: str, unit: int, num_slots: int) -> None:
    plan = plan_of(order, batch_size=unit, granularity="batch")
    period = plan.stages[0].period
    assert isinstance(period, Table | Runs)
    assert 2 * period.length < num_slots
    walk(plan, 0, num_slots, 2)
    walk(plan, 7000 * unit, num_slots, 2)


@pytest.mark.parametrize(("order", "settings"), SETTINGS)
def test_a_chunk_across_several_stages(order: str, settings: dict[str, Any]) -> None:
    plan = plan_of(order, "exhaust_once", {"a": 5, "b": 3, "c": 47}, **settings)
    assert len(plan.stages) == 3
    assert plan.stages[2].first < 48
    for start in range(0, 55, 3):
        walk(plan, start, 48, 1)
    if order != "concat":
        plan = plan_of(order, sizes={"a": 5, "b": 3, "c": 47}, max_epochs={"a": 2, "b": 1}, **settings)
        assert (len(plan.stages), plan.max_stages, plan.length) == (3, 3, None)
        for start in range(0, 55, 6):
            walk(plan, start, 48, 1)


@pytest.mark.parametrize(("order", "settings"), SETTINGS)
@pytest.mark.parametrize("stop", ["exhaust_once", "forever"])
@pytest.mark.parametrize("unit", [1, 4])
def test_a_cursor_stands_after_as_many_slots_as_are_asked_for(
    order: str, settings: dict[str, Any], stop: str, unit: int
) -> None:
    sizes = {"a": 5 * unit, "b": 3 * unit, "c": 47 * unit}
    plan = plan_of(order, stop, sizes, **settings, **({"granularity": "batch", "batch_size": 4} if unit > 1 else {}))
    assert plan.slot_records == unit
    cursor, start = cursor_at(plan, 0), 0
    for count in (17, 1, 0, 16, 18):
        got, cursor = located(on_device(plan), cursor, 18, np.uint32(count))
        assert_located(Located(*(np.asarray(values)[: count * unit] for values in got[:3])), plan, start, count * unit)
        start += count * unit
        expected = cursor_at(plan, start)
        for mine, theirs in zip(jax.tree.leaves(cursor), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_one_slot_at_a_time() -> None:
    plan = plan_of("random", "exhaust_once", {"a": 5, "b": 3, "c": 12})
    cursor = walk(plan, 0, 1, 20)
    assert (cursor.position.tolist(), int(cursor.stage)) == ([0, 20], 2)


@pytest.mark.parametrize("settings", [{}, {"window": 64}, {"granularity": "batch", "batch_size": 16}])
def test_blocks_between_which_slots_are_swapped(settings: dict[str, Any]) -> None:
    """No table holds float weights: the rest is carried from block to block."""
    plan = Plan({"a": 1000, "b": 999, "c": 7}, {"a": 0.123456789, "b": 1}, stop="forever", **settings)
    period = plan.stages[0].period
    assert isinstance(period, Carried)
    for block in (1, 2, 3, 10**9):
        walk(plan, (block * period.table.length - 30) * plan.slot_records, 48, 3)
    walk(plan, 5 * plan.slot_records, 5 * period.table.length // 2, 2)


def test_stages_of_tables_and_of_blocks_between_which_slots_are_swapped() -> None:
    sizes = {"a": 400_000, "b": 300_000, "c": 200_000}
    plan = Plan(sizes, {"a": 0.123456789, "b": 0.2345678}, stop="exhaust_once")
    assert [type(stage.period) for stage in plan.stages] == [Carried, Carried, Table]
    for stage in plan.stages:
        for start in (max(stage.first - 20, 0), stage.first, stage.first + 100_000):
            walk(plan, start, 48, 2)


def test_past_the_end_a_cursor_goes_on() -> None:
    ending, endless = (plan_of("round_robin", stop) for stop in ("all_exhausted", "forever"))
    assert ending.length == 3000
    arrays = arrays_of(ending)
    got, cursor = located(arrays, cursor_at(ending, 2990), 48)
    assert_located(got, endless, 2990, 48)
    assert_located(located(arrays, cursor, 48)[0], endless, 3038, 48)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 2000)] * 3),
    st.tuples(*[st.integers(1, 50)] * 3),
    st.sampled_from(["proportional", "round_robin", "concat"]),
    st.sampled_from(["all_exhausted", "forever"]),
    st.integers(0, 2**31),
    st.one_of(st.integers(0, 6000), st.integers(0, 2**60 - 1000)),
)
def test_any_sizes_weights_and_starts(
    sizes: tuple[int, ...], weights: tuple[int, ...], order: str, stop: str, seed: int, start: int
) -> None:
    known = dict(zip("abc", weights, strict=True)) if order == "proportional" else None
    plan = Plan(dict(zip("abc", sizes, strict=True)), known, order=order, stop=stop, seed=seed)
    walk(plan, start if plan.length is None else start % plan.length, 48, 2)


@pytest.mark.parametrize("order", ["proportional", "random", "round_robin", "concat"])
@pytest.mark.parametrize("dropped", ["a", "b", "c"])
def test_a_source_of_weight_zero_is_never_located(order: str, dropped: str) -> None:
    plan = Plan(SIZES, {dropped: 0}, order=order, stop="forever")
    walk(plan, 0, 48, 4)
    empty = Plan(SIZES | {dropped: 0}, {dropped: 0}, order=order, stop="forever")
    walk(empty, 2000, 48, 4)


def test_the_largest_source() -> None:
    for order in ("proportional", "round_robin"):
        plan = Plan({"a": 2**31, "b": 1}, order=order, stop="forever")
        walk(plan, 2**32 - 30, 48, 2)
        assert set(plan.take(2**32 - 30, 96).epoch[::2].tolist()) == {0, 1}


# Cursors.


@pytest.mark.parametrize(("order", "settings"), SETTINGS)
@pytest.mark.parametrize("stop", ["exhaust_once", "forever"])
def test_any_way_to_a_position_is_the_same(order: str, settings: dict[str, Any], stop: str) -> None:
    """However a cursor came to a position, what comes after is the same."""
    plan = plan_of(order, stop, {"a": 37, "b": 15, "c": 200}, **settings)
    arrays = arrays_of(plan)
    walked = cursor_at(plan, 0)
    for position in (48, 96, 144, 192):
        _, walked = located(arrays, walked, 48)
        direct = cursor_at(plan, position)
        np.testing.assert_array_equal(walked.position, direct.position)
        assert int(walked.stage) == int(direct.stage)
        from_walked, from_direct = (located(arrays, cursor, 48)[0] for cursor in (walked, direct))
        assert_located(from_walked, plan, position, 48)
        for mine, theirs in zip(from_walked, from_direct, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_cursor_crosses_the_32_bit_border_of_positions() -> None:
    plan = plan_of("proportional")
    cursor = walk(plan, 2**32 - 60, 48, 2)
    assert cursor.position.tolist() == [1, 36]


@pytest.mark.parametrize("unit", [1, 4])
def test_draws_across_the_32_bit_border_of_positions(unit: int) -> None:
    """No plan walks so many draws in a test: the cursor is made by hand, and its counts begin afresh."""
    plan = plan_of("random", replacement=True, batch_size=unit, granularity="batch")
    arrays = arrays_of(plan)
    first = 3 * 2**32 - 20
    zeros = np.zeros(3, np.uint32)
    cursor = Cursor(np.array([2, 2**32 - 20], np.uint32), np.uint32(0), np.uint32(0), zeros, zeros)
    got, behind = located(arrays, cursor, 48)
    assert behind.position.tolist() == [3, 28]
    draws = plan.stages[0].period
    assert isinstance(draws, Draws)
    source = np.repeat(draws.sources(first, 48), unit)
    np.testing.assert_array_equal(got.source, source)
    word = draw_at(plan.replacement_key, np.uint64(first * unit) + np.arange(48 * unit, dtype=np.uint64))
    np.testing.assert_array_equal(got.record, multiply_high(word, np.array(plan.sizes, np.uint32)[source]))


def test_vmap_over_cursors_is_a_loop() -> None:
    plan = plan_of("proportional", "exhaust_once")
    arrays = arrays_of(plan)
    starts = [0, 5, 36, 37, 40, 300, 990]
    cursors = [cursor_at(plan, start) for start in starts]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *cursors)
    many = jax.jit(
        jax.vmap(lambda arrays, cursor: locate(arrays, cursor, 48), in_axes=(None, 0)), compiler_options=QUICK
    )
    got, behind = many(arrays, stacked)
    for i, (start, cursor) in enumerate(zip(starts, cursors, strict=True)):
        assert_located(Located(*(field[i] for field in got[:3])), plan, start, 48)
        _, alone = located(arrays, cursor, 48)
        jax.tree.map(lambda mine, theirs, i=i: np.testing.assert_array_equal(mine[i], theirs), behind, alone)


def test_vmap_over_ratios_is_a_loop() -> None:
    plans = [Plan(SIZES, {"a": weight}, stop="forever") for weight in (1, 2, 0.123456789)]
    arrays = [arrays_of(plan) for plan in plans]
    assert len({jax.tree.structure(each) for each in arrays}) == 1
    stacked: PlanArrays = jax.tree.map(lambda *leaves: np.stack(leaves), *arrays)
    cursors = jax.tree.map(lambda *leaves: np.stack(leaves), *(cursor_at(plan, 500) for plan in plans))
    got, _ = jax.jit(jax.vmap(lambda a, c: locate(a, c, 48)), compiler_options=QUICK)(stacked, cursors)
    for i, plan in enumerate(plans):
        assert_located(Located(*(field[i] for field in got[:3])), plan, 500, 48)


# One program for every ratio.


def counted(**options: Any) -> tuple[list[str], Any]:
    traces: list[str] = []

    @partial(jax.jit, static_argnums=2, **options)
    def run(arrays: PlanArrays, cursor: Cursor, num_slots: int) -> tuple[Located, Cursor]:
        traces.append(type(arrays.slots).__name__)
        return locate(arrays, cursor, num_slots)

    return traces, run


def test_one_trace_for_a_whole_sweep_of_ratios() -> None:
    traces, run = counted()
    for a, b, seed in ((1, 1, 0), (7, 3, 0), (7, 3, 1), (0.1, 0.7, 0), (0.123456789, 1, 0), (1, 0, 0), (0, 1, 0)):
        plan = Plan(SIZES, {"a": a, "b": b}, stop="forever", seed=seed)
        arrays = arrays_of(plan)
        for start in (0, 10**6):
            got, _ = run(arrays, cursor_at(plan, start), 48)
            assert_located(got, plan, start, 48)
    assert traces == ["TableLookup"]


def test_one_trace_for_a_sweep_of_mixes_whose_sources_drop_out() -> None:
    """Another ratio has other stages, and a share of zero or one has fewer."""
    traces, run = counted(compiler_options=QUICK)
    for weights in ({}, {"a": 7}, {"a": 0.1, "b": 0.7}, {"a": 0}, {"b": 0, "c": 0}):
        plan = Plan(SIZES, weights, stop="exhaust_once")
        arrays = arrays_of(plan)
        for start in (0, 30, 960):
            got, _ = run(arrays, cursor_at(plan, start), 48)
            assert_located(got, plan, start, 48)
    assert len(traces) == 1


def test_one_trace_for_other_sizes_seeds_and_stops() -> None:
    traces, run = counted(compiler_options=QUICK)
    for seed, size, stop in product((0, 1), (60, 500), ("forever", "first_exhausted", "all_exhausted")):
        plan = Plan({"a": size, "b": 70}, order="random", stop=stop, seed=seed)
        arrays = arrays_of(plan)
        assert_located(run(arrays, cursor_at(plan, 50), 48)[0], plan, 50, 48)
    assert len(traces) == 1


# What does not fit 32 bits.


def test_a_source_too_large_for_the_pipeline_is_refused() -> None:
    message = r"^source\.b: its epoch has 4,294,967,295 records, and the pipeline counts to 4,227,858,432\. Give it a "
    with pytest.raises(ConfigError, match=message):
        arrays_of(Plan({"a": 5, "b": 2**32 - 1}))


def test_a_period_too_long_for_the_pipeline_is_refused() -> None:
    plan = Plan({"a": 2**31, "b": 2**31}, order="concat")
    with pytest.raises(
        ConfigError,
        match=r"^this mix passes 2,147,483,648 records of one source in a cycle of its plan, more than the pipeline "
        r"can count; use weights with fewer digits, or a smaller batch\.size\.$",
    ):
        arrays_of(plan)
    with pytest.raises(ConfigError, match=r"^this mix passes 2,147,483,648 records of one source in a cycle"):
        arrays_of(
            Plan(
                {"a": 2**31, "b": 2**31},
                order="round_robin",
                stop="all_exhausted",
                batch_size=2**19,
                granularity="batch",
            )
        )


@pytest.mark.parametrize(
    "keywords",
    [
        {"schedule": [{"until": 3, "ratio": "1:3"}, {"until": 5, "ratio": "1:1"}, {"ratio": "2:0"}]},
        *(
            pytest.param(keywords, marks=pytest.mark.slow)
            for keywords in (
                {"schedule": [{"until": 2, "ratio": "1:3"}, {"ratio": "3:1"}], "granularity": "batch"},
                {"schedule": [{"until": 2**33 + 3, "ratio": "1:3"}, {"ratio": "3:1"}], "start": 2**33},
                {"stop": "exhaust_once", "weights": {"b": 2}, "shuffle_rows": True, "remainder": "keep"},
                {"weights": {"a": 3}, "placement": "host"},
            )
        ),
    ],
    ids=["schedule", "batches", "far", "dropping", "constant"],
)
def test_weights_in_the_loss_follow_the_shares_of_the_step(keywords: dict[str, Any]) -> None:
    sources = {name: {"number": np.arange(size)} for name, size in {"a": 50, "b": 21}.items()}
    start, keywords = keywords.get("start", 0), {key: value for key, value in keywords.items() if key != "start"}
    pipeline = datamix.mix(sources, loss_weight="inverse_share", batch_size=6, **{"stop": "forever"} | keywords)
    plan, iterator, seen = pipeline.plan, pipeline.iterator(start), set()
    for step in range(start, start + 8):
        batch = next(iterator)
        places = plan.take(6 * step, 6)
        of_place = {
            (int(source), int(record)): inverse_shares(plan.targets_at(6 * step + row))[source]
            for row, (source, record) in enumerate(zip(places.source, places.record, strict=True))
        }
        rows = zip(batch["source_id"].tolist(), batch["number"].tolist(), strict=True)
        assert batch["loss_weight"].tolist() == pytest.approx([of_place[row] for row in rows])
        seen |= set(of_place.values())
        for leaf, values in pipeline[step].items():
            np.testing.assert_array_equal(values, batch[leaf])
    assert len(seen) > 1
    other = pipeline.with_weights({"a": 1, "b": 4})[0]
    weight_of = dict(zip(other["source_id"].tolist(), other["loss_weight"].tolist(), strict=True))
    assert weight_of.items() <= {0: 2.5, 1: 0.625}.items()


@pytest.mark.slow
def test_where_jax_has_64_bits_the_records_are_the_same() -> None:
    script = """
import jax, numpy as np, datamix
jax.config.update("jax_enable_x64", True)
sources = {name: {"number": np.arange(size)} for name, size in {"a": 200, "b": 77, "c": 30}.items()}
for settings in ({}, {"weights": {"a": 3}}, {"order": "random"}, {"shuffle_rows": True}):
    mix = datamix.mix(sources, batch_size=16, stop="forever", **settings)
    for step, batch in zip(range(40), mix):
        assert batch["number"].tolist() == [place.record for place in mix.where(step)]
print("same")
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.strip() == "same", ended.stderr
