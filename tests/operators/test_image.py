from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamix.errors import ConfigError, SpecError
from datamix.operators.image import (
    cast,
    center_crop,
    channels_last,
    clip,
    drop_alpha,
    flip_horizontal,
    log,
    normalize,
    pad,
    resize,
    to_float,
    to_grayscale,
    to_rgb,
)
from datamix.spec import Record

KEY = jax.random.key(0)
RGB = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8))

images = hnp.arrays(
    np.uint8, st.tuples(st.sampled_from([1, 3, 6]), st.sampled_from([1, 4, 7]), st.sampled_from([1, 3]))
)


def apply(
    function: Callable[..., Record], value: jax.typing.ArrayLike, *key: jax.Array, **settings: object
) -> np.ndarray:
    """The image, after one operator on a record that holds it and a label."""
    record = {"image": jnp.asarray(value), "label": jnp.array(7)}
    result = function(record, *key, **settings)
    assert result.keys() == record.keys()
    assert result["label"] is record["label"]
    return np.asarray(result["image"])


# to_float and cast ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "want"),
    [
        ("uint8", [0, 51, 255], [0, 0.2, 1]),
        ("bool", [False, True], [0, 1]),
        ("float32", [-3, 0.5, 300], [-3, 0.5, 300]),
        ("bfloat16", [0.5, 300], [0.5, 300]),
    ],
)
def test_to_float(dtype: str, values: list[float], want: list[float]) -> None:
    got = apply(to_float, jnp.array(values, dtype))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "uint32"])
def test_to_float_of_other_integers_is_told_what_becomes_one(dtype: str) -> None:
    values = jnp.array([0, 51, 102], dtype)
    message = rf"^to_float\.largest is missing; leaf 'image' is {dtype}, .* to_float: \{{largest: 255\}}\.$"
    with pytest.raises(ConfigError, match=message):
        apply(to_float, values)
    np.testing.assert_allclose(apply(to_float, values, largest=255), [0, 0.2, 0.4], rtol=1e-6)


def test_to_float_of_bytes_ends_at_one() -> None:
    got = apply(to_float, np.arange(256, dtype=np.uint8))
    np.testing.assert_allclose(got, np.arange(256) / 255, rtol=2e-7)
    assert (got[0], got[-1]) == (0, 1)


def test_cast() -> None:
    assert apply(cast, np.array([0.0, 1.7, -1.7], np.float32), dtype="int32").tolist() == [0, 1, -1]
    got = apply(cast, np.array([0, 255], np.uint8), dtype="float32")
    assert (got.tolist(), got.dtype) == ([0, 255], np.float32)
    assert apply(cast, np.array([0, 3], np.uint8), dtype="bool").tolist() == [False, True]
    assert apply(cast, np.array([1], np.uint8), dtype="bfloat16").dtype == jnp.bfloat16
    assert cast({"label": jnp.array(3)}, dtype="uint8", leaf="label")["label"].dtype == jnp.uint8


@pytest.mark.parametrize(("dtype", "stored"), [("float64", "float32"), ("int64", "int32"), ("uint64", "uint32")])
def test_cast_to_64_bits_is_stored_in_32(dtype: str, stored: str) -> None:
    assert apply(cast, RGB, dtype=dtype).dtype == stored  # without JAX's warning, which would be an error here


@pytest.mark.parametrize("dtype", ["float31", "", "object", "str", "datetime64[s]"])
def test_cast_to_no_dtype(dtype: str) -> None:
    with pytest.raises(ConfigError, match=r"^cast\.dtype = '.*'; it is a dtype of numbers: float32, bfloat16, int32"):
        apply(cast, RGB, dtype=dtype)


# normalize ------------------------------------------------------------------------------------------------------------


def test_normalize() -> None:
    got = apply(normalize, np.array([1, 2, 4], np.uint8), mean=2, std=0.5)
    assert (got.tolist(), got.dtype) == ([-2, 0, 4], np.float32)


def test_normalize_per_channel() -> None:
    value = np.array([[[1, 10, 100]], [[3, 30, 300]]], np.float32)
    got = apply(normalize, value, mean=[1, 10, 100], std=[2, 4, 8])
    np.testing.assert_array_equal(got, [[[0, 0, 0]], [[1, 5, 25]]])


def test_normalize_gives_mean_0_and_deviation_1(shared_data: Path) -> None:
    with np.load(shared_data / "digits8x8.npz") as arrays:
        value = arrays["image"].astype(np.float64)
    got = apply(normalize, value.astype(np.float32), mean=float(value.mean()), std=float(value.std()))
    assert got.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert got.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)


# flip_horizontal ------------------------------------------------------------------------------------------------------


@given(images)
@settings(deadline=None, max_examples=12)
def test_flip_mirrors_left_and_right(value: np.ndarray) -> None:
    np.testing.assert_array_equal(apply(flip_horizontal, value, KEY, probability=1), value[:, ::-1], strict=True)
    np.testing.assert_array_equal(apply(flip_horizontal, value, KEY, probability=0), value, strict=True)
    by_half = apply(flip_horizontal, value, KEY)
    assert (by_half == value).all() or (by_half == value[:, ::-1]).all()


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_flip_depends_on_the_key_alone(probability: float) -> None:
    @jax.jit
    @jax.vmap
    def flipped(key: jax.Array) -> jax.Array:
        result = flip_horizontal({"image": RGB}, key, probability=probability)["image"]
        return (result != RGB).any()

    keys = jax.random.split(KEY, 4_000)
    first = np.asarray(flipped(keys))
    np.testing.assert_array_equal(flipped(keys), first)
    # A share of 4,000 draws is off by 0.008 one time in three; 5 times that, one time in a million.
    assert first.mean() == pytest.approx(probability, abs=0.04)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_probability_is_from_0_to_1(probability: float) -> None:
    message = rf"^flip_horizontal\.probability = {probability}; it is from 0 to 1\.$"
    with pytest.raises(ConfigError, match=message):
        apply(flip_horizontal, RGB, KEY, probability=probability)


# resize ---------------------------------------------------------------------------------------------------------------


def test_resize_by_hand() -> None:
    value = np.array([[[0], [100]]], np.uint8)
    assert apply(resize, value, height=2, width=2, method="nearest")[..., 0].tolist() == [[0, 100], [0, 100]]
    assert apply(resize, value, height=1, width=4)[..., 0].tolist() == [[0, 25, 75, 100]]
    assert apply(resize, value, height=1, width=1)[..., 0].tolist() == [[50]]


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "lanczos3"])
@pytest.mark.parametrize(("height", "width", "channels"), [(5, 4, 3), (9, 2, 1), (1, 7, 3)])
def test_resize_is_that_of_jax_rounded(height: int, width: int, channels: int, method: str) -> None:
    value = np.asarray(RGB)[..., :channels]
    shape = (height, width, value.shape[2])
    want = jax.image.resize(value.astype(np.float32), shape, method)
    got = apply(resize, value.astype(np.float32), height=height, width=width, method=method)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-4)  # the same sums, in an order of their own
    integers = apply(resize, value, height=height, width=width, method=method)
    assert integers.dtype == np.uint8
    np.testing.assert_array_equal(integers, np.clip(np.round(got), 0, 255))


def test_a_method_that_resize_does_not_know() -> None:
    message = r"^resize\.method = 'liner'; there is no such method\. Did you mean 'linear'\? Known: cubic, "
    with pytest.raises(ConfigError, match=message):
        apply(resize, np.zeros((4, 4, 1), np.float32), height=2, width=2, method="liner")


@pytest.mark.parametrize("method", ["nearest", "linear", "bicubic", "cubic-pytorch", "lanczos3", "lanczos5", "area"])
@pytest.mark.parametrize(
    ("num_inputs", "num_outputs"), [(41, 24), (6, 9), (1, 3), pytest.param(300, 7, marks=pytest.mark.slow)]
)
def test_resize_weighs_as_jax_does_with_twice_the_digits(num_inputs: int, num_outputs: int, method: str) -> None:
    try:
        jax.image.ResizeMethod.from_string(method)
    except ValueError:
        pytest.skip(f"the installed version of JAX has no {method}")
    with jax.enable_x64(True):
        want = np.asarray(jax.image.resize(np.eye(num_inputs), (num_outputs, num_inputs), method))
    got = apply(
        resize, np.eye(num_inputs, dtype=np.float32)[..., None], height=num_outputs, width=num_inputs, method=method
    )
    np.testing.assert_allclose(got[..., 0], want, atol=1e-7)


@pytest.mark.parametrize("count", [1, 3, 70])
@pytest.mark.parametrize(("shape", "height", "width"), [((7, 5, 3), 4, 9), ((6, 6, 1), 1, 6), ((60, 50, 3), 9, 7)])
def test_images_resized_together_are_those_resized_alone(
    count: int, shape: tuple[int, ...], height: int, width: int
) -> None:
    values = np.random.default_rng(0).random((count, *shape), np.float32)

    def resized(value: jax.Array) -> jax.Array:
        return resize({"image": value}, height=height, width=width, method="cubic")["image"]

    alone = np.stack([*map(jax.jit(resized), values)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(resized))(values), alone, strict=True)
    twice = jax.jit(jax.vmap(jax.vmap(resized)))(np.stack([values, values[::-1]]))
    np.testing.assert_array_equal(twice, np.stack([alone, alone[::-1]]), strict=True)


def test_images_are_resized_under_shard_map() -> None:
    values = np.random.default_rng(0).random((3, 5, 4, 1), np.float32)
    resized = jax.vmap(lambda value: resize({"image": value}, height=2, width=3)["image"])
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("device",))
    rows = jax.sharding.PartitionSpec("device")
    split = jax.jit(jax.shard_map(resized, mesh=mesh, in_specs=rows, out_specs=rows))
    np.testing.assert_array_equal(split(values), jax.jit(resized)(values), strict=True)


def test_large_images_are_resized_one_by_one() -> None:
    value = np.random.default_rng(0).random((3, 400, 400, 1), np.float32)
    resized = jax.vmap(lambda value: resize({"image": value}, height=300, width=310)["image"])(value)
    np.testing.assert_array_equal(resized, [apply(resize, each, height=300, width=310) for each in value])


@pytest.mark.slow
def test_resize_has_derivatives() -> None:
    images = jnp.asarray(np.random.default_rng(0).random((4, 9, 11, 3), np.float32))
    weights = jnp.linspace(0, 1, 105).reshape(5, 7, 3)

    def derivatives(resized: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, ...]:
        reverse = jax.grad(lambda image: (resized(image) * weights).sum())
        _, forward = jax.jvp(resized, (images[0],), (images[1],))
        return reverse(images[0]), jax.vmap(reverse)(images), forward

    ours = derivatives(lambda image: resize({"image": image}, height=5, width=7)["image"])
    theirs = derivatives(lambda image: jax.image.resize(image, (5, 7, 3), "linear"))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_resize_is_traced_once_for_each_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    num_taken, take = [0], jnp.take

    def counted(*values: jax.Array, **settings: object) -> jax.Array:
        num_taken[0] += 1
        return take(*values, **settings)

    monkeypatch.setattr(jnp, "take", counted)

    def traced(count: int) -> int:
        images, num_taken[0] = jnp.zeros((count, 13, 17, 1), jnp.float32), 0
        jax.make_jaxpr(jax.vmap(lambda image: resize({"image": image}, height=6, width=5)))(images)
        return num_taken[0]

    assert traced(2) > 0
    assert traced(2) == 0
    assert traced(3) > 0


def test_resize_where_jax_has_64_bits() -> None:
    with jax.enable_x64(True):
        resized = jax.vmap(lambda value: resize({"image": value}, height=2, width=3)["image"])(RGB[None])
    np.testing.assert_array_equal(resized[0], apply(resize, RGB, height=2, width=3), strict=True)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int32"])
def test_resize_keeps_dtype_and_range(dtype: str) -> None:
    limits = np.iinfo(dtype)
    # An edge between the extremes: cubic and Lanczos overshoot it on both sides.
    value = np.array([limits.min, limits.min, limits.max, limits.max], dtype).reshape(1, 4, 1)
    for method in ("cubic", "lanczos3"):
        got = apply(resize, value, height=1, width=9, method=method).ravel()
        assert got.dtype == dtype
        assert (got.min(), got.max()) == (limits.min, limits.max)
        dark, light = got[:4].astype(float), got[5:].astype(float)  # nothing wraps around
        assert dark.max() < (limits.min + limits.max) / 2 < light.min()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_resize_keeps_floats(dtype: str) -> None:
    got = apply(resize, jnp.array([[[0.0], [1.0]]], dtype), height=1, width=4)
    assert got.dtype == dtype
    assert got.ravel().tolist() == [0, 0.25, 0.75, 1]


@pytest.mark.parametrize(("height", "width", "named"), [(0, 2, "height = 0"), (2, -1, "width = -1")])
def test_resize_to_nothing(height: int, width: int, named: str) -> None:
    message = rf"^resize\.{named}; it is 1 or more\.$"
    with pytest.raises(ConfigError, match=message):
        apply(resize, RGB, height=height, width=width)


# to_grayscale and to_rgb ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "luma"),
    [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([255, 255, 255], 255), ([10, 200, 30], 124)],
)
def test_to_grayscale_is_rec_601_luma(colour: list[int], luma: int) -> None:
    got = apply(to_grayscale, np.array([[colour]], np.uint8))
    assert (got.tolist(), got.dtype) == ([[[luma]]], np.uint8)
    got = apply(to_grayscale, np.array([[colour]], np.float32) / 255)
    assert got.dtype == np.float32
    assert got.item() == pytest.approx(np.dot(colour, [0.299, 0.587, 0.114]) / 255, rel=1e-6)


@given(hnp.arrays(np.uint8, (3, 4, 3)))
@settings(deadline=None, max_examples=50)
def test_to_grayscale_of_bytes_is_the_nearest(value: np.ndarray) -> None:
    got = apply(to_grayscale, value)
    assert got.shape == (3, 4, 1)
    exact = value.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(got[..., 0] - exact).max() <= 0.5 + 1e-4


def test_to_grayscale_uses_whole_floats_everywhere() -> None:
    # A matrix product is computed in fewer bits on accelerators: whole values would differ from those of a CPU.
    assert "dot_general" not in str(jax.make_jaxpr(lambda image: to_grayscale({"image": image}))(RGB))


def test_gray_stays_gray() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert apply(to_rgb, gray).shape == (16, 16, 3)
    np.testing.assert_array_equal(apply(to_grayscale, apply(to_rgb, gray)), gray, strict=True)
    np.testing.assert_array_equal(apply(to_grayscale, gray), gray, strict=True)


def test_to_rgb() -> None:
    got = apply(to_rgb, np.array([[[1], [2]]], np.float32))
    assert (got.tolist(), got.dtype) == ([[[1, 1, 1], [2, 2, 2]]], np.float32)
    np.testing.assert_array_equal(apply(to_rgb, RGB), RGB, strict=True)


def test_a_fourth_channel_is_dropped() -> None:
    rgba = np.concatenate([RGB, np.full((5, 4, 1), 7, np.uint8)], axis=2)
    np.testing.assert_array_equal(apply(to_grayscale, rgba), apply(to_grayscale, RGB), strict=True)
    np.testing.assert_array_equal(apply(to_rgb, rgba), RGB, strict=True)
    np.testing.assert_array_equal(apply(drop_alpha, rgba), RGB, strict=True)
    assert apply(resize, rgba, height=3, width=2).shape == (3, 2, 4)
    assert apply(flip_horizontal, rgba, KEY, probability=1)[..., 3].tolist() == rgba[..., 3].tolist()


def test_channels_last() -> None:
    np.testing.assert_array_equal(apply(channels_last, RGB.transpose(2, 0, 1)), RGB, strict=True)
    with pytest.raises(
        SpecError, match=r"^operator 'channels_last' takes an image \[channels, .* has shape \[4, 4\]\.$"
    ):
        apply(channels_last, np.zeros((4, 4)))


@pytest.mark.parametrize(("channels", "left"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_drop_alpha_leaves_images_without_alpha_as_they_are(channels: int, left: int) -> None:
    value = np.arange(2 * 3 * channels, dtype=np.uint8).reshape(2, 3, channels)
    np.testing.assert_array_equal(apply(drop_alpha, value), value[..., :left], strict=True)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4), (4, 4, 5)])
def test_drop_alpha_takes_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        SpecError, match=r"^operator 'drop_alpha' takes an image \[height, width, 1 to 4\]; leaf 'image' "
    ):
        apply(drop_alpha, np.zeros(shape))


# center_crop, pad, clip and log ---------------------------------------------------------------------------------------


def test_center_crop_and_pad() -> None:
    np.testing.assert_array_equal(apply(center_crop, RGB, height=2, width=2), RGB[1:3, 1:3], strict=True)
    padded = apply(pad, RGB, height=8, width=7, fill=9)
    assert (padded.shape, padded.dtype, int((padded == 9).sum())) == ((8, 7, 3), np.uint8, int((RGB == 9).sum()) + 108)
    np.testing.assert_array_equal(apply(center_crop, padded, height=5, width=4), RGB)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(
        ConfigError, match=r"^center_crop\.\[height, width\] = \[6, 1\]; it is from \[1, 1\] to \[5, 4\]"
    ):
        apply(center_crop, RGB, height=6, width=1)
    with pytest.raises(ConfigError, match=r"^pad\.\[height, width\] = \[9, 3\]; it is at least \[5, 4\], the"):
        apply(pad, RGB, height=9, width=3)


def test_clip_and_log() -> None:
    assert apply(clip, np.array([0, 100, 255], np.uint8), low=9, high=2.5e2).tolist() == [9, 100, 250]
    large = np.array([2**24 + 1, 5], np.int32)  # more than float32 tells apart
    assert apply(clip, large, low=7).tolist() == [2**24 + 1, 7]
    assert apply(clip, np.array([-1, 3], np.float32), high=1).tolist() == [-1, 1]
    assert apply(log, np.array([0, 1], np.uint8)).tolist() == pytest.approx([0, 0.693147], abs=1e-6)
    with pytest.raises(ConfigError, match=r"^clip\.low = 2\.0; it is not above clip\.high, which is 1\.$"):
        apply(clip, RGB, low=2, high=1)


# All of them ----------------------------------------------------------------------------------------------------------

ON_IMAGES = {
    "center_crop": partial(center_crop, height=3, width=2),
    "pad": partial(pad, height=6, width=6),
    "flip_horizontal": partial(flip_horizontal, key=KEY),
    "resize": partial(resize, height=3, width=2),
    "to_grayscale": to_grayscale,
    "to_rgb": to_rgb,
}
ON_NUMBERS = {
    "cast": partial(cast, dtype="int32"),
    "clip": partial(clip, low=20, high=100),
    "log": log,
    "normalize": partial(normalize, mean=0.5, std=0.25),
    "to_float": to_float,
}


@pytest.mark.parametrize("name", ON_IMAGES)
@pytest.mark.parametrize("shape", [(), (4,), (4, 4), (4, 4, 2), (4, 4, 5), (2, 4, 4, 3)])
def test_not_an_image(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        SpecError, match=rf"^operator '{name}' takes an image \[height, width, 1, 3 or 4\]; leaf 'x' has "
    ) as e:
        ON_IMAGES[name]({"x": jnp.zeros(shape)}, leaf="x")
    assert str(e.value).endswith(f"has shape {list(shape)}.")


@pytest.mark.parametrize("name", ON_IMAGES | ON_NUMBERS)
def test_missing_leaf(name: str) -> None:
    message = rf"^operator '{name}': records have no leaf 'image'\. Did you mean 'images'\? Known: images, label\.$"
    with pytest.raises(SpecError, match=message):
        (ON_IMAGES | ON_NUMBERS)[name]({"images": RGB, "label": jnp.array(0)})


@pytest.mark.parametrize("name", ON_IMAGES | ON_NUMBERS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_jitted_and_mapped_is_the_same(name: str, dtype: str) -> None:
    function = (ON_IMAGES | ON_NUMBERS)[name]
    batch = {"image": jnp.stack([RGB, RGB[::-1], RGB // 2]).astype(dtype)}
    got = jax.jit(jax.vmap(function))(batch)["image"]
    for i in range(3):
        want = function({"image": batch["image"][i]})["image"]
        assert (got[i].dtype, got[i].shape) == (want.dtype, want.shape)
        # Compiled, a product and a sum may be fused, which rounds once instead of twice.
        np.testing.assert_allclose(got[i], want, rtol=1e-6, atol=1e-6 * (dtype == "float32"))


@pytest.mark.parametrize("name", ON_NUMBERS)
def test_element_by_element_flat_is_the_same(name: str) -> None:
    whole, flat = (ON_NUMBERS[name]({"image": value})["image"] for value in (RGB, RGB.reshape(-1)))
    np.testing.assert_array_equal(flat, whole.reshape(-1), strict=True)
