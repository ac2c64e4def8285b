"""Paths where a dataset is named: what the error says to write works when it is written."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

import datamix
from datamix.config.own_data import advice, refuse_paths
from datamix.errors import ConfigError


def followed(message: str, folder: Path) -> datamix.Pipeline:
    """The pipeline that one gets by doing what an error advises."""
    match = re.search(
        r"Write (\{.*\}) into my_conf/(dataset/\w+\.yaml), and run with --config-dir my_conf ([^\s;]+)"
        r"(?:; for a first look, (.*) will do)?\.$",
        message,
    )
    assert match, message
    path = folder / "my_conf" / match[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(match[1])
    data = (f"data.cache={folder}/cache", "batch.size=4", "batch.remainder=keep")
    pipeline = datamix.load(match[3], *data, config_dir=folder / "my_conf")
    if match[4]:
        assert {*datamix.load(*match[4].split(), *data).spec} == {*pipeline.spec}
    return pipeline


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is left out of each is told
@pytest.mark.parametrize(
    ("path", "name", "leaf"),
    [
        ("digits8x8.npz", "digits8x8", "image"),
        ("photos", "photos", "image"),
        ("icons", "icons", "image"),
        ("webdataset", "webdataset", "image"),
        ("webdataset/photos-000000.tar", "photos_000000", "image"),
        ("huggingface/mnist_small", "mnist_small", "image"),
        ("huggingface/mnist_small.train.parquet", "mnist_small", "image"),
        ("tables/diabetes.csv", "diabetes", "features"),
        ("text/jargon.train.jsonl", "jargon", "tokens"),
        ("tensorflow_datasets/mnist", "mnist", "image"),
        ("tensorflow_datasets/fashion_mnist/3.0.1", "fashion_mnist", "image"),
    ],
)
def test_what_is_advised_for_real_data_works(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str, leaf: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^source = '.*'; it is a path, and source= takes names of datasets\. "
    ) as raised:
        datamix.load(f"source={shared_data}/{path}")
    pipeline = followed(str(raised.value), tmp_path)
    assert leaf in pipeline.spec
    is_like_an_example = path.startswith(("photos", "icons", "webdataset", "tables", "text"))
    assert ("; for a first look, source=" in str(raised.value)) == is_like_an_example
    assert pipeline.plan.names[0].removeprefix("my_") == name


def test_it_mixes_as_it_was_typed(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shared_data / "photos", "my photos")
    (tmp_path / "pets").symlink_to("my photos")
    with pytest.raises(
        ConfigError, match=r"path: \./pets, .*source=digits\+pets; for a first look, source=digits\+folder "
    ) as raised:
        datamix.load("source=digits+./pets")
    assert "pets" in followed(str(raised.value), tmp_path).plan.report().sources
    with pytest.raises(ConfigError, match=r"^source=pets: it is a path, and no dataset has this name\. ") as raised:
        datamix.load("source=pets")
    assert followed(str(raised.value), tmp_path)[0]["image"].shape == (4, 28, 28, 1)
    assert "my_photos" in followed(advice("my photos"), tmp_path).plan.report().sources
    (tmp_path / "my_conf" / "dataset" / "pets.yaml").unlink()
    with pytest.raises(ConfigError, match=r"^source=pets: .* source=digits\+my_pets\+pets@easy\.$") as raised:
        datamix.load("source=digits+my_pets+pets@easy", config_dir=made("my_pets", tmp_path))
    assert "easy" in followed(str(raised.value), tmp_path).plan.report().sources


@pytest.mark.parametrize(
    ("choice", "path", "first_look"),
    [
        ("digits+a.csv", "a.csv", "source=digits+my_table source.my_table.path=a.csv"),
        ("a.csv,digits", "a.csv", "source=my_table,digits source.my_table.path=a.csv"),
        ("a.csv+b.csv", "a.csv", ""),
        ("a.csv@easy", "a.csv", ""),
        ("my_table+a.csv", "a.csv", ""),
        ("./1.csv", "./1.csv", "source=my_table source.my_table.path=./1.csv"),
    ],
)
def test_a_first_look_takes_the_shipped_example_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, path: str, first_look: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "1.csv"):
        Path(name).write_text("x,y\n1,2\n")
    assert re.findall("; for a first look, (.*) will do", advice(path, choice)) == [first_look][: bool(first_look)]


@pytest.mark.parametrize("name", ["mix", "null", "true"])
def test_names_that_mean_something_else_are_not_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.csv").write_text("x,y\n1,2\n3,4\n5,6\n7,8\n")
    assert followed(advice(f"{name}.csv"), tmp_path).source_names == (f"my_{name}",)


def test_columns_whose_names_need_quotes_have_no_first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pyarrow = pytest.importorskip("pyarrow")
    for column in ("1", "null", "words"):
        table = pyarrow.table({column: ["one", "two", "three", "four"] * 400})
        pytest.importorskip("pyarrow.parquet").write_table(table, "x.parquet")
        assert ("first look" in advice("x.parquet")) == (column == "words")
        assert "tokens" in followed(advice("x.parquet"), tmp_path).spec


def test_a_path_in_a_list_is_answered_as_in_a_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("x,y\n1,2\n3,4\n5,6\n7,8\n")
    with pytest.raises(ConfigError, match=r"^source = '\./a\.csv'; .* source=a\+digits; for a first look, ") as raised:
        datamix.load("source=[./a.csv, digits]")
    assert "source=my_table+digits source.my_table.path=./a.csv will do." in str(raised.value)
    refuse_paths("[mnist, fashion]")


def made(name: str, folder: Path) -> Path:
    """A directory of configurations that has a dataset."""
    (folder / "my_conf" / "dataset").mkdir(parents=True, exist_ok=True)
    (folder / "my_conf" / "dataset" / f"{name}.yaml").write_text("_target_: digits\noperators: [to_float]\n")
    return folder / "my_conf"


@pytest.mark.parametrize(
    ("columns", "leaf"),
    [
        ({"a": [1.5, 2.5, 1.0, 0.5], "word": ["x", "y", "x", "y"], "b": [0, 1, 0, 1]}, "features"),
        ({"some {words}": ["one", "two", "three", "four"] * 400}, "tokens"),
        ({"text": ["one", "two", "three", "four"] * 400, "stars": [1, 2, 3, 4] * 400}, "tokens"),
        ({"label": [0, 1, 0, 1], "vector": [[1.0, 2.0]] * 4}, "vector"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of columns that are left out
def test_parquet_files_are_read_by_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, list[object]], leaf: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pyarrow = pytest.importorskip("pyarrow")
    (tmp_path / "some").mkdir()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), "some/x.parquet")
    for path in ("some/x.parquet", "some"):
        assert leaf in followed(advice(path), tmp_path).spec


def test_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("7 up.npy", np.zeros((9, 4, 4, 1), np.float32))
    assert followed(advice("7 up.npy"), tmp_path).spec["image"].shape == (4, 4, 1)
    Path("a.array_record-00000-of-00001").touch()
    assert "_target_: array_record, path: a.array_record-00000-of-00001, " in advice("a.array_record-00000-of-00001")
    assert "_target_: text, path: x.jsonl.gz, " in (Path("x.jsonl.gz").touch(), advice("x.jsonl.gz"))[1]


@pytest.mark.parametrize("path", ["pets/flat", "pets/flat/", "flat", "./flat", ".", "{}/pets/flat"])
def test_images_without_folders_of_classes_are_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("flat/1.png", "flat/2.png", "other/1.png"):
        (file := tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        image.new("L", (8, 8)).save(file)
    monkeypatch.chdir(tmp_path / {"pets": "", "flat": "pets", "": "pets/flat"}.get(path.strip("./").split("/")[0], ""))
    said = advice(path.format(tmp_path))
    assert said.startswith("Its images lie in no folder of a class, so that flat is one, as are the folders beside it.")
    settings, name = re.findall(r"Write (.*) into my_conf/dataset/(\w+)\.yaml", said)[0]
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / f"{name}.yaml").write_text(settings)
    pipeline = datamix.load(f"source={name}", "batch.size=3", config_dir=tmp_path / "conf")
    assert sorted(pipeline[0]["label"].tolist()) == [0, 0, 1]


@pytest.mark.parametrize("name", ["there/x.npz", "~/x.npz", "./empty", "x.xyz", "x.png", "y.npz"])
def test_what_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "here" / "empty").mkdir(parents=True)
    (tmp_path / "here" / "x.xyz").touch()
    (tmp_path / "here" / "x.png").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"^source = '{re.escape(name)}'; it is a path, ") as raised:
        refuse_paths(f"mnist+{name}")
    assert re.search(
        r"(There is no such file or folder \(looked for it at .*\)|Its kind is not known by its name; known are .*)\.$",
        str(raised.value),
    )


@pytest.mark.parametrize("choice", ["mnist", "mnist+fashion@easy", "'mnist'", "glob(*)", "choice(mnist,fashion)", ""])
def test_names_are_no_paths(choice: str) -> None:
    refuse_paths(choice)


@pytest.mark.usefixtures("permissions_count")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (folder := tmp_path / "data").mkdir()
    (folder / "a.csv").touch()
    for mode in (0, 0o100, 0o400):
        folder.chmod(mode)
        for path in (folder, folder / "a.csv") if mode == 0 else [folder]:
            assert advice(str(path)).endswith(" cannot be read: Permission denied.")
    folder.chmod(0o700)


@pytest.mark.parametrize("path", ["corpus.bin", "corpus.idx", "corpora"])
def test_megatrons_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpora").mkdir()
    index = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 1, 2) + np.array([40], "<i4").tobytes()
    index += np.array([0, 0, 1], "<i8").tobytes()
    for folder in (".", "corpora"):
        Path(folder, "corpus.idx").write_bytes(index)
        np.arange(40, dtype=np.uint16).tofile(Path(folder, "corpus.bin"))
    message = advice(path)
    assert "tokens, path: corp" in message
    assert followed(message.replace("length: 1024", "length: 8"), tmp_path).plan.sizes == (5,)


def test_tokens_without_what_says_their_dtype_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    np.arange(40, dtype=np.uint16)[::-1].tofile("corpus/x.bin")
    for path in ("corpus/x.bin", "corpus"):
        message = advice(path)
        assert message.startswith("Megatron's tokens in corpus/x.bin need corpus/x.idx beside it, which is not there; ")
        written = message[message.index("{") : message.index("}") + 1].replace("dtype: …", "dtype: uint16")
        Path("own/dataset").mkdir(parents=True, exist_ok=True)
        Path("own/dataset/x.yaml").write_text(written.replace("…", "0").replace("1024", "8"))
        assert datamix.load("source=x", "data.cache=cache", "batch.size=4", config_dir="own").plan.sizes == (5,)


def test_what_no_source_reads_is_not_advised(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_bytes(b"text")
    message = advice(str(tmp_path / "b.md"))
    assert message.startswith("Its kind is not known by its name; known are .npz, ")
    assert ".md" not in message
