"""`job=inspect`: the records of one batch, as printed, drawn and reported."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

import datamix


def test_files_of_one_name_are_told_from_each_other(call_datamix, tmp_path):
    for number, name in enumerate(("cat/1.png", "dog/1.png", "dog/2.png")):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), number * 90, np.uint8)).save(tmp_path / "pets" / name)
    pets = ["source=folder", "source.folder.path=pets", "source.folder.split=all"]
    out = call_datamix(*pets, "job=inspect", "batch.size=3", "stop=forever").out
    assert all(name in out for name in ("cat/1.png", "dog/1.png", " 2.png"))


def test_every_row_says_which_record_it_is(call_datamix, tmp_path, shared_data):
    ended = call_datamix("job=inspect", "job.step=7", "mix.ratio=3:1", "hydra.run.dir=run")
    report = ended.report
    assert (report["step"], report["samples"], report["batches"]) == (7, 16, 1)
    batch = datamix.load("source=mnist+fashion", "mix.ratio=3:1")[7]
    names = ["mnist", "fashion"]
    for row, said in enumerate(report["rows"]):
        assert said["row"] == row
        assert said["source"] == names[batch["source_id"][row]]
        assert said["label"] == batch["label"][row]
        stored = np.asarray(
            datamix.load(f"source={said['source']}", "shuffle=none", "batch.size=1")[said["record"]]["label"]
        )
        assert said["label"] == stored[0] + 10 * batch["source_id"][row]
        directory = "mnist" if said["source"] == "mnist" else "fashion_mnist"
        path = shared_data / "tensorflow_datasets" / directory / "3.0.1"
        assert said["place"].startswith(
            f"{path / directory}-train.array_record-00000-of-00001, record {said['record']}"
        )
    assert {said["class"] for said in report["rows"] if said["source"] == "mnist"} <= {
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    }
    assert {name: source["samples"] for name, source in report["sources"].items()} == {"mnist": 12, "fashion": 4}
    assert (tmp_path / "run" / "inspect.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert len(re.findall(r"record \d+ *│$", ended.out, re.MULTILINE)) == 16


OWN = """
import datamix, numpy as np

@datamix.source
def numbers(*, size=40):
    return {"features": np.arange(3.0 * size, dtype=np.float32).reshape(size, 3), "label": np.arange(size) / 4}
"""


@pytest.fixture
def own(call_datamix, tmp_path):
    (tmp_path / "own_numbers.py").write_text(OWN)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "numbers.yaml").write_text("_target_: numbers\n")

    def run(*arguments: str):
        return call_datamix("--config-dir=conf", "plugins=[own_numbers]", "source=numbers", *arguments)

    return run


def test_records_without_images_are_shown_as_numbers(own, tmp_path):
    ended = own("job=inspect", "job.step=-1", "batch.size=4", "shuffle=none", "hydra.run.dir=run")
    assert ended.report["step"] == 9
    assert ended.report["figure"] is None
    assert not (tmp_path / "run" / "inspect.png").exists()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in ended.out.splitlines() if "│" in line]
    assert cells[0] == ["0", "numbers", "0", "36", "9", "–", "108 109 110"]
    assert ended.report["rows"][3] == {
        "row": 3, "source": "numbers", "epoch": 0, "record": 39, "place": "", "label": 9.75, "class": None,
    }  # fmt: skip


def test_a_large_batch_is_shown_in_part_and_reported_whole(own):
    ended = own("job=inspect", "batch.size=100", "stop=forever")
    assert "… and 36 rows more, in report.json." in ended.out
    assert len(ended.report["rows"]) == 100


def test_a_preview_shows_first_records_and_histograms(own, tmp_path):
    ended = own("job=preview", "hydra.run.dir=run", "shuffle=none", "batch.size=4")
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in ended.out.splitlines() if "│" in line]
    assert ["numbers", "0 1 2", "0"] in cells
    assert ended.report["figure"] == "values.png"
    assert (tmp_path / "run" / "values.png").read_bytes().startswith(b"\x89PNG\r\n")
    leaf = ended.report["sources"]["numbers"]["leaves"]["features"]
    assert (leaf["min"], leaf["max"], leaf["mean"], leaf["nan"]) == (0, 119, 59.5, 0)


@pytest.mark.parametrize(
    ("step", "mistake"),
    [
        ("10", "ConfigError: job.step = 10; there is no batch 10 in a mix of 10 batches."),
        ("-11", "ConfigError: job.step = -11; there is no batch -11 in a mix of 10 batches."),
        ("first", "ConfigError: job.step = 'first'; it is a whole number."),
    ],
)
def test_a_step_that_there_is_not(own, step, mistake):
    assert own("job=inspect", "batch.size=4", f"job.step={step}").mistake == mistake


def test_inspecting_shows_documents(call_datamix, tmp_path):
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    (tmp_path / "conf" / "dataset" / "a.yaml").write_text("_target_: text\npath: a.txt\nlength: 8\n")
    ended = call_datamix(
        "--config-dir=conf", "source=a", "batch.size=2", "job=inspect", "data.cache=cache", "shuffle=none"
    )
    assert "  1 │ one" in ended.out
    assert ended.report["rows"][0]["place"] == "a.txt: document 0, 1"
