"""Operators on images, shape [height, width, channels]; elementwise ones take leaves of any shape.

A fourth channel is alpha, the opacity of each pixel.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache, partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from datamix.errors import ConfigError, hint
from datamix.lazy import jax, jnp
from datamix.operators.base import Number, RandomKey, leaf_of, operator, recast, shape_error
from datamix.spec import Record, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Num

    Image: TypeAlias = Num[jax.Array, "height width channels"]

# Rec. 601 luma, as in ITU-R BT.601: what image libraries call grayscale.
_LUMA = (0.299, 0.587, 0.114)
# Images that a CPU resizes together: at most _BLOCK_IMAGES small ones, a vector's worth or more; of large ones, as many
# as a core's cache holds. Images are small if _FILLED_IMAGES of them fit into the cache.
_BLOCK_IMAGES, _BLOCK_VALUES, _FILLED_IMAGES = 64, 2**17, 16


def _float(spec: Spec, *, largest: float | None = None, leaf: str = "image") -> Spec | None:
    known = largest is None and leaf in spec and spec[leaf].dtype in ("uint8", "bool", "float32")
    return recast(spec, leaf, "float32") if known else None


@operator(elementwise=True, after=_float)
def to_float(record: Record, *, largest: float | None = None, leaf: str = "image") -> Record:
    """Scale numbers to float32 in [0, 1].

    Args:
      largest: The value that becomes 1; by default 255 for uint8, and 1 for booleans and floats, which keep their
        values. Other integers need it: their dtype does not say how bright white is.
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
    """Convert numbers to another dtype, as far as it can hold them; 64-bit dtypes become 32-bit ones, as in JAX."""
    try:
        target = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError:
        target = jnp.dtype(object)
    if not (jnp.issubdtype(target, jnp.number) or jnp.issubdtype(target, jnp.bool_)):
        raise ConfigError("it is a dtype of numbers: float32, bfloat16, int32, …", key="cast.dtype", value=dtype)
    return record | {leaf: leaf_of(record, leaf, "cast").astype(target)}


def _normal(spec: Spec, *, mean: Any, std: Any, leaf: str = "image") -> Spec | None:
    channels = spec[leaf].shape[-1:] if leaf in spec else ()
    means, stds = (each if isinstance(each, list) and (len(each),) == channels else [each] for each in (mean, std))
    known = all(type(each) in (int, float) for each in (*means, *stds)) and min(stds) > 0
    return recast(spec, leaf, "float32") if known else None


@operator(elementwise=True, traced=("mean", "std"), after=_normal)
def normalize(record: Record, *, mean: Number | list[float], std: Number | list[float], leaf: str = "image") -> Record:
    """Subtract a mean and divide by a deviation, in float32: (x - mean) / std.

    Args:
      mean: The mean, one number or one per channel.
      std: The standard deviation, above 0, one number or one per channel.
      leaf: The name of the leaf.
    """
    if not isinstance(std, jax.Array) and not (np.asarray(std) > 0).all():
        raise ConfigError("it is above 0", key="normalize.std", value=np.asarray(std).tolist())
    value = leaf_of(record, leaf, "normalize").astype(jnp.float32)
    # Subtract first: in a difference of two products a compiler may round only one, and not the same in every program.
    return record | {leaf: (value - jnp.asarray(mean, jnp.float32)) * (1.0 / jnp.asarray(std, jnp.float32))}


@operator(elementwise=True, traced=("low", "high"))
def clip(record: Record, *, low: Number = -np.inf, high: Number = np.inf, leaf: str = "image") -> Record:
    """Clip values below `low` or above `high`, keeping the dtype.

    >>> clip({"image": jnp.array([-2.0, 0.5, 2.0])}, low=0, high=1)["image"].tolist()
    [0.0, 0.5, 1.0]
    """
    if not isinstance(low, jax.Array) and not isinstance(high, jax.Array) and low > high:
        raise ConfigError(f"it is not above clip.high, which is {high:g}", key="clip.low", value=float(low))
    value = leaf_of(record, leaf, "clip")
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    clipped = jnp.where(value > high, in_dtype(high, value.dtype), value)
    return record | {leaf: jnp.where(value < low, in_dtype(low, value.dtype), clipped)}


@operator(elementwise=True, traced=("offset",))
def log(record: Record, *, offset: Number = 1.0, leaf: str = "image") -> Record:
    """Take the natural logarithm of x + offset, in float32; minus infinity for a sum of 0, NaN for a negative one.

    >>> log({"image": jnp.array([0.0])})["image"].tolist()
    [0.0]
    """
    value = leaf_of(record, leaf, "log").astype(jnp.float32)
    return record | {leaf: jnp.log(value + jnp.asarray(offset, jnp.float32))}


@operator(random=True)
def flip_horizontal(record: Record, key: RandomKey, *, probability: float = 0.5, leaf: str = "image") -> Record:
    """Mirror an image left to right, with the given probability."""
    value = image_of(record, leaf, "flip_horizontal")
    if not 0 <= probability <= 1:
        raise ConfigError("it is from 0 to 1", key="flip_horizontal.probability", value=probability)
    return record | {leaf: jnp.where(jax.random.bernoulli(key, jnp.float32(probability)), value[:, ::-1], value)}


@operator
def resize(record: Record, *, height: int, width: int, method: str = "linear", leaf: str = "image") -> Record:
    """Resize an image.

    Args:
      height: The height of the result in pixels.
      width: The width of the result in pixels.
      method: The interpolation: "nearest", "linear", "cubic" or "lanczos3", see `jax.image.resize`; antialiased if the
        image shrinks.
      leaf: The name of the leaf.
    """
    value = image_of(record, leaf, "resize")
    for setting, length in {"height": height, "width": width}.items():
        if length < 1:
            raise ConfigError("it is 1 or more", key=f"resize.{setting}", value=length)
    try:
        jax.image.ResizeMethod.from_string(method)
    except ValueError:
        mend = hint(method, ["nearest", "linear", "cubic", "lanczos3"])
        raise ConfigError("there is no such method", key="resize.method", value=method, hint=mend) from None
    return record | {leaf: in_dtype(_resized(value.astype(jnp.float32), height, width, method), value.dtype)}


def in_dtype(computed: jax.Array, dtype: np.dtype) -> jax.Array:
    """Convert computed floats to a dtype; for a dtype of integers, they are rounded and clipped to its range."""
    if jnp.issubdtype(dtype, jnp.integer):
        limits = np.iinfo(dtype)
        # As floats: JAX takes no Python integer above the largest int32.
        computed = jnp.clip(jnp.round(computed), float(limits.min), float(limits.max))
    return computed.astype(dtype)


def _resized(image: Image, height: int, width: int, method: str) -> Any:
    """Resize an image of floats; on a CPU, images under `vmap` are resized in blocks.

    Each value is a sum over its taps, in their order. A matrix product, as in `jax.image.resize`, adds them in an order
    that depends on the number of rows, so a batch by index would differ from the same batch in a loop.
    """
    taps = _taps(image.shape[0], height, method), _taps(image.shape[1], width, method)
    if len(taps[0][0]) == len(taps[1][0]) == 1:  # one tap each: nothing is summed
        return image if image.shape[:2] == (height, width) else _whole(image[None], taps)[0]
    together = _resizer(image.shape, height, width, method)
    alone = jax.custom_batching.custom_vmap(lambda image: together(image[None])[0])
    alone.def_vmap(lambda *of: (together(of[-1]), True))
    # Neither loops nor custom rules for `vmap` have a reverse mode; as resizing is linear, its derivative needs
    # neither.
    differentiable = jax.custom_jvp(alone)
    differentiable.defjvp(lambda values, tangents: (differentiable(*values), _whole(tangents[0][None], taps)[0]))
    return differentiable(image)


def _whole(images: jax.Array, taps: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
    """Resize images all at once, not in blocks."""
    return _weighted(_weighted(images, 1, *taps[0]), 2, *taps[1])


@lru_cache(256)
def _resizer(shape: tuple[int, ...], height: int, width: int, method: str) -> Callable[..., Any]:
    """The function that resizes images [count, *shape]; in blocks on a CPU.

    It is cached, so that JAX traces it once for each number of images, not in every program and `eval_shape`.
    """
    rows, columns, channels = shape
    taps = _taps(rows, height, method), _taps(columns, width, method)
    # XLA compiles identical code only once, so axes are padded with zeros to lengths that many sizes share. Of large
    # images, of which few are resized at once, only the second axis is padded: padding both would take longer than
    # everything else.
    room, is_small = _room(columns), math.prod(shape) * _FILLED_IMAGES <= _BLOCK_VALUES
    filled_rows, filled_columns = (_room(rows), room) if is_small else (rows, columns)

    def in_blocks(images: jax.Array) -> Any:
        flat = images.reshape(len(images), -1)
        block = min(max(_BLOCK_VALUES // math.prod(shape), 1), _BLOCK_IMAGES, len(images))

        def put(i: jax.Array, resized: jax.Array) -> jax.Array:
            begin = jnp.minimum(i * block, len(images) - block)
            # Images are put on the last axis: XLA's CPU backend vectorises along an axis that it need not gather from.
            values = jax.lax.dynamic_slice_in_dim(flat, begin, block).T.reshape(rows, columns * channels, block)
            more = ((0, filled_rows - rows), (0, (filled_columns - columns) * channels), (0, 0))
            values, filled = jnp.pad(values, more).reshape(-1, block), (filled_rows, filled_columns * channels * block)
            values = _axis_resizer()(values, filled, 0, *taps[0], room * channels * block)
            values = _axis_resizer()(values, (height, room, channels * block), 1, *taps[1])
            return jax.lax.dynamic_update_slice_in_dim(resized, values.reshape(-1, block).T, begin, 0)

        # Made like the images, which under `shard_map` are those of one device.
        resized = jnp.zeros_like(flat, shape=(len(images), height * width * channels))
        return jax.lax.fori_loop(0, -(-len(images) // block), put, resized).reshape(-1, height, width, channels)

    return jax.jit(partial(jax.lax.platform_dependent, cpu=in_blocks, default=partial(_whole, taps=taps)), inline=True)


def _room(length: int) -> int:
    """The length that an axis is padded to with zeros: at most a quarter more."""
    step = 1 << max(length.bit_length() - 3, 0)
    return -(-length // step) * step


@cache
def _axis_resizer() -> Callable[..., Any]:
    """`_resized_axis`, jitted: traced once for all sizes padded to the same; made late, as JAX is imported late."""
    return jax.jit(_resized_axis, static_argnums=(1, 2, 5))


def _resized_axis(
    values: jax.Array, shape: tuple[int, ...], axis: int, index: np.ndarray, weight: np.ndarray, room: int | None = None
) -> Any:
    """`_weighted` of values reshaped to `shape`, in a loop over two parts, whose results XLA writes to memory.

    Without a loop, it would compute each value of the first axis again for each tap of the second. The loop reshapes
    the values itself: if they were reshaped before it, the code that writes them would compute their places by
    division.

    With `room`, the last axis of the result has that length, padded with zeros.
    """
    size, part = index.shape[1], -(-index.shape[1] // 2)

    def put(i: jax.Array, resized: jax.Array) -> jax.Array:
        begin = i * (size - part)
        at, by = (jax.lax.dynamic_slice_in_dim(table, begin, part, axis=1) for table in (index, weight))
        weighted = _weighted(values.reshape(shape), axis, at, by, i >> 31)
        return jax.lax.dynamic_update_slice_in_dim(resized, weighted, begin, axis)

    rest = shape[axis + 1 :] if room is None else (*shape[axis + 1 : -1], room)
    resized = jnp.zeros_like(values, shape=(*shape[:axis], size, *rest))
    return jax.lax.fori_loop(np.int32(0), np.int32(2), put, resized)


def _weighted(values: jax.Array, axis: int, index: Any, weight: Any, zero: Any = None) -> Any:
    """The weighted sums over the taps of an axis; `index` and `weight` have shape [taps, outputs].

    With `zero`, a 0 unknown to the compiler, each product is rounded, as each sum is. Otherwise one of the products is
    not, and which one depends on the number of images.
    """

    def product(at: Any, by: Any) -> Any:
        exact = jnp.take(values, at, axis=axis, mode="clip") * by.reshape(-1, *[1] * (values.ndim - axis - 1))
        if zero is None:
            return exact
        return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(exact, jnp.int32) ^ zero, jnp.float32)

    return reduce(add, map(product, index, weight))


@cache
def _taps(num_inputs: int, num_outputs: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of each output of a resized axis, int32, and their weights, float32; both have shape [taps, outputs].

    The weights are those of `jax.image.resize`, in NumPy: JAX would compile each small operation, half a second per
    size.
    """
    scale = num_inputs / num_outputs
    offset = (np.arange(num_outputs) + 0.5) * num_inputs / num_outputs - 0.5 - np.arange(num_inputs)[:, None]
    x = np.abs(offset) / max(scale, 1)
    kernels: dict[str, Callable[[], np.ndarray]] = {
        "NEAREST": lambda: (offset >= -0.5) & (offset < 0.5),
        "LINEAR": lambda: np.maximum(1 - x, 0),
        "CUBIC": lambda: np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.maximum(2 - x, 0) ** 2 * (1 - x) / 2),
        "LANCZOS3": lambda: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0),
        "LANCZOS5": lambda: np.where(x < 5, np.sinc(x) * np.sinc(x / 5), 0),
        "AREA": lambda: np.clip((scale + 1) / 2 - np.abs(offset), 0, min(scale, 1)),
    }
    weights = kernels[jax.image.ResizeMethod.from_string(method).name.removesuffix("_PYTORCH")]()
    weights = (weights / weights.sum(axis=0)).astype(np.float32)
    counts = np.abs(weights) > 1e-9  # less is a rounding error
    # The inputs that count come first, in their order; the padding of shorter columns has weight 0.
    index = np.sort(np.argsort(~counts, axis=0, kind="stable")[: counts.sum(axis=0).max()], axis=0)
    return index.astype(np.int32), np.take_along_axis(weights * counts, index, axis=0)


@operator
def center_crop(record: Record, *, height: int, width: int, leaf: str = "image") -> Record:
    """Crop the middle of an image, to a size in pixels; if it cannot be centred, it is half a pixel up or left."""
    value = image_of(record, leaf, "center_crop")
    if not (1 <= height <= value.shape[0] and 1 <= width <= value.shape[1]):
        text = f"it is from [1, 1] to {list(value.shape[:2])}, the size of the image"
        raise ConfigError(text, key="center_crop.[height, width]", value=[height, width])
    top, left = (value.shape[0] - height) // 2, (value.shape[1] - width) // 2
    return record | {leaf: value[top : top + height, left : left + width]}


@operator
def pad(record: Record, *, height: int, width: int, fill: float = 0, leaf: str = "image") -> Record:
    """Pad an image to a size in pixels, with the image in the middle as in `center_crop`.

    >>> pad({"image": jnp.zeros((28, 28, 1))}, height=32, width=32)["image"].shape
    (32, 32, 1)
    """
    value = image_of(record, leaf, "pad")
    if height < value.shape[0] or width < value.shape[1]:
        text = f"it is at least {list(value.shape[:2])}, the size of the image"
        raise ConfigError(text, key="pad.[height, width]", value=[height, width])
    more = (height - value.shape[0], width - value.shape[1])
    return record | {leaf: jnp.pad(value, (*((n // 2, n - n // 2) for n in more), (0, 0)), constant_values=fill)}


@operator
def to_grayscale(record: Record, *, leaf: str = "image") -> Record:
    """Turn three channels into one by Rec. 601 luma, keeping the dtype; one channel is unchanged, a fourth dropped."""
    value = image_of(record, leaf, "to_grayscale")
    if value.shape[2] == 1:
        return record
    return record | {leaf: in_dtype(gray_of(value.astype(jnp.float32)), value.dtype)}


def gray_of(image: Image) -> Image:
    """The luma of an image of floats, as one channel; gray images are unchanged."""
    if image.shape[2] == 1:
        return image
    # A sum of slices, not a matrix product: 7 times faster on XLA's CPU backend, and in full float precision on others.
    red, green, blue = (image[..., i : i + 1] * weight for i, weight in enumerate(_LUMA))
    return red + green + blue


@operator
def to_rgb(record: Record, *, leaf: str = "image") -> Record:
    """Turn one channel into three equal ones; three channels are unchanged, and a fourth is dropped."""
    value = image_of(record, leaf, "to_rgb")
    return record | {leaf: jnp.broadcast_to(value[..., :3], (*value.shape[:2], 3))}


@operator
def channels_last(record: Record, *, leaf: str = "image") -> Record:
    """Turn an image [channels, height, width], as in torch, into [height, width, channels].

    >>> channels_last({"image": jnp.zeros((3, 28, 32))})["image"].shape
    (28, 32, 3)
    """
    value = leaf_of(record, leaf, "channels_last")
    if value.ndim != 3:
        raise shape_error("channels_last", "an image [channels, height, width]", leaf, value)
    return record | {leaf: jnp.moveaxis(value, 0, -1)}


@operator
def drop_alpha(record: Record, *, leaf: str = "image") -> Record:
    """Drop alpha, the last of two or four channels; other images are unchanged.

    >>> drop_alpha({"image": jnp.zeros((2, 2, 4))})["image"].shape
    (2, 2, 3)
    """
    value = leaf_of(record, leaf, "drop_alpha")
    if value.ndim != 3 or not 1 <= value.shape[2] <= 4:
        raise shape_error("drop_alpha", "an image [height, width, 1 to 4]", leaf, value)
    return record | {leaf: value[..., :-1]} if value.shape[2] in (2, 4) else record


def image_of(record: Record, leaf: str, name: str) -> Image:
    """A record's image; raises `SpecError` if the leaf is not an image."""
    value = leaf_of(record, leaf, name)
    if value.ndim != 3 or value.shape[2] not in (1, 3, 4):
        raise shape_error(name, "an image [height, width, 1, 3 or 4]", leaf, value)
    return value
