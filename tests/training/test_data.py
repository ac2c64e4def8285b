"""The data of a training job: the mix, and test records of every source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.training.data import open_data
from datamix.training.runs import fit
from datamix.training.tasks.regression import Regression


def test_every_source_has_its_own_test_records(config_of):
    data = open_data(config_of("source.down.test_split=train"))
    assert data.num_test_records == {"across": 20, "down": 60}
    assert (data.task.num_outputs, data.task.shape, data.disjoint_classes) == (8, (4, 4, 1), True)
    assert data.num_test_batches == 1
    assert data.held_out.num_records == 80
    assert data.held_out.known.tolist() == [0] * 4 + [1] * 4
    (batch,) = data.test_pipeline
    assert batch["source_id"].tolist() == [0] * 20 + [1] * 60
    assert set(batch["label"][20:].tolist()) == {4, 5, 6, 7}


@pytest.mark.filterwarnings("ignore:source 'down'")
def test_a_condition_holds_for_test_records_and_the_other_choices_do_not(config_of, tmp_path):
    np.save(tmp_path / "some.npy", np.arange(40))
    whole = open_data(config_of("source.down.test_split=train"))
    chosen = ["source.down.where=label > 0", f"source.down.records={tmp_path}/some.npy", "source.down.balance=label"]
    data = open_data(config_of("source.down.test_split=train", *chosen))
    assert (whole.num_test_records["down"], data.num_test_records["down"], data.pipeline.plan.sizes[1]) == (60, 45, 30)
    assert data.task.num_outputs == whole.task.num_outputs
    assert set(data.test_pipeline[0]["label"][20:].tolist()) == {5, 6, 7}
    assert data.built.plan.drawn()[0].startswith("down is balanced: each of its 3 classes, ")
    assert not any(data.test_mix.plan.sampling)


def test_sources_that_share_their_classes(config_of):
    data = open_data(config_of("labels=keep"))
    assert (data.task.num_outputs, data.disjoint_classes) == (4, False)


def test_random_operators_are_left_out_of_tests(config_of):
    data = open_data(config_of("operators=[flip_horizontal]"))
    assert [node for node in data.test_pipeline.graph.nodes if "flip" in node] == []
    assert [node for node in data.pipeline.graph.nodes if "flip" in node] == ["flip_horizontal"]


def test_jobs_that_differ_in_weights_share_their_records(config_of):
    first = open_data(config_of())
    other = open_data(config_of("mix.ratio=1:3"), first)
    assert other.pipeline.reader is first.pipeline.reader
    assert other.held_out is first.held_out
    counts = np.bincount(np.concatenate([other.pipeline[step]["source_id"] for step in range(4)]))
    assert counts.tolist() == [8, 24]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["source.down.class_names=[]", "source.down.num_classes=3"],
            r"^source 'down': label 3 is none of the 3 classes from 0 on; set source\.down\.num_classes=4\.$",
        ),
        (
            ["operators=[{one_hot:{num_classes:8}},{cast:{dtype:int32,leaf:label}}]"],
            r"integer label, or one_hot's; this mix gives image float32 \[4,.*, label int32 \[8\]",
        ),
        (
            ["source.across.operators=[]", "source.down.operators=[]"],
            r"a float image and an integer label, or one_hot's; .* to_float",
        ),
        (
            ["operators=[{random_crop:{height:2,width:3}}]"],
            r"^tests leave random operators out, and their records would have image float32 \[4, 4, 1\], not float32 "
            r"\[2, 3, 1\]; let an operator that is not random, such as resize or cast, make the shape and dtype\.$",
        ),
    ],
)
def test_mistakes(config_of, overrides, message):
    with pytest.raises((ConfigError, DataError), match=message):
        open_data(config_of(*overrides))


@pytest.mark.slow
def test_labels_may_be_blends_of_two_classes_where_tests_have_one(config_of, make, trained):
    pairs = "operators=[{one_hot:{num_classes:8}},mixup,{cutmix:{probability:0.5}}]"
    run = trained(make(pairs))
    assert run.data.task.num_outputs == 8
    assert (run.data.pipeline[0]["label"].max(axis=1) < 0.99).any()
    assert (run.data.test_pipeline[0]["label"].max(axis=1) == 1).all()
    hard = open_data(config_of())
    assert run.data.num_test_records == hard.num_test_records
    assert run.data.held_out.known.tolist() == hard.held_out.known.tolist()


IMAGES = np.random.default_rng(0).random((40, 4, 4, 1)).astype(np.float32)
CLASSES = np.arange(40) % 4


def arrays_in(folder: Path, **leaves: np.ndarray) -> list[str]:
    """Overrides for a source `x` of arrays, of which the last 10 records are held out."""
    np.savez(folder / "x.npz", **({"image": IMAGES, "label": CLASSES} | leaves))
    (folder / "dataset" / "x.yaml").write_text(f"_target_: arrays\npath: {folder}/x.npz\n")
    return ["source=x", "source.x.split=train[:30]", "source.x.test_split=train[30:]"]


def test_classes_are_numbered_by_all_splits(config_of, tmp_path):
    overrides = arrays_in(tmp_path, label=np.sort(CLASSES))
    data = open_data(config_of(*overrides, "source=x+down"))
    assert (data.task.num_outputs, data.held_out.known.tolist()) == (8, [0] * 4 + [1] * 4)
    (batch,) = data.test_pipeline
    assert batch["label"][:10].tolist() == [3] * 10
    assert set(batch["label"][10:].tolist()) == {4, 5, 6, 7}
    assert open_data(config_of("source.down.split=few", "source.down.class_names=[]")).task.num_outputs == 8


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_records_without_a_class_are_no_part_of_loss_and_accuracy(config_of, make, trained, tmp_path, dtype):
    unlabelled = np.where(np.arange(40) % 3 == 1, -1, CLASSES).astype(dtype)
    overrides = arrays_in(tmp_path, label=unlabelled)
    with pytest.raises(DataError, match=r"^source 'x': .* labels are no class, such as -1; source\.x\.unlabelled"):
        open_data(config_of(*overrides))
    run = trained(make(*overrides, "source.x.unlabelled=keep"))
    assert run.data.notes == [
        "source 'x': 10 of 30 records are unlabelled, and left out of loss and accuracy.",
        "test records of source 'x': 3 of 10 records are unlabelled, and left out of loss and accuracy.",
    ]
    assert run.scores["num_records"].tolist() == [7]
    # As if these records were not there: the same model on the labelled test records alone.
    (folder := tmp_path / "labelled").mkdir()
    is_labelled = unlabelled >= 0
    is_labelled[:30] = True
    np.savez(tmp_path / "x.npz", image=IMAGES[is_labelled], label=unlabelled[is_labelled])
    alone = trained(make(*overrides, "source.x.unlabelled=keep", directory=folder.name))
    assert alone.metrics.lines == run.metrics.lines


def test_batches_without_a_class_teach_nothing(make, trained, tmp_path):
    label = np.where(np.arange(40) < 30, -1, CLASSES)
    run = trained(make(*arrays_in(tmp_path, label=label), "source.x.unlabelled=keep"))
    assert {line["loss"] for line in run.metrics.lines} == {0}


def test_test_records_that_are_all_unlabelled_are_refused(config_of, tmp_path):
    label = np.where(np.arange(40) < 30, CLASSES, -1)
    message = r"^source 'x': none of its 10 test records has a class, .* hold labelled records out: source\.x\.split="
    overrides = arrays_in(tmp_path, label=label)
    with pytest.raises(DataError, match=message):
        open_data(config_of(*overrides, "source.x.unlabelled=keep"))
    with pytest.raises(DataError, match=r"10 of 10 labels are no class"):
        open_data(config_of(*overrides))
    advised = ["source.x.split=train[:80%]", "source.x.test_split=train[60%:80%]", "source.x.unlabelled=keep"]
    assert open_data(config_of(*overrides, *advised)).num_test_records == {"x": 8}


def test_a_mix_without_a_class_is_refused(config_of, tmp_path):
    with pytest.raises(DataError, match=r"^no record of the mix has a class"):
        open_data(config_of(*arrays_in(tmp_path, label=np.full(40, -1)), "source.x.unlabelled=keep"))


def test_numbers_to_predict_are_no_classes(config_of, tmp_path):
    task = Regression(leaf="image", shape=(4, 4, 1))
    data = open_data(config_of(*arrays_in(tmp_path, label=CLASSES + 0.5)))
    assert (data.task, data.disjoint_classes) == (task, False)
    assert open_data(config_of(*arrays_in(tmp_path), "source.x.label=number")).task == task


def test_pixels_that_are_nan_are_told_and_blamed(make, tmp_path):
    image = IMAGES.copy()
    image[::3, 0, 0] = np.nan
    run = make(*arrays_in(tmp_path, image=image))
    assert [note.partition(" holds ")[0] for note in run.data.notes] == [
        "source 'x': the leaf 'image'", "test records of source 'x': the leaf 'image'",
    ]  # fmt: skip
    fit([run], lambda _: None)
    assert str(run.error).startswith("at step 1 the loss is no longer finite: the images of x hold NaN (2.08% of its v")
    diverged = make(*arrays_in(tmp_path), "optimizer.learning_rate=1e38", directory="other")
    fit([diverged], lambda _: None)
    assert str(diverged.error).startswith("optimizer.learning_rate = 1e+38; at step ")


def test_images_without_a_channel_axis(config_of, tmp_path):
    data = open_data(config_of(*arrays_in(tmp_path, image=IMAGES[..., 0])))
    assert data.task.shape == (4, 4, 1)
    assert data.notes == ["source 'x': images [4, 4] get a channel axis, and are [4, 4, 1]."]


@pytest.mark.parametrize("shape", [(16,), (2, 2, 2, 2)])
def test_a_model_that_cannot_take_the_images(make, tmp_path, shape):
    with pytest.raises(
        ConfigError,
        match=rf"'cnn'; it takes image .*, not the leaf 'image' of float32 {re.escape(str(list(shape)))}\. model=mlp",
    ):
        make(*arrays_in(tmp_path, image=IMAGES.reshape(40, *shape)), "model=cnn")


def test_a_budget_in_tokens_needs_tokens(config_of):
    with pytest.raises(
        ConfigError, match=r"^train\.tokens = 500; it counts the tokens of records, and a source of"
    ) as e:
        open_data(config_of("train.tokens=500"))
    assert (e.value.key, e.value.value) == ("train.tokens", 500)


@pytest.mark.parametrize("name", ["mean", "worst", "weighted", "train"])
def test_a_source_that_would_take_the_name_of_a_metric_is_refused(config_of, name):
    with pytest.raises(
        ConfigError,
        match=rf"^source\.{name}: metrics that end in /{name} are of all sources together\. "
        r"Give it another name, as in source=digits@other\.$",
    ):
        open_data(config_of(f"source=across@{name}+down"))
    assert [*open_data(config_of("source=across@other+down")).num_test_records] == ["other", "down"]
