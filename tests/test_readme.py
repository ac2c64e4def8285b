"""The README: its commands and code run as they are written, and what it points at exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snippets import Page, quick, run, words

ROOT = Path(__file__).resolve().parents[1]
README = Page(ROOT / "README.md")
COMMANDS = [line for line in README.lines if not line.startswith("python3 -m venv")]


@pytest.fixture
def call_in_reach(call_among_datasets, tmp_path):
    """`call_datamix` in a folder with a folder of images, and with every dataset at home."""
    for i in range(20):
        picture = tmp_path / "pets" / ["cat", "dog"][i % 2] / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + i, 30), (i, 99, 180)).save(picture)
    return call_among_datasets


def test_it_has_commands_and_code():
    assert all(line.split()[0] in ("datamix", "python3") for line in README.lines)
    assert len(COMMANDS) >= 9
    assert len(README.python) == 2


def _marked(line: str) -> object:
    """Studies and sweeps take their time, so that they are not among the tests that README's command runs."""
    takes_long = re.search(r"experiment=\w*_study|job=train|job=suggest", line)
    return pytest.param(line, marks=[pytest.mark.slow] if takes_long else [])


@pytest.mark.parametrize("line", [_marked(line) for line in COMMANDS])
def test_a_command_runs(call_in_reach, line):
    program, *arguments = words(line)
    assert program == "datamix"
    if "job=suggest" in arguments:
        sweep = next(each for each in COMMANDS if "hydra/sweeper=simplex" in each)
        call_in_reach(*quick(words(sweep)[1:]))
    if "experiment=text_ratio_study" in arguments:  # the same, in little time
        arguments += ['mix.ratio="1:4:1"', "seed=0", "model.layers=1"]
    elif {"-m", "job=train"} <= {*arguments} or "experiment=ratio_study" in arguments:
        swept = next((each.partition("=")[0] for each in arguments if "mix.share." in each), "mix.share.mnist")
        arguments += [f"{swept}=0.1,0.9", "seed=0"] if "hydra/sweeper=simplex" not in arguments else []
    ended = call_in_reach(*quick(arguments), "-v")
    assert (ended.code, bool(ended.reports)) == (0, True), ended.err
    real = {"tfds", "procedural", "image_folder"}
    if "experiment=text_ratio_study" in arguments:  # as README says, where there are no corpora
        real = {"stand-in"}
    for report in ended.reports:
        assert {source["provenance"] for source in report["sources"].values()} <= real


def test_the_first_two_commands_are_tested_elsewhere():
    """The first one's last part is the mix of jobs/test_preview; the second one is what every change must pass."""
    first, second = (line for line in README.lines if line.startswith("python3 -m venv"))
    assert first.endswith(" && .venv/bin/python -m datamix source=mnist+fashion")
    assert '("source=mnist+fashion", cwd=' in (ROOT / "tests" / "jobs" / "test_preview.py").read_text(encoding="utf-8")
    assert second.endswith(" && .venv/bin/python -m pytest -n auto")
    assert second in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_pipeline_in_python_is_as_it_says():
    names = run(README.python[0], "README.md")
    batch, state = names["batch"], names["state"]
    assert {leaf: (str(values.dtype), values.shape) for leaf, values in batch.items()} == {
        "image": ("float32", (256, 28, 28, 1)),
        "label": ("int32", (256,)),
        "source_id": ("int32", (256,)),
    }
    assert len(json.dumps(state)) < 2000
    pipeline, iterator = names["pipeline"], names["iterator"]
    other_half = next(pipeline.iterator(start=11, shard=(1, 2)))
    assert sorted([*next(iterator)["label"], *other_half["label"]]) == sorted(pipeline[11]["label"])
    share = np.mean([batch["source_id"] for _, batch in zip(range(10), names["other"], strict=False)])
    assert share == pytest.approx(0.9, abs=0.001)


def test_python_objects_mix_as_it_says():
    batch = next(iter(run(README.python[1], "README.md")["pipeline"]))
    assert np.bincount(batch["source_id"]).tolist() == [192, 64]
    assert batch["image"][batch["source_id"] == 1].min() == 1


def test_what_it_links_to_exists():
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README.text) if not re.match(r"https?:|#", link)]
    assert {".github/samples.png", ".github/plan.png"} <= set(links)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []
    for figure in (ROOT / ".github").glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG\r\n")


def test_it_or_the_documentation_names_every_choice():
    from datamix import registry

    text = README.text + "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    groups = ("dataset", "mix", "weighting", "stop", "experiment", "job", "model", "optimizer")
    choices = [path.stem for group in groups for path in (ROOT / "conf" / group).glob("*.yaml")]
    choices = [name for name in choices if name not in ("preview", "equal")]  # the defaults
    registered = [name for kind in ("operator", "schedule") for name in registry.names(kind) if "doctest" not in name]
    for name in choices + registered:
        assert re.search(rf"(?<!\w){name}(?!\w)", text), name
