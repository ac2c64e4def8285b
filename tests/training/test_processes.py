"""Processes that train together; what several of them do is in tests/sweeps/test_processes.py and test_parallel.py."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from datamix.errors import ConfigError, ResourceError
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


def test_a_proxy_that_may_be_in_the_way_is_named(monkeypatch):
    def late(**_):
        raise RuntimeError("DEADLINE_EXCEEDED: no answer\nmore")

    monkeypatch.setattr("jax.distributed.initialize", late)  # its own wait is of five minutes
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ResourceError, match=r"each other: DEADLINE_EXCEEDED: no answer\.$"):
        processes.join(distributed=True)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match=r"; https_proxy is set: .* with no_grpc_proxy"):
        processes.join(distributed=True)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cluster", "rank"),
    [
        (
            # JAX makes its port of the job's number.
            {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"},
            ("SLURM_PROCID", "SLURM_LOCALID"),
        ),
        (
            {"OMPI_MCA_orte_hnp_uri": f"{os.getpid() * 2**12}.0;tcp://127.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"},
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ),
    ],
    ids=["slurm", "open_mpi"],
)
def test_what_a_cluster_sets_says_which_processes_there_are(run_datamix, tmp_path, cluster, rank):
    few = ["source.digits.split=train[:300]", "model=linear", "train.steps=3", "hydra.run.dir=run"]

    def process(number: int):
        env = cluster | dict.fromkeys(rank, str(number)) | {"no_grpc_proxy": "localhost,127.0.0.1"}
        return run_datamix(*TRAIN, "train.distributed=true", *few, cwd=tmp_path, env=env)

    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(process, range(2))
    assert (first.code, other.code, other.out) == (0, 0, "")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["train"]["devices"] == 2
