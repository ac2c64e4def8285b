"""Images of any size and format, decoded to pixels of one size.

simplejpeg decodes JPEG; Pillow decodes everything else, except plain PNG if OpenCV is installed, and resizes. For
photographs resized to 64×64, that is 1.3 times as fast as Pillow alone, or 3 to 6 times if libjpeg shrinks large ones,
and damage inside a file is an error. For JPEG, OpenCV is 1.3 times as fast again, but returns the upper half of a
truncated file, and its pixels depend on the machine.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from datamix.errors import ConfigError, DataError, InstallationError, check_choice, install_hint
from datamix.spec import LeafSpec

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""The suffixes of image files."""

Mode = Literal["L", "RGB"]
Fit = Literal["resize", "crop", "pad"]

_GAP = 4  # libjpeg may shrink a JPEG to this many times the size that is needed, much faster than Pillow
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow would start other programs for some others
_PNG, _HEAD_BYTES = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 33  # of a PNG file: its beginning; its head with size and colours
_CHUNK, _CRC = struct.Struct(">I4s"), struct.Struct(">I")  # how a part of a PNG file begins and ends


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """The size and colours that images are decoded to.

    Images are turned upright by their EXIF orientation. Of 16-bit colours, the upper 8 bits are kept; of an animation
    or several pages, the first image. Pillow's antialiased bilinear filter changes sizes.

    Attributes:
      height: Pixels, 1 or more.
      width: Pixels, 1 or more.
      mode: "L" is grey, one channel; "RGB" has three.
      fit: "resize" stretches the image; "crop" fills all pixels and cuts off the excess, equally on both sides; "pad"
        keeps all of the image and adds borders of `background`.
      background: The colour behind transparent pixels and beside padded images: a name of CSS, or "#rrggbb".
      is_exact: Whether images of another size are refused.

    Raises:
      ConfigError: A setting is not allowed.
      InstallationError: Pillow or simplejpeg is not installed.

    >>> ImageFormat(height=28, width=28, mode="RGB").spec
    LeafSpec(shape=(28, 28, 3), dtype='uint8')
    """

    height: int
    width: int
    mode: Mode = "L"
    fit: Fit = "resize"
    background: str = "white"
    is_exact: bool = False

    def __post_init__(self) -> None:
        for key in ("height", "width"):
            length = getattr(self, key)
            if not isinstance(length, int) or isinstance(length, bool) or length < 1:
                raise ConfigError("it is a whole number of pixels, 1 or more", key=key, value=length)
        check_choice(self.mode, get_args(Mode), "mode")
        check_choice(self.fit, get_args(Fit), "fit")
        if len(self._colour) != 3:
            text = 'it is the name of a colour, such as white, or "#rrggbb"'
            raise ConfigError(text, key="background", value=self.background)

    @property
    def spec(self) -> LeafSpec:
        return LeafSpec((self.height, self.width, 1 if self.mode == "L" else 3), "uint8")

    @property
    def _colour(self) -> tuple[int, ...]:
        """The background as red, green and blue; of another length if it is not allowed."""
        with installed():
            from PIL import ImageColor
        try:
            return ImageColor.getrgb(str(self.background))
        except ValueError:
            return ()

    def decode(self, data: bytes | memoryview, out: np.ndarray) -> None:
        """Decode one image. Several threads may call this at once; most of the work releases the GIL.

        Args:
          data: The content of an image file.
          out: The array to fill: uint8, with the shape in `spec`.

        Raises:
          DataError: The file is damaged, truncated or no image, its pixels have no known range, or `is_exact` and it
            has another size. The message does not name the file.
        """
        try:
            if data[:3] == b"\xff\xd8\xff":
                image = self._jpeg(data)
            elif (plain := _plain_png(data)) is not None and plain.shape == out.shape:
                out[...] = plain
                return
            else:
                image = None
            image = image or self._other(data)
            if self.is_exact and image.size != (self.width, self.height):
                height, width, _ = image_size(bytes(data))
                text = f"it has {height}×{width} pixels, but the first one {self.height}×{self.width}"
                raise DataError(f"{text}; set height and width, which all are made to.")
            pixels = self._fitted(image).tobytes()
            out[...] = np.frombuffer(pixels, np.uint8).reshape(out.shape)  # half the time of np.asarray(image)
        except _damage() as error:  # not `with damage()`, which costs as much as a call that releases the GIL
            raise _damaged(error) from error

    def _jpeg(self, data: bytes | memoryview) -> Image | None:
        """The image in a JPEG file, large enough to be fitted; None if simplejpeg does not support its colours."""
        library, decoder = pillow(), simplejpeg()
        height, width, colours, _ = decoder.decode_jpeg_header(data)
        if colours not in ("Gray", "YCbCr", "RGB"):
            return None
        if library.MAX_IMAGE_PIXELS and height * width > 2 * library.MAX_IMAGE_PIXELS:  # as in Pillow
            raise DataError(f"it has {width}×{height} pixels, more than are decoded")
        header = library.open(io.BytesIO(data), formats=_FORMATS) if b"Exif\0\0" in bytes(data[: 2**16]) else None
        orientation = header.getexif().get(0x0112, 1) if header else 1
        least = (self.height, self.width) if orientation not in (5, 6, 7, 8) else (self.width, self.height)
        colours = "GRAY" if self.mode == "L" else "RGB"
        pixels = decoder.decode_jpeg(data, colours, min_height=_GAP * least[0], min_width=_GAP * least[1])
        image: Image = library.frombuffer(self.mode, pixels.shape[1::-1], pixels, "raw", self.mode, 0, 1)
        if orientation != 1:
            from PIL import ImageOps

            image.getexif()[0x0112] = orientation
            ImageOps.exif_transpose(image, in_place=True)
        return image

    def _other(self, data: bytes | memoryview) -> Image:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
            image = ImageOps.exif_transpose(file)
        if image.mode == "I" and file.format == "PPM":  # 16 bits, which Pillow scales to a largest value of 65,535
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F") or (image.mode.startswith("I;16") and "transparency" in image.info):
            raise DataError(f"its pixels are of Pillow's mode {image.mode}, which no grey or colour is known for")
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            behind = Image.new("RGBA", image.size, self._colour)
            behind.alpha_composite(image.convert("RGBA"))
            image = behind.convert("RGB")
        return image.convert(self.mode)

    def _fitted(self, image: Image) -> Image:
        size, filter_ = (self.width, self.height), pillow().Resampling.BILINEAR
        if self.fit == "resize":
            return image.resize(size, filter_)
        from PIL import ImageColor, ImageOps

        if self.fit == "crop":
            return ImageOps.fit(image, size, filter_)
        return ImageOps.pad(image, size, filter_, ImageColor.getcolor(self.background, self.mode))


def _plain_png(data: bytes | memoryview) -> np.ndarray | None:
    """The pixels of an undamaged PNG file of 8-bit grey or RGB, by OpenCV: uint8 [height, width, 1 or 3].

    OpenCV takes a fifth of Pillow's time for small images, but prints warnings about damaged ones, and ignores some
    chunks that Pillow respects. Such files, and all others, give None, as does OpenCV if it is not installed.
    """
    if not _is_plain(bytes(data[:_HEAD_BYTES])) or (cv2 := opencv()) is None:
        return None
    at, kind, view, size = _HEAD_BYTES, b"", memoryview(data), len(data)
    while kind != b"IEND":
        if at + 12 > size:
            return None
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 12 + length
        is_whole = end <= size and zlib.crc32(view[at + 4 : end - 4]) == _CRC.unpack_from(data, end - 4)[0]
        if not is_whole or kind in (b"tRNS", b"eXIf", b"acTL"):  # transparency, orientation, frames
            return None
        at = end
    pixels: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), -1)
    if pixels is None:
        return None
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels[..., ::-1]


@lru_cache(64)
def _is_plain(head: bytes) -> bool:
    """Whether a file that begins so is PNG of 8-bit grey or RGB; cached, as most files of a dataset begin alike."""
    is_png = head[:16] == _PNG and head[24:26] in (b"\x08\x00", b"\x08\x02")
    return is_png and zlib.crc32(head[12:29]) == int.from_bytes(head[29:])


@cache
def opencv() -> Any:
    """OpenCV; None if it is not installed."""
    with contextlib.suppress(ImportError):
        import cv2

        return cv2
    return None


@cache
def pillow() -> Any:
    """Pillow's module `Image`; an import statement would take a microsecond for each image."""
    with installed():
        from PIL import Image

        return Image


@cache
def simplejpeg() -> Any:
    """The module `simplejpeg`."""
    with installed():
        import simplejpeg as module

        return module


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Raise InstallationError if a library that reads images cannot be imported."""
    try:
        yield
    except ImportError as error:
        text = f"images are read with Pillow and simplejpeg ({error}): {install_hint('images')}."
        raise InstallationError(text) from error


@contextlib.contextmanager
def damage() -> Iterator[None]:
    """Raise a DataError that says what is wrong with a file that Pillow or simplejpeg refuses."""
    try:
        yield
    except _damage() as error:
        raise _damaged(error) from error


@cache
def _damage() -> tuple[type[Exception], ...]:
    """The errors that Pillow and simplejpeg raise on damaged files, which depend on the format."""
    too_large: type[Exception] = pillow().DecompressionBombError
    return (OSError, ValueError, SyntaxError, EOFError, LookupError, OverflowError, struct.error, too_large)


def _damaged(error: Exception) -> DataError:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return DataError("it is no image of a known format")
    return DataError(f"it is damaged, or no whole image: {' '.join(str(error).split()) or type(error).__name__}")


def image_sizes(files: Iterable[str | IO[bytes]]) -> str:
    """The smallest and largest heights and widths of images, in words; unreadable ones do not count."""
    sizes = []
    for file in files:
        with contextlib.suppress(DataError), damage(), pillow().open(file, formats=_FORMATS) as image:
            sizes.append(image.size)
    if not sizes:
        return "not to be read"
    width, height = (" to ".join(map(str, sorted({min(each), max(each)}))) for each in zip(*sizes, strict=True))
    return f"{height} pixels high and {width} wide"


def image_format(
    images: Iterable[str | IO[bytes]], *, height: int | None, width: int | None, **settings: Any
) -> ImageFormat:
    """The format to which images are decoded; if no size is set, the error says the sizes of some of them, `images`."""
    if height is None or width is None:
        text, key = f"the first images are {image_sizes(images)}", "width" if height else "height"
        raise ConfigError(text, key=key, value=None, hint="Set height and width.")
    return ImageFormat(height=height, width=width, **settings)


def image_size(data: bytes) -> tuple[int, int, str]:
    """The height and width of an image when upright, and Pillow's mode, without decoding it."""
    with damage(), pillow().open(io.BytesIO(data), formats=_FORMATS) as image:
        turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) >= 5  # Pillow itself turns TIFF upright
        height, width = image.size if turned else image.size[::-1]
        return height, width, image.mode
