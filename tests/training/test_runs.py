"""Runs: several jobs at once, and runs that are cut short and go on."""

from __future__ import annotations

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from datamix import registry
from datamix.errors import ConfigError, DataError, StateError
from datamix.sources.arrays import MemoryArrays
from datamix.training import models
from datamix.training.checkpoints import Checkpoints
from datamix.training.runs import Run, fit, prepare_all


class Broken(models.Mlp):
    """A model that gives no numbers."""

    def __call__(self, image):
        return super().__call__(image) * jnp.nan


def test_a_run_that_diverges_or_is_a_mistake_ends_alone(config_of, tmp_path):
    jobs = []
    for override in ("optimizer.learning_rate=1e38", "mix.share.across=2", "seed=1"):
        (tmp_path / override).mkdir()
        jobs.append((config_of(override), tmp_path / override))
    wild, mistake, good = prepare_all(jobs)
    assert isinstance(mistake, ConfigError)
    assert str(mistake).startswith("mix.share.across = 2; a share lies in [0, 1].")
    assert isinstance(wild, Run)
    assert isinstance(good, Run)
    fit([wild, good], lambda _: None)
    text = r"at step [2-6] the loss is no longer finite; a smaller rate may keep it so\."
    assert re.fullmatch(rf"optimizer\.learning_rate = 1e\+38; {text}", str(wild.error))
    assert good.error is None
    assert [line["step"] for line in good.metrics.lines] == [2, 4, 6]
    assert good.metrics.untrained is not None  # the test before the first step
    assert good.metrics.untrained["step"] == 0
    assert good.metrics.untrained.keys() == good.metrics.lines[0].keys() - {"loss"}
    assert wild.metrics.lines == []


@pytest.mark.slow
def test_resuming_at_every_checkpoint_ends_the_same(make, trained, numbers):
    overrides = ("optimizer=rmsprop", "optimizer.momentum=0.9", "optimizer.schedule=linear", "train.log_every=1")
    expected = trained(make(*overrides, directory="whole"))
    text = (expected.directory / "metrics.jsonl").read_text()
    for stop in (2, 4, 6):
        half = make(*overrides, directory=f"cut{stop}")
        steps, half.rates = half.rates, half.rates[:stop]  # its end, to it
        trained(half)
        half.rates = steps
        with (half.directory / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "half a li')
        resumed = trained(make(*overrides, "train.resume=true", directory=f"cut{stop}"))
        ended = "all 6 steps are trained, and nothing is left to train; raise train.steps to go on."
        assert resumed.note == f"train.resume: {ended if stop == 6 else f'the run goes on after step {stop} of 6.'}"
        assert (resumed.directory / "metrics.jsonl").read_text() == text
        assert resumed.metrics.untrained == expected.metrics.untrained
        for name, values in numbers(expected).items():
            np.testing.assert_array_equal(numbers(resumed)[name], values)
        assert resumed.scores["correct"].tolist() == expected.scores["correct"].tolist()


@pytest.mark.slow
def test_lines_between_tests_tell_of_the_sources(make, trained):
    run = trained(make("train.log_every=3", "mix.weights.across=3", "mix.loss_weight.across=2", "train.eval_every=4"))
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "accuracy/mean" in line) for line in lines] == [(3, False), (4, True), (6, True)]
    assert [line["step"] for line in run.metrics.lines] == [4, 6]
    before = [0, 0]
    for line in lines:
        counts = run.data.pipeline.plan.counts(line["step"] * 8)
        rows = [line["sources"][name] for name in ("across", "down")]
        assert [row["records"] for row in rows] == counts
        assert [row["epochs"] for row in rows] == [count / 60 for count in counts]
        lately = [count - since for count, since in zip(counts, before, strict=True)]
        assert [row["share_lately"] for row in rows] == [count / sum(lately) for count in lately]
        before = counts
    # Each of these steps has 6 records of `across` and 2 of `down`, and the first weigh twice as much.
    for line in (lines[1],):
        across, down = (line["sources"][name]["loss"] for name in ("across", "down"))
        assert line["loss"] == pytest.approx((2 * 6 * across + 2 * down) / 14, rel=1e-5)


def test_records_without_weight_teach_nothing(make, trained, num_traces):
    run = trained(make("mix.loss_weight.across=0", "train.log_every=1"))
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx([line["sources"]["down"]["loss"] for line in lines])
    assert lines[-1]["sources"]["across"]["loss"] != pytest.approx(lines[-1]["loss"], rel=0.01)
    assert "loss_weight" not in run.data.test_pipeline.spec
    for other in ("mix.loss_weight.across=3", "mix.loss_weight=inverse_share"):
        assert num_traces(trained, make(other, "train.log_every=1", directory=other)) == 0


def test_more_epochs_than_a_source_may_have_are_refused_before_training(make):
    make("mix.max_epochs.across=1", "train.steps=15", "mix.at_max_epochs=error")
    with pytest.raises(
        ConfigError, match=r"^mix\.max_epochs\.across: the mix goes through across once more from record"
    ):
        make("mix.max_epochs.across=1", "train.steps=16", "mix.at_max_epochs=error")
    with pytest.raises(ConfigError, match="the whole mix never ends"):
        make("mix.max_epochs.across=1", "train.steps=null", "mix.at_max_epochs=error")
    run = make("mix.max_epochs.across=1", "train.steps=20")
    assert run.data.pipeline.plan.counts(160) == [60, 100]


@pytest.mark.slow
def test_a_checkpoint_of_another_configuration_is_refused_and_nothing_lost(make, trained):
    run = trained(make())
    text = (run.directory / "metrics.jsonl").read_text()
    mistakes = {
        "seed=1": r"6: this state was taken under another configuration: seed was 0 and is 1; restore it under",
        "mix.share.across=0.3": r"mix\.weights\.across was 1/2 and is 3/10, .*go on .*\(train\.resume=changed\)",
        "optimizer.learning_rate=0.1": r"/6 was taken under another configuration: optimizer\.learning_rate was 0\.05 "
        r"and is 0\.1; resume it under the same, go on on purpose with train\.resume=changed, or start afresh",
        "mix.loss_weight.across=2": r"/6 was taken under another configuration: mix\.loss_weight was not set and is "
        r'\[\{"across": 2\}\]; resume it under the same, go on on purpose with train\.resume=changed, or start afresh',
        "model.hidden=[3]": r"model was .* and is .*, parameters was \d+ and is \d+; resume it under the same, or",
        "train.steps=4": r"^train\.steps = 4; the run in \S+ has done 6 steps already\. Make it more, or start",
        "source.down.test_split=train": r"source\.down\.test_split differs; resume it under the same, or start",
    }
    for override, message in mistakes.items():
        with pytest.raises(StateError, match=message):
            make(override, "train.resume=true")
    assert (run.directory / "metrics.jsonl").read_text() == text
    assert Checkpoints(run.directory).last() == 6
    assert trained(make("train.resume=true")).step == 6


@pytest.mark.slow
def test_a_run_that_has_ended_is_trained_on(make, trained, numbers):
    trained(make(directory="on"))
    on = trained(make("train.steps=10", "train.resume=true", directory="on"))
    whole = trained(make("train.steps=10", directory="whole"))
    assert on.note == "train.resume: the run goes on after step 6 of 10."
    assert (on.directory / "metrics.jsonl").read_text() == (whole.directory / "metrics.jsonl").read_text()
    assert on.metrics.losses == whole.metrics.losses  # of each step, between the tests too
    assert [step for step, _ in on.metrics.losses] == list(range(1, 11))
    for name, values in numbers(whole).items():
        np.testing.assert_array_equal(numbers(on)[name], values)


def test_a_run_that_has_used_up_its_mix_says_how_to_train_on(make, trained):
    whole = ("stop=all_exhausted", "train.steps=null", "train.eval_every=5")
    assert trained(make(*whole, directory="whole")).steps == 15
    again = make(*whole, "train.resume=true", directory="whole")
    assert again.note == (
        "train.resume: all 15 steps are trained, and nothing is left to train; raise train.steps, with stop=forever "
        "where the mix has no more batches, to go on."
    )
    on = trained(make("train.steps=16", "stop=forever", "train.eval_every=5", "train.resume=true", directory="whole"))
    assert (on.note, on.step) == ("train.resume: the run goes on after step 15 of 16.", 16)


def test_a_run_in_the_place_of_another_says_so(make, trained):
    assert make(directory="again").note == ""
    trained(make(directory="again"))
    run = make(directory="again")
    text = (
        "the checkpoints of an earlier run, up to step 6, are removed; train.resume=true would have gone on from them."
    )
    assert (run.note, run.step, run.checkpoints.last()) == (text, 0, None)


def test_a_mix_that_is_changed_on_purpose_goes_on_and_is_told(make, trained, numbers):
    trained(make(directory="first"))
    change = ("mix.share.across=0.25", "optimizer.learning_rate=0.01", "train.steps=10")
    run = make(*change, "train.resume=changed", directory="first")
    assert run.note == (
        "train.resume: the run goes on after step 6 of 10 under what was changed: optimizer.learning_rate was 0.05 and "
        "is 0.01, mix.weights.across was 1/2 and is 1/4, mix.weights.down was 1/2 and is 3/4."
    )
    trained(run)
    half = run.config.batch_size * 3
    assert run.data.pipeline.totals(6).records == [half, half]
    assert run.data.pipeline.totals(10).records == [half + run.config.batch_size, half + run.config.batch_size * 3]
    (entry,) = run.data.pipeline.history
    assert (entry["step"], entry["counts"]) == (6, {"across": half, "down": half})
    # Killed on the way and resumed without insisting, it ends the same.
    trained(make(directory="second"))
    trained(make(*change[:2], "train.steps=8", "train.resume=changed", directory="second"))
    again = trained(make(*change, "train.resume=true", directory="second"))
    for name, values in numbers(run).items():
        np.testing.assert_array_equal(numbers(again)[name], values)


def test_a_source_that_had_left_before_the_mix_was_changed_is_told_so(make, trained):
    caps = ("source.across.limit=20", "mix.max_epochs.across=1", "train.eval_every=20")
    assert trained(make(*caps)).data.pipeline.plan.capped() == [
        "across leaves the mix in batch 4, as mix.max_epochs says."
    ]
    plan = make(*caps, "mix.share.across=0.25", "train.steps=10", "train.resume=changed").data.pipeline.plan
    assert plan.capped() == ["across has left the mix before batch 6, as mix.max_epochs says."]


@pytest.mark.slow
def test_with_another_batch_size_the_same_records_go_on(make, trained):
    trained(make(directory="small"))
    run = make("batch.size=16", "train.steps=6", "train.resume=true", directory="small")
    assert run.step == 3
    assert [line["step"] for line in run.metrics.lines] == [1, 2, 3]
    assert [step for step, _ in run.metrics.losses] == [1, 1, 2, 2, 3, 3]
    assert trained(run).checkpoints.last() == 6
    assert make("batch.size=16", "train.steps=7", "train.resume=true", directory="small").step == 6


def test_a_rate_that_rises_again_with_more_steps_is_told(make, trained):
    trained(make("optimizer.schedule=cosine"))
    longer = make("optimizer.schedule=cosine", "train.steps=12", "train.resume=true")
    assert longer.note == (
        "train.resume: the run goes on after step 6 of 12. The learning rate rises from 0.00335 to 0.025, as "
        "optimizer.schedule is of 12 steps now."
    )
    assert longer.rates[6] == pytest.approx(0.025)


@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
def test_a_rate_that_does_what_it_would_have_done_is_not_told(make, trained, schedule):
    half = make(f"optimizer.schedule={schedule}", "train.steps=40", "train.eval_every=2")
    half.rates = half.rates[:2]  # as if it was cut short there
    trained(half)
    on = make(f"optimizer.schedule={schedule}", "train.steps=40", "train.eval_every=2", "train.resume=true")
    assert (on.note, on.rates[2] >= on.rates[1]) == ("train.resume: the run goes on after step 2 of 40.", True)


@pytest.mark.slow
def test_a_model_that_gives_no_numbers_is_blamed_and_not_the_rate(make, tmp_path):
    registry.register("model", "broken", Broken)
    (tmp_path / "model" / "broken.yaml").write_text("_target_: broken\n")
    run = make("model=broken")
    fit([run], lambda _: None)
    assert str(run.error) == (
        "model = 'broken'; at step 1, before anything is learnt, the loss is no longer finite, whatever the rate."
    )


@pytest.mark.slow
def test_skipped_steps_are_not_trained_on(make, trained, numbers):
    whole = trained(make("skip=[[1,3],[4,5]]", directory="whole"))
    assert (whole.step, whole.steps_done) == (6, 3)
    for line in map(json.loads, (whole.directory / "metrics.jsonl").read_text().splitlines()):
        sources = np.concatenate([whole.data.pipeline[step]["source_id"] for step in (0, 3, 5) if step < line["step"]])
        given = [row["records"] for row in line["sources"].values()]
        assert given == np.bincount(sources, minlength=2).tolist()
    trained(make("skip=[[1,3]]", "train.steps=4", directory="cut"))
    cut = trained(make("skip=[[1,3],[4,5]]", "train.resume=true", directory="cut"))
    for name, values in numbers(whole).items():
        np.testing.assert_array_equal(numbers(cut)[name], values)
    with pytest.raises(StateError, match=r"skip was \[\[1, 3\], \[4, 5\]\] and is not set; restore it under the same"):
        make("train.steps=8", "train.resume=true", directory="cut")
    with pytest.raises(ConfigError, match=r"^skip = \[\[0, 9\]\]; it leaves out all of the run's 6 steps"):
        make("skip=[[0,9]]")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", r"was taken over other records of source 'across' than are here; restore it under the same, or"),
        (
            "test",
            r"was taken under another configuration: source\.across\.test_split differs; resume it under the",
        ),
    ],
)
def test_a_checkpoint_over_other_records_of_the_same_size_is_refused(make, trained, change_records, split, message):
    trained(make())
    change_records(split)
    with pytest.raises(StateError, match=message):
        make("train.resume=true")


def test_without_a_checkpoint_it_starts_afresh_and_says_so(make, trained):
    run = make("train.resume=true")
    assert (run.step, run.note.split(";")[1]) == (0, " the run starts afresh.")
    trained(run)
    assert make().checkpoints.last() is None  # a run that is not to be resumed leaves none behind


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.steps=null"], r"train\.steps is missing; the whole mix never ends; "),
        (
            ["stop=first_exhausted", "train.steps=16"],
            r"train\.steps = 16; it is more than the 15 whole batches",
        ),
    ],
)
def test_steps_that_the_mix_does_not_have(make, overrides, message):
    with pytest.raises(ConfigError, match=message):
        make(*overrides)


def test_the_whole_mix(make):
    assert make("stop=first_exhausted", "train.steps=null").steps == 15


@pytest.mark.slow
def test_records_read_on_the_host_train_the_same_model(make, trained, numbers, monkeypatch):
    resident = trained(make(directory="device"))
    fed = trained(make("data.placement=host", directory="host"))
    assert fed.data.pipeline.placements == {"across": "host", "down": "host"}
    assert fed.metrics.lines == resident.metrics.lines
    for run in (fed, resident):
        text = (run.directory / "metrics.jsonl").read_text()
        rows = [row for line in map(json.loads, text.splitlines()) for row in line["sources"].values()]
        assert [row.get("bytes_per_s", 0) > 0 for row in rows] == [run is fed] * len(rows)
    for name, values in numbers(resident).items():
        np.testing.assert_array_equal(numbers(fed)[name], values)
    assert fed.data.not_compared == ("across", "down")
    assert any(note.startswith("source 'across': whether test records equal records to") for note in fed.data.notes)

    # What was kept of one goes on as the other; a record that cannot be read ends the run in one line.
    again = make("data.placement=host", "train.resume=true", directory="device")
    assert again.note.startswith("train.resume: all 6 steps are trained, and nothing is left to train; ")
    broken = make("data.placement=host", directory="broken")

    def take(self, indices, out):
        raise DataError("cat.jpg is broken")

    monkeypatch.setattr(MemoryArrays, "take", take)
    with pytest.raises(DataError, match=r"^source '(across|down)': cat\.jpg is broken\.?$"):
        trained(broken)
