"""`job=suggest`: from a sweep to the best ratio, and on with what it proposes."""

from __future__ import annotations

import json
import shlex

import pytest

TRAIN = ["job=train", "model=linear", "source=digits+garments", "train.steps=40", "train.eval_every=40"]
FEW = ["source.digits.limit=2000", "source.garments.limit=2000"]


@pytest.mark.slow
def test_a_sweep_a_suggestion_and_what_it_proposes(call_datamix, tmp_path):
    sweep = [
        "-m",
        *TRAIN,
        *FEW,
        "hydra/sweeper=simplex",
        "hydra.sweeper.num_jobs=6",
        "hydra.launcher.execution=threads",
    ]
    swept = call_datamix(*sweep, "hydra/launcher=vmap", "seed=0,1", "hydra.sweep.dir=s")
    assert (swept.code, swept.err) == (0, "")
    rows = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert len(rows) == 12
    assert all(isinstance(row["predicted"], float) for row in rows)
    ended = call_datamix("job=suggest", "sweep.dir=s", "hydra.run.dir=answer")
    assert (ended.code, ended.err) == (0, "")
    plain = json.loads((tmp_path / "answer" / "suggest.json").read_bytes())
    assert plain == json.loads((tmp_path / "s" / "suggest.json").read_bytes()) == ended.report["suggest"]
    assert 0.1 < plain["best"]["digits"] < 0.9
    assert (tmp_path / "answer" / "suggest.png").is_file()
    assert "Predicted best: digits " in ended.out
    for line in plain["commands"]:
        done = call_datamix(*shlex.split(line)[1:], *(["hydra.run.dir=both"] if "job=suggest" in line else []))
        assert (done.code, done.err) == (0, ""), line
    assert json.loads((tmp_path / "both" / "suggest.json").read_bytes())["jobs"] == 18


@pytest.mark.slow
def test_commands_work_for_weights_of_a_file_and_any_directory(call_datamix, tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nmix: {weights: {garments: 2}}\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    sweep = ["-m", *TRAIN, *FEW, "--config-dir=own", "experiment=mine", "mix.weights.digits=0.5,1,2,3", "seed=0,1",
             "sweep.num_next=2", "sweep.auto=1", "sweep.metric=loss/digits"]  # fmt: skip
    swept = call_datamix(*sweep, "hydra/launcher=vmap", "hydra.sweep.dir='1, a (1)'")
    assert (swept.code, swept.err) == (0, "")
    assert "Round 1 of 1, " in swept.out
    plain = json.loads((tmp_path / "1, a (1)" / "suggest.json").read_bytes())
    assert plain["jobs"] == 12
    assert " hydra/launcher=vmap hydra/sweeper=simplex " in plain["commands"][0]
    for line in plain["commands"]:
        done = call_datamix(*shlex.split(line)[1:], *(["hydra.run.dir=both"] if "job=suggest" in line else []))
        assert (done.code, done.err) == (0, ""), line
    assert json.loads((tmp_path / "both" / "suggest.json").read_bytes())["jobs"] == 16


@pytest.mark.parametrize(
    ("overrides", "mistake"),
    [
        ([], "ConfigError: sweep.dir is missing; it is the directory of a sweep, or a list of them"),
        (
            ["sweep.dir=none"],
            "ConfigError: sweep.dir = 'none'; there is no such folder; it is the hydra.sweep.dir of a sweep.",
        ),
        (["sweep.num_next=0"], "ConfigError: sweep.num_next = 0; it is 1 or more."),
        (["sweep.goal_weights.mnist=-1"], "ConfigError: sweep.goal_weights"),
    ],
)
def test_a_mistake_is_one_line(call_datamix, overrides, mistake):
    assert call_datamix("job=suggest", *overrides).mistake.startswith(mistake)


def test_ratios_under_a_schedule_are_told_to_lead_to_none(call_datamix):
    schedule = "mix.schedule=[{until:20,ramp:linear,weights:{digits:1}}]"
    call_datamix("-m", "job=plan", "source=digits+garments", "mix.share.digits=0.2,0.5", schedule, "hydra.sweep.dir=s")
    mistake = call_datamix("job=suggest", "sweep.dir=s", "sweep.metric=batches").mistake
    assert "ratios under mix.schedule are not proposed" in mistake
    assert mistake.endswith("Sweeps without mix.schedule lead to some.")


def test_a_metric_that_no_job_reports_is_told_which_there_are(call_datamix):
    call_datamix("-m", "job=plan", "source=digits+garments", "mix.share.digits=0.2,0.5", "hydra.sweep.dir=s")
    mistake = call_datamix("job=suggest", "sweep.dir=s", "sweep.metric=batch").mistake
    assert mistake.startswith("ConfigError: sweep.metric = 'batch'; ")
    assert " Did you mean 'batches'? Known: batches, max_deviation, " in mistake


@pytest.mark.slow
def test_a_sweep_of_too_few_ratios_says_what_to_do(call_datamix):
    call_datamix("-m", "job=plan", "source=digits+garments", "mix.share.digits=0.2,0.4", "hydra.sweep.dir=s")
    mistake = call_datamix("job=suggest", "sweep.dir=s", "sweep.metric=batches").mistake
    assert "it takes 3 ratios or more, and jobs that differ in ratio and seed alone have tried 2. " in mistake
    assert "hydra/sweeper=simplex tries as many ratios as hydra.sweeper.num_jobs says" in mistake
