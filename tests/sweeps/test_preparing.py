"""What is settled and refused before a sweep begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PLAN = ["-m", "job=plan", "source=digits+garments"]


@pytest.fixture
def experiments(tmp_path):
    """Two experiments to be swept, beside what each test writes; returns the beginning of a command line."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    for name, text in {
        "few": "batch: {size: 8}\n",
        "more": "batch: {size: 32}\n",
        "study": "hydra:\n  sweeper:\n    params: {seed: '0,1'}\n",
        "evil": "hydra:\n  job_logging:\n    filters: {x: {(): os.makedirs, name: made}}\n",
        "parallel": "defaults:\n  - override /hydra/launcher: vmap\n",
    }.items():
        (tmp_path / "own" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return [*PLAN, "--config-dir", "own", "hydra.sweep.dir=s"]


@pytest.mark.slow
def test_experiments_are_swept(call_datamix, experiments, tmp_path):
    ended = call_datamix(*experiments, "experiment=few,more")
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert [row["overrides"][-1] for row in rows] == ["experiment=few", "experiment=more"]


@pytest.mark.parametrize(
    ("swept", "mistake"),
    [
        ("experiment=few,study", "ConfigError: experiment=study sets hydra.sweeper, which belongs to a whole sweep "),
        ("experiment=few,parallel", "ConfigError: experiment=parallel sets hydra.launcher, which belongs to a whole "),
        ("experiment=few,evil", "RegistryError: hydra.job_logging.filters.x.() = 'os.makedirs'; nothing but "),
        ("experiment=few,mroe", "ConfigError: experiment=mroe: there is no experiment 'mroe'. Did you mean 'more'?"),
        ("mix=random,rnadom", "ConfigError: mix=rnadom: there is no mix 'rnadom'. Did you mean 'random'?"),
        ("hydra.job.name=a,b", "ConfigError: Sweeping over Hydra's configuration is not supported : 'hydra.job.name="),
        ("mix=glob(nothing*)", "ConfigError: mix=glob(nothing*): there is nothing to choose from, and the sweep has "),
    ],
)  # fmt: skip
def test_what_no_job_may_change_is_refused_before_any_runs(call_datamix, experiments, tmp_path, swept, mistake):
    assert call_datamix(*experiments, swept).mistake.startswith(mistake)
    assert not list((tmp_path / "s").rglob("result.json"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        ("hydra.launcher=null", "ConfigError: hydra.launcher is missing; a sweep needs it."),
        ("hydra.sweeper=null", "ConfigError: hydra.sweeper is missing; a sweep needs it."),
        ("hydra/sweeper=null", "ConfigError: hydra/sweeper is missing; it is the name of a choice."),
        ("sweep.metric=null", "ConfigError: sweep.metric is missing; a sweep needs it."),
        ("sweep=null", "ConfigError: sweep.metric is missing; a sweep needs it."),
        ("hydra.sweeper.max_batch_size=0", "ConfigError: hydra.sweeper.max_batch_size = 0; it is 1 or more."),
        ("hydra.sweep.dir=${nope}", "ConfigError: hydra.sweep.dir: Interpolation key 'nope' not found."),
    ],
)
def test_what_a_sweep_needs(call_datamix, override, mistake):
    assert call_datamix(*PLAN, "seed=0,1", override).mistake == mistake


def test_parameters_of_a_sweeper_cannot_change_hydras_part(call_datamix, tmp_path):
    text = "# @package _global_\nhydra:\n  sweeper:\n    params: {hydra.job.name: x, seed: '0,1'}\n"
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    mistake = call_datamix(*PLAN, "--config-dir", "own", "experiment=mine").mistake
    assert mistake.startswith("ConfigError: hydra.sweeper: hydra.job.name cannot be swept; ")


def test_an_experiment_with_parameters_of_its_own_is_a_sweep(call_datamix, experiments, tmp_path):
    ended = call_datamix(*experiments[1:], "--verbose", "experiment=study", "hydra.mode=MULTIRUN")
    assert ended.code == 0, ended.err
    assert [report["seed"] for report in ended.reports] == [0, 1]


def test_directories_named_by_overrides_and_by_the_time(call_datamix, tmp_path):
    where = ["hydra.sweep.dir='it''s/${now:%Y}/${hydra.job.name}'".replace("''", "\\'"),
             "hydra.sweep.subdir=${hydra:job.override_dirname}"]  # fmt: skip
    ended = call_datamix(*PLAN, "mix.share.digits=0.2,0.4", *where)
    assert ended.code == 0, ended.err
    (sweep,) = tmp_path.glob("it's/*/cli")
    assert (sweep / "sweep.json").is_file()
    assert sorted(path.parent.name for path in sweep.rglob("result.json")) == [
        f"job=plan,mix.share.digits={share},source=digits+garments" for share in (0.2, 0.4)
    ]


def test_the_default_directory_is_the_one_that_is_gathered_in(call_datamix, tmp_path):
    assert call_datamix(*PLAN, "seed=0,1").code == 0
    (sweep,) = (tmp_path / "multirun").glob("*/*")
    assert len(json.loads((sweep / "sweep.json").read_bytes())) == len(list(sweep.glob("*/result.json"))) == 2
    assert Path(sweep, "multirun.yaml").is_file()


@pytest.mark.parametrize("subdir", ["${batch.size}", "${hydra:job.name}", "x/../y"])
def test_jobs_that_would_share_a_directory_are_refused_before_the_first(call_datamix, tmp_path, subdir):
    sweep = ["-m", "job=plan", "source=digits+garments", "mix.share.digits=0.2,0.4", "hydra.sweep.dir=s"]
    shared = {"${batch.size}": "16", "${hydra:job.name}": "cli", "x/../y": "y"}[subdir]
    assert call_datamix(*sweep, f"hydra.sweep.subdir='{subdir}'").mistake == (
        f"ConfigError: hydra.sweep.subdir = '{shared}'; jobs 0 and 1 would both write to it. Put "
        "${hydra.job.num} into it, or leave it out."
    )
    assert not (tmp_path / "s").exists()
    ended = call_datamix(*sweep, f"hydra.sweep.subdir='{subdir}/${{hydra.job.num}}'")  # as it says
    assert (ended.code, len(list((tmp_path / "s").rglob("result.json")))) == (0, 2)


def test_a_directory_named_by_what_is_swept_is_each_jobs_own(call_datamix, tmp_path):
    sweep = ["-m", "job=plan", "source=digits+garments", "mix.share.digits=0.2,0.4", "hydra.sweep.dir=s"]
    assert call_datamix(*sweep, "hydra.sweep.subdir='${mix.share.digits}'").code == 0
    assert {path.parent.name for path in (tmp_path / "s").rglob("result.json")} == {"0.2", "0.4"}


def test_a_job_keeps_how_its_sweep_is_launched_and_its_least_share(call_datamix, tmp_path):
    how = ["hydra/launcher=vmap", "hydra.launcher.execution=threads", "hydra.sweeper.min=0.4"]
    simplex = ["hydra/sweeper=simplex", "hydra.sweeper.num_jobs=1"]
    assert call_datamix(*PLAN, *how, *simplex, "hydra.sweep.dir=s", "mix.weights.digits=null").code == 0
    assert call_datamix(*PLAN, "seed=0", "hydra.sweep.dir=t").code == 0
    simple, plain = (json.loads((tmp_path / name / "0" / "result.json").read_bytes()) for name in "st")
    assert (simple["launch"], simple["least_share"]) == (how, 0.4)
    assert (plain["launch"], plain["least_share"]) == ([], 0.0)


def test_a_job_keeps_the_flags_that_find_its_configs(call_datamix, experiments, tmp_path):
    (tmp_path / "own" / "primary.yaml").write_text("defaults: [config, _self_]\nbatch: {size: 8}\n")
    assert call_datamix(*experiments, "--config-name=primary", "seed=0").code == 0
    result = json.loads((tmp_path / "s" / "0" / "result.json").read_bytes())
    assert (result["flags"], result["config"]["batch"]["size"]) == (
        [f"--config-dir={tmp_path / 'own'}", "--config-name=primary"],
        8,
    )
