"""What is kept of each test of a model, and of the mix between tests."""

from __future__ import annotations

import json
import math

import numpy as np

from datamix.training.metrics import MetricsFile


def test_a_line_a_test_and_lines_between(tmp_path):
    metrics = MetricsFile(tmp_path)
    metrics.add(2, 0.5, {"accuracy/a": 0.25})
    assert read(tmp_path) == [{"step": 2, "loss": 0.5, "accuracy/a": 0.25}]  # at once
    metrics.add(3, 0.45, sources={"a": {"loss": None, "share": 0.5}})
    metrics.add(4, 0.4, {"accuracy/a": math.nan}, {"a": {"loss": math.inf}})
    assert read(tmp_path)[1:] == [
        {"step": 3, "loss": 0.45, "sources": {"a": {"loss": None, "share": 0.5}}},
        {"step": 4, "loss": 0.4, "accuracy/a": None, "sources": {"a": {"loss": None}}},  # strict JSON
    ]
    assert [line["step"] for line in metrics.lines] == [2, 4]
    assert math.isnan(metrics.lines[1]["accuracy/a"])


def test_a_run_that_goes_on_keeps_the_lines_before_and_drops_the_rest(tmp_path):
    text = '{"step": 2, "loss": 1, "sources": {}}\n{"step": 3, "loss": 8}\n[]\n{"step": 4, "loss": 9}\n{"step": 6, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    metrics = MetricsFile(tmp_path, [{"step": 2, "loss": 1.0}], 3)
    metrics.add(4, 0.5, {})
    assert read(tmp_path) == [
        {"step": 2, "loss": 1.0, "sources": {}},
        {"step": 3, "loss": 8},
        {"step": 4, "loss": 0.5},
    ]
    assert [line["step"] for line in metrics.lines] == [2, 4]
    assert MetricsFile(tmp_path, [{"step": 1, "loss": 3.0}], 3).lines == [{"step": 1, "loss": 3.0}]
    assert read(tmp_path) == [{"step": 1, "loss": 3.0}]  # as after another batch size, by which steps count
    assert read(tmp_path)
    assert MetricsFile(tmp_path).lines == []
    assert read(tmp_path) == []


def read(directory):
    def refuse(constant):
        raise ValueError(constant)

    text = (directory / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_the_loss_between_tests_is_kept_in_parts(tmp_path):
    metrics = MetricsFile(tmp_path, losses=[(10, 5.0)])
    metrics.trained(np.arange(10, 50), np.arange(40.0))
    assert metrics.losses[:3] == [(10, 5.0), (12, 0.5), (14, 2.5)]
    assert (len(metrics.losses), metrics.losses[-1]) == (21, (50, 38.5))
    metrics.trained(np.asarray([50]), np.asarray([7.0]))
    assert metrics.losses[-1] == (51, 7.0)
