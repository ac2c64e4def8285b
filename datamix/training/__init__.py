"""Training on a mix: models, optimisers, the compiled loop, checkpoints, what is kept of each evaluation."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("model", "cnn", "linear", "mlp")
def _model(name: str) -> Any:
    from datamix.training import models

    return getattr(models, name.capitalize())


@registry.builtin("model", "transformer")
def _transformer(_name: str) -> Any:
    from datamix.training.transformer import Transformer

    return Transformer


@registry.builtin("optimizer", "adam", "adamw", "lion", "rmsprop", "sgd")
def _optimizer(name: str) -> Any:
    from datamix.training import optimizers

    return getattr(optimizers, name)


@registry.builtin("schedule", "constant", "cosine", "exponential", "linear", "warmup_cosine")
def _schedule(name: str) -> Any:
    from datamix.training import optimizers

    return getattr(optimizers, name)
