"""What a task is: which leaves go into a model, what is lost by its outputs, and how it is judged by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

Sums: TypeAlias = Mapping[str, Float[Any, "num_sources ..."]]
"""The sums of a task's scores over the test records of each source, by name."""


class Task(Protocol):
    """A task. It is hashable, as compiled code depends on it.

    Attributes:
      leaf: The leaf that a model takes first.
      shape: The shape of that leaf.
      num_outputs: The size of the last axis of a model's outputs.
      says: What is learnt, in a few words.
      loss_unit: What the loss is, and its unit.
      judged_by: The family of metrics that is drawn beside the loss.
      standardized: Whether a model is given the leaf with mean 0 and deviation 1.
      test_batch: The number of records that are tested at once.
      mend: Which of the models take such records, where one does not.
    """

    @property
    def leaf(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def says(self) -> str: ...
    @property
    def loss_unit(self) -> str: ...
    @property
    def judged_by(self) -> str: ...
    @property
    def standardized(self) -> bool: ...
    @property
    def test_batch(self) -> int: ...
    @property
    def mend(self) -> str: ...

    def inputs(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        """The arguments of the model for a batch."""
        ...

    def output_shape(self, batch_size: int) -> tuple[int, ...]:
        """The shape of the outputs of a model."""
        ...

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The loss of each record, and how many things it is a sum over, shape [batch] both."""
        ...

    def scores(
        self, outputs: Any, batch: Mapping[str, jax.Array], of_output: jax.Array, num_sources: int
    ) -> Mapping[str, jax.Array]:
        """What is to be summed over the test records of each source, shape [batch, ...], by name.

        Args:
          outputs: The outputs of the model.
          batch: The batch.
          of_output: What the task must know of each output, [num_outputs]; see `datamix.training.learner.HeldOut`.
          num_sources: The number of sources.
        """
        ...

    def metrics(self, names: Sequence[str], sums: Sums) -> dict[str, float]:
        """The metrics of all sources."""
        ...


def family(name: str, names: Sequence[str], values: np.ndarray, worst: str) -> dict[str, float]:
    """A metric of each source, the mean of all, and the worst: "min" or "max" of them; empty for none.

    >>> family("loss", ["a", "b"], np.array([1.0, 3.0]), "max")
    {'loss/a': 1.0, 'loss/b': 3.0, 'loss/mean': 2.0, 'loss/worst': 3.0}
    """
    metrics = {f"{name}/{source}": float(value) for source, value in zip(names, values, strict=True)}
    metrics[f"{name}/mean"] = float(values.mean())
    return metrics | ({f"{name}/worst": float(getattr(values, worst)())} if worst else {})
