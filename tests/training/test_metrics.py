"""What is kept of each test of a model."""

from __future__ import annotations

import json

import numpy as np

from datamix.training.metrics import MetricsFile


def test_a_line_a_test(tmp_path):
    metrics = MetricsFile(tmp_path)
    metrics.add(2, 0.5, {"accuracy/a": 0.25})
    assert read(tmp_path) == [{"step": 2, "loss": 0.5, "accuracy/a": 0.25}]  # at once
    metrics.add(4, 0.4, {"accuracy/a": 0.75})
    metrics.close()
    assert [line["step"] for line in read(tmp_path)] == [2, 4]
    assert read(tmp_path) == metrics.lines


def test_a_run_that_goes_on_keeps_the_lines_before_and_drops_the_rest(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "loss": 1}\n{"step": 4, "loss": 9}\n{"step": 6, "lo')
    metrics = MetricsFile(tmp_path, [{"step": 2, "loss": 1.0}])
    metrics.add(4, 0.5, {})
    metrics.close()
    assert read(tmp_path) == [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 0.5}]


def read(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_between_tests_is_kept_in_parts(tmp_path):
    metrics = MetricsFile(tmp_path, [{"step": 10, "loss": 5.0}])
    metrics.trained(10, np.arange(40.0))
    assert metrics.losses[:3] == [(10, 5.0), (12, 0.5), (14, 2.5)]
    assert (len(metrics.losses), metrics.losses[-1]) == (21, (50, 38.5))
    metrics.trained(50, np.asarray([7.0]))
    assert metrics.losses[-1] == (51, 7.0)
    metrics.close()
