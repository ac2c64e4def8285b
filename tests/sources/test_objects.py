"""Python objects as sources."""

from __future__ import annotations

import copy
import pickle
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError, DataError
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import ReadableSource, Source, read_all
from datamix.sources.objects import as_source
from datamix.spec import Arrays, LeafSpec
from datamix.testing import check_source

IMAGES = np.arange(7 * 2 * 2, dtype=np.uint8).reshape(7, 2, 2, 1)


class Dataset:
    """A dataset as torch has it."""

    def __init__(self, record: Callable[[int], Any], size: int = 7) -> None:
        self.record, self.size = record, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        assert type(index) is int
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.record(index)


class Blocks(Dataset):
    """A dataset that gives several records at once."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.record(index) for index in indices]

    def __getitem__(self, index: int) -> Any:
        assert index == 0, "asked for one by one"
        return super().__getitem__(index)


class Filling(Dataset):
    """A dataset that fills arrays."""

    def __getitem__(self, index: int) -> Any:
        assert index == 0, "asked for one by one"
        return super().__getitem__(index)

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        out["image"][:] = IMAGES[indices]
        out["label"][:] = indices


class Sliced(Dataset):
    """A dataset whose `take` is that of other libraries: its first records."""

    def take(self, n: int) -> Sliced:
        return Sliced(self.record, n)


def as_dict(index: int) -> dict[str, Any]:
    return {"image": IMAGES[index], "label": index}


Named = namedtuple("Named", ["image", "label"])


@pytest.mark.parametrize(
    "data",
    [
        [as_dict(i) for i in range(7)],
        tuple((IMAGES[i], i) for i in range(7)),
        [[IMAGES[i].tolist(), i] for i in range(7)],
        [Named(IMAGES[i], i) for i in range(7)],
        Dataset(as_dict),
        Dataset(lambda i: (IMAGES[i], np.int64(i))),
        Blocks(as_dict),
        Filling(as_dict),
        Sliced(as_dict),
    ],
    ids=["dicts", "pairs", "lists", "named", "dataset", "dataset-of-pairs", "blocks", "filling", "other-take"],
)
def test_records_by_their_number(data: Any) -> None:
    source = as_source(data)
    assert (source.num_records, source.class_names, source.provenance) == (7, (), "objects")
    assert source.spec["label"] == LeafSpec((), "int64")
    assert source.spec["image"].shape == (2, 2, 1)
    arrays = read_all(source)
    np.testing.assert_array_equal(arrays["image"], IMAGES)
    np.testing.assert_array_equal(arrays["label"], np.arange(7))
    check_source(data)


@given(st.lists(st.integers(0, 6), max_size=20))
def test_any_records_in_any_order(indices: list[int]) -> None:
    source = as_source(Dataset(as_dict))
    out = {"image": np.zeros((len(indices), 2, 2, 1), np.uint8), "label": np.zeros(len(indices), np.int64)}
    source.take(np.array(indices, np.int64), out)
    assert out["label"].tolist() == indices
    np.testing.assert_array_equal(out["image"], IMAGES[np.array(indices, int)])


def test_python_numbers_are_what_numpy_makes_of_them() -> None:
    spec = as_source([{"i": 1, "f": 0.5, "b": True, "v": [1, 2], "n": np.float16(3)}]).spec
    assert {leaf: str(part) for leaf, part in spec.items()} == {
        "i": "int64 []", "f": "float64 []", "b": "bool []", "v": "int64 [2]", "n": "float16 []",
    }  # fmt: skip


def test_arrays_by_leaf_and_sources_stay_what_they_are() -> None:
    source = as_source({"label": [1, 2, 3]})
    assert isinstance(source, MemoryArrays)
    assert (source.provenance, source.read()["label"].tolist()) == ("arrays", [1, 2, 3])
    assert as_source(source) is source
    assert as_source({"label": [1]}, "mine").provenance == "mine"


def test_a_source_that_only_reads() -> None:
    class Reads:
        num_records = 3
        spec = {"label": LeafSpec((), "int64")}  # noqa: RUF012

        def read(self) -> Arrays:
            return {"label": np.array([5, 6, 7])}

    source = as_source(Reads(), "mine")
    assert isinstance(source, ReadableSource)
    assert (source.provenance, source.class_names, source.num_records) == ("mine", (), 3)
    check_source(Reads())


def test_a_source_that_only_takes() -> None:
    class Takes:
        num_records = 3
        spec = {"label": LeafSpec((), "int64")}  # noqa: RUF012
        class_names = ("a", "b", "c")

        def take(self, indices: np.ndarray, out: Arrays) -> None:
            out["label"][:] = indices

    source = as_source(Takes())
    assert isinstance(source, Source)
    assert not isinstance(source, ReadableSource)
    assert (source.provenance, source.class_names) == ("objects", ("a", "b", "c"))
    check_source(Takes())


def test_masked_arrays_are_refused_where_they_mask_anything() -> None:
    values = np.ma.array([[1, 2], [3, 4]], mask=[[0, 0], [0, 1]])
    with pytest.raises(DataError, match=r"^leaf 'x' is a masked array, and a batch has no mask; give it filled"):
        as_source({"x": values})
    assert as_source({"x": values[:1]}).num_records == 1


def test_no_records() -> None:
    source = as_source([])
    assert (source.num_records, dict(source.spec)) == (0, {})


# What people have -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "spec"),
    [
        ("L", "uint8 [2, 3]"), ("1", "bool [2, 3]"), ("RGB", "uint8 [2, 3, 3]"), ("RGBA", "uint8 [2, 3, 4]"),
        ("P", "uint8 [2, 3, 3]"), ("CMYK", "uint8 [2, 3, 3]"), ("YCbCr", "uint8 [2, 3, 3]"), ("F", "float32 [2, 3]"),
    ],
)  # fmt: skip
def test_images_of_pillow_become_arrays(mode: str, spec: str) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.full((2, 3, 3), (255, 0, 0), np.uint8)
    source = as_source(Dataset(lambda i: (image.fromarray(pixels).convert(mode), i)))
    assert str(source.spec["image"]) == spec
    if spec == "uint8 [2, 3, 3]":  # colours, and not numbers of a palette or of inks
        assert np.abs(read_all(source)["image"] - pixels.astype(int)).max() <= 8
    check_source(source)


def test_a_palette_with_transparency_keeps_it() -> None:
    image = pytest.importorskip("PIL.Image")
    icon = image.new("P", (3, 2))
    icon.info["transparency"] = 0
    assert read_all(as_source([(icon, 1)]))["image"][..., 3].tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_classes_are_named_as_torchvision_names_them() -> None:
    class WithClasses(Dataset):
        classes = ["cat", "dog"]  # noqa: RUF012

    assert as_source(WithClasses(lambda i: (IMAGES[i], i % 2))).class_names == ("cat", "dog")
    WithClasses.classes = [0, 1]
    assert as_source(WithClasses(lambda i: (IMAGES[i], i % 2))).class_names == ()


def test_datasets_of_torch() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), torch.arange(7))
    source = as_source(torch.utils.data.Subset(data, [6, 0]))
    assert {leaf: str(part) for leaf, part in source.spec.items()} == {"image": "uint8 [2, 2, 1]", "label": "int64 []"}
    np.testing.assert_array_equal(read_all(source)["image"], IMAGES[[6, 0]])

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[int]:
            return iter([])

        def __len__(self) -> int:
            return 3

    for stream in (Stream(), torch.utils.data.DataLoader(data)):
        with pytest.raises(
            ConfigError, match=r" is no source: it gives its records in order alone, .*datamix\.prepare"
        ):
            _ = as_source(stream).spec
    with pytest.raises(DataError, match=r"^leaf 'image' of record 0 is Tensor, and no array: .*detach\(\)"):
        _ = as_source([(torch.zeros(2, requires_grad=True), 1)]).spec


def test_datasets_of_hugging_face(shared_data: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    splits = datasets.load_from_disk(str(shared_data / "huggingface" / "mnist_small"))
    source = as_source(splits["test"])
    assert (source.num_records, source.class_names) == (200, tuple("0123456789"))
    images = read_all(source)["image"]
    made = as_source(splits["test"].with_transform(lambda records: records))  # by code, as they are read
    assert (made.class_names, str(made.spec["image"])) == (tuple("0123456789"), "uint8 [28, 28]")
    np.testing.assert_array_equal(read_all(made)["image"], images[..., 0])
    check_source(made)
    with pytest.raises(ConfigError, match=r"^DatasetDict holds splits, .* data\['train'\]\.$"):
        as_source(splits)
    with pytest.raises(ConfigError, match=r"^source 'a': DatasetDict holds splits"):
        datamix.mix({"a": splits})
    stream = splits["test"].to_iterable_dataset()
    with pytest.raises(ConfigError, match=r"^IterableDataset is no source: .*datamix\.prepare\(NAME, records, limit="):
        as_source(stream)
    kept = datamix.prepare("few", stream, limit=20, directory=tmp_path)  # as the error advises
    np.testing.assert_array_equal(read_all(kept)["image"], images[:20, ..., 0])


def test_sources_of_grain() -> None:
    grain = pytest.importorskip("grain")
    data = grain.MapDataset.source([{"label": i} for i in range(5)]).map(lambda record: {"label": record["label"] + 1})
    assert read_all(as_source(data))["label"].tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match=r"^PrefetchIterDataset is no source: .*datamix\.prepare"):
        as_source(data.to_iter_dataset())


def test_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [0.5, 1.5], "name": ["a", "b"], "label": [3, 4], "when": pandas.to_datetime([0, 1])})
    source = as_source(frame)
    assert {leaf: str(part) for leaf, part in source.spec.items()} == {"x": "float64 []", "label": "int64 []"}
    assert source.notes == ("name, when: no numbers, and left out.",)
    assert read_all(source)["label"].tolist() == [3, 4]
    nested = datamix.mix({"both": {"a": frame[["x", "label"]], "b": frame[["x", "label"]]}}, batch_size=2)
    assert list(nested.plan.report().sources) == ["both.a", "both.b"]
    with pytest.raises(DataError, match=r"^DataFrame has no column of numbers; its columns are name\.$"):
        as_source(frame[["name"]])


def test_structured_arrays() -> None:
    rows = np.array([((1, 2), 3, "a"), ((4, 5), 6, "b")], [("x", "f4", (2,)), ("label", "i4"), ("name", "U1")])
    source = as_source(rows)
    assert (source.read()["x"].tolist(), source.notes) == ([[1, 2], [4, 5]], ("name: no numbers, and left out.",))


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_pair_of_arrays_is_images_and_labels(kind: type) -> None:
    source = as_source(kind([IMAGES, np.arange(7)]))
    assert isinstance(source, MemoryArrays)
    assert source.read()["image"] is IMAGES
    with pytest.raises(
        DataError, match=r"the same length along their first axis; found image \[7, 2, 2, 1\], label \[6\]"
    ):
        as_source(kind([IMAGES, np.arange(6)]))


def test_objects_are_asked_by_one_thread_at_a_time() -> None:
    inside = []

    def record(index: int) -> dict[str, Any]:
        inside.append(index)
        time.sleep(0.001)
        assert inside == [index]
        inside.remove(index)
        return as_dict(index)

    source = as_source(Dataset(record))
    whole = read_all(source)
    out = {leaf: np.zeros((40, *part.shape), part.dtype) for leaf, part in source.spec.items()}
    indices = np.arange(40) % 7
    with ThreadPoolExecutor(4) as pool:
        pieces = [
            (indices[i : i + 10], {leaf: values[i : i + 10] for leaf, values in out.items()}) for i in (0, 10, 20, 30)
        ]
        list(pool.map(lambda piece: source.take(*piece), pieces))
    for leaf, values in out.items():
        np.testing.assert_array_equal(values, whole[leaf][indices])


def test_they_go_to_other_processes() -> None:
    source = pickle.loads(pickle.dumps(as_source([as_dict(i) for i in range(7)])))
    assert read_all(source)["label"].tolist() == list(range(7))
    assert read_all(copy.deepcopy(source))["label"].tolist() == list(range(7))


def generator() -> Iterator[dict[str, int]]:
    yield {"label": 1}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            generator(),
            ConfigError,
            r"^generator is no source: .* in order alone, .*; datamix\.prepare\(NAME, records, limit=…\) writes ",
        ),
        (iter([1]), ConfigError, r"list_iterator is no source: it gives its records in order alone"),
        (3, ConfigError, r"^int is no source; it needs len\(\), and \[i\] that gives record i\.$"),
        (None, ConfigError, r"^NoneType is no source"),
        ("mnist", ConfigError, r"^text is no source; datasets by name are for datamix\.load"),
        (np.zeros((3, 2)), ConfigError, r"^ndarray alone is no source; give arrays by leaf"),
        (
            Dataset({}.__getitem__),
            ConfigError,
            r"^Dataset is no source: its \[0\] raises KeyError: 0; ",
        ),
        ([{"text": "a"}], DataError, r"^leaf 'text' of record 0 is text; .* leave it out, or turn it into numbers\.$"),
        ([{"x": b"a"}], DataError, r"^leaf 'x' of record 0 is bytes; "),
        ([{"x": None}], DataError, r"^leaf 'x' of record 0 is None; "),
        ([{"x": {"y": 1}}], DataError, r"^leaf 'x' of record 0 is a dict; "),
        ([{"x": object()}], DataError, r"^leaf 'x' of record 0 is object; "),
        ([{"x": [[1], [2, 3]]}], DataError, r"^leaf 'x' of record 0 is a list, and no array: "),
        ([3], DataError, r"^record 0 is int; a record is a dict .* or a pair \(image, label\)\.$"),
        ([(1, 2, 3)], DataError, r"^record 0 is a tuple of 3; a record is a dict"),
        (["ab"], DataError, r"^record 0 is text; a record is a dict"),
        ({"x": ["a"]}, DataError, r"^leaf 'x' is <U1; .* leave it out, or turn it into numbers\.$"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, DataError, r"the same length along their first axis"),
    ],
)
def test_what_is_no_source(data: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = as_source(data).spec


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"x": [1, 2, 3]}, r"^leaf 'x' of record 1 is int64 \[3\], but that of record 0 is int64 \[2\]; make all"),
        ({"x": [1.0, 2.0]}, r"^leaf 'x' of record 1 is float64 \[2\], but that of record 0 is int64 \[2\]"),
        ({"y": [1, 2]}, r"^record 1 has the leaves \['y'\], but record 0 has \['x'\]"),
        ({"x": [1, 2], "y": 1}, r"^record 1 has the leaves \['x', 'y'\], but record 0 has \['x'\]"),
        ({"x": None}, r"^leaf 'x' of record 1 is None"),
    ],
)
def test_a_record_that_differs_is_named(second: dict[str, Any], message: str) -> None:
    source = as_source([{"x": [1, 2]}, second])
    with pytest.raises(DataError, match=message):
        read_all(source)


def test_fewer_records_than_were_asked_for() -> None:
    class Short(Blocks):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            return super().__getitems__(indices[1:])

    with pytest.raises(DataError, match=r"^__getitems__ gives 6 records for 7 indices\.$"):
        read_all(as_source(Short(as_dict)))


@pytest.mark.parametrize("names", [["a", "a", "b"], ["1", 1, "b"]])
def test_a_data_frame_with_two_columns_of_one_name_is_refused(names: list[Any]) -> None:
    frame = pytest.importorskip("pandas").DataFrame([[1, 2, 3], [3, 4, 5]], columns=names)
    with pytest.raises(DataError, match=rf"^a DataFrame has several columns '{names[0]}'; rename them\.$"):
        as_source(frame)
    frame.columns = ["a", "c", "b"]
    assert list(as_source(frame).spec) == ["a", "c", "b"]
