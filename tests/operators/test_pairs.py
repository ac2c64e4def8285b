"""Operators on pairs: what a blend may give, and that a batch is the same however it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, SpecError, StateError
from datamix.operators.pairs import cutmix, mixup
from datamix.spec import Record
from datamix.testing import check_operator

ONE = {"image": jnp.zeros((6, 5, 1)), "label": jnp.asarray([1.0, 0.0])}
OTHER = {"image": jnp.ones((6, 5, 1)), "label": jnp.asarray([0.0, 1.0])}
BOTH = pytest.mark.parametrize("function", [mixup, cutmix])


@BOTH
@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_labels_are_shares_of_what_is_in_the_image(function: Callable[..., Record], alpha: float) -> None:
    keys = jax.random.split(jax.random.key(0), 200)
    blended = jax.vmap(lambda key: function(ONE, OTHER, key, alpha=alpha))(keys)
    kept, other = np.asarray(blended["label"]).T
    np.testing.assert_allclose(kept + other, 1, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(blended["image"]).mean(axis=(1, 2, 3)), other, atol=1e-6)
    assert len({*other.tolist()}) > 10


def test_cutmix_pastes_a_rectangle() -> None:
    keys = jax.random.split(jax.random.key(0), 50)
    for image in np.asarray(jax.vmap(lambda key: cutmix(ONE, OTHER, key)["image"])(keys))[..., 0]:
        rows, columns = image.max(axis=1), image.max(axis=0)
        np.testing.assert_array_equal(image, np.outer(rows, columns))
        for line in (rows, columns):
            assert (np.diff(np.flatnonzero(line)) == 1).all()


def test_parts_follow_the_distribution_that_is_asked_for() -> None:
    keys = jax.random.split(jax.random.key(0), 4000)
    kept = np.asarray(jax.vmap(lambda key: mixup(ONE, OTHER, key, alpha=2.0)["label"][0])(keys))
    assert (kept.mean(), kept.var()) == pytest.approx((0.5, 0.05), abs=0.01)  # of Beta(2, 2)
    kept = np.asarray(jax.vmap(lambda key: mixup(ONE, OTHER, key, alpha=2.0, probability=0.25)["label"][0])(keys))
    assert (kept == 1).mean() == pytest.approx(0.75, abs=0.03)


@BOTH
def test_they_keep_what_an_operator_promises(function: Callable[..., Record]) -> None:
    check_operator(function, {"image": np.ones((4, 4, 3), np.uint8), "label": np.ones(3, np.float32)}, alpha=0.5)
    assert function({"image": ONE["image"]}, {"image": OTHER["image"]}, jax.random.key(0)).keys() == {"image"}


@BOTH
@pytest.mark.parametrize(
    ("setting", "value", "says"), [("alpha", 0, "it is above 0"), ("probability", 1.5, "it is from 0 to 1")]
)
def test_settings_outside_their_range_are_refused(
    function: Callable[..., Record], setting: str, value: float, says: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{function.__name__}\.{setting} = {float(value)}; {says}"):
        function(ONE, OTHER, jax.random.key(0), **{setting: value})


ARRAYS = {
    name: {
        "image": np.random.default_rng(seed).integers(0, 256, (size, 4, 3, 1), np.uint8),
        "label": np.arange(size) % 3,
        "number": np.arange(size) + 100 * seed,
    }
    for seed, (name, size) in enumerate({"a": 37, "b": 20}.items())
}
OPERATORS = "operators=[to_float,{one_hot:{num_classes:6}},{mixup:{alpha:1.0}},cutmix]"

SHUFFLED = "batch.shuffle=true"


def load(*overrides: str) -> datamix.Pipeline:
    return datamix.load("batch.size=6", OPERATORS, *overrides, sources=ARRAYS)


def joined(shards: list[Any]) -> dict[str, np.ndarray]:
    return {leaf: np.concatenate([np.asarray(shard[leaf]) for shard in shards]) for leaf in shards[0]}


@pytest.mark.slow
@pytest.mark.parametrize("more", [("data.placement=host", "batch.size=7", "batch.remainder=keep"), (SHUFFLED,)])
def test_a_batch_is_the_same_whole_in_shards_and_by_index(more: tuple[str, ...]) -> None:
    pipeline = load("stop=exhaust_once", *more)
    resident = load("stop=exhaust_once", *more, "data.placement=device")
    batches = list(pipeline)
    assert any(((batch["label"] > 0).sum(axis=1) > 1).any() for batch in batches)
    shards = zip(*(pipeline.iterator(shard=(rank, 3)) for rank in range(3)), strict=True)
    for step, (batch, parts) in enumerate(zip(batches, shards, strict=True)):
        for other in (joined(list(parts)), pipeline[step], resident[step]):
            assert other.keys() == batch.keys()
            for leaf in batch:
                np.testing.assert_array_equal(other[leaf], batch[leaf], err_msg=leaf)


@pytest.mark.slow
def test_devices_that_compute_rows_of_their_own_read_their_partners() -> None:
    compiled, start = load("stop=forever").compiled, load("stop=forever").start(3)
    whole, _ = jax.jit(lambda compiled, cursor: compiled.next(cursor))(compiled, start)
    rows = jax.jit(lambda compiled, cursor, first: compiled.next(cursor, (first, 2))[0])
    parts = joined([rows(compiled, start, np.uint32(first)) for first in (0, 2, 4)])
    for leaf in whole:
        np.testing.assert_array_equal(parts[leaf], whole[leaf], err_msg=leaf)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "host"])
def test_workers_that_take_turns_and_weights_that_follow_training_give_the_same_pairs(placement: str) -> None:
    pipeline = load("stop=forever", f"data.placement={placement}")
    turns = [pipeline.iterator(start=rank, stride=2) for rank in range(2)]
    adaptive = iter(load("stop=forever", f"data.placement={placement}", "adapt=odm", "adapt.every=4"))
    for step in range(3):  # before the weights change
        for batch in (next(turns[step % 2]), next(adaptive)):
            for leaf, values in pipeline[step].items():
                np.testing.assert_array_equal(batch[leaf], values, err_msg=leaf)


def swapped(record: Record, partner: Record) -> Record:
    return record | {"other": partner["number"]}


@pytest.fixture
def swap() -> Any:
    with datamix.testing.registered():
        yield datamix.operator(paired=True)(swapped)


@pytest.mark.parametrize("size", [6, 7])
def test_each_batch_is_divided_into_pairs_that_change_with_the_step_and_the_seed(swap: Any, size: int) -> None:
    def pairs(seed: int) -> list[list[tuple[int, int]]]:
        pipeline = datamix.mix(
            ARRAYS, shared_operators=[swap], batch_size=size, seed=seed, stop="exhaust_once", remainder="keep"
        )
        return [[*zip(batch["number"].tolist(), batch["other"].tolist(), strict=True)] for batch in pipeline]

    places = set()
    for batch in pairs(0):
        assert {(other, number) for number, other in batch} == {*batch}  # a partner's partner
        assert sum(number == other for number, other in batch) == len(batch) % 2
        numbers = [number for number, _ in batch]
        places.add(tuple(numbers.index(other) for _, other in batch))
    assert len(places) > 5
    assert any({number // 100, other // 100} == {0, 1} for batch in pairs(0) for number, other in batch)
    assert pairs(0) == pairs(0) != pairs(1)


@pytest.mark.slow
def test_an_iterator_goes_on_from_its_state_with_the_same_pairs() -> None:
    pipeline = load("stop=forever")
    iterator = pipeline.iterator()
    for _ in range(4):
        next(iterator)
    state, expected = iterator.state(), next(iterator)
    again = load("stop=forever").iterator()
    again.restore(state)
    for leaf, values in next(again).items():
        np.testing.assert_array_equal(values, expected[leaf])
    with pytest.raises(StateError, match=r"batch\.size"):
        load("stop=forever", "batch.size=12").iterator().restore(state)


def test_a_source_cannot_pair_its_records_before_the_mix() -> None:
    with pytest.raises(ConfigError, match=r"^source\.a\.operators: mixup takes pairs .* Put it into operators="):
        datamix.load("source.a.operators=[mixup]", sources=ARRAYS)


def test_class_numbers_are_not_blended() -> None:
    with pytest.raises(SpecError, match=r"^mixup: operator 'mixup' blends labels, .* Put one_hot: \{num_classes: N\}"):
        datamix.load("operators=[to_float,mixup]", sources=ARRAYS)


def test_views_to_evaluate_on_pair_nothing() -> None:
    view = load("stop=forever").view(None)
    assert all((batch["label"].max(axis=1) == 1).all() for batch in view)
