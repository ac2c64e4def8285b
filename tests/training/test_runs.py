"""Training: the loop against a plain one, tests of a model, lanes, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from datamix import registry
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.errors import ConfigError, DataError, StateError
from datamix.training import learner
from datamix.training import replicas as lanes
from datamix.training.checkpoints import Checkpoints
from datamix.training.runs import Run, fit, prepare, prepare_all

SHAPE = (4, 4, 1)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Overrides for two sources of small images, whose classes are told by their brightest row."""
    monkeypatch.setattr(registry, "_HELD", {kind: dict(held) for kind, held in registry._HELD.items()})

    def rows(*, split: str = "train", shift: int = 0) -> dict[str, np.ndarray]:
        size = {"train": 60, "test": 20, "few": 3}[split]
        draw = np.random.default_rng([shift, size])
        label = np.arange(size) % 4
        image = draw.integers(0, 60, (size, *SHAPE)) + 150 * (np.arange(4)[:, None, None] == label[:, None, None, None])
        return {"image": np.uint8(np.rot90(image, shift, axes=(1, 2))), "label": label}

    registry.register("source", "rows", rows)
    (tmp_path / "dataset").mkdir()
    for name, shift in (("across", 0), ("down", 1)):
        text = f"_target_: rows\nshift: {shift}\nclass_names: [a, b, c, d]\noperators: [to_float]\n"
        (tmp_path / "dataset" / f"{name}.yaml").write_text(text)
    return ["job=train", "source=across+down", "model=mlp", "model.hidden=[8]", "model.dropout=0.5", "batch.size=8",
            "train.steps=6", "train.eval_every=2", "optimizer.learning_rate=0.05"]  # fmt: skip


@pytest.fixture
def make(source: list[str], tmp_path: Path) -> Callable[..., Run]:
    def made(*overrides: str, directory: str = "run", like: Run | None = None) -> Run:
        (tmp_path / directory).mkdir(exist_ok=True)
        config = parse(compose([*source, *overrides], config_dir=tmp_path))
        return prepare(config, tmp_path / directory, like)

    return made


def trained(run: Run) -> Run:
    fit([run], lambda _: None)
    assert run.error is None
    return run


def numbers(run: Run) -> dict[str, np.ndarray]:
    """Every number of a trained run's state, from its last checkpoint."""
    kept = Checkpoints(run.directory)
    state = kept.state(run.steps, run.state)
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if learner.is_key(leaf) else leaf)
            for path, leaf in leaves}  # fmt: skip


def test_the_loop_is_the_plain_one(make: Callable[..., Run]) -> None:
    """The compiled loop over batches made in it, against Optax and Flax by the book on the pipeline's own batches."""
    run = make()
    graph = learner._graph(run.learner, training=True)
    params, rest = run.state.params, run.state.rest
    transform = optax.adam(0.05)
    state = transform.init(params)
    losses = []

    @jax.jit
    def step_of(params: Any, rest: Any, state: Any, batch: Any) -> Any:
        (loss, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, rest, batch)
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), rest, state, loss

    def loss_of(params: Any, rest: Any, batch: Any) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(model(batch["image"]), batch["label"]).mean()
        return loss, learner._split(model)[2]

    for step in range(6):
        params, rest, state, loss = step_of(params, rest, state, run.data.pipeline[step])
        losses.append(float(loss))
    trained(run)
    for found, expected in zip(jax.tree.leaves(run.state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    np.testing.assert_allclose([line["loss"] for line in lines], np.reshape(losses, (3, 2)).mean(axis=1), atol=1e-5)


def test_each_source_is_tested_on_its_own_records(make: Callable[..., Run]) -> None:
    run = trained(make("source.down.test_split=train"))
    assert run.data.test_records == {"across": 20, "down": 60}
    assert run.data.num_classes == 8
    graph = learner._graph(run.learner, training=False)
    model = nnx.merge(graph, run.state.params, run.state.rest)
    correct, taken = np.zeros(2), np.zeros((2, 2))
    seen = 0
    for batch in run.data.tests.pipeline:
        predicted = np.argmax(model(batch["image"]), axis=1)
        np.add.at(correct, batch["source_id"], predicted == batch["label"])
        np.add.at(taken, (batch["source_id"], predicted // 4), 1)
        seen += len(predicted)
    assert seen == 80
    assert run.scores is not None
    assert run.scores.num_records.tolist() == [20, 60]
    assert run.scores.correct.tolist() == correct.tolist()
    assert run.scores.taken_for.tolist() == taken.tolist()
    last = run.records.lines[-1]
    assert last["accuracy/worst"] == min(correct / [20, 60])
    assert last["accuracy/mean"] == np.mean(correct / [20, 60])
    assert last["loss/mean"] == pytest.approx((last["loss/across"] + last["loss/down"]) / 2)


def test_it_learns(make: Callable[..., Run]) -> None:
    run = make("train.steps=200", "train.checkpoint_every=200")
    assert trained(run).records.lines[-1]["accuracy/worst"] > 0.9


def test_random_operators_are_left_out_of_tests(make: Callable[..., Run]) -> None:
    run = make("operators=[flip_horizontal]")
    assert [node for node in run.data.tests.pipeline.graph.nodes if "flip" in node] == []
    assert [node for node in run.data.pipeline.graph.nodes if "flip" in node] == ["flip_horizontal"]


def test_ratio_seed_and_rate_compile_nothing(make: Callable[..., Run]) -> None:
    trained(make())
    functions = (learner.train_jitted, learner.evaluate_jitted, learner.first_state)
    traces = [function._cache_size() for function in functions]
    assert all(traces)
    others = ["mix.share.across=0.3", "seed=5", "optimizer.learning_rate=0.5", "optimizer.schedule=cosine"]
    losses = [trained(make(other, directory=other)).records.lines[-1]["loss"] for other in others]
    assert [function._cache_size() for function in functions] == traces
    assert len(set(losses)) == len(others)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["threads", "vmap"])
def test_lanes_are_as_single_runs(make: Callable[..., Run], how: str) -> None:
    each = ["mix.share.across=0.2", "mix.ratio=1:1", "seed=3", "optimizer.learning_rate=0.01"]
    alone = [trained(make(other, directory=f"alone{i}")) for i, other in enumerate(each)]
    first = make(each[0], directory="0")
    runs = [first]
    runs += [make(other, directory=str(i), like=first) for i, other in enumerate(each) if i]
    told: list[int] = []
    traces = lanes._train_lanes._cache_size()
    fit(runs, lambda group: told.append(len(group)), how)
    assert lanes._train_lanes._cache_size() - traces == (how == "vmap")
    assert told == [4, 4, 4]
    for one, other in zip(alone, runs, strict=True):
        expected, found = numbers(one), numbers(other)
        for name, values in expected.items():
            if how == "threads":
                np.testing.assert_array_equal(found[name], values)
            else:
                np.testing.assert_allclose(found[name], values, atol=1e-5)
        for line, same in zip(one.records.lines, other.records.lines, strict=True):
            assert same == pytest.approx(line, abs=1e-5)
    reader = {id(leaf) for leaf in jax.tree.leaves(first.data.pipeline.reader)}
    assert all({id(leaf) for leaf in jax.tree.leaves(run.data.pipeline.reader)} == reader for run in runs)


def test_a_lane_that_diverges_or_is_a_mistake_ends_alone(
    source: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    for name in ("optimizer.learning_rate=1e38", "mix.share.across=2", "seed=1"):
        (tmp_path / name).mkdir()
        jobs.append((parse(compose([*source, name], config_dir=tmp_path)), tmp_path / name))
    wild, mistake, good = prepare_all(jobs)
    assert isinstance(mistake, ConfigError)
    assert str(mistake).startswith("mix.share.across = 2; a share lies in [0, 1].")
    assert isinstance(wild, Run)
    assert isinstance(good, Run)
    fit([wild, good], lambda _: None)
    assert str(wild.error).startswith("optimizer.learning_rate = 1e+38: at step ")
    assert good.error is None
    assert [line["step"] for line in good.records.lines] == [2, 4, 6]
    assert wild.records.lines == []


@pytest.mark.slow
def test_resuming_at_every_checkpoint_ends_the_same(make: Callable[..., Run]) -> None:
    overrides = ("optimizer.schedule=linear",)
    expected = trained(make(*overrides, directory="whole"))
    text = (expected.directory / "metrics.jsonl").read_text()
    for stop in (2, 4, 6):
        half = make(*overrides, directory=f"cut{stop}")
        steps, half.rates = half.rates, half.rates[:stop]  # its end, to it
        trained(half)
        half.rates = steps
        with (half.directory / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "half a li')
        # Its last checkpoint was taken as one of a whole run.
        kept = Checkpoints(half.directory)
        position = kept.position(stop)
        position["identity"]["train.steps"] = Checkpoints(expected.directory).position(6)["identity"]["train.steps"]
        state = kept.state(stop, half.state)
        kept.clear()
        kept.save(stop, state, position)
        resumed = trained(make(*overrides, "train.resume=true", directory=f"cut{stop}"))
        assert resumed.note == f"train.resume: the run goes on after step {stop} of 6."
        assert (resumed.directory / "metrics.jsonl").read_text() == text
        for name, values in numbers(expected).items():
            np.testing.assert_array_equal(numbers(resumed)[name], values)
        assert resumed.scores is not None
        assert expected.scores is not None
        assert resumed.scores.correct.tolist() == expected.scores.correct.tolist()


def test_a_checkpoint_of_another_configuration_is_refused_and_nothing_lost(make: Callable[..., Run]) -> None:
    run = trained(make())
    text = (run.directory / "metrics.jsonl").read_text()
    others = ["seed=1", "mix.share.across=0.3", "optimizer.learning_rate=0.1", "train.steps=8",
              "source.down.test_split=train"]  # fmt: skip
    named = ["seed", "mix", "optimizer.learning_rate", "train.steps", "test_split"]
    for other, name in zip(others, named, strict=True):
        with pytest.raises(StateError, match=rf"checkpoints/6 was taken under another configuration: {name} differ;"):
            make(other, "train.resume=true")
    assert (run.directory / "metrics.jsonl").read_text() == text
    assert Checkpoints(run.directory).last() == 6
    assert trained(make("train.resume=true")).step == 6


def test_without_a_checkpoint_it_starts_afresh_and_says_so(make: Callable[..., Run]) -> None:
    run = make("train.resume=true")
    assert (run.step, run.note.split(";")[1]) == (0, " the run starts afresh.")
    trained(run)
    assert make().checkpoints.last() is None  # a run that is not to be resumed leaves none behind


def test_a_damaged_checkpoint_is_named(make: Callable[..., Run]) -> None:
    run = trained(make())
    for path in (run.directory / "checkpoints" / "6").rglob("*"):
        if path.is_file() and path.stat().st_size > 500:
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StateError, match=r"checkpoints/6 is damaged \(.*\); delete it to go on from the one before"):
        make("train.resume=true")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.steps=null"], r"train\.steps = null is the whole mix, which never ends; "),
        (["stop=first_exhausted", "train.steps=16"], r"train\.steps = 16 is more than the 15 whole batches of the mix"),
        (
            ["source.down.split=few", "source.down.test_split=test", "source.down.class_names=[]"],
            r"source 'down': label 3 of its test records is none of the 3 classes of those to train on; name every",
        ),
        (["labels=keep", "operators=[{one_hot:{num_classes:4}}]"], r"integer label; this mix gives image float32 \[4,"),
        (
            ["source.across.operators=[]", "source.down.operators=[]"],
            r"a float image and an integer label; .* to_float",
        ),
    ],
)
def test_mistakes(make: Callable[..., Run], overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        make(*overrides)


def test_the_whole_mix(make: Callable[..., Run]) -> None:
    assert make("stop=first_exhausted", "train.steps=null").steps == 15
