"""What labels are is decided once for a mix; what an error advises is followed, and gives the right labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.builder.labels import decide
from datamix.builder.open_source import OpenSource
from datamix.errors import ConfigError, DataError, SpecError
from datamix.sources.objects import as_source

CLASSES = np.arange(20) % 5
EYE = np.eye(5, dtype=np.float32)[CLASSES]
RATINGS = np.linspace(0, 4.5, 20, dtype=np.float32)


def records(label: Any) -> dict[str, np.ndarray]:
    return {"image": np.zeros((len(label), 4, 4, 1), np.uint8), "label": np.asarray(label)}


def load(*overrides: str, **labels: Any) -> datamix.Pipeline:
    sources = {name: records(label) for name, label in labels.items()}
    return datamix.load("mix=concat", "shuffle=none", "batch.size=10", *overrides, sources=sources)


def labels_of(pipeline: datamix.Pipeline, source: int) -> np.ndarray:
    return np.concatenate([batch["label"][batch["source_id"] == source] for batch in pipeline])


@pytest.mark.slow
@pytest.mark.parametrize("numbering", ["union", "keep"])
@pytest.mark.parametrize("other", ["bool", "uint8", "int16", "uint32", "uint64", "float16", "float32", "float64"])
def test_whole_numbers_of_any_dtype_are_classes(other: str, numbering: str) -> None:
    small = CLASSES % 2 if other == "bool" else CLASSES
    pipeline = load(f"labels={numbering}", "source.b.operators=[{cast:{dtype:int32,leaf:label}}]",
                    a=CLASSES, b=small.astype(other))  # fmt: skip
    assert labels_of(pipeline, 0).tolist() == CLASSES.tolist()
    assert labels_of(pipeline, 1).tolist() == (small + (5 if numbering == "union" else 0)).tolist()
    assert pipeline.spec["label"].dtype == "int32"


def test_whole_numbers_of_two_float_dtypes_are_classes() -> None:
    pipeline = load(a=CLASSES.astype(np.float64), b=CLASSES.astype(ml_dtypes.bfloat16))
    assert labels_of(pipeline, 1).tolist() == (CLASSES + 5).tolist()
    assert pipeline.spec["label"].dtype == "int32"


@pytest.mark.parametrize("numbering", ["union", "keep"])
def test_numbers_in_one_source_are_numbers_in_all(numbering: str) -> None:
    with pytest.raises(SpecError, match=r"if these are numbers to predict as well, set source\.b\.label=number\.$"):
        load(f"labels={numbering}", a=RATINGS, b=CLASSES)
    cast = "source.b.operators=[{cast:{dtype:float32,leaf:label}}]"
    for mend in ("source.b.label=number", cast):
        pipeline = load(f"labels={numbering}", mend, a=RATINGS, b=CLASSES)
        assert labels_of(pipeline, 0).tolist() == RATINGS.tolist()
        assert labels_of(pipeline, 1).tolist() == CLASSES.tolist()


def test_numbers_that_float32_does_not_hold_are_no_floats_unasked() -> None:
    with pytest.raises(SpecError, match=r"label is float32 \[\] in a, but int32 \[\] in b"):
        load("source.b.label=number", a=RATINGS, b=CLASSES + 2**24)
    with pytest.raises(SpecError, match=r"label is float32 \[\] in a, but int32 \[\] in b"):
        load("source.b.label=number", a=RATINGS, b=-1 - CLASSES - 2**24)
    kept = load("source.b.label=number", a=RATINGS, b=-CLASSES - 2**24 + 4)
    assert labels_of(kept, 1).tolist() == (-CLASSES - 2**24 + 4).tolist()


def test_fractions_that_happen_to_be_whole_are_numbers_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("x,y\n1,0.0\n2,1.0\n")
    settings = ["source.my_table.target=y", f"source.my_table.path={tmp_path / 'x.csv'}", "batch.size=2"]
    batch = datamix.load("source=my_table", *settings)[0]
    assert (str(batch["label"].dtype), sorted(batch["label"].tolist())) == ("float32", [0, 1])
    classes = datamix.load("source=my_table", "source.my_table.num_classes=2", *settings)[0]
    assert str(classes["label"].dtype) == "int32"
    classes = datamix.load("source=my_table", "source.my_table.label=class", *settings)[0]
    assert str(classes["label"].dtype) == "int32"


def test_numbers_may_be_declared_where_their_values_look_like_classes() -> None:
    pipeline = load("source.a.label=number", a=CLASSES - 1, b=CLASSES)
    assert labels_of(pipeline, 0).tolist() == (CLASSES - 1).tolist()
    assert labels_of(pipeline, 1).tolist() == CLASSES.tolist()


@pytest.mark.parametrize(
    ("override", "label", "message"),
    [
        ("source.a.label=class", RATINGS, r"^source 'a': its labels are not all whole .*source\.a\.label=number takes"),
        ("source.a.label=vector", CLASSES, r"^source\.a\.label = 'vector'; the leaf label is int64 \[\], .* no vector"),
        ("source.a.label=number", EYE, r"^source\.a\.label = 'number'; the leaf label is float32 \[5\], .* a vector"),
        ("source.b.label=class", RATINGS, r"^source\.b\.label = 'class'; the labels of a are numbers to predict"),
        ("source.a.label=klass", CLASSES, r"source\.a\.label = 'klass'"),
        ("source.a.num_classes=0", CLASSES, r"source\.a\.num_classes = 0"),
    ],
)
def test_what_is_declared_fits(override: str, label: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        load(override, a=label, b=CLASSES)


def test_labels_that_are_none_are_left_out() -> None:
    assert "label" not in load("source.a.label=none", a=CLASSES).spec
    only_images = {"image": np.ones((20, 4, 4, 1), np.uint8)}
    sources = {"a": records(CLASSES), "b": only_images, "c": [{"image": np.ones((4, 4, 1), np.uint8), "label": 1}]}
    with pytest.raises(SpecError, match=r"a has a leaf 'label', b has none; .* or set source\.a\.label=none\.$"):
        datamix.load("batch.size=4", sources={name: sources[name] for name in "ab"})
    overrides = ["source.a.label=none", "source.c.label=none", "mix=concat", "batch.size=41"]
    assert datamix.load(*overrides, sources=sources)[0].keys() == {"image", "source_id"}


# Vectors with one element a class -------------------------------------------------------------------------------------


def test_one_hot_beside_one_hot() -> None:
    union, keep = load(a=EYE, b=EYE), load("labels=keep", a=EYE, b=EYE)
    assert union.spec["label"].shape == (10,)
    assert labels_of(union, 0).argmax(1).tolist() == CLASSES.tolist()
    assert labels_of(union, 1).argmax(1).tolist() == (CLASSES + 5).tolist()
    assert (labels_of(union, 1).sum(1) == 1).all()
    assert (labels_of(keep, 1) == EYE).all()


def test_vectors_that_are_no_classes_stay_as_they_are() -> None:
    boxes = np.random.default_rng(0).random((20, 4)).astype(np.float32)
    pipeline = load(a=boxes, b=boxes)
    assert (labels_of(pipeline, 1) == boxes).all()
    assert (labels_of(load(a=EYE), 0) == EYE).all()


@pytest.mark.parametrize("numbering", ["union", "keep"])
def test_class_numbers_beside_one_hot(numbering: str) -> None:
    numbers = CLASSES[::-1].copy()
    with pytest.raises(
        SpecError,
        match=r"vector of 5 in a, but a class number in b; set \"source\.b\.operators=\[\{one_hot: \{num_cl",
    ):
        load(f"labels={numbering}", a=EYE, b=numbers)
    advised = "source.b.operators=[{one_hot:{num_classes:5,leaf:label}}]"
    pipeline = load(f"labels={numbering}", advised, a=EYE, b=numbers)
    offset = 5 if numbering == "union" else 0
    assert labels_of(pipeline, 0).argmax(1).tolist() == CLASSES.tolist()
    assert labels_of(pipeline, 1).argmax(1).tolist() == (numbers + offset).tolist()
    assert (labels_of(pipeline, 1).sum(1) == 1).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64"])
def test_class_numbers_beside_one_hot_of_integers(dtype: str) -> None:
    vectors = EYE.astype(dtype)
    message = r'leaf: label\}\}\]", and set "source\.a\.operators=\[\{cast: \{dtype: float32, leaf: label\}\}\]"\.$'
    with pytest.raises(SpecError, match=message):
        load(a=vectors, b=CLASSES)
    cast, one_hot = "[{cast:{dtype:float32,leaf:label}}]", "[{one_hot:{num_classes:5,leaf:label}}]"
    pipeline = load(f"source.a.operators={cast}", f"source.b.operators={one_hot}", a=vectors, b=CLASSES)
    assert labels_of(pipeline, 0).argmax(1).tolist() == CLASSES.tolist()
    assert labels_of(pipeline, 1).argmax(1).tolist() == (CLASSES + 5).tolist()
    both = load(a=vectors, b=vectors)
    assert labels_of(both, 1).argmax(1).tolist() == (CLASSES + 5).tolist()


def test_operators_of_ones_own_may_make_classes_of_vectors() -> None:
    def class_of(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"label": record["label"].argmax().astype("int32")}

    mixed = datamix.mix(
        {"a": records(EYE), "b": records(EYE)}, operators=[class_of], order="concat", shuffle="none", batch_size=10
    )
    assert labels_of(mixed, 1).tolist() == (CLASSES + 5).tolist()


def test_class_numbers_beside_one_hot_of_another_width() -> None:
    more = np.arange(20) % 7
    with pytest.raises(SpecError, match=r"one_hot: \{num_classes: 7, leaf: label\}"):
        load(a=EYE, b=more)
    pipeline = load("source.b.operators=[{one_hot:{num_classes:7,leaf:label}}]", a=EYE, b=more)
    assert pipeline.spec["label"].shape == (12,)
    assert labels_of(pipeline, 1).argmax(1).tolist() == (more + 5).tolist()
    with pytest.raises(
        SpecError, match=r"there are 7 classes in b; under labels=union, one_hot: \{num_classes: 7\} fits"
    ):
        load("labels=keep", a=EYE, b=more)


@pytest.mark.parametrize("length", [5, 10])
def test_one_hot_of_its_own_classes_or_of_all(length: int) -> None:
    one_hot = f"[{{one_hot:{{num_classes:{length}}}}}]"
    pipeline = load(f"source.a.operators={one_hot}", f"source.b.operators={one_hot}", a=CLASSES, b=CLASSES)
    assert pipeline.spec["label"].shape == (10,)
    assert labels_of(pipeline, 1).argmax(1).tolist() == (CLASSES + 5).tolist()
    assert (labels_of(pipeline, 1).sum(1) == 1).all()


def test_one_hot_with_too_few_elements_is_refused() -> None:
    with pytest.raises(SpecError, match=r"source 'a': one_hot: num_classes = 3 has no element .* it is 5, or 10 for"):
        load("source.a.operators=[{one_hot:{num_classes:3}}]", a=CLASSES, b=CLASSES)
    with pytest.raises(SpecError, match=r"^operators: one_hot: num_classes = 5 has no element .* it is 10, or set lab"):
        load("operators=[{one_hot:{num_classes:5}}]", a=CLASSES, b=CLASSES)
    pipeline = load("operators=[{one_hot:{num_classes:10}}]", a=CLASSES, b=CLASSES)
    assert labels_of(pipeline, 1).argmax(1).tolist() == (CLASSES + 5).tolist()


def test_soft_labels_beside_one_hot() -> None:
    with pytest.raises(
        SpecError, match=r"labels of b are vectors of other numbers than a single 1, .* set labels=keep"
    ):
        load(a=EYE, b=EYE / 2)
    assert (labels_of(load("labels=keep", a=EYE, b=EYE / 2), 1) == EYE / 2).all()


# The number of classes ------------------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, **labels: np.ndarray) -> str:
    (tmp_path / "dataset").mkdir()
    for name, label in labels.items():
        np.savez(tmp_path / f"{name}.npz", **records(label))
        text = f"_target_: arrays\npath: {tmp_path}/{name}.npz\n"
        (tmp_path / "dataset" / f"{name}.yaml").write_text(text)
    return str(tmp_path)


@pytest.mark.parametrize("split", ["train", "train[:80%]", "train[80%:]", "train[:1]"])
def test_every_slice_is_numbered_alike(tmp_path: Path, split: str) -> None:
    config_dir = folder_of(tmp_path, a=np.sort(CLASSES), b=CLASSES)
    pipeline = datamix.load(
        "source=a+b", "mix=concat", "shuffle=none", "batch.size=1", f"source.a.split={split}", config_dir=config_dir
    )
    assert labels_of(pipeline, 1).tolist() == (CLASSES + 5).tolist()


def test_a_limit_changes_no_number() -> None:
    pipeline = load("source.a.limit=3", "batch.size=1", a=np.sort(CLASSES), b=CLASSES)
    assert labels_of(pipeline, 1).tolist() == (CLASSES + 5).tolist()
    sources = {"a": [(np.zeros((4, 4, 1), np.uint8), int(label)) for label in np.sort(CLASSES)], "b": records(CLASSES)}
    listed = datamix.mix(sources, order="concat", shuffle="none", limit={"a": 3}, batch_size=1)
    assert labels_of(listed, 1).tolist() == (CLASSES + 5).tolist()


def test_the_number_of_classes_may_be_declared() -> None:
    assert labels_of(load("source.a.num_classes=7", a=CLASSES, b=CLASSES), 1).min() == 7
    sources = {"a": records(CLASSES), "b": records(CLASSES)}
    mixed = datamix.mix(sources, order="concat", num_classes={"a": 8}, batch_size=10)
    assert labels_of(mixed, 1).min() == 8
    with pytest.raises(DataError, match=r"label 4 is none of the 3 classes from 0 on; set source\.a\.num_classes=5\.$"):
        load("source.a.num_classes=3", a=CLASSES, b=CLASSES)
    with pytest.raises(ConfigError, match=r"^source\.a\.num_classes = 7; there are 5 class_names; leave one of both"):
        load("source.a.num_classes=7", "source.a.class_names=[a,b,c,d,e]", a=CLASSES, b=CLASSES)


def test_a_source_may_say_the_number_of_its_classes() -> None:
    class Known:
        provenance, num_records, num_classes = "known", 20, 9
        spec = as_source(records(CLASSES)).spec

        def read(self) -> dict[str, np.ndarray]:
            return records(CLASSES)

    pipeline = datamix.load("mix=concat", "batch.size=10", sources={"a": Known(), "b": records(CLASSES)})
    assert labels_of(pipeline, 1).min() == 9


def test_numbers_that_would_wrap_are_refused() -> None:
    large = np.full(20, 2**31 - 3)
    assert labels_of(load(a=large), 0).tolist() == large.tolist()
    with pytest.raises(SpecError, match=r"the classes of all sources \(a 2,147,483,646, b 5\) are 2,147,483,651, more"):
        load(a=large, b=CLASSES)
    assert labels_of(load("labels=keep", a=large, b=CLASSES), 0).tolist() == large.tolist()
    with pytest.raises(
        SpecError, match=r"^source 'a': label 1099511627776 is beyond int32; .* source\.a\.label=none\.$"
    ):
        load(a=np.full(20, 2**40))
    assert "label" not in load("source.a.label=none", a=np.full(20, 2**40)).spec
    unsigned = np.full(20, 2**32 - 3, np.uint32)
    with pytest.raises(SpecError, match="more than int32 can number; labels=keep leaves labels as they are"):
        load(a=unsigned)
    assert labels_of(load("labels=keep", a=unsigned), 0).tolist() == unsigned.tolist()
    edge = load(a=np.full(20, 2**31 - 2 - 5), b=CLASSES)
    assert labels_of(edge, 1).max() == 2**31 - 2


def test_an_offset_of_ones_own_does_not_wrap_either() -> None:
    def own(offset: int) -> str:
        return f"source.b.operators=[{{offset_label:{{offset:{offset}}}}}]"

    with pytest.raises(SpecError, match=r"offset = 2147483645 and its labels up to 4 .*; it is at most 2147483643\.$"):
        load(own(2**31 - 3), a=CLASSES, b=CLASSES)
    assert labels_of(load(own(2**31 - 5), a=CLASSES, b=CLASSES), 1).max() == 2**31 - 1


@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=6), min_size=2, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_no_class_of_one_source_is_one_of_another(classes: list[list[int]], data: st.DataObject) -> None:
    dtypes = [data.draw(st.sampled_from(["uint8", "int64", "float32", "uint32"])) for _ in classes]
    sources = [
        OpenSource(name=str(i), source=as_source({"label": np.array(each, dtype)}), provenance="arrays")
        for i, (each, dtype) in enumerate(zip(classes, dtypes, strict=True))
    ]
    _, labels = decide(sources, "union", complete=True)
    ranges = [range((start := labels.offset(str(i)) or 0), start + max(each) + 1) for i, each in enumerate(classes)]
    assert [each.start for each in ranges] == [0, *(each.stop for each in ranges[:-1])]


# Records without a class ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32"])
def test_negative_labels_are_refused_or_kept(dtype: str) -> None:
    unlabelled = np.where(CLASSES == 2, -1, CLASSES).astype(dtype)
    with pytest.raises(
        DataError, match=r"^source 'b': 4 of 20 labels are no class, such as -1; source\.b\.unlabelled=keep"
    ):
        load(a=CLASSES, b=unlabelled)
    with pytest.warns(
        UserWarning, match=r"^source 'b': 4 of 20 records are unlabelled, and left out of loss and accur"
    ):
        pipeline = load("source.b.unlabelled=keep", a=CLASSES, b=unlabelled)
    assert labels_of(pipeline, 1).tolist() == np.where(CLASSES == 2, -1, CLASSES + 5).tolist()
    assert pipeline.spec["label"].dtype == "int32"


def test_labels_that_are_all_unlabelled() -> None:
    with pytest.warns(UserWarning, match="20 of 20 records are unlabelled"):
        pipeline = load("source.a.unlabelled=keep", a=np.full(20, -1), b=CLASSES)
    assert set(labels_of(pipeline, 0).tolist()) == {-1}
    assert labels_of(pipeline, 1).tolist() == CLASSES.tolist()


def test_labels_that_are_nan() -> None:
    missing = CLASSES.astype(np.float64)
    missing[3] = np.nan
    for overrides in ((), ("source.b.operators=[{cast:{dtype:float32,leaf:label}}]",)):
        with pytest.raises(DataError, match=r"^source 'a': 1 of its labels are NaN, .* source\.a\.unlabelled=keep"):
            load(*overrides, a=missing, b=CLASSES)
    with pytest.warns(UserWarning, match="1 of 20 records are unlabelled"):
        pipeline = load("source.a.unlabelled=keep", a=missing, b=CLASSES)
    assert labels_of(pipeline, 0).tolist() == np.nan_to_num(missing, nan=-1).tolist()


def test_mix_says_its_own_keywords() -> None:
    sources = {"a": records(CLASSES - 1), "b": records(CLASSES)}
    with pytest.raises(DataError, match=r"4 of 20 labels are no class, such as -1; unlabelled=\{'a': 'keep'\} keeps"):
        datamix.mix(sources)
    with pytest.warns(UserWarning, match="4 of 20 records are unlabelled"):
        pipeline = datamix.mix(sources, unlabelled={"a": "keep"}, order="concat", batch_size=10, shuffle="none")
    assert labels_of(pipeline, 0).tolist() == (CLASSES - 1).tolist()
    assert labels_of(pipeline, 1).tolist() == (CLASSES + 4).tolist()
    with pytest.raises(ConfigError, match=r"unlabelled\['a'\] = 'drop'\. Known: keep, refuse"):
        datamix.mix(sources, unlabelled={"a": "drop"})
    assert datamix.mix(sources, label={"a": "number"}, order="concat", batch_size=10)[0]["label"].min() == -1


def test_negative_labels_are_no_mistake_of_numbers() -> None:
    assert labels_of(load("source.a.label=number", a=CLASSES - 3), 0).min() == -3


# What is said ---------------------------------------------------------------------------------------------------------


def test_labels_that_begin_at_1_are_said_and_stay() -> None:
    with pytest.warns(UserWarning, match=r"^source 'a': its labels begin at 1; they stay as they are, .* 0 to 5\.$"):
        pipeline = load(a=CLASSES + 1, b=CLASSES)
    assert labels_of(pipeline, 0).tolist() == (CLASSES + 1).tolist()
    assert labels_of(pipeline, 1).min() == 6


def test_shapes_that_differ_by_an_axis_of_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
    sources = {"a": {"image": images, "label": CLASSES[:, None]}, "b": records(CLASSES)}
    with pytest.warns(UserWarning, match="source .a.") as warned:
        pipeline = datamix.load("mix=concat", "shuffle=none", "batch.size=20", sources=sources)
    assert sorted(str(each.message) for each in warned) == [
        "source 'a': images [4, 4] get a channel axis, and are [4, 4, 1].",
        "source 'a': labels [1] lose their axis of length 1, and are [].",
    ]
    assert (pipeline[0]["image"][..., 0] == images).all()
    assert pipeline[0]["label"].tolist() == CLASSES.tolist()
    assert labels_of(pipeline, 1).tolist() == (CLASSES + 5).tolist()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_number_of_classes_may_be_no_number_of_their_dtype(dtype: Any) -> None:
    labels = np.array([0, 300, 4000, 1]).astype(dtype)
    assert labels_of(load("stop=all_exhausted", a=labels, b=CLASSES), 0).tolist() == labels.astype(int).tolist()


def test_labels_that_are_all_nan_beside_a_declared_number() -> None:
    with pytest.warns(UserWarning, match="20 of 20 records are unlabelled"):
        pipeline = load("source.a.unlabelled=keep", "source.a.num_classes=3", a=np.full(20, np.nan))
    assert set(labels_of(pipeline, 0).tolist()) == {-1}


def test_kept_labels_that_give_a_class_another_number_are_told() -> None:
    arrays = {name: records(np.arange(4) % 2) for name in "ab"}
    names = {"a": ["cat", "dog"], "b": ["dog", "cat"]}
    with pytest.warns(UserWarning, match="^under labels=keep class 'dog' is 1 in a, but 0 in b; labels=union gives"):
        datamix.mix(arrays, class_names=names, labels="keep", batch_size=2)
    datamix.mix(arrays, class_names=names, batch_size=2)
    datamix.mix(arrays, class_names={"a": ["cat", "dog"], "b": ["cat", "emu"]}, labels="keep", batch_size=2)


def test_masks_beside_classes() -> None:
    with pytest.raises(SpecError, match=r"label is an array \[2, 2\] in a, but one number in b; set .*label=none and"):
        load(a=np.ones((3, 2, 2), np.int32), b=CLASSES)
    assert "label" not in load("source.a.label=none", "source.b.label=none", a=np.ones((3, 2, 2)), b=CLASSES).spec
