"""Which choice brings which key, read from the files that are shipped."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from datamix.config.compose import compose
from datamix.config.files import choices_of, conf_dir, homes

CHOICES = sorted({choice for choices in homes().values() for choice in choices})


def test_homes() -> None:
    assert homes()["mix.window"] == ("mix=proportional",)
    assert homes()["mix.replacement"] == ("mix=random",)
    assert homes()["weighting.cap"] == ("weighting=size",)
    assert homes()["train.steps"] == homes()["model"] == homes()["optimizer"] == ("job=train",)
    assert homes()["optimizer.momentum"] == ("optimizer=rmsprop", "optimizer=sgd")
    assert "batch.size" not in homes()  # config.yaml has it, whatever is chosen
    assert "source" not in homes()


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_brings_what_is_said_of_it(choice: str) -> None:
    needs = ["job=train"] if choice.startswith(("model=", "optimizer=")) else []
    node = compose([*needs, choice])
    for key, choices in homes().items():
        if choice in choices:
            group, _, name = key.rpartition(".")
            assert name in (OmegaConf.select(node, group) if group else node), key


def test_choices() -> None:
    assert choices_of("stop") == ["all_exhausted", "exhaust_once", "first_exhausted", "forever"]
    assert choices_of("source") == choices_of("dataset") == sorted(path.stem for path in conf_dir().glob("dataset/*"))
    assert choices_of("batch.size") == choices_of("nothing") == []
