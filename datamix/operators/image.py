"""Operators on images, shape [height, width, channels]; the element-wise ones on any numbers.

A fourth channel is alpha: how opaque each pixel is.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import add
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, Key, Num

from datamix.errors import ConfigError
from datamix.operators.base import leaf_of, operator, shape_error
from datamix.spec import Record

Image: TypeAlias = Num[jax.Array, "height width channels"]

# Rec. 601 luma, as in ITU-R BT.601: what image libraries call grayscale.
_LUMA = (0.299, 0.587, 0.114)


@operator(elementwise=True)
def to_float(record: Record, *, largest: float | None = None, leaf: str = "image") -> Record:
    """Turn numbers into float32 in [0, 1].

    Args:
      largest: The value that becomes 1; by default 255 for uint8, and 1 for truth values and for floats, which keep
        their values. Other integers need it: their type does not say how bright white is.
      leaf: The name of the leaf.
    """
    value = leaf_of(record, leaf, "to_float")
    if largest is not None and not largest > 0:
        raise ConfigError("it is above 0", key="to_float.largest", value=largest)
    if largest is None and jnp.issubdtype(value.dtype, jnp.integer) and value.dtype != jnp.uint8:
        text = f"leaf {leaf!r} is {value.dtype}, whose values may end anywhere"
        mend = "Say which one becomes 1, as in to_float: {largest: 255}."
        raise ConfigError(text, key="to_float.largest", value=None, hint=mend)
    if largest is None:
        largest = 255 if value.dtype == jnp.uint8 else 1
    # A product, not a quotient: XLA's CPU backend divides several times slower than it multiplies.
    return record | {leaf: value.astype(jnp.float32) * (1 / largest)}


@operator(elementwise=True)
def cast(record: Record, *, dtype: str, leaf: str = "image") -> Record:
    """Turn numbers into another dtype; values stay as far as it holds them. 64 bits are stored in 32, as JAX does."""
    try:
        wanted = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError:
        wanted = jnp.dtype(object)
    if not (jnp.issubdtype(wanted, jnp.number) or jnp.issubdtype(wanted, jnp.bool_)):
        raise ConfigError("it is a dtype of numbers: float32, bfloat16, int32, …", key="cast.dtype", value=dtype)
    return record | {leaf: leaf_of(record, leaf, "cast").astype(wanted)}


@operator(elementwise=True, traced=("mean", "std"))
def normalize(
    record: Record, *, mean: float | list[float] | jax.Array, std: float | list[float] | jax.Array, leaf: str = "image"
) -> Record:
    """Subtract a mean and divide by a deviation, in float32: (x - mean) / std.

    Args:
      mean: The mean, one number or one a channel.
      std: The standard deviation, above 0, one number or one a channel.
      leaf: The name of the leaf.
    """
    if not isinstance(std, jax.Array) and not (np.asarray(std) > 0).all():
        raise ConfigError("it is above 0", key="normalize.std", value=np.asarray(std).tolist())
    value = leaf_of(record, leaf, "normalize").astype(jnp.float32)
    # Subtracted first: of two products, a compiler is free to round one, and need not choose the same in each program.
    return record | {leaf: (value - jnp.asarray(mean, jnp.float32)) * (1.0 / jnp.asarray(std, jnp.float32))}


@operator(random=True)
def flip_horizontal(
    record: Record, key: Key[jax.Array, ""], *, probability: float = 0.5, leaf: str = "image"
) -> Record:
    """Mirror an image left to right with a probability."""
    value = _image(record, leaf, "flip_horizontal")
    if not 0 <= probability <= 1:
        raise ConfigError("it is from 0 to 1", key="flip_horizontal.probability", value=probability)
    return record | {leaf: jnp.where(jax.random.bernoulli(key, jnp.float32(probability)), value[:, ::-1], value)}


@operator
def resize(record: Record, *, height: int, width: int, method: str = "linear", leaf: str = "image") -> Record:
    """Resize an image.

    Args:
      height: The height of the result in pixels.
      width: The width of the result in pixels.
      method: The interpolation: "nearest", "linear", "cubic" or "lanczos3", see `jax.image.resize`; antialiased where
        the image shrinks.
      leaf: The name of the leaf.
    """
    value = _image(record, leaf, "resize")
    for setting, length in {"height": height, "width": width}.items():
        if length < 1:
            raise ConfigError("it is 1 or more", key=f"resize.{setting}", value=length)
    jax.image.ResizeMethod.from_string(method)
    resized = _resized_axis(value.astype(jnp.float32), 0, height, method)
    resized = _resized_axis(resized, 1, width, method)
    if jnp.issubdtype(value.dtype, jnp.integer):
        limits = np.iinfo(value.dtype)
        # As floats: JAX takes no Python integer above int32's largest.
        resized = jnp.clip(jnp.round(resized), float(limits.min), float(limits.max))
    return record | {leaf: resized.astype(value.dtype)}


def _resized_axis(image: Image, axis: int, size: int, method: str) -> Any:
    """Resize one axis of an image.

    Each value is a sum over its taps, in their order. A matrix product, as `jax.image.resize` makes, adds them up in
    another order for another number of rows, so that a batch by index would differ from the same batch in the loop.
    """
    if image.shape[axis] == size:
        return image
    index, weight = _taps(image.shape[axis], size, method)
    shape = [size if i == axis else 1 for i in range(image.ndim)]
    taps = zip(index.T, weight.T, strict=True)
    return reduce(add, (jnp.take(image, at, axis=axis, mode="clip") * by.reshape(shape) for at, by in taps))


@cache
def _taps(
    num_inputs: int, num_outputs: int, method: str
) -> tuple[Int32[np.ndarray, "outputs taps"], Float32[np.ndarray, "outputs taps"]]:
    """The inputs that each output of a resized axis is made of, and their weights."""
    with jax.ensure_compile_time_eval():
        identity = jnp.eye(num_inputs, dtype=jnp.float32)
        weights = np.asarray(jax.image.resize(identity, (num_inputs, num_outputs), method)).T
    num_taps = max(1, int((weights != 0).sum(axis=1).max()))
    # The inputs that count come first, in their order; what fills up the shorter rows weighs 0.
    index = np.sort(np.argsort(weights == 0, axis=1, kind="stable")[:, :num_taps], axis=1)
    return index.astype(np.int32), np.take_along_axis(weights, index, axis=1)


@operator
def to_grayscale(record: Record, *, leaf: str = "image") -> Record:
    """Turn three channels into one, by Rec. 601 luma; one channel stays as it is, a fourth is dropped; dtypes stay."""
    value = _image(record, leaf, "to_grayscale")
    if value.shape[2] == 1:
        return record
    # A sum of slices, not a matrix product: XLA's CPU backend does it 7 times faster, and others in whole floats.
    red, green, blue = (value[..., i : i + 1].astype(jnp.float32) * weight for i, weight in enumerate(_LUMA))
    gray = red + green + blue
    gray = jnp.round(gray) if jnp.issubdtype(value.dtype, jnp.integer) else gray
    return record | {leaf: gray.astype(value.dtype)}


@operator
def to_rgb(record: Record, *, leaf: str = "image") -> Record:
    """Turn one channel into three equal ones; three channels stay as they are, and a fourth is dropped."""
    value = _image(record, leaf, "to_rgb")
    return record | {leaf: jnp.broadcast_to(value[..., :3], (*value.shape[:2], 3))}


@operator
def channels_last(record: Record, *, leaf: str = "image") -> Record:
    """Turn an image [channels, height, width], as torch has it, into [height, width, channels].

    >>> channels_last({"image": jnp.zeros((3, 28, 32))})["image"].shape
    (28, 32, 3)
    """
    value = leaf_of(record, leaf, "channels_last")
    if value.ndim != 3:
        raise shape_error("channels_last", "an image [channels, height, width]", leaf, value)
    return record | {leaf: jnp.moveaxis(value, 0, -1)}


@operator
def drop_alpha(record: Record, *, leaf: str = "image") -> Record:
    """Drop the last of two or four channels, which says how opaque a pixel is; other images stay as they are.

    >>> drop_alpha({"image": jnp.zeros((2, 2, 4))})["image"].shape
    (2, 2, 3)
    """
    value = leaf_of(record, leaf, "drop_alpha")
    if value.ndim != 3 or not 1 <= value.shape[2] <= 4:
        raise shape_error("drop_alpha", "an image [height, width, 1 to 4]", leaf, value)
    return record | {leaf: value[..., :-1]} if value.shape[2] in (2, 4) else record


def _image(record: Record, leaf: str, name: str) -> Image:
    value = leaf_of(record, leaf, name)
    if value.ndim != 3 or value.shape[2] not in (1, 3, 4):
        raise shape_error(name, "an image [height, width, 1, 3 or 4]", leaf, value)
    return value
