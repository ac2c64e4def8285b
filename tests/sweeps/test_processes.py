"""Jobs that several processes train: with the launcher, and with what a cluster sets in their environment."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SMALL = [
    "job=train", "source=digits+garments", "source.digits.limit=300", "source.garments.limit=300", "model=linear",
    "source.digits.test_split=train[98%:]", "source.garments.test_split=train[98%:]", "batch.size=12",
    "train.steps=400", "train.eval_every=20", "mix.share.digits=0.3", "source.garments.placement=host",
]  # fmt: skip
LAUNCHER = ["-m", "hydra/launcher=processes", "hydra.launcher.num_processes=2"]


@pytest.fixture
def start(environment, tmp_path) -> Callable[..., list[subprocess.Popen[str]]]:
    """Starts a command as so many processes of a cluster, the first of which shows what all of them do."""

    def started(count: int, *overrides: str, each: tuple[str, ...] = ()) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        numbers = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
        direct = {key: value for key, value in environment.items() if "proxy" not in key.lower()}
        return [
            subprocess.Popen(
                [sys.executable, "-m", "datamix", *SMALL, *overrides, *each[rank : rank + 1]],
                cwd=tmp_path, env=direct | numbers | {"JAX_PROCESS_ID": str(rank)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(count)
        ]  # fmt: skip

    return started


def lines(directory: Path) -> list[dict[str, Any]]:
    path = directory / "metrics.jsonl"
    read = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [{name: value for name, value in line.items() if isinstance(value, float | int)} for line in read]


def wait_for(test: Callable[[], Any]) -> None:
    until = time.monotonic() + 300
    while not test():
        assert time.monotonic() < until
        time.sleep(0.02)


def parameters(directory: Path) -> dict[str, np.ndarray]:
    """Every number of the last checkpoint."""
    with np.load(directory / "checkpoints" / "400" / "state.npz") as read:
        return dict(read)


@pytest.mark.slow
def test_one_process_then_three_then_two_end_as_one_does(start, run_datamix, tmp_path):
    """Each time one of them is killed, the others end by themselves with a line."""
    changed, resumed = tmp_path / "changed", []
    for count, killed in ((1, 0), (3, 2), (2, None)):
        before = len(lines(changed))
        processes = start(count, "hydra.run.dir=changed", "train.resume=true")
        if killed is not None:
            wait_for(lambda before=before: len(lines(changed)) >= before + 3)
            processes[killed].kill()
        ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
        resumed += [line for line in ended[0][0].splitlines() if line.startswith("Resume: ")]
        if killed is None:
            assert [code for _, _, code in ended] == [0, 0], ended
        for rank, (out, err, code) in enumerate(ended):
            assert rank == 0 or out == ""
            if killed not in (None, rank):
                assert code == 2, err
                assert err.splitlines()[-1].startswith(
                    "ResourceError: another of the processes that train together has"
                )
    assert len(resumed) == (3 if "Resume" in resumed[0] else 2)
    assert resumed[-1].startswith("Resume: train.resume: the run goes on after step ")
    run_datamix(*SMALL, "hydra.run.dir=whole", cwd=tmp_path)
    whole = tmp_path / "whole"
    assert [line["step"] for line in lines(changed)] == [line["step"] for line in lines(whole)]
    for line, expected in zip(lines(changed), lines(whole), strict=True):
        assert line == pytest.approx(expected, rel=1e-2)
    actual, expected = parameters(changed), parameters(whole)
    assert len(expected) > 5
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_all_with_one_line(start):
    for overrides, line in [
        (("seed=0", "seed=1"), "ConfigError: process 1 differs from process 0 in seed, source.digits, "
         "source.garments; give all the same command and the same data."),
        (("", "source.digits.split=nothing"), "ConfigError: process 1: source 'digits': split = 'nothing'; there is no "
         "split 'nothing'. Known: test, train."),
    ]:  # fmt: skip
        processes = start(2, each=tuple(each or "seed=0" for each in overrides))
        ended = [process.communicate(timeout=300)[1].splitlines() for process in processes]
        # Where the first is gone before the other hears of it, JAX's own service logs that its socket is closed.
        said = [[text for text in lines if re.match(r"[A-Za-z]+Error: |Traceback", text)] for lines in ended]
        assert said == [[line], []]
        assert len(ended[0]) == 1
        assert [process.returncode for process in processes] == [2, 2]


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_a_checkpoint(start, tmp_path):
    processes = start(2, "hydra.run.dir=run", "train.steps=1000000")
    wait_for(lambda: len(lines(tmp_path / "run")) >= 2)
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=300)[1].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [143, 143]
    more = f"train.resume=true hydra.run.dir={tmp_path / 'run'}"
    assert errors[0] == [f"The same command with {more} goes on from the last checkpoint.", "terminated"]
    step = str(lines(tmp_path / "run")[-1]["step"])
    assert step in [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]


@pytest.mark.slow
def test_the_launcher_trains_each_job_in_several_processes(run_datamix, tmp_path):
    command = [*SMALL, "train.steps=40", "mix.share.digits=0.4"]
    ended = run_datamix(*command, *LAUNCHER, "seed=0,1", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, ""), ended.err
    run_datamix(*command, "seed=1", "hydra.run.dir=alone", cwd=tmp_path)
    job, alone = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("sweep/1", "alone"))
    assert (job["train"].pop("devices"), alone["train"].pop("devices")) == (2, 1)
    assert job["train"] == alone["train"]
    assert job["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    assert "Training linear" in (tmp_path / "sweep" / "1" / "output.txt").read_text()
    bad = run_datamix(*command, *LAUNCHER, "batch.size=9,12", "hydra.sweep.dir=bad", cwd=tmp_path)
    assert bad.code == 2
    assert bad.err.splitlines() == [
        "ConfigError: batch.size = 9; a batch cannot be divided equally among 2 processes of 1 devices. Choose a "
        "multiple of 2. (job 0)"
    ]
    assert (tmp_path / "bad" / "1" / "report.json").is_file()


@pytest.fixture
def training(environment, tmp_path):
    """The command of a sweep, the directory of its only job, and its launcher, whose processes train."""
    command, job = [*SMALL, *LAUNCHER, "hydra.sweep.dir=sweep"], tmp_path / "sweep" / "0"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "datamix", *command],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(lines(job)) >= 2)
    return command, job, launcher


@pytest.mark.slow
def test_the_launcher_ends_its_processes_and_leaves_the_job_resumable(training, run_datamix, tmp_path):
    command, job, launcher = training
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=300)
    assert (launcher.returncode, err.splitlines()[-1]) == (143, "terminated")
    assert json.loads((job / "result.json").read_text())["status"] == "interrupted"
    step, num_lines = lines(job)[-1]["step"], len(lines(job))
    assert step < 400
    time.sleep(0.5)
    assert len(lines(job)) == num_lines  # nobody trains any more
    ended = run_datamix(*command, "sweep.resume=true", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert [line["step"] for line in lines(job)] == list(range(20, 401, 20))
    assert f"goes on after step {step:,}" in (job / "output.txt").read_text()


@pytest.mark.slow
def test_a_job_whose_process_is_killed_goes_on_as_its_error_says(training, run_datamix, tmp_path):
    command, job, launcher = training
    tasks = Path(f"/proc/{launcher.pid}/task").glob("*/children")
    os.kill(int([child for task in tasks for child in task.read_text().split()][-1]), signal.SIGKILL)
    last, advice = launcher.communicate(timeout=300)[1].splitlines()[-2:]
    assert launcher.returncode == 2
    # It may be the launcher that notices first, or the process that waits for the one that is gone.
    killed = r"process \d of 2 was ended by SIGKILL; sweep\.resume=true goes on from its last checkpoint\."
    waited = r"another of the processes that train together has ended, .*; train\.resume=true goes on from .*\."
    assert re.fullmatch(rf"ResourceError: ({killed}|{waited}) \(job 0\)", last)
    assert advice == "The same command with sweep.resume=true hydra.sweep.dir=sweep runs what is missing."
    step = max(int(path.name) for path in (job / "checkpoints").iterdir() if path.name.isdecimal())
    ended = run_datamix(*command, "sweep.resume=true", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert f"goes on after step {step:,}" in (job / "output.txt").read_text()
