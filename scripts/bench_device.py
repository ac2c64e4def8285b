"""Measure a mix on a GPU or TPU, relative to its own copy speeds, and sweeps of many ratios. It takes minutes.

    python scripts/bench_device.py --json device.json
    python scripts/bench_device.py --quick     # tests that it runs, in a minute on a CPU

1. Sweeps of 9 and of 64 ratios of a small network, with `hydra/launcher=vmap` and with one job after the other, and a
   single job: seconds of the whole command in its own process, including imports and compilation.
2. A resident mix of two sources of uint8 images, in batches of 256 and 4,096, as float32 and as bfloat16, by an
   iterator, and inside one compiled loop that sums each batch. The speed counts the stored bytes that are read and the
   bytes of the batches that are written (in the loop, only those read), as a share of the speed at which a copy within
   the device reads and writes. For NumPy arrays, it is a share of the speed of copies out of the device.
3. The same mix read on the host, with transfers in parallel to computation, as a share of the speed at which the same
   stored bytes are copied to the device from pinned memory; and the speed of reading on the host alone, another bound.

All measurements of 2 and 3 are repeated in rounds, of which the median counts.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SWEEP = ["job=train", "source=digits+garments", "hydra.sweep.dir=out", "hydra.run.dir=out"]
_STEPS_AHEAD = 128  # of one compiled loop


def sweep(num_ratios: int, launcher: str, steps: int, model: str) -> float:
    """Seconds of a sweep over the share of one source; with one ratio, seconds of a single job."""
    shares = ",".join(f"{share:.4f}" for share in np.linspace(0.05, 0.95, num_ratios))
    overrides = [f"mix.share.digits={shares}", f"train.steps={steps}", f"model={model}"]
    several = ["-m", f"hydra/launcher={launcher}"] if num_ratios > 1 else []
    with tempfile.TemporaryDirectory() as directory:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "datamix", *several, *SWEEP, *overrides]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"sweep, launcher={launcher}: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")
        return time.perf_counter() - begun


def sources(num_bytes: int, side: int) -> dict[str, dict[str, np.ndarray]]:
    draw, count = np.random.default_rng(0), num_bytes // (2 * side * side * 3)
    return {
        name: {"image": np.frombuffer(draw.bytes(count * side * side * 3), np.uint8).reshape(count, side, side, 3)}
        for name in ("first", "second")
    }


def median(rounds: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(rounds), "rounds": rounds}


class Rate:
    """A call to be repeated for some time, and the number of bytes that it processes."""

    def __init__(self, call: Callable[[], Any], num_bytes: float) -> None:
        self._call, self._bytes = call, num_bytes

    def bytes_per_s(self, seconds: float) -> float:
        import jax

        jax.block_until_ready(self._call())
        begun, calls = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            last, calls = self._call(), calls + 1
        jax.block_until_ready(last)
        return calls * self._bytes / (time.perf_counter() - begun)


def contestants(data: dict[str, Any], batch_sizes: list[int], copy_bytes: int) -> Iterator[tuple[str, Rate]]:
    """The names and rates of all that is measured in rounds."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    import datamix

    values = jnp.zeros(copy_bytes // 4, jnp.float32)
    copy = jax.jit(lambda values: values + 1)
    yield "copy within the device", Rate(lambda: copy(values), 2 * values.nbytes)
    record_bytes = data["first"]["image"][0].nbytes
    device = jax.devices()[0]
    there = SingleDeviceSharding(device)
    is_pinned = any(memory.kind == "pinned_host" for memory in device.addressable_memories())
    here = SingleDeviceSharding(device, memory_kind="pinned_host") if is_pinned else there
    chunk = jax.device_put(np.zeros(copy_bytes // 16, np.uint8), here)
    yield "copy to the device", Rate(lambda: jax.device_put(chunk, there), chunk.nbytes)
    out = jax.device_put(chunk, there)
    yield "copy to the host", Rate(lambda: jax.device_put(out, here), out.nbytes)
    for size in batch_sizes:
        for dtype in ("float32", "bfloat16"):
            operators = ["to_float", *([{"cast": {"dtype": dtype}}] if dtype != "float32" else [])]
            pipeline = datamix.mix(data, operators=operators, batch_size=size, stop="forever", placement="device")
            out_bytes = record_bytes * np.dtype(jnp.dtype(dtype)).itemsize
            iterator = pipeline.iterator(output="jax")
            moved = size * (record_bytes + out_bytes)
            yield f"resident, {size}, {dtype}", Rate(lambda iterator=iterator: next(iterator), moved)
            arrays = pipeline.iterator()
            yield f"resident, {size}, {dtype}, numpy", Rate(lambda arrays=arrays: next(arrays), size * out_bytes)

            @jax.jit
            def loop(compiled: Any, cursor: Any) -> Any:
                def step(total: Any, batch: Any, _: Any) -> Any:
                    return total + batch["image"].sum(dtype=jnp.float32), None

                return compiled.scan(step, cursor, jnp.float32(0), jnp.zeros(_STEPS_AHEAD))[1]

            compiled, cursor = pipeline.compiled, pipeline.start()
            call = lambda loop=loop, compiled=compiled, cursor=cursor: loop(compiled, cursor)  # noqa: E731
            # Batches that are summed at once need not be written, so only the stored bytes count.
            yield f"resident, {size}, {dtype}, in a loop", Rate(call, _STEPS_AHEAD * size * record_bytes)
        fed = datamix.mix(data, operators=["to_float"], batch_size=size, stop="forever", placement="host")
        iterator = fed.iterator(output="jax")
        yield f"fed, {size}", Rate(lambda iterator=iterator: next(iterator), size * record_bytes)
        places = np.zeros(size, np.uint32), np.random.default_rng(0).integers(0, len(data["first"]["image"]), size)
        read = lambda fed=fed, places=places: fed.read_on_host(*places)  # noqa: E731
        yield f"fed, {size}, reading alone", Rate(read, size * record_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use small numbers, to test that it runs")
    parser.add_argument("--ratios", type=int, nargs="*", default=[9, 64], help="numbers of ratios of the sweeps")
    parser.add_argument("--json", type=Path, help="the file for the results")
    arguments = parser.parse_args()
    quick = arguments.quick
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # sweeps share the device with this process
    begun = time.perf_counter()
    results: dict[str, Any] = {"sweeps": {}, "rates": {}}
    for num_ratios in [2] if quick else arguments.ratios:
        seconds = {
            name: sweep(num_ratios, launcher, *((4, "linear") if quick else (100, "mlp")))
            for name, launcher in (("one after the other", "basic"), ("vmap", "vmap"))
        }
        seconds["one alone"] = sweep(1, "basic", *((4, "linear") if quick else (100, "mlp")))
        results["sweeps"][num_ratios] = seconds
        one, vmap, alone = seconds["one after the other"], seconds["vmap"], seconds["one alone"]
        print(f"{num_ratios} ratios: one after the other {one:.1f} s, vmap {vmap:.1f} s: {one / vmap:.2f} ×; ", end="")
        print(f"one alone {alone:.1f} s, {vmap / alone:.2f} × of which is vmap", flush=True)

    import jax

    import datamix

    logging.getLogger("datamix").setLevel(logging.ERROR)  # no warnings about epochs
    device = jax.devices()[0]
    results |= {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    results["datamix"] = datamix.__version__
    print(f"{device.device_kind}, JAX {jax.__version__}", flush=True)
    data = sources(2**21 if quick else 2**30, 16 if quick else 64)
    named = dict(contestants(data, [256, 512] if quick else [256, 4096], 2**22 if quick else 2**29))
    rounds: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(1 if quick else 5):
        for name, rate in named.items():
            rounds[name].append(rate.bytes_per_s(0.02 if quick else 1.0))
    results["rates"] = {name: median(each) for name, each in rounds.items()}
    for name, each in rounds.items():
        if "copy" in name:
            shares = ""
        else:
            of = "copy within the device"
            if name.startswith("fed"):
                of = "copy to the device"
            elif name.endswith("numpy"):
                of = "copy to the host"
            share = statistics.median(mine / copy for mine, copy in zip(each, rounds[of], strict=True))
            results["rates"][name]["share"] = share
            shares = f"  {100 * share:6.1f} % of {of}"
        print(f"{name:36} {statistics.median(each) / 1e9:9.2f} GB/s{shares}")
    results["seconds"] = time.perf_counter() - begun
    print(f"{results['seconds']:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
