"""Tar files of WebDataset: which members make which record, what is refused, and that the index is kept."""

from __future__ import annotations

import io
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import datamix
from datamix.errors import ConfigError, DataError
from datamix.sources.image_folder import image_folder
from datamix.sources.webdataset import webdataset
from datamix.testing import check_source

SIZE = {"height": 8, "width": 8}


def png(value=0, size=(8, 8)):
    file = io.BytesIO()
    Image.new("L", size, value).save(file, "PNG")
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(path, members, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **settings) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture
def opened(tmp_path):
    """Opens a dataset with a cache of its own."""
    return lambda path, **settings: webdataset(path=path, cache_dir=str(tmp_path / "cache"), **{**SIZE, **settings})


def read(source):
    out = {leaf: np.empty((source.num_records, *part.shape), part.dtype) for leaf, part in source.spec.items()}
    source.take(np.arange(source.num_records), out)
    return out


def pairs(count, first=0):
    return [
        each
        for number in range(first, first + count)
        for each in ((f"d/{number:03}.png", png(number)), (f"d/{number:03}.cls", f"{number % 3}\n".encode()))
    ]


def test_members_of_one_key_are_a_record(tmp_path, opened):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = write(
        tmp_path / "a.tar",
        [
            ("d.x/one.PNG", png(1)),
            ("d.x/one.cls", b"7"),
            ("d.x/one.npy", npy(array)),
            ("two.npy", npy(array + 1)),  # in any order
            ("two.cls", b" 12\n"),
            ("two.png", png(2)),
        ],
    )
    source = opened(path)
    assert {leaf: str(part) for leaf, part in source.spec.items()} == {
        "image": "uint8 [8, 8, 1]",
        "label": "int64 []",
        "array": "float32 [2, 3]",
    }
    records = read(source)
    assert records["image"][:, 0, 0, 0].tolist() == [1, 2]
    assert records["label"].tolist() == source.whole_labels().tolist() == [7, 12]
    assert (records["array"] == [array, array + 1]).all()
    assert source.places(np.array([1, 0])) == [f"{path}: two", f"{path}: d.x/one"]
    check_source(source)


def test_arrays_of_one_number_are_numbers(tmp_path, opened):
    path = write(tmp_path / "a.tar", [(f"{number}.npy", npy(np.float32(number / 2))) for number in range(3)])
    source = opened(path)
    assert {leaf: str(part) for leaf, part in source.spec.items()} == {"array": "float32 []"}
    assert read(source)["array"].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_file(tmp_path, opened, kind):
    name = "ä/" * 20 + "key"
    source = opened(write(tmp_path / "a.tar", [(f"{name}.png", png(5)), (f"{name}.cls", b"1")], format=kind))
    assert read(source)["image"].max() == 5
    assert source.places(np.array([0]))[0].endswith(f": {name}")


def test_leaves_choose_suffixes(tmp_path, opened):
    members = [("a.1.png", png(1)), ("a.2.png", png(2)), ("a.txt", b"text"), ("b.1.png", png(3)), ("b.2.jpeg", png(4))]
    path = write(tmp_path / "a.tar", [*members, ("README", b""), ("b.json", b"{}"), ("c.txt", b"")])
    source = opened(path, leaves={"image": "1.png", "mask": "2.png;2.jpeg"})
    records = read(source)
    assert [records[leaf][:, 0, 0, 0].tolist() for leaf in ("image", "mask")] == [[1, 3], [2, 4]]
    assert source.notes == (
        "4 members are left out: 2 .txt, 1 without a suffix, 1 .json; leaves={LEAF: SUFFIX} chooses.",
    )


def test_shards_follow_one_another_and_splits_have_their_own(tmp_path, opened):
    write(tmp_path / "data" / "b.tar", pairs(4, 10))
    write(tmp_path / "data" / "a.tar", pairs(4))
    write(tmp_path / "data" / "c.tar", pairs(2, 20))
    folder = opened(str(tmp_path / "data"))
    assert read(folder)["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21]
    assert folder.block_records == 4
    paths = {"train": str(tmp_path / "data" / "[ab].tar"), "test": str(tmp_path / "data" / "c.tar")}
    test = opened(paths, split="test+train[:1]")
    assert read(test)["image"][:, 0, 0, 0].tolist() == [20, 21, 0]
    assert len(test.whole_labels()) == 10
    assert opened([str(tmp_path / "data" / "c.tar"), paths["train"]]).block_records is None
    with pytest.raises(ConfigError, match="there is no split 'val'"):
        opened(paths, split="val")


def test_the_index_is_kept_until_a_file_changes(tmp_path, opened, monkeypatch):
    path = write(tmp_path / "a.tar", pairs(3))
    first = read(opened(path))
    with monkeypatch.context() as patch:
        patch.delattr(tarfile, "open")
        assert (read(opened(path))["image"] == first["image"]).all()
    write(tmp_path / "a.tar", pairs(2, 5))
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert read(opened(path))["image"][:, 0, 0, 0].tolist() == [5, 6]


def test_a_file_that_changes_or_goes_while_it_is_read(tmp_path, opened):
    path = write(tmp_path / "a.tar", pairs(3))
    source = opened(path)
    write(tmp_path / "a.tar", pairs(30))
    with pytest.raises(DataError, match=r"a\.tar: d/000: the tar file has changed since it was indexed; start again"):
        read(source)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"a\.tar: d/000 cannot be read: No such file"):
        read(source)


def test_many_threads_read_at_once(tmp_path, opened):
    source = opened(write(tmp_path / "a.tar", pairs(200)))
    rows = np.random.default_rng(0).permutation(200)
    out = np.empty((200, 8, 8, 1), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda part: source.take(rows[part], {"image": out[part]}),
                [slice(i, i + 25) for i in range(0, 200, 25)],
            )
        )
    assert (out[:, 0, 0, 0] == rows).all()


@pytest.mark.parametrize("part", [100, 512, 700, 1024, 2300, 3072])
def test_a_truncated_file(tmp_path, opened, part):
    write(tmp_path / "whole.tar", pairs(2))
    content = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:part])
    with pytest.raises(DataError, match=r"a\.tar: it is .*damaged or truncated"):
        opened(str(tmp_path / "a.tar"))


def test_a_negative_size_does_not_lead_around_for_ever(tmp_path, opened):
    content = bytearray((tmp_path / write(tmp_path / "a.tar", pairs(2))).read_bytes())
    content[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 to the base 256
    content[148:156] = b" " * 8
    content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar: it is no tar file, or a damaged or truncated one"):
        opened(str(tmp_path / "a.tar"))


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, opened):
    content = bytearray((tmp_path / write(tmp_path / "a.tar", pairs(4))).read_bytes())
    begin = content.index(b"d/002.png")
    content[begin : begin + 40] = b"\xff" * 40
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar: it is damaged or truncated: no tar file ends so"):
        opened(str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*pairs(2), ("d/001.cls", b"1")], r"a\.tar: d/001 has label twice; the second one is d/001\.cls"),
        ([*pairs(2), ("d/001.jpg", b"1")], r"a\.tar: d/001 has image twice; the second one is d/001\.jpg"),
        (pairs(3)[:-1], r"1 sample has no label, the first one .*a\.tar: d/002\. Delete such"),
        (pairs(3)[1:], r"1 sample has no image, the first one .*a\.tar: d/000\."),
        ([pairs(4)[i] for i in (0, 1, 2, 4)], r"2 samples have no label, the first one .*d/001\."),
        ([("1.cls", b"cat"), ("1.png", png())], r"a\.tar: 1\.cls holds 'cat'; a class is a number in digits"),
        ([("1.cls", b""), ("1.png", png())], r"a\.tar: 1\.cls holds ''; a class"),
        ([("1.txt", b"cat"), ("2.json", b"")], r"a\.tar holds no member KEY\.png, .*, but 1 \.txt, 1 \.json"),
        ([], r"a\.tar holds no member KEY\.png, .*, but nothing"),
        ([("a.1.5.png", png())], r"a\.tar holds no member KEY\.png, .*, but 1 \.1\.5\.png"),
    ],
)
def test_samples_that_do_not_fit(tmp_path, opened, members, message):
    path = write(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=message):
        opened(path)


def test_a_member_that_cannot_be_read_is_named(tmp_path, opened):
    arrays = [npy(np.zeros(2)), npy(np.zeros(3)), b"none", npy(np.zeros(2))[:-3]]
    members = [each for i, array in enumerate(arrays) for each in ((f"{i}.npy", array), (f"{i}.png", png()[:40]))]
    source = opened(write(tmp_path / "a.tar", members))
    image, array = np.empty((1, 8, 8, 1), np.uint8), np.empty((1, 2))
    with pytest.raises(DataError, match=r"a\.tar: 0: it is .*no"):
        source.take(np.array([0]), {"image": image})
    for record, message in {1: r"array is float64 \[3\], but float64 \[2\] in the first sample", 2: "array is no array",
                            3: "array is no array that can be read"}.items():  # fmt: skip
        with pytest.raises(DataError, match=rf"a\.tar: {record}: {message}"):
            source.take(np.array([record]), {"array": array})


def test_arrays_of_objects_are_not_unpickled(tmp_path, opened):
    path = write(tmp_path / "a.tar", [("1.npy", npy(np.array([{}], object)))])
    with pytest.raises(DataError, match=r"a\.tar: 1: array is no array that can be read: Object arrays"):
        _ = opened(path).spec


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.zst", ".TAR.GZ"])
def test_a_packed_file_is_refused(tmp_path, opened, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"a{suffix} is packed, .* Unpack it to a \.tar file, and name that"):
        opened(str(tmp_path))


def test_a_packed_file_under_another_name(tmp_path, opened):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(1000))
    with pytest.raises(DataError, match=r"a\.tar: it is no tar file, or a damaged or truncated one"):
        opened(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leaves": {"image": "png", "text": "txt"}}, r"leaves\.text = 'txt'; a leaf is made of images"),
        ({"leaves": {"image": "png", "mask": "png"}}, r"leaves\.mask = 'png'; png is the leaf image"),
        ({"leaves": {"image": 3}}, r"leaves\.image = 3; a leaf is made of images"),
        ({"leaves": {"image": "png;cls"}}, r"leaves\.image = 'png;cls'; a leaf is made of images"),
        ({"height": None}, "height is missing; the first images are 8 pixels high and 8 wide"),
        ({"fit": "stretch"}, "fit = 'stretch'. Known: crop, pad, resize"),
    ],
)
def test_a_setting_that_is_not_allowed(tmp_path, opened, settings, message):
    path = write(tmp_path / "a.tar", pairs(2))
    with pytest.raises(ConfigError, match=message):
        opened(path, **settings)


def test_a_file_that_is_not_there(tmp_path, opened):
    write(tmp_path / "photos.tar", pairs(2))
    with pytest.raises(DataError, match=r"path = .*; there is no such file.* Did you mean '.*/photos.tar'\?"):
        opened(str(tmp_path / "photo.tar"))


def test_photos_are_those_of_the_folder(shared_data, opened):
    shards = opened(str(shared_data / "webdataset"), mode="RGB")
    folder = image_folder(path=str(shared_data / "photos"), mode="RGB", **SIZE)
    assert (shards.num_records, shards.block_records) == (80, 40)
    ours, theirs = (sorted(image.tobytes() for image in read(source)["image"]) for source in (shards, folder))
    assert ours == theirs
    assert np.bincount(read(shards)["label"]).tolist() == [40, 40]


def test_real_shards_in_a_mix_with_digits(shared_data, cache_dir):
    pipeline = datamix.load(
        "source=mnist+my_webdataset",
        f"source.my_webdataset.path={shared_data / 'webdataset'}",
        "batch.size=40",
        f"data.dir={shared_data / 'tensorflow_datasets'}",
        f"data.cache={cache_dir}",
    )
    batch = pipeline[0]
    assert np.bincount(batch["source_id"]).tolist() == [20, 20]
    assert set(batch["label"][batch["source_id"] == 1].tolist()) == {10, 11}
    assert any(path.name.startswith("photos-000000.tar-index-") for path in cache_dir.iterdir())


def test_samples_that_lack_a_leaf_are_deleted_or_the_leaf_is_left_out(tmp_path):
    members = [each for each in pairs(4) if each[0] != "d/002.png"]
    path = write(tmp_path / "a.tar", members)
    of = "source.my_webdataset"
    mix = [
        f"source={of[7:]}",
        f"{of}.path={path}",
        f"data.cache={tmp_path}/cache",
        f"{of}.operators=[]",
        "batch.size=2",
    ]
    with pytest.raises(DataError) as raised:
        datamix.load(*mix)
    assert str(raised.value).partition(". Delete")[2] == " such samples, or leave the leaf out by leaves.image=null."
    with pytest.warns(UserWarning, match=r"3 members are left out: 3 \.png;"):
        assert sorted(datamix.load(*mix, f"{of}.leaves.image=null").spec) == ["label", "source_id"]
    write(tmp_path / "a.tar", [each for each in members if "002" not in each[0]])
    assert datamix.load(*mix, "batch.remainder=keep").plan.length == 3
    with pytest.raises(DataError, match=r" or leave the leaf out by leaves=\{label: cls\}\.$"):
        webdataset(path=write(tmp_path / "b.tar", members), cache_dir=str(tmp_path / "cache"), **SIZE)
    alone = webdataset(path=str(tmp_path / "b.tar"), leaves={"label": "cls"}, cache_dir=str(tmp_path / "cache"))
    assert alone.num_records == 4
