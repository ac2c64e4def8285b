"""What the jobs of a sweep leave behind, read and compared."""

from __future__ import annotations

import json
import math

import pytest

from datamix.errors import DataError
from datamix.sweeps.results import (
    RESULT,
    best,
    complaints,
    metric_of,
    number,
    read_results,
    related,
    seed_groups,
    shown_value,
    stand_ins,
    swept,
)


def test_jobs_that_differ_in_their_seed_are_one_setting(leave):
    groups = seed_groups(read_results(leave()))
    assert [[result.job for result in group.results] for group in groups] == [[0, 1], [2, 3], [4, 5]]
    mnist = 1 - 0.3 * math.exp(-0.6)
    assert groups[0].mean("accuracy/mnist") == pytest.approx(mnist + 0.005)
    assert groups[0].deviation("accuracy/mnist") == pytest.approx(0.01 / math.sqrt(2))
    assert (groups[0].mean("accuracy/none"), groups[0].deviation("accuracy/none")) == (None, 0.0)


def test_a_seed_that_was_run_twice_is_one_seed(leave):
    (group, *_) = seed_groups([result for result in read_results(leave()) * 2 if result.seed == 0])
    assert len(group.results) == 2
    assert group.values("accuracy/mnist") == [pytest.approx(1 - 0.3 * math.exp(-0.6))]


def test_the_best_setting_has_the_best_mean(leave):
    groups = seed_groups(read_results(leave()))
    assert best(groups, "accuracy/worst", "auto") is groups[1]
    assert best(groups, "accuracy/worst", "min") is groups[2]
    assert best(groups, "accuracy/fashion", "auto") is groups[0]
    assert best(groups, "loss/mean", "auto") is min(groups, key=lambda group: group.mean("loss/mean"))
    assert best(groups, "accuracy/none", "auto") is None


def test_a_failed_job_counts_neither_for_nor_against_its_setting(leave):
    results = read_results(leave(failing=(2,)))
    group = seed_groups(results)[1]
    assert group.values("accuracy/mnist") == [pytest.approx(1.01 - 0.3 * math.exp(-1.8))]
    assert complaints(results) == {"MemoryError: no room for <b>these</b> records": [2]}
    assert results[2].status == "failed"


def test_what_was_swept_are_the_overrides_that_differ(leave):
    results = read_results(leave())
    assert swept(results) == ["mix.share.mnist"]
    assert swept(results[:2]) == []
    assert results[0].overrides == {"job": "train", "mix.share.mnist": "0.1", "seed": "0"}


def test_a_found_number_is_shown_with_four_digits(leave):
    (result, *_) = read_results(leave(shares=(0.40870155,)))
    assert shown_value(result, "mix.share.mnist") == "0.4087"
    assert shown_value(result, "job") == "train"


def test_the_metrics_to_show_begin_with_the_one_that_decides(leave):
    results = read_results(leave())
    family = ["accuracy/mnist", "accuracy/fashion", "accuracy/mean", "accuracy/worst"]
    assert related(results, "accuracy/mean") == [family[2], family[0], family[1], family[3]]
    assert related(results, "accuracy/none") == [*family, "loss/mean"]


def test_it_is_known_which_sources_had_a_stand_in(leave):
    assert stand_ins(read_results(leave())) == []
    assert stand_ins(read_results(leave("drawn", provenance="stand-in"))) == ["mnist"]


def test_a_job_that_was_killed_has_been_interrupted(leave):
    path = leave() / "1" / RESULT
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"status": "begun", "metrics": {}}))
    result = read_results(path.parent)[0]
    assert (result.status, result.why) == ("interrupted", "Interrupted: it did not come to its end")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "done", "metrics": {"a": "b"}}'])
def test_a_damaged_result_is_named(leave, text):
    path = leave() / "4" / RESULT
    path.write_text(text)
    with pytest.raises(DataError, match=r"sweep/4/result\.json is damaged .*; delete it, and sweep\.resume=true runs"):
        read_results(path.parents[1])


@pytest.mark.parametrize(
    ("asked", "reported", "metric"),
    [
        ("auto", ["loss/worst", "accuracy/worst"], "accuracy/worst"),
        ("auto", ["perplexity/worst", "loss/worst", "bits_per_byte/worst"], "bits_per_byte/worst"),
        ("auto", ["mse/worst", "r2/worst"], "r2/worst"),
        ("auto", ["loss/worst", "mse/worst"], "mse/worst"),  # where no source has an r2
        ("auto", [], "accuracy/worst"),
        ("samples", ["accuracy/worst"], "samples"),
    ],
)
def test_jobs_are_judged_by_what_was_asked_for_or_by_the_worst_source(asked, reported, metric):
    assert metric_of(asked, reported) == metric


def test_a_command_names_the_directory_of_its_configs(tmp_path, call_datamix):
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text("_target_: digits\nsplit: train[:20]\n")
    sweep = ["-m", "job=plan", "source=mine", "batch.size=16,32", "hydra.sweep.dir=s"]
    ended = call_datamix(f"--config-dir={tmp_path}/conf", *sweep)
    assert not ended.code, ended.err
    assert read_results(tmp_path / "s")[1].command == (f"--config-dir={tmp_path}/conf", *sweep[1:3], "batch.size=32")


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.91236, "accuracy/worst", "91.24 %"),
        (0.91236, "loss/mean", "0.9124"),
        (3.0, "batches", "3.0000"),
        (10.0, "batches", "10"),
        (1234567.0, "samples", "1,234,567"),
    ],
)
def test_a_number_for_people(value, metric, text):
    assert number(value, metric) == text
