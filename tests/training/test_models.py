"""Models and optimisers by name, and those of a user's own."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from flax import nnx

from datamix import registry
from datamix.errors import ConfigError
from datamix.training import models
from datamix.training.transformer import Transformer

CONF = Path(__file__).resolve().parents[2] / "conf"


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("kind", ["model", "optimizer"])
def test_every_registered_name_has_a_file_with_all_its_settings(kind: str) -> None:
    assert files(kind) == [name for name in registry.names(kind) if "doctest" not in name]
    common = {"_target_", "learning_rate", "schedule"} if kind == "optimizer" else {"_target_"}
    for name in files(kind):
        node = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
        takes = registry.settings(registry.lookup(kind, name))
        assert node["_target_"] == name
        assert set(node) - common == set(takes)
        if kind == "optimizer":
            settings = {key: node[key] for key in takes if name != "sgd"}  # whose file chooses a momentum
            assert settings == {key: takes[key].default for key in settings}


def test_a_convolution_is_a_convolution() -> None:
    """The product over patches, against XLA's own convolution with the same kernel."""
    image = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    layer = models.Convolution(3, 5, nnx.Rngs(1))
    kernel = layer.kernel.kernel[...].reshape(3, 3, 3, 5)
    sides, names = ((1, 1), (1, 1)), ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(image, kernel, (2, 2), sides, dimension_numbers=names)
    result = jax.jit(lambda image: layer(image))(image)
    assert result.shape == (2, 4, 3, 5)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (models.Mlp, {"hidden": (8, -5)}, r"^model.hidden = \[8, -5\]; each is 1 or more\.$"),
        (models.Cnn, {"features": (0,)}, r"^model.features = \[0\]; each"),
        (models.Cnn, {"hidden": 0}, r"^model.hidden = 0; it is 1 or more\.$"),
        (Transformer, {"hidden": 0}, r"^model.hidden = 0; it is 1 or more\.$"),
        (Transformer, {"layers": -1}, r"^model.layers = -1; it is 1 or more\.$"),
        (Transformer, {"dropout": 1.0}, r"^model.dropout = 1.0; it is 0 or more, and below 1\.$"),
        (models.Cnn, {"dropout": -0.5}, r"^model.dropout = -0.5; it is 0 or more, and below 1\.$"),
        (models.Mlp, {"dropout": 2}, r"^model.dropout = 2; it is 0 or more, and below 1\.$"),
    ],
)
def test_settings_of_a_model_are_in_their_ranges(model, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        model((8, 8, 1), 3, nnx.Rngs(0), **settings)
