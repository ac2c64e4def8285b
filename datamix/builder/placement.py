"""Decide where the records of each source lie: all in the device's memory, or on the host, read as needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Literal, TypeAlias

from datamix.builder.open_source import OpenSource
from datamix.lazy import jax
from datamix.pipeline.lowering import stored_spec
from datamix.spec import bytes_of

Choice: TypeAlias = Literal["auto", "device", "host"]
"""Where records should lie; "auto" decides by their size."""

_CPU_BYTES = 2**30
_ACCELERATOR_SHARE = 4


def default_device_bytes() -> int:
    """The default limit on the bytes of resident records: a quarter of an accelerator's memory, 1 GiB on a CPU."""
    if getattr(jax.config, "jax_platforms", None) == "cpu" or not (find_spec("jax_plugins") or find_spec("libtpu")):
        return _CPU_BYTES  # known without starting JAX, so that workers may be forked
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    limit = (stats or {}).get("bytes_limit")
    return int(limit) // _ACCELERATOR_SHARE if limit else _CPU_BYTES


def stored_bytes(source: OpenSource) -> int:
    """The size in bytes of all records of a source, as a pipeline stores them."""
    return source.num_records * bytes_of(stored_spec(source.name, source.spec))


def placed(sources: Sequence[OpenSource], choice: Choice = "auto", device_bytes: int | None = None) -> list[OpenSource]:
    """Decide where the records of each source lie, from their sizes alone.

    Args:
      sources: The sources, in order.
      choice: The placement of sources that have none. Under "auto", the smallest sources lie on the device, as many as
        fit into `device_bytes` together with those placed there explicitly.
      device_bytes: The limit on the bytes of records on the device under "auto"; None for `default_device_bytes`.

    Returns:
      The sources, each with the placement "device" or "host".

    >>> import numpy as np
    >>> from datamix.sources.objects import as_source
    >>> arrays = {name: as_source({"x": np.zeros(size, np.uint8)}) for name, size in {"a": 90, "b": 30}.items()}
    >>> sources = [OpenSource(name=name, source=source, provenance="arrays") for name, source in arrays.items()]
    >>> [source.placement for source in placed(sources, device_bytes=100)]
    ['host', 'device']
    """
    choices = {source.name: choice if source.placement is None else source.placement for source in sources}
    sizes = {source.name: stored_bytes(source) for source in sources}
    if "auto" in choices.values() and (device_bytes is not None or sum(sizes.values()) > _CPU_BYTES):
        room = default_device_bytes() if device_bytes is None else device_bytes
        room -= sum(sizes[name] for name, each in choices.items() if each == "device")
        for name in sorted((name for name, each in choices.items() if each == "auto"), key=sizes.__getitem__):
            room -= sizes[name]
            choices[name] = "device" if room >= 0 else "host"
    # Small mixes go to the device without a query of its memory: that would start JAX, and workers could not be forked.
    return [replace(source, placement="host" if choices[source.name] == "host" else "device") for source in sources]
