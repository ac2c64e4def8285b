"""ArrayRecord files: those of real TFDS datasets, and small ones that are written here."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

import datamix
from datamix.errors import ConfigError, DataError
from datamix.sources.array_record import array_record
from datamix.sources.base import LabelledSource, Source, read_all
from datamix.sources.images import ImageFormat
from datamix.sources.tfds.source import Tfds
from datamix.testing import check_source

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes records into a file."""

    def write_file(records: Sequence[bytes], name: str = "x.array_record") -> Path:
        path = tmp_path / name
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        return path

    return write_file


def example(**columns: Any) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()
    for name, values in columns.items():
        feature = message.features.feature[name]
        for value in values if isinstance(values, list) else [values]:
            kinds = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}
            kinds[type(value)].value.append(value)
    return bytes(message.SerializeToString())


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


FOUR = {"x": {"dtype": "uint8", "shape": [4]}}
PHOTOS = [np.random.default_rng(i).integers(0, 256, (6 + i, 9, 3)).astype(np.uint8) for i in range(3)]


def test_files_of_a_tfds_dataset_are_read_as_tfds_reads_them(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "tensorflow_datasets"
    path = {split: f"{data}/fashion_mnist/3.0.1/*{split}*" for split in ("train", "test")}
    source = array_record(path=path, height=28, width=28, split="test[50:]+train", cache_dir=str(tmp_path))
    assert isinstance(source, LabelledSource)
    expected = Tfds(name="fashion_mnist", data_dir=str(data), cache_dir=str(tmp_path), split="test[50:]+train")
    assert (source.spec, source.num_records, source.notes) == (expected.spec, 850, ())
    for leaf, values in expected.read().items():
        np.testing.assert_array_equal(read_all(source)[leaf], values)
    check_source(source)
    for _ in range(2):  # from the files, then from the cache
        assert sorted(source.whole_labels()) == sorted(expected.whole_labels())
    last = f"{data}/fashion_mnist/3.0.1/fashion_mnist-{{}}.array_record-00000-of-00001, record {{}}"
    assert source.places(np.array([0, 50])) == [last.format("test", 50), last.format("train", 0)]


def test_it_mixes_by_name(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    path = shared_data / "tensorflow_datasets" / "mnist" / "3.0.1"
    settings = "height: 28\nwidth: 28\noperators: [to_float, {normalize: {mean: 0.1307, std: 0.3081}}]\n"
    (tmp_path / "dataset" / "records.yaml").write_text(f"_target_: array_record\npath: {path}/*test*\n{settings}")
    data = (f"data.dir={shared_data}/tensorflow_datasets", f"data.cache={tmp_path}/cache")
    data = (f"data.dir={shared_data}/tensorflow_datasets", f"data.cache={tmp_path}/cache")
    pipeline = datamix.load("source=fashion+records", "batch.size=8", *data, config_dir=tmp_path)
    chosen, batch = pipeline.plan.take(3 * 8, 8), pipeline[3]
    images = Tfds(name="mnist", split="test", data_dir=f"{shared_data}/tensorflow_datasets", cache=False).read()[
        "image"
    ]
    ours = chosen.source == 1
    assert ours.sum() == 4
    expected = (images[chosen.record[ours]] / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(batch["image"][ours], expected, atol=1e-5)


def test_what_columns_become(write: Write) -> None:
    records = [example(a=i, b=[0.5, i + 0.25], c=[i, 2, 3], t=b"text", image=png(PHOTOS[i])) for i in range(3)]
    source = array_record(path=str(write(records)), height=4, width=5, mode="RGB", fit="pad")
    assert isinstance(source, Source)
    assert {leaf: str(part) for leaf, part in source.spec.items()} == {
        "a": "int64 []", "b": "float32 [2]", "c": "int64 [3]", "image": "uint8 [4, 5, 3]",
    }  # fmt: skip
    assert source.notes == ("t: no numbers or images, and left out; leaves={LEAF: COLUMN} chooses others.",)
    arrays = read_all(source)
    assert (arrays["a"].tolist(), arrays["b"][2].tolist(), arrays["c"][2].tolist()) == (
        [0, 1, 2],
        [0.5, 2.25],
        [2, 2, 3],
    )
    for photo, image in zip(PHOTOS, arrays["image"], strict=True):
        expected = np.zeros((4, 5, 3), np.uint8)
        ImageFormat(height=4, width=5, mode="RGB", fit="pad").decode(png(photo), expected)
        np.testing.assert_array_equal(image, expected)
    check_source(source)
    check_source(pickle.loads(pickle.dumps(source)))


def test_leaves_say_what_columns_are(write: Write) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = write([example(pixels=row.tobytes(), wide=row.tolist(), y=int(row[0])) for row in values])
    leaves = {
        "image": {"column": "pixels", "dtype": "uint8", "shape": [2, 2, 1]},
        "same": {"column": "wide", "dtype": "uint8", "shape": [2, 2, 1]},
        "flat": {"column": "wide"},
        "label": "y",
    }
    arrays = read_all(array_record(path=str(path), leaves=leaves))
    np.testing.assert_array_equal(arrays["image"], values.reshape(3, 2, 2, 1), strict=True)
    np.testing.assert_array_equal(arrays["same"], arrays["image"], strict=True)
    np.testing.assert_array_equal(arrays["flat"], values.astype(np.int64), strict=True)
    assert arrays["label"].tolist() == [0, 4, 8]


def test_raw_records(write: Write) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    path = write([row.tobytes() for row in values])
    source = array_record(path=str(path), leaves={"x": {"dtype": "float32", "shape": [2, 2]}}, split="train[1:]")
    np.testing.assert_array_equal(read_all(source)["x"], values[1:], strict=True)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        (None, r"^height is missing; the first images are 6 to 8 pixels high and 9 wide\. Set height and width\.$"),
        ({"i": "imag"}, r"^leaves\.i = 'imag'; there is no such column\. Did you mean 'image'\? Known: image, t, y\.$"),
        ({"i": {"column": "y", "dtyp": "uint8"}}, r"^leaves\.i\.dtyp: there is no such setting\. Did you mean"),
        ({"i": "t"}, r"^leaves\.i: column 't' holds no numbers and no image .*\{column: t, dtype: …, shape: "),
        ({"i": {"shape": [2]}}, r"^leaves\.i\.dtype is missing; it is a type of numbers, such as uint8 or float32\.$"),
        ({"i": {"dtype": "U3"}}, r"^leaves\.i\.dtype = 'U3'; it is a type of numbers, such as uint8 or float32\.$"),
        ({"i": {"dtype": "uint9"}}, r"^leaves\.i\.dtype = 'uint9'; it is a type of numbers"),
        ({"i": {"dtype": "uint8", "shape": 3}}, r"^leaves\.i\.shape = 3; it is a list of lengths, such as \[28"),
    ],
)  # fmt: skip
def test_a_mistake_in_leaves(write: Write, leaves: Mapping[str, Any] | None, message: str) -> None:
    path = write([example(image=png(photo), y=1, t=b"text") for photo in PHOTOS])
    with pytest.raises(ConfigError, match=message):
        array_record(path=str(path), leaves=leaves)


@pytest.mark.parametrize(
    ("records", "leaves", "message"),
    [
        ([b"raw bytes"], None, r"record 0: it is no tf\.train\.Example; raw bytes .* leaves=\{LEAF: \{dtype"),
        ([b"12345"], FOUR, r"record 0: leaf 'x' is uint8 \[4\], 4 bytes; here are 5$"),
        ([b"1234", b"123"], FOUR, r"record 1: leaf 'x' is .* 4 bytes; here are 3$"),
        ([example(x=[1, 2]), example(x=[1])], None, r"record 1: leaf 'x' is int64 \[2\]; here are 1 values"),
        ([example(x=1), example(y=1)], None, r"record 1: column 'x' of leaf 'x' is not there, or of another kind$"),
        ([example(x=1), b"\xff"], None, r"record 1: it is no tf\.train\.Example"),
        ([example(x=300)], {"x": {"column": "x", "dtype": "uint8"}}, r"record 0: leaf 'x' is uint8 .* it cannot hold$"),
        ([example(x=png(PHOTOS[0])), example(x=png(PHOTOS[0])[:99])], None, r"record 1: it is damaged, or no whole"),
        ([example(t=b"text")], None, r"record 0: its records have no numbers .* columns are t$"),
        ([], None, r"x\.array_record: there is no record in it\.$"),
    ],
)  # fmt: skip
def test_records_that_are_not_alike(
    write: Write, records: Sequence[bytes], leaves: Mapping[str, Any] | None, message: str
) -> None:
    path = write(records)
    with pytest.raises(DataError, match=message) as raised:
        read_all(array_record(path=str(path), leaves=leaves, height=4, width=4))
    assert str(raised.value).startswith(str(path))


def test_shards_are_read_in_order_by_many_threads(write: Write) -> None:
    for shard in range(3):
        write([example(x=10 * shard + i) for i in range(shard + 1)], f"x.array_record-{shard:05d}-of-00003")
    path = write([], "y.array_record").parent
    source = array_record(path=f"{path}/x.*")
    assert read_all(source)["x"].tolist() == [0, 10, 11, 20, 21, 22]
    indices = np.random.default_rng(0).integers(0, 6, 400)
    out = np.zeros(400, np.int64)
    with ThreadPoolExecutor(8) as pool:
        pool.map(lambda i: source.take(indices[i : i + 10], {"x": out[i : i + 10]}), range(0, 400, 10))
    assert out.tolist() == np.array([0, 10, 11, 20, 21, 22])[indices].tolist()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: content[: len(content) // 2],
            r"x\.array_record cannot be read: .*\.$",
        ),
        (lambda _: b"", r"x\.array_record cannot be read: .*64KB big\.$"),
        (
            lambda content: content.replace(b"needle", b"NEEDLE"),
            r"x\.array_record, record 7 cannot be read: .*hash mismatch",
        ),
    ],
    ids=["truncated", "empty", "changed"],
)
def test_a_damaged_file_is_one_line(write: Write, damage: Callable[[bytes], bytes], message: str) -> None:
    noise = np.random.default_rng(0).bytes(20_000)
    path = write([(b"needle" if i == 7 else b"record") + noise for i in range(10)])
    path.write_bytes(damage(path.read_bytes()))
    leaves = {"x": {"dtype": "uint8", "shape": [20_006]}}
    with pytest.raises(DataError, match=message) as raised:
        read_all(array_record(path=str(path), leaves=leaves))
    assert "\n" not in str(raised.value)
