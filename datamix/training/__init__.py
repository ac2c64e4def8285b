"""Train models on a mix: models, optimisers, the compiled loop, checkpoints, and the results of each evaluation.

`runs` is the entry point: it trains a `learner`, or several as `replicas`, on the records of `data`. A learner has one
of the `models` or the `transformer`, one of the `optimizers` and one of the `tasks`. `parallel` and `processes` divide
a run among devices and processes. `checkpoints` save its state, `metrics`, `events` and `predictions` its results, and
`weight_history` its weights; `overlap` counts test records that are trained on, `rare_classes` classes of a single
record.
"""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("model", cnn="Cnn", linear="Linear", mlp="Mlp")
def _models() -> ModuleType:
    from datamix.training import models

    return models


@registry.builtin("model", transformer="Transformer")
def _transformer() -> ModuleType:
    from datamix.training import transformer

    return transformer


@registry.builtin("optimizer", "adam", "adamw", "lion", "rmsprop", "sgd")
@registry.builtin("schedule", "constant", "cosine", "exponential", "linear", "warmup_cosine")
def _optimizers() -> ModuleType:
    from datamix.training import optimizers

    return optimizers
