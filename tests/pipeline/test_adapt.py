"""Weights that follow losses: windows, warm-up, floor and cap, from a policy's weights to those of the cursor."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix import registry
from datamix.errors import ConfigError
from datamix.pipeline.lookup.credit import TOTAL

SIZES = {"a": 40, "b": 24, "c": 200}
SOURCES = {name: {"x": np.arange(size)} for name, size in SIZES.items()}
TRACED: list[str] = []


def mixed(*overrides, rule="loss_temperature"):
    return datamix.load(f"adapt={rule}", "stop=forever", "batch.size=8", *overrides, sources=SOURCES)


@partial(jax.jit, static_argnums=(0, 3))
def run(adapt, compiled, begun, steps, losses):
    """Sources and records of some steps, and the weights in each."""
    TRACED.append(adapt.rule)

    def step(carry, loss):
        state, cursor = carry
        batch, after = compiled.next(cursor)
        count = jax.nn.one_hot(batch["source_id"], 3).sum(axis=0)
        weight = cursor.online.weight
        return adapt.observe(state, after, compiled.plan, loss * count, count, count), (batch, weight)

    return jax.lax.scan(step, begun, losses, length=steps)[1]


def steps_of(pipeline, losses):
    losses = jnp.asarray(losses, jnp.float32)
    batches, weights = run(pipeline.adapt, pipeline.compiled, pipeline.adapted(), len(losses), losses)
    return jax.device_get(batches), np.asarray(weights) / TOTAL


def test_weights_change_at_the_end_of_each_window_and_not_before_the_warmup_ends():
    losses = np.tile([0.0, 1.0, 2.0], (12, 1))
    _, weights = steps_of(mixed("adapt.every=3", "adapt.warmup=5", "adapt.floor=0.1"), losses)
    chosen = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum() * 0.7 + 0.1
    np.testing.assert_allclose(weights[:6], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(weights[6:], np.tile(chosen, (6, 1)), atol=1e-6)


def test_sources_go_through_their_epochs_in_the_order_of_the_static_mix():
    losses = np.random.default_rng(0).uniform(0, 3, (40, 3))
    pipeline = mixed("adapt.every=2")
    batches, weights = steps_of(pipeline, losses)
    source, record = batches["source_id"].reshape(-1), batches["x"].reshape(-1)
    static = pipeline.plan.take(0, 3000)
    for i in range(3):
        mine = record[source == i]
        assert mine.tolist() == static.record[static.source == i][: len(mine)].tolist()
    counts = np.cumsum(np.eye(3)[source], axis=0)
    assert np.abs(np.cumsum(np.repeat(weights, 8, axis=0), axis=0) - counts).max() <= 1 + np.log(3)


@pytest.mark.slow
def test_no_source_is_gone_through_more_often_than_allowed():
    losses = np.tile([3.0, 5.0, 0.0], (60, 1))
    free, _ = steps_of(mixed("adapt.every=2"), losses)
    assert np.bincount(free["source_id"].reshape(-1))[1] > 3 * 24
    capped, weights = steps_of(mixed("adapt.every=2", "adapt.max_epochs=2"), losses)
    counts = np.bincount(capped["source_id"].reshape(-1))
    assert (counts <= [80, 48, 400]).all()
    assert counts[1] >= 46
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_a_source_without_a_record_has_its_last_loss_and_before_that_the_mean():
    seen = []

    class Recording:
        def init(self, num_sources):
            return jnp.zeros(num_sources)

        def update(self, state, loss, count):
            jax.debug.callback(lambda loss: seen.append(np.asarray(loss).tolist()), loss)
            return state

        def weights(self, state):
            return jnp.asarray([1.0, 1.0, 0.0])

    with registry.registered():
        datamix.policy(Recording)
        settings = {"rule": "recording", "every": 1, "floor": 0}
        pipeline = datamix.mix(SOURCES, weights={"c": 0.01}, stop="forever", batch_size=8, adapt=settings)
        steps_of(pipeline, [[1.0, 2.0, 3.0], [2.0, 4.0, 9.0], [5.0, 5.0, 9.0]])
        jax.effects_barrier()
    assert seen == [[1, 2, 1.5], [2, 4, 3], [5, 5, 5]]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda state: jnp.ones(2), r"^adapt = .mine.; weights gives .*, not one number for each source\.$"),
        (lambda state: state + jnp.ones(2), r"^adapt = .mine.; it cannot be traced for 3 sources: "),
    ],
)
def test_a_policy_that_gives_no_weight_a_source_is_refused(weights, message):
    class Mine:
        def init(self, num_sources):
            return jnp.zeros(num_sources)

        def update(self, state, loss, count):
            return loss

        def weights(self, state):
            return weights(state)

    with registry.registered():
        datamix.policy(Mine)
        with pytest.raises(ConfigError, match=message):
            datamix.mix(SOURCES, stop="forever", adapt="mine")


def test_a_policy_whose_state_grows_is_refused():
    class Growing:
        def init(self, num_sources):
            return jnp.zeros(num_sources)

        def update(self, state, loss, count):
            return jnp.concatenate([state, loss])

        def weights(self, state):
            return state[:3]

    with registry.registered():
        datamix.policy(Growing)
        with pytest.raises(ConfigError, match=r"adapt = .growing.; update gives a state of other shapes than init"):
            datamix.mix(SOURCES, stop="forever", adapt="growing")


def test_pipelines_of_other_weights_share_the_compiled_code():
    pipeline = mixed("adapt.every=2")
    steps_of(pipeline, np.ones((4, 3)))
    TRACED.clear()
    _, weights = steps_of(pipeline.with_weights({"a": 5, "b": 1, "c": 1}), np.ones((4, 3)))
    np.testing.assert_allclose(weights[0], [5 / 7, 1 / 7, 1 / 7], atol=1e-6)
    assert TRACED == []


def test_what_needs_to_know_the_future_is_refused():
    pipeline = mixed()
    for ask in (lambda: pipeline[3], lambda: pipeline.where(2), lambda: pipeline.records(),
                lambda: pipeline.start(1), lambda: pipeline.iterator(start=2)):  # fmt: skip
        with pytest.raises(ConfigError, match=r"^adapt = 'loss_temperature'; which records a batch has depends on the"):
            ask()


def test_loaders_that_tell_no_losses_are_refused():
    pipeline = mixed()
    grain = pytest.importorskip("datamix.interop.grain", reason="Grain is not installed")
    torch = pytest.importorskip("datamix.interop.torch", reason="PyTorch is not installed")
    for make in (grain.batches, grain.dataset, torch.dataset):
        with pytest.raises(
            ConfigError, match=r"depends on the losses of those before it, and (a loader tells none|they)"
        ):
            make(pipeline)
