"""Processes that train together; what several of them do is in tests/sweeps/test_processes.py and test_parallel.py."""

from __future__ import annotations

import pytest

from datamix.errors import ConfigError
from datamix.training import processes

TRAIN = ["job=train", "source=digits", "source.digits.test_split=test"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", processes.LAUNCHED):
        monkeypatch.delenv(name, raising=False)


def test_one_process_is_the_first_and_agrees_with_itself():
    processes.join(distributed=False)
    assert processes.is_first()
    assert not processes.has_joined()
    assert processes.agreed(lambda: {"a": 1}) == [{"a": 1}]
    assert processes.of_first(lambda: 3) == 3
    processes.check_alike({"seed": "1"})
    with pytest.raises(ConfigError, match="no"), processes.together():
        raise ConfigError("no")
    with pytest.raises(KeyError), processes.leaving():
        raise KeyError


def test_the_setting_or_the_environment_asks_for_others(monkeypatch):
    assert [processes.is_asked(distributed=asked) for asked in (False, True)] == [False, True]
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    assert processes.is_asked(distributed=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "overrides", "line"),
    [
        (
            {},
            ["train.distributed=true"],
            "ConfigError: train.distributed: nothing says which processes there are (coordinator_address should be "
            "defined). Outside Slurm and Open MPI, set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID.",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_PROCESS_ID": "first"},
            [],
            "ConfigError: JAX_PROCESS_ID = 'first'; it is a whole number.",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"},
            ["-m"],
            "ConfigError: train.distributed: several processes train one model, not a sweep. Start the sweep by "
            "itself; hydra/launcher=processes starts several for each of its jobs.",
        ),
    ],
)
def test_processes_that_nobody_names_are_a_mistake_of_one_line(run_datamix, tmp_path, numbers, overrides, line):
    assert run_datamix(*TRAIN, *overrides, cwd=tmp_path, env=numbers).mistake == line
    assert not list(tmp_path.rglob("report.json"))
