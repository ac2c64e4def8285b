"""The contents of `report.json`."""

from __future__ import annotations

import pytest

from datamix.builder.built import Built, build
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.report.contents import report_of, report_of_whole_mix

MIX = ["source=digits+garments", "source.digits.limit=60", "source.garments.limit=20", "batch.size=8", "mix.ratio=3:1"]


def built(*overrides: str) -> Built:
    return build(parse(compose([*MIX, *overrides])))


def test_the_whole_mix_counts_full_batches_alone():
    mix = built("stop=exhaust_once", "source.garments.limit=23")
    report = report_of_whole_mix(mix, mix.spec())
    assert (report["batches"], report["samples"]) == (10, 80)
    rows = report["sources"]
    assert {name: row["source_id"] for name, row in rows.items()} == {"digits": 0, "garments": 1}
    assert sum(row["samples"] for row in rows.values()) == 80
    assert rows["digits"]["epochs"] == rows["digits"]["samples"] / 60
    assert (rows["digits"]["target"], rows["digits"]["records"], rows["digits"]["labels"]) == (0.75, 60, None)
    assert report["batch"]["image"] == {"shape": [8, 28, 28, 1], "dtype": "float32"}
    assert report["fingerprint"] == mix.fingerprint()


def test_a_mix_without_end_has_shares_and_no_counts():
    mix = built("stop=forever")
    report = report_of_whole_mix(mix, mix.spec())
    assert (report["batches"], report["samples"]) == (None, None)
    assert {(row["samples"], row["epochs"]) for row in report["sources"].values()} == {(None, None)}
    assert [row["share"] for row in report["sources"].values()] == [0.75, 0.25]


def test_draws_that_are_too_many_are_not_counted():
    mix = built("stop=forever", "mix=random", "stop.samples=1000000000000")
    report = report_of_whole_mix(mix, mix.spec())
    assert report["samples"] == 10**12
    assert {(row["samples"], row["epochs"]) for row in report["sources"].values()} == {(None, None)}
    assert [row["share"] for row in report["sources"].values()] == [0.75, 0.25]


def test_what_a_job_has_measured_stands_beside_it():
    mix = built("stop=forever")
    report = report_of(
        mix, mix.plan, mix.spec(), fingerprint="f", batches=2, counts={"digits": 12, "garments": 4}, records=16,
        labels={"digits": (0, 9)}, samples_per_s=5.0, figure="samples.png",
    )  # fmt: skip
    assert (report["figure"], report["samples_per_s"], report["fingerprint"]) == ("samples.png", 5.0, "f")
    assert [row["labels"] for row in report["sources"].values()] == [[0, 9], None]
    assert [row["share"] for row in report["sources"].values()] == [0.75, 0.25]
    assert report["max_deviation"] == pytest.approx(0.5, abs=0.26)


def test_under_a_schedule_the_target_is_what_was_asked_for_so_far():
    mix = built("mix.ratio=null", "stop=forever", "mix.schedule=[{until: 1, ratio: '1:0'}, {ratio: '1:1'}]")
    report = report_of(
        mix, mix.plan, mix.spec(), fingerprint="f", batches=2, counts={"digits": 12, "garments": 4}, records=16
    )
    assert [(row["target"], row["share"]) for row in report["sources"].values()] == [(0.75, 0.75), (0.25, 0.25)]
    assert [row["target"] for row in report_of_whole_mix(mix, mix.spec())["sources"].values()] == [0.5, 0.5]


def test_sources_of_a_group_are_summed_up(shared_data):
    mix = build(parse(compose(["source=vision+garments", "mix.weights.vision=3", "stop=forever", "stop.batches=2",
                               f"data.dir={shared_data / 'tensorflow_datasets'}"])))  # fmt: skip
    report = report_of_whole_mix(mix, mix.spec())
    assert list(report["sources"]) == ["vision.mnist", "vision.fashion", "garments"]
    assert report["groups"] == {"vision": {"samples": 24, "share": 0.75, "target": 0.75}}
