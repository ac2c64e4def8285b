"""Language models: what is predicted, bits per byte by hand, and runs that are resumed or trained together."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datamix.errors import DataError
from datamix.training.runs import fit
from datamix.training.tasks.language import Language

TASK = Language(shape=(6,), num_outputs=4)
BYTES = jnp.array([1, 2, 3, 0])
BATCH = {
    "tokens": jnp.array([[2, 1, 3, 0, 2, 0], [1, 1, 1, 3, 0, 0]]),
    "segment_ids": jnp.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]]),
}
LOGITS = jax.random.normal(jax.random.key(0), (2, 6, 4))
NATS = -np.asarray(jax.nn.log_softmax(LOGITS))


def test_all_tokens_of_a_segment_but_its_first_are_predicted():
    scores = TASK.scores(LOGITS, BATCH, BYTES, 1)
    assert scores["num_tokens"].tolist() == [3, 3]
    assert scores["bytes"].tolist() == [2 + 0 + 3, 2 + 2 + 0]
    nats = [NATS[0, 0, 1] + NATS[0, 1, 3] + NATS[0, 3, 2], NATS[1, 0, 1] + NATS[1, 1, 1] + NATS[1, 2, 3]]
    np.testing.assert_allclose(scores["nats"], nats, rtol=1e-5)
    losses, counts = TASK.loss(LOGITS, BATCH)
    np.testing.assert_allclose(losses, nats, rtol=1e-5)
    assert counts.tolist() == [3, 3]


def test_a_mask_of_the_records_is_respected():
    masked = BATCH | {"loss_mask": jnp.array([[True, False, True, True, False, True], [False] * 4 + [True] * 2])}
    scores = TASK.scores(LOGITS, masked, BYTES, 1)
    assert (scores["num_tokens"].tolist(), scores["bytes"].tolist()) == ([1, 0], [0, 0])
    np.testing.assert_allclose(scores["nats"], [NATS[0, 1, 3], 0], rtol=1e-5)


def test_targets_that_an_operator_made_are_taken():
    made = {"tokens": BATCH["tokens"], "targets": jnp.full((2, 6), 2), "loss_mask": jnp.eye(2, 6, dtype=bool)}
    scores = TASK.scores(LOGITS, made, BYTES, 1)
    np.testing.assert_allclose(scores["nats"], [NATS[0, 0, 2], NATS[1, 1, 2]], rtol=1e-5)
    assert scores["bytes"].tolist() == [3, 3]


def test_metrics_are_of_the_sums():
    sums = {"num_tokens": [10, 4], "nats": [20 * math.log(2), 4.0], "bytes": [8, 4]}
    metrics = TASK.metrics(["a", "b"], sums)
    assert metrics["bits_per_byte/a"] == pytest.approx(2.5)
    assert metrics["bits_per_byte/worst"] == pytest.approx(2.5)
    assert metrics["bits_per_byte/mean"] == pytest.approx((2.5 + 1 / math.log(2)) / 2)
    assert metrics["perplexity/b"] == pytest.approx(math.e)
    assert metrics["loss/worst"] == metrics["loss/a"] == pytest.approx(2 * math.log(2))
    unknown = TASK.metrics(["a", "b"], sums | {"bytes": [0, 0]})
    assert unknown == {name: value for name, value in metrics.items() if not name.startswith("bits")}
    with pytest.raises(DataError, match=r"^source 'b': its test records hold no token to predict"):
        TASK.metrics(["a", "b"], sums | {"num_tokens": [10, 0]})


def test_the_logits_of_a_test_fit_into_memory():
    assert Language(shape=(1024,), num_outputs=257).test_batch == 63
    assert Language(shape=(1024,), num_outputs=50_000).test_batch == 1
    assert TASK.test_batch == 256


SMALL = ["source=verse+sums", "model=transformer", "model.width=16", "model.layers=1", "model.heads=2",
         "model.hidden=16", "optimizer.learning_rate=0.01"]  # fmt: skip
VERSES = [f"Tiger, tiger, burning bright, été {i}" for i in range(90)]
SUMS = [f"{i} + {i} = {2 * i}" for i in range(120)]


@pytest.fixture
def on_text(make, tmp_path):
    """Prepares a run on two small texts."""
    for name, lines in (("verse", VERSES), ("sums", SUMS)):
        for split, part in (("train", lines[10:]), ("test", lines[:10])):
            (tmp_path / f"{name}.{split}.txt").write_text("\n\n".join(part))
        paths = ", ".join(f"{split}: {tmp_path}/{name}.{split}.txt" for split in ("train", "test"))
        text = f"_target_: text\npath: {{{paths}}}\nlength: 32\npacking: best_fit\n"
        (tmp_path / "dataset" / f"{name}.yaml").write_text(text)
    return lambda *overrides, **more: make(*SMALL, f"data.cache={tmp_path}/cache", *overrides, **more)


@pytest.mark.slow
def test_bits_per_byte_by_hand(on_text, trained):
    """Token by token, of the text of the test split."""
    run = trained(on_text())
    assert run.data.task == Language(shape=(32,), num_outputs=257)
    model = run.learner.create(jax.random.key(0))
    nnx.update(model, run.state.params)
    log_softmax = jax.jit(lambda *inputs: jax.nn.log_softmax(model(*inputs)))
    bits, num_bytes, nats, count = np.zeros((4, 2))
    for batch in run.data.test_pipeline:
        tokens, segments = np.asarray(batch["tokens"]), np.asarray(batch["segment_ids"])
        log_odds = np.asarray(log_softmax(batch["tokens"], batch["segment_ids"], batch["positions"]))
        for row, source in enumerate(batch["source_id"]):
            for place in range(1, 32):
                if segments[row, place] and segments[row, place] == segments[row, place - 1]:
                    lost = -log_odds[row, place - 1, tokens[row, place]]
                    nats[source] += lost
                    bits[source] += lost / math.log(2)
                    num_bytes[source] += tokens[row, place] < 256
                    count[source] += 1
    metrics = run.metrics.lines[-1]
    for i, name in enumerate(("verse", "sums")):
        assert metrics[f"bits_per_byte/{name}"] == pytest.approx(bits[i] / num_bytes[i], rel=1e-4)
        assert metrics[f"loss/{name}"] == pytest.approx(nats[i] / count[i], rel=1e-4)
    assert num_bytes[1] == sum(len(text) - 1 for text in SUMS[:10])  # each is one segment, and its first byte is given


@pytest.mark.slow
def test_tokens_without_weight_teach_nothing(on_text, trained):
    run = trained(on_text("mix.loss_weight.sums=0", "train.steps=2", "train.eval_every=2"))
    line = json.loads((run.directory / "metrics.jsonl").read_text())
    assert line["loss"] == pytest.approx(line["sources"]["verse"]["loss"], rel=1e-5)
    assert line["sources"]["sums"]["token_share"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.slow
def test_it_learns(on_text, trained):
    lines = trained(on_text("train.steps=60", "train.eval_every=30")).metrics.lines
    assert lines[-1]["bits_per_byte/worst"] < 0.8 * 8
    assert lines[-1]["bits_per_byte/worst"] < lines[0]["bits_per_byte/worst"]


@pytest.mark.slow
def test_a_budget_of_tokens(on_text):
    run = on_text("train.tokens=3000", "mix.ratio=3:1")
    plan = run.data.pipeline.plan
    taken = sum(int(run.data.pipeline[step]["num_tokens"].sum()) for step in range(run.steps))
    assert 3000 - 9 * 32 < taken < 3000 + 32
    assert run.steps == plan.length // 8


@pytest.mark.slow
def test_a_budget_of_tokens_that_is_used_up_is_raised_to_train_on(on_text, trained):
    steps = trained(on_text("train.tokens=1000")).steps
    again = on_text("train.tokens=1000", "train.resume=true")
    assert again.note == (
        f"train.resume: all {steps} steps are trained, and nothing is left to train; raise train.tokens to go on."
    )
    on = trained(on_text("train.tokens=2000", "train.resume=true"))
    assert (on.note, on.step) == (f"train.resume: the run goes on after step {steps} of {on.steps}.", on.steps)
    assert on.steps > steps


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_never_stopped(on_text, trained, numbers):
    whole = trained(on_text())
    stopped = on_text(directory="stopped")

    def stop(_):
        raise InterruptedError

    with pytest.raises(InterruptedError, match=r"^$"):
        fit([stopped], stop)  # after the first test, at step 2
    resumed = on_text("train.resume=true", directory="stopped")
    assert resumed.note == "train.resume: the run goes on after step 2 of 6."
    trained(resumed)
    assert resumed.metrics.lines == whole.metrics.lines
    for name, values in numbers(whole).items():
        np.testing.assert_array_equal(numbers(resumed)[name], values)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["threads", "vmap"])
def test_runs_that_are_trained_together(on_text, trained, numbers, execution):
    each = ["mix.ratio=3:1", "seed=3"]
    alone = [trained(on_text(override, directory=f"alone{i}")) for i, override in enumerate(each)]
    first = on_text(each[0], directory="0")
    runs = [first, on_text(each[1], directory="1", like=first)]
    fit(runs, lambda _: None, execution)
    for run, replica in zip(alone, runs, strict=True):
        for name, values in numbers(run).items():
            np.testing.assert_allclose(numbers(replica)[name], values, atol=1e-5)
        assert replica.metrics.lines[-1] == pytest.approx(run.metrics.lines[-1], rel=1e-4)
