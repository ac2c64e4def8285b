from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from datamix.errors import ConfigError, DataError
from datamix.sources.arrow import tabular
from datamix.sources.base import read_all
from datamix.sources.parquet import parquet
from datamix.spec import LeafSpec
from datamix.testing import check_source

SPEC = {"image": LeafSpec((28, 28, 1), "uint8"), "label": LeafSpec((), "int64")}


@pytest.fixture(autouse=True)
def _no_progress() -> None:
    datasets.disable_progress_bars()


@pytest.fixture
def saved(shared_data: Path, tmp_path: Path) -> Path:
    """A copy of what `save_to_disk` wrote."""
    shutil.copytree(shared_data / "huggingface" / "mnist_small", tmp_path / "saved", copy_function=shutil.copyfile)
    for path in (tmp_path / "saved").rglob("*"):
        path.chmod(0o755)
    return tmp_path / "saved"


def test_what_save_to_disk_wrote(saved: Path) -> None:
    source = parquet(path=str(saved))
    assert (source.provenance, source.num_records, source.spec) == ("huggingface", 1000, SPEC)
    assert (source.class_names, source.notes) == (tuple("0123456789"), ())
    check_source(source)
    mixed = parquet(path=str(saved), split="test[:50%]+train[10:20]")
    assert mixed.num_records == 110
    place = f"{saved}/train/data-00000-of-00001.arrow, row 10"
    assert mixed.places(np.array([100])) == [place]
    assert parquet(path=str(saved / "test")).num_records == 200  # one of its splits alone
    with pytest.raises(
        ConfigError, match=r"split = 'validation'[;:] there is no split 'validation'.* Known: test, train"
    ):
        parquet(path=str(saved), split="validation")


def test_the_ways_to_the_same_images_give_the_same(shared_data: Path) -> None:
    folder = shared_data / "huggingface"
    want = read_all(parquet(path=str(folder / "mnist_small")))
    train = datasets.load_from_disk(str(folder / "mnist_small"))["train"]
    ways = {
        "Parquet": parquet(path=str(folder / "mnist_small.train.parquet")),
        "Arrow": parquet(path=str(folder / "mnist_small" / "train" / "data-00000-of-00001.arrow")),
        "Dataset": tabular(train),
    }
    for way, source in ways.items():
        assert source is not None
        assert (source.spec, source.class_names) == (SPEC, tuple("0123456789")), way
        for leaf, values in read_all(source).items():
            np.testing.assert_array_equal(values, want[leaf], err_msg=way)
    np.testing.assert_array_equal(want["image"][5][..., 0], np.asarray(train[5]["image"]))
    np.testing.assert_array_equal(want["label"], train["label"])


def test_a_dataset_whose_rows_are_chosen_and_ordered(saved: Path) -> None:
    data = datasets.load_from_disk(str(saved))["train"].shuffle(seed=0).select(range(300))
    source = tabular(data)
    assert source is not None
    check_source(source)
    assert read_all(source)["label"].tolist() == data["label"][:]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(read_all(copy)["image"], read_all(source)["image"])


@pytest.mark.parametrize("way", ["dataset", "saved", "parquet", "arrow"])
def test_lists_of_every_kind(tmp_path: Path, way: str) -> None:
    features = datasets.Features(
        {
            "array": datasets.Array2D((2, 2), "int32"),
            "list": datasets.List(datasets.Value("float32")),
            "fixed": datasets.List(datasets.Value("uint8"), length=3),
            "text": datasets.Value("string"),
            "gap": datasets.Value("float64"),
        }
    )
    values: dict[str, Any] = {
        "array": [[[number, 1], [2, 3]] for number in range(2500)],
        "list": [[0.5, number] for number in range(2500)],
        "fixed": [[1, 2, 3]] * 2500,
        "text": ["a"] * 2500,
        "gap": [None, 1.0] * 1250,
    }
    data = datasets.Dataset.from_dict(values, features)
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "x.parquet")
    with (
        pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file,
        pa.ipc.new_file(file, data.features.arrow_schema) as writer,
    ):
        writer.write_table(data.with_format("arrow")[:])
    paths = {"saved": "saved", "parquet": "x.parquet", "arrow": "x.arrow"}
    source = tabular(data) if way == "dataset" else parquet(path=str(tmp_path / paths[way]))
    assert source is not None
    assert source.spec == {
        "array": LeafSpec((2, 2), "int32"),
        "list": LeafSpec((2,), "float32"),
        "fixed": LeafSpec((3,), "uint8"),
        "gap": LeafSpec((), "float64"),
    }
    assert source.notes == (
        "columns are left out: text, which is string.",
        "1,250 of 2,500 rows have no value in column 'gap'; it is NaN.",
    )
    arrays = read_all(source)
    assert arrays["array"][2400].tolist() == [[2400, 1], [2, 3]]
    assert arrays["list"][1500].tolist() == [0.5, 1500]


def test_shards_of_save_to_disk(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"x": list(range(50))}).save_to_disk(tmp_path / "x", num_shards=3)
    assert read_all(parquet(path=str(tmp_path / "x")))["x"].tolist() == list(range(50))
    (tmp_path / "x" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00003\.arrow: there is no such file\.$"):
        parquet(path=str(tmp_path / "x"))


def test_damaged_folders(saved: Path) -> None:
    file = saved / "train" / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow cannot be read: "):
        parquet(path=str(saved))
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow cannot be read: "):
        parquet(path=str(saved))
    (saved / "train" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state\.json does not say its files or splits: JSONDecodeError "):
        parquet(path=str(saved))
    (saved / "train" / "state.json").write_text('{"_data_files": [3]}')
    with pytest.raises(DataError, match=r"state\.json does not say its files or splits: TypeError "):
        parquet(path=str(saved))
    (saved / "train" / "state.json").write_text('{"_data_files": []}')
    with pytest.raises(DataError, match=r"^the split 'train' holds no rows\.$"):
        parquet(path=str(saved))
    (saved / "dataset_dict.json").write_text("{}")
    with pytest.raises(DataError, match=r"dataset_dict\.json does not say its files or splits: KeyError 'splits'\.$"):
        parquet(path=str(saved))


def test_offsets_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    table = pa.table({"x": [[1, 2, 3]] * 4})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    offsets = np.array([0, 3, 6, 9, 12], np.int32).tobytes()
    damaged = np.array([0, 3, 6, 9, 2**30], np.int32).tobytes()
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, damaged))
    with pytest.raises(DataError, match=r"x\.arrow cannot be read: .*offset"):
        parquet(path=str(path))


VALUES = {"age": [41, 7], "label": ["b", "a"], "name": ["x", "y"]}


def pandas_table() -> pa.Table:
    return pa.Table.from_pandas(pd.DataFrame(VALUES))


def pandas_categories() -> pa.Table:
    return pa.Table.from_pandas(pd.DataFrame(VALUES, index=["i", "j"]).astype({"label": "category"}))


def polars_table() -> pa.Table:
    return pa.table(pytest.importorskip("polars").DataFrame(VALUES))


def polars_categories() -> pa.Table:
    polars = pytest.importorskip("polars")
    return pa.table(polars.DataFrame(VALUES).with_columns(polars.col("label").cast(polars.Categorical)))


def arrow_table() -> pa.Table:
    return pa.table(VALUES)


@pytest.mark.parametrize("table", [pandas_table, pandas_categories, polars_table, polars_categories, arrow_table])
def test_tables_of_arrow_wherever_they_come_from(table: Any) -> None:
    source = tabular(table())
    assert source is not None
    assert source.provenance == "arrays"
    assert {leaf: values.tolist() for leaf, values in read_all(source).items()} == {"age": [41, 7], "label": [1, 0]}
    assert source.class_names == ("a", "b")
    assert [note.partition(", which is ")[0] for note in source.notes] == ["columns are left out: name"]
    check_source(source)


def test_a_table_that_lacks_values() -> None:
    with pytest.raises(DataError, match=r"^1 of 2 rows have no value in column 'a', and int64 has no NaN to say so"):
        tabular(pa.table({"a": [1, None]}))
    with pytest.raises(DataError, match=r"^this Table has no column that can be a leaf: a, which is string\.$"):
        tabular(pa.table({"a": ["x"]}))


def test_what_is_no_table() -> None:
    for data in ([{"x": 1}], {"x": np.arange(3)}, np.arange(3), pd.DataFrame({"x": [1]})):
        assert tabular(data) is None
    data = datasets.Dataset.from_dict({"x": [1, 2]})
    assert tabular(data.with_transform(lambda rows: rows)) is None
    assert tabular(data.to_iterable_dataset()) is None
    assert tabular(datasets.DatasetDict({"test": data})) is None


def test_images_of_several_sizes_in_a_dataset() -> None:
    images = [Image.new("RGB", (size, 4)) for size in (4, 4, 5)]
    source = tabular(datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()})))
    assert source is not None
    assert source.spec == {"image": LeafSpec((4, 4, 3), "uint8")}
    with pytest.raises(
        DataError, match=r"^this Dataset, row 2: the image in column 'image': it has 4×5 pixels, but the first"
    ):
        read_all(source)
