from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError, DataError
from datamix.sources.arrays import MemoryArrays, arrays
from datamix.sources.base import LabelledSource, Source
from datamix.spec import LeafSpec, spec_of
from datamix.testing import check_source

IMAGE = np.arange(6 * 2 * 2, dtype=np.uint8).reshape(6, 2, 2, 1)
LABEL = np.array([3, 1, 2, 0, 1, 2])


@pytest.fixture
def npz(tmp_path: Path) -> str:
    np.savez(tmp_path / "few.npz", image=IMAGE, label=LABEL)
    return str(tmp_path / "few.npz")


@pytest.fixture
def npys(tmp_path: Path) -> dict[str, str]:
    np.save(tmp_path / "image.npy", IMAGE)
    np.save(tmp_path / "label.npy", LABEL)
    return {leaf: str(tmp_path / f"{leaf}.npy") for leaf in ("image", "label")}


@pytest.fixture(params=["npz", "npys"])
def files(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The same six records as one .npz file, and as .npy files."""
    return {"path" if request.param == "npz" else "files": request.getfixturevalue(request.param)}


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for leaf in want:
        np.testing.assert_array_equal(got[leaf], want[leaf], strict=True)


def test_what_is_read_is_what_was_said(files: dict[str, Any]) -> None:
    source = arrays(**files)
    assert isinstance(source, Source)
    assert (source.provenance, source.num_records, source.class_names) == ("arrays", 6, ())
    assert source.spec == {"image": LeafSpec((2, 2, 1), "uint8"), "label": LeafSpec((), "int64")}
    assert spec_of(source.read()) == source.spec
    assert_same(source.read(), {"image": IMAGE, "label": LABEL})


@pytest.mark.parametrize(
    ("split", "records"),
    [
        ("train[:4]", [0, 1, 2, 3]),
        ("train[-50%:]", [3, 4, 5]),
        ("train[1:3]+train[:1]+train[4:90]", [1, 2, 0, 4, 5]),
        ("train[:0]", []),
    ],
)
def test_split(files: dict[str, Any], split: str, records: list[int]) -> None:
    source = arrays(**files, split=split)
    assert source.num_records == len(records)
    assert_same(source.read(), {"image": IMAGE[records], "label": LABEL[records]})


@pytest.mark.parametrize("split", ["train", "train[1:3]+train[:1]+train[5:5]+train[4:90]", "train[:0]"])
def test_records_are_taken_by_their_number(files: dict[str, Any], split: str) -> None:
    source = arrays(**files, split=split)
    check_source(source)
    whole = source.read()
    indices = np.array([2, 0, 2, 3, 1] if source.num_records else [], np.int64)
    out = {"image": np.zeros((len(indices), 2, 2, 1), np.uint8), "label": np.zeros(len(indices), np.int64)}
    source.take(indices, out)
    assert_same(out, {leaf: values[indices] for leaf, values in whole.items()})


def test_the_one_split_is_called_train(npz: str) -> None:
    with pytest.raises(ConfigError, match=r"^split = 'test'; there is no split 'test'\. Known: train\.$"):
        arrays(path=npz, split="test")


def test_leaves_are_chosen_and_renamed(npz: str) -> None:
    source = arrays(path=npz, leaves={"target": "label"})
    assert source.spec == {"target": LeafSpec((), "int64")}
    assert_same(source.read(), {"target": LABEL})
    assert_same(arrays(path=npz, leaves={"a": "label", "b": "label"}).read(), {"a": LABEL, "b": LABEL})


def test_unknown_leaf(npz: str) -> None:
    message = r"^leaves\.image: .*few\.npz holds no array 'imag'\. Did you mean 'image'\? Known: image, label\.$"
    with pytest.raises(ConfigError, match=message):
        arrays(path=npz, leaves={"image": "imag"})


def test_a_home_directory(npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arrays(path="~/few.npz").num_records == 6
    np.save(tmp_path / "label.npy", LABEL)
    assert_same(arrays(files={"label": "~/label.npy"}).read(), {"label": LABEL})


def test_real_data(shared_data: Path) -> None:
    source = arrays(path=str(shared_data / "digits8x8.npz"), split="train[1000:]")
    assert source.num_records == 797
    assert source.spec == {"image": LeafSpec((8, 8, 1), "uint8"), "label": LeafSpec((), "int64")}
    with np.load(shared_data / "digits8x8.npz") as whole:
        assert_same(source.read(), {leaf: whole[leaf][1000:] for leaf in ("image", "label")})


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("fortran", [False, True])
def test_every_version_of_the_format(tmp_path: Path, version: tuple[int, int], fortran: bool) -> None:
    value = np.arange(6, dtype=np.float32).reshape(3, 2)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asfortranarray(value) if fortran else value, version=version)
    source = arrays(files={"x": str(tmp_path / "x.npy")}, split="train[1:]")
    assert source.spec == {"x": LeafSpec((2,), "float32")}
    assert_same(source.read(), {"x": value[1:]})


def test_size_and_spec_are_known_from_the_headers_alone(
    npz: str, npys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(npys["image"]).open("r+b") as file:
        file.truncate(128)  # the header, and nothing behind it
    assert arrays(files=npys).num_records == 6
    assert arrays(files=npys).spec == arrays(path=npz).spec
    monkeypatch.delattr(np, "load")
    assert arrays(path=npz).num_records == 6


def test_npy_files_are_mapped_into_memory(npys: dict[str, str]) -> None:
    assert isinstance(arrays(files=npys, split="train[2:]").read()["image"], np.memmap)


def test_neither_or_both_of_path_and_files(npz: str, npys: dict[str, str]) -> None:
    message = r"^an arrays source takes either path, an \.npz file, or files, an \.npy file for each leaf\.$"
    with pytest.raises(ConfigError, match=message):
        arrays()
    with pytest.raises(ConfigError, match=message):
        arrays(path=npz, files=npys)


def test_leaves_are_of_an_npz_file(npys: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^leaves chooses among the arrays of an \.npz file; files names its leaves"):
        arrays(files=npys, leaves={"target": "label"})


def test_missing_file(npz: str, npys: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"^nowhere\.npz: there is no such file \(looked for it at /.*/nowhere\.npz\)"):
        arrays(path="nowhere.npz")
    Path(npys["label"]).unlink()
    with pytest.raises(DataError, match=r"label\.npy: there is no such file"):
        arrays(files=npys)
    source = arrays(path=npz)
    Path(npz).unlink()
    with pytest.raises(DataError, match=r"few\.npz cannot be read: .*No such file"):
        source.read()


@pytest.mark.usefixtures("permissions_count")
def test_a_file_that_may_not_be_read_is_not_damaged(npz: str, npys: dict[str, str]) -> None:
    Path(npz).chmod(0)
    with pytest.raises(DataError, match=r"few\.npz cannot be read: Permission denied$"):
        arrays(path=npz)
    Path(npys["label"]).chmod(0)
    with pytest.raises(DataError, match=r"label\.npy cannot be read: Permission denied$"):
        arrays(files=npys)


@pytest.mark.parametrize("size", [0, 5, 400, -10])
def test_truncated_npz(npz: str, size: int) -> None:
    content = Path(npz).read_bytes()
    Path(npz).write_bytes(content[:size])
    with pytest.raises(DataError, match=r"few\.npz is no \.npz file, or a damaged one: File is not a zip file\.$"):
        arrays(path=npz)


@pytest.mark.parametrize("size", [0, 5, 60])
def test_npy_truncated_in_its_header(npys: dict[str, str], size: int) -> None:
    content = Path(npys["image"]).read_bytes()
    Path(npys["image"]).write_bytes(content[:size])
    with pytest.raises(DataError, match=r"image\.npy is no \.npy file, or a damaged one: EOF: reading .* got \d+\.$"):
        arrays(files=npys)


@pytest.mark.parametrize("size", [128, -1])
def test_npy_truncated_behind_its_header(npys: dict[str, str], size: int) -> None:
    content = Path(npys["image"]).read_bytes()
    Path(npys["image"]).write_bytes(content[:size])
    with pytest.raises(DataError, match=r"image\.npy cannot be read: mmap length is greater than file size\.$"):
        arrays(files=npys).read()


def test_a_file_of_the_other_kind(npz: str, npys: dict[str, str]) -> None:
    with pytest.raises(
        DataError, match=r"few\.npz is no \.npy file, or a damaged one: the magic string is not correct"
    ):
        arrays(files={"image": npz})
    with pytest.raises(DataError, match=r"image\.npy is no \.npz file, or a damaged one: File is not a zip file\.$"):
        arrays(path=npys["image"])
    with pytest.raises(DataError, match=r" is no file\.$"):
        arrays(files={"image": str(Path(npz).parent)})


@pytest.fixture(scope="module", params=["npz", "compressed npz", "npy"])
def whole_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, bytes]:
    """The setting, the file and its content; 400 numbers below 9 compress to dynamic Huffman codes."""
    path = tmp_path_factory.mktemp("damage") / ("x.npy" if request.param == "npy" else "x.npz")
    x = np.random.default_rng(0).integers(0, 9, 400).astype(np.uint8)
    if request.param == "npy":
        np.save(path, x)
    else:
        (np.savez if request.param == "npz" else np.savez_compressed)(path, x=x)
    return request.param, path, path.read_bytes()


# A byte may become the L of a number as Python 2 wrote it, which NumPy reads, and says so.
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing:UserWarning")
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_byte_is_a_data_error_or_harmless(whole_file: tuple[str, Path, bytes], data: st.DataObject) -> None:
    kind, path, content = whole_file
    damaged = bytearray(content)
    place = data.draw(st.integers(0, 127 if kind == "npy" else len(content) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    error, read = "", {}
    try:
        read = (arrays(files={"x": str(path)}) if kind == "npy" else arrays(path=str(path), leaves={"x": "x"})).read()
    except (ConfigError, DataError) as raised:
        error = str(raised)
    # Any damage may be to the array's name, and some is to bytes that nobody reads.
    assert (str(path) in error) if error else (read.keys() == {"x"})


@pytest.mark.parametrize(
    ("place", "byte"),
    [
        pytest.param(8, 0x63, id="compressed in a way zipfile does not know"),
        pytest.param(6, 0x01, id="encrypted"),
    ],
)
def test_a_zip_that_cannot_be_unpacked(npz: str, place: int, byte: int) -> None:
    content = bytearray(Path(npz).read_bytes())
    content[content.index(b"PK\x01\x02") + place + 2] = byte  # the central directory's copy of the field
    content[place] = byte
    Path(npz).write_bytes(content)
    with pytest.raises(DataError, match=r"few\.npz is no \.npz file, or a damaged one: .*(compression|encrypted)"):
        arrays(path=npz)


def test_a_damaged_compressed_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 9, 400))
    content = bytearray(path.read_bytes())
    content[55:75] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz (is no \.npz file, or a damaged one|cannot be read): .*decompressing"):
        arrays(path=str(path)).read()


def test_a_header_that_does_not_parse(npys: dict[str, str]) -> None:
    content = Path(npys["label"]).read_bytes()
    Path(npys["label"]).write_bytes(content.replace(b"}", b"("))
    with pytest.raises(DataError, match=r"label\.npy is no \.npy file, or a damaged one"):
        arrays(files=npys)


@pytest.mark.parametrize("shape", ["(-9,)", "(9, True)", "(9, -1)"])
def test_a_header_whose_sizes_are_none(tmp_path: Path, shape: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((9, 9), np.float32))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(9, 9), }     ", f"{shape}, }}".encode().ljust(14)))
    with pytest.raises(
        DataError, match=r"x\.npy is no \.npy file, or a damaged one: its header says that its shape is"
    ):
        arrays(files={"x": str(tmp_path / "x.npy")})


class _Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = np.array([_Trap(sprung)], dtype=object)
    np.save(tmp_path / "x.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=trap)
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps(_Trap(sprung)))
    with pytest.raises(DataError, match=r"x\.npy holds Python objects, which are never unpickled; save numbers\.$"):
        arrays(files={"x": str(tmp_path / "x.npy")})
    with pytest.raises(DataError, match=r"x\.npz: array 'x' holds Python objects, which are never unpickled; choose "):
        arrays(path=str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match=r"pickled\.npy is no \.npy file, or a damaged one: the magic string"):
        arrays(files={"x": str(tmp_path / "pickled.npy")})
    assert not sprung.exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert sprung.exists()  # the trap does spring


def test_what_is_not_chosen_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, image=IMAGE, meta=np.array({"by": "hand"}, dtype=object))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "Six images.")
    assert_same(arrays(path=str(path), leaves={"image": "image"}).read(), {"image": IMAGE})
    with pytest.raises(DataError, match=r"x\.npz: array 'meta' holds Python objects, .* choose others with leaves\.$"):
        arrays(path=str(path))
    with pytest.raises(ConfigError, match=r"holds no array 'README\.txt'\. Known: image, meta\. '~source\.NAME\."):
        arrays(path=str(path), leaves={"image": "README.txt"})


@pytest.mark.parametrize(
    ("different", "found"),
    [
        ({"a": np.arange(3), "b": np.zeros((4, 2))}, r"a \[3\], b \[4, 2\]"),
        ({"a": np.arange(3), "b": np.array(4)}, r"a \[3\], b \[\]"),
        ({"a": np.array(3)}, r"a \[\]"),
        ({}, "none"),
    ],
)
def test_lengths_must_agree(tmp_path: Path, different: dict[str, np.ndarray], found: str) -> None:
    message = rf"the arrays need the same length along their first axis; found {found}\.$"
    np.savez(tmp_path / "x.npz", **different)
    with pytest.raises(DataError, match=rf"x\.npz: {message}"):
        arrays(path=str(tmp_path / "x.npz"))
    for leaf, value in different.items():
        np.save(tmp_path / f"{leaf}.npy", value)
    with pytest.raises(DataError, match=rf"^files: {message}"):
        arrays(files={leaf: str(tmp_path / f"{leaf}.npy") for leaf in different})
    with pytest.raises(DataError, match=rf"^{message}"):
        MemoryArrays(different)


def test_memory() -> None:
    source = MemoryArrays({"image": IMAGE, "label": LABEL}, provenance="digits", class_names=("a", "b", "c", "d"))
    assert isinstance(source, Source)
    assert (source.provenance, source.num_records, source.class_names) == ("digits", 6, ("a", "b", "c", "d"))
    assert source.spec == {"image": LeafSpec((2, 2, 1), "uint8"), "label": LeafSpec((), "int64")}
    assert source.read()["image"] is IMAGE
    assert MemoryArrays({"x": np.zeros((0, 3))}).num_records == 0
    assert MemoryArrays({"x": IMAGE}).provenance == "arrays"


def test_the_labels_of_the_whole_file_are_known_to_every_slice(tmp_path):
    np.savez(tmp_path / "x.npz", y=np.arange(10), x=np.zeros(10))
    source = arrays(path=str(tmp_path / "x.npz"), leaves={"label": "y"}, split="train[2:4]")
    assert isinstance(source, LabelledSource)
    assert source.read()["label"].tolist() == [2, 3]
    assert source.whole_labels().tolist() == list(range(10))


# Arrays that are called after splits ----------------------------------------------------------------------------------


@pytest.fixture
def keras(tmp_path: Path) -> str:
    other = {"x_test": IMAGE[::-1], "y_test": LABEL[::-1] + 4, "x_val": IMAGE[:2], "y_val": LABEL[:2]}
    np.savez(tmp_path / "keras.npz", x_train=IMAGE, y_train=LABEL, **other)
    return str(tmp_path / "keras.npz")


@pytest.mark.parametrize("leaves", [None, {"image": "x_train", "label": "y_train"}])
def test_arrays_called_after_splits_are_splits(keras: str, leaves: dict[str, str] | None) -> None:
    of_split = {split: arrays(path=keras, leaves=leaves, split=split) for split in ("train", "test[1:3]", "val")}
    assert_same(of_split["train"].read(), {"image": IMAGE, "label": LABEL})
    assert_same(of_split["test[1:3]"].read(), {"image": IMAGE[[4, 3]], "label": LABEL[[4, 3]] + 4})
    assert_same(of_split["val"].read(), {"image": IMAGE[:2], "label": LABEL[:2]})
    for source in of_split.values():
        check_source(source)
        assert sorted(source.whole_labels().tolist()) == sorted([*LABEL, *LABEL + 4, *LABEL[:2]])
        told = ("keras.npz: x_train as image, y_train as label; its splits are train, test, val.",)
        assert source.notes == (told if leaves is None else ())
    several = arrays(path=keras, leaves=leaves, split="val+train[4:]")
    check_source(several)
    assert_same(several.read(), {"image": IMAGE[[0, 1, 4, 5]], "label": LABEL[[0, 1, 4, 5]]})
    assert arrays(path=keras, leaves=leaves, split="all").num_records == 14
    with pytest.raises(ConfigError, match=r"^split = 'dev'; there is no split 'dev'\. Known: test, train, val\.$"):
        arrays(path=keras, leaves=leaves, split="dev")


@pytest.mark.parametrize(
    ("names", "leaves"),
    [
        (("train_images", "train_labels", "test_images", "test_labels"), ("image", "label")),
        (("images_train", "weight_train", "images_eval", "weight_eval"), ("image", "weight")),
        (("x_train", "y_train", "x_test", "y_test", "z"), None),  # another array: whose?
        (("x_train", "y_train", "x_test"), None),
        (("x_train", "y_train"), ("x_train", "y_train")),  # no other split, no question
    ],
)
def test_which_names_are_those_of_splits(
    tmp_path: Path, names: tuple[str, ...], leaves: tuple[str, ...] | None
) -> None:
    size = {"train": 3, "test": 2, "eval": 2}
    values = {name: np.zeros((next((n for word, n in size.items() if word in name), 5), 2, 2)) for name in names}
    np.savez(tmp_path / "x.npz", **values)
    if leaves is None:
        with pytest.raises(
            DataError, match=r"x\.npz: the arrays need the same length along their first axis; found x_"
        ):
            arrays(path=str(tmp_path / "x.npz"))
    else:
        assert tuple(arrays(path=str(tmp_path / "x.npz")).spec) == leaves


def test_keras_vectors_are_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.zeros((3, 4)), y_train=LABEL[:3], x_test=np.zeros((2, 4)), y_test=LABEL[:2])
    assert {leaf: part.shape for leaf, part in arrays(path=str(tmp_path / "x.npz")).spec.items()} == {
        "features": (4,), "label": (),
    }  # fmt: skip


def test_splits_that_differ_are_not_read_together(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x_train=IMAGE, y_train=LABEL, x_test=IMAGE[:, :1], y_test=LABEL)
    assert arrays(path=str(path), split="test").spec["image"].shape == (1, 2, 1)
    with pytest.raises(
        DataError, match=r"^splits that are read together are alike, and here image is uint8 \[2, 2, 1\] and "
    ):
        arrays(path=str(path), split="train+test")


def test_names_of_classes_may_lie_beside_the_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, image=IMAGE, label=LABEL, class_names=np.array(["a", "b", "c", "d"]))
    for leaves in (None, {"image": "image", "label": "label"}):
        source = arrays(path=str(path), leaves=leaves)
        assert (source.class_names, sorted(source.spec)) == (("a", "b", "c", "d"), ["image", "label"])
    np.savez(path, image=IMAGE, class_names=np.arange(6))
    assert (arrays(path=str(path)).class_names, len(arrays(path=str(path)).spec)) == ((), 2)
    np.savez(path, image=IMAGE, class_names=np.array([None, "a"], object))
    assert arrays(path=str(path), leaves={"image": "image"}).class_names == ()
