"""The compiled pipeline against a slow reference, by loop, index, cursor, shard and state."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError, DataError, SpecError, StateError
from datamix.pipeline.program import Compiled
from datamix.spec import LeafSpec
from datamix.testing import traces

SIZES = {"a": 37, "b": 20, "c": 50}
SCALE = {"a": 2.0, "b": 3.0, "c": 5.0}


def images(size: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (size, 4, 3, 1), dtype=np.uint8),
        "label": generator.integers(0, 4, size),
    }


ARRAYS = {name: images(size, seed) for seed, (name, size) in enumerate(SIZES.items())}


def load(*overrides: str, names: tuple[str, ...] = ("a", "b", "c"), **kwargs: Any) -> datamix.Pipeline:
    """A mix in memory in which each source has a normalization of its own."""
    operators = [f"source.{n}.operators=[to_float,{{normalize:{{mean:0.5,std:{SCALE[n]}}}}}]" for n in names]
    return datamix.load(*operators, "batch.size=8", *overrides, sources={n: ARRAYS[n] for n in names}, **kwargs)


def reference(pipeline: datamix.Pipeline, step: int, names: tuple[str, ...] = ("a", "b", "c")) -> dict[str, np.ndarray]:
    """The batch at `step`, record by record."""
    size = pipeline.batch_size
    chosen = pipeline.plan.take(step * size, size)
    offsets = np.cumsum([0, *(int(ARRAYS[n]["label"].max()) + 1 for n in names)])
    rows: dict[str, list[Any]] = {"image": [], "label": [], "source_id": []}
    for source, record in zip(chosen.source, chosen.record, strict=True):
        own = ARRAYS[names[source]]
        rows["image"].append((own["image"][record] / 255 - 0.5) / SCALE[names[source]])
        rows["label"].append(own["label"][record] + offsets[source])
        rows["source_id"].append(source)
    return {leaf: np.asarray(values) for leaf, values in rows.items()}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for leaf in expected:
        assert found[leaf].shape == expected[leaf].shape, leaf
        np.testing.assert_allclose(np.asarray(found[leaf]), expected[leaf], rtol=1e-5, atol=1e-6, err_msg=leaf)


MIXES = [
    (),
    ("mix.ratio=7:2:1", "stop=all_exhausted"),
    ("mix.weights.b=0.3", "stop=forever", "mix.window=5"),
    ("stop=exhaust_once", "batch.remainder=keep"),
    ("mix=random", "mix.weights.a=3"),
    ("mix=random", "mix.replacement=true", "stop=all_exhausted"),
    ("mix=random", "stop=exhaust_once", "batch.remainder=keep"),
    ("mix=round_robin", "mix.granularity=batch", "stop=all_exhausted"),
    ("mix=concat",),
    ("mix=concat", "stop=forever"),
    ("mix.granularity=batch", "mix.ratio=3:2:1", "stop=exhaust_once"),
    ("shuffle=false", "stop=forever", "mix.weights.a=0"),
    ("stop=forever", "stop.samples=300"),
    ("shuffle=window(7)", "stop=all_exhausted"),
    ("mix.stratify=true", "mix.ratio=5:2:2", "stop=exhaust_once"),
    ("stop.epochs.b=3", "stop.batches=11"),
    (
        "mix.schedule=[{until:3,ratio:'8:1:1'},{until:9,ramp:cosine,weights:{b:5}},{until:12,share:{c:0.7}}]",
        "stop=exhaust_once",
        "batch.remainder=keep",
    ),
    ("mix=random", "mix.schedule=[{until:4,weights:{a:9}},{weights:{a:0}}]", "stop=all_exhausted"),
]
mixes = pytest.mark.parametrize("mix", MIXES, ids=lambda mix: " ".join(mix) or "default")


@mixes
def test_loop_index_and_cursor_give_what_the_plan_says(mix: tuple[str, ...]) -> None:
    pipeline = load(*mix)
    batches = list(itertools.islice(pipeline, 40))
    if pipeline.plan.length is not None:
        assert len(pipeline) == len(list(pipeline))
    for step in range(0, len(batches), 3):
        expected = reference(pipeline, step)
        assert_same(batches[step], expected)
        assert_same(pipeline[step], expected)
        if len(expected["label"]) == pipeline.batch_size:
            assert_same(pipeline.next(pipeline.start(step))[0], expected)


@mixes
def test_restore_at_every_step(mix: tuple[str, ...]) -> None:
    pipeline = load(*mix)
    batches = list(itertools.islice(pipeline, 14))
    other = load(*mix)
    for step in range(len(batches)):
        iterator = pipeline.iterator(start=step)
        state = json.loads(json.dumps(iterator.state()))
        resumed = other.iterator()
        next(resumed)
        resumed.restore(state)
        for expected in batches[step : step + 2]:
            assert_same(next(resumed), expected)
        resumed.restore(resumed.state())  # a second time, from a resumed iterator
        for expected in batches[step + 2 : step + 4]:
            assert_same(next(resumed), expected)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    weights=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
    order=st.sampled_from(["proportional", "random"]),
    stop=st.sampled_from(["first_exhausted", "all_exhausted", "exhaust_once", "forever"]),
    granularity=st.sampled_from(["record", "batch"]),
    seed=st.integers(0, 2**31),
    step=st.integers(0, 100),
)
def test_any_mix_at_any_step(weights: list[int], order: str, stop: str, granularity: str, seed: int, step: int) -> None:
    pipeline = load(
        f"mix={order}", f"mix.ratio={':'.join(map(str, weights))}", f"stop={stop}", f"seed={seed}",
        f"mix.granularity={granularity}",
    )  # fmt: skip
    step = step if pipeline.plan.length is None else step % len(pipeline)
    assert_same(pipeline[step], reference(pipeline, step))


def test_every_for_starts_afresh() -> None:
    pipeline = load()
    for _ in range(2):
        assert_same(next(iter(pipeline)), reference(pipeline, 0))


def test_positions_may_be_of_numpy() -> None:
    pipeline = load("stop=forever")
    assert_same(pipeline[np.int32(2**28 + 5)], pipeline[2**28 + 5])
    assert json.dumps(pipeline.iterator(start=np.int64(3)).state())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mix",
    [
        ("mix.ratio=5:2:1",),
        ("mix=random", "mix.replacement=true"),
        ("shuffle=window(7)", "mix.stratify=true", "mix.schedule=[{until:9,ramp:linear,ratio:'5:2:1'}]"),
    ],
    ids=lambda mix: mix[0],
)
def test_far_ahead(mix: tuple[str, ...]) -> None:
    pipeline = load("stop=forever", *mix)
    assert_same(pipeline[10**12], reference(pipeline, 10**12))
    assert_same(next(pipeline.iterator(start=2**56)), reference(pipeline, 2**56))


def test_batch_size_does_not_change_the_records() -> None:
    flip = "operators=[flip_horizontal]"
    four, six = (load(f"batch.size={size}", "stop=forever", flip) for size in (4, 6))
    for leaf in ("image", "label", "source_id"):
        mine = np.concatenate([batch[leaf] for batch in itertools.islice(four, 30)])
        theirs = np.concatenate([batch[leaf] for batch in itertools.islice(six, 20)])
        np.testing.assert_array_equal(mine, theirs)


def joined(shards: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The batch that shards make up."""
    return {leaf: np.concatenate([shard[leaf] for shard in shards]) for leaf in shards[0]}


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for leaf in expected:
        assert found[leaf].dtype == expected[leaf].dtype
        np.testing.assert_array_equal(found[leaf], expected[leaf], err_msg=leaf)


SHARDED = [
    ("stop=forever",),
    ("mix=round_robin", "stop=forever"),
    ("mix=random",),
    ("stop=forever", "batch.shuffle=true"),
    ("mix.granularity=batch", "stop=forever"),
]


@pytest.mark.parametrize("mix", SHARDED, ids=" ".join)
def test_shards_one_after_the_other_are_the_batch(mix: tuple[str, ...]) -> None:
    pipeline = load(*mix)
    batches = list(itertools.islice(pipeline, 6))
    for num_shards in (1, 2, 3, 7, 8):
        shards = [list(itertools.islice(pipeline.iterator(shard=(i, num_shards)), 6)) for i in range(num_shards)]
        sizes = [len(batches_of_rank[0]["label"]) for batches_of_rank in shards]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] - sizes[-1] <= 1
        for step in range(6):
            assert_equal(joined([batches_of_rank[step] for batches_of_rank in shards]), batches[step])
        on_device = next(pipeline.iterator(shard=(num_shards - 1, num_shards), output="jax"))
        assert all(isinstance(value, jax.Array) for value in on_device.values())
        assert_equal(on_device, shards[-1][0])


@pytest.mark.parametrize("shuffle", ["batch.shuffle=false", "batch.shuffle=true"])
@pytest.mark.parametrize(("rows", "num_shards", "sizes"), [(5, 3, [2, 2, 1]), (2, 2, [1, 1]), (2, 3, [1, 1, 0])])
def test_shards_of_a_short_last_batch(rows: int, num_shards: int, sizes: list[int], shuffle: str) -> None:
    pipeline = load("stop=forever", f"stop.samples={2 * 8 + rows}", "batch.remainder=keep", shuffle)
    whole = list(pipeline)
    assert [len(batch["label"]) for batch in whole] == [8, 8, rows]
    for output in ("numpy", "jax"):
        shards = [list(pipeline.iterator(shard=(i, num_shards), output=output)) for i in range(num_shards)]  # type: ignore[arg-type]
        assert [len(batches[-1]["label"]) for batches in shards] == sizes
        for step in range(3):
            assert_equal(joined([batches[step] for batches in shards]), whole[step])
    assert_equal(pipeline[-1], whole[-1])


def test_the_number_of_ranks_may_change_at_any_step() -> None:
    pipeline = load("stop=forever")
    state = pipeline.iterator(start=2).state()
    for num_shards in (4, 1, 3):
        ranks = [pipeline.iterator(shard=(i, num_shards)) for i in range(num_shards)]
        for rank in ranks:
            rank.restore(state)
        step = ranks[0].step
        for _ in range(3):
            assert_equal(joined([next(rank) for rank in ranks]), pipeline[step])
            step += 1
        state = ranks[-1].state()


# The shuffle of a batch's rows.


@pytest.mark.parametrize("mix", [("stop=forever",), ("stop=exhaust_once", "batch.remainder=keep"), ("mix=random",),
                                 ("mix.granularity=batch", "stop=all_exhausted")], ids=" ".join)  # fmt: skip
def test_shuffled_batches_hold_the_same_records(mix: tuple[str, ...]) -> None:
    plain, shuffled = load(*mix), load(*mix, "batch.shuffle=true")
    orders = []
    for step, (batch, expected) in enumerate(zip(itertools.islice(shuffled, 14), plain, strict=False)):
        keys, theirs = (
            [(image.tobytes(), label) for image, label in zip(each["image"], each["label"], strict=True)]
            for each in (batch, expected)
        )
        assert sorted(keys) == sorted(theirs)
        orders.append(tuple(theirs.index(key) for key in keys))
        assert_equal(shuffled[step], batch)
        from_cursor, _ = shuffled.next(shuffled.start(step))
        assert_equal({leaf: values[: len(batch["label"])] for leaf, values in from_cursor.items()}, batch)
    assert len(set(orders)) == len(orders) > 5  # another order in every batch


def test_a_shuffle_of_rows_is_a_function_of_seed_and_step() -> None:
    first, same, other = (load("stop=forever", "batch.shuffle=true", seed) for seed in ("seed=1", "seed=1", "seed=2"))
    assert_equal(next(same.iterator(start=10**9)), first[10**9])
    assert any(first[step]["label"].tolist() != other[step]["label"].tolist() for step in range(3))
    cursor = first.start(3)
    for step in range(3, 7):
        batch, cursor = first.next(cursor)
        assert_equal(batch, first[step])


def test_with_a_shuffle_of_rows_no_rank_is_left_to_one_source() -> None:
    mix = ("batch.size=2", "stop=forever", "mix=round_robin")
    for shuffle, sources in (("false", {0}), ("true", {0, 1})):
        pipeline = load(*mix, f"batch.shuffle={shuffle}", names=("a", "b"))
        batches = itertools.islice(pipeline.iterator(shard=(0, 2)), 20)
        assert {int(batch["source_id"][0]) for batch in batches} == sources


def test_a_shuffle_of_rows_is_part_of_the_fingerprint_where_there_is_one() -> None:
    plain, off, on = load(), load("batch.shuffle=false"), load("batch.shuffle=true")
    assert plain.fingerprint == off.fingerprint != on.fingerprint
    with pytest.raises(StateError, match=r"taken under another configuration: batch\.shuffle differ"):
        on.iterator().restore(plain.iterator().state())
    assert "batch.shuffle" not in plain.iterator().state()["fingerprint"]


def test_remainder() -> None:
    kept = load("stop=exhaust_once", "batch.remainder=keep")
    assert [len(batch["label"]) for batch in kept] == [8] * 13 + [3]
    assert [len(batch["label"]) for batch in load("stop=exhaust_once")] == [8] * 13
    seen = np.concatenate([batch["image"].reshape(len(batch["image"]), -1) for batch in kept])
    assert len(seen) == sum(SIZES.values())


def test_whole_batches_of_one_source() -> None:
    pipeline = load("mix.granularity=batch", "mix=round_robin", "stop=all_exhausted")
    ids = [set(batch["source_id"].tolist()) for batch in pipeline]
    assert ids == [{i % 3} for i in range(len(pipeline))]


@pytest.mark.parametrize("stop", ["first_exhausted", "all_exhausted", "exhaust_once", "forever"])
def test_ratio_seed_and_constants_compile_nothing(stop: str) -> None:
    first = load(f"stop={stop}", "seed=1")
    next(iter(first))
    first.next(first.start())
    with traces() as counts:
        for i in range(1, 51):
            other = (
                load(f"stop={stop}", f"seed={i}", f"mix.share.a={i / 60}")
                if i < 4
                else first.with_weights({"a": i / 7})
            )
            next(iter(other))
            other.next(other.start())
        renormalized = "source.a.operators=[to_float,{normalize:{mean:0.1,std:0.7}}]"
        next(iter(load(f"stop={stop}", "mix.weights.a=0.123456789", renormalized)))
    assert not counts


def test_schedules_temperatures_and_steps_compile_nothing() -> None:
    ramp = "mix.schedule=[{{until:{},weights:{{a:{}}}}},{{until:{},ramp:{},weights:{{b:{}}}}}]"
    first = load("stop=forever", ramp.format(5, 3, 205, "linear", 2))
    next(iter(first))
    warm = load("stop=all_exhausted", "weighting=size", "weighting.temperature=2")
    next(iter(warm))
    other = load("stop=forever", ramp.format(9, 3, 100, "linear", 2))
    assert_same(next(other.iterator(start=90)), reference(other, 90))
    with traces() as counts:
        for values in ((7, 0.123, 400, "cosine", 8), (1, 1 / 3, 100, "exponential", 0.001)):
            other = load("stop=forever", ramp.format(*values))
            assert_same(next(other.iterator(start=90)), reference(other, 90))
        for temperature in (1, 1.7, 50):
            next(iter(load("stop=all_exhausted", "weighting=size", f"weighting.temperature={temperature}")))
    assert not counts


def test_vmap_over_weights_is_a_loop() -> None:
    pipeline = load("stop=forever")
    others = [pipeline.with_weights({"a": weight}) for weight in (0, 1 / 3, 7)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[other.compiled for other in others])
    cursors = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[other.start(4) for other in others])
    batches, after = jax.vmap(Compiled.next)(stacked, cursors)
    batches, _ = jax.vmap(Compiled.next)(stacked, after)
    for i, other in enumerate(others):
        assert_same({leaf: values[i] for leaf, values in batches.items()}, other[5])


def test_with_weights_gives_the_mix_of_those_weights() -> None:
    pipeline = load("stop=forever")
    other = pipeline.with_weights({"a": 7, "b": 2})
    assert_same(other[5], load("stop=forever", "mix.ratio=7:2:1")[5])
    assert_same(pipeline[5], reference(pipeline, 5))  # the first one is what it was
    alone = pipeline.with_weights({"a": 0, "c": 0})
    assert set(alone[0]["source_id"].tolist()) == {1}
    with pytest.raises(ConfigError, match=r"no source 'z' in this mix\. Known: a, b, c\."):
        pipeline.with_weights({"z": 1})
    scheduled = load("stop=forever", "mix.schedule=[{until:3,ratio:'8:1:1'},{ratio:'1:1:1'}]")
    assert_same(scheduled.with_weights({"a": 7, "b": 2})[5], other[5])


def test_next_under_jit_scan_and_vmap() -> None:
    pipeline = load("stop=forever")

    def step(cursor: datamix.Cursor, _: None) -> tuple[datamix.Cursor, dict[str, jax.Array]]:
        batch, cursor = pipeline.next(cursor)
        return cursor, batch

    _, scanned = jax.lax.scan(step, pipeline.start(2), None, length=9)
    _, jitted = jax.jit(lambda cursor: jax.lax.scan(step, cursor, None, length=9))(pipeline.start(2))
    for i in range(9):
        assert_same({leaf: values[i] for leaf, values in scanned.items()}, pipeline[2 + i])
        assert_same({leaf: values[i] for leaf, values in jitted.items()}, pipeline[2 + i])
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[pipeline.start(i) for i in (0, 5, 30)])
    mapped, _ = jax.vmap(pipeline.next)(starts)
    for i, start in enumerate((0, 5, 30)):
        assert_same({leaf: values[i] for leaf, values in mapped.items()}, pipeline[start])


def test_what_is_compiled_is_an_argument_of_jitted_functions() -> None:
    traces = 0

    @jax.jit
    def first_batch(compiled: Compiled, cursor: datamix.Cursor) -> dict[str, jax.Array]:
        nonlocal traces
        traces += 1
        return compiled.next(cursor)[0]

    pipeline = load("stop=forever")
    for weight in (1, 2, 9):
        other = pipeline.with_weights({"a": weight})
        assert_same(first_batch(other.compiled, other.start(3)), other[3])
    assert traces == 1


def test_what_a_jitted_function_returns_has_its_own_arrays_and_nothing_else() -> None:
    pipeline = load("stop=forever")
    same = jax.jit(lambda compiled: compiled)
    same(pipeline.compiled)  # whose plan later callers must not get
    other = pipeline.with_weights({"a": 7})
    returned = same(other.compiled)
    assert {field.name for field in dataclasses.fields(returned)} == {
        "program",
        "plan",
        "row_shuffle",
        "reader",
        "numbers",
    }
    assert not hasattr(returned, "__getitem__")
    assert_same(returned.next(other.start(5))[0], other[5])


@pytest.mark.parametrize(
    "transform",
    [
        lambda pipeline: jax.jit(lambda pipeline: pipeline)(pipeline),
        lambda pipeline: jax.lax.scan(lambda pipeline, _: (pipeline, None), pipeline, None, length=1),
        lambda pipeline: jax.vmap(lambda pipeline: pipeline)(pipeline),
        lambda pipeline: jax.jit(lambda: pipeline)(),
        lambda pipeline: jax.jit(lambda pipelines: pipelines["a"])({"a": pipeline}),
    ],
    ids=["jit", "scan", "vmap", "returned", "in a dict"],
)
def test_a_pipeline_is_no_argument_of_jitted_functions(transform: Any) -> None:
    with pytest.raises(ConfigError, match=r"a Pipeline is an object of the host .*; pass pipeline\.compiled, "):
        transform(load())


def test_containers_of_pipelines_are_trees() -> None:
    pipelines = {"train": load(), "test": load("stop=forever")}
    assert jax.tree.map(lambda pipeline: pipeline.batch_size, pipelines) == {"train": 8, "test": 8}


def test_output_on_the_device() -> None:
    pipeline = load()
    for found, expected in zip(pipeline.iterator(output="jax"), pipeline, strict=True):
        assert all(isinstance(value, jax.Array) for value in found.values())
        assert_same(found, expected)


def test_batches_on_the_device_are_as_large_and_as_short_as_those_of_numpy() -> None:
    pipeline = load("stop=exhaust_once", "batch.remainder=keep", "source.c.limit=49")
    for index in range(2):
        theirs = list(pipeline.iterator(shard=(index, 2)))
        mine = list(pipeline.iterator(shard=(index, 2), output="jax"))
        assert len(mine) == 14
        for found, expected in zip(mine, theirs, strict=True):
            assert_same(found, expected)


def test_a_batch_that_is_kept_stays_what_it_was() -> None:
    """Its memory is used for no later batch."""
    pipeline = load("stop=forever")
    for output in ("numpy", "jax"):
        kept = list(itertools.islice(pipeline.iterator(output=output), 700))  # type: ignore[arg-type]
        for step in (0, 255, 256, 699):
            assert_same(kept[step], reference(pipeline, step))


def test_random_operators_depend_on_the_record_alone() -> None:
    pipeline = load("stop=forever", "operators=[flip_horizontal]")
    plain = load("stop=forever")
    flipped: dict[tuple[int, int, int], bool] = {}
    for step in range(40):
        chosen = pipeline.plan.take(step * 8, 8)
        got, unflipped = pipeline[step]["image"], plain[step]["image"]
        for i, key in enumerate(zip(*(field.tolist() for field in chosen), strict=True)):
            same, mirrored = np.allclose(got[i], unflipped[i]), np.allclose(got[i], unflipped[i][:, ::-1])
            assert same or mirrored
            flipped[key] = not same
    assert 0.4 < np.mean(list(flipped.values())) < 0.6
    epochs = {e: [flipped[key] for key in sorted(flipped) if key[:2] == (1, e)] for e in (0, 1)}
    assert epochs[0] != epochs[1]  # another epoch, another augmentation
    other_seed = load("stop=forever", "operators=[flip_horizontal]", "seed=1")
    assert not all(np.allclose(other_seed[i]["image"], pipeline[i]["image"]) for i in range(3))


def test_sources_of_different_formats(shared_data: Any) -> None:
    digits = dict(np.load(shared_data / "digits8x8.npz"))
    photos = dict(np.load(shared_data / "photo_patches32.npz"))
    resize = "{resize:{height:28,width:28}}"
    pipeline = datamix.load(
        "source=digits+small+photos",
        f"source.small.operators=[{resize},{{to_float:{{largest:16}}}},{{normalize:{{mean:0.1307,std:0.3081}}}}]",
        f"source.photos.operators=[{resize},to_grayscale,to_float,{{normalize:{{mean:0.5,std:0.25}}}}]",
        sources={"small": digits, "photos": photos},
    )
    batch = pipeline[3]
    chosen = pipeline.plan.take(3 * 16, 16)
    assert set(chosen.source.tolist()) == {0, 1, 2}
    for i, (source, record) in enumerate(zip(chosen.source, chosen.record, strict=True)):
        if source == 1:
            image = jax.image.resize(digits["image"][record].astype(np.float32), (28, 28, 1), "linear")
            expected = (np.clip(np.round(image), 0, 255) / 16 - 0.1307) / 0.3081
            assert batch["label"][i] == digits["label"][record] + 10
        elif source == 2:
            image = np.round(jax.image.resize(photos["image"][record].astype(np.float32), (28, 28, 3), "linear"))
            gray = np.round(np.asarray(image) @ np.float32([[0.299], [0.587], [0.114]]))
            expected = (gray / 255 - 0.5) / 0.25
            assert batch["label"][i] == photos["label"][record] + 20
        else:
            continue
        # One gray level of rounding either way.
        np.testing.assert_allclose(batch["image"][i], expected, atol=0.35 if source == 1 else 0.02)


@pytest.mark.parametrize(
    ("shape", "operators", "message"),
    [
        ((8, 8, 1), "[to_float]", r"sources 'a' and 'z' do not fit together: image is float32 \[4, 3, 1\] in a, but "
                                  r"float32 \[8, 8, 1\] in z; resize: \{height: 4, width: 3\} would mend it: add it to "
                                  r"source.z.operators"),
        ((4, 3, 3), "[to_float]", r"float32 \[4, 3, 3\] in z; to_grayscale would mend it"),
        ((4, 3, 1), "[]", r"but uint8 \[4, 3, 1\] in z; to_float would mend it"),
        ((4, 3, 1), "[to_float,{one_hot:{num_classes:4}}]", r"label is int32 \[\] in a, but float32 \[4\] in z"),
        ((4, 3, 1), "[{cast:{dtype:float16}}]", r"but float16 \[4, 3, 1\] in z; cast: \{dtype: float32, leaf: image\}"),
        ((4, 3), "[{resize:{height:4,width:3}}]", r"z/resize: .*takes an image .* leaf 'image' has shape \[4, 3\]"),
    ],
)  # fmt: skip
def test_records_that_do_not_fit(shape: tuple[int, ...], operators: str, message: str) -> None:
    other = {"image": np.zeros((9, *shape), np.uint8), "label": np.zeros(9, np.int64)}
    with pytest.raises(SpecError, match=message):
        datamix.load("source.a.operators=[to_float]", f"source.z.operators={operators}", "batch.size=4",
                     sources={"a": ARRAYS["a"], "z": other})  # fmt: skip


def test_a_leaf_that_one_source_lacks() -> None:
    with pytest.raises(SpecError, match=r"a has a leaf 'label', z has none; choose the leaves of source\.a"):
        datamix.load(sources={"a": ARRAYS["a"], "z": {"image": ARRAYS["b"]["image"]}})


def test_specs_are_checked_before_data_is_read() -> None:
    class Unread:
        provenance, num_records, class_names = "unread", 5, ()

        @property
        def spec(self) -> Mapping[str, LeafSpec]:
            return {"image": LeafSpec((2, 2, 1), "uint8")}

        def read(self) -> dict[str, np.ndarray]:
            raise AssertionError("read before the specs were checked")

    with pytest.raises(SpecError, match="do not fit together"):
        datamix.load("batch.size=2", sources={"a": ARRAYS["a"], "unread": Unread()})


def test_texts_are_refused() -> None:
    with pytest.raises(DataError, match="source 'a': leaf 'text' is <U3; a pipeline computes with numbers"):
        datamix.load("batch.size=2", sources={"a": {"text": np.asarray(["one", "two"])}})


def test_labels_that_do_not_fit_32_bits() -> None:
    wide = {"image": ARRAYS["a"]["image"], "label": np.full(37, 2**40)}
    with pytest.raises(DataError, match="source 'a': leaf 'label' holds numbers that do not fit int32"):
        datamix.load("labels=keep", sources={"a": wide})


def test_length_and_index_errors() -> None:
    endless, ending = load("stop=forever"), load()
    with pytest.raises(TypeError, match="this mix never ends"):
        len(endless)
    with pytest.raises(IndexError, match=f"batch {len(ending)} of a mix of {len(ending)} batches"):
        ending[len(ending)]
    with pytest.raises(IndexError, match="batch -1 of a mix of endless batches"):
        endless[-1]
    assert_same(ending[-1], ending[len(ending) - 1])
    with pytest.raises(ConfigError, match=r"batch\.size = 1000 is more than the \d+ records of the whole mix"):
        load("batch.size=1000")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shard": (2, 2)}, r"shard = \(2, 2\): the rank lies in \[0, 2\)"),
        ({"shard": (0, 0)}, r"shard = \(0, 0\): the rank lies in \[0, 0\)"),
        (
            {"shard": (0, 9)},
            r"shard = \(0, 9\): a batch of 8 cannot be divided among 9 ranks; make batch\.size",
        ),
        ({"start": -1}, "start = -1; it is 0 or more"),
        ({"output": "torch"}, "output = 'torch'; it is 'numpy' or 'jax'"),
    ],
)
def test_iterator_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load().iterator(**kwargs)


def test_start_behind_the_end_gives_nothing() -> None:
    pipeline = load()
    assert list(pipeline.iterator(start=len(pipeline) + 5)) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("seed=7", "seed"),
        ("batch.size=4", "batch.size"),
        ("mix.ratio=1:2:1", "mix"),
        ("mix=random", "mix.order"),
        ("stop=all_exhausted", "stop"),
        ("shuffle=false", "shuffle"),
        ("source.a.limit=30", "source.a"),
        ("operators=[flip_horizontal]", "operators"),
    ],
)
def test_a_state_of_another_mix(change: str, key: str) -> None:
    state = load().iterator().state()
    with pytest.raises(StateError, match=rf"taken under another configuration: {key} differ"):
        load(change).iterator().restore(state)


@pytest.mark.parametrize(
    "state", [{}, {"version": 2, "step": -1, "fingerprint": {}}, None, {"version": 2, "step": "3"}]
)
def test_no_state(state: Any) -> None:
    with pytest.raises(StateError, match="this is no state of datamix"):
        load().iterator().restore(state)


@pytest.mark.parametrize(("version", "age"), [(1, "an older"), (3, "a newer")])
def test_a_state_of_another_version(version: int, age: str) -> None:
    iterator = load().iterator()
    with pytest.raises(
        StateError, match=rf"^this state has version {version}, of {age} datamix; this one restores version 2\. Restore"
    ):
        iterator.restore(iterator.state() | {"version": version})


def changed(arrays: Mapping[str, np.ndarray], leaf: str, record: int) -> dict[str, np.ndarray]:
    """The same arrays with one record changed."""
    values = arrays[leaf].copy()
    values[record] = values[record] + 1
    return {**arrays, leaf: values}


@pytest.mark.parametrize("leaf", ["image", "label"])
def test_a_state_over_other_records(leaf: str) -> None:
    first = datamix.mix({"a": ARRAYS["a"], "b": ARRAYS["b"]}, labels="keep", batch_size=4)
    same = datamix.mix({"a": ARRAYS["a"], "b": dict(ARRAYS["b"])}, labels="keep", batch_size=4)
    other = datamix.mix({"a": ARRAYS["a"], "b": changed(ARRAYS["b"], leaf, 7)}, labels="keep", batch_size=4)
    same.iterator().restore(first.iterator(3).state())
    assert first.fingerprint == same.fingerprint != other.fingerprint
    with pytest.raises(
        StateError, match=r"^this state was taken over other records of source 'b' than are here; restore"
    ):
        other.iterator().restore(first.iterator(3).state())


def test_a_state_under_the_other_width_of_numbers() -> None:
    state = load().iterator().state()
    with jax.enable_x64(True):
        iterator = load().iterator()
        with pytest.raises(StateError, match=r"taken under another configuration: JAX_ENABLE_X64 differ"):
            iterator.restore(state)


@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_random_operators_depend_on_no_switch_of_the_process(impl: str) -> None:
    def few() -> datamix.Pipeline:
        return datamix.mix({"a": ARRAYS["a"]}, operators={"a": ["flip_horizontal"]}, batch_size=16)

    usual, state = few(), few().iterator(1).state()
    with jax.threefry_partitionable(False), jax.default_prng_impl(impl):
        other = few()
        iterator = other.iterator()
        iterator.restore(state)
        assert_same(next(iterator), usual[1])
        assert_same(other[1], usual[1])


def test_threads_that_share_an_iterator_take_each_batch_once_and_in_order() -> None:
    pipeline = datamix.mix({"a": {"image": np.arange(4000)[:, None]}}, shuffle=False, batch_size=2)
    iterator, taken = iter(pipeline), [[] for _ in range(4)]  # type: ignore[var-annotated]

    def take(into: list[int]) -> None:
        into.extend(int(batch["image"][0, 0]) for batch in iterator)

    threads = [threading.Thread(target=take, args=(into,)) for into in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*taken)) == list(range(0, 4000, 2))
    assert all(part == sorted(part) for part in taken)


def a_mix(seed: int, batch_size: int) -> datamix.Pipeline:
    """A mix of sources of several specs, resized to one."""
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(2, 40, 2))
    resize = {"resize": {"height": height, "width": width, "method": ["linear", "lanczos3", "cubic"][seed % 3]}}
    normalize = {"normalize": {"mean": [0.13, 0.2, 0.3], "std": [0.3, 0.4, 0.7]}}
    sources = {}
    for name in "abc"[: 1 + seed % 3]:
        shape = (*generator.integers(2, 40, 2), generator.choice([1, 3]))
        sources[name] = {
            "image": generator.integers(0, 256, (90, *shape), dtype=np.uint8),
            "label": generator.integers(0, 4, 90),
        }
    chains = [["to_rgb", resize, "to_float", normalize], ["to_grayscale", "to_float", resize, "flip_horizontal"]]
    operators = dict.fromkeys(sources, chains[seed % 2])
    return datamix.mix(sources, operators=operators, batch_size=batch_size, labels="keep")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("seed", range(3))
def test_loop_index_cursor_and_shards_agree_to_the_last_bit(seed: int, batch_size: int) -> None:
    pipeline = a_mix(seed, batch_size)
    cursor = pipeline.start()
    for step, batch in enumerate(itertools.islice(pipeline, 5)):
        assert_identical(pipeline[step], batch)
        following, cursor = pipeline.next(cursor)
        assert_identical(following, batch)
    if batch_size > 1:
        shards = [next(pipeline.iterator(step, shard=(rank, 2))) for rank in range(2)]
        assert_identical({leaf: np.concatenate([shard[leaf] for shard in shards]) for leaf in batch}, batch)


def assert_identical(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for leaf, values in expected.items():
        np.testing.assert_array_equal(np.asarray(found[leaf]), values, strict=True)


def test_fingerprint_is_of_what_determines_the_sequence() -> None:
    assert load().fingerprint == load().fingerprint
    assert load("seed=1").fingerprint != load().fingerprint
    assert load("data.cache=elsewhere").fingerprint == load().fingerprint


def test_finished_batches_are_read_only_views() -> None:
    batch = load()[0]
    with pytest.raises(ValueError, match="read-only"):
        batch["image"][:] = 0
