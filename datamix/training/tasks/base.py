"""What a task is: which leaves go into a model, what is lost by its outputs, and how it is judged by source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

Batch: TypeAlias = Mapping[str, jax.Array]
Sums: TypeAlias = Mapping[str, Float[Any, "num_sources ..."]]
"""The sums of a task's scores over the test records of each source, by name."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What a model learns; hashable, as compiled code depends on it.

    Attributes:
      leaf: The leaf that a model takes first.
      shape: The shape of that leaf.
      num_outputs: The size of the last axis of a model's outputs.
      loss_unit: What the loss is, and its unit.
      judged_by: The family of metrics that is shown first.
    """

    leaf: str
    shape: tuple[int, ...]
    num_outputs: int
    loss_unit: ClassVar[str]
    judged_by: ClassVar[str]

    @property
    @abstractmethod
    def says(self) -> str:
        """What is learnt, in a few words."""

    @property
    def mend(self) -> str:
        """Which models take such records, where one does not."""
        return "model=mlp and model=linear take them."

    @property
    def standardized(self) -> tuple[str, ...]:
        """The leaves that the model is to see with mean 0 and deviation 1: what it takes, and what it predicts."""
        return ()

    @property
    def test_batch(self) -> int:
        """The number of records that are tested at once."""
        return 256

    def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
        """The arguments of the model for a batch."""
        return (batch[self.leaf],)

    def output_shape(self, batch_size: int) -> tuple[int, ...]:
        """The shape of the outputs of a model."""
        return batch_size, self.num_outputs

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The loss of each record, and how many things it is a sum over, shape [batch] both."""

    @abstractmethod
    def scores(self, outputs: Any, batch: Batch, known: jax.Array, num_sources: int) -> dict[str, jax.Array]:
        """What is to be summed over the test records of each source, shape [batch, ...], by name.

        Args:
          outputs: The outputs of the model.
          batch: The batch.
          known: What the task must know beforehand; see `datamix.training.learner.HeldOut`.
          num_sources: The number of sources.
        """

    @abstractmethod
    def metrics(self, names: Sequence[str], sums: Sums) -> dict[str, float]:
        """The metrics of all sources."""


def family(name: str, names: Sequence[str], values: np.ndarray, worst: str = "") -> dict[str, float]:
    """A metric of each source, the mean of all, and the worst: their "min" or "max".

    >>> family("loss", ["a", "b"], np.array([1.0, 3.0]), "max")
    {'loss/a': 1.0, 'loss/b': 3.0, 'loss/mean': 2.0, 'loss/worst': 3.0}
    """
    metrics = {f"{name}/{source}": float(value) for source, value in zip(names, values, strict=True)}
    metrics[f"{name}/mean"] = float(values.mean())
    return metrics | ({f"{name}/worst": float(getattr(values, worst)())} if worst else {})
