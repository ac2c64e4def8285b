from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.sources.cache import CachePlace
from datamix.sources.files import files_of, notes_on


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two Parquet files, one more in a folder of it, and what is none of its files."""
    for name in ("b.parquet", "a.parquet", "deep/c.PARQUET", "notes.txt", ".hidden.parquet", ".cache/d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(path: Any) -> dict[str, list[str]]:
    found = files_of(path, suffixes=[".parquet"])
    return {split: [str(file) for file in files] for split, files in found.items()}


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("a.parquet", ["a.parquet"]),
        (".", ["a.parquet", "b.parquet", "deep/c.PARQUET"]),
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("[b-z].parquet", ["b.parquet"]),
        ("**/*.[pP]*", ["a.parquet", "b.parquet", "deep/c.PARQUET"]),
        (["b.parquet", "a.parquet"], ["b.parquet", "a.parquet"]),
        (["deep", "?.parquet"], ["deep/c.PARQUET", "a.parquet", "b.parquet"]),
    ],
)
def test_a_path_without_splits(folder: Path, path: Any, want: list[str]) -> None:
    assert names(path) == {"train": want}


def test_splits(folder: Path) -> None:
    assert names({"train": ["a.parquet", "deep"], "test": "b.parquet"}) == {
        "train": ["a.parquet", "deep/c.PARQUET"],
        "test": ["b.parquet"],
    }


def test_a_home_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder / "deep")
    assert names("~/a.parquet") == {"train": [str(folder / "a.parquet")]}
    assert names("~/*.parquet") == {"train": [str(folder / "a.parquet"), str(folder / "b.parquet")]}


def test_a_file_whose_name_looks_like_a_glob(folder: Path) -> None:
    Path("[1].parquet").touch()
    assert names("[1].parquet") == {"train": ["[1].parquet"]}


def test_links_that_go_round(folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    assert names("deep") == {"train": ["deep/c.PARQUET", "deep/up/a.parquet", "deep/up/b.parquet"]}


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (
            "c.parquet",
            DataError,
            r"^path = 'c\.parquet'; there is no such file or folder \(looked for it at /.*/c\.par",
        ),
        ("a.parquets", DataError, r"Did you mean 'a\.parquet'\?$"),
        ("nowhere/a.parquet", DataError, r"there is no such file or folder \(looked for it at [^)]*\)\.$"),
        ("x*.parquet", DataError, r"^path = 'x\*\.parquet'; no file matches \(looked for it at /"),
        ({"test": "x.parquet"}, DataError, r"^path\.test = 'x\.parquet'; there is no such file"),
        ("notes.txt", ConfigError, r"^path = 'notes\.txt'; notes\.txt is no \.parquet file\.$"),
        ("*", ConfigError, r"^path = '\*'; notes\.txt is no \.parquet file\.$"),
        (["a.parquet", "./a.parquet"], ConfigError, r"it names a\.parquet twice, and no record is given twice\.$"),
        ("s3://bucket/a.parquet", ConfigError, r"^path = 's3://bucket/a\.parquet'; files .* Copy the files first"),
        ("file:///data/a.parquet", ConfigError, r"Write /data/a\.parquet\.$"),
        ({}, ConfigError, r"^path = \{\}; it names no split; write \{train: FILE, test: FILE\}\.$"),
        ([], ConfigError, r"^path = \[\]; it is a path, or a list of paths\.$"),
        ("", ConfigError, r"^path = ''; it is a path, or a list of paths\.$"),
        ({"train": 3}, ConfigError, r"^path\.train = 3; it is a path, or a list of paths\.$"),
        ("empty", DataError, r"^path = 'empty'; this folder holds no \.parquet file\.$"),
    ],
)
def test_mistakes(folder: Path, path: Any, error: type[Exception], message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(error, match=message):
        names(path)


@pytest.mark.parametrize(
    ("path", "near"),
    [("./deep/c.PARQET", "deep/c.PARQUET"), ("{here}/a.parquets", "{here}/a.parquet"), ("dep", "deep")],
)
def test_the_path_that_was_meant_is_one(folder: Path, path: str, near: str) -> None:
    Path("a.parquets.idx").touch()  # nearer, and none that can be read
    with pytest.raises(DataError) as raised:
        names(path.format(here=folder))
    assert str(raised.value).endswith(f" Did you mean {near.format(here=folder)!r}?")
    assert names(near.format(here=folder))


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shards = [Path(f"x.array_record-0000{number}-of-00003") for number in range(3)]
    for shard in shards:
        shard.touch()
    assert files_of(".", suffixes=[".array_record"])["train"] == tuple(shards)
    shards[1].unlink()
    message = r"^path = '.*'; the shard x\.array_record-00001-of-00003 is missing\. To read those that are there alone,"
    for path in (".", "x*"):
        with pytest.raises(DataError, match=message):
            files_of(path, suffixes=[".array_record"])
    there = [str(shards[0]), str(shards[2])]
    assert files_of(there, suffixes=[".array_record"])["train"] == (shards[0], shards[2])


def test_a_note_on_names_that_speak_of_splits(tmp_path: Path) -> None:
    def notes(*files: str, path: Any = "data") -> tuple[str, ...]:
        return notes_on(path, {"train": [tmp_path / "train" / file for file in files]})

    message = (
        "its files are read as one split, train, though their names speak of test and train; "
        "path={test: …, train: …} keeps them apart."
    )
    assert notes("mnist.test.parquet", "mnist.train.parquet") == (message,)
    assert notes("test/0.parquet", "train/0.parquet") == (message,)
    assert notes("mnist.test.parquet") == notes("latest.parquet", "trains.parquet") == ()
    assert notes("test.parquet", "train.parquet", path={"train": "data"}) == ()


@pytest.mark.usefixtures("permissions_count")
@pytest.mark.parametrize(
    ("closed", "path"),
    [
        ("deep", "."),
        ("deep", "deep"),
        ("deep", "deep/c.PARQUET"),
        ("deep", "deep/x.parquet"),
        ("deep", "deep/*.parquet"),
        ("deep", "**/*.parquet"),
        ("deep/er", "*/*/*.parquet"),
        ("deep/er", "[d]eep/**/?.parquet"),
    ],
)
def test_what_cannot_be_read_is_not_passed_over(folder: Path, closed: str, path: str) -> None:
    (folder / "deep" / "er").mkdir()
    (folder / closed).chmod(0)
    try:
        with pytest.raises(DataError, match=rf"^(\./)?{closed}(/\S+)? cannot be read: Permission denied\.?$"):
            names(path)
        if closed == "deep/er":
            assert names("*/*.PARQUET") == {"train": ["deep/c.PARQUET"]}  # nothing is looked for there
    finally:
        (folder / closed).chmod(0o700)


def test_files_of_other_kinds_in_a_folder_are_told(folder: Path) -> None:
    def notes(path: Any) -> tuple[str, ...]:
        return notes_on(path, files_of(path, suffixes=[".parquet"]))

    Path("deep/d.pq").touch()
    Path("deep/e.pq").touch()
    told = "3 files are left out, which are of another kind: 2 .pq, 1 .txt."
    assert notes(".") == notes({"train": "."}) == notes(["."]) == (told,)
    assert notes({"train": "a.parquet", "test": "deep"}) == ("2 files are left out, which are of another kind: 2 .pq.",)
    assert notes("*.parquet") == notes(["a.parquet", "b.parquet"]) == ()
    Path("deep/e.pq").unlink()
    assert notes("deep") == ("1 file is left out, which is of another kind: 1 .pq.",)


def test_the_index_of_a_token_file_is_not_left_out(tmp_path: Path) -> None:
    for name in ("a.bin", "a.idx", "b.idx"):
        (tmp_path / name).touch()
    notes = notes_on(str(tmp_path), files_of(str(tmp_path), suffixes=[".npy", ".bin"]))
    assert notes == ("1 file is left out, which is of another kind: 1 .idx.",)


def test_the_cache_in_a_folder_of_data_is_none_of_it(folder: Path) -> None:
    for cache in (Path(), Path("cache")):  # the folder itself, or one within
        place = CachePlace(cache_dir=cache, name="ends", key={}, fingerprint={})
        place.load(lambda: ({"ends": np.arange(3)}, {}))
        place.path.with_name(f"{place.path.name}.0123abcd.tmp").mkdir()  # of a process that was killed
        place.path.with_name(f"{place.path.name}.0123abcd.tmp").joinpath("0.npy").touch()
    Path("scans-0123456789abcdef").mkdir()
    Path("scans-0123456789abcdef", "x.npy").touch()  # no entry of the cache
    files = files_of(".", suffixes=[".npy"])
    assert files["train"] == (Path("scans-0123456789abcdef/x.npy"),)
    assert notes_on(".", files) == ("4 files are left out, which are of another kind: 3 .parquet, 1 .txt.",)


def test_a_folder_is_gone_through_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(".", suffixes=[".parquet"])
    for name in ("later.txt", "notes.md"):
        Path(name).touch()
    assert notes_on(".", files) == ("1 file is left out, which is of another kind: 1 .txt.",)


def test_what_is_suggested_is_read(tmp_path: Path) -> None:
    for name in ("tokens.idx", "tokens.bin"):
        (tmp_path / name).touch()
    (tmp_path / "tokens2").mkdir()
    for name, near in (("tokens", "tokens.bin"), ("tokens.id", "tokens.bin"), ("tokens3", "tokens2")):
        with pytest.raises(DataError, match=rf"Did you mean '[^']*/{near}'\?$"):
            files_of(str(tmp_path / name), suffixes=[".npy", ".bin"])
