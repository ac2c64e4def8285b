"""Decoding many images: threads and helpers give what one thread gives, and the error of the first that is damaged."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from datamix.errors import DataError
from datamix.sources import decoding
from datamix.sources.decoding import decode_images
from datamix.sources.images import ImageFormat

FORM = ImageFormat(height=6, width=5, mode="RGB")
COUNT = 150


def encoded(number: int) -> bytes:
    """An image of noise; every third one is a JPEG, and every fifth of another size."""
    size = (9, 12, 3) if number % 5 == 0 else (6, 5, 3)
    pixels = np.random.default_rng(number).integers(0, 256, size, np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG" if number % 3 == 0 else "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def images():
    return [encoded(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def pixels(images):
    pixels = np.empty((COUNT, *FORM.spec.shape), np.uint8)
    for content, row in zip(images, pixels, strict=True):
        FORM.decode(content, row)
    return pixels


@pytest.fixture
def on_two_cores(monkeypatch):
    """Two threads for whatever there is to decode, and no helper."""
    monkeypatch.setattr(decoding, "num_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(decoding, "SPREAD_S", 0.0)
    monkeypatch.setattr(decoding, "CHUNK_S", 1e-3)
    monkeypatch.setattr(decoding, "HELPERS", decoding.Helpers(allowed=False))


@pytest.fixture
def helped(on_two_cores, images, monkeypatch):
    """The same with helpers, which are there; this process decodes no more."""
    helpers = decoding.Helpers(allowed=True)
    monkeypatch.setattr(decoding, "HELPERS", helpers)
    monkeypatch.setattr(decoding, "HELPED_AFTER_S", 0.0)
    monkeypatch.setattr(decoding, "GIL_S", 60.0)  # however long the first image takes here
    decoded(images[:1])
    until = time.monotonic() + 60
    while helpers.free.qsize() < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(helpers.started) == 2
    yield helpers
    helpers.close()


def decoded(images):
    out = np.empty((len(images), *FORM.spec.shape), np.uint8)
    decode_images(FORM, images.__getitem__, "image {}".format, out)
    return out


def here(*_):
    raise AssertionError("decoded here")


def test_this_thread_decodes_few(images, pixels, monkeypatch):
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", None)
    assert (decoded(images[:20]) == pixels[:20]).all()
    assert decoded([]).shape == (0, *FORM.spec.shape)


def test_threads_decode_the_same(on_two_cores, images, pixels, monkeypatch):
    names, decode = set(), ImageFormat.decode

    def noted(form, data, out):
        names.add(threading.current_thread().name.split("_")[0])
        decode(form, data, out)

    monkeypatch.setattr(ImageFormat, "decode", noted)
    assert (decoded(images) == pixels).all()
    assert "datamix-images" in names


def test_helpers_decode_the_same(helped, images, pixels, monkeypatch):
    monkeypatch.setattr(ImageFormat, "decode", here)
    assert (decoded(images) == pixels).all()
    assert (decoded(images[:20]) == pixels[:20]).all()
    assert not any(helper.is_lost for helper in helped.started)


def test_helpers_that_are_killed_are_done_without(helped, images, pixels):
    for helper in helped.started:
        helper.process.kill()
    assert (decoded(images) == pixels).all()
    assert (decoded(images) == pixels).all()


@pytest.mark.parametrize("who", ["on_two_cores", "helped"])
def test_the_first_image_that_cannot_be_read_is_told(who, images, request):
    request.getfixturevalue(who)
    damaged = [*images]
    for number in (140, 33, 90):
        damaged[number] = images[number][:40]
    with pytest.raises(DataError, match=r"^image 33: it is (damaged|no image)"):
        decoded(damaged)
    with pytest.raises(DataError, match=r"^image 60: it has no bytes$"):
        decode_images(FORM, lacking(images, 60), "image {}".format, np.empty((COUNT, *FORM.spec.shape), np.uint8))


def lacking(images, number):
    def content(row):
        if row == number:
            raise DataError("it has no bytes")
        return images[row]

    return content


def test_images_that_take_long_need_no_helper(helped, images, monkeypatch):
    monkeypatch.setattr(decoding, "GIL_S", 0.0)
    monkeypatch.setattr(ImageFormat, "decode", here)
    with pytest.raises(AssertionError, match="decoded here"):
        decoded(images)


def test_a_shared_machine_has_no_more_helpers_than_threads(monkeypatch):
    monkeypatch.setattr(decoding, "num_cores", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert decoding.num_helpers() == 16
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert decoding.num_helpers() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert decoding.num_helpers() == 0


def test_a_forked_process_leaves_the_helpers_alone(helped, images, pixels):
    started = helped.started
    helped.forget()
    assert (decoded(images) == pixels).all()
    assert (helped.started, helped.are_there) == ([], False)
    for helper in started:
        helper.close()
