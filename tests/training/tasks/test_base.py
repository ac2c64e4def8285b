"""Families of metrics."""

from __future__ import annotations

import numpy as np

from datamix.training.tasks.base import family


def test_a_family_names_every_source_the_mean_and_the_worst():
    values = np.array([0.5, 0.9])
    assert family("accuracy", ["a", "b"], values, "min") == {
        "accuracy/a": 0.5, "accuracy/b": 0.9, "accuracy/mean": 0.7, "accuracy/worst": 0.5,
    }  # fmt: skip
    assert family("loss", ["a", "b"], values, "max")["loss/worst"] == 0.9
    assert "loss/worst" not in family("loss", ["a", "b"], values)
