"""Mixes in memory, and what their batches must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import datamix

_SIZES = {"a": 37, "b": 20, "c": 50}
_SCALE = {"a": 2.0, "b": 3.0, "c": 5.0}


def _images(size: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (size, 4, 3, 1), dtype=np.uint8),
        "label": generator.integers(0, 4, size),
    }


_ARRAYS = {name: _images(size, seed) for seed, (name, size) in enumerate(_SIZES.items())}


def _load(*overrides: str, names: tuple[str, ...] = ("a", "b", "c"), **kwargs: Any) -> datamix.Pipeline:
    """A mix in memory in which each source has a normalization of its own."""
    operators = [f"source.{n}.operators=[to_float,{{normalize:{{mean:0.5,std:{_SCALE[n]}}}}}]" for n in names]
    return datamix.load(*operators, "batch.size=8", *overrides, sources={n: _ARRAYS[n] for n in names}, **kwargs)


def _reference(
    pipeline: datamix.Pipeline, step: int, names: tuple[str, ...] = ("a", "b", "c")
) -> dict[str, np.ndarray]:
    """The batch at `step`, record by record."""
    size = pipeline.batch_size
    chosen = pipeline.plan.take(step * size, size)
    offsets = np.cumsum([0, *(int(_ARRAYS[n]["label"].max()) + 1 for n in names)])
    rows: dict[str, list[Any]] = {"image": [], "label": [], "source_id": []}
    for source, record in zip(chosen.source, chosen.record, strict=True):
        arrays = _ARRAYS[names[source]]
        rows["image"].append((arrays["image"][record] / 255 - 0.5) / _SCALE[names[source]])
        rows["label"].append(arrays["label"][record] + offsets[source])
        rows["source_id"].append(source)
    return {leaf: np.asarray(values) for leaf, values in rows.items()}


def _assert_same(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for leaf in expected:
        assert actual[leaf].shape == expected[leaf].shape, leaf
        np.testing.assert_allclose(np.asarray(actual[leaf]), expected[leaf], rtol=1e-5, atol=1e-6, err_msg=leaf)


def _assert_equal(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Bit for bit."""
    assert actual.keys() == expected.keys()
    for leaf in expected:
        assert actual[leaf].dtype == expected[leaf].dtype
        np.testing.assert_array_equal(actual[leaf], expected[leaf], err_msg=leaf)


def _joined(shards: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The batch that shards make up."""
    return {leaf: np.concatenate([shard[leaf] for shard in shards]) for leaf in shards[0]}


_MIXES = [
    (),
    ("mix.ratio=7:2:1", "stop=all_exhausted"),
    ("mix.weights.b=0.3", "stop=forever", "mix.window=5"),
    ("stop=exhaust_once", "batch.remainder=keep"),
    ("mix=random", "mix.weights.a=3"),
    ("mix=round_robin", "mix.granularity=batch", "stop=all_exhausted"),
    ("mix=concat",),
    ("shuffle=false", "stop=forever", "mix.weights.a=0"),
    ("mix.stratify=true", "mix.ratio=5:2:2", "stop=exhaust_once"),
    (
        "mix.schedule=[{until:3,ratio:'8:1:1'},{until:9,ramp:cosine,weights:{b:5}},{until:12,share:{c:0.7}}]",
        "stop=exhaust_once",
        "batch.remainder=keep",
    ),
]
_SLOW_MIXES = [
    ("mix=random", "mix.replacement=true", "stop=all_exhausted"),
    ("mix=random", "stop=exhaust_once", "batch.remainder=keep"),
    ("mix=concat", "stop=forever"),
    ("mix.granularity=batch", "mix.ratio=3:2:1", "stop=exhaust_once"),
    ("stop=forever", "stop.samples=300"),
    ("shuffle=window(7)", "stop=all_exhausted"),
    ("stop.epochs.b=3", "stop.batches=11"),
    ("mix=random", "mix.schedule=[{until:4,weights:{a:9}},{weights:{a:0}}]", "stop=all_exhausted"),
]


# Of the session: Hypothesis takes no others.


@pytest.fixture(scope="session")
def load() -> Callable[..., datamix.Pipeline]:
    """Loads a mix in memory in which each source has a normalization of its own."""
    return _load


@pytest.fixture(scope="session")
def arrays() -> dict[str, dict[str, np.ndarray]]:
    """The records of these sources, by name."""
    return _ARRAYS


@pytest.fixture(scope="session")
def reference() -> Callable[..., dict[str, np.ndarray]]:
    """Makes the batch at a step, record by record."""
    return _reference


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Compares batches up to rounding."""
    return _assert_same


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    """Compares batches bit for bit."""
    return _assert_equal


@pytest.fixture(scope="session")
def joined() -> Callable[..., dict[str, np.ndarray]]:
    """Joins shards into the batch that they make up."""
    return _joined


@pytest.fixture(
    params=[*_MIXES, *(pytest.param(mix, marks=pytest.mark.slow) for mix in _SLOW_MIXES)],
    ids=lambda mix: " ".join(mix) or "default",
)
def mix(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The overrides of one mix of every kind."""
    overrides: tuple[str, ...] = request.param
    return overrides
