"""Classes: what counts, and what is kept of it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from datamix.training.tasks.classification import Classification

TASK = Classification(leaf="image", shape=(4, 4, 1), num_outputs=4)


def test_metrics_are_means_over_each_sources_records():
    sums = {"num_records": np.array([4, 10]), "correct": np.array([2, 9]), "loss": np.array([6.0, 5.0])}
    assert TASK.metrics(["a", "b"], sums) == pytest.approx({
        "accuracy/a": 0.5, "accuracy/b": 0.9, "accuracy/mean": 0.7, "accuracy/worst": 0.5,
        "loss/a": 1.5, "loss/b": 0.5, "loss/mean": 1.0,
    })  # fmt: skip


def test_records_without_a_class_count_for_nothing():
    logits = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]]))
    scores = TASK.scores(logits, {"label": jnp.array([0, 3, -1])}, jnp.array([0, 0, 1, 1]), 2)
    assert scores["num_records"].tolist() == [1, 1, 0]
    assert scores["correct"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(scores["loss"], -np.log([0.7, 0.1, 1]), atol=1e-6)
    assert scores["taken_for"].tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.slow
def test_a_label_may_be_the_shares_of_two_classes():
    logits = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1]] * 4))
    label = jnp.array([[0.75, 0.25, 0, 0], [0, 0.25, 0.75, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    scores = TASK.scores(logits, {"label": label}, jnp.array([0, 0, 1, 1]), 2)
    assert scores["correct"].tolist() == [1, 0, 1, 0]
    assert scores["num_records"].tolist() == [1, 1, 1, 0]  # the last is no class, as one_hot has it
    expected = [-0.75 * np.log(0.7) - 0.25 * np.log(0.1), -np.log(0.1), -np.log(0.7), 0]
    np.testing.assert_allclose(scores["loss"], expected, atol=1e-6)
    number = TASK.scores(logits[:1], {"label": jnp.array([0])}, jnp.array([0, 0, 1, 1]), 2)
    assert number["loss"].tolist() == pytest.approx(scores["loss"][2:3].tolist())


def test_features_are_standardised_and_images_are_not():
    features = Classification(leaf="features", shape=(13,), num_outputs=3)
    assert (features.standardized, TASK.standardized) == (("features",), ())
    assert (features.says, TASK.says) == ("3 classes by 13 features", "4 classes")
