"""Folders of images: which files are records of which class, and what is said of all others."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from PIL import Image

import datamix
from datamix.errors import ConfigError, DataError
from datamix.sources.image_folder import image_folder
from datamix.testing import check_source

SIZE = {"height": 8, "width": 8}


def draw(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, None if path.suffix in Image.registered_extensions() else "PNG")


def read(source):
    out = {leaf: np.empty((source.num_records, *part.shape), part.dtype) for leaf, part in source.spec.items()}
    source.take(np.arange(source.num_records), out)
    return out


def test_classes_are_folders_and_records_their_files_by_name(tmp_path):
    for name, value in {
        "dog/b.png": 3,
        "dog/a.JPG": 9,
        "cat/2.bmp": 2,
        "cat/more/deep/1.gif": 1,
        "cat/10.webp": 7,
    }.items():
        draw(tmp_path / name, value)
    source = image_folder(path=str(tmp_path), **SIZE)
    assert (source.class_names, source.notes) == (("cat", "dog"), ())
    records = read(source)
    assert records["label"].tolist() == source.whole_labels().tolist() == [0, 0, 0, 1, 1]
    assert records["image"][:, 0, 0, 0].tolist() == [7, 2, 1, 9, 3]
    names = ["cat/10.webp", "cat/2.bmp", "cat/more/deep/1.gif", "dog/a.JPG", "dog/b.png"]
    assert source.places(np.arange(5)) == [str(tmp_path / name) for name in names]
    check_source(source)


def test_splits_share_the_numbers_of_their_classes(tmp_path):
    for name in ("Train/b/1.png", "Train/b/2.png", "test/a/1.png", "test/b/1.png", "val/c/1.png"):
        draw(tmp_path / name)
    folder = str(tmp_path)
    sizes = {"train": 2, "test": 2, "val": 1, "all": 5}
    assert {split: image_folder(path=folder, split=split, **SIZE).num_records for split in sizes} == sizes
    test = image_folder(path=folder, split="test[1:]+val", **SIZE)
    assert test.class_names == ("a", "b", "c")
    assert read(test)["label"].tolist() == [1, 2]
    assert sorted(test.whole_labels().tolist()) == [0, 1, 1, 1, 2]
    (tmp_path / "labels.csv").touch()
    assert (
        "1 file is left out, which is no image in a folder of a class: 1 .csv"
        in image_folder(path=folder, **SIZE).notes[0]
    )
    with pytest.raises(ConfigError, match=r"there is no split 'dev'. Known: test, train, val"):
        image_folder(path=folder, split="dev", **SIZE)


def test_folders_named_as_splits_are_classes_beside_others(tmp_path):
    for name in ("train/1.png", "bus/1.png"):
        draw(tmp_path / name)
    source = image_folder(path=str(tmp_path), **SIZE)
    assert source.class_names == ("bus", "train")
    assert source.notes == ("train are read as classes, and not as splits, as other folders lie beside.",)


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        (["outputs/2030-01-01/10-00-00/.hydra/config.yaml", "outputs/2030-01-01/10-00-00/samples.png"], "outputs is"),
        (["outputs/2030-01-01/10-00-00/.hydra/config.yaml", "sweeps/a/multirun.yaml", "sweeps/a/1.png"],
         "outputs, sweeps are"),
        (["one/.hydra/config.yaml", "one/samples.png"], "one is"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("classes", [["cat/1.png", "dog/1.png"], ["train/cat/1.png", "test/dog/1.png"]])
def test_the_output_of_runs_is_no_class(tmp_path, files, left_out, classes):
    for name in (*files, *classes):
        draw(tmp_path / name)
    source = image_folder(path=str(tmp_path), split="all", **SIZE)
    assert (source.class_names, source.num_records) == (("cat", "dog"), 2)
    assert source.notes == (f"{left_out} no class, with the output of runs inside.",)


def test_a_class_with_a_run_inside_stays_a_class(tmp_path):
    for name in ("cat/1.png", "cat/run/.hydra/config.yaml", "cat/run/2.png", "dog/empty/1.png"):
        draw(tmp_path / name)
    source = image_folder(path=str(tmp_path), **SIZE)
    assert (source.class_names, source.num_records, source.notes) == (("cat", "dog"), 3, ())


def test_what_is_left_out_is_told(tmp_path):
    draw(tmp_path / "cat" / "1.png")
    draw(tmp_path / "loose.png")
    for name in ("README.md", "cat/notes.txt", "cat/more.txt", "cat/LICENSE", ".DS_Store", "cat/.hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".git").mkdir()
    source = image_folder(path=str(tmp_path), **SIZE)
    assert source.num_records == 1
    assert source.notes == (
        "5 files are left out, which are no images in a folder of a class: 2 .txt, 1 .md, 1 in no folder of a class, "
        "1 without a suffix.",
        "no image lies in the folder of empty, which is a class all the same.",
    )


def test_links_are_followed_but_not_in_circles(tmp_path):
    draw(tmp_path / "data" / "cat" / "1.png")
    draw(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "data" / "cat" / "back").symlink_to(tmp_path / "data" / "cat")
    (tmp_path / "data" / "cat" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    source = image_folder(path=str(tmp_path / "data"), **SIZE)
    assert read(source)["label"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "path = .*; it holds no image in a folder of a class, such as .*/cat/1.png"),
        (["1.png"], "it holds no image in a folder of a class.* If test_.* is a class, name the folder"),
        (["cat/1.txt"], r"it holds no image in a folder of a class.* 1 \.txt"),
    ],
)
def test_a_folder_without_images(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        image_folder(path=str(tmp_path), **SIZE)


def test_a_path_that_is_no_folder(tmp_path):
    draw(tmp_path / "cat" / "1.png")
    (tmp_path / "cats.txt").touch()
    with pytest.raises(DataError, match=rf"there is no such folder .* Did you mean '{re.escape(str(tmp_path))}/cat'\?"):
        image_folder(path=str(tmp_path / "cats"), **SIZE)
    with pytest.raises(DataError, match=r"path = '.*/1\.png'; this is no folder\."):
        image_folder(path=str(tmp_path / "cat" / "1.png"), **SIZE)
    with pytest.raises(DataError, match=r"there is no such folder .* Copy it to this machine first\."):
        image_folder(path="s3://bucket/pets", **SIZE)


def test_height_and_width_are_asked_for_with_the_sizes_there_are(tmp_path):
    draw(tmp_path / "a" / "1.png", size=(20, 30))
    draw(tmp_path / "b" / "1.png", size=(50, 40))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").write_bytes(b"no image")
    text = "the first images are 30 to 40 pixels high and 20 to 50 wide. Set height and width."
    with pytest.raises(ConfigError, match=f"height is missing; {text}"):
        image_folder(path=str(tmp_path))
    with pytest.raises(ConfigError, match=f"width is missing; {text}"):
        image_folder(path=str(tmp_path), height=8)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for name in ("a/1.png", "a/2.png", "a/3.png"):
        draw(tmp_path / name)
    source = image_folder(path=str(tmp_path), **SIZE)
    (tmp_path / "a" / "2.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:-24])
    (tmp_path / "a" / "3.png").unlink()
    image = np.empty((1, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match=r"a/2.png: it is damaged, or no whole image: image file is truncated"):
        source.take(np.array([1]), {"image": image})
    with pytest.raises(DataError, match=r"a/3.png cannot be read: No such file or directory"):
        source.take(np.array([2]), {"image": image})
    labels = np.full(3, 9, np.int32)
    source.take(np.arange(3), {"label": labels})  # without a look at the images
    assert labels.tolist() == [0, 0, 0]


def test_the_first_of_many_broken_files_is_named_whichever_thread_reads_it(tmp_path):
    for number in range(300):
        draw(tmp_path / "a" / f"{number:03}.png")
    for number in (290, 120):
        (tmp_path / "a" / f"{number:03}.png").write_bytes(b"")
    source = image_folder(path=str(tmp_path), **SIZE)
    with pytest.raises(DataError, match=r"a/120.png: it is no image of a known format"):
        read(source)


def test_real_icons_by_split(shared_data):
    sources = [image_folder(path=str(shared_data / "icons"), split=split, **SIZE) for split in ("train", "test")]
    assert sum(source.num_records for source in sources) == 182
    assert sources[0].class_names == ("actions", "apps", "devices", "mimetypes", "places", "status")
    labels = np.concatenate([read(source)["label"] for source in sources])
    assert np.bincount(labels).tolist() == np.bincount(sources[1].whole_labels()).tolist()
    check_source(sources[0])


def test_real_photos_in_a_mix_with_digits(shared_data, cache_dir):
    path = f"source.folder.path={shared_data / 'photos'}"
    places = [f"data.dir={shared_data / 'tensorflow_datasets'}", f"data.cache={cache_dir}"]
    pipeline = datamix.load("source=mnist+folder", path, "batch.size=40", *places)
    batch = pipeline[0]
    assert np.bincount(batch["source_id"]).tolist() == [20, 20]
    assert sorted(set(batch["label"][batch["source_id"] == 1].tolist())) == [10, 11]
    assert 0.2 < batch["image"][batch["source_id"] == 1].std() < 2


def test_the_command_line_names_the_broken_file(shared_data, call_datamix, tmp_path):
    for number in range(40):
        draw(tmp_path / "pets" / "cat" / f"{number}.png")
    whole = call_datamix("source=mnist+folder", "source.folder.path=pets", "job=plan")
    assert whole.report["sources"]["folder"]["provenance"] == "image_folder"
    (tmp_path / "pets" / "cat" / "7.png").write_bytes(b"\xff\xd8\xff")
    broken = call_datamix("source=mnist+folder", "source.folder.path=pets")
    assert broken.mistake.startswith("DataError: source 'folder': pets/cat/7.png: it is damaged, or no whole image:")
    missing = call_datamix("source=mnist+folder", "source.folder.path=pets", "source.folder.mode=grey")
    assert missing.mistake == "ConfigError: source 'folder': mode = 'grey'. Known: L, RGB."


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_no_image(tmp_path, linked):
    draw(tmp_path / "data" / "cat" / "1.png")
    os.mkfifo(tmp_path / "pipe" if linked else tmp_path / "data" / "cat" / "2.png")
    if linked:
        (tmp_path / "data" / "cat" / "2.png").symlink_to(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"data/cat: 2\.png is no regular file\.$"):
        image_folder(path=str(tmp_path / "data"), **SIZE)


@pytest.mark.usefixtures("permissions_count")
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path):
    draw(tmp_path / "in" / "pets" / "cat" / "1.png")
    (tmp_path / "in").chmod(0)
    try:
        with pytest.raises(DataError, match=r"in/pets cannot be read: Permission denied"):
            image_folder(path=str(tmp_path / "in" / "pets"), **SIZE)
    finally:
        (tmp_path / "in").chmod(0o700)
