from __future__ import annotations

import io
import itertools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import datamix
from datamix.builder.built import build
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.errors import ConfigError, DataError, InstallationError
from datamix.sources.base import read_all
from datamix.sources.parquet import ParquetFile, parquet
from datamix.sources.table import table
from datamix.sources.tfds.source import Tfds
from datamix.spec import LeafSpec
from datamix.testing import check_source


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Ten rows in row groups of four."""
    path = tmp_path / "few.parquet"
    values = {"x": list(range(10)), "y": [0.5, None] * 5, "text": ["a"] * 10}
    pq.write_table(pa.table(values), path, row_group_size=4)
    return path


def test_row_groups_are_blocks(few: Path) -> None:
    source = parquet(path=str(few), split="train[3:]")
    assert (source.provenance, source.num_records, source.block_records) == ("parquet", 7, 4)
    assert source.spec == {"x": LeafSpec((), "int64"), "y": LeafSpec((), "float64")}
    assert source.notes == (
        "columns are left out: text, which is string.",
        "5 of 10 rows have no value in column 'y'; it is NaN.",
    )
    assert source.places(np.array([0, 6])) == [f"{few}, row 3", f"{few}, row 9"]
    assert read_all(source)["x"].tolist() == list(range(3, 10))
    copy = pickle.loads(pickle.dumps(source))
    assert read_all(copy)["x"].tolist() == list(range(3, 10))


def test_columns_that_later_files_alone_have_are_told(tmp_path: Path) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(pa.table({"x": [1, 2]}), paths[0])
    pq.write_table(pa.table({"x": [3], "z": [4]}), paths[1])
    source = parquet(path=[*map(str, paths)])
    assert source.notes == (f"columns are left out: z, which {paths[0]} has not.",)
    assert parquet(path=[*map(str, paths)], leaves={"x": "x"}).notes == ()


def test_a_number_that_is_missing_in_a_padded_list_is_an_error_at_its_row(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"x": [[1.5, 3.0]] * 4 + [[2.0], [None, 2.0]]}), path)
    source = parquet(path=path, pad_to={"x": 3})
    with pytest.raises(DataError, match=r"row 5: column 'x' has no value\.$"):
        read_all(source)


def test_bytes_and_text_say_how_they_are_read(tmp_path: Path) -> None:
    path, encoded = str(tmp_path / "x.parquet"), io.BytesIO()
    Image.fromarray(np.full((2, 3), 7, np.uint8)).save(encoded, "png")
    values = {"picture": [encoded.getvalue()] * 2, "words": ["some words", "and more"], "label": [3, 4]}
    pq.write_table(pa.table(values), path)
    (note,) = parquet(path=path).notes
    mend = "leaves={image: picture, label: label} decodes images in picture."
    assert note == f"columns are left out: picture, which is binary; words, which is string; {mend}"
    assert parquet(path=path, leaves={"image": "picture", "label": "label"}).spec["image"] == LeafSpec(
        (2, 3, 1), "uint8"
    )
    for name, mend in (
        ("picture", r"leaves=\{image: picture\} decodes images in picture"),
        ("words", r"\{_target_: text, column: words\} reads text"),
    ):
        pq.write_table(pa.table({name: values[name]}), path)
        with pytest.raises(DataError, match=rf"has no column that can be a leaf: {name}, which is \w+; {mend}\.$"):
            parquet(path=path)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("{_target_: text, path: x.parquet, column: words, length: 8}")
    overrides = ("source=mine", f"source.mine.path={path}", f"data.cache={tmp_path}/cache", "batch.size=2")
    assert datamix.load(*overrides, config_dir=tmp_path).spec["tokens"] == LeafSpec((8,), "int32")


def test_what_is_missing_is_known_from_the_statistics(few: Path, tmp_path: Path) -> None:
    assert ParquetFile(few).missing("y") == 5
    assert ParquetFile(few).missing("x") == ParquetFile(few).missing("nothing") == 0
    pq.write_table(pa.table({"x": [1, None], "l": [[1], None]}), tmp_path / "null.parquet")
    with pytest.raises(DataError, match=r"1 of 2 rows have no value in column 'x', and int64 has no NaN to say so"):
        parquet(path=str(tmp_path / "null.parquet"))
    pq.write_table(pa.table({"x": [1, None]}), tmp_path / "null.parquet", write_statistics=False)
    with pytest.raises(DataError, match=r"null\.parquet, row 1: column 'x' has no value\.$"):
        read_all(parquet(path=str(tmp_path / "null.parquet")))


@pytest.mark.parametrize("size", [0, 3, 100, -20])
def test_a_truncated_file(few: Path, size: int) -> None:
    few.write_bytes(few.read_bytes()[:size])
    with pytest.raises(DataError, match=r"few\.parquet cannot be read: .*[Pp]arquet"):
        parquet(path=str(few))


def test_checksums_of_pages_are_looked_at_where_there_are_any(tmp_path: Path) -> None:
    path, numbers = tmp_path / "x.parquet", np.arange(1000, dtype=np.int32)
    plain: Any = {"compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"x": numbers}), path, write_page_checksum=True, **plain)
    assert read_all(parquet(path=str(path)))["x"].tolist() == numbers.tolist()
    path.write_bytes(path.read_bytes().replace(numbers[500:510].tobytes(), bytes(40)))
    for read in (lambda: read_all(parquet(path=str(path))), lambda: table(path=str(path))):
        with pytest.raises(DataError, match=r"x\.parquet cannot be read: .*(CRC|checksum)"):
            read()


def test_a_file_that_is_damaged_inside_is_an_error_at_its_records(few: Path) -> None:
    source, data = parquet(path=str(few), leaves={"x": "x"}), bytearray(few.read_bytes())
    begin = pq.ParquetFile(few).metadata.row_group(1).column(0).data_page_offset
    data[begin : begin + 40] = b"\xff" * 40
    few.write_bytes(data)
    out = {"x": np.zeros(4, np.int64)}
    source.take(np.arange(4), out)
    assert out["x"].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"few\.parquet cannot be read: "):
        source.take(np.arange(4, 8), out)
    few.unlink()
    with pytest.raises(DataError, match=r"few\.parquet: there is no such file\.$"):
        source.take(np.array([9]), {"x": np.zeros(1, np.int64)})


def test_without_pyarrow(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    message = r"few\.parquet is read with pyarrow, which is not installed: pip install .*\[parquet\]"
    with pytest.raises(InstallationError, match=message):
        parquet(path=str(few))


def test_real_images_are_those_of_tfds(shared_data: Path, cache_dir: Path) -> None:
    """The 1,000 images that are stored as Parquet are the first ones of MNIST's."""
    folder = shared_data / "huggingface"
    splits: dict[str, Any] = {split: str(folder / f"mnist_small.{split}.parquet") for split in ("train", "test")}
    source = parquet(path=splits, height=28, width=28)
    assert source.spec == {"image": LeafSpec((28, 28, 1), "uint8"), "label": LeafSpec((), "int64")}
    assert (source.num_records, source.class_names) == (1000, tuple("0123456789"))
    check_source(source)
    stored = read_all(source)
    mnist = Tfds(
        name="mnist", data_dir=str(shared_data / "tensorflow_datasets"), cache_dir=str(cache_dir), split="train"
    )
    images = {
        image.tobytes(): int(label)
        for image, label in zip(*(mnist.read()[leaf] for leaf in ("image", "label")), strict=True)
    }
    assert [images.get(image.tobytes()) for image in stored["image"]] == stored["label"].tolist()
    assert parquet(path=splits, split="test").num_records == 200
    assert len(source.whole_labels()) == 1200
    assert parquet(path=str(folder / "*.parquet"), height=28, width=28).notes == (
        "its files are read as one split, train, though their names speak of test and train; path={test: …, train: …} "
        "keeps them apart.",
    )


def test_text_is_told(shared_data: Path) -> None:
    source = parquet(path=str(shared_data / "text" / "code.train.parquet"))
    assert (list(source.spec), source.block_records) == (["num_chars"], 64)
    assert source.notes == ("columns are left out: text, which is string.",)


def test_missing_file_and_missing_shard(few: Path) -> None:
    with pytest.raises(
        DataError, match=r"^path = '.*/fw\.parquet'; there is no such file .*Did you mean '.*/few\.parquet'\?$"
    ):
        parquet(path=str(few.with_name("fw.parquet")))
    with pytest.raises(ConfigError, match=r"few\.csv is no \.parquet or \.arrow file"):
        parquet(path=str(few.rename(few.with_name("few.csv"))))


def test_many_threads_read_many_row_groups(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (2000, 8))
    pq.write_table(pa.table({"x": values.tolist()}), tmp_path / "x.parquet", row_group_size=100)
    source, barrier = parquet(path=str(tmp_path / "x.parquet")), threading.Barrier(4)

    def take(seed: int) -> bool:
        indices = np.random.default_rng(seed).integers(0, 2000, 500)
        out = {"x": np.zeros((500, 8), np.int64)}
        barrier.wait()
        source.take(indices, out)
        return np.array_equal(out["x"], values[indices])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(take, range(4)))


FORMATS: dict[str, dict[str, str]] = {
    "mnist": {},
    "my_parquet": {"path": "huggingface/mnist_small.train.parquet"},
    "my_huggingface": {"path": "huggingface/mnist_small"},
    "my_webdataset": {"path": "webdataset"},
    "folder": {"path": "photos"},
}


@pytest.mark.parametrize("pair", list(itertools.combinations(FORMATS, 2)), ids="+".join)
def test_two_formats_in_a_mix(shared_data: Path, cache_dir: Path, pair: tuple[str, str]) -> None:
    overrides = [f"data.dir={shared_data / 'tensorflow_datasets'}", f"data.cache={cache_dir}", "batch.size=30"]
    for name in pair:
        settings = {key: shared_data / value for key, value in FORMATS[name].items()} | {"operators": "[]"}
        overrides += [f"source.{name}.{key}={value}" for key, value in settings.items()]
    config = parse(compose([f"source={'+'.join(pair)}", "labels=keep", "mix.ratio=2:1", *overrides]))
    built = build(config)
    batch, chosen = built.pipeline()[1], built.plan.take(30, 30)
    assert batch["source_id"].tolist() == chosen.source.tolist()
    assert np.bincount(batch["source_id"]).tolist() == [20, 10]
    for number, name in enumerate(pair):
        rows = np.flatnonzero(chosen.source == number)
        source = built.sources[name].source
        want = {leaf: np.empty((len(rows), *part.shape), part.dtype) for leaf, part in source.spec.items()}
        source.take(chosen.record[rows], want)
        for leaf, values in want.items():
            np.testing.assert_array_equal(batch[leaf][rows], values)
