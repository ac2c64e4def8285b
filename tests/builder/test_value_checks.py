"""What is said of values before a mix runs."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix.builder.value_checks import what_is_broken
from datamix.errors import ConfigError, DataError
from datamix.operators import to_float
from datamix.sources.statistics import LeafStatistics

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1))
LABELS = np.arange(20) % 5
TIMES = 1.75e9 + np.arange(20)


def load(*overrides: str, **leaves: Any) -> datamix.Pipeline:
    source = {"image": PIXELS.astype(np.uint8), "label": LABELS} | leaves
    return datamix.load("batch.size=20", "shuffle=none", *overrides, sources={"a": source})


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint32", "int16", "uint16"])
def test_to_float_is_told_what_becomes_1(dtype: str) -> None:
    message = (
        r"^source\.a\.operators\[0\]\.to_float\.largest is missing; it is the value that becomes 1, which "
        rf"{dtype}, the type of image in a, does not say\. The largest in 20 records is {PIXELS.max()}, so that "
        r"to_float: \{largest: 255\} fits\.$"
    )
    with pytest.raises(ConfigError, match=message):
        load("source.a.operators=[to_float]", image=PIXELS.astype(dtype))
    image = load("source.a.operators=[{to_float:{largest:255}}]", image=PIXELS.astype(dtype))[0]["image"]
    np.testing.assert_allclose(image, PIXELS / 255, rtol=1e-6)


def test_the_largest_value_seen_is_named() -> None:
    with pytest.raises(ConfigError, match=r"20 records is 4080, so that to_float: \{largest: 4080\} fits\.$"):
        load("source.a.operators=[to_float]", image=PIXELS // 255 * 4080)
    sources = {"a": {"image": PIXELS, "label": LABELS}}
    with pytest.raises(ConfigError, match=r"^operators\['a'\]\[0\]\.to_float\.largest is missing"):
        datamix.mix(sources, operators={"a": [to_float]})
    with pytest.raises(ConfigError, match=r"^shared_operators\[0\]\.to_float\.largest is missing"):
        datamix.mix(sources, shared_operators=[to_float])
    with pytest.raises(ConfigError, match=r"^operators\[0\]\.to_float\.largest is missing"):
        load("operators=[to_float]", image=PIXELS)


def test_to_float_after_other_operators() -> None:
    assert load("source.a.operators=[{cast:{dtype:uint8}},to_float]", image=PIXELS)[0]["image"].max() == 1
    with pytest.raises(ConfigError, match=r"operators\[1\]\.to_float\.largest is missing"):
        load("source.a.operators=[{resize:{height:2,width:2}},to_float]", image=PIXELS)

    def halved(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"image": (record["image"] // 2).astype(jnp.uint8)}

    mixed = datamix.mix({"a": {"image": PIXELS, "label": LABELS}}, operators=[halved, to_float], batch_size=20)
    assert mixed[0]["image"].max() == pytest.approx(127 / 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (TIMES, r"leaf 'time' holds 1750000001, which becomes 1750000000 in float32; save it as float32 if that"),
        (np.full(20, 1e300), r"leaf 'time' holds 1e\+300, which is beyond float32; divide it, or leave it out"),
        (np.full(20, 2**40), r"leaf 'time' holds numbers that do not fit int32, such as 1099511627776; subtract"),
    ],
)
def test_numbers_of_64_bits_that_do_not_fit_32(values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=f"^source 'a': {message}"):
        load(time=values)
    with pytest.raises(DataError, match=f"^source 'a': {message}"):
        load("source.a.operators=[{cast:{dtype:float32,leaf:time}}]", time=values)


def test_what_is_advised_for_them() -> None:
    assert load(time=TIMES.astype(np.float32))[0]["time"].tolist() == TIMES.astype(np.float32).tolist()
    assert load(time=TIMES - TIMES[0])[0]["time"].tolist() == list(range(20))
    assert load(time=np.full(20, 2**40) - 2**40)[0]["time"].tolist() == [0] * 20
    assert load(time=np.full(20, 1e300) / 1e300)[0]["time"].tolist() == [1] * 20


def test_leaves_of_files_may_be_chosen(tmp_path) -> None:
    np.savez(tmp_path / "x.npz", image=PIXELS.astype(np.uint8), label=LABELS, time=TIMES)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "x.yaml").write_text(f"_target_: arrays\npath: {tmp_path}/x.npz\n")
    with pytest.raises(DataError, match=r"or leave it out: of files, source\.x\.leaves chooses the leaves\.$"):
        datamix.load("source=x", "batch.size=20", config_dir=tmp_path)
    chosen = datamix.load("source=x", "source.x.leaves={image:image,label:label}", config_dir=tmp_path)
    assert set(chosen.spec) == {"image", "label", "source_id"}


@pytest.mark.slow
def test_numbers_of_64_bits_stay_where_jax_keeps_them() -> None:
    code = (
        "import numpy as np, datamix\n"
        "time = 1.75e9 + np.arange(20)\n"
        "pipeline = datamix.load('batch.size=20', 'shuffle=none', sources={'a': {'time': time}})\n"
        "assert (pipeline[0]['time'] == time).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.environ['JAX_ENABLE_X64'] = '1'\n{code}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("leaf", ["image", "label"])
def test_nan_is_told(leaf: str, placement: str) -> None:
    values = {"image": PIXELS / 255, "label": LABELS + 0.5}
    values[leaf].flat[3] = np.nan
    with pytest.warns(UserWarning, match=rf"^source 'a': the leaf '{leaf}' holds NaN \(.*% of its values\)\.$"):
        load(f"data.placement={placement}", **values)
    with pytest.warns(UserWarning, match=rf"the leaf '{leaf}' holds NaN"):
        datamix.mix({"a": values}, placement=placement)


def test_what_is_said_of_some_records_says_of_how_many() -> None:
    values = {"image": np.full((5000, 1), np.nan, np.float32), "label": np.arange(5000) % 3 - 1}
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        datamix.mix({"a": values}, placement="host", unlabelled={"a": "keep"})
    assert {str(note.message) for note in notes} == {
        "source 'a': the leaf 'image' holds NaN (100.00% of its values), in 4,096 records that were looked at.",
        "source 'a': 1,365 of 4,096 records that were looked at are unlabelled, and left out of loss and accuracy.",
    }
    with pytest.raises(DataError, match=r"^source 'a': 1 of \d+ labels are no class, such as -1; unlabelled"):
        next(
            iter(datamix.mix({"a": values | {"label": np.arange(5000) - 1}}, num_classes={"a": 5000}, placement="host"))
        )


def test_what_is_broken() -> None:
    assert what_is_broken(LeafStatistics.of(np.array([1.0, 2.0]))) == ""
    broken = what_is_broken(LeafStatistics.of(np.array([np.nan, np.inf, 1.0, 2.0])))
    assert broken == "NaN (25.00% of its values) and infinity (25.00% of its values)"


def test_statistics_are_those_of_the_leaves_before_any_operator() -> None:
    pipeline = load("source.a.operators=[to_float]", "source.a.limit=10", "batch.size=5")
    statistics = pipeline.statistics["a"]
    assert (statistics["image"].min, statistics["image"].max) == (PIXELS[:10].min(), PIXELS[:10].max())
    assert statistics["image"].mean == pytest.approx(PIXELS[:10].mean())
    assert (statistics["label"].min, statistics["label"].max) == (0, 4)
    assert pipeline.with_weights({"a": 2}).statistics == pipeline.statistics


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize(("scale", "largest", "fits"), [(1, 255, 255), (16 / 255, 16, 16), (20, 5100, 5100)])
def test_floats_that_to_float_leaves_as_they_are(scale: float, largest: int, fits: int, placement: str) -> None:
    floats, settings = np.round(PIXELS / PIXELS.max() * 255 * scale).astype(np.float32), f"data.placement={placement}"
    message = rf"^source 'a': the largest image value is {largest}, of which to_float makes .*; to_float: "
    with pytest.warns(UserWarning, match=message + rf"\{{largest: {fits}\}} fits\.$"):
        load("source.a.operators=[to_float]", settings, image=floats)
    advised = load(f"source.a.operators=[{{to_float:{{largest:{fits}}}}}]", settings, image=floats)
    assert advised[0]["image"].max() == 1


def test_a_largest_value_that_many_exceed() -> None:
    with pytest.warns(UserWarning, match=r"image value is 255, of which to_float makes 15\.9; .*\{largest: 255\} fits"):
        load("source.a.operators=[{to_float:{largest:16}}]", image=PIXELS)


@pytest.mark.parametrize("where", ["operators", "source.a.operators"])
@pytest.mark.parametrize("largest", [1, 16])
def test_bytes_of_which_to_float_makes_black_images(largest: int, where: str) -> None:
    image = np.tile((PIXELS * largest // 255).astype(np.uint8), (25, 1, 1, 1))
    with pytest.warns(UserWarning, match=rf"image value is {largest}, of which to_float makes 0.*: {largest}\}} fits"):
        load(f"{where}=[to_float]", image=image, label=np.arange(500) % 5)
    advised = load(f"{where}=[{{to_float:{{largest:{largest}}}}}]", image=image, label=np.arange(500) % 5)
    assert advised[0]["image"].max() == 1


def test_floats_that_are_scaled_before_or_normal() -> None:
    load("source.a.operators=[{normalize:{mean:0,std:255}},to_float]", image=PIXELS.astype(np.float32))
    load("source.a.operators=[to_float]", image=np.random.default_rng(0).normal(0, 2, PIXELS.shape).astype("float32"))


@pytest.mark.parametrize(
    ("dtype", "wanted", "value", "bounds"),
    [
        ("int16", "uint8", 300, "0 to 255"),
        ("int16", "int8", -129, "-128 to 127"),
        ("float32", "int8", 1e9, "-128 to 127"),
        ("float32", "float16", 70000, "-65504 to 65504"),
        ("int32", "float16", 2049, "-2048 to 2048"),
        ("int32", "bfloat16", 257, "-256 to 256"),
        ("int32", "float32", 2**24 + 1, "-16777216 to 16777216"),
    ],
)
def test_values_that_a_cast_does_not_keep_are_told(dtype: str, wanted: str, value: float, bounds: str) -> None:
    image = np.full((20, 2, 2, 1), 7, dtype)
    image[3, 0, 0] = value
    chain = f"{{cast:{{dtype:{wanted}}}}}"
    message = (
        rf"^source 'a': the leaf 'image' holds {value:.10g}, and cast to {wanted} keeps what lies from {bounds}; clip "
    )
    with pytest.warns(UserWarning, match=message.replace("+", r"\+")):
        load(f"source.a.operators=[{chain}]", image=image)
    with pytest.warns(UserWarning, match=message.replace("+", r"\+")):
        load(f"operators=[{chain}]", image=image)
    low, _, high = bounds.partition(" to ")
    kept = load(f"source.a.operators=[{{clip:{{low:{low},high:{high}}}}},{chain}]", image=image)[0]["image"]
    assert float(kept[3, 0, 0, 0]) == max(min(value, float(high)), float(low))
    image[3, 0, 0] = 100
    load(f"source.a.operators=[{chain}]", image=image)


def test_casts_that_keep_all_say_nothing() -> None:
    image = np.arange(20, dtype=np.int32).reshape(20, 1, 1, 1) - 2**20
    for wanted in ("float32", "int32", "int64", "bool"):
        load(f"source.a.operators=[{{cast:{{dtype:{wanted}}}}}]", image=image)
