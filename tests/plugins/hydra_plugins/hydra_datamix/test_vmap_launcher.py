"""The launcher `vmap`, as Hydra makes it; what it trains is in tests/jobs/test_train.py."""

from __future__ import annotations

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra_plugins.hydra_datamix.vmap_launcher import VmapLauncher

PLAN = ["-m", "job=plan", "source=digits+garments", "seed=0,1", "hydra/launcher=vmap"]


def test_hydra_finds_it():
    # Hydra imports the modules of plugins by itself, so that the class is another one.
    names = {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(Launcher)}
    assert f"{VmapLauncher.__module__}.VmapLauncher" in names


def test_the_name_that_its_setting_had_still_sets_it(capsys):
    assert (VmapLauncher().execution, VmapLauncher(execution="vmap").execution) == ("auto", "vmap")
    assert capsys.readouterr().err == ""
    assert VmapLauncher(lanes="threads").execution == "threads"
    assert capsys.readouterr().err == "hydra.launcher.lanes is now called hydra.launcher.execution.\n"


def test_a_way_to_execute_that_there_is_not_ends_the_sweep_before_a_job_runs(call_datamix, tmp_path):
    mistake = call_datamix(*PLAN, "hydra.launcher.execution=thread", "hydra.sweep.dir=s").mistake
    assert mistake.startswith("ConfigError: hydra.launcher.execution = 'thread'. Did you mean 'threads'? Known: ")
    assert not list(tmp_path.rglob("report.json"))


def test_the_name_that_the_key_had_is_accepted_with_a_line(call_datamix):
    ended = call_datamix(*PLAN, "hydra.launcher.lanes=threads")
    assert (ended.code, ended.err) == (0, "hydra.launcher.lanes is now called hydra.launcher.execution.\n")
