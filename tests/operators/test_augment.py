"""Random changes of images: what each draw may give, and that a mix draws the same however it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError
from datamix.operators.augment import color_jitter, gaussian_noise, random_crop, random_erasing, rotate
from datamix.spec import Record

RAMP = jnp.arange(1, 31, dtype=jnp.uint8).reshape(5, 6, 1)
RGB = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8))
seeds = st.integers(0, 2**32 - 1)


def apply(function: Callable[..., Record], value: jax.typing.ArrayLike, seed: int = 0, **more: Any) -> np.ndarray:
    return np.asarray(function({"image": jnp.asarray(value)}, jax.random.key(seed), **more)["image"])


@given(seeds, st.integers(1, 5), st.integers(1, 6), st.integers(0, 2))
@settings(deadline=None, max_examples=10)
def test_random_crop_is_a_part_of_the_padded_image(seed: int, height: int, width: int, padding: int) -> None:
    part = apply(random_crop, RAMP, seed, height=height, width=width, padding=padding)
    padded = np.pad(np.asarray(RAMP), ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (height, width))
    assert (windows == part[..., 0]).all(axis=(-2, -1)).any()


def test_random_crop_reaches_every_place() -> None:
    crops = jax.vmap(lambda key: random_crop({"image": RAMP}, key, height=4, width=4)["image"])
    firsts = np.asarray(crops(jax.random.split(jax.random.key(0), 100)))[:, 0, 0, 0]
    assert set(firsts.tolist()) == {1, 2, 3, 7, 8, 9}
    np.testing.assert_array_equal(apply(random_crop, RAMP), RAMP)  # the whole of it


def test_rotate_by_nothing_and_by_quarters() -> None:
    np.testing.assert_array_equal(apply(rotate, RGB, degrees=0), RGB)
    square = jnp.asarray(np.arange(1, 26, dtype=np.float32).reshape(5, 5, 1))
    drawn = float(jax.random.uniform(jax.random.key(3), (), minval=-1, maxval=1))
    for turns in (1, 2, 3):
        turned = apply(rotate, square, 3, degrees=90 * turns / drawn)
        np.testing.assert_allclose(turned, np.rot90(square, turns), atol=1e-3)


def test_rotate_fills_the_corners() -> None:
    drawn = float(jax.random.uniform(jax.random.key(0), (), minval=-1, maxval=1))
    turned = apply(rotate, jnp.full((9, 9, 3), 200, jnp.uint8), degrees=45 / drawn, fill=7)
    assert (turned.dtype, turned[0, 0].tolist(), turned[4, 4].tolist()) == (np.uint8, [7] * 3, [200] * 3)


@given(seeds)
@settings(deadline=None, max_examples=10)
def test_color_jitter(seed: int) -> None:
    gray = np.full((2, 2, 3), 0.5, np.float32)
    bright = apply(color_jitter, gray, seed, brightness=0.4)
    assert bright.min() == bright.max()
    assert 0.3 <= bright.min() <= 0.7
    for unchanged in ({"contrast": 0.9}, {"saturation": 0.9}):
        np.testing.assert_allclose(apply(color_jitter, gray, seed, **unchanged), gray, rtol=1e-5)
    one = np.asarray(RGB[..., :1], np.float32)
    np.testing.assert_allclose(apply(color_jitter, one, seed, saturation=0.9), one, rtol=1e-5)
    contrast = apply(color_jitter, one, seed, contrast=0.5)
    assert contrast.mean() == pytest.approx(one.mean(), rel=1e-4)
    assert 0.49 < contrast.std() / one.std() < 1.51


def test_color_jitter_keeps_dtype_range_and_alpha() -> None:
    alpha = jnp.concatenate([RGB, jnp.full((5, 6, 1), 9, jnp.uint8)], axis=2)
    for seed in range(5):
        jittered = apply(color_jitter, alpha, seed, brightness=1, contrast=1, saturation=1)
        assert (jittered.dtype, jittered.shape, set(jittered[..., 3].ravel().tolist())) == (np.uint8, (5, 6, 4), {9})
    np.testing.assert_array_equal(apply(color_jitter, RGB), RGB)


def test_gaussian_noise() -> None:
    noise = apply(gaussian_noise, np.zeros((100, 100, 1), np.float32), std=0.5)
    assert (noise.mean(), noise.std()) == (pytest.approx(0, abs=0.02), pytest.approx(0.5, abs=0.02))
    black = apply(gaussian_noise, np.zeros((50, 50, 1), np.uint8), std=3)
    assert (black.dtype, black.min()) == (np.uint8, 0)
    assert 5 < black.max() < 20
    np.testing.assert_array_equal(apply(gaussian_noise, RGB, std=0), RGB)


@given(seeds, st.floats(0, 1))
@settings(deadline=None, max_examples=10)
def test_random_erasing_fills_one_rectangle(seed: int, area: float) -> None:
    image = np.zeros((20, 30, 3), np.float32)
    erased = apply(random_erasing, image, seed, probability=1, area=(area, area), fill=5) == 5
    rows, columns = np.flatnonzero(erased.any((1, 2))), np.flatnonzero(erased.any((0, 2)))
    assert erased.sum() == 3 * len(rows) * len(columns)  # one rectangle
    # As large as asked, but for whole pixels, where the image has room for its form.
    assert len(rows) * len(columns) <= 600 * area + len(rows) + len(columns) + 1
    if area <= 0.2:
        assert abs(len(rows) * len(columns) - 600 * area) <= 0.5 * (len(rows) + len(columns)) + 1


def test_random_erasing_is_cut_to_a_narrow_image() -> None:
    image, settings = np.zeros((100, 4, 1), np.float32), {"probability": 1, "area": (0.3, 0.3), "fill": 5}
    erased = [apply(random_erasing, image, seed, **settings)[..., 0] == 5 for seed in range(20)]
    heights, widths = (np.array([each.any(axis).sum() for each in erased]) for axis in (1, 0))
    assert (widths == 4).all()  # and not the 7 to 19 of 120 pixels
    assert max(heights) > 3 * 4
    assert (heights <= 19).all()


@pytest.mark.slow
def test_random_erasing_by_its_probability() -> None:
    np.testing.assert_array_equal(apply(random_erasing, RGB, probability=0), RGB)
    keys = jax.random.split(jax.random.key(0), 200)
    erased = jax.vmap(lambda key: random_erasing({"image": RAMP}, key, area=(0.2, 0.3))["image"])(keys)
    assert 70 < int((erased != RAMP).any((1, 2, 3)).sum()) < 130


@pytest.mark.parametrize(
    ("function", "given_settings", "message"),
    [
        (
            random_crop,
            {"height": 8},
            r"^random_crop\.\[height, width\] = \[8, 6\]; it is from \[1, 1\] to \[5, 6\], the",
        ),
        (random_crop, {"padding": -1}, r" padding of -1, which is 0 or more\.$"),
        (color_jitter, {"contrast": 1.5}, r"^color_jitter\.contrast = 1\.5; it is from 0 to 1\.$"),
        (gaussian_noise, {"std": -1}, r"^gaussian_noise\.std = -1\.0; it is 0 or more\.$"),
        (random_erasing, {"probability": 2}, r"^random_erasing\.probability = 2; it is from 0 to 1\.$"),
        (
            random_erasing,
            {"area": (0.3, 0.1)},
            r"^random_erasing\.area = \[0\.3, 0\.1\]; it is two numbers from 0 to 1, in",
        ),
    ],
)
def test_settings_that_are_refused(function: Any, given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply(function, RAMP, **given_settings)


@pytest.mark.slow
def test_in_a_mix_the_same_by_step_by_index_and_in_other_batches() -> None:
    operators = [
        {"random_crop": {"padding": 2}},
        {"color_jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}},
        "random_erasing",
        "to_float",
        {"rotate": {"degrees": 20}},
        {"gaussian_noise": {"std": 0.05}},
    ]
    images = np.random.default_rng(1).integers(0, 256, (24, 8, 8, 3), np.uint8)
    sources = {"a": {"image": images, "label": np.arange(24) % 2}, "b": {"image": images, "label": np.arange(24) % 2}}
    pipeline = datamix.mix(sources, operators=operators, batch_size=4, seed=1)
    steps = np.concatenate([batch["image"] for batch in pipeline])
    np.testing.assert_array_equal(steps[8:12], pipeline[2]["image"])
    other = datamix.mix(sources, operators=operators, batch_size=6, seed=1)
    np.testing.assert_array_equal(steps[:12], np.concatenate([other[0]["image"], other[1]["image"]]))


@pytest.mark.parametrize(
    "operator",
    [("color_jitter", {"brightness": 0.2, "contrast": 0.3, "saturation": 0.2}), ("rotate", {"degrees": 10}), "mixup"],
    ids=lambda operator: operator if isinstance(operator, str) else operator[0],
)
@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "channels"), [(1, 3), (1, 1), (3, 1), (8, 3)])
def test_loop_index_and_next_agree_to_the_last_bit(operator: Any, batch_size: int, channels: int) -> None:
    draw = np.random.default_rng(0)
    sources = {name: {"image": draw.integers(0, 256, (64, 12, 12, channels), np.uint8)} for name in "ab"}
    pipeline = datamix.mix(sources, shared_operators=["to_float", operator], batch_size=batch_size)
    cursor = pipeline.start()
    for step, batch in zip(range(5), pipeline, strict=False):
        following, cursor = pipeline.next(cursor)
        np.testing.assert_array_equal(pipeline[step]["image"], batch["image"])
        np.testing.assert_array_equal(following["image"], batch["image"])
