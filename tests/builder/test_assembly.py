"""From opened sources to labels, numbers of sources, seeds, plan, graph and fingerprint."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix import operator
from datamix.errors import ConfigError, DataError, SpecError
from datamix.sources.table import table
from datamix.sources.text.tokenizers import train_tokenizer
from datamix.testing import registered


def few(size: int = 6, classes: int = 3, **leaves: Any) -> dict[str, np.ndarray]:
    return {"image": np.zeros((size, 2, 2, 1), np.uint8), "label": np.arange(size) % classes} | leaves


def test_labels_union_counts_classes_in_source_order() -> None:
    pipeline = datamix.load(
        "stop=exhaust_once",
        "batch.size=15",
        sources={"a": few(4, 2), "b": few(6, 3), "c": few(5, 5)},
    )
    batch = next(iter(pipeline))
    seen = {i: sorted(set(batch["label"][batch["source_id"] == i].tolist())) for i in range(3)}
    assert seen == {0: [0, 1], 1: [2, 3, 4], 2: [5, 6, 7, 8, 9]}


def test_labels_keep() -> None:
    pipeline = datamix.load("labels=keep", "batch.size=12", "stop=exhaust_once", sources={"a": few(), "b": few()})
    assert set(next(iter(pipeline))["label"].tolist()) == {0, 1, 2}


def test_class_names_count_classes_that_no_record_has() -> None:
    pipeline = datamix.load(
        "source.a.class_names=[x,y,z,unused]", "batch.size=12", "stop=exhaust_once", sources={"a": few(), "b": few()}
    )
    assert max(next(iter(pipeline))["label"].tolist()) == 6


def test_own_tag_and_offset_are_left_alone() -> None:
    operators = "source.b.operators=[{offset_label:{offset:100}},{tag_source:{source_id:9}}]"
    batch = datamix.load("batch.size=12", "stop=exhaust_once", operators, sources={"a": few(), "b": few()})[0]
    assert set(batch["source_id"].tolist()) == {0, 9}
    assert set(batch["label"][batch["source_id"] == 9].tolist()) == {100, 101, 102}


def test_a_leaf_without_numbers_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^source 'a': its leaf 'image' is .*, which holds no numbers; leave it"):
        datamix.mix({"a": {"image": np.zeros((6, 0, 4, 1), np.uint8)}}, batch_size=2)


def test_records_without_labels() -> None:
    batch = datamix.load("batch.size=3", sources={"a": {"tokens": np.arange(12).reshape(4, 3)}})[0]
    assert {leaf: value.shape for leaf, value in batch.items()} == {"tokens": (3, 3), "source_id": (3,)}


def test_narrow_labels_do_not_wrap_round() -> None:
    narrow = few(200, 200) | {"label": np.arange(200, dtype=np.uint8)}
    batch = datamix.load("batch.size=400", "stop=exhaust_once", sources={"a": narrow, "b": narrow})[0]
    assert batch["label"].max() == 399


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a/normalize: normalize\.std = 0; it is above 0\."):
        datamix.load("source.a.operators=[{normalize:{mean:0,std:0}}]", "batch.size=4", sources={"a": few()})


def test_labels_union_before_one_hot() -> None:
    one_hot = "[{one_hot:{num_classes:6}}]"
    pipeline = datamix.load(
        f"source.a.operators={one_hot}", f"source.b.operators={one_hot}", "batch.size=12", "stop=exhaust_once",
        sources={"a": few(), "b": few()},
    )  # fmt: skip
    batch = pipeline[0]
    assert (batch["label"].sum(axis=1) == 1).all()
    assert set(batch["label"].argmax(axis=1)[batch["source_id"] == 1].tolist()) == {3, 4, 5}


def test_the_order_of_sources_and_their_classes_is_part_of_the_fingerprint() -> None:
    one, other = (datamix.load(f"source={s}", "batch.size=4", sources={"a": few(), "b": few()}) for s in ("a+b", "b+a"))
    with pytest.raises(datamix.StateError, match=r'source was \["a", "b"\] and is \["b", "a"\]'):
        other.iterator().restore(one.iterator(1).state())
    named = datamix.load("source.a.class_names=[x,y,z,w]", "batch.size=4", sources={"a": few(), "b": few()})
    assert named.fingerprint != one.fingerprint


def test_seeds_of_sources() -> None:
    def order(*overrides: str) -> dict[int, list[int]]:
        batch = datamix.load(
            *overrides, "batch.size=40", "stop=exhaust_once", sources={"a": few(20, 20), "b": few(20, 20)}
        )[0]
        return {i: batch["label"][batch["source_id"] == i].tolist() for i in range(2)}

    plain, other = order(), order("source.a.seed=5")
    assert plain[0] != other[0]
    assert plain[1] == other[1]


@pytest.mark.parametrize(
    ("overrides", "sources", "error", "message"),
    [
        (
            ["source.a.class_names=[x,y]", "batch.size=4"],
            {"a": few()},
            DataError,
            r"label 2 has no name among the 2 class_names",
        ),
        ([], {"a": few(source_id=np.zeros(6))}, SpecError, r"^source 'a': it has a leaf 'source_id' of its own"),
        (
            ["batch.size=4"],
            {"a": few(odd=np.zeros(6, [("x", "i4")]))},
            DataError,
            r"leaf 'odd' is \[\('x', '<i4'\)\]; a pipeline",
        ),
        (
            ["batch.size=4", "operators=[{to_float:{largest:0}}]"],
            {"a": few()},
            ConfigError,
            r"largest = 0; it is above 0",
        ),
        (
            ["batch.size=4", "operators=[{normalize:{mean:[[1],[2,3]],std:1}}]"],
            {"a": few()},
            ConfigError,
            r"^operators\[0\]\.normalize\.mean\[0\] = \[1\]; it is a number\.$",
        ),
        ([], {"a": few(0)}, DataError, r"^source\.a: source 'a' is empty\. Leave it out, or"),
        ([], {"a": few(extra=np.zeros(5))}, DataError, r"need the same length along their first axis; found image \[6"),
        ([], {"a": {}}, DataError, r"need the same length along their first axis; found none"),
        (["mix.weights.a=-1"], {"a": few()}, ConfigError, r"mix\.weights\.a = -1; a weight is 0 or more"),
        (["mix.share.a=0.5"], {"a": few()}, ConfigError, r"no other source has a weight to take the rest"),
        (
            ["mix.granularity=batch", "batch.size=7"],
            {"a": few()},
            ConfigError,
            r"= 7; .* 6 records, which fill no batch",
        ),
        (
            ["mix=round_robin", "mix.ratio=2:1"],
            {"a": few(), "b": few()},
            ConfigError,
            r"mix = .round_robin.; .* no ratio",
        ),
    ],
)
def test_mistakes(overrides: list[str], sources: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        datamix.load(*overrides, sources=sources)


class Mixes:
    """Loads mixes of sources of the user's, and tells the error and what it advises."""

    def __init__(self, folder: Path, **datasets: str) -> None:
        self.folder, self.names = folder, [*datasets]
        for name, settings in datasets.items():
            (folder / "conf" / "dataset").mkdir(parents=True, exist_ok=True)
            (folder / "conf" / "dataset" / f"{name}.yaml").write_text(settings)

    def load(self, *overrides: str) -> datamix.Pipeline:
        data = (f"data.cache={self.folder}/cache", f"source={'+'.join(self.names)}", "batch.size=2")
        return datamix.load(*data, *overrides, config_dir=self.folder / "conf")

    def advised(self, *overrides: str) -> tuple[str, list[str]]:
        """The error of a mix, and the overrides in it that set something of a source."""
        with pytest.raises((ConfigError, SpecError)) as raised:
            self.load(*overrides)
        return str(raised.value), re.findall(r"source\.[\w.]+=[^\s\[\]]*(?:\[[^\]]*\])?(?<!\.)", str(raised.value))


@pytest.fixture
def texts(tmp_path: Path) -> Mixes:
    """Two sources of text, a and b, with a token file beside them, c."""
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("to be or not to be\n\n" * 9)
    np.save(tmp_path / "c.npy", np.array([1, 2, 0] * 9, np.uint16))
    text = "_target_: text\npath: {path}\nlength: 8\n"
    return Mixes(tmp_path, **{name: text.format(path=tmp_path / f"{name}.txt") for name in "ab"})


@pytest.mark.parametrize(("given", "lacking"), ["ab", "ba"])
def test_the_tokenizer_that_is_given_for_one_source_is_advised_for_the_other(
    texts: Mixes, given: str, lacking: str
) -> None:
    pytest.importorskip("tokenizers")
    path = train_tokenizer(["to be or not to be"], vocab_size=260, path=texts.folder / "own.json")
    error, advice = texts.advised(chosen := f"source.{given}.tokenizer={path}")
    assert error == (
        f"source.{lacking}.tokenizer: it is another tokenizer than that of {given}, and a mix has one. "
        f"Set source.{lacking}.tokenizer={path}."
    )
    assert texts.load(chosen, *advice).spec["tokens"].shape == (8,)


def test_of_two_tokenizers_one_is_for_both(texts: Mixes) -> None:
    pytest.importorskip("tokenizers")
    paths = [
        train_tokenizer(["to be or not"], vocab_size=size, path=texts.folder / f"{size}.json") for size in (258, 260)
    ]
    chosen = [f"source.{name}.tokenizer={path}" for name, path in zip("ab", paths, strict=True)]
    advice = texts.advised(*chosen)[1]
    assert advice == [f"source.b.tokenizer={paths[0]}"]
    texts.load(*chosen, *advice)


def test_what_made_the_tokens_of_a_file_cannot_be_chosen(texts: Mixes) -> None:
    pytest.importorskip("tokenizers")
    path = train_tokenizer(["to be or not to be"], vocab_size=260, path=texts.folder / "own.json")
    tokens = f"_target_: tokens\npath: {texts.folder}/c.npy\nlength: 8\nend_of_document: 0\ntokenizer: {{}}\n"
    mixes = Mixes(texts.folder, c=tokens.format("bytes"))
    mixes.names = ["a", "c"]
    advice = mixes.advised(chosen := f"source.a.tokenizer={path}")[1]
    assert advice == ["source.a.tokenizer=bytes"]
    mixes.load(chosen, *advice)
    mixes = Mixes(texts.folder, c=tokens.format("bytes"), d=tokens.format(path))
    error, advice = mixes.advised()
    assert (error.partition(". ")[2], advice) == ("Mix token files that one tokenizer made.", [])


def test_one_length_is_advised_for_texts_of_two(texts: Mixes) -> None:
    error, advice = texts.advised("source.b.length=4")
    assert error == (
        "sources 'a' and 'b' do not fit together: positions is int32 [8] in a, but int32 [4] in b; "
        "to mend it, set source.b.length=8."
    )
    assert texts.load("source.b.length=4", *advice).spec["tokens"].shape == (8,)


@pytest.mark.parametrize(
    ("features", "advice"),
    [
        (["source.a.features=[rooms]"], ["source.b.features=[rooms]"]),
        (["source.b.features=[rooms]"], ["source.a.features=[rooms]"]),
        (["source.b.features=[age]"], ["source.a.features=[rooms]"]),
        ([], ["source.b.features=[rooms, metres]"]),
        (["source.a.features=[metres,rooms]"], ["source.b.features=[metres, rooms]"]),
        (["source.a.features=[metres]", "source.b.features=[age,rooms]"], ["source.b.features=[age]"]),
    ],
)
def test_the_features_that_tables_share_are_advised(tmp_path: Path, features: list[str], advice: list[str]) -> None:
    (tmp_path / "a.csv").write_text("rooms,metres,price\n1,100.5,1.25\n2,101.5,2.25\n")
    (tmp_path / "b.csv").write_text("age,rooms,metres,price\n9,1,100.5,1.25\n8,2,101.5,2.25\n")
    table = f"_target_: table\npath: {tmp_path}/{{}}.csv\ntarget: price\n"
    mixes = Mixes(tmp_path, a=table.format("a"), b=table.format("b"))
    assert mixes.advised(*features)[1] == advice
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "source 'b': of its features, ")
        mixes.load(*features, *advice)


SCANS = {"images": np.zeros((6, 28, 28, 1), np.uint8), "labels": np.arange(6) % 3}


@pytest.mark.parametrize(
    ("arrays", "leaves"),
    [
        (SCANS, "{image: images, label: labels}"),
        ({"X": SCANS["images"], "y": SCANS["labels"], "id": np.arange(6)}, "{image: X, label: y}"),
        ({"scan": SCANS["images"], "label": SCANS["labels"]}, "{image: scan, label: label}"),
        ({"a": SCANS["images"], "b": SCANS["images"], "label": SCANS["labels"]}, None),
        ({"a": SCANS["images"], "b": SCANS["labels"], "c": SCANS["labels"]}, None),
        (
            {"x_train": SCANS["images"], "z_train": SCANS["labels"], "x_test": SCANS["images"], "z_test": np.ones(6)},
            None,
        ),
    ],
)
@pytest.mark.parametrize("operators", ["[]", "[to_float]"])
@pytest.mark.parametrize("names", [["digits", "scan"], ["scan", "digits"]])
def test_leaves_of_other_names_are_named(
    tmp_path: Path, arrays: Any, leaves: str | None, operators: str, names: list[str]
) -> None:
    np.savez(tmp_path / "scan.npz", **arrays)
    settings = f"_target_: arrays\npath: {tmp_path}/scan.npz\noperators: {operators}\n"
    mixes = Mixes(tmp_path, scan=settings)
    mixes.names = names
    with pytest.raises(SpecError) as raised:
        mixes.load()
    advised = re.findall('"(source[^"]*)"', str(raised.value))
    assert [each for each in advised if ".leaves" in each] == ([f"source.scan.leaves={leaves}"] if leaves else [])
    if leaves:
        shapes = mixes.load(*advised, "source.scan.operators=[to_float]").spec
        assert (shapes["image"].shape, shapes["label"].shape) == ((28, 28, 1), ())


@pytest.mark.parametrize(
    ("operator", "arrays", "leaves"),
    [
        ("{one_hot: {num_classes: 3}}", {"x": np.ones((6, 4)), "y": SCANS["labels"]}, "{label: y, x: x}"),
        (
            "to_float",
            {"pixels": SCANS["images"], "mask": np.ones((6, 5, 5, 3, 2), np.uint8), "label": SCANS["labels"]},
            "{image: pixels, label: label, mask: mask}",
        ),
    ],
)
def test_leaves_that_no_operator_takes_are_kept(tmp_path: Path, operator: str, arrays: Any, leaves: str) -> None:
    np.savez(tmp_path / "scan.npz", **arrays)
    mixes = Mixes(tmp_path, scan=f"_target_: arrays\npath: {tmp_path}/scan.npz\noperators: [{operator}]\n")
    mixes.names = ["scan"]
    with pytest.raises(SpecError) as raised:
        mixes.load()
    advised = re.findall('"(source[^"]*)"', str(raised.value))
    assert advised == [f"source.scan.leaves={leaves}"]
    assert len(mixes.load(*advised).spec) == len(arrays) + 1


def test_leaves_that_operators_name_are_not_renamed(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", **SCANS)
    settings = f"_target_: arrays\npath: {tmp_path}/scan.npz\noperators: [{{to_float: {{leaf: images}}}}]\n"
    mixes = Mixes(tmp_path, scan=settings)
    mixes.names = ["digits", "scan"]
    with pytest.raises(SpecError, match="write an operator that gives both the same leaves"):
        mixes.load()


def test_an_operator_takes_the_leaf_that_it_has_by_default(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", scan=SCANS["images"], label=SCANS["labels"])
    settings = f"_target_: arrays\npath: {tmp_path}/scan.npz\noperators: [{{one_hot: {{num_classes: 3}}}}]\n"
    mixes = Mixes(tmp_path, scan=settings)
    mixes.names = ["scan"]
    assert mixes.load().spec["label"].shape == (3,)


@pytest.mark.parametrize("label", ["kind", None])
def test_an_operator_on_a_column_of_another_name(tmp_path: Path, label: str | None) -> None:
    pandas = pytest.importorskip("pandas")
    rows = {"img": [[[[0], [255]], [[51], [0]]]] * 6} | ({} if label is None else {label: [0, 1, 2] * 2})
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    operators = "[{to_float: {largest: 255}}]"
    mixes = Mixes(tmp_path, a=f"_target_: parquet\npath: {tmp_path}/a.parquet\noperators: {operators}\n")
    message = r"^source\.a\.operators\[0\]: to_float takes a leaf 'image', and a has img"
    with pytest.raises(SpecError, match=message) as raised:
        mixes.load()
    advised = re.findall('"(source[^"]*)"', str(raised.value))
    assert mixes.load(*advised)[0]["image"].shape == (2, 2, 2, 1)
    assert ("label" in mixes.load(*advised).spec) == (label is not None)


@pytest.fixture
def tables(tmp_path: Path) -> Any:
    """Loads a mix of tables, of which it is told the header and the first row of each."""

    def loaded(*overrides: str, **contents: tuple[str, str]) -> datamix.Pipeline:
        (tmp_path / "dataset").mkdir(exist_ok=True)
        for name, lines in contents.items():
            (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
            settings = f"_target_: table\npath: {tmp_path / name}.csv\n" + "target: price\n" * ("price" in lines[0])
            (tmp_path / "dataset" / f"{name}.yaml").write_text(settings)
        named = f"source={'+'.join(contents)}"
        return datamix.load(named, "batch.size=2", "mix=concat", *overrides, config_dir=str(tmp_path))

    return loaded


@pytest.mark.filterwarnings("error")
def test_tables_whose_columns_stand_in_another_order_are_refused(tables: Any, tmp_path: Path) -> None:
    contents = {"a": ("no. of rooms,metres,price", "1,100.5,1.25"), "b": ("metres,no. of rooms,price", "100.5,1,1.25")}
    with pytest.raises(SpecError, match=r"features are no\. of rooms, metres in a, but metres, no\. of") as raised:
        tables(**contents)
    mends = re.findall(r'"(source\.b\.features=\[[^"]*\])"', str(raised.value))
    assert tables(*mends, **contents)[0]["features"].tolist() == [[1, 100.5], [1, 100.5]]
    with pytest.raises(SpecError, match=r"; open it with features=\['no\. of rooms', 'metres'\]\.$"):
        datamix.mix({name: table(path=str(tmp_path / f"{name}.csv"), target="price") for name in "ab"})
    # An operator of the user's own may put them right.
    with registered():

        @operator
        def swapped(record: Any) -> Any:
            return record | {"features": record["features"][::-1]}

        batch = tables("source.b.operators=[swapped]", **contents)[0]
    assert batch["features"].tolist() == [[1, 100.5], [1, 100.5]]


def test_tables_with_other_columns_say_which_stand_in_one_place(tables: Any) -> None:
    a, b = ("rooms,metres,price", "1,2,3"), ("rooms,age,price", "1,4,3")
    with pytest.warns(UserWarning, match=r"^source 'b': of its features, age stands where a has metres\.$"):
        tables(a=a, b=b)
    with pytest.warns(UserWarning, match=r"^source 'b': of its features, metres stands where a has rooms; age where"):
        tables(a=a, b=("metres,age,price", "1,4,3"))
