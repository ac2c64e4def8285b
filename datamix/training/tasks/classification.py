"""Classification of images or features."""

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
    """The class of each record, which is its `label`; see `datamix.training.tasks.base.Task`.

    A label is a class number, or a vector with the share of each class, as `one_hot` and `mixup` make it; with shares,
    the right class is that of the largest share.
    """

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

    def scores(self, outputs: Logits, batch: Batch, known: jax.Array, num_sources: int) -> dict[str, jax.Array]:
        """Whether each record has a class, whether it is classified correctly, and its cross-entropy in nats.

        `taken_for` marks the source of the predicted class, [batch, num_sources]; it is not used if sources share
        classes.
        """
        losses, is_labelled = _cross_entropy(outputs, batch["label"])
        label, predicted = batch["label"], outputs.argmax(axis=-1)
        label = label.argmax(axis=-1) if label.ndim > 1 else label
        return {
            "num_records": is_labelled.astype(jnp.float32),
            "correct": (is_labelled & (predicted == label)).astype(jnp.float32),
            "loss": losses,
            "taken_for": jax.nn.one_hot(known[predicted], num_sources) * is_labelled[:, None],
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
    logits: Logits, label: Integer[jax.Array, " batch"] | Float[jax.Array, "batch classes"]
) -> tuple[Float[jax.Array, " batch"], Bool[jax.Array, " batch"]]:
    """The cross-entropy of each record in nats, 0 if it has no class, and whether it has one."""
    if label.ndim > 1:
        return optax.softmax_cross_entropy(logits, label), label.sum(axis=-1) > 0
    is_labelled = label >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
    return jnp.where(is_labelled, losses, 0), is_labelled
