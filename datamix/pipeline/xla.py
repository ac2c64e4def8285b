"""All undocumented calls to JAX and XLA, behind one check of the installed version.

If the installed version lacks any of them, none is used: batches are the same, but take longer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from datamix.errors import ConfigError

ALIGNMENT = 64  # bytes

Path = Literal["fast", "portable"]


class Internals(NamedTuple):
    """The undocumented calls.

    Attributes:
      execution_stream_id: A context whose calls wait for each other, but not for calls under another number.
      batched_device_put: Makes an array from views of its shards.
      compiler_options: Options of XLA's compiler.
    """

    execution_stream_id: Callable[[int], AbstractContextManager[None]]
    batched_device_put: Callable[..., jax.Array]
    compiler_options: dict[str, int]


def has_started() -> bool:
    """Whether JAX has started in this process; on versions that do not tell, whether datamix has started it."""
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:
        return internals.cache_info().currsize > 0
    return bool(backends_are_initialized())


def logger_of(part: Literal["callback", "distributed"]) -> logging.Logger:
    """The logger of a part of JAX; on a version that names it differently, one that nobody writes to."""
    return logging.getLogger(f"jax._src.{part}")


is_forked = False
"""Whether this process was forked from one in which JAX had started: here, no computation would ever end."""


def _note_fork() -> None:
    global is_forked
    is_forked = is_forked or has_started()


os.register_at_fork(after_in_child=_note_fork)


def check_not_forked() -> None:
    """Refuse to compute where that would never end.

    Raises:
      ConfigError: The process was forked from one in which JAX had started.
    """
    if is_forked:
        raise ConfigError(
            "this process was forked off one in which JAX had started, as it does with a first batch, and would wait "
            'for JAX for ever; start workers with multiprocessing_context="spawn", or before there are any batches.'
        )


@cache
def internals() -> Internals | None:
    """The undocumented calls of the installed version of JAX: all, or None."""
    # On a CPU, 512-bit vectors if the processor has them: a tenth less time for pixels, half for the shuffle.
    options = {"xla_cpu_prefer_vector_width": 512}
    try:
        from jaxlib._jax import batched_device_put  # type: ignore[import-not-found]
        from jaxlib.xla_client import execution_stream_id

        with execution_stream_id(1):
            jax.jit(lambda: 0, compiler_options=options)()
        internal = Internals(execution_stream_id, batched_device_put, options)
        view, device = np.arange(3, dtype=np.int32), jax.local_devices()[0]
        if not np.array_equal(_putter(internal, view.shape, str(view.dtype), device)(view), view):
            return None
    except (ImportError, AttributeError, TypeError, ValueError, jax.errors.JaxRuntimeError):
        return None
    return internal


def path() -> Path:
    """The path that batches take on the installed version of JAX."""
    return "fast" if internals() else "portable"


def compiler_options() -> dict[str, int] | None:
    """Options for `jax.jit` of functions that are called directly, not inside another `jit`."""
    internal = internals()
    return internal.compiler_options if internal else None


@cache
def quick_options() -> dict[str, bool] | None:
    """Options for `jax.jit` of functions that run rarely: a CPU compiles them in 2/3 of the time, to equal results."""
    options = {"xla_cpu_use_fusion_emitters": False}
    with suppress(ValueError, jax.errors.JaxRuntimeError):  # a version without that option
        jax.jit(lambda: 0, compiler_options=options)()
        return options
    return None


def is_host(device: jax.Device) -> bool:
    """Whether a device computes in the host's memory, so that its arrays and NumPy's may be the same."""
    platform: str = device.platform
    return platform == "cpu"


def streams(device: jax.Device) -> Callable[[int], AbstractContextManager[None]]:
    """The function from the number of a stream to the context for calls in it.

    On CPU, calls of one stream run in order, and those of different streams may run at the same time.
    """
    internal = internals()
    return internal.execution_stream_id if internal and is_host(device) else lambda _: nullcontext()


def putter(shape: tuple[int, ...], dtype: str, device: jax.Device) -> Callable[[np.ndarray], jax.Array]:
    """The function that turns a view of memory that never changes, or of its first rows, into an array on the device.

    On a CPU it makes no copy; other devices copy `pinned` memory asynchronously.

    `jax.device_put` does the same in 50 µs per leaf, as long as a batch of 256 images; jaxlib's own call takes 8 µs.
    """
    if not is_host(device):
        return lambda view: jax.device_put(_pinned_of(view), _sharding(device))
    internal = internals()
    return _putter(internal, shape, dtype, device) if internal else jax.device_put


def _putter(
    internal: Internals, shape: tuple[int, ...], dtype: str, device: jax.Device
) -> Callable[[np.ndarray], jax.Array]:
    sharding = jax.sharding.SingleDeviceSharding(device)
    aval: Any = jax.core.ShapedArray(shape, np.dtype(dtype))
    return lambda view: internal.batched_device_put(
        aval if len(view) == shape[0] else aval.update(shape=view.shape), sharding, [view], [device], False
    )


def is_view(array: jax.Array, memory: np.ndarray) -> bool:
    """Whether an array is on a CPU and uses `memory` itself, not a copy."""
    return array.platform() == "cpu" and array.unsafe_buffer_pointer() == memory.ctypes.data


def host_view(array: jax.Array) -> np.ndarray:
    """The memory of an array on a CPU, without a copy.

    It is taken through another handle: the array itself would keep the view, and with it the memory, for ever.
    """
    return np.asarray(array.addressable_data(0))


class _Writable:
    """The memory of an array, writable."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values  # keeps the memory alive
        self.__array_interface__ = values.__array_interface__ | {"data": (values.ctypes.data, False)}


def writable(view: np.ndarray) -> np.ndarray:
    """The memory of a view, which it keeps alive, for tensors: PyTorch warns of an array that cannot be written to."""
    return np.asarray(_Writable(view))


class _Memory:
    """The memory of an array, from an address before it at which XLA's CPU backend takes it without a copy."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values  # keeps the memory alive
        self.before = values.ctypes.data % ALIGNMENT // values.itemsize
        self.__array_interface__ = {
            "version": 3,
            "shape": (self.before + values.size,),
            "typestr": values.dtype.str,
            "data": (values.ctypes.data - self.before * values.itemsize, True),
        }


def flat_view(values: np.ndarray, device: jax.Device) -> tuple[jax.Array, int] | None:
    """A flat array on a device that uses an array's memory in place, and the element at which the latter begins.

    Returns:
      None if the device cannot, or can only with a copy.
    """
    if not is_host(device) or not internals():
        return None
    memory = _Memory(values)
    view = np.asarray(memory)
    array = putter(view.shape, str(view.dtype), device)(view)
    return (array, memory.before) if is_view(array, view) else None


def aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An uninitialised array at an address that XLA's CPU backend takes without a copy."""
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


class _Pinned:
    """The memory of an array in pinned memory, writable."""

    def __init__(self, array: jax.Array) -> None:
        self.array = array
        self.__array_interface__ = {
            "version": 3,
            "shape": (array.nbytes,),
            "typestr": "|u1",
            "data": (array.unsafe_buffer_pointer(), False),
        }


def _sharding(device: jax.Device, memory_kind: str | None = None) -> jax.sharding.Sharding:
    kind = memory_kind or device.default_memory().kind
    return jax.sharding.SingleDeviceSharding(device, memory_kind=kind)


@cache
def has_pinned(device: jax.Device) -> bool:
    """Whether a device copies from pinned memory that was written to, and into pinned memory."""
    try:
        array = jax.block_until_ready(jax.device_put(np.zeros(3, np.uint8), _sharding(device, "pinned_host")))
        view = np.asarray(_Pinned(array))
        view[:] = 1, 2, 3
        on_device = jax.device_put(array, _sharding(device))
        returned = host_view(jax.device_put(on_device, _sharding(device, "pinned_host")))
        return on_device.sharding.memory_kind != "pinned_host" and bool(np.array_equal(returned, [1, 2, 3]))
    except (AttributeError, TypeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError):
        return False


def pinned(shape: tuple[int, ...], dtype: str, device: jax.Device) -> np.ndarray:
    """An uninitialised array on the host, from which `putter` makes arrays on a device.

    If the device supports it, it is pinned memory, from which a GPU copies ten times as fast.
    """
    if is_host(device) or not has_pinned(device):
        return aligned(shape, dtype)
    array = jax.device_put(np.empty(shape, dtype), _sharding(device, "pinned_host"))
    return np.asarray(_Pinned(jax.block_until_ready(array))).view(dtype).reshape(shape)


def _pinned_of(view: np.ndarray) -> jax.Array | np.ndarray:
    """The array in pinned memory whose whole memory this is, if there is one; otherwise the view."""
    owner: Any = view.base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner.array if isinstance(owner, _Pinned) and owner.array.shape == view.shape else view


def to_host(arrays: Any, device: jax.Device) -> Any:
    """Start to copy arrays of a device to where `host_view` sees them, without waiting.

    A GPU copies ten times as fast into pinned memory as into fresh memory of the host.
    """
    if has_pinned(device):
        return jax.device_put(arrays, _sharding(device, "pinned_host"))
    for array in jax.tree.leaves(arrays):
        array.copy_to_host_async()
    return arrays
