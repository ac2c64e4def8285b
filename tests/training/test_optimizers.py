"""Optimisers and schedules by name: Optax's own results, with rates that compile nothing."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from datamix import registry
from datamix.errors import ConfigError
from datamix.training.optimizers import rates, set_rate, with_rate_in_state

STEPS, RATE = 20, 0.03

# Settings, and the same schedule as Optax makes it for a peak of RATE.
SCHEDULES = {
    "constant": ({}, optax.constant_schedule(RATE)),
    "cosine": ({"end": 0.1}, optax.cosine_decay_schedule(RATE, STEPS, 0.1)),
    "exponential": ({"every": 5, "decay": 0.5}, optax.exponential_decay(RATE, 5, 0.5)),
    "linear": ({"end": 0.2}, optax.linear_schedule(RATE, 0.2 * RATE, STEPS)),
    "warmup_cosine": ({"warmup": 0.25}, optax.warmup_cosine_decay_schedule(0.0, RATE, 5, STEPS)),
}
OPTIMIZERS = [
    ("adam", {}),
    ("adam", {"b1": 0.5, "eps": 1e-3}),
    ("adamw", {"weight_decay": 0.1}),
    ("lion", {}),
    ("rmsprop", {}),
    ("rmsprop", {"momentum": 0.9}),
    ("sgd", {}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
]
FIRST = {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.1)}
GRADIENTS = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), (STEPS, *leaf.shape)), FIRST)


def ours(name, settings, steps_rates, num_traces=None):
    """Parameters after each step, by an optimiser whose rates are handed to the compiled loop."""
    transform = with_rate_in_state(registry.lookup("optimizer", name), settings)

    @jax.jit
    def run(steps_rates):
        if num_traces is not None:
            num_traces.append(1)

        def step(carry, inputs):
            (params, state), (gradients, rate) = carry, inputs
            updates, state = transform.update(gradients, set_rate(state, rate), params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return lax.scan(step, (FIRST, transform.init(FIRST)), (GRADIENTS, steps_rates))[1]

    return run if num_traces is not None else run(steps_rates)


def optaxs(transform):
    """Parameters after each step, by Optax alone, one step after the other."""
    params, state, seen = FIRST, transform.init(FIRST), []
    for step in range(STEPS):
        gradients = jax.tree.map(lambda leaf, step=step: leaf[step], GRADIENTS)
        updates, state = transform.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *seen)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS, ids=lambda part: str(part))
def test_every_optimiser_under_every_schedule_is_optaxs_own(name, settings, schedule):
    schedule_settings, theirs = SCHEDULES[schedule]
    steps_rates = rates(registry.lookup("schedule", schedule)(STEPS, **schedule_settings), RATE, STEPS)
    expected = optaxs(getattr(optax, name)(theirs, **settings))
    result = ours(name, settings, steps_rates)
    for leaf in FIRST:
        assert result[leaf].dtype == jnp.float32
        np.testing.assert_allclose(result[leaf], expected[leaf], rtol=2e-5, atol=1e-6)
        assert np.ptp(result[leaf], axis=0).max() > 0.01  # it does move


def test_the_list_above_holds_all_of_them():
    assert set(registry.names("optimizer")) == {name for name, _ in OPTIMIZERS}
    assert set(registry.names("schedule")) == set(SCHEDULES)


def test_momentum_keeps_the_rate_of_its_own_step():
    """RMSProp puts the rate into its momentum: after the rate has fallen to 0, what was gathered goes on moving."""
    steps_rates = np.float32([RATE] * 10 + [0.0] * 10)
    params = ours("rmsprop", {"momentum": 0.9}, steps_rates)["w"]
    moved = np.abs(np.diff(params, axis=0)).min(axis=1)
    assert (moved[9:] > 0).all()


def test_another_rate_or_schedule_traces_nothing():
    num_traces = []
    run = ours("rmsprop", {"momentum": 0.9}, None, num_traces)
    results = [run(np.float32(rate) * np.linspace(1, end, STEPS, dtype=np.float32))["w"] for rate in (0.1, 0.01)
               for end in (0, 1)]  # fmt: skip
    assert len(num_traces) == 1
    assert len({float(result[-1, 0]) for result in results}) == 4


@pytest.mark.slow
def test_rates_side_by_side_are_rates_alone():
    """Under `vmap` over rates, every replica keeps the rate of its own in its state."""
    run = ours("adam", {}, None, [])
    steps_rates = np.float32([[0.1] * STEPS, [0.01] * STEPS])
    together = jax.vmap(run)(steps_rates)["w"]
    for replica, alone in enumerate(steps_rates):
        np.testing.assert_allclose(together[replica], run(alone)["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adam", {"b1": 1.0}, r"^optimizer\.b1 = 1\.0; it is 0 or more, and below 1\.$"),
        ("adam", {"b1": 1.5}, r"^optimizer\.b1 = 1\.5; it is 0 or more, and below 1\.$"),
        ("adamw", {"b2": -0.1}, r"^optimizer\.b2 = -0\.1; it is 0 or more, and below 1\.$"),
        ("adam", {"eps": -1}, r"^optimizer\.eps = -1; it is above 0\.$"),
        ("adamw", {"eps": 0}, r"^optimizer\.eps = 0; it is above 0\.$"),
        ("adamw", {"weight_decay": -1}, r"^optimizer\.weight_decay = -1; it is 0 or more\.$"),
        ("lion", {"b1": 2}, r"^optimizer\.b1 = 2; it is 0 or more, and below 1\.$"),
        ("lion", {"weight_decay": -1}, r"^optimizer\.weight_decay = -1; it is 0 or more\.$"),
        ("rmsprop", {"decay": 2}, r"^optimizer\.decay = 2; it is 0 or more, and below 1\.$"),
        ("rmsprop", {"momentum": -1}, r"^optimizer\.momentum = -1; it is 0 or more, and below 1\.$"),
        ("sgd", {"momentum": 1.5}, r"^optimizer\.momentum = 1\.5; it is 0 or more, and below 1\.$"),
        (
            "sgd",
            {"momentum": None, "nesterov": True},
            r"^optimizer\.nesterov = True; it is of a momentum, and there is none\. Set optimizer\.momentum=0\.9\.$",
        ),
    ],
)
def test_settings_outside_of_their_bounds_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        registry.lookup("optimizer", name)(0.1, **settings)
    registry.lookup("optimizer", "sgd")(0.1, momentum=0.9, nesterov=True)  # as the last one advises


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cosine", {"end": -1}, r"^optimizer\.schedule\.cosine\.end = -1; it is 0 or more\.$"),
        ("linear", {"end": -0.5}, r"^optimizer\.schedule\.linear\.end = -0\.5; it is 0 or more\.$"),
        ("warmup_cosine", {"end": -1}, r"^optimizer\.schedule\.warmup_cosine\.end = -1; it is 0 or more\.$"),
        (
            "exponential",
            {"every": 0, "decay": 0.5},
            r"^optimizer\.schedule\.exponential\.every = 0; it is 1 or more\.$",
        ),
        (
            "exponential",
            {"every": 5, "decay": 0.0},
            r"^optimizer\.schedule\.exponential\.decay = 0\.0; it is above 0\.$",
        ),
        (
            "warmup_cosine",
            {"warmup": 0.99},
            r"^optimizer\.schedule\.warmup_cosine\.warmup = 0\.99; of 10 steps it leaves none to the cosine\. "
            r"A smaller one, such as 0\.5, does\.$",
        ),
    ],
)
def test_settings_of_schedules_outside_of_their_bounds_are_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        registry.lookup("schedule", name)(10, **settings)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_half_of_the_steps_leave_some_to_the_cosine(steps):
    schedule = registry.lookup("schedule", "warmup_cosine")(steps, warmup=0.5)
    assert np.isfinite(rates(schedule, 0.1, steps)).all()


def test_schedules():
    def rounded(name, **settings):
        result = rates(registry.lookup("schedule", name)(10, **settings), 2.0, 10)
        assert (result.dtype, result.shape) == (np.float32, (10,))
        return [round(float(rate), 4) for rate in result]

    assert rounded("constant") == [2.0] * 10
    assert rounded("linear", end=0.5) == [round(2 - 0.1 * step, 4) for step in range(10)]
    assert rounded("exponential", every=5, decay=0.25, staircase=True) == [2.0] * 5 + [0.5] * 5
    assert rounded("cosine")[::5] == [2.0, 1.0]
    assert rounded("warmup_cosine", warmup=0.2)[:3] == [0.0, 1.0, 2.0]
    with pytest.raises(ConfigError, match=r"warmup = 5; it is a share of the steps, 0 or more and below 1\.$"):
        rounded("warmup_cosine", warmup=5)
    for name in registry.names("schedule"):
        takes = inspect.signature(registry.lookup("schedule", name)).parameters
        assert next(iter(takes)).endswith("steps")
