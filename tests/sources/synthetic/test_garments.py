"""Ten garments, drawn by code."""

from __future__ import annotations

import numpy as np

from datamix.sources.synthetic.garments import garments


def test_class_names_are_those_of_fashion_mnist() -> None:
    names = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
    assert ", ".join(garments().class_names) == names


def test_most_garments_look_like_the_mean_of_their_class() -> None:
    train, test = garments(split="train[:2000]").read(), garments(split="test[:500]").read()
    means = np.stack([train["image"][train["label"] == label].mean(axis=0) for label in range(10)])
    distances = ((test["image"][:, None] - means) ** 2).sum(axis=(2, 3, 4))
    accuracy = np.mean(distances.argmin(axis=1) == test["label"])
    assert 0.65 < accuracy < 0.9  # as for Fashion-MNIST's, 0.68: shirts, coats and pullovers are alike


def test_shoes_are_seen_from_the_side_and_the_rest_from_the_front() -> None:
    records = garments(split="train[:2000]").read()
    shoes = set()
    for label, name in enumerate(garments().class_names):
        mean = records["image"][records["label"] == label].mean(axis=0)
        if np.abs(mean - mean[:, ::-1]).mean() > 8:  # gray levels by which it differs from its mirror image
            shoes.add(name)
    assert shoes == {"Sandal", "Sneaker", "Ankle boot"}
