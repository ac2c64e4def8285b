"""Regression: the prediction of a number from features or images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from datamix.training.models import Prediction
from datamix.training.tasks.base import Batch, Sums, Task, family


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """The number that is each record's `label`; see `datamix.training.tasks.base.Task`."""

    num_outputs: int = 1
    loss_unit: ClassVar[str] = "squared error / variance"
    judged_by: ClassVar[str] = "r2"

    @property
    def says(self) -> str:
        return "regression on " + (f"{self.shape[0]} features" if self.leaf == "features" else "images")

    @property
    def standardized(self) -> tuple[str, ...]:
        return self.leaf, "label"

    def loss(self, outputs: Prediction, batch: Batch) -> tuple[jax.Array, jax.Array]:
        losses = ((outputs.value - batch["label"]) / outputs.scale) ** 2
        return losses, jnp.ones_like(losses)

    def scores(self, outputs: Prediction, batch: Batch, known: jax.Array, num_sources: int) -> dict[str, jax.Array]:
        """A count of 1, the loss, the squared error and the label variance of the source, for each record."""
        del num_sources
        losses, ones = self.loss(outputs, batch)
        return {
            "num_records": ones,
            "loss": losses,
            "squares": losses * outputs.scale**2,
            "variance": known[batch["source_id"]],
        }

    def metrics(self, names: Sequence[str], sums: Sums) -> dict[str, float]:
        """`mse`, the mean squared error in the squared unit of the label, and `r2`, 1 - `mse` / variance.

        A source whose test labels are all the same has no `r2`; the mean and worst `r2` leave it out.

        >>> task = Regression(leaf="features", shape=(10,))
        >>> sums = {"num_records": [4], "loss": [1], "squares": [100], "variance": [400]}
        >>> metrics = task.metrics(["a"], sums)
        >>> metrics["mse/a"], metrics["r2/a"], metrics["loss/a"]
        (25.0, 0.75, 0.25)
        """
        count, loss, squares, variance = (
            np.asarray(sums[name], float) for name in ("num_records", "loss", "squares", "variance")
        )
        varies = variance != 0
        explained = 1 - squares[varies] / variance[varies]
        return (
            family("mse", names, squares / count, "max")
            | (family("r2", [*compress(names, varies)], explained, "min") if varies.any() else {})
            | family("loss", names, loss / count)
        )
