"""Decoding prepared records: in this process, in threads, in helper processes."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading

import numpy as np
import pytest

from datamix.sources import helpers
from datamix.sources.tfds import decode
from datamix.sources.tfds.decode import FilePart, TfdsReader, assign, instruction, without_advice


@pytest.fixture
def reader(shared_data):
    return TfdsReader(str(shared_data / "tensorflow_datasets" / "fashion_mnist" / "3.0.1"), "array_record")


@pytest.fixture(scope="module")
def fashion(shared_data):
    """All 800 training records as TFDS itself reads them."""
    import tensorflow_datasets as tfds

    directory = shared_data / "tensorflow_datasets" / "fashion_mnist" / "3.0.1"
    records = list(tfds.builder_from_directory(directory).as_data_source("train"))
    return {leaf: np.stack([record[leaf] for record in records]) for leaf in ("image", "label")}


PARTS = [FilePart("train", 0, 500, 800), FilePart("train", 0, 0, 300)]


def decoded(reader, parts=PARTS, guard=lambda part: contextlib.nullcontext()):
    """The records of some parts, and how many were done after each step."""
    count = sum(part.stop - part.start for part in parts)
    arrays = {"image": np.full((count, 28, 28, 1), 7, np.uint8), "label": np.full(count, 7)}
    return arrays, list(decode.decode(reader, parts, arrays, guard))


def assert_are_the_parts(arrays, fashion):
    for leaf, values in fashion.items():
        np.testing.assert_array_equal(arrays[leaf], np.concatenate([values[500:], values[:300]]))


def test_parts_are_read_one_after_the_other(reader, fashion):
    arrays, steps = decoded(reader)
    assert_are_the_parts(arrays, fashion)
    assert sum(steps) == 600
    assert len(steps) == 4  # two chunks a part


def test_threads_read_the_same(reader, fashion, monkeypatch):
    monkeypatch.setattr(decode, "THREAD_RECORD_BYTES", 0)
    monkeypatch.setattr(decode, "num_cores", lambda: 4)
    assert_are_the_parts(decoded(reader)[0], fashion)


def test_helpers_read_the_same(reader, fashion, monkeypatch):
    monkeypatch.setattr(decode, "HELPED_RECORDS", 0)
    monkeypatch.setattr(decode, "num_cores", lambda: 2)
    monkeypatch.setattr(decode, "CHUNK_RECORDS", 37)
    has_helped, fill, helped_fill = threading.Event(), TfdsReader.fill, decode.HelpedReader.fill
    lost = []

    def fill_later(reader, *chunk):
        assert has_helped.wait(60)  # leave the work to the helper
        fill(reader, *chunk)

    def help_first(helped, *chunk):
        helped_fill(helped, *chunk)
        lost.append(helped.helper.is_lost)
        has_helped.set()

    monkeypatch.setattr(TfdsReader, "fill", fill_later)
    monkeypatch.setattr(decode.HelpedReader, "fill", help_first)
    assert_are_the_parts(decoded(reader)[0], fashion)
    assert set(lost) == {False}


def test_a_helper_that_ends_is_done_without(reader, fashion, monkeypatch):
    monkeypatch.setattr(decode, "HELPED_RECORDS", 0)
    monkeypatch.setattr(decode, "num_cores", lambda: 3)
    monkeypatch.setattr(helpers.sys, "executable", shutil.which("true"))
    assert_are_the_parts(decoded(reader)[0], fashion)


def test_the_guard_sees_each_part_and_what_it_raises(reader):
    seen = []

    @contextlib.contextmanager
    def guard(part):
        seen.append(part)
        try:
            yield
        except ValueError as error:
            raise OSError(f"in {part.split}") from error

    images = {"image": np.zeros((10, 1, 1, 1), np.uint8)}  # which are 28 by 28
    with pytest.raises(OSError, match=r"^in train$"):
        list(decode.decode(reader, [FilePart("train", 0, 0, 10)], images, guard))
    assert seen == [FilePart("train", 0, 0, 10)]


def test_records_of_another_shape_are_not_stretched():
    array = np.zeros((3, 2), np.uint8)
    assign(array, np.ones((3, 2), np.uint8), "image")
    assert array.all()
    with pytest.raises(ValueError, match=r"^'image' has shape \[3, 1\], not \[3, 2\]$"):
        assign(array, np.ones((3, 1), np.uint8), "image")


def test_a_part_is_named_in_absolute_records():
    assert str(instruction(FilePart("test", 2, 5, 9))) == str(instruction(FilePart("test", 0, 5, 9)))
    (read,) = instruction(FilePart("test", 2, 5, 9)).to_absolute({"test": type("Split", (), {"num_examples": 20})()})
    assert (read.splitname, read.from_, read.to) == ("test", 5, 9)


def test_only_the_advice_to_install_opencv_is_kept_back(caplog):
    logger = logging.getLogger("absl")
    with without_advice():
        logger.warning("OpenCV is not installed. We recommend using OpenCV …")
        logger.warning("something else")
    logger.warning("OpenCV is not installed, again")
    assert [record.getMessage() for record in caplog.records] == ["something else", "OpenCV is not installed, again"]
