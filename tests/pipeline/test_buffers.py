"""Memory that is used again: never while anybody can see it."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import jax
import numpy as np
import pytest

import datamix
from datamix.pipeline import xla
from datamix.pipeline.buffers import Buffers
from datamix.pipeline.chunks import chunk_program

# 1 MiB a batch: a chunk is 16 of them.
IMAGES = {"image": np.arange(64 * 2**12, dtype=np.uint32).reshape(64, 2**12), "label": np.arange(64)}


def load(*overrides: str) -> datamix.Pipeline:
    return datamix.load("batch.size=64", "stop=forever", *overrides, sources={"a": IMAGES})


def address(batch: dict[str, Any]) -> int:
    return int(batch["image"].ctypes.data)


def test_a_loop_that_keeps_nothing_goes_round_in_three_chunks() -> None:
    iterator = load().iterator()
    addresses = [address(next(iterator)) for _ in range(16 * 8)]
    assert len(set(addresses[3 * 16 :])) <= 3 * 16
    assert set(addresses[5 * 16 :]) <= set(addresses[: 5 * 16])


@pytest.mark.parametrize("output", ["numpy", "jax"])
@pytest.mark.parametrize("shard", [(0, 1), (1, 3)])
def test_what_is_kept_never_changes(output: Any, shard: tuple[int, int]) -> None:
    pipeline = load()
    kept = {}
    for step, batch in zip(range(16 * 9), pipeline.iterator(shard=shard, output=output), strict=False):
        if step in (3, 15, 16, 40, 41, 100, 140):
            kept[step] = batch
        if step == 60:
            del kept[16]
    for step, batch in kept.items():
        expected = next(pipeline.iterator(start=step, shard=shard))
        for leaf, values in batch.items():
            np.testing.assert_array_equal(values, expected[leaf])


@pytest.mark.parametrize(
    "hold",
    [
        lambda view: view[3, 5:],
        lambda view: view.reshape(-1),
        memoryview,
        lambda view: jax.device_put(view, may_alias=True),
    ],
    ids=["slice", "reshaped", "memoryview", "jax"],
)
def test_any_kind_of_view_holds_its_chunk(hold: Any) -> None:
    iterator = load().iterator()
    kept = hold(next(iterator)["image"])
    before = np.array(kept)
    for _ in range(16 * 6):
        next(iterator)
    np.testing.assert_array_equal(np.array(kept), before)


@pytest.mark.slow
def test_memory_is_given_out_once() -> None:
    program = chunk_program(load().compiled.program)
    buffers = Buffers(program)
    first, second = buffers.take(), buffers.take()
    view = np.asarray(first["image"].addressable_data(0))
    buffers.give_back(first, [view])
    buffers.give_back(second, [])
    assert buffers.take() is second
    assert buffers.take() is not first
    del view
    gc.collect()
    assert buffers.take() is first
    assert {leaf: rows.shape for leaf, rows in first.items()} == {
        leaf: rows.shape for leaf, rows in Buffers(program).take().items()
    }


def test_the_next_epoch_takes_the_memory_of_the_last() -> None:
    pipeline = load("stop=all_exhausted", "stop.epochs.a=8")
    first = [address(batch) for batch in pipeline]
    assert {address(batch) for batch in pipeline} <= set(first)
    assert {address(batch) for batch in pipeline.with_weights({"a": 2})} <= set(first)


def test_an_endless_mix_left_before_its_end_leaves_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load()
    list(itertools.islice(pipeline, 20))
    with monkeypatch.context() as patch:
        patch.setattr("datamix.pipeline.buffers.np.zeros", lambda *_: pytest.fail("fresh memory"))
        for _ in range(4):
            list(itertools.islice(pipeline, 5))


def test_interrupted_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    iterator = load().iterator()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    seen = [next(iterator)["label"] for _ in range(20)]
    with monkeypatch.context() as patch:
        patch.setattr(xla, "host_view", interrupt)
        with pytest.raises(KeyboardInterrupt):
            seen.extend(batch["label"] for batch in iterator)
    assert 20 < len(seen) == iterator.step
    seen += [next(iterator)["label"] for _ in range(20)]
    for label, batch in zip(seen, load().iterator(), strict=False):
        np.testing.assert_array_equal(label, batch["label"])


@pytest.mark.parametrize("output", ["numpy", "jax"])
def test_what_is_still_computed_with_is_not_taken(output: Any) -> None:
    pipeline = load()

    @jax.jit
    def slow(image: Any) -> Any:
        spun = jax.lax.fori_loop(0, 20, lambda _, x: x * 3 + 1, image)
        return (spun != 0).sum() + image.sum(dtype="uint32")

    steps = 16 * 6
    # Nobody waits, and nobody keeps a batch: they are let go of while the computations wait to be run.
    sums = [slow(batch["image"]) for batch in itertools.islice(pipeline.iterator(output=output), steps)]
    batches = pipeline.iterator()
    assert [int(total) for total in sums] == [int(slow(next(batches)["image"].copy())) for _ in range(steps)]
