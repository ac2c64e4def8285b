"""Batches by loop: shards, outputs, states."""

from __future__ import annotations

import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, StateError
from datamix.pipeline import xla
from datamix.pipeline.chunks import chunk_program, span_steps
from datamix.spec import Batch
from datamix.testing import traces
from threads import run_in_threads


@pytest.mark.filterwarnings("ignore:.*(never seen|gives no record)")
def test_restore_at_every_step(
    load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None], mix: tuple[str, ...]
) -> None:
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


SHARDED = [
    ("stop=forever",),
    ("mix=round_robin", "stop=forever"),
    ("mix=random",),
    ("stop=forever", "batch.shuffle=true"),
    ("mix.granularity=batch", "stop=forever"),
]


@pytest.mark.parametrize("mix", SHARDED, ids=" ".join)
def test_shards_one_after_the_other_are_the_batch(
    load: Callable[..., datamix.Pipeline],
    assert_equal: Callable[..., None],
    joined: Callable[..., dict[str, np.ndarray]],
    mix: tuple[str, ...],
) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", ["batch.shuffle=false", "batch.shuffle=true"])
@pytest.mark.parametrize(("rows", "num_shards", "sizes"), [(5, 3, [2, 2, 1]), (2, 2, [1, 1]), (2, 3, [1, 1, 0])])
def test_shards_of_a_short_last_batch(
    load: Callable[..., datamix.Pipeline],
    assert_equal: Callable[..., None],
    joined: Callable[..., dict[str, np.ndarray]],
    rows: int,
    num_shards: int,
    sizes: list[int],
    shuffle: str,
) -> None:
    pipeline = load("stop=forever", f"stop.samples={2 * 8 + rows}", "batch.remainder=keep", shuffle)
    whole = list(pipeline)
    assert [len(batch["label"]) for batch in whole] == [8, 8, rows]
    for output in ("numpy", "jax"):
        shards = [list(pipeline.iterator(shard=(i, num_shards), output=output)) for i in range(num_shards)]
        assert [len(batches[-1]["label"]) for batches in shards] == sizes
        for step in range(3):
            assert_equal(joined([batches[step] for batches in shards]), whole[step])
    assert_equal(pipeline[-1], whole[-1])


def test_the_number_of_ranks_may_change_at_any_step(
    load: Callable[..., datamix.Pipeline],
    assert_equal: Callable[..., None],
    joined: Callable[..., dict[str, np.ndarray]],
) -> None:
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


def test_output_on_the_device(load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]) -> None:
    pipeline = load()
    for actual, expected in zip(pipeline.iterator(output="jax"), pipeline, strict=True):
        assert all(isinstance(value, jax.Array) for value in actual.values())
        assert_same(actual, expected)


def test_batches_on_the_device_are_as_large_and_as_short_as_those_of_numpy(
    load: Callable[..., datamix.Pipeline], assert_same: Callable[..., None]
) -> None:
    pipeline = load("stop=exhaust_once", "batch.remainder=keep", "source.c.limit=49")
    for index in range(2):
        theirs = list(pipeline.iterator(shard=(index, 2)))
        mine = list(pipeline.iterator(shard=(index, 2), output="jax"))
        assert len(mine) == 14
        for actual, expected in zip(mine, theirs, strict=True):
            assert_same(actual, expected)


def test_a_batch_that_is_kept_stays_what_it_was(
    load: Callable[..., datamix.Pipeline],
    reference: Callable[..., dict[str, np.ndarray]],
    assert_same: Callable[..., None],
) -> None:
    """Its memory is used for no later batch."""
    pipeline = load("stop=forever")
    for output in ("numpy", "jax"):
        kept = list(itertools.islice(pipeline.iterator(output=output), 700))
        for step in (0, 255, 256, 699):
            assert_same(kept[step], reference(pipeline, step))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shard": (2, 2)}, r"shard = \(2, 2\); the rank lies in \[0, 2\)"),
        ({"shard": (0, 0)}, r"shard = \(0, 0\); the number of ranks is 1 or more"),
        (
            {"shard": (0, 9)},
            r"shard = \(0, 9\); a batch of 8 cannot be divided among 9 ranks; make batch\.size",
        ),
        ({"start": -1}, "start = -1; it is 0 or more, and less than"),
        ({"start": 2**63}, "start = 9223372036854775808; it is 0 or more, and less than"),
        ({"output": "tf"}, "output = 'tf'; it is 'numpy', 'jax' or 'torch'"),
    ],
)
def test_iterator_arguments(load: Callable[..., datamix.Pipeline], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load().iterator(**kwargs)


def test_start_behind_the_end_gives_nothing(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load()
    assert list(pipeline.iterator(start=len(pipeline) + 5)) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("seed=7", r"seed was 0 and is 7; restore it under the same, or start afresh\."),
        (
            "mix.ratio=1:2:1",
            r"mix\.weights\.a was 1/3 and is 1/4, mix\.weights\.b was 1/3 and is 1/2, mix\.weights\.c was 1/3 "
            r"and is 1/4; restore it under the same, go on under this one on purpose with changed='mix' "
            r"\(train\.resume=changed\), or start afresh",
        ),
        ("mix=random", r"mix\.order was proportional and is random, .*; restore it under the same, go on under this"),
        ("shuffle=false", r"shuffle was full and is false; restore it under the same, or start afresh\."),
        ("source.a.limit=30", r"source\.a\.num_records was \d+ and is 30"),
        ("operators=[flip_horizontal]", r'operators was \[\] and is \[\["flip_horizontal", \{\}\]\]; restore'),
        ("stop.samples=8", r"stop\.samples was not set and is 8; restore it under the same, or start afresh\."),
    ],
)
def test_a_state_of_another_mix(load: Callable[..., datamix.Pipeline], change: str, key: str) -> None:
    state = json.loads(json.dumps(load().iterator(2).state()))
    with pytest.raises(StateError, match=rf"^this state was taken under another configuration: {key}"):
        load(change).iterator().restore(state)


@pytest.mark.parametrize(
    "change",
    ["batch.size=4", "stop=all_exhausted", "stop=forever", "batch.remainder=keep", "stop.samples=40", "seed=0"],
)
def test_a_state_of_a_mix_that_is_the_same_so_far(
    load: Callable[..., datamix.Pipeline], assert_equal: Callable[..., None], change: str
) -> None:
    state, other = load().iterator(2).state(), load(change)
    iterator = other.iterator()
    iterator.restore(state)
    assert iterator.step == 2 * 8 // other.batch_size
    assert_equal(next(iterator), other[2 * 8 // other.batch_size])


STATE = {"version": 3, "step": 0, "position": 0, "fingerprint": {}, "settings": {}, "counts": {}, "history": []}


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        np.int64(3),
        [],
        {"version": 3},
        {"version": True},
        STATE | {"position": -1},
        STATE | {"position": None},
        STATE | {"step": "3"},
        STATE | {"fingerprint": {1: 2, "seed": 3}},
        STATE | {"fingerprint": [[1]]},
        STATE | {"settings": []},
        STATE | {"counts": {"a": 1.5}},
        STATE | {"history": {}},
        STATE | {"history": [1]},
        STATE | {"history": [{"position": 3, "counts": {"a": "many"}, "changes": {}}]},
        STATE | {"history": [{"counts": {"a": 3}, "changes": {}}]},
    ],
)
def test_no_state(load: Callable[..., datamix.Pipeline], state: Any) -> None:
    iterator = load().iterator()
    iterator.restore(STATE)
    with pytest.raises(StateError, match="this is no state of datamix; it needs version 3, a position and a finger"):
        iterator.restore(state)


@pytest.mark.parametrize(("version", "age"), [(2, "an older"), (4, "a newer")])
def test_a_state_of_another_version(load: Callable[..., datamix.Pipeline], version: int, age: str) -> None:
    iterator = load().iterator()
    with pytest.raises(
        StateError, match=rf"^this state has version {version}, of {age} datamix; this one restores version 3\. Restore"
    ):
        iterator.restore(iterator.state() | {"version": version})


def few(size: int, seed: int) -> dict[str, np.ndarray]:
    """So many small images with labels."""
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (size, 4, 3, 1), dtype=np.uint8),
        "label": generator.integers(0, 4, size),
    }


ARRAYS = {"a": few(37, 0), "b": few(20, 1)}


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


def test_a_state_under_the_other_width_of_numbers(load: Callable[..., datamix.Pipeline]) -> None:
    state = load().iterator(1).state()
    with jax.enable_x64(True):
        iterator = load().iterator()
        with pytest.raises(
            StateError, match=r"taken under another configuration: JAX_ENABLE_X64 was not set and is true"
        ):
            iterator.restore(state)


@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_random_operators_depend_on_no_switch_of_the_process(assert_equal: Callable[..., None], impl: str) -> None:
    def flipped() -> datamix.Pipeline:
        return datamix.mix({"a": ARRAYS["a"]}, operators={"a": ["flip_horizontal"]}, batch_size=16)

    usual, state = flipped(), flipped().iterator(1).state()
    with jax.threefry_partitionable(False), jax.default_prng_impl(impl):
        other = flipped()
        iterator = other.iterator()
        iterator.restore(state)
        assert_equal(next(iterator), usual[1])
        assert_equal(other[1], usual[1])


def test_threads_that_share_an_iterator_take_each_batch_once_and_in_order() -> None:
    pipeline = datamix.mix({"a": {"image": np.arange(4000)[:, None]}}, shuffle=False, batch_size=2)
    iterator, taken = iter(pipeline), [[] for _ in range(4)]  # type: ignore[var-annotated]

    def take(number: int) -> None:
        taken[number].extend(int(batch["image"][0, 0]) for batch in iterator)

    run_in_threads(take)
    assert sorted(itertools.chain(*taken)) == list(range(0, 4000, 2))
    assert all(part == sorted(part) for part in taken)


@pytest.mark.parametrize("output", ["numpy", "jax"])
def test_threads_that_share_an_iterator_take_whole_batches(output: Any) -> None:
    numbers = np.arange(4001)
    pipeline = datamix.mix({"a": {"one": numbers, "other": -numbers}}, shuffle=False, batch_size=2, remainder="keep")
    iterator, taken = pipeline.iterator(output=output), [[] for _ in range(4)]  # type: ignore[var-annotated]
    run_in_threads(lambda number: taken[number].extend(iterator))
    batches = list(itertools.chain(*taken))
    assert (len(batches), iterator.step) == (2001, 2001)
    for batch in batches:
        np.testing.assert_array_equal(batch["one"], -np.asarray(batch["other"]))
    assert sorted(number for batch in batches for number in batch["one"].tolist()) == numbers.tolist()


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
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
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


PAIRED = ("operators=[{one_hot:{num_classes:12}},mixup]", "stop=forever")


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("output", ["numpy", "jax", "torch"])
@pytest.mark.parametrize(
    ("mix", "where"),
    [
        (("stop=exhaust_once", "batch.remainder=keep"), {}),
        *(
            pytest.param(mix, where, marks=pytest.mark.slow)
            for mix in [("stop=forever",), ("stop=exhaust_once", "batch.remainder=keep"), PAIRED]
            for where in [{}, {"shard": (1, 3)}, {"start": 7}, {"stride": 3}]
        ),
    ],
    ids=str,
)
def test_where_memory_is_not_the_hosts_the_batches_are_the_same(
    load: Callable[..., datamix.Pipeline],
    assert_equal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    mix: tuple[str, ...],
    where: dict[str, Any],
    output: Any,
    placement: str,
) -> None:
    pipeline = load(*mix, f"data.placement={placement}")
    expected = list(itertools.islice(pipeline.iterator(**where), 40))
    monkeypatch.setattr(xla, "is_host", lambda _: False)
    for _ in range(3):
        iterator = pipeline.iterator(**where, output=output)
        batches = list(itertools.islice(iterator, 40))
        state = iterator.state()
        for actual, other in zip(batches, expected, strict=True):
            assert_equal({leaf: np.asarray(values) for leaf, values in actual.items()}, other)
        resumed = pipeline.iterator(**(where | {"start": 1}), output=output)
        resumed.restore(state)
        following = {leaf: np.asarray(values) for leaf, values in next(resumed, {}).items()}
        assert_equal(following, {leaf: np.asarray(values) for leaf, values in next(iterator, {}).items()})


def test_where_memory_is_not_the_hosts_a_chunk_is_cut_by_the_program(
    load: Callable[..., datamix.Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load("stop=forever", "batch.size=9")
    monkeypatch.setattr(xla, "is_host", lambda _: False)
    iterator = pipeline.iterator(output="jax")
    with traces() as counts:
        kept = list(itertools.islice(iterator, 3 * iterator.program.num_steps))
    traced = {name.rsplit(".", 1)[-1]: count for name, count in counts.items()}
    assert traced.pop("compute_batches") == 1
    assert traced.keys() <= {"locate_batches"}  # which other mixes may have traced before
    assert len({batch["image"].unsafe_buffer_pointer() for batch in kept}) == len(kept)


def test_finished_batches_are_read_only_views(load: Callable[..., datamix.Pipeline]) -> None:
    batch = load()[0]
    with pytest.raises(ValueError, match="read-only"):
        batch["image"][:] = 0


def mixed(side: int = 2, batch_size: int = 4, **settings: Any) -> datamix.Pipeline:
    image = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, side, side, 1), np.uint8)
    sources = {"a": {"image": image, "label": np.arange(7)}, "b": {"image": image[:5], "label": np.arange(5)}}
    return datamix.mix(sources, batch_size=batch_size, labels="keep", **settings)


def test_loops_over_one_mix_share_its_first_span(assert_equal: Callable[..., None]) -> None:
    pipeline = mixed(batch_size=2)
    batches = list(pipeline)
    span = pipeline.first_span
    for again in (pipeline, pipeline.iterator(shard=(0, 1))):
        for mine, theirs in zip(again, batches, strict=True):
            assert_equal(mine, theirs)
        assert pipeline.first_span is span
    assert_equal(next(pipeline.iterator(start=3)), batches[3])
    assert pipeline.first_span is not span
    reweighted = pipeline.with_weights({"a": 3})
    assert reweighted.first_span is None
    for step, batch in enumerate(reweighted):
        assert_equal(batch, reweighted[step])


@pytest.mark.parametrize("settings", [{}, {"shard": (1, 2)}, {"start": 2}, {"stride": 2}, {"output": "jax"}])
def test_the_first_chunk_of_the_next_loop_is_computed_while_a_short_mix_is_repeated(
    settings: dict[str, Any], assert_equal: Callable[..., None]
) -> None:
    pipeline = mixed(batch_size=2)
    start, shard = settings.get("start", 0), settings.get("shard", (0, 1))
    rows = slice(shard[0] * 2 // shard[1], (shard[0] + 1) * 2 // shard[1])
    steps = range(start, len(pipeline), settings.get("stride", 1))
    batches = [{leaf: values[rows] for leaf, values in pipeline[step].items()} for step in steps]

    def assert_all(iterator: Iterable[Batch], expected: list[Batch]) -> None:
        for mine, theirs in zip(iterator, expected, strict=True):
            assert_equal(mine, theirs)

    assert_all(pipeline.iterator(**settings), batches)
    assert not pipeline.first_chunk  # a single loop computes nothing in vain
    assert_all(pipeline.iterator(**settings), batches)
    assert len(pipeline.first_chunk) == 1
    first, second = pipeline.iterator(**settings), pipeline.iterator(**settings)  # one of them has it
    for batch in batches:
        assert_equal(next(first), batch)
        assert_equal(next(second), batch)
    assert len(pipeline.first_chunk) == 1
    for begin in (0, 1):  # as others, which cannot take it
        assert_all(pipeline.iterator(start=begin), [pipeline[step] for step in range(begin, len(pipeline))])


def test_a_loop_crosses_chunks_and_blocks(assert_equal: Callable[..., None]) -> None:
    pipeline = mixed(stop="forever")
    program = chunk_program(pipeline.compiled.program)
    for border in (program.num_steps, span_steps(program)):
        iterator = pipeline.iterator(start=border - 2)
        for step in range(border - 2, border + 2):
            assert iterator.step == step
            assert_equal(next(iterator), pipeline[step])


def test_an_iterator_at_its_end_stays_there_until_it_is_restored(assert_equal: Callable[..., None]) -> None:
    pipeline = mixed(stop="exhaust_once", remainder="keep")
    iterator = pipeline.iterator()
    first = iterator.state()
    batches = list(iterator)
    assert (len(batches), iterator.step) == (3, 3)
    assert list(iterator) == []
    last = iterator.state()
    iterator.restore(first)
    for mine, theirs in zip(iterator, batches, strict=True):
        assert_equal(mine, theirs)
    iterator.restore(last)
    assert next(iterator, None) is None


def test_a_state_is_small_and_says_where_the_iterator_stands() -> None:
    iterator = mixed(stop="forever").iterator(start=10**9)
    next(iterator)
    state = iterator.state()
    assert state["step"] == 10**9 + 1
    assert len(json.dumps(state)) < 2000
    assert json.loads(json.dumps(state)) == state


def test_iterators_of_one_pipeline_do_not_disturb_each_other(assert_equal: Callable[..., None]) -> None:
    pipeline = mixed(stop="forever")
    expected = [pipeline[step] for step in range(6)]
    one, other = pipeline.iterator(), pipeline.iterator(start=2)
    pairs = list(itertools.islice(zip(one, other, strict=False), 4))
    del one, other  # what they had computed ahead is taken up by the next one
    for step, (mine, theirs) in enumerate(pairs):
        assert_equal(mine, expected[step])
        assert_equal(theirs, expected[step + 2])
    for mine, theirs in zip(pipeline, expected, strict=False):
        assert_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("ends", [(), ("batch.remainder=keep",), ("batch.shuffle=true", "stop=forever")], ids=" ".join)
def test_workers_take_batches_in_turn(
    load: Callable[..., datamix.Pipeline], assert_equal: Callable[..., None], placement: str, ends: tuple[str, ...]
) -> None:
    pipeline = load("stop=all_exhausted", f"data.placement={placement}", *ends)
    batches = list(itertools.islice(pipeline, 30))
    for shard in ((0, 1), (1, 3)):
        expected = list(itertools.islice(pipeline.iterator(shard=shard), 30))
        for stride in (2, 3, 40):
            for start in (0, 1, 5):
                iterator = pipeline.iterator(start, shard, stride=stride)
                turns = list(itertools.islice(iterator, len(range(start, len(batches), stride))))
                assert iterator.step == start + len(turns) * stride
                for batch, other in zip(turns, expected[start::stride], strict=True):
                    assert_equal(batch, other)
    resumed = pipeline.iterator(1, stride=3)
    next(resumed)
    other = pipeline.iterator(stride=3)
    other.restore(resumed.state())
    assert_equal(next(other), batches[4])
    for stride in (0, 1.5):
        with pytest.raises(ConfigError, match=f"stride = {stride}; it is a whole number, 1 or more"):
            pipeline.iterator(stride=stride)  # type: ignore[arg-type]


@pytest.mark.parametrize("placement", ["device", "host"])
def test_tensors_share_the_memory_of_batches(load: Callable[..., datamix.Pipeline], placement: str) -> None:
    torch = pytest.importorskip("torch")
    pipeline = load("stop=all_exhausted", "batch.remainder=keep", f"data.placement={placement}")
    kept = list(pipeline.iterator(output="torch"))
    assert len(kept[-1]["label"]) < pipeline.batch_size
    for batch, expected in zip(kept, pipeline, strict=True):
        for leaf, tensor in batch.items():
            assert isinstance(tensor, torch.Tensor)
            assert tensor.numpy().dtype == expected[leaf].dtype
            np.testing.assert_array_equal(tensor.numpy(), expected[leaf])
    first, second = (batch["image"].data_ptr() for batch in kept[:2])
    assert second - first == kept[0]["image"].nbytes  # one after the other in a chunk


@pytest.mark.filterwarnings("error")  # such as PyTorch's of an array that cannot be written to
def test_parts_of_tensors_keep_their_memory() -> None:
    pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)
    pipeline = datamix.mix(
        {"a": {"image": images}}, batch_size=256, stop="forever", operators=[("cast", {"dtype": "bfloat16"})]
    )
    iterator = pipeline.iterator(output="torch")
    kept = [
        batch["image"][3, 5:] for _, batch in zip(range(200), iterator, strict=False)
    ]  # of several chunks, whose memory is reused
    assert str(kept[0].dtype) == "torch.bfloat16"
    for step, part in enumerate(kept):
        np.testing.assert_array_equal(part.float(), pipeline[step]["image"][3, 5:].astype(np.float32))


def test_tensors_have_dtypes_that_numpy_lacks() -> None:
    torch = pytest.importorskip("torch")
    values = np.arange(8).astype(jax.numpy.float8_e5m2)
    batch = next(datamix.mix({"a": {"x": values}}, batch_size=8, shuffle="none").iterator(output="torch"))
    assert batch["x"].dtype == torch.float8_e5m2
    assert batch["x"].float().tolist() == values.astype(np.float32).tolist()


def test_torch_that_is_missing_is_named(load: Callable[..., datamix.Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.dlpack", None)
    with pytest.raises(datamix.InstallationError, match=r"output='torch' needs PyTorch: pip install .*torch"):
        load("stop=forever").iterator(output="torch")


def test_other_libraries_names_of_a_state(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever")
    iterator = pipeline.iterator(start=3)
    assert iterator.state() == iterator.state_dict() == iterator.get_state()
    for restore in (pipeline.iterator().load_state_dict, pipeline.iterator().set_state):
        restore(iterator.state())
        assert restore.__self__.step == 3  # type: ignore[attr-defined]


def test_metrics_follow_from_the_step(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("mix.weights.a=2", "stop=forever")
    iterator = pipeline.iterator(shard=(1, 2))
    for _ in range(10):
        next(iterator)
    first = iterator.metrics()
    assert first["step"] == 10
    row = {"records": 40, "epochs": 40 / 37, "share": 0.5, "share_lately": 0.5, "bytes_per_s": 0, "waited_s": 0}
    assert first["sources"]["a"] == row
    assert iterator.metrics()["sources"]["a"]["share_lately"] is None  # no step since
    next(iterator)
    counts, before = pipeline.plan.counts(88), pipeline.plan.counts(80)
    for name, count in zip("abc", counts, strict=True):
        assert iterator.metrics()["sources"][name]["records"] == count
    sought = pipeline.iterator(start=10)
    next(sought)
    rows = sought.metrics()["sources"]
    assert [rows[name]["records"] for name in "abc"] == counts
    lately = [count - since for count, since in zip(counts, before, strict=True)]
    assert [rows[name]["share_lately"] for name in "abc"] == [count / 8 for count in lately]
    sought.restore(pipeline.iterator(start=3).state())
    assert sought.metrics()["sources"]["a"]["share_lately"] is None


@pytest.mark.parametrize("placement", ["device", "host"])
def test_what_is_computed_ahead_is_bounded_by_what_is_asked_for(placement: str) -> None:
    def mix(prefetch_bytes: int | None) -> datamix.Pipeline:
        rows = np.arange(40_000, dtype=np.uint8).reshape(400, 100)
        settings: dict[str, Any] = {"placement": placement, "prefetch_bytes": prefetch_bytes}
        return datamix.mix({"a": {"x": rows}, "b": {"x": rows[::-1]}}, batch_size=8, stop="forever", **settings)

    batch_bytes = 8 * (100 + 4)  # with the number of the source
    whole, few = mix(None), mix(20 * batch_bytes)
    assert few.iterator().program.num_steps * batch_bytes <= 10 * batch_bytes
    assert whole.iterator().program.num_steps > 10
    assert mix(1).iterator().program.num_steps == 1
    assert few.with_weights({"a": 2}).iterator().program == few.iterator().program
    for batch, expected, _ in zip(few, whole, range(50), strict=False):
        np.testing.assert_array_equal(batch["x"], expected["x"])


def test_metrics_leave_out_what_is_skipped() -> None:
    sources = {name: {"number": np.arange(size)} for name, size in {"a": 37, "b": 11}.items()}
    pipeline = datamix.mix(sources, skip=[[0, 2], [4, 5]], batch_size=8, weights={"a": 3}, stop="forever")
    iterator, counts, lately = pipeline.iterator(), np.zeros(2, int), np.zeros(2, int)
    for _ in range(6):
        assert [row["records"] for row in iterator.metrics()["sources"].values()] == counts.tolist()
        counts += (lately := np.bincount(next(iterator)["source_id"], minlength=2))
    rows = iterator.metrics()["sources"].values()
    assert iterator.step == 9
    assert [row["share_lately"] for row in rows] == (lately / 8).tolist()
    sought = pipeline.iterator(9).metrics()["sources"].values()
    assert [row["records"] for row in sought] == counts.tolist()


def test_the_share_of_late_is_counted_across_steps_that_are_left_out() -> None:
    sources = {name: {"number": np.arange(size)} for name, size in {"a": 37, "b": 11}.items()}
    iterator = datamix.mix(sources, skip=[[4, 5]], batch_size=8, weights={"a": 3}, stop="forever").iterator(3)
    assert next(iterator).keys() == {"number", "source_id"}
    assert iterator.step == 5
    assert [row["share_lately"] for row in iterator.metrics()["sources"].values()] == [0.75, 0.25]


def test_an_iterator_that_is_closed_says_where_it_stood() -> None:
    iterator = mixed(stop="forever").iterator(start=2)
    next(iterator)
    iterator.close()
    assert (iterator.step, iterator.state()["step"]) == (3, 3)
    with pytest.raises(ValueError, match=r"^this iterator is closed; take another from the pipeline, and restore its"):
        next(iterator)


def test_epochs_that_nobody_has_foreseen_are_told_once(
    load: Callable[..., datamix.Pipeline], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "datamix"):
        for start in (0, 6):  # of 60 records, each source has given 20
            next(load("stop=forever", "mix.max_epochs.a=9", "batch.size=10").iterator(start=start))
        assert caplog.records == []
        iterator = load("stop=forever", "mix.max_epochs.a=9", "batch.size=10").iterator(start=20)
        next(iterator)
        iterator.restore(iterator.state())
        next(iterator)
    said = "is in epoch 4 by step 20; mix.max_epochs.b says how often it may be gone through."
    assert {record.message for record in caplog.records} == {
        f"source 'b' {said}",
        "source 'c' is in epoch 2 by step 20; mix.max_epochs.c says how often it may be gone through.",
    }
    assert len(caplog.records) == 2


def test_a_mix_that_may_not_go_on_raises_after_its_last_whole_batch(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever", "mix.max_epochs.b=2", "mix.at_max_epochs=error")
    iterator = pipeline.iterator()
    for _ in range(15):  # of 120 records, b has given 40
        next(iterator)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^mix\.max_epochs\.b: the mix goes through b once more from record 121"):
            next(iterator)
