"""Images: every kind of file becomes the pixels that are asked for, or one clear line."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from datamix.errors import ConfigError, DataError, InstallationError
from datamix.sources import images
from datamix.sources.images import ImageFormat, image_size

RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (128, 128, 128)


def encoded(image, kind="PNG", **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def decoded(data, **settings):
    form = ImageFormat(**{"height": 4, "width": 4, "mode": "RGB", **settings})
    out = np.full(form.spec.shape, 77, np.uint8)
    form.decode(data, out)
    return out


def noise(height, width, channels=3, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), np.uint8).squeeze()
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_an_image_of_that_size_keeps_its_pixels(kind):
    image = noise(4, 4).quantize(16).convert("RGB")
    assert (decoded(encoded(image, kind, lossless=True)) == np.asarray(image)).all()


def test_photographs_are_as_pillow_reads_and_resizes_them(shared_data):
    for path in sorted((shared_data / "photos").glob("*/*.jpg")):
        with Image.open(path) as file:
            colour = np.asarray(file.resize((40, 48), Image.Resampling.BILINEAR), int)
            grey = np.asarray(file.convert("L").resize((40, 48), Image.Resampling.BILINEAR), int)
        ours = decoded(path.read_bytes(), height=48, width=40)
        assert np.abs(ours - colour).mean() < (1 if max(file.size) >= 4 * 40 else 0.001)
        assert np.abs(decoded(path.read_bytes(), height=48, width=40, mode="L")[..., 0] - grey).mean() < 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("without", [False, True], ids=["OpenCV", "no OpenCV"])
def test_plain_png_keeps_its_pixels(channels, without, monkeypatch):
    if without:
        monkeypatch.setitem(sys.modules, "cv2", None)
        images.opencv.cache_clear()
    image = noise(5, 9, channels)
    mode = "L" if channels == 1 else "RGB"
    assert (decoded(encoded(image), height=5, width=9, mode=mode).squeeze() == np.asarray(image)).all()
    images.opencv.cache_clear()


def test_png_that_is_not_plain_is_as_pillow_reads_it():
    clear = encoded(Image.new("L", (4, 4), 7), transparency=7)
    assert (decoded(clear, mode="L", background="black") == 0).all()
    palette = encoded(noise(4, 4).quantize(16))
    assert (decoded(palette) == np.asarray(Image.open(io.BytesIO(palette)).convert("RGB"))).all()
    deep = encoded(Image.fromarray(np.full((4, 4), 0x1234, np.uint16)))
    assert (decoded(deep, mode="L") == 0x12).all()


def test_a_damaged_png_is_one_error_and_nothing_is_printed(capfd):
    whole = encoded(noise(40, 30))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for data in (whole[:40], whole[: len(whole) // 2], bytes(flipped)):
        with pytest.raises(DataError, match=r"^it is (damaged, or no whole image: |no image of a known format)"):
            decoded(data, height=30, width=40)
    assert capfd.readouterr() == ("", "")


def test_the_size_of_an_image_is_that_of_the_upright_one():
    assert image_size(encoded(noise(5, 9))) == (5, 9, "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        assert image_size(encoded(noise(5, 9), kind, exif=exif)) == (9, 5, "RGB"), kind
    with pytest.raises(DataError, match="no image of a known format"):
        image_size(b"text")


def test_what_can_be_a_buffer_is_decoded_alike():
    data = encoded(noise(9, 7), "JPEG")
    assert (decoded(memoryview(data)) == decoded(data)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_large_images_are_shrunk_in_steps_that_hardly_show(kind, mode):
    image = noise(600, 800)
    ours = decoded(encoded(image, kind), height=20, width=20, mode=mode).squeeze().astype(int)
    plain = np.asarray(image.convert(mode).resize((20, 20), Image.Resampling.BILINEAR), int)
    assert np.abs(ours - plain).mean() < 1


def two_halves(height, width):
    """Red above blue, or beside it where it is wide."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, height // 2, width, height) if height > width else (width // 2, 0, width, height))
    return encoded(image)


def test_resize_stretches():
    pixels = decoded(two_halves(40, 2))
    assert (pixels[0] == RED).all()
    assert (pixels[3] == BLUE).all()


def test_crop_cuts_both_ends_alike():
    strip = np.zeros((4, 12, 3), np.uint8)
    strip[:, 4:8] = np.arange(48).reshape(4, 4, 3)
    assert (decoded(encoded(Image.fromarray(strip)), fit="crop") == strip[:, 4:8]).all()
    assert (decoded(encoded(Image.fromarray(strip).transpose(Image.Transpose.ROTATE_90)), fit="crop")).max() > 40


def test_pad_keeps_all_and_adds_borders():
    wide = decoded(two_halves(2, 4), fit="pad", background="#808080")
    assert (wide[[0, 3]] == GREY).all()
    assert (wide[1:3, :2] == RED).all()
    assert (wide[1:3, 2:] == BLUE).all()
    high = decoded(two_halves(4, 2), fit="pad", background="lime", mode="L")
    assert high[0, :, 0].tolist() == [150, 76, 76, 150]


def test_a_line_of_pixels_is_no_trouble():
    line = encoded(Image.new("RGB", (3000, 1), RED))
    assert (decoded(line, fit="crop") == RED).all()


def with_alpha(mode):
    image = Image.new("RGBA", (4, 4), (*BLUE, 0))
    image.paste((*RED, 255), (0, 0, 4, 2))
    if mode == "P":
        palette = Image.new("P", (4, 4), 1)
        palette.putpalette([*RED, *BLUE])
        palette.paste(0, (0, 0, 4, 2))
        return encoded(palette, transparency=1)
    if mode == "RGB":
        return encoded(image.convert("RGB"), transparency=BLUE)
    return encoded(image.convert(mode))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_pixels_show_the_background(mode):
    pixels = decoded(with_alpha(mode), background="#010203")
    assert (pixels[:2] == (76 if mode == "LA" else RED)).all()
    assert (pixels[2:] == (1, 2, 3)).all()
    assert (decoded(with_alpha(mode))[2:] == 255).all()


def test_half_transparent_pixels_are_blended():
    pixels = decoded(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), background="white")
    assert (pixels == 204).all()


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (4, 4))
    image.paste(1, (0, 0, 2, 4))
    assert decoded(encoded(image), mode="L")[0, :, 0].tolist() == [255, 255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_sixteen_bits_the_upper_eight_are_kept(kind):
    image = Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096 + 255)
    assert decoded(encoded(image, kind), mode="L").ravel().tolist() == list(range(0, 256, 16))


@pytest.mark.parametrize("most", [65535, 1023])
def test_of_a_grey_map_of_sixteen_bits_too(most):
    values = np.linspace(0, most, 16).astype(">u2")
    data = b"P5 4 4 %d\n" % most + values.tobytes()
    expected = (values.astype(int) * 65535 / most).astype(int) >> 8
    assert np.abs(decoded(data, mode="L").ravel().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_that_are_no_colours_are_refused(dtype):
    with pytest.raises(DataError, match=r"Pillow's mode [IF], which no grey or colour is known for"):
        decoded(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


def test_four_printing_colours_become_three():
    cyan = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    assert np.abs(decoded(cyan).astype(int) - (0, 255, 255)).max() < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(20, 40), (60, 120)])
def test_images_stand_upright(kind, orientation, size):
    image = noise(*size)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decoded(encoded(image, kind, exif=exif), height=6, width=5).astype(int)
    turn = [None, None, 0, 3, 1, 5, 4, 6, 2][orientation]  # Pillow's numbers: flips, rotations, transposition
    upright = image if turn is None else image.transpose(Image.Transpose(turn))
    assert np.abs(turned - decoded(encoded(upright), height=6, width=5)).mean() < 8


def test_an_orientation_that_there_is_not_turns_nothing():
    exif = Image.Exif()
    exif[0x0112] = 99
    image = noise(20, 40)
    turned = decoded(encoded(image, "JPEG", exif=exif, quality=95)).astype(int)
    assert (turned == decoded(encoded(image, "JPEG", quality=95))).all()


def test_no_other_program_is_started_for_a_file():
    with pytest.raises(DataError, match="no image of a known format"):
        decoded(encoded(noise(8, 8), "EPS"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0, 0.02, 0.3, 0.5, 0.9])
def test_a_truncated_file_is_an_error_and_no_half_image(kind, part):
    data = encoded(noise(64, 64), kind)
    with pytest.raises(DataError, match=r"no image of a known format|damaged, or no whole image: ."):
        decoded(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_noise_in_the_middle_is_an_error(kind):
    data = bytearray(encoded(noise(200, 200), kind, quality=95))
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    with pytest.raises(DataError, match=r"it is damaged, or no whole image: ."):
        decoded(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_of_too_many_pixels_is_not_decoded(kind, monkeypatch):
    data = encoded(noise(100, 100), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"10000 pixels|100×100 pixels"):
        decoded(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "height = 0; it is a whole number of pixels, 1 or more."),
        ({"width": True}, "width = True; it is a whole number of pixels, 1 or more."),
        ({"mode": "rgb"}, r"mode = 'rgb'\. Did you mean 'RGB'\? Known: L, RGB\."),
        ({"fit": "croop"}, r"fit = 'croop'\. Did you mean 'crop'\?"),
        ({"background": "whit"}, "background = 'whit'; it is the name of a colour, such as white, or \"#rrggbb\"."),
        ({"background": "#ffffff80"}, "background = '#ffffff80'; it is the name of a colour"),
    ],
)
def test_a_setting_that_is_not_allowed(settings, message):
    with pytest.raises(ConfigError, match=message):
        ImageFormat(**{"height": 4, "width": 4, **settings})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_images_of_another_size_are_refused_where_all_have_one(kind):
    form = ImageFormat(height=5, width=9, mode="RGB", is_exact=True)
    out = np.empty(form.spec.shape, np.uint8)
    form.decode(encoded(noise(5, 9), kind), out)
    for height, width in ((9, 5), (5, 8), (50, 90)):
        message = rf"^it has {height}×{width} pixels, but the first one 5×9; set height and width, which all "
        with pytest.raises(DataError, match=message):
            form.decode(encoded(noise(height, width), kind), out)


@pytest.mark.parametrize("library", ["PIL", "simplejpeg"])
def test_a_missing_library_is_the_installation(library, monkeypatch):
    data, form = encoded(noise(4, 4), "JPEG"), ImageFormat(height=4, width=4)
    for name in [each for each in sys.modules if each.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    for known in (images.pillow, images.simplejpeg):
        known.cache_clear()
    with pytest.raises(
        InstallationError,
        match=rf"images are read with Pillow and simplejpeg \(.*{library}.*\): pip install .*\[images\]",
    ):
        form.decode(data, np.empty(form.spec.shape, np.uint8))
