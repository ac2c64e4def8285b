"""Random changes of images, drawn anew for each record and epoch, so that a record differs in every epoch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates

from datamix.errors import ConfigError
from datamix.operators.base import Number, RandomKey, leaf_of, operator
from datamix.operators.image import gray_of, image_of, in_dtype
from datamix.spec import Record


@operator(random=True)
def random_crop(
    record: Record,
    key: RandomKey,
    *,
    height: int | None = None,
    width: int | None = None,
    padding: int = 0,
    leaf: str = "image",
) -> Record:
    """Crop an image at a random place.

    Args:
      record: The record, with an image in `leaf`.
      key: The key of the draw.
      height: The height of the crop in pixels; None for that of the image.
      width: The width of the crop in pixels; None for that of the image.
      padding: The pixels of 0 to add on each side of the image before cropping.
      leaf: The name of the leaf.
    """
    value = image_of(record, leaf, "random_crop")
    size = (value.shape[0] if height is None else height, value.shape[1] if width is None else width)
    largest = [length + 2 * padding for length in value.shape[:2]]
    if padding < 0 or not all(1 <= part <= whole for part, whole in zip(size, largest, strict=True)):
        text = f"it is from [1, 1] to {largest}, the size of the image with a padding of {padding}, which is 0 or more"
        raise ConfigError(text, key="random_crop.[height, width]", value=list(size))
    padded = jnp.pad(value, ((padding, padding), (padding, padding), (0, 0)))
    top, left = (
        jax.random.randint(draw, (), 0, whole - part + 1)
        for draw, part, whole in zip(jax.random.split(key), size, largest, strict=True)
    )
    return record | {leaf: lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), (*size, value.shape[2]))}


@operator(random=True, traced=("degrees", "fill"))
def rotate(record: Record, key: RandomKey, *, degrees: Number = 15, fill: Number = 0, leaf: str = "image") -> Record:
    """Rotate an image around its centre by a random angle, with bilinear interpolation, keeping its size.

    Args:
      record: The record, with an image in `leaf`; its dtype is kept.
      key: The key of the draw.
      degrees: The largest angle in degrees, in either direction.
      fill: The value of pixels that lie outside the original image.
      leaf: The name of the leaf.
    """
    value = image_of(record, leaf, "rotate")
    angle = jax.random.uniform(key, (), minval=-1, maxval=1) * (jnp.asarray(degrees, jnp.float32) * (np.pi / 180))
    centre = [(length - 1) / 2 for length in value.shape[:2]]
    row, column = (
        axis - middle for axis, middle in zip(jnp.indices(value.shape[:2], jnp.float32), centre, strict=True)
    )
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    place = [cosine * row + sine * column + centre[0], cosine * column - sine * row + centre[1]]
    background = jnp.asarray(fill, jnp.float32)

    def channel(pixels: jax.Array) -> jax.Array:
        # The background is subtracted first and added later, as `map_coordinates` takes no traced fill value.
        turned: jax.Array = map_coordinates(pixels.astype(jnp.float32) - background, place, order=1)
        return turned + background

    return record | {leaf: in_dtype(jax.vmap(channel, in_axes=2, out_axes=2)(value), value.dtype)}


@operator(random=True, traced=("brightness", "contrast", "saturation"))
def color_jitter(
    record: Record,
    key: RandomKey,
    *,
    brightness: Number = 0,
    contrast: Number = 0,
    saturation: Number = 0,
    leaf: str = "image",
) -> Record:
    """Change brightness, then contrast, then saturation, each by a factor drawn from 1 - x to 1 + x.

    Use it before `normalize`, since it takes 0 as black. Integers stay in the range of their dtype; floats are not
    clipped, for which there is `clip`. A fourth channel is unchanged.

    Args:
      record: The record, with an image in `leaf`; its dtype is kept.
      key: The key of the draws.
      brightness: x for the factor of all values; from 0 to 1, as the others.
      contrast: x for the factor of each value's distance from the mean of the grey image.
      saturation: x for the factor of each pixel's distance from its own grey; images of one channel are unchanged.
      leaf: The name of the leaf.
    """
    value = image_of(record, leaf, "color_jitter")
    factors = []
    amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for draw, (name, amount) in zip(jax.random.split(key, 3), amounts.items(), strict=True):
        if not isinstance(amount, jax.Array) and not 0 <= amount <= 1:
            raise ConfigError("it is from 0 to 1", key=f"color_jitter.{name}", value=float(amount))
        factors.append(1 + jnp.asarray(amount, jnp.float32) * jax.random.uniform(draw, (), minval=-1, maxval=1))
    colors = value[..., :3].astype(jnp.float32) * factors[0]
    for middle, factor in ((lambda image: _mean(gray_of(image)), factors[1]), (gray_of, factors[2])):
        center = middle(colors)
        colors = (colors - center) * factor + center
    return record | {leaf: jnp.concatenate([in_dtype(colors, value.dtype), value[..., 3:]], axis=2)}


def _mean(image: jax.Array) -> jax.Array:
    """The mean of an image, summed in a fixed order; that of `jnp.mean` differs between programs."""
    values, count = image.reshape(-1), image.size
    values = jnp.pad(values, (0, (1 << (count - 1).bit_length()) - count))
    while len(values) > 1:
        values = values[: len(values) // 2] + values[len(values) // 2 :]
    return values[0] / count


@operator(random=True, elementwise=True, traced=("std",))
def gaussian_noise(record: Record, key: RandomKey, *, std: Number = 0.1, leaf: str = "image") -> Record:
    """Add normally distributed noise to every value; integers are rounded and stay in the range of their dtype."""
    value = leaf_of(record, leaf, "gaussian_noise")
    if not isinstance(std, jax.Array) and std < 0:
        raise ConfigError("it is 0 or more", key="gaussian_noise.std", value=float(std))
    noise = jax.random.normal(key, value.shape) * jnp.asarray(std, jnp.float32)
    return record | {leaf: in_dtype(value.astype(jnp.float32) + noise, value.dtype)}


@operator(random=True, traced=("fill",))
def random_erasing(
    record: Record,
    key: RandomKey,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.33),
    fill: Number = 0,
    leaf: str = "image",
) -> Record:
    """Fill a random rectangle of an image, at most three times as wide as high, or as high as wide.

    What does not fit into the image is cut off, so that in a narrow one it may be longer, and cover less than `area`.

    Args:
      record: The record, with an image in `leaf`; its dtype is kept.
      key: The key of the draws.
      probability: The probability that an image gets a rectangle.
      area: The smallest and the largest fraction of the image that it covers, from 0 to 1.
      fill: The value in the rectangle.
      leaf: The name of the leaf.

    Source: Z. Zhong et al., Random erasing data augmentation, AAAI (2020).
    """
    value = image_of(record, leaf, "random_erasing")
    if not 0 <= probability <= 1:
        raise ConfigError("it is from 0 to 1", key="random_erasing.probability", value=probability)
    if len(area) != 2 or not 0 <= area[0] <= area[1] <= 1:
        raise ConfigError("it is two numbers from 0 to 1, in order", key="random_erasing.area", value=list(area))
    erase_key, draws_key = jax.random.split(key)
    size, form, top, left = jax.random.uniform(draws_key, (4,))
    pixels = (area[0] + (area[1] - area[0]) * size) * np.prod(value.shape[:2])
    aspect = jnp.exp((2 * form - 1) * np.log(3))
    inside = jax.random.bernoulli(erase_key, jnp.float32(probability))
    sides = (jnp.sqrt(pixels * aspect), jnp.sqrt(pixels / aspect))
    for axis, length, begin in zip((0, 1), sides, (top, left), strict=True):
        whole = value.shape[axis]
        length = jnp.minimum(jnp.round(length), whole)
        first = jnp.floor(begin * (whole - length + 1))
        index = jnp.arange(whole).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        inside = inside & (index >= first) & (index < first + length)
    return record | {leaf: jnp.where(inside, jnp.asarray(fill).astype(value.dtype), value)}
