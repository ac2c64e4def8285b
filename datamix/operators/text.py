"""Operators on records with `tokens` and, if these are from several documents, `segment_ids`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from datamix.errors import ConfigError, SpecError
from datamix.operators.base import Number, RandomKey, leaf_of, operator
from datamix.spec import Record

_ROWS = ("tokens", "segment_ids", "positions", "loss_mask", "targets")
"""The leaves with one element per token."""


@operator
def next_token_targets(record: Record) -> Record:
    """Add what a language model predicts: `targets`, the token after each one, and `loss_mask`, whether it counts.

    A target counts if it is in the same segment as its token, so neither across documents nor in padding, and if the
    record's own `loss_mask`, where there is one, is true for the predicted token. Otherwise, the target is 0. Tokens
    that end documents count.

    >>> record = {"tokens": jnp.array([5, 6, 9, 7, 0]), "segment_ids": jnp.array([1, 1, 1, 2, 0])}
    >>> record = next_token_targets(record)
    >>> record["targets"].tolist(), record["loss_mask"].tolist()
    ([6, 9, 0, 0, 0], [True, True, False, False, False])
    """
    tokens, segment = _tokens(record, "next_token_targets")
    counts = (segment == _next(segment)) & (segment > 0)
    if "loss_mask" in record:
        counts &= _next(record["loss_mask"].astype(bool))
    return record | {"targets": jnp.where(counts, _next(tokens), 0), "loss_mask": counts}


@operator(random=True, traced=("probability",))
def mask_tokens(
    record: Record,
    key: RandomKey,
    *,
    mask_token: int,
    vocab_size: int,
    probability: Number = 0.15,
    keep: list[int] | None = None,
) -> Record:
    """Hide some tokens for a model to restore: `targets` holds these, and 0 elsewhere; `loss_mask` marks them.

    Of the hidden tokens, 80 % become the mask, 10 % a random token, and 10 % stay. Padding is never hidden.

    Args:
      mask_token: The token that stands for a hidden one.
      vocab_size: The number of tokens in the vocabulary.
      probability: The probability that a token is hidden, from 0 to 1.
      keep: Tokens that are never hidden, such as the end of a document.

    Source: J. Devlin et al., BERT: pre-training of deep bidirectional transformers, NAACL (2019).
    """
    tokens, segment = _tokens(record, "mask_tokens")
    if not 0 <= mask_token < vocab_size:
        raise ConfigError(f"it is one of {vocab_size} tokens from 0", key="mask_tokens.mask_token", value=mask_token)
    if not isinstance(probability, jax.Array) and not 0 <= probability <= 1:
        raise ConfigError("it is from 0 to 1", key="mask_tokens.probability", value=probability)
    hidden_key, choice_key, other_key = jax.random.split(key, 3)
    hidden = jax.random.uniform(hidden_key, tokens.shape) < jnp.asarray(probability, jnp.float32)
    hidden &= (segment > 0) & ~jnp.isin(tokens, jnp.asarray(keep or [-1], tokens.dtype))
    choice = jax.random.uniform(choice_key, tokens.shape)
    other = jax.random.randint(other_key, tokens.shape, 0, vocab_size, tokens.dtype)
    shown = jnp.where(choice < 0.8, jnp.asarray(mask_token, tokens.dtype), jnp.where(choice < 0.9, other, tokens))
    targets = jnp.where(hidden, tokens, 0)
    return record | {"tokens": jnp.where(hidden, shown, tokens), "targets": targets, "loss_mask": hidden}


@operator
def truncate(record: Record, *, length: int) -> Record:
    """Keep the first `length` tokens, in all leaves with one element per token, and recount `num_tokens`."""
    tokens, segment = _tokens(record, "truncate")
    if not 1 <= length <= tokens.shape[0]:
        raise ConfigError(f"it is from 1 to {tokens.shape[0]}", key="truncate.length", value=length)
    return _counted(record | {leaf: record[leaf][:length] for leaf in _ROWS if leaf in record}, segment[:length])


@operator(traced=("token",))
def prefix_source(record: Record, *, token: int) -> Record:
    """Put a token in front of a record, which tells a model its source; the last token is dropped.

    It belongs to the record's first segment, and is not to be predicted; operators that add `targets` come later.
    """
    tokens, segment = _tokens(record, "prefix_source")
    if "targets" in record:
        raise SpecError("operator 'prefix_source' comes before the one that adds targets.")
    first = {"tokens": jnp.asarray(token, tokens.dtype)[None], "segment_ids": segment[:1]}
    after = {leaf: first.get(leaf, jnp.zeros(1, record[leaf].dtype)) for leaf in _ROWS if leaf in record}
    after = {leaf: jnp.concatenate([value, record[leaf][:-1]]) for leaf, value in after.items()}
    segment = jnp.concatenate([segment[:1], segment[:-1]])
    if "positions" in record:
        moved = jnp.where((segment == segment[0]) & (segment > 0), 1, 0).at[0].set(0)
        after["positions"] += moved.astype(record["positions"].dtype)
    return _counted(record | after, segment)


def _tokens(record: Record, name: str) -> tuple[jax.Array, jax.Array]:
    """The tokens, int [length], and the segment of each."""
    tokens = leaf_of(record, "tokens", name)
    if tokens.ndim != 1 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise SpecError(f"operator {name!r} takes tokens, int [length]; they are {tokens.dtype} {list(tokens.shape)}.")
    return tokens, record["segment_ids"] if "segment_ids" in record else jnp.ones(tokens.shape, jnp.int32)


def _next(row: jax.Array) -> jax.Array:
    """The element after each one; 0 after the last."""
    return jnp.concatenate([row[1:], jnp.zeros(1, row.dtype)])


def _counted(record: Record, segment: jax.Array) -> Record:
    if "num_tokens" not in record:
        return record
    return record | {"num_tokens": (segment > 0).sum(dtype=record["num_tokens"].dtype)}
