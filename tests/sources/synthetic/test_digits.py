"""The digits 0 to 9, drawn by code."""

from __future__ import annotations

import numpy as np

from datamix.sources.synthetic.digits import digits


def test_class_names_are_the_digits() -> None:
    assert digits().class_names == tuple("0123456789")


def test_most_digits_look_like_the_mean_of_their_class() -> None:
    train, test = digits(split="train[:2000]").read(), digits(split="test[:500]").read()
    means = np.stack([train["image"][train["label"] == label].mean(axis=0) for label in range(10)])
    distances = ((test["image"][:, None] - means) ** 2).sum(axis=(2, 3, 4))
    accuracy = np.mean(distances.argmin(axis=1) == test["label"])
    assert 0.75 < accuracy < 0.95  # nearly as for MNIST's, 0.82: neither noise, nor one picture a class


def test_the_bar_of_a_one_is_the_only_upright_stroke() -> None:
    records = digits(split="train[:1000]").read()
    width = (records["image"].max(axis=1)[..., 0] > 60).sum(axis=1)  # of what is drawn, in columns
    widths = [width[records["label"] == label].mean() for label in range(10)]
    assert np.argmin(widths) == 1
