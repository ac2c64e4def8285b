"""The decoder: what a token may see, and what positions mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datamix.errors import ConfigError
from datamix.training.transformer import Transformer, rotated

TOKENS = jnp.array([[5, 6, 7, 5, 6, 8, 9, 0]])
SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 2, 3, 0]])
POSITIONS = jnp.array([[0, 1, 2, 0, 1, 2, 0, 0]])


def small(**settings) -> Transformer:
    return Transformer((8,), 11, nnx.Rngs(0), **{"width": 16, "layers": 2, "heads": 2, "hidden": 24} | settings)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_token_sees_itself_and_those_before_it_in_its_segment(dtype):
    """By gradients: how the logits at each place change with what each token is embedded as."""
    model = small(dtype=dtype)

    def logits(embedded):
        other = nnx.clone(model)
        other.embed = Given(embedded, model.embed)
        return (other(TOKENS, SEGMENTS, POSITIONS)[0] ** 2).sum(axis=-1)

    influence = jax.jacobian(logits)(model.embed(TOKENS).astype(jnp.float32))  # [place, 1, token, width]
    seen = np.abs(np.asarray(influence[:, 0], np.float32)).sum(axis=-1) > 0
    segments, places = np.asarray(SEGMENTS[0]), np.arange(8)
    expected = (segments[:, None] == segments) & (places[:, None] >= places)
    np.testing.assert_array_equal(seen, expected)


class Given(nnx.Module):
    """Embeddings that are given, so that gradients can be taken by them."""

    def __init__(self, values, embed):
        self.values, self.embed = nnx.Variable(values), embed

    def __call__(self, tokens):
        return self.values[...].astype(self.embed.dtype)

    def attend(self, values):
        return self.embed.attend(values)


@pytest.mark.slow
def test_a_document_is_predicted_alike_wherever_it_lies_in_a_record():
    model = small()
    packed = model(TOKENS, SEGMENTS, POSITIONS)
    alone = model(TOKENS[:, 3:6], jnp.ones((1, 3), int), jnp.arange(3)[None])
    np.testing.assert_allclose(packed[:, 3:6], alone, atol=1e-5)
    # Only differences of positions matter, and they do matter.
    np.testing.assert_allclose(model(TOKENS, SEGMENTS, POSITIONS + 40), packed, atol=1e-4)
    assert np.abs(model(TOKENS, SEGMENTS, 3 * POSITIONS) - packed).max() > 1e-4


def test_rotation_keeps_lengths():
    values = jax.random.normal(jax.random.key(0), (1, 8, 2, 6))
    turned = rotated(values, POSITIONS * 1000)
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(values, axis=-1), rtol=1e-4)
    np.testing.assert_array_equal(turned[:, 0], values[:, 0])


@pytest.mark.slow
def test_bfloat16_is_for_computing_alone():
    model, exact = small(dtype="bfloat16"), small()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype("float32")}
    logits = model(TOKENS, SEGMENTS, POSITIONS)
    assert logits.dtype == jnp.float32
    difference = np.abs(logits - exact(TOKENS, SEGMENTS, POSITIONS)).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, r"^model\.dtype = 'float16'.*bfloat16"),
        ({"heads": 3}, r"^model\.heads = 3; its heads are of an even width, and so 16, model\.width, "),
        ({"heads": 0}, r"^model\.heads = 0; "),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        small(**settings)
