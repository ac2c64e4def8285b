from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datamix
from datamix.errors import ConfigError, DataError
from datamix.sources.base import LabelledSource, Source
from datamix.sources.table import TableRows, table
from datamix.spec import LeafSpec
from datamix.testing import check_source


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a CSV file, and opens it as a table."""
    monkeypatch.chdir(tmp_path)

    def opened(text: str | bytes, file: str = "x.csv", **settings: Any) -> TableRows:
        Path(file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return table(path=file, **settings)

    return opened


def test_columns_are_stacked(csv: Any) -> None:
    source = csv("age,kind,ok,size\n1,cat,true,0.5\n2,dog,false,1.5\n3,cat,true,2.5\n", target="kind")
    assert isinstance(source, Source)
    assert isinstance(source, LabelledSource)
    assert source.spec == {"features": LeafSpec((3,), "float32"), "label": LeafSpec((), "int32")}
    assert source.read()["features"].tolist() == [[1, 1, 0.5], [2, 0, 1.5], [3, 1, 2.5]]
    assert source.read()["label"].tolist() == [0, 1, 0]
    assert (source.class_names, source.feature_names, source.notes) == (("cat", "dog"), ("age", "ok", "size"), ())
    assert source.provenance == "table"
    check_source(source)


def test_features_are_chosen_in_their_order(csv: Any) -> None:
    text = "a,b,c\n1,2,x\n3,4,y\n"
    source = csv(text, features=["b", "a"], target="a")
    assert (source.feature_names, source.read()["features"].tolist()) == (("b", "a"), [[2, 1], [4, 3]])
    assert source.read()["label"].tolist() == [1, 3]
    source = csv(text)
    assert (list(source.spec), source.feature_names) == (["features"], ("a", "b"))
    assert source.notes == ("columns are left out: c, which is text, such as 'x' in 2 of 2 rows.",)


def test_splits_have_their_features_in_one_order(tmp_path: Path) -> None:
    """A model is tested on what it was trained on."""
    (tmp_path / "a.csv").write_text("rooms,metres\n1,100.5\n")
    (tmp_path / "b.csv").write_text("age,metres,rooms\n7,101.5,2\n")
    path = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv")}
    assert table(path=path).feature_names == ("rooms", "metres")
    tests = table(path=path, split="test")
    assert (tests.feature_names, tests.read()["features"].tolist()) == (("rooms", "metres", "age"), [[2, 101.5, 7]])


def test_numbers_that_are_missing_are_nan_and_told(csv: Any) -> None:
    source = csv("a,b,c,t\n1,,,0\n,2.5,,1\nNA,nan,,2\n", target="t")
    np.testing.assert_array_equal(source.read()["features"], [[1, np.nan], [np.nan, 2.5], [np.nan, np.nan]])
    assert source.notes == (
        "columns are left out: c, which holds no value.",
        "numbers that are missing are NaN in features: 2 of 3 in a, 2 of 3 in b; "
        "without_features=drop leaves their rows out.",
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a,b\n1,2\n\n\n,3\n", "line 5"),
        ('a,b\n1,"x\ny"\n2,z\n,z\n', "line 5"),
        ("a;b\n" + "1;2\n" * 49 + ";3\n", "line 51"),
    ],
)
def test_the_line_of_a_row_without_a_target(csv: Any, tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=rf"\.csv, {place}, has no value in the target 'a'"):
        csv(text, target="a", features=["b"] if "x" not in text else None)
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ConfigError, match=rf"\.csv\.gz, {place}, has no value in the target 'a'"):
        table(path=str(tmp_path / "z.csv.gz"), target="a")
    pq.write_table(pa.table({"a": [1.0, None], "b": [2.0, 3.0]}), tmp_path / "z.parquet")
    with pytest.raises(ConfigError, match=r"\.parquet, row 1, has no value"):
        table(path=str(tmp_path / "z.parquet"), target="a")


@pytest.mark.parametrize(("text", "labels"), [("a,b\n1,2\n,3\n,4\n7,5\n", [1, 7]), ("a,b\nx,2\n,3\n,4\ny,5\n", [0, 1])])
def test_rows_without_a_target_are_named_and_can_be_left_out(csv: Any, text: str, labels: list[int]) -> None:
    message = (
        r"^without_target = 'refuse'; .*\.csv, line 3, has no value in the target 'a'; 2 of 4 rows have none\. "
        r"drop leaves such rows out\.$"
    )
    with pytest.raises(ConfigError, match=message):
        csv(text, target="a")
    source = csv(text, target="a", without_target="drop")
    assert source.read()["label"].tolist() == source.whole_labels().tolist() == labels
    assert source.read()["features"].tolist() == [[2], [5]]
    assert source.notes == ("2 rows are left out, which have no value in the target 'a'.",)
    assert csv(text, target="a", without_target="drop", split="train[1:]").read()["features"].tolist() == [[5]]
    of = "source.my_table"
    overrides = ["source=my_table", f"{of}.path=x.csv", f"{of}.target=a", f"{of}.label=none", "batch.size=2"]
    with pytest.raises(ConfigError, match=r"^source 'my_table': without_target = 'refuse'; "):
        datamix.load(*overrides)
    with pytest.warns(UserWarning, match="2 rows are left out"):
        assert datamix.load(*overrides, "source.my_table.without_target=drop").plan.length == 2
    with pytest.raises(DataError, match=r"has no row with a value in the target 'a'\.$"):
        csv("a,b\n,2\n,3\n", target="a", without_target="drop")


def test_rows_in_which_a_feature_is_missing_can_be_left_out(csv: Any) -> None:
    text = "a,b,c,word,t\n1,,,x,0\n2,5,,,1\nNA,6,,y,2\n3,7,,z,\n4,8,,,5\n"
    source = csv(text, target="t", without_target="drop", without_features="drop")
    assert source.read()["features"].tolist() == [[2, 5], [4, 8]]  # what is left out as a column is no feature
    assert source.read()["label"].tolist() == source.whole_labels().tolist() == [1, 5]
    assert source.notes[:2] == (
        "1 row is left out, which has no value in the target 't'.",
        "2 rows are left out, in which a feature is missing.",
    )
    assert not any("NaN" in note for note in source.notes)
    chosen = csv(text, features=["b"], without_features="drop", split="train[1:]")
    assert chosen.read()["features"].tolist() == [[6], [7], [8]]
    Path("y.csv").write_text("a,b\n,9\n")
    parts = table(path=["x.csv", "y.csv"], features=["a", "b"], without_features="drop")
    assert parts.num_records == 3  # a column may hold no value in one of the files
    assert table(path=["x.csv", "y.csv"], features=["b"], target="a", without_target="drop").num_records == 4
    with pytest.raises(DataError, match=r"\.csv has no row with a value in every feature\.$"):
        csv("a,b,t\n1,,0\n2,3,\n", target="t", without_target="drop", without_features="drop")
    with pytest.raises(DataError, match=r"\.csv has no row with a value in every feature\.$"):
        csv("a,b\n1,\n,2\n", without_features="drop")


def test_nan_in_a_parquet_file_is_missing(tmp_path: Any) -> None:
    columns = {"a": pa.array([1.0, np.nan, None, 4.0]), "b": pa.array([1, 2, 3, 4])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = table(path=str(tmp_path / "a.parquet"), without_features="drop")
    assert source.read()["features"].tolist() == [[1, 1], [4, 4]]


@pytest.mark.parametrize("placement", ["device", "host"])
def test_a_target_beyond_the_steps_of_float32_is_named_with_what_mends_it(csv: Any, placement: str) -> None:
    values = [0.55, 0.65, 1.15, 3.35]
    of = "source.my_table"
    overrides = ["source=my_table", f"{of}.path=x.csv", f"{of}.target=y", "batch.size=4", "shuffle=none"]
    overrides.append(f"data.placement={placement}")
    csv("a,y\n" + "".join(f"1,{250000 + value}\n" for value in values), target="y")
    with pytest.raises(
        DataError,
        match=r"^source 'my_table': the target 'y' lies between 250000\.5\d* and 250003\.3\d*, where float32 has steps "
        r"of 0\.0156 alone; subtract what its values have in common\.$",
    ):
        datamix.load(*overrides)[0]
    csv("a,y\n" + "".join(f"1,{value}\n" for value in values), target="y")
    np.testing.assert_allclose(datamix.load(*overrides)[0]["label"], values, rtol=1e-6)


def test_a_mark_in_a_column_of_numbers_is_told(csv: Any) -> None:
    text = "power,t\n130,0\n?,1\n140,0\n"
    assert csv("n," + "\n1,".join(text.splitlines())).notes == (
        "columns are left out: power, which is text, such as '?' in 1 of 3 rows.",
    )
    with pytest.raises(ConfigError, match=r"^features = 'power'; the column is text, such as '\?' in 1 of 3 rows\.$"):
        csv(text, features=["power"])
    with pytest.raises(
        DataError, match=r"^the target 'power' is numbers in 2 rows, but is text, such as '\?' in 1 of 3 "
    ):
        csv(text, target="power")
    with pytest.raises(DataError, match=r"^the target 'when' is to be numbers, or text, and is date32\[day\]\.$"):
        csv("when,x\n2020-01-01,1\n", target="when")


def test_a_target_that_is_text_in_one_file_and_numbers_in_another(tmp_path: Path) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, text in zip(paths, ["x,y\n1,1\n2,2\n", "x,y\n3,u\n4,v\n"], strict=True):
        path.write_text(text)
    message = (
        "^the target 'y' is text, such as 'u' in 2 of 2 rows of one file, and numbers in another; make them numbers"
    )
    with pytest.raises(DataError, match=message):
        table(path=[*map(str, paths)], target="y")


def test_marks_in_the_names_of_columns_part_nothing(csv: Any) -> None:
    source = csv('"a, b, c";d;y\n1;2;3\n4;5;6\n', target="y")
    assert source.feature_names == ("a, b, c", "d")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_marks_between_columns(csv: Any, mark: str) -> None:
    text = '"the a",b,t\n1,2.5,0\n3,4.5,1\n'.replace(",", mark)
    for data, file in (
        (text.encode(), "x.csv"),
        (gzip.compress(text.encode()), "x.csv.gz"),
        (gzip.compress(text.encode()), "X.CSV.GZ"),
        ("\ufeff" + text, "x.tsv"),
    ):
        source = csv(data, file, target="t")
        assert source.feature_names == ("the a", "b"), file
        assert source.read()["features"].tolist() == [[1, 2.5], [3, 4.5]]


def test_a_type_that_shows_late(csv: Any) -> None:
    lines = ["1"] * 700_000  # more than a block of Arrow's reader
    source = csv("\n".join(["x", *lines, "0.5", ""]))
    assert source.read()["features"][-1].tolist() == [0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^x\.csv cannot be read: Empty CSV file$"),
        ("a,b\n", r"^x\.csv holds no rows\.$"),
        ("a,b\n1,2\n3\n", r"^x\.csv, line 3, has 1 value for 2 columns; .* in quotes where it holds a ','"),
        ("a,a\n1,2\n", r"^x\.csv has several columns 'a'; rename them\.$"),
        (
            "5.1,3.5,0\n4.9,3,0\n",
            r"^x\.csv: its first line is to name the columns, and holds numbers: 5\.1, 3\.5, 0\.$",
        ),
        (
            "a,b\nx,y\n",
            r"^x\.csv has no column of numbers for features: a, which is text, such as 'x' in 1 of 1 rows; b",
        ),
        (
            "id\n1750000001\n1750000003\n",
            r"^column 'id' holds 1750000001, which becomes 1750000000 in float32; leave it out, by",
        ),
        (
            "time\n1750000000.5\n1750000060.5\n",
            r"^column 'time' lies between 1750000000\.5 and 1750000060\.5, where float32 has steps of 128 alone; lea",
        ),
        ("x\n1e300\n0.5\n", r"^column 'x' holds 1e\+300, which is beyond float32; leave it out"),
    ],
)
def test_mistakes_in_a_file(csv: Any, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csv(text)


def test_decimals_are_rounded_to_float32_as_always(csv: Any) -> None:
    assert csv("x\n0.1\n33554433.5\n").read()["features"][0, 0] == np.float32(0.1)
    assert csv("x\n0.1\n0.1\n").read()["features"].tolist() == [[np.float32(0.1)]] * 2
    assert csv("x\n0.1\n0.30000000000000004\n0.3\n").num_records == 3


@pytest.mark.parametrize("prices", ["1,5;2,5;3", "1.000,5;2;3", "1,000;2,000", "$5;-$ 6;7 €", "5%;6 %", "1 000;5;?"])
def test_numbers_as_people_write_them_are_no_names_of_classes(csv: Any, prices: str) -> None:
    text = "x;y\n" + "".join(f"1;{price}\n" for price in prices.split(";"))
    with pytest.raises(DataError, match=r"^the target 'y' is text, such as .* rows \(a number .*\); correct"):
        csv(text, target="y")


def test_a_decimal_comma_is_told(csv: Any) -> None:
    text = "a;b;y\n1;0,5;0,5\n2;1,5;1,5\n"
    told = "is text, such as '0,5' in 2 of 2 rows (a number has a decimal point, and no other marks)"
    with pytest.raises(DataError, match=rf"^the target 'y' {re.escape(told)}; correct them\.$"):
        csv(text, target="y")
    assert csv(text, features=["a"]).notes == ()
    assert csv(text).notes == (f"columns are left out: b, which {told}; y, which {told}.",)
    mended = csv(text.replace(",", "."), target="y")
    assert (mended.notes, mended.read()["label"].tolist()) == ((), [0.5, 1.5])


def test_classes_that_hold_digits_are_classes(csv: Any) -> None:
    assert csv("x;y\n1;3-4\n2;12:30\n3;1st\n4;v1.0\n", target="y").class_names == ("12:30", "1st", "3-4", "v1.0")


def test_text_of_another_encoding(csv: Any) -> None:
    with pytest.raises(DataError, match=r"^the target 'y' is to be .* and is bytes, and no text in UTF-8"):
        csv("x,y\n1,é\n2,b\n".encode("latin-1"), target="y")


@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs iconv, which the errors advise")
@pytest.mark.parametrize("encoding", ["latin1", "utf-16"])
def test_names_of_columns_in_another_encoding(csv: Any, encoding: str) -> None:
    with pytest.raises(
        DataError, match=r"^x\.csv, line 1 is no UTF-8 \(byte 0x..\); convert it, as by (.*)\.$"
    ) as caught:
        csv("größe,y\n1,é\n2,b\n".encode(encoding), target="y")
    advice = [*str(caught.value).rpartition("as by ")[2].removesuffix(".").split(), "x.csv"]
    converted = subprocess.run(advice, capture_output=True, check=True).stdout
    assert csv(converted, target="y").class_names == ("b", "é")


def test_truncated_files(csv: Any, shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^x\.csv\.gz cannot be read: "):
        csv(gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-20], "x.csv.gz")
    whole = (shared_data / "tables" / "wine.parquet").read_bytes()
    (tmp_path / "wine.parquet").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"wine\.parquet cannot be read: "):
        table(path="wine.parquet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "tt"}, r"^target = 'tt'; x\.csv has no such column\. Known: a, b\.$"),
        ({"features": ["aa"]}, r"^features = 'aa'; x\.csv has no such column\. Did you mean 'a'\? Known: a, b\.$"),
        ({"features": ["a", "a"]}, r"^features = \['a', 'a'\]; a column is named twice"),
        ({"split": "test"}, r"^split = 'test'[;:] there is no split 'test'"),
    ],
)
def test_settings_that_do_not_fit(csv: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        csv("a,b\n1,2\n", **settings)


def test_splits(csv: Any) -> None:
    csv("a,t\n1,x\n2,y\n3,x\n4,z\n", "train.csv")
    csv("id,a\n7,5\n8,6\n", "test.csv")
    path = {"train": "train.csv", "test": "test.csv"}
    train, part = (table(path=path, target="t", split=split) for split in ("train", "train[1:3]"))
    assert train.read()["features"].tolist() == [[1], [2], [3], [4]]
    assert (part.read()["features"].tolist(), part.read()["label"].tolist()) == ([[2], [3]], [1, 0])
    assert part.whole_labels().tolist() == [0, 1, 0, 2]  # classes are numbered alike in every split
    assert part.class_names == ("x", "y", "z")
    test = table(path=path, split="test", features=["a"])
    assert test.read()["features"].tolist() == [[5], [6]]
    with pytest.raises(ConfigError, match=r"^target = 't'; test\.csv has no such column\. Known: a, id\.$"):
        table(path=path, split="test", target="t")
    together = table(path=["train.csv", "test.csv"], features=["a"])
    assert together.read()["features"].ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert together.notes[0].startswith(
        "its files are read as one split, train, though their names speak of train and "
    )
    with pytest.raises(DataError, match=r"^test\.csv has no column 't'\. Known: a, id\.$"):
        table(path=["train.csv", "test.csv"])


def test_parquet(tmp_path: Path) -> None:
    kinds = {
        "a": pa.array([1, None, 3], pa.int8()),
        "b": pa.array(["x", "y", "x"]).dictionary_encode(),
        "c": [[1], [2], [3]],
    }
    pq.write_table(pa.table(kinds), tmp_path / "x.parquet", row_group_size=2)
    source = table(path=str(tmp_path / "x.parquet"), target="b")
    np.testing.assert_array_equal(source.read()["features"], [[1], [np.nan], [3]])
    assert (source.class_names, source.read()["label"].tolist()) == (("x", "y"), [0, 1, 0])
    assert source.notes[0].startswith("columns are left out: c, which is list")
    prices = pa.array([1, 2], pa.decimal128(9, 2))
    pq.write_table(pa.table({"price": prices, "cost": prices}), tmp_path / "x.parquet")
    source = table(path=str(tmp_path / "x.parquet"), target="price")
    assert (source.read()["features"].tolist(), source.read()["label"].tolist()) == ([[1], [2]], [1.0, 2.0])


def test_real_tables(shared_data: Path) -> None:
    wine = table(path=str(shared_data / "tables" / "wine.parquet"), target="label")
    assert (wine.num_records, wine.spec["features"], wine.spec["label"]) == (
        178,
        LeafSpec((13,), "float32"),
        LeafSpec((), "int32"),
    )
    diabetes = table(path=str(shared_data / "tables" / "diabetes.csv"), target="progression", split="train[:80%]")
    assert (diabetes.num_records, diabetes.feature_names[:3]) == (354, ("age", "sex", "bmi"))
    assert (
        diabetes.read()["features"][0].tolist() == np.float32([59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]).tolist()
    )
    assert diabetes.read()["label"][0] == 151
    check_source(wine)
    check_source(diabetes)


def test_a_table_in_a_mix_with_arrays(shared_data: Path) -> None:
    arrays = {"features": np.zeros((100, 13), np.float32), "label": np.arange(100, dtype=np.int32) % 3}
    path = f"source.my_table.path={shared_data / 'tables' / 'wine.parquet'}"
    sources = {"noise": arrays}
    overrides = ["source=my_table+noise", path, "source.my_table.target=label", "labels=keep", "batch.size=20"]
    batch = datamix.load(*overrides, sources=sources)[3]
    assert (batch["features"].shape, batch["source_id"].tolist().count(1)) == ((20, 13), 10)
    assert (batch["features"][batch["source_id"] == 1] == 0).all()
    assert (batch["features"][batch["source_id"] == 0].max(1) > 100).all()


def test_the_command_line_tells_what_is_missing(call_datamix: Any, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b,name,t\n" + "1,,x,0\n2,3,y,1\n" * 20)
    ended = call_datamix("source=my_table", "source.my_table.path=x.csv", "source.my_table.target=t")
    assert ended.report["notes"][:2] == [
        "source 'my_table': columns are left out: name, which is text, such as 'x' in 40 of 40 rows.",
        "source 'my_table': numbers that are missing are NaN in features: 20 of 40 in b; "
        "without_features=drop leaves their rows out.",
    ]
    mistake = call_datamix("source=my_table", "source.my_table.path=x.csv", "source.my_table.target=nam").mistake
    assert mistake.startswith(
        "ConfigError: source 'my_table': target = 'nam'; x.csv has no such column. Did you mean 'na"
    )
    mistake = call_datamix("source=my_table", "source.my_table.path=y.csv").mistake
    assert mistake.startswith(
        "DataError: source 'my_table': path = 'y.csv'; there is no such file or folder (looked for"
    )


def test_a_row_with_too_few_or_too_many_values_is_named(csv: Any) -> None:
    with pytest.raises(DataError, match=r"^x\.csv, line 5, has 1 value for 2 columns; each column has one"):
        csv('a,b\n\n1,"two\nlines"\n2\n')
    with pytest.raises(DataError, match=r"^x\.tsv, line 3, has 3 values for 2 columns; .* it holds a tab\.$"):
        csv("a\tb\n1\t2\n3\t4\t5\n", file="x.tsv")
    assert csv('a,b\n1,"2,5"\n3,x\n', target="b").class_names == ("2,5", "x")  # as it advises
