from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datamix.errors import ConfigError, SpecError
from datamix.operators.text import mask_tokens, next_token_targets, prefix_source, truncate
from datamix.testing import check_operator

TOKENS = [5, 6, 9, 7, 8, 9, 0, 0]
SEGMENTS = [1, 1, 1, 2, 2, 2, 0, 0]
RECORD = {
    "tokens": jnp.array(TOKENS, jnp.int32),
    "segment_ids": jnp.array(SEGMENTS, jnp.int32),
    "positions": jnp.array([0, 1, 2, 0, 1, 2, 0, 0], jnp.int32),
    "num_tokens": jnp.int32(6),
}


def test_targets_never_cross_documents_or_padding():
    record = next_token_targets(RECORD)
    assert record["targets"].tolist() == [6, 9, 0, 8, 9, 0, 0, 0]
    assert record["loss_mask"].tolist() == [1, 1, 0, 1, 1, 0, 0, 0]
    assert record["targets"].dtype == jnp.int32
    check_operator(next_token_targets, RECORD)


def test_targets_count_where_the_predicted_token_is_of_a_completion():
    mask = jnp.array([0, 0, 1, 0, 1, 1, 0, 0], bool)
    assert next_token_targets(RECORD | {"loss_mask": mask})["loss_mask"].tolist() == [0, 1, 0, 1, 1, 0, 0, 0]


def test_tokens_without_segments_are_one_document():
    assert next_token_targets({"tokens": jnp.array([3, 4, 5])})["loss_mask"].tolist() == [True, True, False]


@pytest.mark.slow
def test_masking_hides_some_tokens_and_can_be_undone():
    length = 20_000
    tokens = jnp.asarray(np.random.default_rng(0).integers(2, 100, length), jnp.int32)
    segment = jnp.where(jnp.arange(length) < 15_000, 1, 0)
    before = {"tokens": jnp.where(segment > 0, tokens, 0), "segment_ids": segment}
    record = mask_tokens(before, jax.random.key(0), mask_token=1, vocab_size=100, keep=[7])
    hidden = record["loss_mask"]
    assert not hidden[15_000:].any()
    assert not hidden[before["tokens"] == 7].any()
    assert float(hidden[:15_000].mean()) == pytest.approx(0.15, abs=0.01)
    masked = (record["tokens"] == 1)[hidden].mean()
    kept = (record["tokens"] == before["tokens"])[hidden].mean()
    assert (float(masked), float(kept)) == (pytest.approx(0.8, abs=0.03), pytest.approx(0.1, abs=0.03))
    assert jnp.array_equal(jnp.where(hidden, record["targets"], record["tokens"]), before["tokens"])
    check_operator(
        mask_tokens, {leaf: values[-5_040:-4_960] for leaf, values in before.items()}, mask_token=1, vocab_size=100
    )


def test_truncating_counts_the_tokens_that_are_left():
    record = truncate(RECORD, length=4)
    assert {leaf: value.tolist() for leaf, value in record.items()} == {
        "tokens": [5, 6, 9, 7],
        "segment_ids": [1, 1, 1, 2],
        "positions": [0, 1, 2, 0],
        "num_tokens": 4,
    }
    assert int(truncate(RECORD, length=7)["num_tokens"]) == 6
    check_operator(truncate, RECORD, length=4)


def test_a_prefix_is_of_the_first_segment():
    record = prefix_source(RECORD | {"loss_mask": jnp.array(SEGMENTS, bool)}, token=99)
    assert {leaf: value.tolist() for leaf, value in record.items()} == {
        "tokens": [99, *TOKENS[:-1]],
        "segment_ids": [1, *SEGMENTS[:-1]],
        "positions": [0, 1, 2, 3, 0, 1, 2, 0],
        "num_tokens": 7,
        "loss_mask": [0, 1, 1, 1, 1, 1, 1, 0],
    }
    full = {"tokens": jnp.arange(3), "num_tokens": jnp.int32(3)}
    assert prefix_source(full, token=9) | {} == {"tokens": pytest.approx([9, 0, 1]), "num_tokens": 3}
    check_operator(prefix_source, RECORD, token=99)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: truncate(RECORD, length=9), ConfigError, r"truncate\.length = 9; it is from 1 to 8\."),
        (
            lambda: mask_tokens(RECORD, jax.random.key(0), mask_token=9, vocab_size=9),
            ConfigError,
            r"mask_token = 9; it is one of 9 tokens from 0\.",
        ),
        (
            lambda: mask_tokens(RECORD, jax.random.key(0), mask_token=1, vocab_size=9, probability=2.0),
            ConfigError,
            r"probability = 2\.0; it is from 0 to 1\.",
        ),
        (lambda: next_token_targets({"token": 1}), SpecError, "records have no leaf 'tokens'. Did you mean 'token'"),
        (
            lambda: truncate({"tokens": jnp.zeros((2, 2))}, length=1),
            SpecError,
            r"takes tokens, int \[length\]; they are float32 \[2, 2\]\.",
        ),
        (lambda: prefix_source(next_token_targets(RECORD), token=1), SpecError, "comes before the one that adds"),
    ],
)
def test_mistakes_say_how_to_mend_them(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
