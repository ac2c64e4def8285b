"""Reading prepared datasets: real MNIST and Fashion-MNIST in both formats, whole and damaged."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamix.errors import ConfigError, DataError, InstallationError, SpecError
from datamix.registry import load_plugins
from datamix.sources.base import LabelledSource, Source, Unavailable
from datamix.sources.images import ImageFormat
from datamix.sources.statistics import LeafStatistics
from datamix.sources.tfds import decode
from datamix.sources.tfds import source as tfds_source
from datamix.sources.tfds.source import Tfds
from datamix.spec import LeafSpec, spec_of
from datamix.testing import check_source

ARRAY_RECORD, TFRECORD = "tensorflow_datasets", "tensorflow_datasets_tfrecord"


@pytest.fixture
def make(shared_data, tmp_path):
    """Makes a source of the real data, with a cache of its own."""

    def make_source(name="fashion_mnist", *, data_dir=shared_data / ARRAY_RECORD, **settings):
        return Tfds(name=name, data_dir=str(data_dir), cache_dir=str(tmp_path / "cache"), **settings)

    return make_source


@pytest.fixture
def copy(shared_data, tmp_path):
    """Makes a copy of Fashion-MNIST that may be damaged; returns its directory."""

    def make_copy(kind=ARRAY_RECORD):
        directory = tmp_path / kind / "fashion_mnist" / "3.0.1"
        directory.mkdir(parents=True)
        for path in (shared_data / kind / "fashion_mnist" / "3.0.1").iterdir():
            shutil.copyfile(path, directory / path.name)
        return directory

    return make_copy


@pytest.fixture(scope="module")
def fashion(shared_data):
    """All 800 training records as TFDS itself reads them, one by one."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(shared_data / ARRAY_RECORD / "fashion_mnist" / "3.0.1")
    return list(builder.as_data_source("train"))


def assert_are(arrays, records) -> None:
    assert len(arrays["image"]) == len(arrays["label"]) == len(records)
    for image, label, record in zip(arrays["image"], arrays["label"], records, strict=True):
        np.testing.assert_array_equal(image, record["image"])
        assert label == record["label"]


def test_reads_what_tfds_reads(make, fashion):
    source = make()
    assert isinstance(source, Source)
    assert (source.provenance, source.num_records) == ("tfds", 800)
    assert source.spec == {"image": LeafSpec((28, 28, 1), "uint8"), "label": LeafSpec((), "int64")}
    assert source.class_names == tuple("0123456789")
    arrays = source.read()
    assert_are(arrays, fashion)
    assert spec_of(arrays) == source.spec
    check_source(source)


@pytest.mark.parametrize(
    ("split", "ranges"),
    [
        ("train[:2000]", [(0, 800)]),
        ("train[700:]", [(700, 800)]),
        ("train[-3:]", [(797, 800)]),
        ("train[10%:20%]", [(80, 160)]),
        ("train[5:8]+train[:2]", [(5, 8), (0, 2)]),
        ("train[800:]", []),
    ],
)
def test_a_slice_holds_the_records_that_it_names(make, fashion, split, ranges):
    source = make(split=split)
    expected = [record for start, stop in ranges for record in fashion[start:stop]]
    assert source.num_records == len(expected)
    assert_are(source.read(), expected)


def test_splits_may_be_joined(make, fashion):
    arrays = make(split="train[:3]+test").read()
    assert len(arrays["label"]) == 103
    np.testing.assert_array_equal(arrays["label"][3:], make(split="test").read()["label"])


def test_several_files_are_read_in_order(make, copy, fashion):
    directory = copy()
    test = make(split="test").read()
    for shard, split in enumerate(("train", "test")):
        path = directory / f"fashion_mnist-{split}.array_record-00000-of-00001"
        path.rename(directory / f"fashion_mnist-train.array_record-0000{shard}-of-00002")
    info = json.loads((directory / "dataset_info.json").read_text())
    (train,) = [split for split in info["splits"] if split["name"] == "train"]
    train["shardLengths"] = ["800", "100"]
    (directory / "dataset_info.json").write_text(json.dumps(info | {"splits": [train]}))

    arrays = make(data_dir=directory.parents[1], split="train[790:810]").read()
    np.testing.assert_array_equal(arrays["label"][:10], [record["label"] for record in fashion[790:]])
    np.testing.assert_array_equal(arrays["image"][10:], test["image"][:10])
    parts = make(data_dir=directory.parents[1], split="train[810:]+train[790:810]")
    first, second = (directory / f"fashion_mnist-train.array_record-0000{shard}-of-00002" for shard in range(2))
    assert parts.places(np.array([90, 99, 100, 0, 109])) == [
        f"{first}, record 790", f"{first}, record 799", f"{second}, record 0", f"{second}, record 10",
        f"{second}, record 9",
    ]  # fmt: skip


def test_statistics_are_found_when_records_are_decoded_and_kept_with_them(make, monkeypatch):
    source = make()
    assert source.statistics() is None
    done = []
    source.prepare(lambda *each: done.append(each))
    assert done[-1] == (800, 800)
    expected = {leaf: LeafStatistics.of(values) for leaf, values in source.read().items()}

    def refuse(_values):
        raise AssertionError("values are looked at again")

    monkeypatch.setattr(LeafStatistics, "of", refuse)
    assert make().statistics() == expected
    make().prepare(refuse)
    assert make(split="train[:10]").statistics() is None  # those of the whole say nothing of a part


def test_only_some_leaves(make, fashion):
    source = make(leaves=("label",), split="train[:9]")
    assert list(source.spec) == list(source.read()) == ["label"]
    assert source.class_names == tuple("0123456789")
    assert make(leaves=("image",)).class_names == ()
    with pytest.raises(ConfigError, match=r"leaves: .* in 'lable'\. Did you mean 'label'\? Known: image, label\."):
        _ = make(leaves=("lable",)).spec


def test_class_names_are_those_of_the_data(make, copy):
    directory = copy()
    names = tuple(f"garment {index}" for index in range(10))
    (directory / "label.labels.txt").write_text("\n".join(names))
    for _ in range(2):  # from TFDS, then from the cache
        source = make(data_dir=directory.parents[1])
        assert source.class_names == names
        source.read()


def test_everything_but_the_records_is_known_without_them(make, copy):
    directory = copy()
    for path in directory.glob("*record*"):
        path.unlink()
    source = make(data_dir=directory.parents[1])
    assert (source.num_records, list(source.spec), len(source.class_names)) == (800, ["image", "label"], 10)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_array_record_needs_no_tensorflow_and_the_cache_no_tfds(shared_data, tmp_path, fashion):
    code = """
        import sys
        from datamix.sources.tfds.source import Tfds
        print(*(name for name in ("rich", "psutil", "urllib.request") if name in sys.modules))
        source = Tfds(name="fashion_mnist", data_dir=sys.argv[1], cache_dir=sys.argv[2])
        print(source.num_records, len(source.spec), len(source.class_names), source.read()["label"].sum())
        print(*(name for name in ("tensorflow", "tensorflow_datasets") if name in sys.modules))
        """
    total = sum(record["label"] for record in fashion)
    for imported in ("tensorflow_datasets", ""):
        result = python(code, str(shared_data / ARRAY_RECORD), str(tmp_path))
        assert result.stdout.splitlines() == ["", f"800 2 10 {total}", imported]
        assert result.stderr == ""


def test_tfrecord_is_read_the_same(make, shared_data):
    arrays = make(data_dir=shared_data / TFRECORD, split="train[300:]+test").read()
    expected = make(split="train[300:]+test").read()
    for leaf in ("image", "label"):
        np.testing.assert_array_equal(arrays[leaf], expected[leaf])


@pytest.mark.slow
@pytest.mark.parametrize("level", ["", "0"])
def test_tensorflow_logs_nothing_unless_it_is_asked_to(shared_data, tmp_path, monkeypatch, level):
    pytest.importorskip("tensorflow")
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    else:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    code = """
        import sys
        import jax  # which sets the variable
        from datamix.sources.tfds.source import Tfds

        source = Tfds(name="mnist", data_dir=sys.argv[1], cache_dir=sys.argv[2], split="test[:10]")
        print(source.read()["label"].shape, file=sys.stderr)
    """
    result = python(code, str(shared_data / TFRECORD), str(tmp_path))
    assert (result.stderr == "(10,)\n") == (not level), result.stderr


def test_of_two_formats_the_one_that_needs_no_tensorflow_is_read(make, copy, shared_data, fashion, monkeypatch):
    directory = copy(TFRECORD)
    for path in (shared_data / ARRAY_RECORD / "fashion_mnist" / "3.0.1").glob("*array_record*"):
        shutil.copyfile(path, directory / path.name)
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "dataset_info.json").write_text(json.dumps(info | {"alternativeFileFormats": ["array_record"]}))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert_are(make(data_dir=directory.parents[1]).read(), fashion)


def test_tfrecord_without_tensorflow_says_what_to_install(make, shared_data, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    source = make(data_dir=shared_data / TFRECORD)
    assert source.num_records == 800
    with pytest.raises(DataError, match=r"stored as tfrecord, .* pip install -e '\.\[prepare\]'"):
        source.read()


def _truncate(directory: Path, kind: str) -> str:
    (path,) = directory.glob("*train*record*")
    os.truncate(path, 300_000)
    return f"{path} is damaged: "


def _empty(directory: Path, kind: str) -> str:
    (path,) = directory.glob("*train*record*")
    path.write_bytes(b"")
    return f"{path} is damaged: "


def _overwrite(directory: Path, kind: str) -> str:
    (path,) = directory.glob("*train*record*")
    content = path.read_bytes()
    path.write_bytes(content[:200_000] + b"U" * 400 + content[200_400:])
    return f"{path} is damaged: "


def _delete(directory: Path, kind: str) -> str:
    (path,) = directory.glob("*train*record*")
    path.unlink()
    return f"{path} is missing"


def _promise_more(directory: Path, kind: str) -> str:
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"800"', '"900"'))
    (path,) = directory.glob("*train*record*")
    return f"{path} is damaged: "


@pytest.mark.parametrize("kind", [ARRAY_RECORD, TFRECORD])
@pytest.mark.parametrize("damage", [_truncate, _empty, _overwrite, _delete, _promise_more], ids=lambda it: it.__name__)
def test_damaged_records_are_one_line_that_names_the_file(make, copy, tmp_path, kind, damage):
    directory = copy(kind)
    expected = damage(directory, kind)
    source = make(data_dir=directory.parents[1])
    with pytest.raises(DataError) as raised:
        source.read()
    message = str(raised.value)
    assert message.startswith(expected)
    assert message.endswith(f". To have it prepared again, delete {directory}.")
    assert "\n" not in message
    assert "{{" not in message
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset_info.json", "", "is damaged: Expecting value"),
        ("dataset_info.json", "[]", "is damaged: list indices"),
        ("dataset_info.json", "{}", "is damaged: there is no 'splits'"),
        ("dataset_info.json", '{"splits": [{"name": "train"}]}', "is damaged: there is no 'shardLengths'"),
        ("dataset_info.json", None, "is missing"),
        ("features.json", "{", "is damaged: Expecting property name"),
        ("features.json", None, "is missing"),
    ],
)
def test_damaged_descriptions_are_one_line_that_names_the_file(make, copy, file, content, message):
    path = copy() / file
    path.unlink() if content is None else path.write_text(content)
    source = make(data_dir=path.parents[2])
    with pytest.raises(DataError) as raised:
        _ = source.num_records, source.spec
    assert str(raised.value).startswith(f"{path} {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is damaged: there is no 'pythonClassName'"),
        (
            '{"pythonClassName": "no.such.Feature"}',
            "'no.such.Feature', which is no feature of TFDS; no module is imported",
        ),
        ("[" * 100_000, "is damaged: maximum recursion depth exceeded"),
    ],
    ids=["nothing", "foreign", "deep"],
)
def test_features_that_tfds_cannot_make_sense_of(make, copy, content, message):
    directory = copy()
    (directory / "features.json").write_text(content)
    with pytest.raises(DataError, match=message):
        _ = make(data_dir=directory.parents[1]).spec


def test_a_dataset_imports_no_module(make, copy, tmp_path, monkeypatch):
    directory = copy()
    (tmp_path / "foreign_feature.py").write_text(
        "import tensorflow_datasets as tfds\n\n\nclass Own(tfds.features.ClassLabel):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = (directory / "features.json").read_text()
    foreign = text.replace("tensorflow_datasets.core.features.class_label_feature.ClassLabel", "foreign_feature.Own")
    (directory / "features.json").write_text(foreign)
    with pytest.raises(DataError, match=r"'foreign_feature\.Own', .* name its module in plugins=\.$"):
        _ = make(data_dir=directory.parents[1]).spec
    assert "foreign_feature" not in sys.modules
    load_plugins(["foreign_feature"])  # as the error advises
    assert make(data_dir=directory.parents[1]).spec["label"] == LeafSpec((), "int64")


def test_leaves_may_have_other_names_than_features(make, fashion):
    source = make(leaves={"pixels": "image", "label": "label"})
    assert list(source.spec) == ["pixels", "label"]
    np.testing.assert_array_equal(source.read()["pixels"][3], fashion[3]["image"])
    assert source.class_names == tuple("0123456789")
    with pytest.raises(ConfigError, match=r"leaves\.pixels: .* in 'imag'\. Did you mean 'image'\?"):
        _ = make(leaves={"pixels": "imag"}).spec


def _store(data_dir: Path, name: str, features, records, config=None) -> None:
    """Prepare a dataset that TFDS knows nothing of."""
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=data_dir,
        config=config,
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": list(enumerate(records))},
        file_format="array_record",
    )


def test_a_text_is_left_out_and_images_of_any_size_are_not(make, tmp_path):
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(num_classes=2)
    image = tfds.features.Image(shape=(None, None, 3))
    pixels = [np.zeros((4 + i, 5, 3), np.uint8) for i in range(4)]
    _store(tmp_path, "said", {"label": label, "text": tfds.features.Text()}, [{"label": 1, "text": "yes"}] * 4)
    _store(tmp_path, "photos", {"label": label, "image": image}, [{"label": 1, "image": each} for each in pixels])
    said = make("said", data_dir=tmp_path)
    assert said.notes == ("text: no numbers of one fixed shape, and left out.",)
    said.read()
    assert make("said", data_dir=tmp_path).notes == said.notes  # out of the cache
    assert make("said", data_dir=tmp_path, leaves=("label",)).notes == ()
    with pytest.raises(SpecError, match=r"'image' are of varying size \(any × any × 3\), .* leaves=\[label\] goes on"):
        _ = make("photos", data_dir=tmp_path).spec
    assert len(make("photos", data_dir=tmp_path, leaves=("label",)).read()["label"]) == 4  # as the error advises


# Records decoded as they are read, and images resized as they are decoded ---------------------------------------------


def test_records_decoded_as_they_are_read_are_those_of_the_cache(make, tmp_path):
    cached, direct = make(split="train[700:]+test[:5]"), make(split="train[700:]+test[:5]", cache=False)
    assert (direct.spec, direct.class_names, direct.notes) == (cached.spec, cached.class_names, ())
    check_source(direct)
    indices = np.random.default_rng(0).integers(0, 105, 64)
    out = {leaf: np.zeros((64, *of.shape), of.dtype) for leaf, of in direct.spec.items()}
    with ThreadPoolExecutor(4) as pool:
        pieces = [
            (indices[i : i + 16], {leaf: each[i : i + 16] for leaf, each in out.items()}) for i in range(0, 64, 16)
        ]
        list(pool.map(lambda piece: direct.take(*piece), pieces))
    assert not (tmp_path / "cache").exists()
    for leaf, values in cached.read().items():
        np.testing.assert_array_equal(out[leaf], values[indices])
        np.testing.assert_array_equal(direct.read()[leaf], values)
    some = {"label": np.zeros(2, np.int64)}
    direct.take(np.array([104, 0]), some)
    assert some["label"].tolist() == cached.read()["label"][[104, 0]].tolist()
    assert len(direct.whole_labels()) == 900


def test_data_beyond_a_bound_is_not_cached_unasked(make, shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_source, "CACHED_BYTES", 800 * 792 - 1)
    (note,) = make().notes
    assert note.startswith("0.0 GB of decoded records are more than the cache takes unasked, ")
    make().read()
    assert not (tmp_path / "cache").exists()
    assert make(data_dir=shared_data / TFRECORD).notes == ()
    make(cache=True).read()
    assert make().notes == ()  # as it is there now
    monkeypatch.setattr(tfds_source, "CACHED_BYTES", 800 * 792)
    assert make(split="train[:]").notes == ()


def test_tfrecord_is_not_read_at_random(make, shared_data):
    message = r"^cache = False; .* stored as tfrecord, which is read in order alone\. Leave it out, or prepare "
    with pytest.raises(ConfigError, match=message):
        make(data_dir=shared_data / TFRECORD, cache=False).read()


@pytest.mark.parametrize("cache", [False, True])
def test_a_damaged_file_is_one_line_whenever_it_is_read(make, copy, cache):
    directory = copy()
    expected = _overwrite(directory, ARRAY_RECORD)
    out = {"label": np.zeros(800, np.int64), "image": np.zeros((800, 28, 28, 1), np.uint8)}
    with pytest.raises(DataError, match=rf"^{re.escape(expected)}"):
        make(data_dir=directory.parents[1], cache=cache).take(np.arange(800), out)


@pytest.mark.parametrize("cache", [False, True])
def test_images_of_any_size_are_resized_as_they_are_decoded(make, tmp_path, cache):
    import tensorflow_datasets as tfds

    draw = np.random.default_rng(0)
    photos = [draw.integers(0, 256, (30 + i, 40, 3)).astype(np.uint8) for i in range(3)]
    features = {"photo": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    _store(tmp_path, "photos", features, [{"photo": each, "label": i} for i, each in enumerate(photos)])
    form = {"height": 8, "width": 10, "mode": "RGB", "fit": "crop"}
    source = make("photos", data_dir=tmp_path, cache=cache, leaves={"image": "photo", "label": "label"}, **form)
    assert source.spec == {"image": LeafSpec((8, 10, 3), "uint8"), "label": LeafSpec((), "int64")}
    check_source(source)
    for photo, image in zip(photos, source.read()["image"], strict=True):
        encoded, expected = io.BytesIO(), np.zeros((8, 10, 3), np.uint8)
        Image.fromarray(photo).save(encoded, "png")
        ImageFormat(**form).decode(encoded.getvalue(), expected)
        np.testing.assert_array_equal(image, expected)
    assert make("photos", data_dir=tmp_path, **{**form, "mode": "L"}).spec["photo"].shape == (8, 10, 1)
    with pytest.raises(ConfigError, match=r"^width is missing; height and width are set together\.$"):
        _ = make("photos", data_dir=tmp_path, height=3).spec


def test_both_formats_are_resized_alike(make, shared_data):
    small = [
        make(data_dir=shared_data / kind, split="test", height=14, width=14).read() for kind in (ARRAY_RECORD, TFRECORD)
    ]
    assert small[0]["image"].shape == (100, 14, 14, 1)
    for leaf, values in small[0].items():
        np.testing.assert_array_equal(values, small[1][leaf])


def test_what_is_prepared_under_other_names_is_named(make, tmp_path):
    import tensorflow_datasets as tfds

    _store(tmp_path, "settings", {"label": tfds.features.ClassLabel(num_classes=2)}, [{"label": 1}], config="small")
    for name in ("settings/smal", "settings/small:2.0.0", "settings:2.0.0"):
        with pytest.raises(ConfigError, match=rf"name = '{name}'; it is not prepared in .*settings/small:1\.0\.0\.$"):
            _ = make(name, data_dir=tmp_path).num_records
    assert make("settings/small:1.0.0", data_dir=tmp_path).num_records == 1


def test_images_that_need_opencv_are_not_called_damaged(make, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    deep = tfds.features.Image(shape=(2, 2, 1), dtype=np.uint16)
    _store(tmp_path, "deep", {"image": deep}, [{"image": np.full((2, 2, 1), 60_000, np.uint16)}])
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InstallationError, match=r"16 bits a pixel, which TFDS reads with OpenCV, .*pip install opencv"):
        make("deep", data_dir=tmp_path).read()


@pytest.mark.parametrize("error", [ImportError("cannot import name 'runtime_version'"), TypeError("Descriptors")])
def test_a_broken_installation_is_not_called_damage(make, monkeypatch, error):
    import tensorflow_datasets as tfds

    def fail(_directory):
        raise error

    monkeypatch.setattr(tfds, "builder_from_directory", fail)
    monkeypatch.setitem(fail.__globals__, "__name__", "tensorflow_datasets.core")
    with pytest.raises(InstallationError, match=str(error)) as raised:
        _ = make().spec
    assert "delete" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_error_of_our_own_is_not_called_damage(make, monkeypatch):
    def fail(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(decode, "assign", fail)
    monkeypatch.setitem(fail.__globals__, "__name__", decode.__name__)
    with pytest.raises(ValueError, match=r"^a bug$"):
        make().read()


def test_a_pipe_is_no_description(make, copy):
    directory = copy()
    (directory / "features.json").unlink()
    os.mkfifo(directory / "features.json")
    with pytest.raises(DataError, match=r"features\.json is damaged: it is no regular file"):
        _ = make(data_dir=directory.parents[1]).spec


def test_a_pipe_is_no_shard(make, copy):
    directory = copy()
    shard = next(path for path in directory.iterdir() if "-train." in path.name)
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(DataError, match=rf"{shard.name} is damaged: it is no regular file"):
        _ = make(data_dir=directory.parents[1]).spec


def test_a_dataset_without_numbers_is_refused(make, copy):
    directory = copy()
    features = json.loads((directory / "features.json").read_text())
    text = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
    features["featuresDict"]["features"] = {"text": text}
    (directory / "features.json").write_text(json.dumps(features))
    with pytest.raises(SpecError, match="no feature is numbers of one fixed shape"):
        _ = make(data_dir=directory.parents[1]).spec


def test_changed_data_is_decoded_again(make, copy, shared_data):
    directory = copy()
    source = make(data_dir=directory.parents[1], split="train[:100]")
    before = source.read()["label"].copy()
    # The same place now holds other records: those of the test split.
    (test,) = directory.glob("*test*record*")
    shutil.copyfile(test, directory / test.name.replace("test", "train"))
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"800"', '"100"'))
    after = make(data_dir=directory.parents[1], split="train[:100]").read()["label"]
    np.testing.assert_array_equal(after, make(split="test").read()["label"])
    assert not np.array_equal(before, after)


def test_an_unknown_split_is_refused_with_a_hint(make):
    with pytest.raises(ConfigError, match=r"split = 'trian\[:5\]'; .* Did you mean 'train'\? Known: test, train\."):
        _ = make(split="trian[:5]").num_records


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion_minst", r"name = 'fashion_minst'; TFDS knows no such dataset, .* Did you mean 'fashion_mnist'\?"),
        ("emnist/lettres", r"name = 'emnist/lettres'; no such config\. Did you mean 'letters'\? Known: balanced, "),
        ("../mnist", r"name = '\.\./mnist'; it is no TFDS dataset"),
    ],
)
def test_an_unknown_dataset_is_refused_with_a_hint(make, name, message):
    with pytest.raises(ConfigError, match=message):
        _ = make(name).num_records


def test_a_known_dataset_that_is_not_there(make):
    source = make("fashion_mnist:1.0.0", download=False)
    with pytest.raises(Unavailable, match=r"not prepared in .*: download is switched off"):
        _ = source.num_records


def test_directories_default_to_the_environment(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared_data / ARRAY_RECORD))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Tfds(name="mnist", split="test[:10]").read()["image"].shape == (10, 28, 28, 1)
    assert list((tmp_path / "datamix").glob("mnist-test-10-*/meta.json"))


def test_many_records_show_how_far_reading_is(make, capsys):
    make("mnist", split="train[:100]").read()
    assert capsys.readouterr().err == ""
    make("mnist", split="train[:5100]").read()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "Reading mnist train[:5100]: 5,100 records …"


def test_the_labels_of_all_splits_are_known_to_every_slice(tmp_path):
    import tensorflow_datasets as tfds

    records = [{"image": np.full((4, 4, 1), i, np.uint8), "label": i} for i in range(9)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="plain_labels",
        version="1.0.0",
        data_dir=tmp_path,
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(4, 4, 1)), "label": tfds.features.Scalar(np.int64)}
        ),
        split_datasets={
            split: list(enumerate(part)) for split, part in (("train", records[:6]), ("test", records[6:]))
        },
        file_format="array_record",
    )
    source = Tfds(name="plain_labels", split="train[:2]", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert isinstance(source, LabelledSource)
    assert source.class_names == ()
    assert len(source.read()["label"]) == 2
    assert sorted(source.whole_labels().tolist()) == list(range(9))
    kept = [path for path in tmp_path.glob("cache/plain_labels-all-*") if path.is_dir()]
    assert len(kept) == 1  # so that they are decoded once
