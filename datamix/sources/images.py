"""Images of any size and format, decoded to pixels of one size.

JPEG is decoded by simplejpeg, everything else and every change of size by Pillow: on photographs made 64×64, 1.3 times
as fast as Pillow alone, 3 to 6 times where libjpeg shrinks large ones, and damage inside a file is an error. OpenCV is
1.3 times as fast again, but shows the upper half of a truncated JPEG, and its pixels depend on the machine.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from datamix.errors import ConfigError, DataError, InstallationError, hint, install_hint
from datamix.spec import LeafSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["L", "RGB"]
Fit = Literal["resize", "crop", "pad"]

# Where an image is larger than this many times what is asked for, whole pixels are averaged first, as Pillow's
# `thumbnail` does: by libjpeg as it decodes, otherwise by Pillow.
_GAP = 4.0
# What Pillow and simplejpeg raise on damaged files, by the format.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, LookupError, OverflowError, struct.error)


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """The size and colours that images are decoded to.

    Images are turned upright as their EXIF orientation says; of 16 bits a colour the upper 8 are kept; of an animation
    or of several pages, the first. Sizes change by Pillow's antialiased bilinear filter.

    Attributes:
      height: Pixels, 1 or more.
      width: Pixels, 1 or more.
      mode: "L" is grey, one channel; "RGB" has three.
      fit: "resize" stretches the image; "crop" fills all pixels and cuts off what stands over, on both sides alike;
        "pad" keeps all of the image and adds borders of `background`.
      background: The colour behind transparent pixels and beside padded images: a name of CSS, or "#rrggbb".

    Raises:
      ConfigError: One of them is not allowed.
      InstallationError: Pillow or simplejpeg is not installed.

    >>> ImageFormat(height=28, width=28, mode="RGB").spec
    LeafSpec(shape=(28, 28, 3), dtype='uint8')
    """

    height: int
    width: int
    mode: Mode = "L"
    fit: Fit = "resize"
    background: str = "white"

    def __post_init__(self) -> None:
        for key in ("height", "width"):
            length = getattr(self, key)
            if not isinstance(length, int) or isinstance(length, bool) or length < 1:
                raise ConfigError("it is a whole number of pixels, 1 or more", key=key, value=length)
        for key, known in (("mode", get_args(Mode)), ("fit", get_args(Fit))):
            if (value := getattr(self, key)) not in known:
                raise ConfigError(f"there is no such {key}", key=key, value=value, hint=hint(str(value), known))
        _ = self._border

    @property
    def spec(self) -> LeafSpec:
        """The spec of a decoded image: uint8 [height, width, channels]."""
        return LeafSpec((self.height, self.width, 1 if self.mode == "L" else 3), "uint8")

    @property
    def _border(self) -> tuple[int, ...]:
        """The background: red, green, blue."""
        with installed():
            from PIL import ImageColor
        colour: tuple[int, ...] = ()
        with contextlib.suppress(ValueError):
            colour = ImageColor.getrgb(str(self.background))
        if len(colour) != 3:
            text = 'it is the name of a colour, such as white, or "#rrggbb"'
            raise ConfigError(text, key="background", value=self.background)
        return colour

    def decode(self, data: bytes | memoryview, out: np.ndarray) -> None:
        """Decode one image; several threads may do so at once, and most of the work lets go of the GIL.

        Args:
          data: The content of an image file.
          out: The array to fill: uint8, of the shape in `spec`.

        Raises:
          DataError: The file is damaged, truncated or no image, or its pixels have no known range. The message does not
            say which file.
        """
        with installed(), damage():
            image = self._jpeg(data) if bytes(data[:3]) == b"\xff\xd8\xff" else None
            out[...] = np.asarray(self._fitted(image or self._other(data))).reshape(out.shape)

    def _jpeg(self, data: bytes | memoryview) -> Image | None:
        """The image in a JPEG file, large enough to be fitted; None where simplejpeg has not its colours."""
        import simplejpeg
        from PIL import Image, ImageOps

        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("Gray", "YCbCr", "RGB"):
            return None
        if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:  # Pillow's bound as well
            raise DataError(f"it has {width}×{height} pixels, more than are decoded")
        header = Image.open(io.BytesIO(data)) if b"Exif\0\0" in bytes(data[: 2**16]) else None
        orientation = header.getexif().get(0x0112, 1) if header else 1
        least = self._size(width, height) if orientation < 5 else self._size(height, width)[::-1]
        pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if self.mode == "L" else "RGB",
            min_width=math.ceil(_GAP * least[0]),
            min_height=math.ceil(_GAP * least[1]),
        )
        image = Image.fromarray(pixels[..., 0] if self.mode == "L" else pixels)
        if orientation != 1:
            image.getexif()[0x0112] = orientation
            ImageOps.exif_transpose(image, in_place=True)
        return image

    def _other(self, data: bytes | memoryview) -> Image:
        """The image in a file of any format that Pillow reads."""
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data)) as file:
            image = ImageOps.exif_transpose(file)
        if image.mode in ("I", "F") or (image.mode.startswith("I;16") and "transparency" in image.info):
            raise DataError(f"its pixels are of Pillow's mode {image.mode}, which no grey or colour is known for")
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            behind = Image.new("RGBA", image.size, self._border)
            behind.alpha_composite(image.convert("RGBA"))
            image = behind.convert("RGB")
        return image.convert(self.mode)

    def _size(self, width: int, height: int) -> tuple[float, float]:
        """The width and height that all of an image has once it is fitted; it may reach beyond the format's own."""
        across, down = self.width / width, self.height / height
        if self.fit == "resize":
            return self.width, self.height
        scale = max(across, down) if self.fit == "crop" else min(across, down)
        return width * scale, height * scale

    def _fitted(self, image: Image) -> Image:
        """An image of `mode`, fitted to height and width."""
        from PIL import Image

        size, fitted = (self.width, self.height), self._size(*image.size)
        whole: tuple[float, float, float, float] = (0, 0, *image.size)
        box, inner = whole, size
        if self.fit == "crop":
            kept = [
                length * min(1.0, least / full) for length, least, full in zip(image.size, size, fitted, strict=True)
            ]
            left, top = ((length - part) / 2 for length, part in zip(image.size, kept, strict=True))
            box = (left, top, left + kept[0], top + kept[1])
        elif self.fit == "pad":
            inner = (max(1, round(fitted[0])), max(1, round(fitted[1])))
        if (box, inner) != (whole, image.size):
            image = image.resize(inner, Image.Resampling.BILINEAR, box, reducing_gap=_GAP)
        if inner != size:
            behind = Image.new("RGB", size, self._border).convert(self.mode)
            behind.paste(image, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
            image = behind
        return image


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Say of a library that reads images that it cannot be imported."""
    try:
        yield
    except ImportError as error:
        raise InstallationError(
            f"images are read with Pillow and simplejpeg ({error}): {install_hint('images')}."
        ) from error


@contextlib.contextmanager
def damage() -> Iterator[None]:
    """Say of a file that Pillow or simplejpeg refuses what is wrong with it."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError:
        raise DataError("it is no image of a known format") from None
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"it is damaged, or no whole image: {reason or type(error).__name__}") from error
