"""The compiled pipeline against a slow reference, by loop, index and cursor."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError, DataError, StateError
from datamix.testing import traces


@pytest.mark.filterwarnings("ignore:.*(never seen|gives no record)")
def test_loop_index_and_cursor_give_what_the_plan_says(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
    mix: tuple[str, ...],
) -> None:
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


@pytest.mark.filterwarnings("ignore:.*(never seen|gives no record)")
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
def test_any_mix_at_any_step(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
    weights: list[int],
    order: str,
    stop: str,
    granularity: str,
    seed: int,
    step: int,
) -> None:
    pipeline = load(
        f"mix={order}", f"mix.ratio={':'.join(map(str, weights))}", f"stop={stop}", f"seed={seed}",
        f"mix.granularity={granularity}",
    )  # fmt: skip
    step = step if pipeline.plan.length is None else step % len(pipeline)
    assert_same(pipeline[step], reference(pipeline, step))


def test_every_for_starts_afresh(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
) -> None:
    pipeline = load()
    for _ in range(2):
        assert_same(next(iter(pipeline)), reference(pipeline, 0))


def test_positions_may_be_of_numpy(load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]) -> None:
    pipeline = load("stop=forever")
    assert_same(pipeline[np.int32(2**28 + 5)], pipeline[2**28 + 5])
    assert json.dumps(pipeline.iterator(start=np.int64(3)).state())


@pytest.mark.parametrize(
    "mix",
    [
        ("mix.ratio=5:2:1",),
        ("mix=random", "mix.replacement=true"),
        ("shuffle=window(7)", "mix.stratify=true", "mix.schedule=[{until:9,ramp:linear,ratio:'5:2:1'}]"),
    ],
    ids=lambda mix: mix[0],
)
def test_far_ahead(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
    mix: tuple[str, ...],
) -> None:
    pipeline = load("stop=forever", *mix)
    assert_same(pipeline[10**12], reference(pipeline, 10**12))
    assert_same(next(pipeline.iterator(start=2**56)), reference(pipeline, 2**56))


def test_batch_size_does_not_change_the_records(load: Callable[..., datamix.Pipeline]) -> None:
    flip = "operators=[flip_horizontal]"
    four, six = (load(f"batch.size={size}", "stop=forever", flip) for size in (4, 6))
    for leaf in ("image", "label", "source_id"):
        mine = np.concatenate([batch[leaf] for batch in itertools.islice(four, 30)])
        theirs = np.concatenate([batch[leaf] for batch in itertools.islice(six, 20)])
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "mix",
    [
        ("stop=exhaust_once", "batch.remainder=keep"),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in [("stop=forever",), ("mix=random",), ("mix.granularity=batch", "stop=all_exhausted")]
        ),
    ],
    ids=" ".join,
)
def test_shuffled_batches_hold_the_same_records(
    load: Callable[..., datamix.Pipeline], assert_equal: Callable[..., None], mix: tuple[str, ...]
) -> None:
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


@pytest.mark.slow
def test_a_shuffle_of_rows_is_a_function_of_seed_and_step(
    load: Callable[..., datamix.Pipeline], assert_equal: Callable[..., None]
) -> None:
    first, same, other = (load("stop=forever", "batch.shuffle=true", seed) for seed in ("seed=1", "seed=1", "seed=2"))
    assert_equal(next(same.iterator(start=10**9)), first[10**9])
    assert any(first[step]["label"].tolist() != other[step]["label"].tolist() for step in range(3))
    cursor = first.start(3)
    for step in range(3, 7):
        batch, cursor = first.next(cursor)
        assert_equal(batch, first[step])


def test_with_a_shuffle_of_rows_no_rank_is_left_to_one_source(load: Callable[..., datamix.Pipeline]) -> None:
    mix = ("batch.size=2", "stop=forever", "mix=round_robin")
    for shuffle, sources in (("false", {0}), ("true", {0, 1})):
        pipeline = load(*mix, f"batch.shuffle={shuffle}", names=("a", "b"))
        batches = itertools.islice(pipeline.iterator(shard=(0, 2)), 20)
        assert {int(batch["source_id"][0]) for batch in batches} == sources


def test_a_shuffle_of_rows_is_part_of_the_fingerprint_where_there_is_one(load: Callable[..., datamix.Pipeline]) -> None:
    plain, off, on = load(), load("batch.shuffle=false"), load("batch.shuffle=true")
    assert plain.fingerprint == off.fingerprint != on.fingerprint
    with pytest.raises(
        StateError, match=r"under another configuration: batch\.shuffle was not set and is true; restore"
    ):
        on.iterator().restore(plain.iterator(1).state())
    assert "batch.shuffle" not in plain.iterator(1).state()["fingerprint"]


def test_remainder(load: Callable[..., datamix.Pipeline], arrays: dict[str, dict[str, np.ndarray]]) -> None:
    kept = load("stop=exhaust_once", "batch.remainder=keep")
    assert [len(batch["label"]) for batch in kept] == [8] * 13 + [3]
    assert [len(batch["label"]) for batch in load("stop=exhaust_once")] == [8] * 13
    seen = np.concatenate([batch["image"].reshape(len(batch["image"]), -1) for batch in kept])
    assert len(seen) == sum(len(leaves["label"]) for leaves in arrays.values())


def test_whole_batches_of_one_source(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("mix.granularity=batch", "mix=round_robin", "stop=all_exhausted")
    ids = [set(batch["source_id"].tolist()) for batch in pipeline]
    assert ids == [{i % 3} for i in range(len(pipeline))]


def test_with_weights_gives_the_mix_of_those_weights(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
) -> None:
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
def test_a_pipeline_is_no_argument_of_jitted_functions(load: Callable[..., datamix.Pipeline], transform: Any) -> None:
    with pytest.raises(ConfigError, match=r"a Pipeline is an object of the host .*; pass pipeline\.compiled, "):
        transform(load())


def test_containers_of_pipelines_are_trees(load: Callable[..., datamix.Pipeline]) -> None:
    pipelines = {"train": load(), "test": load("stop=forever")}
    assert jax.tree.map(lambda pipeline: pipeline.batch_size, pipelines) == {"train": 8, "test": 8}


def test_random_operators_depend_on_the_record_alone(load: Callable[..., datamix.Pipeline]) -> None:
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


def test_labels_that_do_not_fit_32_bits(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    wide = {"image": arrays["a"]["image"], "label": np.full(37, 2**40)}
    with pytest.raises(DataError, match="source 'a': leaf 'label' holds numbers that do not fit int32"):
        datamix.load("labels=keep", sources={"a": wide})


def test_length_and_index_errors(load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]) -> None:
    endless, ending = load("stop=forever"), load()
    with pytest.raises(TypeError, match="this mix never ends"):
        len(endless)
    with pytest.raises(IndexError, match=f"batch {len(ending)} in a mix of {len(ending)} batches"):
        ending[len(ending)]
    with pytest.raises(IndexError, match="batch -1 in a mix of endless batches"):
        endless[-1]
    assert_same(ending[-1], ending[len(ending) - 1])
    with pytest.raises(ConfigError, match=r"batch\.size = 1000; it is more than the \d+ records of the whole mix"):
        load("batch.size=1000")


def test_fingerprint_is_of_what_determines_the_sequence(load: Callable[..., datamix.Pipeline]) -> None:
    assert load().fingerprint == load().fingerprint
    assert load("seed=1").fingerprint != load().fingerprint
    assert load("data.cache=elsewhere").fingerprint == load().fingerprint


LOADED = """
import os, pickle, sys
import datamix, jax, numpy as np
from datamix.pipeline import xla

operators = ["source.digits.operators=[to_float,flip_horizontal]", "source.garments.operators=[to_float]"]
pipeline = datamix.load("source=digits+garments", "batch.size=8", "stop=forever", sys.argv[1], *operators)
pipeline.fingerprint, pipeline.spec, pipeline.with_weights({"digits": 3}).fingerprint, pipeline.where(2)
copy = pickle.loads(pickle.dumps(pipeline))
assert not xla.has_started()

def forked(call):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            print(call())
        except datamix.ConfigError as error:
            print(error)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)

forked(lambda: pipeline[3]["label"].tolist())
print(pipeline[3]["label"].tolist())
iterator = copy.iterator(start=3)
print(next(iterator)["label"].tolist())
forked(lambda: pipeline[3])
forked(lambda: next(iterator))
"""


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["data.placement=device", "data.placement=host"])
def test_a_pipeline_that_was_only_loaded_works_in_forked_processes(placement: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", LOADED, placement]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    in_child, here, of_copy, *refused = ended.stdout.splitlines()
    assert in_child == here == of_copy
    assert len(refused) == 2
    for line in refused:
        assert line.endswith('start workers with multiprocessing_context="spawn", or before there are any batches.')


def double(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"image": record["image"] * 2}


def test_a_pipeline_is_pickled_as_the_call_that_made_it(
    load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None], tmp_path: Path, monkeypatch: Any
) -> None:
    arrays = {"image": np.arange(24, dtype=np.float32).reshape(12, 2), "label": np.arange(12)}
    mixed = datamix.mix({"a": arrays, "b": arrays}, operators=[double], weights={"a": 3}, stop="forever")
    for pipeline in (load("stop=forever"), mixed, mixed.with_weights({"b": 5})):
        copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(pipeline))))
        assert copy.fingerprint == pipeline.fingerprint
        for step in (0, 7):
            assert_same(copy[step], pipeline[step])
    monkeypatch.chdir(tmp_path)
    np.savez("some.npz", **arrays)
    config = tmp_path / "conf" / "dataset"
    config.mkdir(parents=True)
    (config / "some.yaml").write_text("_target_: arrays\npath: some.npz\n")
    pipeline = datamix.load("source=some", "batch.size=4", config_dir=tmp_path / "conf")
    payload = pickle.dumps(pipeline)
    assert len(payload) < 2000  # a file is not copied
    assert_same(pickle.loads(payload)[1], pipeline[1])
    (config / "some.yaml").write_text("_target_: arrays\npath: some.npz\nlimit: 6\n")
    with pytest.raises(StateError, match=r"this pipeline was pickled under another configuration: .*make it again"):
        pickle.loads(payload)


def test_a_pipeline_without_a_call_is_not_pickled(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever")
    pipeline.recipe = None
    with pytest.raises(ConfigError, match=r"pickled as the call of datamix\.load or datamix\.mix"):
        pickle.dumps(pipeline)


@pytest.mark.parametrize("placement", ["device", "host"])
def test_a_batch_by_index_of_several_shapes_runs_in_the_program_of_the_loop(placement: str) -> None:
    draw = np.random.default_rng(0)
    sources = {f"s{i}": {"image": draw.integers(0, 256, (50, 8 + i, 8, 1), dtype=np.uint8)} for i in range(3)}
    operators = {name: [{"resize": {"height": 6, "width": 6}}] for name in sources}
    pipeline = datamix.mix(sources, operators=operators, batch_size=16, stop="forever", placement=placement)
    batches = list(itertools.islice(pipeline, 3))
    with traces() as counts:
        for step in (2, 0, 1):
            np.testing.assert_array_equal(pipeline[step]["image"], batches[step]["image"])
    assert not counts
