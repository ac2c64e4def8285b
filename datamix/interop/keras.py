"""Batches as a Keras 3 dataset, for `fit`, `evaluate` and `predict` on any of its backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datamix.errors import ConfigError, hint, not_installed
from datamix.pipeline.pipeline import Pipeline, require_loadable

try:
    import keras
except ImportError as error:
    raise not_installed("datamix.interop.keras", "Keras", "keras") from error


def dataset(
    pipeline: Pipeline, *, inputs: str | Sequence[str] = "image", targets: str | None = "label", start: int = 0
) -> keras.utils.PyDataset:
    """The batches of a pipeline as (inputs, targets), with the leaf `loss_weight` as sample weights if there is one.

    With stop="forever", `fit(dataset, steps_per_epoch=n)` continues the mix from one Keras epoch to the next. A finite
    mix is one epoch; `fit(dataset, shuffle=False)` keeps the order of its batches.

    Args:
      pipeline: The pipeline.
      inputs: The leaf that the model takes, or several, which it gets as a dict by name.
      targets: The leaf that it predicts; None for inputs only.
      start: The number of the first batch, to resume after that many.

    Raises:
      ConfigError: There is no such leaf.
    """
    require_loadable(pipeline)
    leaves = [inputs] if isinstance(inputs, str) else list(inputs)
    for key, leaf in [*(("inputs", leaf) for leaf in leaves), ("targets", targets)]:
        if leaf is not None and leaf not in pipeline.spec:
            raise ConfigError("there is no such leaf in this mix", key=key, value=leaf, hint=hint(leaf, pipeline.spec))
    return _Batches(pipeline, inputs if isinstance(inputs, str) else leaves, targets, start)


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, pipeline: Pipeline, inputs: str | list[str], targets: str | None, start: int) -> None:
        super().__init__()
        self._pipeline, self._inputs, self._targets, self._start = pipeline, inputs, targets, start
        self._iterator = pipeline.iterator(start)

    @property
    def num_batches(self) -> int | None:
        """The number of batches from `start` on that are not left out; None for an endless mix."""
        batching = self._pipeline.batching
        length = batching.num_batches
        return None if length is None else sum(end - begin for begin, end in batching.kept_runs(self._start, length))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        step = self._pipeline.batching.after(self._start, index)
        if index == 0 and self._iterator.step != step:  # Keras peeks at the first batch, and restarts each epoch at 0
            self._iterator = self._pipeline.iterator(step)
        # Batches requested out of order are computed one by one.
        batch = next(self._iterator) if self._iterator.step == step else self._pipeline[step]
        several = isinstance(self._inputs, list)
        inputs = {leaf: batch[leaf] for leaf in self._inputs} if several else batch[str(self._inputs)]
        if self._targets is None:
            return (inputs,)
        weights = [batch["loss_weight"]] if "loss_weight" in batch else []
        return inputs, batch[self._targets], *weights
