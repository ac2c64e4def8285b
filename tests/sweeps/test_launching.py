"""The launcher that trains jobs together; what it trains is in tests/test_train.py."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf

from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.errors import ConfigError
from datamix.sweeps.launching import SharedData, check_execution

PLAN = ["-m", "job=plan", "source=digits+garments", "seed=0,1", "hydra/launcher=vmap"]


def test_jobs_that_train_nothing_run_one_after_another(call_datamix):
    ended = call_datamix(*PLAN, "-v")
    assert (ended.code, ended.err) == (0, "")
    assert [report["seed"] for report in ended.reports] == [0, 1]


def test_a_way_to_execute_that_there_is_not():
    for execution in ("auto", "threads", "vmap"):
        check_execution(execution)
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.execution = 'thread'\. Did you mean 'threads'\?"):
        check_execution("thread")


def test_a_job_shares_the_data_of_the_job_before_it_where_it_is_the_same(tmp_path):
    shared = SharedData()

    def made(*overrides: str):
        basic = ["job=train", "source=digits+garments", "model=linear", "train.steps=2"]
        return shared.prepared(parse(compose([*basic, *overrides])), tmp_path)

    first, second = made("mix.ratio=1:3", "seed=1"), made("mix.ratio=1:1", "model=mlp")
    assert second.data.test_pipeline is first.data.test_pipeline
    assert [float(run.data.pipeline.plan.targets[0]) for run in (first, second)] == [0.25, 0.5]
    assert isinstance(made("skip=[[0,2]]"), ConfigError)
    other = made("source.digits.limit=100")
    assert other.data.test_pipeline is not first.data.test_pipeline
    assert other.data.built.sources["digits"].num_records == 100
    shared = SharedData()  # of another sweep
    assert made("source.digits.limit=100").data.test_pipeline is not other.data.test_pipeline


@pytest.mark.slow
def test_a_job_finds_what_hydra_promises_it(call_datamix, tmp_path):
    kept: dict[str, dict[str, object]] = {}
    own = "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    for launcher, choice in (("own", own), ("basic", "hydra/launcher=basic"), ("vmap", "hydra/launcher=vmap")):
        more = ["hydra.job.env_copy=[PATH]", f"hydra.sweep.dir={launcher}", "+vars.x=${hydra:job.num}"]
        more.append(f"+vars.y='1e3 \u00e9 {'long ' * 40}'")
        assert call_datamix(*PLAN[:-1], choice, *more).code == 0
        kept[launcher] = {path.name: OmegaConf.load(path) for path in (tmp_path / launcher / "1" / ".hydra").iterdir()}
        hydra = kept[launcher]["hydra.yaml"].hydra
        assert ("SerialLauncher" in hydra.launcher["_target_"]) == (launcher == "basic")
        assert hydra.runtime.output_dir == str(tmp_path / launcher / "1")
        for key in ("launcher", "sweep.dir", "runtime.output_dir", "runtime.choices", "overrides.hydra"):
            OmegaConf.update(hydra, key, None)
    assert kept["vmap"] == kept["basic"] == kept["own"]
    for name in ("config.yaml", "overrides.yaml"):
        texts = [(tmp_path / launcher / "1" / ".hydra" / name).read_text() for launcher in kept]
        assert texts[0] == texts[1] == texts[2]
    assert set(kept["vmap"]) == {"config.yaml", "hydra.yaml", "overrides.yaml"}


@pytest.mark.parametrize(
    "more", ["hydra.job.chdir=true", "+hydra.job.env_set.DATAMIX_TEST=1", "hydra.output_subdir=null"]
)
@pytest.mark.parametrize("launcher", ["basic", "vmap"])
def test_what_is_set_of_a_jobs_surroundings_holds(call_datamix, tmp_path, more, launcher):
    assert call_datamix(*PLAN[:-1], more, "hydra.sweep.dir=s", f"hydra/launcher={launcher}").code == 0
    assert (tmp_path / "s" / "1" / "report.json").is_file()
    assert (tmp_path / "s" / "1" / ".hydra").exists() == ("output_subdir" not in more)


@pytest.mark.slow
def test_jobs_that_were_interrupted_as_they_trained_together_go_on_as_the_sweep_says(
    environment, run_datamix, tmp_path, interruptible
):
    command = ["-m", "job=train", "source=digits+garments", "model=linear", "train.steps=8000", "train.eval_every=100"]
    command += ["mix.share.digits=0.3,0.5", "hydra/launcher=vmap", "hydra.sweep.dir=s"]
    process = subprocess.Popen(
        [sys.executable, "-m", "datamix", *command],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list(tmp_path.glob("s/*/checkpoints/*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    lines = process.communicate(timeout=300)[1].splitlines()
    assert (process.returncode, lines[0]) == (130, "Interrupted: it did not come to its end (jobs 0, 1)")
    more = re.fullmatch("The same command with (.*) runs what is missing.", lines[1]).group(1)
    ended = run_datamix(*command, *shlex.split(more), cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    for job in ("0", "1"):
        text = (tmp_path / "s" / job / "output.txt").read_text()
        assert re.search(r"the run goes on after step [\d,]+ of 8,000", text)
