"""Where records lie: by size, by choice, and as the configuration says."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.builder.open_source import OpenSource
from datamix.builder.placement import default_device_bytes, placed, stored_bytes
from datamix.errors import ConfigError
from datamix.sources.objects import as_source


def opened(placements: dict[str, Any]) -> list[OpenSource]:
    """Sources of 10, 20 and 30 bytes a kind."""
    return [
        OpenSource(
            name=name,
            source=as_source({"x": np.zeros(size, np.uint8)}),
            provenance="arrays",
            placement=placements.get(name),
        )
        for name, size in {"large": 30, "small": 10, "middle": 20}.items()
    ]


@pytest.mark.parametrize(
    ("placements", "choice", "device_bytes", "resident"),
    [
        ({}, "auto", None, ["large", "small", "middle"]),
        ({}, "auto", 59, ["small", "middle"]),
        ({}, "auto", 29, ["small"]),
        ({}, "auto", 1, []),
        ({}, "device", 1, ["large", "small", "middle"]),
        ({}, "host", None, []),
        ({"large": "device"}, "auto", 40, ["large", "small"]),
        ({"small": "host"}, "auto", 30, ["middle"]),
        ({"small": "auto"}, "host", 30, ["small"]),
    ],
)
def test_smallest_first(placements: dict[str, Any], choice: Any, device_bytes: int | None, resident: list[str]) -> None:
    sources = placed(opened(placements), choice, device_bytes)
    assert [source.name for source in sources if source.placement == "device"] == resident
    assert {source.placement for source in sources} <= {"device", "host"}


def test_bytes_are_those_that_are_stored() -> None:
    source = OpenSource(name="a", source=as_source({"x": np.zeros((3, 2))}), provenance="arrays", limit=2)
    assert stored_bytes(source) == 2 * 2 * 4
    assert default_device_bytes() >= 2**20


def test_as_configured() -> None:
    few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
    sources = {"a": few, "b": few}
    pipeline = datamix.load("batch.size=4", "source.a.placement=host", "data.threads=3", sources=sources)
    assert dict(pipeline.placements) == {"a": "host", "b": "device"}
    assert set(datamix.load("batch.size=4", "data.device_bytes=1", sources=sources).placements.values()) == {"host"}
    for wrong, message in {
        "data.placement=gpu": "data.placement = 'gpu'. Known: auto, device, host",
        "source.a.placement=gpu": "source.a.placement = 'gpu'. Known: auto, device, host",
        "data.threads=0": "data.threads = 0; it is 1 or more",
        "data.prefetch_bytes=many": "data.prefetch_bytes = 'many'; it is a whole number",
    }.items():
        with pytest.raises(ConfigError, match=message):
            datamix.load("batch.size=4", wrong, sources=sources)
    with pytest.raises(ConfigError, match=r"placement\['a'\] = 'gpu'"):
        datamix.mix(sources, batch_size=4, placement={"a": "gpu"})
    with pytest.raises(ConfigError, match="placement = 'gpu'"):
        datamix.mix(sources, batch_size=4, placement="gpu")


def test_the_bytes_of_a_cpu_are_known_without_starting_jax() -> None:
    script = (
        "from datamix.builder.placement import default_device_bytes\n"
        "from datamix.pipeline import xla\n"
        "print(default_device_bytes(), xla.has_started())\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split() == [str(2**30), "False"], ended.stderr
