"""The compiled loop against a plain one, and tests of a model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from datamix.errors import ConfigError
from datamix.spec import LeafSpec
from datamix.training import models, optimizers
from datamix.training.learner import Learner
from datamix.training.tasks.classification import Classification
from datamix.training.tasks.language import Language
from datamix.training.tasks.regression import Regression
from datamix.training.transformer import Transformer


def parts_of(learner: Learner, *, training: bool) -> Any:
    """Structure, parameters and the rest of a model, as Flax has them."""
    model = learner.create(jax.random.key(0))
    model.train() if training else model.eval()
    return nnx.split(model, nnx.Param, ...)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "transform"),
    [
        ([], optax.adam(0.05)),
        (
            [
                "optimizer=rmsprop",
                "optimizer.momentum=0.9",
                "optimizer.learning_rate=0.02",
                "optimizer.schedule=linear",
            ],
            optax.rmsprop(optax.linear_schedule(0.02, 0, 6), 0.9, momentum=0.9),
        ),
    ],
    ids=["adam", "rmsprop-momentum-linear"],
)
def test_the_loop_is_the_plain_one(make, trained, overrides, transform):
    """The compiled loop over batches made in it, against Optax and Flax by the book on the pipeline's own batches."""
    run = make(*overrides)
    graph, *_ = parts_of(run.learner, training=True)
    params, rest = run.state.params, run.state.rest
    state = transform.init(params)
    losses = []

    @jax.jit
    def step_of(params, rest, state, batch):
        (loss, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, rest, batch)
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), rest, state, loss

    def loss_of(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(model(batch["image"]), batch["label"]).mean()
        return loss, nnx.split(model, nnx.Param, ...)[2]

    for step in range(6):
        params, rest, state, loss = step_of(params, rest, state, run.data.pipeline[step])
        losses.append(float(loss))
    trained(run)
    for actual, expected in zip(jax.tree.leaves(run.state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    np.testing.assert_allclose([line["loss"] for line in lines], np.reshape(losses, (3, 2)).mean(axis=1), atol=1e-5)


def test_each_source_is_tested_on_its_own_records(make, trained):
    run = trained(make("source.down.test_split=train"))
    graph, *_ = parts_of(run.learner, training=False)
    model = nnx.merge(graph, run.state.params, run.state.rest)
    correct, taken_for, num_records = np.zeros(2), np.zeros((2, 2)), 0
    for batch in run.data.test_pipeline:
        predicted = np.argmax(model(batch["image"]), axis=1)
        np.add.at(correct, batch["source_id"], predicted == batch["label"])
        np.add.at(taken_for, (batch["source_id"], predicted // 4), 1)
        num_records += len(predicted)
    assert num_records == 80
    assert run.scores["num_records"].tolist() == [20, 60]
    assert run.scores["correct"].tolist() == correct.tolist()
    assert run.scores["taken_for"].tolist() == taken_for.tolist()


def test_it_learns(make, trained):
    run = make("train.steps=200", "train.checkpoint_every=200")
    assert trained(run).metrics.lines[-1]["accuracy/worst"] > 0.9


@pytest.mark.slow
def test_ratio_seed_and_rate_trace_nothing(make, trained, num_traces):
    model = "model.hidden=[9]"  # of a size that no other test has
    assert num_traces(trained, make(model))
    overrides = ["mix.share.across=0.3", "seed=5", "optimizer.learning_rate=0.5", "optimizer.schedule=cosine"]
    runs = [make(model, override, directory=override) for override in overrides]
    assert [num_traces(trained, run) for run in runs] == [0, 0, 0, 0]
    assert len({run.metrics.lines[-1]["loss"] for run in runs}) == len(overrides)


LEAVES = {"image": LeafSpec((4, 4, 1), "float32"), "label": LeafSpec((), "int32")}


def learner_of(model: Any, **settings: Any) -> Learner:
    return Learner(
        model=model,
        model_settings=tuple(settings.items()),
        optimizer=optimizers.adam,
        optimizer_settings=(),
        task=Classification(leaf="image", shape=(4, 4, 1), num_outputs=3),
    )


def test_a_model_that_gives_no_logits_is_refused():
    @models.model
    class Mean(nnx.Module):
        def __init__(self, shape, num_classes, rngs): ...

        def __call__(self, image):
            return image.mean()

    @models.model
    class Flat(nnx.Module):
        def __init__(self, shape, num_classes, rngs):
            self.head = nnx.Linear(5, num_classes, rngs=rngs)

        def __call__(self, image):
            return self.head(image)

    with pytest.raises(ConfigError, match=r"model = .mean.; it must give logits \[batch, 3\]; for two images it gave "):
        learner_of(Mean).check(LEAVES)
    with pytest.raises(ConfigError, match=r"model = .flat.; it cannot take the leaf 'image' of float32 \[4, 4, 1\]: "):
        learner_of(Flat).check(LEAVES)
    learner_of(models.Cnn, features=(2,), hidden=4).check(LEAVES)


@pytest.mark.parametrize(
    ("model", "leaf", "shape", "message"),
    [
        (models.Cnn, "features", (9,), "it takes image [height, width, channels], not the leaf 'features' of float32"),
        (Transformer, "features", (9,), "it takes tokens [length], not the leaf 'features' of float32 [9]. model=mlp "),
        (models.Mlp, "tokens", (16,), "it takes image [...] or features [...], not the leaf 'tokens' of int32 [16]."),
    ],
)
def test_a_model_says_what_it_takes(model, leaf, shape, message):
    task = Language(shape=shape, num_outputs=3) if leaf == "tokens" else Regression(leaf=leaf, shape=shape)
    learner = replace(learner_of(model), task=task)
    with pytest.raises(ConfigError, match=re.escape(message)):
        learner.check({leaf: LeafSpec(shape, "int32" if leaf == "tokens" else "float32")})


def test_the_number_of_parameters():
    assert learner_of(models.Linear).num_parameters() == 16 * 3 + 3
    assert learner_of(models.Mlp, hidden=(5,)).num_parameters() == 16 * 5 + 5 + 5 * 3 + 3
