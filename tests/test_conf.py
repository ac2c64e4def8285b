"""Every file of conf/: composed, built and used; a new file is tested because it is there."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml

import datamix
from datamix import registry
from datamix.builder.built import build
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.config.schema import AdaptConfig
from datamix.errors import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"
SHAPES = {"my_npz": (28, 28, 1)}  # of the images that operators give another shape
OF_TOKENS = ("my_text", "my_tokens", "code", "docs", "scripture")
REAL = ("mnist", "fashion")  # the other datasets of TFDS are noise here


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


STAND_INS = {
    name: config["stand_in"]
    for name in names("dataset")
    if "stand_in" in (config := yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text()))
}


@pytest.fixture
def load(every_dataset, cache_dir, shared_data):
    """Loads a mix of any datasets of conf/."""

    def load_all(*overrides):
        return datamix.load(*overrides, *places(every_dataset, cache_dir, shared_data, overrides))

    return load_all


@pytest.fixture
def settle(every_dataset, cache_dir, shared_data):
    """Composes and checks a configuration of any datasets of conf/."""

    def settled(*overrides):
        return parse(compose([*overrides, *places(every_dataset, cache_dir, shared_data, overrides)]))

    return settled


def places(data_dir, cache_dir, shared_data, overrides):
    """Where the data lies; what a dataset of conf/ leaves for its user to set."""
    settings = {
        "source=my_npz": [f"source.my_npz.path={shared_data / 'photo_patches32.npz'}"],
        "source=my_array_record": [
            f"source.my_array_record.path={shared_data / 'tensorflow_datasets' / 'fashion_mnist'}/3.0.1/*train*"
        ],
        "source=folder": [f"source.folder.path={shared_data / 'photos'}"],
        "source=my_webdataset": [f"source.my_webdataset.path={shared_data / 'webdataset'}"],
        "source=my_parquet": [f"source.my_parquet.path={shared_data / 'huggingface' / 'mnist_small.train.parquet'}"],
        "source=my_huggingface": [f"source.my_huggingface.path={shared_data / 'huggingface' / 'mnist_small'}"],
        "source=my_table": [
            f"source.my_table.path={shared_data / 'tables' / 'wine.parquet'}",
            "source.my_table.target=label",
        ],
        "source=digits": ["source.digits.split=train[:1000]"],  # drawn each time: no more than are looked at
        "source=garments": ["source.garments.split=train[:1000]"],
    }
    return [f"data.dir={data_dir}", f"data.cache={cache_dir}", *settings.get(overrides[0], [])]


def test_the_example_of_arrays_keeps_floats_and_notes_bytes_that_stay_dark(tmp_path):
    draw, label = np.random.default_rng(0), np.arange(500) % 10
    image = draw.random((500, 28, 28, 1), np.float32)
    np.savez(tmp_path / "a.npz", image=image, label=label)
    mine = ["source=my_npz", f"source.my_npz.path={tmp_path / 'a.npz'}", "shuffle=none"]
    np.testing.assert_allclose(datamix.load(*mine)[0]["image"], image[:16], rtol=1e-6)
    image = draw.integers(0, 17, (500, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "a.npz", image=image, label=label)
    with pytest.warns(UserWarning, match=r"the largest image value is 16, .*; to_float: \{largest: 16\} fits\.$"):
        datamix.load(*mine)
    advised = "source.my_npz.operators=[{to_float: {largest: 16}}]"
    np.testing.assert_allclose(datamix.load(*mine, advised)[0]["image"], image[:16] / 16, rtol=1e-6)
    np.savez(tmp_path / "a.npz", image=image.astype(np.int64), label=label)
    with pytest.raises(ConfigError, match=r"to_float: \{largest: 16\} fits\.$"):
        datamix.load(*mine)


# The datasets that are no mixes themselves, and those of them that are of images.
SINGLE = [name for name in names("dataset") if name not in ("vision", *OF_TOKENS)]
IMAGES = [name for name in SINGLE if name != "my_table"]


def test_the_examples_of_tokens_give_batches_of_records(load, shared_data, tmp_path):
    np.arange(5000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    own = [f"source.my_tokens.path={tmp_path / 'a.bin'}", "source.my_tokens.dtype=uint16"]
    for overrides in (
        ["source=my_text", f"source.my_text.path={shared_data / 'text' / 'jargon.test.jsonl'}"],
        ["source=my_tokens", *own, "source.my_tokens.end_of_document=100"],
    ):
        batch = next(iter(load(*overrides, "batch.size=4")))
        assert {leaf: values.shape for leaf, values in batch.items()} == {
            **dict.fromkeys(("tokens", "segment_ids", "positions"), (4, 1024)),
            **dict.fromkeys(("num_tokens", "source_id"), (4,)),
        }


def test_every_file_belongs_to_a_group_that_is_tested_here():
    groups = {str(path.parent.relative_to(CONF)) for path in CONF.rglob("*") if path.is_file()}
    ours = {"adapt", "dataset", "mix", "weighting", "stop", "job", "model", "optimizer", "experiment"}
    assert groups == {".", *ours, "hydra/help", "hydra/job_logging"}
    assert {path.suffix for path in CONF.rglob("*") if path.is_file()} == {".yaml"}
    assert [path.name for path in CONF.glob("*.yaml")] == ["config.yaml"]


@pytest.mark.parametrize("name", names("adapt"))
def test_every_policy_begins_at_the_weights_of_the_mix(load, name):
    pipeline = load(f"adapt={name}", "source=digits+garments", "stop=forever", "mix.ratio=3:1")
    assert pipeline.adapt is None if name == "none" else pipeline.adapt.rule == name
    batches = islice(pipeline.iterator(), 5)
    assert np.mean([batch["source_id"] for batch in batches]) == pytest.approx(0.25, abs=1 / 80)


@pytest.mark.parametrize("name", [each for each in names("adapt") if each != "none"])
def test_files_of_policies_have_the_defaults_of_the_schema(name):
    written = yaml.safe_load((CONF / "adapt" / f"{name}.yaml").read_text())
    of_every_policy = {each.name: each.default for each in fields(AdaptConfig) if each.default is not MISSING}
    assert {key: written[key] for key in of_every_policy} == of_every_policy


def test_the_defaults_are_the_mix_of_mnist_and_fashion():
    config = parse(compose([]))
    assert [source.name for source in config.sources] == ["mnist", "fashion"]
    assert (config.job, config.mix.order, config.mix.stop) == ("preview", "proportional", "first_exhausted")
    assert (config.batch_size, config.remainder, config.seed, config.labels) == (16, "drop", 0, "union")
    assert config.stand_in  # a preview may go on with stand-ins
    assert (config.data_dir, config.cache_dir) == (None, None)


@pytest.mark.parametrize("name", IMAGES)
def test_a_dataset_alone_gives_batches_of_float_images(load, settle, name):
    pipeline = load(f"source={name}", "batch.size=80")
    (source,) = build(settle(f"source={name}")).sources.values()
    batch = pipeline[0]
    shape = SHAPES.get(name, source.spec["image"].shape)
    assert (batch["image"].shape, batch["image"].dtype) == ((80, *shape), np.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((80,), np.int32)
    assert batch["source_id"].tolist() == [0] * 80
    assert np.isfinite(batch["image"]).all()
    num_classes = source.declared_num_classes or 1 + max(labels.max() for labels in source.whole_labels())
    assert 0 <= batch["label"].min() < batch["label"].max() < num_classes
    assert source.read()["label"].max() == num_classes - 1
    if name in REAL or source.provenance == "procedural":
        images = np.concatenate([batch["image"] for batch in islice(pipeline, 10)])
        assert abs(images.mean()) < 0.2
        assert abs(images.std() - 1) < 0.2


def test_a_table_alone_gives_batches_of_features(load):
    batch = load("source=my_table", "batch.size=80")[0]
    assert {leaf: (values.shape, str(values.dtype)) for leaf, values in batch.items()} == {
        "features": ((80, 13), "float32"), "label": ((80,), "int32"), "source_id": ((80,), "int32")
    }  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_class_names_are_those_of_the_data(settle, name):
    (config,) = settle(f"source={name}").sources
    (source,) = build(settle(f"source={name}")).sources.values()
    names_of_tfds = source.source.class_names
    if not config.class_names:
        assert source.class_names == names_of_tfds
        return
    assert len(set(config.class_names)) == len(names_of_tfds)
    assert source.class_names == config.class_names
    if not all(name.isdecimal() for name in names_of_tfds):  # TFDS numbers the classes of which it knows no names
        assert config.class_names == names_of_tfds


def test_a_dataset_that_is_a_mix(load, settle):
    pipeline = load("source=vision+digits", "mix.weights.vision.mnist=3", "batch.size=80")
    assert [source.name for source in settle("source=vision+digits").sources] == [
        "vision.mnist",
        "vision.fashion",
        "digits",
    ]
    assert [str(share) for share in pipeline.plan.shares] == ["3/8", "1/8", "1/2"]
    assert np.bincount(pipeline[0]["source_id"]).tolist() == [30, 10, 40]


@pytest.mark.parametrize("name", names("weighting"))
def test_a_weighting_names_the_rule_of_its_name_with_all_its_settings(name):
    rule, *settings = parse(compose([f"weighting={name}"])).mix.weighting.items()
    assert rule == ("rule", name)
    assert {key for key, _ in settings} == set(registry.settings(registry.lookup("weighting", name)))


@pytest.mark.parametrize(("name", "stand_in"), STAND_INS.items())
def test_a_stand_in_looks_like_what_it_stands_in_for(settle, name, stand_in):
    real, drawn = (build(settle(f"source={each}")).sources[each] for each in (name, stand_in))
    assert drawn.spec == real.spec
    assert len(drawn.class_names) == len(real.class_names)
    assert settle(f"source={stand_in}").sources[0].operators == settle(f"source={name}").sources[0].operators


# Records of a mix of 12 and 6 records, one to one; the stops' rules tell them without an order drawn at random.
LENGTHS = {
    "proportional": {"first_exhausted": 13, "all_exhausted": 23, "exhaust_once": 18},
    "largest_credit": {"first_exhausted": 13, "all_exhausted": 23, "exhaust_once": 18},
    "round_robin": {"first_exhausted": 13, "all_exhausted": 23, "exhaust_once": 18},
    "concat": {"first_exhausted": 18, "all_exhausted": 18, "exhaust_once": 18},
    "random": {"exhaust_once": 18},
}


@pytest.mark.parametrize("stop", names("stop"))
@pytest.mark.parametrize("mix", names("mix"))
def test_every_order_goes_with_every_stop(mix, stop):
    few = {"image": np.zeros((12, 2, 2, 1), np.float32), "label": np.arange(12)}
    fewer = {leaf: values[:6] for leaf, values in few.items()}
    pipeline = datamix.load(f"mix={mix}", f"stop={stop}", "batch.size=4", sources={"few": few, "fewer": fewer})
    batch = pipeline[0]
    assert batch["image"].shape == (4, 2, 2, 1)
    if mix != "random":
        assert batch["source_id"].tolist() == ([0, 0, 0, 0] if mix == "concat" else [0, 1, 0, 1])
    if stop == "forever":
        with pytest.raises(TypeError, match="never ends"):
            len(pipeline)
    elif (length := LENGTHS[mix].get(stop)) is not None:
        assert pipeline.plan.length == length
    else:  # the draws decide, within what the stop allows
        least, most = {"first_exhausted": (6, 18), "all_exhausted": (18, 200)}[stop]
        assert least <= pipeline.plan.length <= most


def test_concat_ends_after_all_of_them_unless_another_stop_is_asked_for():
    assert parse(compose(["mix=concat"])).mix.stop == "exhaust_once"
    assert parse(compose(["mix=concat", "stop=forever"])).mix.stop == "forever"


@pytest.mark.parametrize("name", names("mix"))
def test_a_mix_names_the_order_of_its_name_with_all_its_settings(name):
    mix = parse(compose([f"mix={name}"])).mix
    assert mix.order == name
    registry.check_settings(f"mix={name}", registry.lookup("order", mix.order), mix.settings)


@pytest.mark.parametrize("name", names("stop"))
def test_a_stop_names_the_rule_of_its_name(name):
    assert parse(compose([f"stop={name}"])).mix.stop == name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("bench", "train")))
        for name in names("job")
        if name not in ("report", "suggest")  # of sweeps, in tests/jobs
    ],
)
def test_every_job_runs(settle, tmp_path, name):
    short = ["model=linear", "optimizer=sgd", "train.steps=200"] if name == "train" else []
    run(settle(f"job={name}", "source=mnist+fashion", *short), tmp_path)
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert (report["job"], list(report["sources"])) == (name, ["mnist", "fashion"])
    assert {source["provenance"] for source in report["sources"].values()} == {"tfds"}


@pytest.mark.parametrize("name", names("job"))
def test_a_job_has_all_its_settings_in_its_file(settle, name):
    config = settle(f"job={name}")
    assert config.job == name
    assert set(config.job_settings) == set(registry.settings(registry.lookup("job", name)))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.endswith(("_study", "mixmin")))
        for name in names("experiment")
    ],
)
def test_every_experiment_runs(settle, tmp_path, name):
    few = (
        ["train.steps=2", "train.eval_every=2"]
        if "job: train" in (CONF / f"experiment/{name}.yaml").read_text()
        else []
    )
    run(settle(f"experiment={name}", *few), tmp_path)
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["samples"] == sum(source["samples"] for source in report["sources"].values()) > 0


def run(config, directory):
    registry.lookup("job", config.job)(config, directory, **config.job_settings)


def test_every_registered_order_stop_and_job_has_a_file():
    assert registry.names("order") == names("mix")
    assert registry.names("stop") == names("stop")
    assert registry.names("weighting") == names("weighting")
    assert registry.names("job") == names("job")
