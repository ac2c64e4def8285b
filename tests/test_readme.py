"""The README: its commands and code run as they are written, and what it points at exists."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in FENCES if kind == "bash" for line in text.splitlines()]
COMMANDS = [line for line in LINES if not line.startswith("python3 -m venv")]
FILES = {match[1]: text for _, text in FENCES if (match := re.match(r"# (\S+\.\w+)\n", text))}
PYTHON = [text for kind, text in FENCES if kind == "python" and text not in FILES.values()]


def words(line: str) -> list[str]:
    """The words of a command line as bash makes them: with its braces, brackets and quotes."""
    script = f'printf "%s\\0" {line}'
    split = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return split.stdout.split("\0")[:-1]


@pytest.fixture
def call_in_reach(call_datamix, every_dataset, tmp_path, monkeypatch):
    """`call_datamix` in a folder with the README's files, and with every dataset at home."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tensorflow_datasets").symlink_to(every_dataset)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(every_dataset))
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return call_datamix


def test_it_has_commands_files_and_code():
    assert all(line.split()[0] in ("datamix", "python3") for line in LINES)
    assert len(COMMANDS) >= 10
    assert sorted(FILES) == [
        "my_conf/dataset/stripes.yaml", "my_conf/hydra/launcher/cluster.yaml", "my_conf/mix/blocks.yaml",
        "my_conf/model/narrow.yaml", "my_conf/stop/after.yaml", "my_conf/weighting/root.yaml", "my_models.py",
        "my_parts.py", "my_rules.py",
    ]  # fmt: skip
    assert len(PYTHON) == 3


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(call_in_reach, line):
    program, *arguments = words(line)
    assert program == "datamix"
    if "job=report" in arguments:
        for name in set(re.findall(r"sweeps/(\w)", line)):
            call_in_reach("-m", "job=plan", "mix.share.mnist=0.1,0.9", f"hydra.sweep.dir=sweeps/{name}")
    if {"-m", "job=train"} <= {*arguments} or "experiment=ratio_study" in arguments:  # the same, in little time
        arguments += ["train.steps=2", "train.eval_every=2", "mix.share.mnist=0.1,0.9", "seed=0"]
        arguments += [] if "model=mlp" in arguments else ["model=linear"]
    ended = call_in_reach(*arguments)
    assert (ended.code, bool(ended.reports)) == (0, True), ended.err
    for report in ended.reports:
        assert {source["provenance"] for source in report["sources"].values()} <= {"tfds", "procedural", "stripes"}


def test_the_first_two_commands_are_tested_elsewhere():
    """The first one's last part is the mix of jobs/test_preview; the second one is what every change must pass."""
    first, second = (line for line in LINES if line.startswith("python3 -m venv"))
    assert first.endswith(" && .venv/bin/python -m datamix source=mnist+fashion")
    assert '("source=mnist+fashion", cwd=' in (ROOT / "tests" / "jobs" / "test_preview.py").read_text(encoding="utf-8")
    assert second.endswith(" && .venv/bin/python -m pytest -n auto")
    assert second in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_pipeline_in_python_is_as_it_says():
    names = run(PYTHON[0])
    batch, state = names["batch"], names["state"]
    assert {leaf: (str(values.dtype), values.shape) for leaf, values in batch.items()} == {
        "image": ("float32", (256, 28, 28, 1)),
        "label": ("int32", (256,)),
        "source_id": ("int32", (256,)),
    }
    assert len(json.dumps(state)) < 1000
    pipeline, iterator = names["pipeline"], names["iterator"]
    other_half = next(pipeline.iterator(start=11, shard=(1, 2)))
    assert sorted([*next(iterator)["label"], *other_half["label"]]) == sorted(pipeline[11]["label"])
    share = np.mean([batch["source_id"] for _, batch in zip(range(10), names["other"], strict=False)])
    assert share == pytest.approx(0.9, abs=0.001)


def test_python_objects_mix_as_it_says():
    batch = next(iter(run(PYTHON[1])["pipeline"]))
    assert np.bincount(batch["source_id"]).tolist() == [192, 64]
    assert batch["image"][batch["source_id"] == 1].min() == 1


def test_arrays_in_memory_mix_as_it_says(capsys):
    names = run(PYTHON[2])
    assert capsys.readouterr().out == f"{len(names['pipeline'])} batches\n"
    assert names["pipeline"].plan.report().sources["noise"].target == 0.1


def run(code: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_what_it_links_to_exists():
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not re.match(r"https?:|#", link)]
    assert {".github/samples.png", ".github/plan.png"} <= set(links)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []
    for figure in (ROOT / ".github").glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG\r\n")


def test_it_names_every_choice():
    from datamix import registry

    groups = ("dataset", "mix", "weighting", "stop", "experiment", "job", "model", "optimizer")
    choices = [path.stem for group in groups for path in (ROOT / "conf" / group).glob("*.yaml")]
    choices = [name for name in choices if name not in ("preview", "equal")]  # the defaults
    registered = [name for kind in ("operator", "schedule") for name in registry.names(kind) if "doctest" not in name]
    for name in choices + registered:
        assert re.search(rf"(?<!\w){name}(?!\w)", README), name
