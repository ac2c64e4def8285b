"""Mixes in Keras 3, in a process of its own, as its backend is chosen when it is imported."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

import datamix

SCRIPT = """
import warnings

import datamix, keras
import numpy as np

warnings.simplefilter("error")
assert keras.backend.backend() == "jax"
rng = np.random.default_rng(0)

def arrays(size):
    x = rng.normal(size=(size, 3)).astype(np.float32)
    return {"x": x, "again": x, "y": (x @ [1, -2, 3]).astype(np.float32)}

sources = {"a": arrays(40), "b": arrays(30)}
endless = datamix.mix(sources, stop="forever", batch_size=8, weights={"a": 3}, loss_weight={"b": 2})

train = datamix.interop.keras.dataset(endless, inputs="x", targets="y")
steps = [train[i] for i in range(3)]
for step, (x, y, weight) in enumerate(steps):
    for got, leaf in ((x, "x"), (y, "y"), (weight, "loss_weight")):
        np.testing.assert_array_equal(got, endless[step][leaf])

model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(0.1), "mse")
numbers = []
take = type(train).__getitem__
type(train).__getitem__ = lambda self, index: (numbers.append(index), take(self, index))[1]
view = datamix.interop.keras.dataset(endless.view(None), inputs="x", targets="y")
history = model.fit(train, steps_per_epoch=20, epochs=3, shuffle=False, verbose=0, validation_data=view).history
type(train).__getitem__ = take
assert history["val_loss"][-1] < 0.2 * history["val_loss"][0], history
assert max(numbers) == 59  # one mix, over all epochs
whole = np.concatenate([sources["a"]["y"], sources["b"]["y"]])
predicted = model.predict(datamix.interop.keras.dataset(endless.view(None), inputs="x", targets=None), verbose=0)
assert abs(float(np.mean((predicted[:, 0] - whole) ** 2)) - history["val_loss"][-1]) < 1e-4

later = datamix.interop.keras.dataset(endless, inputs=["x", "again"], targets="y", start=60)
inputs, y, _ = later[1]
assert sorted(inputs) == ["again", "x"]
np.testing.assert_array_equal(y, endless[61]["y"])
finite = datamix.mix(sources, batch_size=8, remainder="keep", stop="exhaust_once")
once = datamix.interop.keras.dataset(finite, inputs="x", targets="y")
assert once.num_batches == 9 and len(once[8][1]) == 6 and len(once[0]) == 2
np.testing.assert_array_equal(once[5][0], finite[5]["x"])
model.fit(once, epochs=2, verbose=0)  # shuffles batches
cut = datamix.mix(sources, batch_size=8, remainder="keep", stop="exhaust_once", skip=[[1, 3], [8, 9]])
for start, steps in ((0, [0, 3, 4, 5, 6, 7]), (2, [3, 4, 5, 6, 7]), (20, [])):
    kept = datamix.interop.keras.dataset(cut, inputs="x", targets="y", start=start)
    assert kept.num_batches == len(steps)
    for index in [*range(len(steps)), *range(len(steps))[::-1]]:
        np.testing.assert_array_equal(kept[index][1], finite[steps[index]]["y"])
for key in ("inputs", "targets"):
    try:
        datamix.interop.keras.dataset(finite, **{"inputs": "x", "targets": "y", key: "z"})
    except datamix.ConfigError as error:
        assert str(error).startswith(f"{key} = 'z'; there is no such leaf in this mix. Known: "), error
    else:
        raise AssertionError(key)
print("same")
"""


@pytest.mark.slow
def test_fit_evaluate_and_predict_on_the_jax_backend() -> None:
    pytest.importorskip("keras")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    assert ended.stdout.strip() == "same", ended.stderr


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "datamix.interop.keras", raising=False)
    with pytest.raises(datamix.InstallationError, match=r"datamix\.interop\.keras needs Keras: pip install .*keras"):
        importlib.import_module("datamix.interop.keras")


def test_what_is_no_pipeline() -> None:
    with pytest.raises(
        datamix.ConfigError,
        match=r"^pipeline = 'mix'; it is a pipeline, as load and mix return it\.$",
    ):
        datamix.interop.keras.dataset("mix")
