"""Models and optimisers by name, and those of a user's own."""

from __future__ import annotations

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml
from flax import nnx

from datamix import registry
from datamix.errors import ConfigError
from datamix.training import models, optimizers
from datamix.training.learner import Learner

CONF = Path(__file__).resolve().parents[2] / "conf"


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("kind", ["model", "optimizer"])
def test_every_registered_name_has_a_file_with_all_its_settings(kind: str) -> None:
    assert files(kind) == [name for name in registry.names(kind) if "doctest" not in name]
    common = {"_target_", "learning_rate", "schedule"} if kind == "optimizer" else {"_target_"}
    for name in files(kind):
        held = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
        takes = registry.settings(registry.lookup(kind, name))
        assert held["_target_"] == name
        assert set(held) - common == set(takes)
        if kind == "optimizer":
            given = {key: held[key] for key in takes if name != "sgd"}  # whose file chooses a momentum
            assert given == {key: takes[key].default for key in given}


def test_a_convolution_is_a_convolution() -> None:
    """The product over patches, against XLA's own convolution with the same kernel."""
    image = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    layer = models.Convolution(3, 5, nnx.Rngs(1))
    kernel = layer.kernel.kernel[...].reshape(3, 3, 3, 5)
    sides, names = ((1, 1), (1, 1)), ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(image, kernel, (2, 2), sides, dimension_numbers=names)
    found = jax.jit(lambda image: layer(image))(image)
    assert found.shape == (2, 4, 3, 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "rmsprop", "sgd"])
def test_an_update_times_the_rate_is_optaxs_own(name: str) -> None:
    params, rate = {"w": jnp.array([0.5, -1.0, 2.0])}, 0.01
    settings = {"momentum": 0.9} if name == "sgd" else {}
    ours = registry.lookup("optimizer", name)(**settings)
    theirs = getattr(optax, name)(rate, **settings)
    state, their_state = ours.init(params), theirs.init(params)
    for step in range(3):
        gradients = {"w": jnp.array([1.0, -2.0, 0.1]) * (step + 1)}
        updates, state = ours.update(gradients, state, params)
        expected, their_state = theirs.update(gradients, their_state, params)
        np.testing.assert_allclose(rate * updates["w"], expected["w"], rtol=1e-6)


def test_schedules() -> None:
    def rates(name: str, **settings: float) -> list[float]:
        found = optimizers.rates(registry.lookup("schedule", name)(10, **settings), 2.0, 10)
        assert (found.dtype, found.shape) == (np.float32, (10,))
        return [round(float(rate), 4) for rate in found]

    assert rates("constant") == [2.0] * 10
    assert rates("linear", end=0.5) == [round(2 - 0.1 * step, 4) for step in range(10)]
    assert rates("exponential", every=5, decay=0.25, staircase=True) == [2.0] * 5 + [0.5] * 5
    assert rates("cosine")[::5] == [2.0, 1.0]
    assert rates("warmup_cosine", warmup=0.2)[:3] == [0.0, 1.0, 2.0]
    assert {"constant", "cosine", "exponential", "linear", "warmup_cosine"} == set(registry.names("schedule"))
    for name in registry.names("schedule"):
        takes = inspect.signature(registry.lookup("schedule", name)).parameters
        assert next(iter(takes)).endswith("steps")


def learner(model: object, **settings: object) -> Learner:
    return Learner(
        model=model,  # type: ignore[arg-type]
        model_settings=tuple(settings.items()),
        optimizer=optimizers.adam,
        optimizer_settings=(),
        shape=(4, 4, 1),
        num_classes=3,
    )


def test_a_model_that_gives_no_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_HELD", {kind: dict(held) for kind, held in registry._HELD.items()})

    @models.model
    class Mean(nnx.Module):
        def __init__(self, shape: object, num_classes: int, rngs: nnx.Rngs) -> None: ...

        def __call__(self, image: jax.Array) -> jax.Array:
            return image.mean()

    @models.model
    class Flat(nnx.Module):
        def __init__(self, shape: object, num_classes: int, rngs: nnx.Rngs) -> None:
            self.head = nnx.Linear(5, num_classes, rngs=rngs)

        def __call__(self, image: jax.Array) -> jax.Array:
            return self.head(image)

    with pytest.raises(ConfigError, match=r"model=mean must give logits \[batch, 3\]; for two images it gave "):
        learner(Mean).check()
    with pytest.raises(ConfigError, match=r"model=flat: it cannot take images \[4, 4, 1\]: "):
        learner(Flat).check()
    learner(models.Cnn, features=(2,), hidden=4).check()
    assert learner(models.Linear).num_parameters() == 16 * 3 + 3
    assert learner(models.Mlp, hidden=(5,)).num_parameters() == 16 * 5 + 5 + 5 * 3 + 3
