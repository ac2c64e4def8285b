"""The launcher `processes`, as Hydra makes it; what it runs is in tests/sweeps/test_processes.py."""

from __future__ import annotations

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra_plugins.hydra_datamix.processes_launcher import ProcessesLauncher

PLAN = ["-m", "job=plan", "source=digits+garments", "seed=0,1", "hydra/launcher=processes"]


def test_hydra_finds_it():
    # Hydra imports the modules of plugins by itself, so that the class is another one.
    names = {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(Launcher)}
    assert f"{ProcessesLauncher.__module__}.ProcessesLauncher" in names


def test_no_processes_end_the_sweep_before_a_job_runs(call_datamix, tmp_path):
    for number in ("0", "two", "1.5"):
        mistake = call_datamix(*PLAN, f"hydra.launcher.num_processes={number}", "hydra.sweep.dir=s").mistake
        assert mistake.startswith("ConfigError: hydra.launcher.num_processes = ")
        assert mistake.endswith("; it is a whole number, 1 or more.")
    assert not list(tmp_path.rglob("report.json"))


def test_jobs_that_train_nothing_run_as_ever(call_datamix):
    ended = call_datamix(*PLAN)
    assert (ended.code, ended.err) == (0, "")
