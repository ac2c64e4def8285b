"""Training on a mix: models, optimisers, the compiled loop, checkpoints, what is kept of each evaluation."""

from __future__ import annotations

from datamix import registry

registry.builtin("model", f"{__name__}.models", cnn="Cnn", linear="Linear", mlp="Mlp")
registry.builtin("model", f"{__name__}.transformer", transformer="Transformer")
registry.builtin("optimizer", f"{__name__}.optimizers", "adam", "adamw", "lion", "rmsprop", "sgd")
registry.builtin("schedule", f"{__name__}.optimizers", "constant", "cosine", "exponential", "linear", "warmup_cosine")
