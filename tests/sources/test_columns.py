from __future__ import annotations

import io
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamix.errors import ConfigError, DataError
from datamix.sources import columns
from datamix.sources.base import LabelledSource, Source, read_all
from datamix.sources.columns import open_columns
from datamix.sources.sliced import Sliced
from datamix.spec import LeafSpec
from datamix.testing import check_source

GROUP = 3


class Rows:
    """A table in groups of three rows, which counts how often each is read."""

    def __init__(self, table: pa.Table, name: str = "t", group: int = GROUP) -> None:
        self.name, self.schema, self.table, self.group = name, table.schema, table, group
        self.rows = [min(group, table.num_rows - start) for start in range(0, table.num_rows, group)]
        self.reads: list[tuple[int, tuple[str, ...]]] = []

    def read(self, group: int, columns: Any) -> pa.Table:
        self.reads.append((group, tuple(columns)))
        return self.table.slice(self.group * group, self.group).select(columns)

    def missing(self, column: str) -> int:
        return int(self.table.column(column).null_count)


def opened(values: dict[str, Any], **settings: Any) -> Sliced:
    return open_columns({"train": [Rows(pa.table(values))]}, provenance="test", **settings)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def images(count: int, shape: tuple[int, ...] = (2, 3)) -> list[np.ndarray]:
    return [np.full(shape, number, np.uint8) for number in range(count)]


def test_columns_of_numbers_and_lists_are_leaves() -> None:
    source = opened(
        {
            "whole": pa.array([5, 6, 7, 8], pa.int16()),
            "fraction": pa.array([0.5, 1.5, 2.5, 3.5], pa.float32()),
            "yes": [True, False, True, True],
            "half": pa.array(np.arange(4, dtype=np.float16)),
            "list": [[1, 2], [3, 4], [5, 6], [7, 8]],
            "fixed": pa.array([[1, 2]] * 4, pa.list_(pa.uint8(), 2)),
            "nested": [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]] * 4,
            "many": pa.array([3, 3, 2, 3], pa.int32()).dictionary_encode(),
        }
    )
    assert isinstance(source, Source)
    assert source.spec == {
        "whole": LeafSpec((), "int16"),
        "fraction": LeafSpec((), "float32"),
        "yes": LeafSpec((), "bool"),
        "half": LeafSpec((), "float16"),
        "list": LeafSpec((2,), "int64"),
        "fixed": LeafSpec((2,), "uint8"),
        "nested": LeafSpec((2, 3), "float64"),
        "many": LeafSpec((), "int32"),
    }
    arrays = read_all(source)
    assert arrays["whole"].tolist() == [5, 6, 7, 8]
    assert arrays["yes"].tolist() == [True, False, True, True]
    assert arrays["list"].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert arrays["nested"][3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert arrays["many"].tolist() == [3, 3, 2, 3]
    assert (source.notes, source.class_names, source.block_records, source.provenance) == ((), (), 3, "test")
    check_source(source)


def test_arrows_own_tensors() -> None:
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3))
    storage = pa.array([list(range(6))] * 4, kind.storage_type)
    source = opened({"x": pa.ExtensionArray.from_storage(kind, storage)})
    assert read_all(source)["x"].tolist() == [[[0, 1, 2], [3, 4, 5]]] * 4


def test_what_can_be_no_leaf_is_left_out_and_told() -> None:
    values = {
        "x": [1, 2], "text": ["a", "b"], "when": pa.array([1, 2], pa.date32()), "list": [[1], [1, 2]],
        "blob": [b"a", b"b"], "__index_level_0__": [8, 9],
    }  # fmt: skip
    source = opened(values)
    assert list(source.spec) == ["x"]
    assert source.notes == (
        "columns are left out: text, which is string; when, which is date32[day]; list, which is a list of 2, others "
        "are of 1; pad_to takes lists of any length (row 1); blob, which is binary.",
    )
    with pytest.raises(DataError, match=r"^t has no column that can be a leaf: text, which is string\.$"):
        opened({"text": ["a"]})
    twice = pa.Table.from_arrays([pa.array([1])] * 3, names=["x", "x", "y"])
    with pytest.raises(ConfigError, match=r"^leaves\.x = 'x'; the column is there twice\.$"):
        open_columns({"train": [Rows(twice)]}, provenance="test", leaves={"x": "x"})


def test_columns_are_chosen_and_renamed() -> None:
    source = opened({"a": [1, 2], "b": [3, 4], "text": ["", ""]}, leaves={"x": "b", "again": "b"})
    assert {leaf: values.tolist() for leaf, values in read_all(source).items()} == {"x": [3, 4], "again": [3, 4]}
    assert source.notes == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leaves": {"x": "nmber"}}, r"^leaves\.x = 'nmber'; t has no such column\. Did you mean 'number'\? Known: "),
        ({"leaves": {"x": "text"}}, r"^leaves\.x = 'text'; the column is string\.$"),
        ({"leaves": {"x": "list"}}, r"^leaves\.x = 'list'; the column is a list of 1, others are of 2; pad_to takes"),
        ({"pad_to": {"lst": 3}}, r"^pad_to\.lst = 3; there is no such leaf\. Known: num_list, number\.$"),
        (
            {"pad_to": {"number": 3}},
            r"^pad_to\.number = 3; lists of varying length are padded, to 1 or more; column 'nu",
        ),
        ({"pad_to": {"list": "3"}}, r"^pad_to\.list = '3'; lists of varying length are padded, to 1 or more"),
        ({"leaves": {"x": 3}}, r"^leaves\.x = 3; t has no such column\. Known: "),
        ({"pad_to": {"list": 0}}, r"^pad_to\.list = 0; lists of varying length are padded, to 1 or more"),
        ({"pad_to": {"list": 2}}, r"^pad_to\.list = 2; there is another leaf num_list; rename it in leaves\.$"),
        (
            {"image": {"height": 4, "width": 4, "mode": "L"}},
            r"^height = 4; no column is one of images; leaves=\{image: ",
        ),
        ({"split": "test"}, r"^split = 'test'[;:] there is no split 'test'"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened({"number": [1, 2], "list": [[1, 2], [1]], "text": ["", ""], "num_list": [1, 2]}, **settings)


def test_the_advice_on_lists_of_any_length_helps() -> None:
    values = {"list": [[1, 2], [], [3], [4, 5, 6]], "rows": [[[1, 2]], [[3, 4], [5, 6]], [], [[7, 8]]]}
    source = opened(values, pad_to={"list": 3, "rows": 2})
    assert source.spec["rows"] == LeafSpec((2, 2), "int64")
    assert {leaf: each.tolist() for leaf, each in read_all(source).items()} == {
        "list": [[1, 2, 0], [0, 0, 0], [3, 0, 0], [4, 5, 6]],
        "num_list": [2, 0, 1, 3],
        "rows": [[[1, 2], [0, 0]], [[3, 4], [5, 6]], [[0, 0], [0, 0]], [[7, 8], [0, 0]]],
        "num_rows": [1, 2, 0, 1],
    }
    check_source(source)
    with pytest.raises(DataError, match=r"^t, row 3: column 'list' is a list of 3, longer than pad_to\.list=2\.$"):
        read_all(opened(values, pad_to={"list": 2}, leaves={"list": "list"}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [[1, 2]] * 4 + [[1]],
            r"^t, row 4: column 'x' is a list of 1, others are of 2; pad_to takes lists of any length",
        ),
        ([[1, 2]] * 4 + [None], r"^t, row 4: column 'x' has no value\.$"),
        ([[1, 2]] * 4 + [[1, None]], r"^t, row 4: column 'x' has no value\.$"),
        ([[0.5, 2]] * 4 + [[1, None]], r"^t, row 4: column 'x' has no value\.$"),
        ([[[1], [2]]] * 4 + [[[1], [2, 3]]], r"^t, row 4: column 'x' is a list of 2, others are of 1"),
    ],
)
def test_a_list_unlike_the_first_is_an_error_where_it_is_read(values: list[Any], message: str) -> None:
    source = opened({"x": values})
    source.take(np.array([0, 2]), {"x": np.empty((2, *source.spec["x"].shape), source.spec["x"].dtype)})
    with pytest.raises(DataError, match=message):
        read_all(source)


def test_fractions_that_are_missing_are_nan_and_told_and_other_numbers_are_refused() -> None:
    source = opened({"x": [1.5, None, None, 2.5], "y": [1, 2, 3, 4]})
    assert source.notes == ("2 of 4 rows have no value in column 'x'; it is NaN.",)
    np.testing.assert_array_equal(read_all(source)["x"], [1.5, np.nan, np.nan, 2.5])
    message = (
        r"^1 of 2 rows have no value in column 'x', and int64 has no NaN to say so; fill them, or leave the column out"
    )
    with pytest.raises(DataError, match=message):
        opened({"x": [1, None]})
    with pytest.raises(DataError, match=r"^1 of 2 rows have no value in column 'label', and string has no NaN"):
        opened({"label": ["a", None]})
    assert list(opened({"x": [1, None], "y": [1, 2]}, leaves={"y": "y"}).spec) == ["y"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_label_of_text_names_its_classes(kind: pa.DataType) -> None:
    texts = ["dog", "cat", "dog", "emu"]
    source = opened({"label": pa.array(texts).cast(kind)}, split="train[:3]")
    assert source.class_names == ("cat", "dog", "emu")
    assert read_all(source)["label"].tolist() == [1, 0, 1]
    assert isinstance(source, LabelledSource)
    assert source.whole_labels().tolist() == [1, 0, 1, 2]
    assert "label" not in opened({"label": texts, "x": [1] * 4}, leaves={"x": "x"}).spec


def test_class_names_of_hugging_face() -> None:
    features = {"kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "sound": {"_type": "Audio"}}
    said = json.dumps({"info": {"features": features}})
    sound = [{"bytes": b"RIFF", "path": None}] * 2
    table = pa.table({"kind": [1, 0], "sound": sound}).replace_schema_metadata({b"huggingface": said})
    source = open_columns({"train": [Rows(table)]}, provenance="test", leaves={"label": "kind"})
    assert (source.class_names, read_all(source)["label"].tolist()) == (("cat", "dog"), [1, 0])
    source = open_columns({"train": [Rows(table)]}, provenance="test")
    assert source.notes == ("columns are left out: sound, which holds no images.",)
    for damaged in (
        b"{",
        b"[]",
        b'{"info": {"features": {"kind": 3}}}',
        b'{"info": {"features": {"kind": {"names": 3}}}}',
    ):
        table = table.replace_schema_metadata({b"huggingface": damaged})
        assert open_columns({"train": [Rows(table)]}, provenance="test", leaves={"label": "kind"}).class_names == ()


@pytest.mark.parametrize("form", ["struct", "bytes", "binary"])
def test_images(form: str) -> None:
    pixels = images(200)
    encoded = [png(each) for each in pixels]
    stored = {
        "struct": [{"bytes": each, "path": "x.png"} for each in encoded],
        "bytes": [{"bytes": each} for each in encoded],
        "binary": encoded,
    }[form]
    source = opened({"x": stored}, leaves={"image": "x"})
    assert source.spec == {"image": LeafSpec((2, 3, 1), "uint8")}
    check_source(source)
    np.testing.assert_array_equal(read_all(source)["image"][..., 0], pixels)
    larger = opened({"x": stored}, leaves={"image": "x"}, image={"height": 4, "width": 5, "mode": "RGB"})
    assert larger.spec == {"image": LeafSpec((4, 5, 3), "uint8")}
    assert read_all(larger)["image"][7].tolist() == np.full((4, 5, 3), 7).tolist()


def test_images_keep_their_colours_unless_it_is_said_otherwise() -> None:
    stored = [{"bytes": png(each), "path": None} for each in images(2, (2, 2, 3))]
    assert opened({"image": stored}).spec["image"].shape == (2, 2, 3)
    assert opened({"image": stored}, image={"mode": "L"}).spec["image"].shape == (2, 2, 1)


def test_images_of_several_sizes_need_height_and_width() -> None:
    stored = [{"bytes": png(each), "path": None} for each in (*images(4), *images(1, (5, 4)))]
    with pytest.raises(
        DataError, match=r"^t, row 4: the image in column 'image': it has 5×4 pixels, but the first one "
    ):
        read_all(opened({"image": stored}))
    assert read_all(opened({"image": stored}, image={"height": 2, "width": 3, "mode": "L"}))["image"].shape == (
        5,
        2,
        3,
        1,
    )
    with pytest.raises(ConfigError, match=r"^width is missing; it is a whole number of pixels"):
        opened({"image": stored}, image={"height": 2, "width": None, "mode": "L"})


def test_images_that_are_only_named_lie_beside_the_table(tmp_path: Path) -> None:
    for number, each in enumerate(images(4)):
        (tmp_path / f"{number}.png").write_bytes(png(each))
    stored = pa.array(
        [{"bytes": None, "path": f"{number}.png"} for number in range(4)],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    part = Rows(pa.table({"image": stored}), str(tmp_path / "t.parquet"))
    source = open_columns({"train": [part]}, provenance="test")
    np.testing.assert_array_equal(read_all(source)["image"][..., 0], images(4))
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"t\.parquet, row 2: the image in column 'image': .*2\.png: there is no such"):
        read_all(source)


def test_a_damaged_image_is_an_error_with_its_row() -> None:
    stored = [{"bytes": png(each), "path": None} for each in images(200)]
    stored[150]["bytes"] = stored[150]["bytes"][:-30]
    stored[170]["bytes"] = None
    source = open_columns({"train": [Rows(pa.table({"image": stored}), group=100)]}, provenance="test")
    source.take(np.arange(150), {"image": np.empty((150, 2, 3, 1), np.uint8)})
    with pytest.raises(DataError, match=r"^t, row 150: the image in column 'image': it is damaged, or no whole image"):
        source.take(np.arange(100, 170), {"image": np.empty((70, 2, 3, 1), np.uint8)})
    with pytest.raises(DataError, match=r"^t, row 170: the image in column 'image': there is none\.$"):
        source.take(np.array([170]), {"image": np.empty((1, 2, 3, 1), np.uint8)})


def test_parts_have_to_be_alike() -> None:
    def parts(second: dict[str, Any]) -> list[Rows]:
        return [Rows(pa.table({"x": [1, 2], "y": [0.5, 0.5]}), "a"), Rows(pa.table(second), "b")]

    source = open_columns({"train": parts({"y": [2.5], "more": [1], "x": [3]})}, provenance="test")
    assert read_all(source)["x"].tolist() == [1, 2, 3]
    assert source.places(np.array([2, 0])) == ["b, row 0", "a, row 0"]
    with pytest.raises(DataError, match=r"^b: column 'x' is double; in a it is int64\.$"):
        open_columns({"train": parts({"x": [1.5], "y": [0.5]})}, provenance="test")
    with pytest.raises(DataError, match=r"^b: there is no column 'y'; in a it is double\.$"):
        open_columns({"train": parts({"x": [1]})}, provenance="test")


def test_splits_of_parts() -> None:
    train, test = Rows(pa.table({"x": list(range(8)), "label": [0] * 8})), Rows(pa.table({"x": [100, 101, 102, 103]}))
    parts = {"train": [train], "test": [test]}
    source = open_columns(parts, provenance="test", split="train[-2:]+train[:50%]")
    assert read_all(source)["x"].tolist() == [6, 7, 0, 1, 2, 3]
    assert source.places(np.array([0, 2])) == ["t, row 6", "t, row 0"]
    assert source.whole_labels().tolist() == [0] * 8  # the test has none
    source = open_columns(parts, provenance="test", split="test[1:]")
    assert (list(source.spec), read_all(source)["x"].tolist()) == (["x"], [101, 102, 103])
    none = open_columns(parts, provenance="test", split="train[:0]")
    assert (none.num_records, none.whole_labels().tolist()) == (0, [0] * 8)
    with pytest.raises(DataError, match=r"^t: the split 'train' holds no rows\.$"):
        open_columns({"train": [Rows(pa.table({"x": pa.array([], pa.int64())}))]}, provenance="test")


def test_what_is_not_asked_for_is_not_read() -> None:
    part = Rows(pa.table({"x": list(range(12)), "y": list(range(12))}))
    source = open_columns({"train": [part]}, provenance="test")
    assert part.reads == []
    out = {"y": np.zeros(3, np.int64)}
    source.take(np.array([11, 4, 10]), out)
    assert out["y"].tolist() == [11, 4, 10]
    assert sorted(part.reads) == [(1, ("y",)), (3, ("y",))]
    source.take(np.array([9, 10]), {"y": np.zeros(2, np.int64)})
    assert len(part.reads) == 2
    with pytest.raises(IndexError, match="records 3 to 12 are asked for, of 12"):
        source.take(np.array([3, 12]), {"y": np.zeros(2, np.int64)})


def test_threads_that_want_the_same_group_read_it_once() -> None:
    part = Rows(pa.table({"x": list(range(300))}))
    source, barrier = open_columns({"train": [part]}, provenance="test"), threading.Barrier(8)

    def take(_: int) -> list[int]:
        out = {"x": np.zeros(300, np.int64)}
        barrier.wait()
        source.take(np.arange(300)[::-1], out)
        return out["x"].tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(take, range(8))) == [list(range(300))[::-1]] * 8
    assert sorted(part.reads) == [(group, ("x",)) for group in range(100)]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Rows(pa.table({"x": list(range(9))}))
    source = open_columns({"train": [part]}, provenance="test")
    kept = columns.Kept(2 * GROUP * 8)
    monkeypatch.setattr(columns, "KEPT", kept)
    for record in (0, 3, 0, 6, 0, 3):
        source.take(np.array([record]), {"x": np.zeros(1, np.int64)})
    assert [group for group, _ in part.reads] == [0, 1, 2, 1]
    monkeypatch.setattr(columns, "KEPT", columns.Kept(1))
    for record in (0, 1, 0):
        source.take(np.array([record]), {"x": np.zeros(1, np.int64)})
    assert [group for group, _ in part.reads] == [0, 1, 2, 1, 0]


def test_an_error_is_not_kept() -> None:
    part = Rows(pa.table({"x": [1, 2]}))
    source, table = open_columns({"train": [part]}, provenance="test"), part.table
    part.table = table.drop_columns(["x"])
    with pytest.raises(KeyError, match="x"):
        read_all(source)
    part.table = table
    assert read_all(source)["x"].tolist() == [1, 2]


def test_a_copy_reads_the_same() -> None:
    source = opened({"x": [1, 2, 3, 4], "label": ["a", "b", "a", "b"]}, split="train[1:]")
    copy = pickle.loads(pickle.dumps(source))
    for leaf, values in read_all(source).items():
        np.testing.assert_array_equal(read_all(copy)[leaf], values)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4), data=st.data())
def test_any_records_of_any_parts(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    if not total:
        return
    values = np.random.default_rng(0).integers(0, 100, (total, 2))
    ends = np.cumsum(sizes)
    parts = [
        Rows(pa.table({"x": values[end - size : end].tolist()}, pa.schema({"x": pa.list_(pa.int64())})))
        for size, end in zip(sizes, ends, strict=True)
    ]
    start, stop = sorted(data.draw(st.lists(st.integers(0, total), min_size=2, max_size=2)))
    source = open_columns({"train": parts}, provenance="test", split=f"train[{start}:{stop}]+train[:{start}]")
    want = np.concatenate([values[start:stop], values[:start]])
    indices = np.array(
        data.draw(st.lists(st.integers(0, max(len(want) - 1, 0)), max_size=9)) if len(want) else [], np.int64
    )
    out = {"x": np.zeros((len(indices), 2), np.int64)}
    source.take(indices, out)
    np.testing.assert_array_equal(out["x"], want[indices])
