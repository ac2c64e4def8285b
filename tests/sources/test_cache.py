"""The cache of decoded arrays: what it keeps, what it refuses, and what it does when the disk refuses."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from datamix.errors import DataError
from datamix.sources.cache import CachePlace, Entry, cache_directory
from datamix.spec import LeafSpec

ARRAYS = {"image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "label": np.array([7, 8])}
INFO = {"class_names": ["a", "b"]}


def place_in(cache_dir: Path, **fingerprint: int) -> CachePlace:
    return CachePlace(cache_dir=cache_dir, name="toys/all:1.0", key={"split": "train"}, fingerprint=fingerprint)


def build():
    return ARRAYS, INFO


def refuse():
    raise AssertionError("built although a good entry is there")


def assert_holds_arrays(entry: Entry) -> None:
    assert entry.info == INFO
    assert entry.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(entry.arrays[name], array)
        assert entry.arrays[name].dtype == array.dtype


def test_the_second_load_maps_what_the_first_built(tmp_path):
    assert_holds_arrays(place_in(tmp_path).load(build))
    entry = place_in(tmp_path).load(refuse)
    assert_holds_arrays(entry)
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in entry.arrays.values())


def test_peek_tells_spec_and_info_of_a_fresh_entry_only(tmp_path):
    assert place_in(tmp_path).peek() is None
    place_in(tmp_path, size=1).load(build)
    assert place_in(tmp_path, size=1).peek() == (
        {"image": LeafSpec((3, 4), "uint8"), "label": LeafSpec((), "int64")},
        INFO,
    )
    assert place_in(tmp_path, size=2).peek() is None


def test_entries_are_told_apart_by_key_and_carry_a_readable_name(tmp_path):
    place_in(tmp_path).load(build)
    other = CachePlace(cache_dir=tmp_path, name="toys/all:1.0", key={"split": "test"}, fingerprint={})
    other.load(lambda: ({"label": np.zeros(1)}, {}))
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert len(names) == 2
    assert all(name.startswith("toys-all-1.0-") for name in names)
    assert_holds_arrays(place_in(tmp_path).load(refuse))


def test_a_name_of_any_length_has_a_place(tmp_path):
    place = CachePlace(cache_dir=tmp_path, name="train[:1]+" * 1000, key={}, fingerprint={})
    assert_holds_arrays(place.load(build))
    assert place.path.is_dir()


def test_no_records_are_kept_too(tmp_path):
    empty = {"image": np.zeros((0, 3, 4), np.uint8)}
    for _ in range(2):
        assert place_in(tmp_path).load(lambda: (empty, {})).arrays["image"].shape == (0, 3, 4)


def _truncate(entry: Path) -> None:
    os.truncate(entry / "0.npy", 100)


def _flip(entry: Path) -> None:
    content = bytearray((entry / "1.npy").read_bytes())
    content[-1] ^= 1
    (entry / "1.npy").write_bytes(content)


def _delete(entry: Path) -> None:
    (entry / "0.npy").unlink()


def _rename_a_class(entry: Path) -> None:
    meta = entry / "meta.json"
    meta.write_text(meta.read_text().replace('"a"', '"z"'))


def _break_meta(entry: Path) -> None:
    (entry / "meta.json").write_text("[]")


def _empty_meta(entry: Path) -> None:
    (entry / "meta.json").write_text("")


def _delete_meta(entry: Path) -> None:
    (entry / "meta.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip, _delete, _rename_a_class, _break_meta, _empty_meta, _delete_meta],
    ids=lambda d: d.__name__,
)
def test_a_damaged_entry_is_made_again_with_one_warning(tmp_path, caplog, damage):
    place = place_in(tmp_path)
    place.load(build)
    damage(place.path)
    with caplog.at_level(logging.INFO, logger="datamix"):
        assert_holds_arrays(place.load(build))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "is made again" in record.message
    assert "\n" not in record.message
    assert_holds_arrays(place.load(refuse))


def test_a_stale_entry_is_made_again(tmp_path, caplog):
    place_in(tmp_path, size=1).load(lambda: ({"label": np.zeros(5)}, {}))
    assert_holds_arrays(place_in(tmp_path, size=2).load(build))
    assert "does not match its source any more" in caplog.text
    assert_holds_arrays(place_in(tmp_path, size=2).load(refuse))


def test_two_versions_of_the_format_have_an_entry_each(tmp_path, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("datamix.sources.cache.FORMAT", 0)
        place_in(tmp_path).load(build)
    assert_holds_arrays(place_in(tmp_path).load(build))
    with monkeypatch.context() as patch:
        patch.setattr("datamix.sources.cache.FORMAT", 0)
        assert_holds_arrays(place_in(tmp_path).load(refuse))
    assert_holds_arrays(place_in(tmp_path).load(refuse))
    assert caplog.text == ""


def chunks_of(*chunks):
    yield from chunks
    return INFO


def test_what_comes_block_by_block_is_one_entry(tmp_path):
    halves = [{leaf: array[i : i + 1] for leaf, array in ARRAYS.items()} for i in range(2)]
    assert_holds_arrays(place_in(tmp_path).stream(lambda: chunks_of(*halves)))
    assert_holds_arrays(place_in(tmp_path).stream(refuse))
    assert_holds_arrays(place_in(tmp_path).load(refuse))


def test_a_million_records_in_blocks_have_room_in_the_header(tmp_path):
    ones = [{"x": np.ones(99_999, np.uint8)}] * 11
    array = place_in(tmp_path).stream(lambda: chunks_of(*ones)).arrays["x"]
    assert array.shape == (1_099_989,)
    assert array.all()


def test_blocks_that_end_in_an_error_leave_nothing(tmp_path):
    def chunks():
        yield ARRAYS
        raise DataError("source 'toys': gone")

    with pytest.raises(DataError, match="gone"):
        place_in(tmp_path).stream(chunks)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert_holds_arrays(place_in(tmp_path).stream(lambda: chunks_of(ARRAYS)))


def test_an_array_of_objects_is_refused_not_pickled(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        place_in(tmp_path).load(lambda: ({"text": np.array(["a", None], object)}, {}))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_failing_build_leaves_nothing_and_frees_the_lock(tmp_path):
    def fail():
        raise DataError("source 'toys': gone")

    with pytest.raises(DataError, match="gone"):
        place_in(tmp_path).load(fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert_holds_arrays(place_in(tmp_path).load(build))


def test_left_overs_of_a_killed_process_are_removed(tmp_path):
    place = place_in(tmp_path)
    left_over = tmp_path / f"{place.path.name}.abc.tmp"
    left_over.mkdir()
    (left_over / "0.npy").write_bytes(b"half")
    place.load(build)
    assert not left_over.exists()


def test_an_error_of_what_is_built_is_raised_at_once(tmp_path):
    calls = []

    def broken():
        calls.append(1)
        raise OSError("no such disk")

    with pytest.raises(OSError, match="no such disk"):
        place_in(tmp_path).load(broken)
    assert calls == [1]
    assert_holds_arrays(place_in(tmp_path).load(build))


def test_without_a_usable_directory_the_arrays_stay_in_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    entry = place_in(tmp_path / "file" / "cache").load(build)
    assert_holds_arrays(entry)
    (record,) = caplog.records
    assert "stays in memory for this run" in record.message


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    prelude = "import sys, time, numpy as np\nfrom pathlib import Path\nfrom datamix.sources.cache import CachePlace\n"
    place = 'place = CachePlace(cache_dir=Path(sys.argv[1]), name="big", key={}, fingerprint={})\n'
    return subprocess.Popen(
        [sys.executable, "-c", prelude + place + textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_on_a_full_disk_the_run_goes_on_and_nothing_half_written_is_left(tmp_path):
    # A limit on the size of files makes writing fail in the middle, as a full disk does.
    process = run(
        """
        import logging, resource
        logging.basicConfig()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        entry = place.load(lambda: ({"small": np.arange(3), "large": np.zeros(1_000_000, np.uint8)}, {}))
        print(entry.arrays["large"].shape)
        """,
        str(tmp_path),
    )
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == "(1000000,)\n"
    assert err.count("\n") == 1
    assert "stays in memory for this run" in err
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_of_two_processes_one_builds_and_both_read(tmp_path):
    code = """
        def build():
            with Path(sys.argv[1], "builds").open("a") as file:
                file.write("x")
            time.sleep(0.5)
            return {"label": np.arange(1000)}, {}
        print(place.load(build).arrays["label"].sum())
        """
    processes = [run(code, str(tmp_path)) for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=30)
        assert (out, err) == ("499500\n", "")
    assert (tmp_path / "builds").read_text() == "x"


def test_a_killed_process_frees_the_lock_and_leaves_no_entry(tmp_path):
    process = run('place.load(lambda: (print("building", flush=True), time.sleep(60)))', str(tmp_path))
    assert process.stdout.readline() == "building\n"
    process.kill()
    process.communicate()
    place = CachePlace(cache_dir=tmp_path, name="big", key={}, fingerprint={})
    assert_holds_arrays(place.load(build))


def test_the_default_directory_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory(None) == tmp_path / "datamix"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory(None) == Path.home() / ".cache" / "datamix"


def test_meta_is_plain_json(tmp_path):
    place = place_in(tmp_path, size=1)
    place.load(build)
    meta = json.loads((place.path / "meta.json").read_text())
    assert meta["fingerprint"] == {"size": 1}
    assert meta["leaves"]["image"]["shape"] == [2, 3, 4]


def test_other_users_may_read_an_entry_and_build_the_next(tmp_path):
    umask = os.umask(0o002)
    try:
        place = place_in(tmp_path)
        place.load(build)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.path.iterdir()} == {0o664}
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o775
    assert stat.S_IMODE(Path(f"{place.path}.lock").stat().st_mode) == 0o666
