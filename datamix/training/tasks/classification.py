"""Classes of images, or of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Integer

from datamix.training.models import Logits
from datamix.training.tasks.base import Batch, Sums, Task, family


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """The class of each record, which is its `label`; see `datamix.training.tasks.base.Task`."""

    loss_unit: ClassVar[str] = "cross-entropy, nats"
    judged_by: ClassVar[str] = "accuracy"

    @property
    def says(self) -> str:
        return f"{self.num_outputs} classes" + (f" by {self.shape[0]} features" if self.standardized else "")

    @property
    def standardized(self) -> tuple[str, ...]:
        return ("features",) if self.leaf == "features" else ()

    def loss(self, outputs: Logits, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return _cross_entropy(outputs, batch["label"])

    def scores(self, outputs: Logits, batch: Batch, of_output: jax.Array, num_sources: int) -> dict[str, jax.Array]:
        """Of records that have a class: their number, how many are classified rightly, cross-entropy in nats.

        `taken_for` counts those that are taken for a class of each source; where sources share classes, for nothing.
        """
        losses, is_labelled = _cross_entropy(outputs, batch["label"])
        predicted = outputs.argmax(axis=-1)
        return {
            "num_records": is_labelled.astype(jnp.float32),
            "correct": (is_labelled & (predicted == batch["label"])).astype(jnp.float32),
            "loss": losses,
            "taken_for": jax.nn.one_hot(of_output[predicted], num_sources) * is_labelled[:, None],
        }

    def metrics(self, names: Sequence[str], sums: Sums) -> dict[str, float]:
        """Accuracy and mean loss of each source, their means, and the worst source's accuracy.

        >>> task = Classification(leaf="image", shape=(28, 28, 1), num_outputs=20)
        >>> sums = {"num_records": [4.0, 4.0], "correct": [2.0, 4.0], "loss": [1.0, 0.0]}
        >>> task.metrics(["a", "b"], sums)["accuracy/worst"]
        0.5
        """
        num_records, correct, loss = (np.asarray(sums[name], float) for name in ("num_records", "correct", "loss"))
        return family("accuracy", names, correct / num_records, "min") | family("loss", names, loss / num_records)


def _cross_entropy(
    logits: Logits, label: Integer[jax.Array, " batch"]
) -> tuple[Float[jax.Array, " batch"], Bool[jax.Array, " batch"]]:
    """The cross-entropy of each record, in nats, 0 where its label is negative and so no class; and where it is one."""
    is_labelled = label >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
    return jnp.where(is_labelled, losses, 0), is_labelled
