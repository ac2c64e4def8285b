"""Runs of small models on two sources of small images, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from datamix import registry
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.config.schema import Config
from datamix.training import models
from datamix.training.checkpoints import Checkpoints
from datamix.training.learner import is_key
from datamix.training.runs import Run, fit, prepare

SHAPE = (4, 4, 1)


class CountedMlp(models.Mlp):
    """An `mlp` that counts how often it is traced: compiled code does not call it again."""

    num_calls = 0

    def __call__(self, image: jax.Array) -> jax.Array:
        CountedMlp.num_calls += 1
        return super().__call__(image)


# Splits of `across` whose records are others now.
CHANGED: set[str] = set()


def rows(*, split: str = "train", shift: int = 0) -> dict[str, np.ndarray]:
    """Images whose classes are their brightest rows, rotated by quarters."""
    size = {"train": 60, "test": 20, "few": 3}[split]
    draw = np.random.default_rng([shift, size])
    label = np.arange(size) % 4
    image = draw.integers(0, 60, (size, *SHAPE)) + 150 * (np.arange(4)[:, None, None] == label[:, None, None, None])
    image[2, 0, 0] ^= split in CHANGED and shift == 0
    return {"image": np.uint8(np.rot90(image, shift, axes=(1, 2))), "label": label}


@pytest.fixture
def change_records() -> Iterator[Callable[[str], None]]:
    """Changes one record of the source `across` in a split, as if somebody had written its file anew."""
    yield CHANGED.add
    CHANGED.clear()


@pytest.fixture
def config_of(tmp_path: Path) -> Callable[..., Config]:
    """Makes a configuration of a training job on the sources `across` and `down` from more overrides."""
    registry.register("source", "rows", rows)
    registry.register("model", "counted_mlp", CountedMlp)
    for group in ("dataset", "model"):
        (tmp_path / group).mkdir()
    (tmp_path / "model" / "counted_mlp.yaml").write_text("name: counted_mlp\nhidden: [8]\ndropout: 0.5\n")
    for name, shift in (("across", 0), ("down", 1)):
        text = f"_target_: rows\nshift: {shift}\nclass_names: [a, b, c, d]\noperators: [to_float]\n"
        (tmp_path / "dataset" / f"{name}.yaml").write_text(text)
    basic = ["job=train", "source=across+down", "model=counted_mlp", "batch.size=8", "train.steps=6",
             "train.eval_every=2", "optimizer.learning_rate=0.05"]  # fmt: skip
    return lambda *overrides: parse(compose([*basic, *overrides], config_dir=tmp_path))


@pytest.fixture
def make(config_of: Callable[..., Config], tmp_path: Path) -> Callable[..., Run]:
    """Prepares a run in a folder of its own."""

    def made(*overrides: str, directory: str = "run", like: Run | None = None) -> Run:
        (tmp_path / directory).mkdir(exist_ok=True)
        return prepare(config_of(*overrides), tmp_path / directory, None if like is None else like.data)

    return made


@pytest.fixture
def trained() -> Callable[[Run], Run]:
    """Trains a run to its end."""

    def trained(run: Run) -> Run:
        fit([run], lambda _: None)
        assert run.error is None
        return run

    return trained


@pytest.fixture
def num_traces() -> Callable[..., int]:
    """Calls a function, and says how often the model was traced meanwhile."""

    def count(function: Callable[..., Any], *arguments: Any) -> int:
        before = CountedMlp.num_calls
        function(*arguments)
        return CountedMlp.num_calls - before

    return count


@pytest.fixture
def numbers() -> Callable[[Run], dict[str, np.ndarray]]:
    """Every number of a trained run's state, from its last checkpoint."""

    def read(run: Run) -> dict[str, np.ndarray]:
        leaves = jax.tree.leaves_with_path(Checkpoints(run.directory).state(run.steps, run.state))
        return {
            jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
            for path, leaf in leaves
        }

    return read
