"""The scripts: the tutorial says what it says it does; the checks can be run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "scripts" / "interleaved_tutorial.py"


@pytest.fixture(scope="module")
def told(environment, shared_data, cache_dir, tmp_path_factory):
    """What the tutorial prints."""
    places = [f"data.dir={shared_data / 'tensorflow_datasets'}", f"data.cache={cache_dir}"]
    done = subprocess.run(
        [sys.executable, TUTORIAL, *places],
        cwd=tmp_path_factory.mktemp("tutorial"), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_tutorial_takes_ten_batches_of_the_two_in_turn(told):
    batches = [re.fullmatch(r"(\d+) \((.*)\) float32 source (\d) labels \[(.*)\]", line) for line in told]
    batches = [match for match in batches if match]
    assert [int(match[1]) for match in batches] == list(range(10))
    assert {match[2] for match in batches} == {"16, 28, 28, 1"}
    assert [int(match[3]) for match in batches] == [0, 1] * 5
    for match in batches:
        assert {int(label) // 10 for label in match[4].split()} == {int(match[3])}
    assert "records by source: {'mnist': 80, 'fashion': 80}" in told


def test_the_tutorial_finds_any_batch_at_once(told):
    assert told[-1] == "the same batch: True"


def test_the_tutorial_shows_the_pipeline(told):
    tree = told[: next(i for i, line in enumerate(told) if line.startswith("0 "))]
    assert tree[0].startswith("batch")
    assert [line.split()[-1] for line in tree if line.endswith(("mnist", "fashion"))] == ["mnist", "fashion"]


def test_the_tutorial_is_the_experiment_of_its_name(call_datamix):
    import datamix

    code = TUTORIAL.read_text(encoding="utf-8")
    overrides = re.findall(r'^    "([\w.]+=.*)",$', code, re.MULTILINE)
    assert len(overrides) == 8
    pipeline = datamix.load(*overrides)
    assert pipeline.fingerprint == call_datamix("experiment=interleaved_tutorial", "job=plan").report["fingerprint"]


@pytest.mark.parametrize("path", ["scripts/check", ".ci/run"])
def test_the_checks_can_be_run(path):
    assert os.access(ROOT / path, os.X_OK)
    assert (ROOT / path).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", ROOT / path], check=True)
