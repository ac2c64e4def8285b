"""The base class of tasks: the input of a model, the loss of its outputs, and its metrics for each source."""

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
      leaf: The leaf that is the first argument of a model.
      shape: The shape of that leaf in one record.
      num_outputs: The size of the last axis of a model's outputs.
      loss_unit: The kind and unit of the loss.
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
        """A short description of the task."""

    @property
    def mend(self) -> str:
        """The models that take such records, for the error about one that does not."""
        return "model=mlp and model=linear take them."

    @property
    def standardized(self) -> tuple[str, ...]:
        """The leaves to standardise to mean 0 and deviation 1: the model's input, then the label if it is a number."""
        return ()

    @property
    def test_batch(self) -> int:
        """The batch size of tests."""
        return 256

    def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
        """The arguments of the model for a batch."""
        return (batch[self.leaf],)

    def output_shape(self, batch_size: int) -> tuple[int, ...]:
        """The shape of the outputs of a model."""
        return batch_size, self.num_outputs

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The loss of each record, and the number of terms that it sums, shape [batch] both."""

    @abstractmethod
    def scores(self, outputs: Any, batch: Batch, known: jax.Array, num_sources: int) -> dict[str, jax.Array]:
        """The scores of each record by name, shape [batch, ...], which are summed for each source.

        Args:
          outputs: The outputs of the model.
          batch: The batch.
          known: The constants of the task; see `datamix.training.learner.HeldOut`.
          num_sources: The number of sources.
        """

    @abstractmethod
    def metrics(self, names: Sequence[str], sums: Sums) -> dict[str, float]:
        """The metrics of all sources, by name.

        Args:
          names: The names of the sources.
          sums: The sums of `scores` over the test records of each source.
        """


def family(name: str, names: Sequence[str], values: np.ndarray, worst: str = "") -> dict[str, float]:
    """A metric of each source, their mean, and the worst of them.

    Args:
      name: The name of the metric.
      names: The names of the sources.
      values: The value of each source, [num_sources].
      worst: The worst value: "min" or "max"; empty to leave it out.

    >>> family("loss", ["a", "b"], np.array([1.0, 3.0]), "max")
    {'loss/a': 1.0, 'loss/b': 3.0, 'loss/mean': 2.0, 'loss/worst': 3.0}
    """
    metrics = {f"{name}/{source}": float(value) for source, value in zip(names, values, strict=True)}
    metrics[f"{name}/mean"] = float(values.mean())
    return metrics | ({f"{name}/worst": float(getattr(values, worst)())} if worst else {})
