"""Iterators whose weights follow losses: when they change, what is handed out, and where it is restored."""

from __future__ import annotations

import json
import re
from itertools import islice

import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, StateError
from datamix.testing import traces
from threads import run_in_threads

SIZES = {"a": 50, "b": 20, "c": 70}
SOURCES = {
    name: {"image": np.full((n, 2, 2, 1), i, np.uint8), "no": np.arange(n)} for i, (name, n) in enumerate(SIZES.items())
}
PLACEMENTS = ("device", "host")


def mixed(*overrides):
    basic = ["stop=forever", "batch.size=8", "adapt=loss_temperature", "adapt.every=4"]
    return datamix.load(*basic, *overrides, sources=SOURCES)


def losses_of(batch, step):
    """A loss for each source that the batch has, which depends on the records."""
    return {name: 0.01 * step * i + batch["no"][batch["source_id"] == i].mean() / 50
            for i, name in enumerate(SIZES) if (batch["source_id"] == i).any()}  # fmt: skip


def taken(iterator, steps, **kwargs):
    batches = []
    for batch in islice(iterator, steps):
        batches.append({leaf: np.array(values) for leaf, values in batch.items()})
        iterator.update(losses_of(batch, iterator.step))
    return batches


def same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for leaf in batch:
            np.testing.assert_array_equal(batch[leaf], other[leaf])


def counts(batches):
    """The records of each source in each window of four steps."""
    source = np.asarray([batch["source_id"] for batch in batches]).reshape(-1, 32)
    return [np.bincount(row, minlength=3).tolist() for row in source]


@pytest.mark.parametrize(("placement", "lag"), [("device", 0), ("host", 1)])
def test_weights_hold_from_the_next_window_and_one_later_where_records_are_read_ahead(placement, lag):
    iterator = mixed(f"data.placement={placement}").iterator()
    batches = []
    for batch in islice(iterator, 16):
        batches.append(batch)
        iterator.update({"a": 5.0, "b": 0.0, "c": 0.0})
    windows = counts(batches)
    assert all(max(row) <= 11 for row in windows[: 1 + lag])
    assert all(row[0] >= 30 for row in windows[1 + lag :])
    assert iterator.weights["a"] == pytest.approx(0.97 * np.exp(5) / (np.exp(5) + 2) + 0.01)


def test_without_losses_the_mix_stays_as_it_begins():
    batches = list(islice(mixed("mix.ratio=2:1:1").iterator(), 8))
    assert counts(batches) == [[16, 8, 8]] * 2


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_restoring_at_every_step_gives_the_rest(placement):
    pipeline = mixed(f"data.placement={placement}", "batch.shuffle=true")
    iterator, batches, states = pipeline.iterator(), [], []
    for _ in range(14):
        states.append(json.loads(json.dumps(iterator.state())))
        batches += taken(iterator, 1)
    assert len({tuple(row) for row in counts(batches[:12])}) > 1
    for step, state in enumerate(states):
        resumed = pipeline.iterator()
        if step % 2:
            taken(resumed, 7)
        resumed.restore(state)
        assert resumed.step == step
        same(taken(resumed, 14 - step), batches[step:])
        resumed.close()
    iterator.close()


def test_shards_of_ranks_that_tell_the_same_losses_are_the_batch():
    pipeline = mixed()
    whole, ranks = pipeline.iterator(), [pipeline.iterator(shard=(rank, 3)) for rank in range(3)]
    for _ in range(13):
        batch, parts = next(whole), [next(rank) for rank in ranks]
        joined = {leaf: np.concatenate([part[leaf] for part in parts]) for leaf in batch}
        same([joined], [batch])
        for iterator in (whole, *ranks):
            iterator.update(losses_of(batch, whole.step))


def test_outputs_are_of_the_library_that_is_asked_for():
    expected = taken(mixed().iterator(), 6)
    batches = list(islice(mixed().iterator(output="jax"), 4))
    same([{leaf: np.asarray(values) for leaf, values in batch.items()} for batch in batches], expected[:4])
    pytest.importorskip("torch", reason="PyTorch is not installed")
    batches = list(islice(mixed().iterator(output="torch"), 4))
    same([{leaf: values.numpy() for leaf, values in batch.items()} for batch in batches], expected[:4])


def test_a_second_iterator_compiles_nothing():
    pipeline = mixed()
    taken(pipeline.iterator(), 6)
    with traces() as counted:
        taken(pipeline.iterator(), 6)
    assert not counted


def test_a_mix_of_some_batches_ends():
    batches = list(mixed("stop.batches=6").iterator())
    assert len(batches) == 6


def test_weights_of_losses_leave_the_mix_as_it_is():
    iterator = datamix.mix(SOURCES, stop="forever", batch_size=8, adapt={"rule": "doremi", "every": 4}).iterator()
    batches = []
    for batch in islice(iterator, 12):
        batches.append(batch)
        iterator.update([3.0, 0.0, np.nan])
    assert all(max(row) <= 11 for row in counts(batches))
    assert iterator.weights["a"] > iterator.weights["c"] > iterator.weights["b"]
    metrics = iterator.metrics()
    assert (metrics["step"], metrics["weights"]) == (12, iterator.weights)
    assert [row["records"] for row in metrics["sources"].values()] == np.sum(counts(batches), axis=0).tolist()
    assert metrics["sources"]["b"]["epochs"] == metrics["sources"]["b"]["records"] / 20
    assert iterator.metrics()["sources"]["a"]["share_lately"] is None


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"d": 1.0}, r"^losses\['d'\]: there is no source 'd' in this mix\. Known: a, b, c\.$"),
        ([1.0, 2.0], r"^losses = \[1\.0, 2\.0\]; it is a number that float32 holds \(.*\) for each of a, b, c\.$"),
        ({"a": float("inf")}, r"^losses = \{'a': inf\}; it is a number that float32 holds"),
        ({"a": 1e39}, r"^losses = \{'a': 1e\+39\}; it is a number that float32 holds"),
        ({"a": "high"}, r"^losses = \{'a': 'high'\}; it is a number that float32 holds"),
    ],
)
def test_what_are_no_losses_is_refused(losses, message):
    with pytest.raises(ConfigError, match=message):
        mixed().iterator().update(losses)


def test_a_state_of_another_mix_or_none_is_refused():
    pipeline = mixed()
    iterator = pipeline.iterator()
    state = iterator.state()
    with pytest.raises(StateError, match=r"^this state was taken under .*: adapt\.every was 4 and is 2; restore"):
        mixed("adapt.every=2").iterator().restore(state)
    with pytest.raises(StateError, match="this is no state of datamix"):
        iterator.restore({"step": 3})
    with pytest.raises(StateError, match="is damaged: its window or its arrays do not fit"):
        iterator.restore(state | {"arrays": state["arrays"][1:]})
    refused = (
        "adapt = 'loss_temperature'; a mix that follows losses cannot be changed on the way. "
        "Restore its state under the same settings, without changed='mix' "
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(refused)}"):
        iterator.restore(state, changed="mix")
    iterator.restore(state)


@pytest.mark.parametrize(("placement", "other"), [("device", "host"), ("host", "device")])
def test_a_state_of_another_placement_says_which(placement, other):
    iterator = mixed(f"data.placement={placement}").iterator()
    next(iterator)
    state, expected = iterator.state(), next(iterator)
    with pytest.raises(StateError, match=rf"records on the {placement}, .* Set data\.placement={placement}\.$"):
        mixed(f"data.placement={other}").iterator().restore(state)
    resumed = mixed(f"data.placement={placement}").iterator()
    resumed.restore(state)
    for leaf, values in next(resumed).items():
        np.testing.assert_array_equal(values, expected[leaf])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_threads_that_share_an_iterator_take_each_batch_once(placement):
    mix = mixed(f"data.placement={placement}")
    iterator, taken, metrics = mix.iterator(), [], []

    def take(_):
        for batch in islice(iterator, 50):
            taken.append(tuple(zip(batch["source_id"].tolist(), batch["no"].tolist(), strict=True)))
            metrics.append(iterator.metrics())

    run_in_threads(take)
    expected = [tuple(zip(b["source_id"].tolist(), b["no"].tolist(), strict=True)) for b in islice(mix.iterator(), 200)]
    assert sorted(taken) == sorted(expected)
    assert all(sum(row["records"] for row in each["sources"].values()) == 8 * each["step"] for each in metrics)
