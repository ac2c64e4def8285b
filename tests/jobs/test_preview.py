"""`job=preview`: the mix that the README begins with, as printed, drawn and reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def preview(run_datamix, tmp_path_factory):
    return run_datamix("source=mnist+fashion", cwd=tmp_path_factory.mktemp("preview"))


def test_the_report_is_whole(preview):
    report = preview.report
    assert report.pop("samples_per_s") > 1000
    assert re.fullmatch(r"[0-9a-f]{16}", report.pop("fingerprint"))
    source = {"provenance": "tfds", "placement": "device", "samples": 80, "share": 0.5, "target": 0.5, "unlabelled": 0}
    source["tokens"] = None
    for name, mean in (("mnist", 33), ("fashion", 72)):
        leaves = report["sources"][name].pop("leaves")
        assert {key: leaves["image"][key] for key in ("min", "max", "nan", "inf")} == {
            "min": 0, "max": 255, "nan": 0, "inf": 0,
        }  # fmt: skip
        assert abs(leaves["image"]["mean"] - mean) < 1
        assert (leaves["label"]["min"], leaves["label"]["max"]) == (0, 9)
    assert report == {
        "job": "preview",
        "notes": [],
        "seed": 0,
        "batches": 10,
        "samples": 160,
        "max_deviation": 0.5,  # 1 - 1/(2S-2), the bound of two sources
        "figure": "samples.png",
        "batch": {
            "image": {"shape": [16, 28, 28, 1], "dtype": "float32"},
            "label": {"shape": [16], "dtype": "int32"},
            "source_id": {"shape": [16], "dtype": "int32"},
        },
        "unit": "record",
        "groups": {},
        "sources": {
            "mnist": source | {"source_id": 0, "records": 8000, "epochs": 0.01, "labels": [0, 9]},
            "fashion": source | {"source_id": 1, "records": 800, "epochs": 0.1, "labels": [10, 19]},
        },
    }


def test_the_figure_is_a_picture(preview):
    from matplotlib.image import imread

    directory = Path(re.search(r"^Report: (.+)$", preview.out, re.MULTILINE)[1]).parent
    assert (directory / "samples.png").read_bytes().startswith(b"\x89PNG\r\n")
    height, width, _ = imread(directory / "samples.png").shape
    assert 800 < width < 2400
    assert 300 < height < 1200
    assert imread(directory / "samples.png")[..., :3].std() > 0.1
    assert sorted(path.name for path in directory.iterdir()) == [".hydra", "report.json", "samples.png"]


def test_the_output_says_what_is_in_the_mix(preview):
    lines = preview.out.splitlines()
    assert lines[0] == "Sources"
    assert "Each batch: 16 × image float32 [28, 28, 1], label int32 [], source_id int32 []" in lines
    shares = "mnist 80 (50.0 %), fashion 80 (50.0 %)"
    assert f"In 160 records: {shares}; at no point more than 0.50 records from the exact shares." in lines
    assert "The whole mix: 1,601 records, 100 batches." in lines
    assert len([line for line in lines if re.match(r"batch +\d+ .* mnist 8  fashion 8$", line)]) == 10
    assert all(line.startswith("Reading ") for line in preview.err.splitlines())


def test_without_arguments_it_is_the_same_mix(call_datamix, preview):
    alone = call_datamix().report
    assert alone["fingerprint"] == preview.report["fingerprint"]
    assert alone["sources"] == preview.report["sources"]


def test_three_batches(call_datamix):
    report = call_datamix("job.batches=3", "mix.ratio=3:1").report
    assert (report["batches"], report["samples"]) == (3, 48)
    assert {name: source["samples"] for name, source in report["sources"].items()} == {"mnist": 36, "fashion": 12}
    assert [source["share"] for source in report["sources"].values()] == [0.75, 0.25]


def test_every_prefix_is_within_the_bound(call_datamix):
    report = call_datamix("source=mnist+fashion+digits", "mix.ratio=5:3:2", "source.digits.split=train[:500]").report
    assert report["max_deviation"] <= 1 - 1 / (2 * 3 - 2)
    for source, share in zip(report["sources"].values(), (0.5, 0.3, 0.2), strict=True):
        assert source["target"] == share
        assert abs(source["samples"] - share * 160) <= 0.75
    assert [source["labels"] for source in report["sources"].values()] == [[0, 9], [10, 19], [20, 29]]


def test_a_mix_without_the_numbers_of_its_sources_is_not_shown(call_datamix):
    renamed = "operators=[{rename:{leaf:source_id,to:origin}}]"
    for job in ("preview", "train"):
        mistake = call_datamix(f"job={job}", "source=digits+garments", renamed).mistake
        assert mistake.startswith("ConfigError: operators: an operator drops or renames the leaf source_id, by which ")


@pytest.mark.parametrize("num_columns", [3, 40])
def test_the_columns_of_a_table_are_named_but_not_hundreds_of_them(call_datamix, tmp_path, num_columns):
    names = [f"c{i}" for i in range(num_columns)]
    rows = [",".join(names), *[",".join(str(row + column) for column in range(num_columns)) for row in range(8)]]
    (tmp_path / "wide.csv").write_text("\n".join(rows))
    shown = call_datamix("source=my_table", f"source.my_table.path={tmp_path}/wide.csv", "batch.size=4").out
    assert f"\nfeatures: {', '.join(names if num_columns < 32 else [*names[:32], '…'])}\n" in shown
