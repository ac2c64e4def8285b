"""Global batches over virtual devices, and over real processes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

import datamix
from datamix.errors import ConfigError
from datamix.pipeline import xla
from datamix.pipeline.iterator import BatchIterator

MIX = """
import json, os, sys
import jax, numpy as np, datamix
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

def pipeline(**settings):
    generator = np.random.default_rng(0)
    sources = {
        name: {"image": generator.integers(0, 256, (size, 2, 4, 3), np.uint8), "label": np.arange(size) % 3}
        for name, size in {"a": 50, "b": 30}.items()
    }
    return datamix.mix(sources, batch_size=16, shuffle_rows=True, stop="forever", **settings)
"""
MESHES = f"""{MIX}
whole = pipeline()
devices = np.array(jax.devices())
assert len(devices) == 8
meshes = [
    (Mesh(devices, ("data",)), P("data")),
    (Mesh(devices.reshape(4, 2), ("data", "replica")), P("data")),
    (Mesh(devices.reshape(2, 4), ("replica", "data")), P("data")),
    (Mesh(devices.reshape(4, 2), ("data", "tensor")), P("data", "tensor")),
    (Mesh(devices.reshape(4, 2), ("data", "tensor")), P("data", None, "tensor", None)),
    (Mesh(devices.reshape(4, 2), ("data", "tensor")), P(("data", "tensor"))),
    (Mesh(devices.reshape(4, 2), ("data", "tensor")), P()),
    (Mesh(devices[[0, 6, 2, 4]], ("data",)), P("data")),
]
for placement in ("device", "host"):
    mix = pipeline(placement=placement)
    for mesh, spec in meshes:
        iterator = mix.iterator(start=2, sharding=NamedSharding(mesh, spec))
        for step in range(2, 4):
            batch = next(iterator)
            assert batch["image"].sharding == NamedSharding(mesh, spec)
            for leaf, values in batch.items():
                np.testing.assert_array_equal(np.asarray(values), whole[step][leaf])
        other = mix.iterator(sharding=NamedSharding(mesh, P()))
        other.restore(iterator.state())
        np.testing.assert_array_equal(np.asarray(next(other)["image"]), whole[4]["image"])
        iterator.close()
mesh = Mesh(devices, ("data",))
divided = lambda leaf: P("data") if np.ndim(leaf) and len(leaf) % 8 == 0 else P()
compiled = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, divided(leaf))), whole.compiled)
records = [leaf for leaf in jax.tree.leaves(compiled) if leaf.shape == (80, 24)]
assert [leaf.addressable_shards[0].data.shape for leaf in records] == [(10, 24)]
cursor = jax.device_put(whole.start(2), NamedSharding(mesh, P()))
for step in range(2, 5):
    batch, cursor = jax.jit(lambda compiled, cursor: compiled.next(cursor))(compiled, cursor)
    for leaf, values in batch.items():
        np.testing.assert_array_equal(np.asarray(values), whole[step][leaf])
print("same")
"""
PROCESS = f"""{MIX}
from functools import partial
from datamix.pipeline.sharding import next_batch, replicated

rank, count, port = map(int, sys.argv[1:])
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{{port}}", count, rank)
mesh = Mesh(np.array(jax.devices()).reshape(-1, 2), ("data", "tensor"))
iterator = pipeline(placement="host").iterator(start=1, sharding=NamedSharding(mesh, P("data")))
whole, rows = pipeline(), Mesh(np.array(jax.devices()), ("data",))
made = jax.jit(partial(next_batch, mesh=rows))
fed = pipeline(placement="host")
compiled, cursor = replicated((fed.compiled, whole.start(1)), rows)
for step in (1, 2):
    batch, cursor = made(compiled, cursor)
    for leaf, values in batch.items():
        assert values.sharding.is_equivalent_to(NamedSharding(rows, P("data")), values.ndim)
        for part in values.addressable_shards:
            np.testing.assert_array_equal(np.asarray(part.data), whole[step][leaf][part.index])
total = jax.jit(lambda x: x.astype(np.int32).sum(axis=(1, 2, 3)), out_shardings=NamedSharding(mesh, P()))
sums = [np.asarray(total(next(iterator)["image"])).tolist() for _ in range(3)]
print(json.dumps({{"sums": sums, "read": iterator.metrics()["bytes"], "step": iterator.state()["step"]}}))
"""
THREADS = f"""{MIX}
import threading

rank, port = map(int, sys.argv[1:])
jax.distributed.initialize(f"127.0.0.1:{{port}}", 2, rank)
sys.setswitchinterval(1e-6)
mesh = Mesh(np.array(jax.devices()).reshape(2, 2).T.reshape(-1), ("data",))  # no process holds neighbouring rows alone
iterator, taken, mix = pipeline().iterator(sharding=NamedSharding(mesh, P("data"))), [], pipeline()

def take():
    for _ in range(100):
        parts = sorted(next(iterator)["image"].addressable_shards, key=lambda part: part.index[0].start)
        taken.append(np.concatenate([np.asarray(part.data) for part in parts]).tobytes())

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
rows = np.r_[0:4, 8:12] + 4 * rank
expected = [batch["image"][rows].tobytes() for batch, _ in zip(mix, range(400))]
assert sorted(taken) == sorted(expected)
assert iterator.step == iterator.state()["step"] == 400
print("same")
"""


def start(script: str, devices: int, *arguments: object) -> subprocess.Popen[str]:
    import os

    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output.splitlines()[-1]


@pytest.mark.slow
def test_any_mesh_gives_the_batches_of_one_device() -> None:
    assert result(start(MESHES, 8)) == "same"


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_global_batches() -> None:
    results: dict[int, list[dict[str, Any]]] = {}
    for count in (1, 2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [start(PROCESS, 8 // count, rank, count, port) for rank in range(count)]
        results[count] = [json.loads(result(process)) for process in processes]
    (alone,) = results[1]
    for count, ranks in results.items():
        for rank in ranks:
            assert rank["sums"] == alone["sums"]
            assert rank["step"] == 4
            assert rank["read"] == alone["read"] // count  # its own rows alone


@pytest.mark.slow
def test_threads_take_each_batch_once_where_rows_of_a_process_lie_apart() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(THREADS, 2, rank, port) for rank in range(2)]
    assert [result(process) for process in processes] == ["same", "same"]


@pytest.mark.slow
def test_some_rows_of_a_batch_are_computed_alone(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever", "batch.shuffle=true")
    rows = jax.jit(lambda compiled, cursor, first: compiled.next(cursor, rows=(first, 3)))
    batch, after = rows(pipeline.compiled, pipeline.start(4), 5)
    for leaf, values in batch.items():
        np.testing.assert_array_equal(values, pipeline[4][leaf][5:8])
    np.testing.assert_array_equal(after.position, pipeline.next(pipeline.start(4))[1].position)


def nested(**settings: Any) -> datamix.Pipeline:
    """A mix of a source and of a mix of two, whose weights change, of which one source is read on the host."""
    sources = {name: {"image": np.arange(size * 6, dtype=np.uint8).reshape(size, 2, 3, 1)} for name, size in
               {"v.a": 19, "v.b": 30, "c": 41}.items()}  # fmt: skip
    schedule = [{"until": 5, "weights": {"v": 3}}, {"until": 8, "ramp": "linear", "weights": {"v.a": 4}}]
    return datamix.mix(sources, schedule=schedule, stop="forever", batch_size=13, **settings)


TEXT = ["source=docs+code", "source.docs.packing=best_fit", "source.code.length=64", "source.docs.length=64",
        "mix.unit=tokens", "mix.ratio=2:1", "batch.size=11", "stop=forever"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:source '(docs|code)':UserWarning")  # where the text is from
@pytest.mark.parametrize("kind", ["nested", "text"])
def test_the_number_of_hosts_may_change_at_any_step(kind: str, tmp_path: Path) -> None:
    """One after another, each goes on where the one before has stopped; batches are those of one, bit for bit."""
    if kind == "nested":
        whole, fed = nested(), nested(placement={"v.b": "host"})
    else:
        text = [*TEXT, f"data.cache={tmp_path}"]
        whole, fed = datamix.load(*text), datamix.load(*text, "data.placement=host")
    state, step = fed.iterator().state(), 0
    for count in (1, 3, 2, 4, 1, 2):
        ranks = [fed.iterator(shard=(rank, count)) for rank in range(count)]
        for rank in ranks:
            rank.restore(state)
        for _ in range(1 + count % 2):
            parts = [next(rank) for rank in ranks]
            for leaf, values in whole[step].items():
                np.testing.assert_array_equal(np.concatenate([part[leaf] for part in parts]), values)
            step += 1
        state = json.loads(json.dumps(ranks[-1].state()))
    assert step == 9


def one_device(*names: str) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec(*names))


def test_one_device_that_is_not_the_host_keeps_what_it_has_computed(
    load: Callable[..., datamix.Pipeline], assert_equal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load("stop=forever")
    expected = [pipeline[step] for step in range(3)]
    monkeypatch.setattr(xla, "is_host", lambda _: False)
    made: list[jax.Array] = []
    monkeypatch.setattr(BatchIterator, "__next__", lambda iterator, of=BatchIterator.__next__: kept(made, of(iterator)))
    iterator = pipeline.iterator(sharding=one_device("data"))
    for step in range(3):
        batch = next(iterator)
        assert_equal(batch, expected[step])
        assert all(values.sharding == one_device("data") for values in batch.values())
        pointers = {values.unsafe_buffer_pointer() for values in made}
        assert all(values.addressable_data(0).unsafe_buffer_pointer() in pointers for values in batch.values())


def kept(made: list[jax.Array], batch: dict[str, Any]) -> dict[str, Any]:
    """A batch, whose arrays are kept."""
    made += batch.values()
    return batch


def test_one_device(load: Callable[..., datamix.Pipeline]) -> None:
    pipeline = load("stop=forever")
    iterator = pipeline.iterator(sharding=one_device("data"))
    for step in range(3):
        assert iterator.step == step
        np.testing.assert_array_equal(next(iterator)["image"], pipeline[step]["image"])
    state = iterator.state_dict()
    assert next(iterator)["label"].tolist() == pipeline[3]["label"].tolist()
    iterator.load_state_dict(state)
    assert next(iterator)["label"].tolist() == pipeline[3]["label"].tolist()
    iterator.close()
    with pytest.raises(ValueError, match="this iterator is closed"):
        next(iterator)


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(load: Callable[..., datamix.Pipeline], tmp_path: Path) -> None:
    script = MIX + (
        "mesh = Mesh(np.array(jax.devices()), ('data',))\n"
        "try: pipeline().iterator(sharding=NamedSharding(mesh, P('data')))\n"
        "except datamix.ConfigError as error: print(error)\n"
    )
    assert "batch.size = 16; image [16, 2, 4, 3] of a batch cannot be divided equally" in result(start(script, 3))
    script = script.replace("P('data')", "P(None, 'data')")
    assert "Choose a multiple; if it is another axis, leave that out" in result(start(script, 3))
    mesh = AbstractMesh((1,), ("data",))
    for other in (PartitionSpec("data"), "data", NamedSharding(mesh, PartitionSpec("data"))):
        with pytest.raises(ConfigError, match=r"sharding = .*; it is a jax\.sharding\.Sharding over devices, as Named"):
            load("stop=forever").iterator(sharding=other)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"batch.remainder = 'keep'; its last batch has 3 rows.*remainder=drop"):
        load("batch.remainder=keep", "stop=all_exhausted", "stop.samples=51").iterator(sharding=one_device())
    with pytest.raises(ConfigError, match="sharding= says itself which rows are given"):
        load("stop=forever").iterator(shard=(0, 2), sharding=one_device())
