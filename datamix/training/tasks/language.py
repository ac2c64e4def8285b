"""Language modelling: the prediction of the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from datamix.errors import DataError, of_source
from datamix.operators.text import next_token_targets
from datamix.training.tasks.base import Batch, Sums, Task, family

_TEST_LOGITS = 2**24  # in a batch of a test


@dataclass(frozen=True, kw_only=True)
class Language(Task):
    """The next token after each token of a record; see `datamix.training.tasks.base.Task`.

    All tokens of a segment except its first are predicted, including ends of documents; if the records have a leaf
    `loss_mask`, only those that it marks. Records that have a leaf `targets` are used as they are.
    """

    leaf: str = "tokens"
    loss_unit: ClassVar[str] = "nats a token"
    judged_by: ClassVar[str] = "bits_per_byte"

    @property
    def says(self) -> str:
        return f"language model of {self.num_outputs:,} tokens, {self.shape[0]:,} a record"

    @property
    def mend(self) -> str:
        return "model=transformer takes them."

    @property
    def test_batch(self) -> int:
        return min(max(_TEST_LOGITS // (self.shape[0] * self.num_outputs), 1), 256)

    def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
        tokens = batch["tokens"]
        segments = batch["segment_ids"] if "segment_ids" in batch else jnp.ones_like(tokens)
        # They need not start at 0 in each segment: only their differences within a segment matter.
        positions = batch.get("positions", jnp.broadcast_to(jnp.arange(self.shape[0]), tokens.shape))
        return tokens, segments, positions

    def output_shape(self, batch_size: int) -> tuple[int, ...]:
        return batch_size, *self.shape, self.num_outputs

    def loss(self, outputs: Float[jax.Array, "batch length vocab"], batch: Batch) -> tuple[jax.Array, jax.Array]:
        nats, counts, _ = _nats(outputs, batch)
        return nats.sum(axis=1), counts.sum(axis=1)

    def scores(
        self,
        outputs: Float[jax.Array, "batch length vocab"],
        batch: Batch,
        known: jax.Array,
        num_sources: int,
    ) -> dict[str, jax.Array]:
        """The number of predicted tokens, their loss in nats, and the bytes of their text, of each record."""
        del num_sources
        nats, counts, targets = _nats(outputs, batch)
        return {
            "num_tokens": counts.sum(axis=1).astype(jnp.float32),
            "nats": nats.sum(axis=1),
            "bytes": jnp.where(counts, known[targets], 0).sum(axis=1).astype(jnp.float32),
        }

    def metrics(self, names: Sequence[str], sums: Sums) -> dict[str, float]:
        """The loss in nats per token, the perplexity and, if the text of tokens is known, bits per byte.

        Raises:
          DataError: The test records of a source have no token to predict.

        >>> sums = {"num_tokens": [10.0], "nats": [20.0 * math.log(2)], "bytes": [8.0]}
        >>> Language(shape=(16,), num_outputs=257).metrics(["a"], sums)["bits_per_byte/a"]
        2.5
        """
        num_tokens, nats, num_bytes = (np.asarray(sums[name], float) for name in ("num_tokens", "nats", "bytes"))
        if not num_tokens.all():
            name = names[int(np.argmin(num_tokens))]
            raise DataError(of_source(name, "its test records hold no token to predict; longer ones do."))
        loss = nats / num_tokens
        metrics = family("loss", names, loss, "max")
        metrics |= family("perplexity", names, np.exp(np.minimum(loss, 700)), "max")
        return metrics | (
            family("bits_per_byte", names, nats / math.log(2) / num_bytes, "max") if num_bytes.all() else {}
        )


def _nats(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss of each token in nats, whether the token counts, and the token itself; shape [batch, length] each."""
    if "targets" not in batch:
        rows = {leaf: batch[leaf] for leaf in ("tokens", "segment_ids", "loss_mask") if leaf in batch}
        batch = jax.vmap(next_token_targets)(rows)
    targets = batch["targets"]
    counts = batch["loss_mask"].astype(bool) if "loss_mask" in batch else jnp.ones(targets.shape, bool)
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs.astype(jnp.float32), targets)
    return jnp.where(counts, nats, 0), counts, targets
