"""Multiruns: what they leave behind however they end, and how they go on; by every launcher there is."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import textwrap
import time
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from datamix.sweeps.watching import plain_config

PLAN = ["-m", "job=plan", "source=digits+garments"]
# A source that does what its settings say once it is opened.
OWN = """
    import gc, os, signal, time
    import numpy as np
    import datamix

    @datamix.source
    def moody(*, mood: str = "good"):
        if mood == "bug":
            raise LookupError("no room")
        if mood == "ctrl-c":
            raise KeyboardInterrupt
        if mood == "term":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        if mood == "gc":
            def callback(phase, info):
                if phase == "start":
                    os.kill(os.getpid(), signal.SIGTERM)
                    sum(range(1000))
            gc.callbacks.append(callback)
            try:
                gc.collect()
                time.sleep(5)
            finally:
                gc.callbacks.remove(callback)
        if mood == "import":
            try:
                import kills
            except BaseException as error:
                raise ImportError("a module cannot be imported twice") from error
            time.sleep(5)
        return {"image": np.zeros((20, 28, 28, 1), np.uint8), "label": np.arange(20) % 3}
    """


@pytest.fixture
def moody(tmp_path):
    """The beginning of a command line that sweeps moods."""
    (tmp_path / "moods.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "kills.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM); sum(range(1000))")
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "moody.yaml").write_text("_target_: moody\nmood: good\noperators: [to_float]\n")
    return ["-m", "--config-dir", str(tmp_path / "mine"), "plugins=[moods]", "job=plan", "source=moody"]


def rows(directory: Path) -> list[dict]:
    """What `sweep.json` holds, once all four files are there."""
    assert {path.name for path in directory.glob("sweep.*")} >= {"sweep.csv", "sweep.html", "sweep.json"}
    return json.loads((directory / "sweep.json").read_bytes())


@pytest.mark.slow
def test_several_axes_give_a_row_each(call_datamix, tmp_path):
    axes = ["mix.share.digits=0.2,0.6", "seed=range(0,2)", "batch.size=choice(8,16)"]
    ended = call_datamix(*PLAN, *axes, "hydra.sweep.dir=s")
    assert (ended.code, ended.err) == (0, "")
    lines = rows(tmp_path / "s")
    assert [row["job"] for row in lines] == list(range(8))
    assert [row["shares"]["digits"] for row in lines] == pytest.approx([0.2] * 4 + [0.6] * 4, abs=0.001)
    assert [row["seed"] for row in lines] == [0, 0, 1, 1] * 2
    result = json.loads((tmp_path / "s" / "3" / "result.json").read_bytes())
    assert {key: result[key] for key in ("job", "status", "error", "seed")} == {
        "job": 3,
        "status": "done",
        "error": None,
        "seed": 1,
    }
    overrides = ["job=plan", "source=digits+garments", "mix.share.digits=0.2", "seed=1", "batch.size=16"]
    assert result["overrides"] == overrides
    assert result["config"]["mix"]["share"] == {"digits": 0.2}
    assert "hydra" not in result["config"]
    assert (tmp_path / "s" / "sweep.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_datasets_are_swept(call_datamix, tmp_path):
    assert call_datamix("-m", "job=plan", "source=digits+garments,garments", "hydra.sweep.dir=s").code == 0
    assert [list(row["shares"]) for row in rows(tmp_path / "s")] == [["digits", "garments"], ["garments"]]


@pytest.mark.slow
def test_a_resumed_sweep_runs_what_is_missing_and_nothing_else(call_datamix, tmp_path):
    sweep = [*PLAN, "mix.share.digits=7,0.5,0.6", "hydra.sweep.dir=s"]
    first = call_datamix(*sweep)
    assert first.code == 2
    (line,) = first.err.splitlines()
    assert line.startswith("ConfigError: mix.share.digits = 7; a share lies in [0, 1]. ")
    assert line.endswith(" (job 0)")
    kept = (tmp_path / "s" / "1" / "result.json").stat()
    again = call_datamix(*sweep)
    assert again.mistake.startswith(
        "StateError: hydra.sweep.dir = 's'; it holds the results of 3 jobs. sweep.resume=true "
    )
    (tmp_path / "s" / "2" / "result.json").unlink()
    mended = ["mix.share.digits=0.4,0.5,0.6" if argument.startswith("mix.") else argument for argument in sweep]
    other = call_datamix(*mended, "sweep.resume=true", "batch.size=17")
    assert other.mistake.startswith("StateError: batch.size: job 1 in s/1 was run with 16, now it is 17. ")
    assert not (tmp_path / "s" / "2" / "result.json").exists()  # the check came before any job
    resumed = call_datamix(*mended, "-v", "sweep.resume=true", "sweep.metric=samples")
    assert (resumed.code, resumed.err, len(resumed.reports)) == (0, "", 2)
    assert f"Job 1 is done already: {tmp_path / 's' / '1'}\n" in resumed.out
    after = (tmp_path / "s" / "1" / "result.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert [(row["job"], row["status"], row["overrides"][2]) for row in rows(tmp_path / "s")] == [
        (0, "done", "mix.share.digits=0.4"),
        (1, "done", "mix.share.digits=0.5"),
        (2, "done", "mix.share.digits=0.6"),
    ]


def test_a_bug_in_one_job_is_shown_and_the_others_go_on(call_datamix, moody, tmp_path):
    ended = call_datamix(*moody, "source.moody.mood=bug,good", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert [(row["status"], row["error"]) for row in rows(tmp_path / "s")] == [
        ("failed", "LookupError: no room"),
        ("done", None),
    ]
    assert ended.err.startswith("Traceback")
    assert "\nLookupError: no room (job 0)\n" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(("mood", "code"), [("ctrl-c", 130), ("term", 143), ("gc", 143), ("import", 143)])
def test_a_sweep_cut_short_is_gathered_and_says_how_to_go_on(call_datamix, moody, tmp_path, mood, code):
    ended = call_datamix(*moody, f"source.moody.mood=good,{mood},good", "hydra.sweep.dir=s")
    assert ended.code == code
    assert [row["status"] for row in rows(tmp_path / "s")] == ["done", "interrupted", "interrupted"]
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[:3] == [
        "Interrupted: it was interrupted (job 1)",
        "Interrupted: it had not begun (job 2)",
        "The same command with sweep.resume=true hydra.sweep.dir=s runs what is missing.",
    ]


@pytest.mark.parametrize(
    ("mood", "more"), [("good", []), ("bug", ["LookupError: no room (job 1)", "The same command"])]
)
def test_a_signal_while_the_end_is_drawn_says_how_it_is_drawn(call_datamix, moody, monkeypatch, tmp_path, mood, more):
    def ended_as_it_draws(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with monkeypatch.context() as patch:
        patch.setattr("datamix.sweeps.gathering.gather", ended_as_it_draws)
        ended = call_datamix(*moody, f"source.moody.mood=good,{mood}", "seed=0", "hydra.sweep.dir=s")
    assert ended.code == 143
    said = [
        "Its table, figure and page are not all written; job=report sweep.dir=s draws what the jobs have left.",
        *more,
        "terminated",
    ]
    lines = ended.err.splitlines()[-len(said) :]
    assert all(line.startswith(text) for line, text in zip(lines, said, strict=True)), ended.err
    assert call_datamix("job=report", "sweep.dir=s", "sweep.metric=samples").code == 0
    assert [row["status"] for row in rows(tmp_path / "s")] == ["done", "failed" if more else "done"]


def test_a_mistake_before_the_first_job_leaves_nothing(call_datamix, tmp_path):
    ended = call_datamix(*PLAN, "mix=random,rnadom", "hydra.sweep.dir=s")
    assert ended.mistake.startswith("ConfigError: mix=rnadom: there is no mix 'rnadom'. Did you mean 'random'?")
    assert list((tmp_path / "s").glob("sweep.*")) == []


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec("hydra_plugins") is None
        or importlib.util.find_spec(f"hydra_plugins.{package}") is None,
        reason=f"needs {package}: pip install -e '.[sweep]'",
    )


LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": [],
    "ray": ["+hydra.launcher.ray.init.include_dashboard=false"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [pytest.param(name, marks=needs(f"hydra_{name.partition('_')[0]}_launcher")) for name in LAUNCHERS]
)
def test_another_launcher_gives_the_same_rows(call_datamix, run_datamix, environment, monkeypatch, tmp_path, launcher):
    for name in ("PYTHONPATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, environment.get(name, "disabled"))
    axes = ["mix.share.digits=0.2,7", "hydra.sweep.dir=s", f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    # Ray's driver stays in its process; the others start theirs from this one, which has all imported already.
    ended = run_datamix(*PLAN, *axes, cwd=tmp_path) if launcher == "ray" else call_datamix(*PLAN, *axes)
    assert ended.code == 2, ended.err
    good, bad = rows(tmp_path / "s")
    assert (good["status"], good["shares"]) == ("done", pytest.approx({"digits": 0.2, "garments": 0.8}, abs=0.001))
    assert (bad["status"], bad["error"].partition(";")[0]) == ("failed", "ConfigError: mix.share.digits = 7")
    assert re.search(r"^ConfigError: mix\.share\.digits = 7; .* \(job 1\)$", ended.err, re.MULTILINE)
    assert "Traceback" not in ended.err


@needs("hydra_optuna_sweeper")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the plugin's own libraries
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.slow
def test_a_search_finds_the_best_of_the_grid_in_fewer_jobs(call_datamix, tmp_path):
    # A mix of 300 and 700 records that repeats none is longest at a share of 0.3; a grid of tenths takes nine jobs.
    mix = [*PLAN, "source.digits.split=train[:300]", "source.garments.split=train[:700]", "sweep.metric=samples"]
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=1"]
    sampler = ["hydra.sweeper.sampler.seed=0", "hydra.sweeper.sampler.n_startup_trials=4"]
    share = "mix.share.digits=interval(0.05,0.95)"
    assert call_datamix(*mix, share, *search, *sampler, "hydra.sweep.dir=search").code == 0
    (best,) = (row for row in rows(tmp_path / "search") if row["best"])
    assert abs(best["shares"]["digits"] - 0.3) < 0.1  # the plugin minimises unless it is told
    said = (tmp_path / "search" / "optimization_results.yaml").read_text()
    assert f"best_value: {best['metrics']['samples']}" in said
    lost = call_datamix(*mix[:-1], share, *search, "hydra.sweep.dir=t")
    assert lost.code == 2
    assert "ConfigError: sweep.metric = 'accuracy/worst'; job=plan gives no such number to search by. " in lost.err


@needs("hydra_optuna_sweeper")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.slow
def test_a_failed_job_is_a_failed_trial_and_not_the_end_of_a_search(call_datamix, moody, tmp_path):
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=1", "sweep.metric=samples"]
    sampler = ["hydra.sweeper.sampler.seed=0", "source.moody.mood=choice(good,bug)"]
    ended = call_datamix(*moody, *search, *sampler, "hydra.sweep.dir=s")
    assert ended.code == 1
    statuses = [row["status"] for row in rows(tmp_path / "s")]
    assert (len(statuses), set(statuses), statuses[-1] == statuses[0] == "failed") == (6, {"done", "failed"}, False)
    assert "best_value: " in (tmp_path / "s" / "optimization_results.yaml").read_text()


def test_what_a_search_would_call_is_refused(call_datamix):
    ended = call_datamix(*PLAN, "hydra.sweeper.custom_search_space=os.system", "hydra/sweeper=optuna")
    assert ended.mistake.startswith("RegistryError: hydra.sweeper.custom_search_space = 'os.system'; nothing but ")


TRAIN = ["-m", "job=train", "model=linear", "train.steps=4", "train.eval_every=2", "source.mnist.limit=200"]


@pytest.mark.slow
def test_jobs_that_differ_in_ratio_or_seed_alone_compile_nothing(call_datamix, tmp_path):
    from jax import monitoring
    from jax._src.monitoring import unregister_event_duration_listener

    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(HydraConfig.get().job.num)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        axes = ["mix.share.mnist=0.1,0.37", "seed=0,1", "batch.size=24"]  # of a size that no other test has
        ended = call_datamix(*TRAIN, *axes, "hydra.sweep.dir=s")
    finally:
        unregister_event_duration_listener(listen)
    assert ended.code == 0, ended.err
    assert set(compiled) == {0}
    lines = rows(tmp_path / "s")
    assert len({json.dumps(row["metrics"]) for row in lines}) == 4
    (best,) = {row["overrides"][-3] for row in lines if row["best"]}
    means = [sum(row["metrics"]["accuracy/worst"] for row in lines[i : i + 2]) for i in (0, 2)]
    assert best == f"mix.share.mnist={(0.1, 0.37)[means.index(max(means))]}"


def test_a_job_is_a_line_and_all_that_it_prints_is_in_its_directory(call_datamix, tmp_path):
    ended = call_datamix(*PLAN, "seed=0,1", "sweep.metric=samples", "hydra.sweep.dir=s")
    assert (ended.code, ended.err) == (0, "")
    first, second, note, *rest = ended.out.splitlines()
    pattern = r"#{0} job=plan source=digits\+garments seed={0}: samples 40,000, \d+\.\d s"
    assert re.fullmatch(pattern.format(0), first)
    assert re.fullmatch(pattern.format(1), second)
    assert note.startswith("Note: divided among 16 ranks")
    assert rest[0] == "The sweep"
    assert any(line.startswith("Best: ") for line in rest)
    assert f"Report: {tmp_path / 's' / '1' / 'report.json'}\n" in (tmp_path / "s" / "1" / "output.txt").read_text()


LONG = ["source.digits.operators=[to_float,{normalize:{mean:0.5,std:0.5}},{clip:{low:0,high:1}}]", "batch.size=100"]


@pytest.mark.slow
@pytest.mark.parametrize(("swept", "shown"), [("seed=0,1", r"seed={0}"), ("mix.share.digits=0.5", r"….{{90}}")])
def test_of_many_overrides_a_job_shows_those_in_which_it_differs(call_datamix, swept, shown):
    ended = call_datamix(*PLAN, swept, *LONG, "sweep.metric=samples", "hydra.sweep.dir=s")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if line.startswith("#")]
    assert lines
    for number, line in enumerate(lines):
        assert re.fullmatch(rf"#{number} {shown.format(number)}: samples 40,000, \d+\.\d s", line)


@needs("hydra_optuna_sweeper")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.slow
def test_of_many_overrides_a_trial_shows_what_is_searched(call_datamix):
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "sweep.metric=samples"]
    ended = call_datamix(*PLAN, *LONG, *search, "mix.share.digits=interval(0.1,0.9)", "hydra.sweep.dir=s")
    assert ended.code == 0, ended.err
    assert len(re.findall(r"^#[01] mix\.share\.digits=0\.\d+: samples [\d,]+, ", ended.out, re.MULTILINE)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "more", "goes_on"),
    [
        ({"status": "begun"}, [], True),  # killed
        ({"status": "begun"}, ["train.resume=false"], False),
        ({"status": "failed", "kind": "ResourceError", "error": "no room."}, [], True),
        ({"status": "failed", "kind": "LookupError", "error": "no room"}, [], False),
    ],
)
def test_a_job_cut_short_goes_on_from_its_checkpoint(call_datamix, tmp_path, ending, more, goes_on):
    sweep = [*TRAIN, "mix.share.mnist=0.5", "batch.size=24"]
    assert call_datamix(*sweep, "hydra.sweep.dir=whole").code == 0
    assert call_datamix(*sweep, "hydra.sweep.dir=s").code == 0
    job = tmp_path / "s" / "0"
    result = json.loads((job / "result.json").read_bytes())
    shutil.rmtree(job / "checkpoints" / "4")  # as if it had been ended after step 2
    (job / "result.json").write_text(json.dumps(result | {"metrics": {}, "sources": {}} | ending))
    resumed = call_datamix(*sweep, "-v", "hydra.sweep.dir=s", "sweep.resume=true", *more)
    assert resumed.code == 0, resumed.err
    assert ("the run goes on after step 2 of 4" in resumed.out) == goes_on
    assert rows(tmp_path / "s")[0]["metrics"] == rows(tmp_path / "whole")[0]["metrics"]


def test_checkpoints_of_a_job_cut_short_are_not_removed_for_other_settings(call_datamix, tmp_path):
    sweep = ["-m", "job=train", "model=linear", "train.eval_every=2", "source=digits", "source.digits.limit=200"]
    sweep += ["hydra.sweep.dir=s", "batch.size=24"]
    assert call_datamix(*sweep, "train.steps=4").code == 0
    job = tmp_path / "s" / "0"
    result = json.loads((job / "result.json").read_bytes())
    (job / "result.json").write_text(json.dumps(result | {"status": "begun", "metrics": {}, "sources": {}}))
    other = [*sweep, "train.steps=6", "sweep.resume=true"]
    assert call_datamix(*other).mistake == (
        "StateError: train.steps: job 0 in s/0 was run with 4, now it is 6. Resume a sweep with the command that it "
        "was begun with, or begin a new one in another hydra.sweep.dir; once s/0/checkpoints is deleted, it begins "
        "afresh."
    )
    assert (job / "checkpoints" / "4").is_dir()
    shutil.rmtree(job / "checkpoints")
    afresh = call_datamix(*other)
    assert (afresh.code, afresh.err) == (0, "")
    assert {path.name for path in (job / "checkpoints").iterdir()} == {"4", "6"}
    (job / "result.json").write_text(json.dumps(result | {"status": "begun", "metrics": {}, "sources": {}}))
    assert call_datamix(*other, "train.steps=8", "train.resume=false").code == 0  # asked for


def test_how_a_job_is_run_is_no_part_of_its_configuration():
    node = OmegaConf.create({"train": {"steps": 2, "resume": True, "curves": None}, "sweep": {"resume": True}})
    assert plain_config(node) == {"train": {"steps": 2}}
