"""Files that are whole or not there."""

from __future__ import annotations

import errno
import json

import pytest

from datamix.report.files import whole_file, write_report, write_text


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    with whole_file(path) as part:
        assert (part.parent, part.suffix) == (tmp_path, ".png")  # libraries choose the format by the suffix
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), whole_file(path) as part:
        part.write_text("half \udc80", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, whole_file(tmp_path / "report.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "report.json")


def test_text_and_reports_are_utf_8_for_people(tmp_path):
    write_text(tmp_path / "a.txt", "Größe\n")
    assert (tmp_path / "a.txt").read_bytes() == "Größe\n".encode()
    path = write_report(tmp_path, {"source": "Größe", "shares": [0.5, None]})
    assert path == tmp_path / "report.json"
    assert json.loads(path.read_bytes()) == {"source": "Größe", "shares": [0.5, None]}
    assert "Größe" in path.read_text(encoding="utf-8")
