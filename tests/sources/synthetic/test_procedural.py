from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.sources.base import Source
from datamix.sources.synthetic import procedural
from datamix.sources.synthetic.digits import digits
from datamix.sources.synthetic.garments import garments
from datamix.sources.synthetic.procedural import Procedural
from datamix.spec import Arrays, spec_of
from datamix.testing import check_source

Build = Callable[..., Procedural]
with tempfile.TemporaryDirectory() as directory:
    WHOLE = {
        build: {leaf: np.array(values) for leaf, values in build(cache_dir=directory).read().items()}
        for build in (digits, garments)
    }

both = pytest.mark.parametrize("build", [digits, garments])


def assert_same(got: Arrays, want: Arrays) -> None:
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


@both
def test_what_was_drawn_is_kept(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(build(cache_dir=str(tmp_path)).read(), WHOLE[build])
    with monkeypatch.context() as patch:
        patch.setattr(procedural, "Vary", lambda uniforms: pytest.fail("it is drawn again"))
        assert_same(build(cache_dir=str(tmp_path)).read(), WHOLE[build])
    assert not np.array_equal(build(cache_dir=str(tmp_path), seed=1).read()["image"], WHOLE[build]["image"])
    for image in tmp_path.rglob("0.npy"):
        image.write_bytes(image.read_bytes()[:-1])
    assert_same(build(cache_dir=str(tmp_path)).read(), WHOLE[build])


def test_environments_that_share_a_cache_do_not_replace_each_others_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries() -> dict[str, int]:
        return {path.name: path.stat().st_ctime_ns for path in tmp_path.iterdir() if path.is_dir()}

    digits(cache_dir=str(tmp_path)).read()
    first = entries()
    with monkeypatch.context() as patch:
        patch.setattr(np, "__version__", "1.0.0")
        digits(cache_dir=str(tmp_path)).read()
        second = entries()
        digits(cache_dir=str(tmp_path)).read()
    digits(cache_dir=str(tmp_path)).read()
    assert (len(first), len(second)) == (1, 2)
    assert entries() == second


@both
def test_few_records_leave_nothing_behind(build: Build, tmp_path: Path) -> None:
    build(split="train[:500]", cache_dir=str(tmp_path / "cache")).read()
    assert not (tmp_path / "cache").exists()


@both
def test_what_is_read_is_what_was_said(build: Build) -> None:
    source = build(split="train[:50]+test[-10%:]")
    assert isinstance(source, Source)
    assert source.provenance == "procedural"
    assert source.num_records == 450
    arrays = source.read()
    assert spec_of(arrays) == source.spec
    assert {len(leaf) for leaf in arrays.values()} == {450}
    check_source(source)
    assert build(split="all").num_records == 24_000


@both
def test_size_is_known_without_drawing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedural, "Vary", lambda uniforms: pytest.fail("it is drawn"))
    source = build(split="test")
    assert source.num_records == 4_000
    assert str(source.spec["label"]) == "int64 []"


@both
@settings(deadline=None, max_examples=25)
@given(start=st.integers(0, 20_000), count=st.integers(0, 40))
def test_a_slice_is_the_slice_of_the_whole(build: Build, start: int, count: int) -> None:
    stop = min(start + count, 20_000)
    want = {name: leaf[start:stop] for name, leaf in WHOLE[build].items()}
    assert_same(build(split=f"train[{start}:{stop}]").read(), want)


@both
def test_parts_are_joined_in_order(build: Build) -> None:
    test, train = build(split="test[:7]").read(), build(split="train[5:9]").read()
    want = {name: np.concatenate([test[name], train[name]]) for name in test}
    assert_same(build(split="test[:7]+train[5:9]").read(), want)


@both
def test_another_seed_and_another_split_draw_other_records(build: Build) -> None:
    first = build(split="train[:200]").read()
    for other in (build(split="train[:200]", seed=1).read(), build(split="test[:200]").read()):
        assert (other["label"] != first["label"]).any()
        assert not {image.tobytes() for image in first["image"]} & {image.tobytes() for image in other["image"]}


@both
def test_labels_are_balanced_and_shuffled(build: Build) -> None:
    label = WHOLE[build]["label"]
    np.testing.assert_array_equal(np.bincount(label), np.full(10, 2_000))
    # Of 1,000 shuffled labels, each class has 100, give or take 9.5.
    assert np.abs(np.bincount(label[:1_000], minlength=10) - 100).max() < 50
    assert np.mean(label[1:] == label[:-1]) == pytest.approx(0.1, abs=0.02)


@both
def test_pictures_are_lit_on_black_and_differ(build: Build) -> None:
    image = WHOLE[build]["image"]
    assert (image.min(), image.max()) == (0, 255)
    assert image.max(axis=(1, 2, 3)).min() > 60
    lit = np.mean(image > 30, axis=(1, 2, 3))
    assert lit.min() > 0.02
    assert lit.max() < 0.8
    assert len({picture.tobytes() for picture in image}) == len(image)


@both
def test_unknown_split(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"split = 'trian'; there is no split 'trian'\. Did you mean 'train'\?"):
        build(split="trian")


class _SmallCNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(7 * 7 * 32, 10, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        hidden = nnx.relu(self.conv1(image.astype(jnp.float32) / 255))
        hidden = nnx.relu(self.conv2(hidden))
        return self.dense(hidden.reshape(len(image), -1))


@nnx.jit
def _step(model: _SmallCNN, optimizer: nnx.Optimizer, image: jax.Array, label: jax.Array) -> None:
    def loss(model: _SmallCNN) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(image), label).mean()

    optimizer.update(model, nnx.grad(loss)(model))


@both
@pytest.mark.slow
def test_a_small_cnn_learns_it(build: Build) -> None:
    train, test = WHOLE[build], build(split="test").read()
    model = _SmallCNN(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    for start in range(0, 19_200, 64):
        _step(model, optimizer, train["image"][start : start + 64], train["label"][start : start + 64])
    accuracy = np.mean(np.argmax(nnx.jit(_SmallCNN.__call__)(model, test["image"]), axis=-1) == test["label"])
    assert accuracy > 0.9
