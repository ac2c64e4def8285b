"""What is not documented is there, is taken, and changes nothing but time."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import jax
import numpy as np
import pytest

import datamix
from datamix.pipeline import xla

IMAGES = {"image": np.arange(50 * 3 * 5, dtype=np.uint8).reshape(50, 3, 5, 1), "label": np.arange(50) % 7}


def test_the_installed_jax_takes_the_fast_path() -> None:
    assert xla.path() == "fast"
    assert xla.compiler_options() == {"xla_cpu_prefer_vector_width": 512}
    (device,) = jax.devices("cpu")[:1]
    assert xla.streams(device).__module__.startswith("jaxlib")
    memory = xla.aligned((16,), "float32")
    memory[:] = range(16)
    array = xla.putter((16,), "float32", device)(memory)
    assert isinstance(array, jax.Array)
    assert array.unsafe_buffer_pointer() == memory.ctypes.data  # no copy
    assert xla.host_view(array).ctypes.data == memory.ctypes.data


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32"])
@pytest.mark.parametrize("first", range(4))
def test_memory_at_any_address_is_looked_at_there(dtype: str, first: int) -> None:
    (device,) = jax.devices("cpu")[:1]
    values = np.arange(12).astype(dtype)[first:].copy()[1:]
    values.flags.writeable = first % 2 > 0
    view = xla.flat_view(values, device)
    assert view is not None
    array, before = view
    assert array.unsafe_buffer_pointer() + before * values.itemsize == values.ctypes.data
    expected = values.tolist()
    del values  # the view keeps the memory
    assert np.asarray(array)[before:].tolist() == expected


@pytest.mark.parametrize("part", ["callback", "distributed"])
def test_the_installed_jax_writes_to_these_loggers(part: Any) -> None:
    assert importlib.import_module(f"jax._src.{part}").logger is xla.logger_of(part)


@pytest.mark.parametrize("output", ["numpy", "jax"])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_on_the_portable_path_the_batches_are_the_same(
    output: Any, shard: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = datamix.load("batch.size=6", "stop=forever", sources={"a": IMAGES})
    fast = list(itertools.islice(pipeline.iterator(output=output, shard=shard), 1200))
    monkeypatch.setattr(xla, "internals", lambda: None)
    assert (xla.path(), xla.compiler_options()) == ("portable", None)
    portable = list(itertools.islice(pipeline.iterator(output=output, shard=shard), 1200))
    for step in (0, 1, 511, 512, 1199):
        assert all(type(portable[step][leaf]) is type(fast[step][leaf]) for leaf in pipeline.spec)
        for leaf in pipeline.spec:
            np.testing.assert_array_equal(portable[step][leaf], fast[step][leaf])


@pytest.mark.parametrize("missing", ["jaxlib.xla_client", "jaxlib._jax"])
def test_where_one_thing_is_missing_all_is_left_out(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, missing, None)
    xla.internals.cache_clear()
    try:
        assert xla.path() == "portable"
    finally:
        monkeypatch.undo()
        xla.internals.cache_clear()
    assert xla.path() == "fast"


def test_options_that_xla_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if jax.__version_info__ < (0, 11):  # later ones have one way to emit fusions
        assert xla.quick_options() == {"xla_cpu_use_fusion_emitters": False}
    jax.jit(lambda: 0, compiler_options=xla.quick_options())()
    xla.quick_options.cache_clear()
    compiled = jax.jit

    def of_another_version(function, compiler_options):
        return compiled(function, compiler_options={f"{name}_of_old": 0 for name in compiler_options})

    monkeypatch.setattr(jax, "jit", of_another_version)
    try:
        assert xla.quick_options() is None
    finally:
        xla.quick_options.cache_clear()


def test_aligned_memory() -> None:
    for shape in ((3,), (7, 5), (2, 3, 1)):
        memory = xla.aligned(shape, "float32")
        assert (memory.shape, memory.dtype, memory.ctypes.data % 64) == (shape, np.float32, 0)


def elsewhere() -> tuple[jax.Device, jax.sharding.Sharding]:
    """A device, and where its pinned memory is."""
    (device,) = jax.devices("cpu")[:1]
    if "pinned_host" not in {memory.kind for memory in device.addressable_memories()}:
        pytest.skip("this version of JAX has no pinned memory on a CPU")
    return device, jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_what_is_written_to_pinned_memory_comes_to_the_device(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device, pinned = elsewhere()
    monkeypatch.setattr(xla, "is_host", lambda _: False)
    memory, put = xla.pinned((3, 4), dtype, device), xla.putter((3, 4), dtype, device)
    arrays = []
    for number in range(3):
        memory[...] = number
        arrays.append(jax.block_until_ready(put(memory)))
    assert [np.asarray(array).astype(int).tolist() for array in arrays] == [[[i] * 4] * 3 for i in range(3)]
    assert all(array.sharding.memory_kind == device.default_memory().kind for array in arrays)
    assert np.asarray(put(memory[:2])).astype(int).tolist() == [[2] * 4] * 2  # a part of it, which is copied
    copied = xla.to_host({"x": arrays[1]}, device)["x"]
    assert copied.sharding == pinned
    assert xla.host_view(copied).ctypes.data == copied.unsafe_buffer_pointer()
    assert np.asarray(copied).astype(int).tolist() == [[1] * 4] * 3


def test_without_pinned_memory_there_is_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    device, _ = elsewhere()
    monkeypatch.setattr(xla, "is_host", lambda _: False)
    monkeypatch.setattr(xla, "has_pinned", lambda _: False)
    memory, put = xla.pinned((3, 4), "int32", device), xla.putter((3, 4), "int32", device)
    memory[...] = 7
    array = put(memory)
    assert np.asarray(array).tolist() == [[7] * 4] * 3
    assert xla.to_host(array, device) is array
