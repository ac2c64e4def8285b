"""Numbers to predict: in the label's own unit, whatever a model is given; and tables that are trained on."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from datamix.errors import ConfigError
from datamix.jobs.train import end
from datamix.sweeps.results import metric_of
from datamix.training.models import Prediction
from datamix.training.runs import fit
from datamix.training.tasks.regression import Regression

TASK = Regression(leaf="features", shape=(3,))
DRAW = np.random.default_rng(0)
FEATURES = DRAW.normal([5, -300, 1e4], [1, 40, 1e3], (200, 3))
PROGRESS = 900 + 30 * (FEATURES[:, 0] - 5) - 0.5 * (FEATURES[:, 1] + 300) + DRAW.normal(0, 3, 200)


def test_metrics_are_those_of_the_labels_themselves():
    label, value = PROGRESS[:50].astype(np.float32), PROGRESS[:50].astype(np.float32) + np.arange(50) % 7
    outputs = Prediction(jnp.asarray(value), jnp.float32(25))
    source = np.arange(50) % 2
    batch = {"label": jnp.asarray(label), "source_id": jnp.asarray(source)}
    scores = TASK.scores(outputs, batch, jnp.float32([label[source == i].var() for i in (0, 1)]), 2)
    sums = {name: np.array([np.asarray(each)[source == i].sum() for i in (0, 1)]) for name, each in scores.items()}
    metrics = TASK.metrics(["a", "b"], sums)
    for i, name in enumerate("ab"):
        y, error = label[source == i], (value - label)[source == i]
        assert metrics[f"mse/{name}"] == pytest.approx((error**2).mean(), rel=1e-4)
        assert metrics[f"r2/{name}"] == pytest.approx(1 - (error**2).mean() / y.var(), rel=1e-4)
        assert metrics[f"loss/{name}"] == pytest.approx((error**2).mean() / 25**2, rel=1e-4)
    assert metrics["mse/worst"] == max(metrics["mse/a"], metrics["mse/b"])
    assert metrics["r2/worst"] == min(metrics["r2/a"], metrics["r2/b"])


def test_a_source_whose_labels_are_all_the_same_has_no_r2():
    sums = {"num_records": [2, 2], "loss": [3, 1], "squares": [3, 1], "variance": [0, 2]}
    metrics = TASK.metrics(["a", "b"], sums)
    assert "r2/a" not in metrics
    assert metrics["r2/b"] == metrics["r2/mean"] == metrics["r2/worst"] == 0.5
    assert metrics["mse/worst"] == 1.5
    alone = TASK.metrics(["a"], {name: each[:1] for name, each in sums.items()})
    assert not any(name.startswith("r2") for name in alone)


@pytest.fixture
def on_table(make, tmp_path):
    """Prepares a run on a table whose columns are of all sizes."""

    def made(*overrides, features=FEATURES, **settings):
        rows = ["x,y,z,progress", *(",".join(f"{value:.6f}" for value in row) for row in np.c_[features, PROGRESS])]
        (tmp_path / "t.csv").write_text("\n".join(rows))
        (tmp_path / "dataset" / "t.yaml").write_text(f"_target_: table\npath: {tmp_path}/t.csv\ntarget: progress\n")
        split = ["source.t.split=train[:150]", "source.t.test_split=train[150:]"]
        return make("source=t", "model=mlp", *split, *overrides, **settings)

    return made


@pytest.mark.slow
def test_a_table_is_learnt_in_its_own_units(on_table, trained):
    run = on_table("train.steps=100", "train.eval_every=50")
    assert (run.data.task, run.data.task.says) == (TASK, "regression on 3 features")
    mean, deviation = run.data.moments()[0]
    used = np.concatenate([np.asarray(run.data.pipeline[step]["features"]) for step in range(512)])
    np.testing.assert_allclose(mean, used.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(deviation, used.std(axis=0), rtol=1e-4)
    metrics = trained(run).metrics.lines[-1]
    assert metrics["r2/t"] > 0.9
    assert metrics["mse/t"] < 0.1 * PROGRESS[150:].var()


@pytest.mark.slow
def test_features_that_are_nan_are_told_and_blamed(on_table):
    features = FEATURES.copy()
    features[::3, 1] = np.nan
    run = on_table(features=features)
    assert any(
        re.match(r"source 't': the leaf 'features' holds NaN \(11\.11% of its values\)", note)
        for note in run.data.notes
    )
    fit([run], lambda _: None)
    error = str(run.error)
    assert error.startswith("at step 1 the loss is no longer finite: the features of t hold NaN (11.11% of")
    assert error.endswith("; set source.t.without_features=drop, or mend them with an operator of your own.")
    split = ["source.t.split=train[:100]", "source.t.test_split=train[100:]"]
    run = on_table("source.t.without_features=drop", *split, features=features)
    assert run.data.num_test_records == {"t": 33}  # the split is of the rows that are left
    fit([run], lambda _: None)
    assert run.error is None


@pytest.mark.slow
def test_the_variance_of_each_source_is_about_its_own_mean(make, tmp_path, trained):
    """Also of one that is far from the others, and of one whose labels are all the same."""
    progress = np.round(64 * DRAW.normal(0, 1, 400)) / 64  # so that float32 holds them beside 1e5
    means = {"near": 0, "far": 1e5, "equal": 1234.1}
    for name, mean in means.items():
        rows = [f"{x},{mean + (name != 'equal') * x}" for x in progress]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,progress", *rows]))
        text = f"_target_: table\npath: {tmp_path}/{name}.csv\ntarget: progress\nsplit: train[:100]\n"
        (tmp_path / "dataset" / f"{name}.yaml").write_text(f"{text}test_split: train[100:]\n")
    run = make("source=near+far+equal", "model=linear", "train.steps=2", "train.eval_every=2")
    metrics = trained(run).metrics.lines[-1]
    for name in ("near", "far"):
        variance = progress[100:].var()
        assert metrics[f"r2/{name}"] == pytest.approx(1 - metrics[f"mse/{name}"] / variance, rel=1e-4)
    assert metrics["r2/worst"] == min(metrics["r2/near"], metrics["r2/far"])
    assert metrics["r2/mean"] == pytest.approx((metrics["r2/near"] + metrics["r2/far"]) / 2)
    assert "r2/equal" not in metrics
    (note,) = [note for note in run.data.notes if "no r2" in note]
    assert note.startswith("source 'equal': its test labels are all the same, so that it has no r2")
    end(console := Console(record=True, width=200), run)
    text = console.export_text()
    assert re.search(r"equal .* none ", text)
    assert f"R2: mean {metrics['r2/mean']:.4f}, worst source {metrics['r2/worst']:.4f}" in text
    alone = trained(make("source=equal", "model=linear", "train.steps=2", "train.eval_every=2", directory="alone"))
    metrics = alone.metrics.lines[-1]
    assert not any(name.startswith("r2") for name in metrics)
    assert metric_of("auto", metrics) == "mse/worst"
    end(console, alone)
    assert f"Mse: mean {metrics['mse/mean']:.4f}, worst source {metrics['mse/worst']:.4f}" in console.export_text()


def test_a_model_for_images_is_refused(on_table):
    message = r"^model = .cnn.; it takes image \[.*\], not the leaf 'features' of float32 \[3\]\. model=mlp and"
    with pytest.raises(ConfigError, match=message):
        on_table("model=cnn")
