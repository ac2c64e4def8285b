"""One model over several devices: of one process here, of several in tests/sweeps/test_processes.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datamix.errors import ConfigError
from datamix.training.parallel import mesh_of

SMALL = [
    "job=train", "source=digits+garments", "source.digits.limit=300", "source.garments.limit=300", "model=mlp",
    "model.hidden=[16]", "model.dropout=0.2", "source.digits.test_split=train[98%:]", "batch.size=24",
    "source.garments.test_split=train[98%:]", "train.steps=40", "train.eval_every=20",
]  # fmt: skip
NUMBERS = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}


def test_one_device_needs_no_mesh():
    assert mesh_of(7) is None
    assert mesh_of(7, 1) is None
    with pytest.raises(ConfigError, match=r"^train.devices = 2; JAX has 1 of them in a process.$"):
        mesh_of(8, 2)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "host"])
def test_several_devices_learn_as_one_does(run_datamix, tmp_path, placement):
    """Dropout draws the same numbers, and tests give the same metrics, up to rounding."""
    command = [*SMALL, f"data.placement={placement}"]
    one, four, two = (
        run_datamix(*command, f"hydra.run.dir={name}", *more, cwd=tmp_path, env=env).report
        for name, more, env in (("one", [], {}), ("four", [], NUMBERS), ("two", ["train.devices=2"], NUMBERS))
    )
    assert [report["train"]["devices"] for report in (one, four, two)] == [1, 4, 2]
    lines = [lines_of(tmp_path / name) for name in ("one", "four", "two")]
    for other in lines[1:]:
        assert [line["step"] for line in other] == [20, 40]
        for line, expected in zip(other, lines[0], strict=True):
            assert line == pytest.approx(expected, rel=1e-4)
    mistake = run_datamix(*command, "train.devices=3", "batch.size=32", cwd=tmp_path, env=NUMBERS).mistake
    assert mistake == (
        "ConfigError: batch.size = 32; a batch cannot be divided equally among 1 processes of 3 devices. Choose a "
        "multiple of 3."
    )
    odd = run_datamix(*command, "batch.size=50", "train.steps=2", cwd=tmp_path, env=NUMBERS)
    assert odd.report["train"]["devices"] == 2  # the most that divide it


def lines_of(directory: Any) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if isinstance(value, float | int)} for line in read]
