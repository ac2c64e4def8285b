"""`datamix.load`: what a command line describes, and no job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, DataError

FEW = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.arange(6) % 3}


@pytest.fixture
def nothing_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides for a machine without data, whose network does not answer."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return [f"data.dir={tmp_path}", f"data.cache={tmp_path / 'cache'}"]


def test_a_stand_in_takes_part_only_where_that_is_asked_for(nothing_prepared: list[str]) -> None:
    overrides = ["source=mnist+digits", "source.mnist.split=train[:300]", *nothing_prepared]
    with pytest.raises(DataError, match=r"^source 'mnist': not prepared .* data\.dir= .* set data\.stand_in=true"):
        datamix.load(*overrides)
    with pytest.warns(UserWarning, match="mnist: the built-in stand-in 'digits' takes the place"):
        pipeline = datamix.load(*overrides, "data.stand_in=true")
    assert pipeline[0]["image"].shape == (16, 28, 28, 1)


def test_a_mix_of_arrays_imports_what_it_uses() -> None:
    """What is for files, and for weights that follow training, would be a sixth of the time of importing datamix."""
    unused = ("pipeline.adapt", "pipeline.policies", "sources.arrow", "sources.cache", "sources.images", "sources.tfds")
    code = (
        "import sys, numpy as np, datamix; x = {'x': np.zeros(9)};"
        "next(iter(datamix.load('batch.size=4', sources={'a': x, 'b': x})));"
        f"print([m for m in {unused} if f'datamix.{{m}}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "override", ["job=plan", "job=preview", "+job=train", "job.batches=3", "train.steps=5", "bench.seconds=1", "~job"]
)
def test_no_job_runs(override: str) -> None:
    with pytest.raises(ConfigError, match=r": load builds a pipeline and runs no job, .*, or by datamix\.run\.$"):
        datamix.load(override, sources={"a": FEW})


def test_a_list_of_overrides_is_unpacked() -> None:
    with pytest.raises(
        ConfigError, match=r"^\['source=digits'\] is no text; .* a list is unpacked: load\(\*overrides\)\.$"
    ):
        datamix.load(["source=digits"])


def test_sources_have_names() -> None:
    with pytest.raises(ConfigError, match=r"^sources are given by name, as in \{'a': …\}; this is list\.$"):
        datamix.load(sources=[FEW])  # type: ignore[arg-type]


def test_keywords_are_no_overrides() -> None:
    with pytest.raises(
        ConfigError, match=r"^batch_size = 8; overrides are text\. Write \"batch_size=8\", in quotes\.$"
    ):
        datamix.load(batch_size=8)  # type: ignore[arg-type]


def test_an_experiment_is_loaded_without_its_job(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "study.yaml").write_text(
        "# @package _global_\ndefaults:\n- override /job: train\n- override /mix: random\n"
        "train: {steps: 3}\nbatch: {size: 2}\n"
    )
    pipeline = datamix.load("experiment=study", config_dir=tmp_path, sources={"a": FEW})
    assert pipeline.batch_size == 2
    assert pipeline.plan.length == 6


def test_objects_are_sources() -> None:
    pairs = [(np.full((2, 2, 1), i, np.uint8), i % 3) for i in range(6)]
    pipeline = datamix.load("source=b+a", "batch.size=12", "stop=exhaust_once", sources={"a": FEW, "b": pairs})
    batch = pipeline[0]
    assert sorted(batch["label"].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert sorted(batch["image"][batch["source_id"] == 0].reshape(6, -1)[:, 0].tolist()) == list(range(6))


def test_a_source_of_the_users_has_a_name_of_its_own() -> None:
    with pytest.raises(ConfigError, match="sources: 'mnist' is the name of a dataset that is shipped"):
        datamix.load(sources={"mnist": FEW})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter([1]), "^source 'a': list_iterator is no source: "),
        ([{"text": "hello"}], "^source 'a': leaf 'text' of record 0 is text; "),
        ([{"x": 1}, {"x": 1.5}], "^source 'a': leaf 'x' of record 1 is float64"),
        ({"x": np.zeros((2, 1)), "y": ["a", "b"]}, "^source 'a': leaf 'y' is <U1; "),
    ],
)
def test_what_is_no_source_is_named(data: Any, message: str) -> None:
    with pytest.raises(datamix.DatamixError, match=message):
        datamix.load("batch.size=1", sources={"a": data})


def test_real_data_is_cached(shared_data: Path, tmp_path: Path) -> None:
    overrides = [f"data.dir={shared_data / 'tensorflow_datasets'}", f"data.cache={tmp_path}"]
    first = datamix.load(*overrides)
    assert list(tmp_path.iterdir())
    assert first.plan.sizes == (8000, 800)
    again = datamix.load(*overrides)
    for leaf, value in first[7].items():
        np.testing.assert_array_equal(value, again[7][leaf])
    labels = first[7]["label"]
    assert set(labels[first[7]["source_id"] == 0].tolist()) <= set(range(10))
    assert set(labels[first[7]["source_id"] == 1].tolist()) <= set(range(10, 20))
