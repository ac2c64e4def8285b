"""`job=train` from the command line: what it prints and writes, killed, resumed, several together; its mistakes."""

from __future__ import annotations

import json
import random
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SMALL = ["job=train", "model=linear", "source=mnist+fashion", "source.mnist.split=train[:500]",
         "source.mnist.test_split=test[:200]", "batch.size=16"]  # fmt: skip


@pytest.fixture
def train(call_datamix):
    return lambda *overrides: call_datamix(*SMALL, "train.steps=40", "train.eval_every=20", *overrides)


def test_it_prints_and_writes_what_it_found(train, tmp_path):
    ended = train("mix.ratio=3:1", "hydra.run.dir=run")
    report = ended.report
    metrics = report["metrics"]
    names = [f"{kind}/{of}" for kind in ("accuracy", "loss") for of in ("mnist", "fashion", "mean")]
    assert sorted(metrics) == sorted([*names, "accuracy/worst"])
    assert metrics["accuracy/worst"] == min(metrics["accuracy/mnist"], metrics["accuracy/fashion"]) > 0.3
    assert (report["job"], report["batches"], report["samples"], report["figure"]) == ("train", 40, 640, "curves.png")
    assert [source["samples"] for source in report["sources"].values()] == [480, 160]
    assert report["test_records"] == {"mnist": 200, "fashion": 100}
    assert [sum(row.values()) for row in report["confusion"].values()] == pytest.approx([1, 1])
    assert (report["model"], report["parameters"]) == ({"name": "linear"}, 784 * 20 + 20)
    assert report["optimizer"]["learning_rate"] == 0.001
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    assert {name: lines[-1][name] for name in metrics} == metrics
    files = {path.name.split(".tfevents")[0] for path in (tmp_path / "run").iterdir()}
    assert files == {".hydra", "checkpoints", "curves.png", "events.out", "metrics.jsonl", "report.json"}
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert ended.out.splitlines()[0] == (
        "Training linear (15,700 parameters, 20 classes) with adam for 40 steps of 16 on mnist 75.0 %, fashion 25.0 %"
    )
    assert len(re.findall(r"^step 20/40  loss .* steps/s with compiling, at most \d+ s left$", ended.out, re.M)) == 1
    assert len(re.findall(r"^step 40/40  loss .* steps/s, 0 s left$", ended.out, re.M)) == 1
    assert re.search(r"^Accuracy: mean .* steps/s, compiling and tests included$", ended.out, re.M)
    assert "On each source's test records after 40 steps\n" in ended.out
    assert ended.err == "" or all(line.startswith("Reading ") for line in ended.err.splitlines())
    undrawn = train("train.curves=false", "hydra.run.dir=undrawn").out
    (line,) = [line for line in undrawn.splitlines() if line.startswith("Curves: ")]
    assert (
        line == "Curves: not drawn; train.curves=true draws curves.png, and the page of a sweep has those of its jobs"
    )


@pytest.mark.slow
def test_what_an_earlier_run_has_left_is_not_kept_beside_the_report_of_another(train, tmp_path):
    run, names = tmp_path / "run", ("predictions.npz", "curves.png")
    train("train.keep_predictions=true", "hydra.run.dir=run")
    assert all((run / name).is_file() for name in names)
    more = train("train.curves=false", "train.steps=60", "train.resume=true", "hydra.run.dir=run")
    assert "the run goes on after step 40 of 60" in more.out
    assert not any((run / name).exists() for name in names)


@pytest.mark.slow
def test_images_without_a_channel_axis_and_records_without_a_class(call_datamix, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", image=image, label=np.where(np.arange(40) % 4 == 3, -1, np.arange(40) % 4)[:, None])
    own = ["job=train", "source=my_npz", "source.my_npz.path=x.npz", "source.my_npz.split=train[:30]",
           "source.my_npz.test_split=train[30:]", "source.my_npz.operators=[to_float]", "batch.size=8",
           "train.steps=2", "train.eval_every=1"]  # fmt: skip
    ended = call_datamix(*own, "source.my_npz.unlabelled=keep")
    assert ended.out.splitlines()[:4] == [
        "Note: source 'my_npz': images [8, 8] get a channel axis, and are [8, 8, 1].",
        "Note: source 'my_npz': labels [1] lose their axis of length 1, and are [].",
        "Note: source 'my_npz': 7 of 30 records are unlabelled, and left out of loss and accuracy.",
        "Note: test records of source 'my_npz': 3 of 10 records are unlabelled, and left out of loss and accuracy.",
    ]
    source = ended.report["sources"]["my_npz"]
    assert (source["unlabelled"], source["leaves"]["image"]["max"]) == (7, image[:30].max())
    refused = call_datamix(*own).mistake
    assert refused.startswith("DataError: source 'my_npz': 3 of 10 labels are no class, such as -1; source.my_npz.unl")


@pytest.mark.slow
def test_pixels_that_are_nan_are_not_blamed_on_the_learning_rate(call_datamix, tmp_path):
    image = np.random.default_rng(0).random((40, 8, 8, 1)).astype(np.float32)
    image[::2, 0] = np.nan
    np.savez(tmp_path / "x.npz", image=image, label=np.arange(40) % 4)
    own = ["job=train", "model=linear", "source=my_npz", "source.my_npz.path=x.npz", "train.steps=2", "batch.size=8",
           "source.my_npz.split=train[:30]", "source.my_npz.test_split=train[30:]", "source.my_npz.operators=[]",
           "train.eval_every=2"]  # fmt: skip
    ended = call_datamix(*own)
    assert ended.out.startswith("Note: source 'my_npz': the leaf 'image' holds NaN (6.25% of its values).\n")
    assert ended.mistake.startswith("DataError: at step 1 the loss is no longer finite: the images of my_npz hold NaN")
    (tmp_path / "mending.py").write_text(
        "import datamix\nimport jax.numpy as jnp\n\n\n@datamix.operator(elementwise=True)\n"
        "def nan_to_zero(record):\n    return record | {'image': jnp.nan_to_num(record['image'])}\n"
    )
    mended = call_datamix(*own, "plugins=[mending]", "source.my_npz.operators=[nan_to_zero]")
    assert np.isfinite(mended.report["metrics"]["loss/my_npz"])


def test_tensorboard_gets_the_same_numbers(train, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    metrics = train("hydra.run.dir=run").report["metrics"]
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:  # of each record, its length, a checksum, the event, a checksum
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}
    of_sources = [f"train/{key}/{name}" for key in ("loss", "records", "epochs", "share", "share_lately")
                  for name in ("mnist", "fashion")]  # fmt: skip
    assert set(values) == {(name, step) for name in [*metrics, "loss/train", *of_sources] for step in (20, 40)}
    assert values["train/share/mnist", 40] == 0.5
    assert {name: values[name, 40] for name in metrics} == pytest.approx(metrics)


def test_stand_ins_give_results_only_where_that_is_asked_for(train, tmp_path):
    nowhere = f"data.dir={tmp_path}"
    assert "or set data.stand_in=true to go on with the built-in stand-in" in train(nowhere).mistake
    splits = ["source.fashion.split=train[:800]", "source.fashion.test_split=test[:100]"]
    ended = train(nowhere, "data.stand_in=true", *splits)
    assert {source["provenance"] for source in ended.report["sources"].values()} == {"stand-in"}
    assert ended.out.startswith("Stand-in: mnist: ")
    assert "after 40 steps — built-in stand-ins, not real data: mnist, fashion\n" in ended.out


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (
            "model=mpl",
            "ConfigError: model=mpl: there is no model 'mpl'. Did you mean 'mlp'? Known: cnn, linear, mlp, ",
        ),
        ("model._target_=mpl", "RegistryError: model._target_: no model 'mpl'. Did you mean 'mlp'? Known: "),
        ("model=mlp model.hiden=[3]", "ConfigError: model.hiden: there is no key 'hiden' in model. Did you mean "),
        ("+model.hidden=[3]", "ConfigError: model.hidden: there is no such setting. "),
        ("optimizer=adm", "ConfigError: optimizer=adm: there is no optimizer 'adm'. Did you mean 'adam'? Known: "),
        ("optimizer.learning_rate=0", "ConfigError: optimizer.learning_rate = 0; it is above 0."),
        ("optimizer.schedule=cosin", "RegistryError: optimizer.schedule: no schedule 'cosin'. Did you mean 'cosine'?"),
        ("optimizer.schedule={cosine:{ned:1}}", "ConfigError: optimizer.schedule.cosine.ned: there is no such "),
        (
            "optimizer.schedule=3",
            "ConfigError: optimizer.schedule = 3; it is no schedule. Write a name, or ",
        ),
        ("optimizer._target_=os.mkdir", "RegistryError: optimizer._target_: no optimizer 'os.mkdir'. "),
        ("train.steps=0", "ConfigError: train.steps = 0; it is 1 or more."),
        ("train.stpes=5", "ConfigError: train.stpes: there is no key 'stpes' in train. Did you mean 'steps'? "),
        ("job=preview", "ConfigError: model: it belongs to job=train. Add job=train, or leave it out."),
        ("source.mnist.test_split=tset", "ConfigError: source 'mnist': split = 'tset'; there is no split 'tset'. Did"),
        (
            "-m seed=1,2 hydra/launcher=vmap hydra.launcher.execution=x",
            "ConfigError: hydra.launcher.execution = 'x'. Known: auto, ",
        ),
    ],
)
def test_a_mistake_is_one_line(call_datamix, arguments, mistake):
    overrides = [override for override in SMALL[:3] if not arguments.startswith(override.split("=")[0] + "=")]
    assert call_datamix(*arguments.split(), *overrides).mistake.startswith(mistake)


def test_a_source_without_test_records_says_how_to_hold_some_out(call_datamix, shared_data):
    from datamix.config.compose import compose
    from datamix.config.parse import parse
    from datamix.training.data import open_data

    mix = [*SMALL[:2], "source=my_npz", f"source.my_npz.path={shared_data / 'digits8x8.npz'}"]
    assert call_datamix(*mix).mistake == (
        "ConfigError: source 'my_npz' has no split 'test' to be tested on; hold some of its records out: "
        "source.my_npz.split=train[1::4]+train[2::4]+train[3::4] source.my_npz.test_split=train[::4]."
    )
    splits = ["source.my_npz.split=train[1::4]+train[2::4]+train[3::4]", "source.my_npz.test_split=train[::4]"]
    data = open_data(parse(compose([*mix, *splits])))
    assert (data.built.sources["my_npz"].num_records, data.num_test_records) == (1347, {"my_npz": 450})


@pytest.mark.slow
def test_jobs_trained_together_give_what_they_give_alone_and_one_that_fails_fails_alone(call_datamix, tmp_path):
    from datamix.testing import traces

    sweep = ["-m", "-v", *SMALL, "train.steps=40", "train.eval_every=20", "mix.share.mnist=0.2,7,0.8"]
    basic = call_datamix(*sweep, "hydra.sweep.dir=basic")
    with traces() as counts:
        together = call_datamix(*sweep, "hydra.sweep.dir=together", "hydra/launcher=vmap")
    assert not counts
    assert "2 jobs in one program, at step 40" in together.out
    assert "train.curves=true draws curves.png" in together.out
    assert (basic.code, together.code) == (2, 2)
    assert "ConfigError: mix.share.mnist = 7; a share lies in [0, 1]. " in together.err
    assert "Traceback" not in together.err
    assert len(together.reports) == len(basic.reports) == 2
    for job in "02":
        actual, expected = (tmp_path / where / job for where in ("together", "basic"))
        assert json.loads((actual / "report.json").read_bytes())["metrics"] == pytest.approx(
            json.loads((expected / "report.json").read_bytes())["metrics"], abs=1e-5
        )
        result, report = (json.loads((actual / name).read_bytes()) for name in ("result.json", "report.json"))
        assert result["seconds"] >= round(report["seconds"], 3) > 0  # and not that of writing them
        for name in ("metrics.jsonl", ".hydra/overrides.yaml", ".hydra/config.yaml"):
            assert (actual / name).read_text() == (expected / name).read_text()
        for job in (actual, expected):  # the page draws the curves
            assert not (job / "curves.png").exists()
            assert json.loads((job / "report.json").read_bytes())["figure"] is None
    assert not (tmp_path / "together" / "1" / "report.json").exists()


KILLED = [*SMALL, "model=mlp", "model.hidden=[16]", "model.dropout=0.2", "train.steps=2000", "train.eval_every=10"]


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_bit_for_bit_the_same(environment, call_datamix, tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-u", "-m", "datamix", *KILLED, "train.resume=true", "hydra.run.dir=killed"]
    chance, resumed = random.Random(), []
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment | cache, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        tests = chance.randint(2, 4)
        for line in process.stdout:
            resumed += re.findall(r"^Resume: train.resume: (?:the run goes on after step (\d+)|there is no)", line)
            tests -= line.startswith("step ")
            if not tests:
                break
        time.sleep(chance.uniform(0, 0.1))  # between two tests, or while a checkpoint is written
        process.kill()
        process.communicate()
        assert process.returncode == -9
    assert resumed[0] == ""
    assert 0 < int(resumed[1]) < int(resumed[2]) < 2000
    ended = call_datamix(*KILLED, "train.resume=true", "hydra.run.dir=killed")
    whole = call_datamix(*KILLED, "hydra.run.dir=whole")
    assert {key for key in whole.report if ended.report[key] != whole.report[key]} <= {"seconds", "samples_per_s"}
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    actual, expected = (parameters(tmp_path / where) for where in ("killed", "whole"))
    assert len(expected) > 10
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "last"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_it_at_the_next_test_and_says_how_to_go_on(
    environment, call_datamix, tmp_path, interruptible, number, code, last
):
    command = [*SMALL, "train.eval_every=10", "train.checkpoint_every=1000000", "hydra.run.dir=ended"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "datamix", *command, "train.steps=1000000"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not process.stdout.readline().startswith("step "):
        pass
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    more = f"train.resume=true hydra.run.dir={tmp_path / 'ended'}"
    assert (process.returncode, err.splitlines()) == (
        code, [f"The same command with {more} goes on from the last checkpoint.", last]
    )  # fmt: skip
    (step,) = [int(path.name) for path in (tmp_path / "ended" / "checkpoints").iterdir()]
    assert step == max(
        json.loads(line)["step"] for line in (tmp_path / "ended" / "metrics.jsonl").read_text().splitlines()
    )
    resumed = call_datamix(*command, f"train.steps={1_000_000}", *more.split(), "source.fashion.limit=700")
    assert "was taken" in resumed.mistake  # under another configuration: so it is that checkpoint which is read


def parameters(directory: Path) -> dict[str, np.ndarray]:
    """Every number of the last checkpoint: of parameters, optimiser and random streams."""
    with np.load(directory / "checkpoints" / "2000" / "state.npz") as read:
        return dict(read)


PARTS = """
import numpy as np, datamix

@datamix.source
def unsplit():
    image = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    return {"image": image, "label": np.arange(50) % 5}

@datamix.source
def ignores_split(*, split="train"):
    return unsplit()
"""


@pytest.fixture
def own(call_datamix, tmp_path):
    """Trains on sources of one's own: one without splits, and one that takes a split and pays no heed to it."""
    (tmp_path / "own_sources.py").write_text(PARTS)
    for name in ("unsplit", "ignores_split"):
        path = tmp_path / "conf" / "dataset" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"_target_: {name}\noperators: [to_float]\n")
    base = [
        "--config-dir",
        "conf",
        "plugins=[own_sources]",
        "job=train",
        "model=linear",
        "train.steps=1",
        "batch.size=8",
    ]
    return lambda *arguments: call_datamix(*base, *arguments)


def test_a_source_without_splits_is_sliced_as_the_error_advises(own):
    mistake = own("source=unsplit").mistake
    assert "no split 'test' to be tested on" in mistake
    advice = re.findall(r"source\.unsplit\.\w+=\S+\]", mistake)
    report = own("source=unsplit", *advice).report
    assert (report["sources"]["unsplit"]["records"], report["test_records"]) == (37, {"unsplit": 13})
    assert report["notes"] == []


def test_test_records_that_are_trained_on_are_told(own):
    ended = own("source=ignores_split")
    note = "source 'ignores_split': 50 of its 50 test records equal records to train on."
    assert ended.report["notes"] == [note]
    assert f"Note: {note}" in ended.out.splitlines()


def test_a_source_of_weight_zero_is_tested_and_marked(call_datamix):
    ended = call_datamix("job=train", "source=digits+garments", "mix.ratio=0:1", "model=linear", "train.steps=1")
    report = ended.report
    assert {name: row["trained_on"] for name, row in report["sources"].items()} == {"digits": False, "garments": True}
    assert report["sources"]["digits"]["samples"] == 0
    assert report["metrics"]["accuracy/digits"] >= 0
    (note,) = report["notes"]
    assert note.startswith("source 'digits' is not trained on")
    assert re.search(r"digits +│ not trained on", ended.out)


def test_shares_are_those_that_are_trained_and_a_source_that_leaves_is_told(call_datamix):
    mix = ["source=digits+garments", "source.garments.limit=32", "mix.max_epochs.garments=1", "stop=forever"]
    ended = call_datamix("job=train", "model=linear", "train.steps=10", *mix)
    note = "garments leaves the mix in batch 1, as mix.max_epochs says."
    assert f"Note: {note}" in ended.out.splitlines()
    assert note in ended.report["notes"]
    assert f"Note: {note}" in call_datamix("job=plan", "batch.size=64", *mix).out.splitlines()
    assert " on digits 95.0 % (50.0 % asked for), garments 5.0 % (50.0 % asked for)\n" in ended.out
    assert re.search(r"source +┃ target share ┃ +share ┃ test records", ended.out)
    assert re.search(r"│ garments │ +50.0 % │ +5.0 % │", ended.out)
    assert ended.report["sources"]["garments"]["share"] == 32 / 640
    # Before that, the ratio is followed, and nothing has left.
    before = call_datamix("job=train", "model=linear", "train.steps=1", *mix)
    assert "leaves the mix" not in before.out
    assert " on digits 50.0 %, garments 50.0 %\n" in before.out
    assert re.search(r"source +┃ +share ┃ test records", before.out)


def test_a_finished_run_that_is_resumed_under_another_ratio_says_what_was_trained(call_datamix):
    run = ["job=train", "model=linear", "source=digits+garments", "hydra.run.dir=fin"]
    call_datamix(*run, "train.steps=4")
    changed = [*run, "train.resume=changed", "mix.ratio=1:9"]
    ended = call_datamix(*changed, "train.steps=4")
    changes = "mix.weights.digits was 1/2 and is 1/10, mix.weights.garments was 1/2 and is 9/10"
    assert ended.out.startswith(
        "Resume: train.resume: all 4 steps are trained, and nothing is left to train; raise train.steps to go on under "
        f"what was changed: {changes}.\nTrained linear "
    )
    assert " on digits 50.0 % (10.0 % asked for), garments 50.0 % (90.0 % asked for)\n" in ended.out
    assert re.search(r"│ digits +│ +10.0 % │ 50.0 % │", ended.out)
    assert "steps/s" not in ended.out
    # As it advises: of 512 records, 128 and 26 are digits.
    further = call_datamix(*changed, "train.steps=8")
    assert f"goes on after step 4 of 8 under what was changed: {changes}.\nTraining linear " in further.out
    assert further.report["sources"]["digits"]["samples"] == 128 + 26
    assert re.search(r"│ digits +│ +10.0 % │ 30.1 % │", further.out)
