"""Measure how fast records are read on the host, compared with resident records and with NumPy, and in how much memory.

    python scripts/bench_fed.py

Two sources of uint8 records in memory are mixed one to one in batches of 256. The contestants are a resident pipeline,
one that reads from memory on the host, one that reads from mapped files, and hand-written gathers on two threads, from
memory and from the files (`np.take` of shuffled records into reused memory, without a plan, exact shares or a state).
They run in rounds, so that background load affects all of them, and the median counts. Then, in separate processes, the
script measures the time to the first batch of a large and a small file, and how much more memory the large file takes
at most. The large files are sparse: they take no space on disk.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 256
THREADS = 2


def sources(record_bytes: int, total_bytes: int) -> dict[str, dict[str, np.ndarray]]:
    """Two sources of random bytes."""
    draw = np.random.default_rng(0)
    count = max(total_bytes // record_bytes // 2, BATCH)
    return {name: {"image": draw.integers(0, 256, (count, record_bytes), np.uint8)} for name in ("first", "second")}


def by_hand(data: dict[str, dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """Batches of float32, gathered on two threads, epoch after epoch."""
    images = [leaves["image"] for leaves in data.values()]
    draw, half = np.random.default_rng(0), BATCH // 2
    pixels = [np.empty((half, images[0].shape[1]), np.uint8) for _ in images]
    batches = [np.empty((BATCH, images[0].shape[1]), np.float32) for _ in range(3)]

    def fill(source: int, rows: np.ndarray, batch: np.ndarray) -> None:
        np.take(images[source], rows, axis=0, out=pixels[source], mode="clip")
        np.multiply(pixels[source], np.float32(1 / 255), out=batch[source::2])

    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            orders = [draw.permutation(len(values)) for values in images]
            for number, begin in enumerate(range(0, len(images[0]) - half + 1, half)):
                batch = batches[number % len(batches)]
                list(pool.map(lambda i: fill(i, orders[i][begin : begin + half], batch), range(2)))  # noqa: B023
                yield batch


def rate(batches: Iterator[Any], seconds: float) -> float:
    """Records per second."""
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(8):
            next(batches)
        count += 8 * BATCH
    return count / (time.perf_counter() - begun)


def compare(record_bytes: int, total_bytes: int, seconds: float, rounds: int) -> dict[str, float]:
    """The median records per second of each contestant, and the medians of the ratios within rounds."""
    import datamix
    from datamix.operators import to_float

    logging.getLogger("datamix").setLevel("ERROR")  # no warnings about epochs
    data = sources(record_bytes, total_bytes)
    settings: dict[str, Any] = {"operators": [to_float], "batch_size": BATCH, "stop": "forever"}
    with tempfile.TemporaryDirectory() as directory:
        files = {name: f"{directory}/{name}.npy" for name in data}
        for name, leaves in data.items():
            np.save(files[name], leaves["image"])
        mapped = {name: {"image": np.load(file, mmap_mode="r")} for name, file in files.items()}
        iterators: dict[str, Iterator[Any]] = {
            "device": iter(datamix.mix(data, **settings, placement="device")),
            "host": iter(datamix.mix(data, **settings, placement="host")),
            "mapped": iter(datamix.mix(mapped, **settings, placement="host")),
            "hand": by_hand(data),
            "hand mapped": by_hand(mapped),
        }
        for batches in iterators.values():
            rate(batches, seconds)
        rates = [{name: rate(batches, seconds) for name, batches in iterators.items()} for _ in range(rounds)]

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(value, rates))

    return {name: median(lambda each, name=name: each[name]) for name in iterators} | {
        "host/device": median(lambda each: each["host"] / each["device"]),
        "host/hand": median(lambda each: each["host"] / each["hand"]),
        "mapped/device": median(lambda each: each["mapped"] / each["device"]),
        "mapped/hand": median(lambda each: each["mapped"] / each["hand mapped"]),
    }


def train(record_bytes: int, total_bytes: int, rounds: int, steps: int = 100) -> dict[str, float]:
    """The median steps per second of `job=train` with a linear model, and the median of the ratios within rounds."""
    import datamix.jobs  # noqa: F401  (registers the jobs)
    from datamix.config.compose import compose
    from datamix.config.parse import parse
    from datamix.training.replicas import Single
    from datamix.training.runs import prepare

    side, draw = int((record_bytes / 3) ** 0.5), np.random.default_rng(0)
    count = total_bytes // (3 * side**2)
    models: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        images = draw.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        np.savez(f"{directory}/images.npz", image=images, label=draw.integers(0, 10, count))
        settings = {"path": f"{directory}/images.npz", "split": "train[:99%]", "test_split": "train[99%:]"}
        overrides = [f"source.my_npz.{key}={value}" for key, value in (settings | {"operators": "[to_float]"}).items()]
        overrides += ["job=train", "source=my_npz", "model=linear", f"batch.size={BATCH}", f"train.steps={steps}"]
        for placement in ("device", "host"):
            run = prepare(parse(compose([*overrides, f"data.placement={placement}"])), Path(directory))
            model = Single(run.learner, [run.data.pipeline.compiled], [run.cursor], [run.state])
            models[placement] = partial(lambda model, run: model.train(run.rates[None]), model, run)
            models[placement]()  # compiles
    times: dict[str, list[float]] = {placement: [] for placement in models}
    for _ in range(rounds):
        for placement, call in models.items():
            begun = time.perf_counter()
            call()
            times[placement].append(steps / (time.perf_counter() - begun))
    ratios = [host / device for device, host in zip(*times.values(), strict=True)]
    return {name: statistics.median(each) for name, each in times.items()} | {"host/device": statistics.median(ratios)}


def resident(path: str) -> dict[str, float]:
    """Memory in MB, beyond imports, after the first batch of a file with resident records, and the peak before it."""
    import datamix
    from datamix.sources.arrays import arrays

    def mb(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    next(iter(datamix.mix({"x": {"image": np.zeros((BATCH, 1), np.uint8)}}, batch_size=BATCH)))
    before = mb("VmRSS")
    pipeline = datamix.mix(
        {"file": arrays(files={"image": path})}, batch_size=BATCH, stop="forever", placement="device"
    )
    next(iter(pipeline))
    return {"rss_mb": mb("VmRSS") - before, "peak_mb": mb("VmHWM") - before}


def first_batch(path: str, seconds: float) -> dict[str, float]:
    """Seconds to the first batch of a file, and peak memory in MB after some seconds of batches."""
    import datamix
    from datamix.sources.arrays import arrays

    begun = time.perf_counter()
    pipeline = datamix.mix({"file": arrays(files={"image": path})}, batch_size=BATCH, stop="forever", placement="host")
    iterator = pipeline.iterator()
    next(iterator)
    first_s = time.perf_counter() - begun
    while time.perf_counter() - begun < first_s + seconds:
        next(iterator)
    return {"first_s": first_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def files(
    sizes: dict[str, int], record_bytes: int, seconds: float, rounds: int, placement: str = "host"
) -> dict[str, dict[str, float]]:
    """Medians of `first_batch` or `resident` over several processes each, for sparse files of some sizes in bytes."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sizes}
    with tempfile.TemporaryDirectory() as directory:
        for name, size in sizes.items():
            shape = (max(size // record_bytes, BATCH), record_bytes)
            np.lib.format.open_memmap(f"{directory}/{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
        for _ in range(rounds):
            for name, each in results.items():
                command = [sys.executable, __file__, "--file", f"{directory}/{name}.npy", "--seconds", str(seconds)]
                command += ["--placement", placement]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                each.append(json.loads(done.stdout))
    return {
        name: {key: statistics.median(result[key] for result in each) for key in each[0]}
        for name, each in results.items()
    }


def main() -> None:
    """Print a table, and write `bench_fed.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[784, 12_000, 150_000], help="bytes of a record")
    parser.add_argument("--megabytes", type=int, default=300, help="size of both sources together")
    parser.add_argument("--large-megabytes", type=int, default=8000, help="size of the large file")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resident-megabytes", type=int, default=1000, help="of the file whose records are resident")
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--placement", default="host", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        is_fed = options.placement == "host"
        print(json.dumps(first_batch(options.file, options.seconds) if is_fed else resident(options.file)))
        return
    results: dict[str, Any] = {"records": {}}
    for record_bytes in options.records:
        row = compare(record_bytes, options.megabytes * 2**20, options.seconds, options.rounds)
        results["records"][record_bytes] = row
        print(
            f"{record_bytes:>7,} bytes a record: fed {row['host']:,.0f}/s, {row['host/device']:.2f} × resident, "
            f"{row['host/hand']:.2f} × by hand on {THREADS} threads; of mapped files {row['mapped']:,.0f}/s, "
            f"{row['mapped/device']:.2f} × and {row['mapped/hand']:.2f} ×",
            flush=True,
        )
    results["train"] = row = train(options.records[0], options.megabytes * 2**20, options.rounds)
    print(f"job=train: {row['host']:,.0f} steps/s fed, {row['host/device']:.2f} × resident", flush=True)
    sizes = {"small": 4 * 10**6, "large": options.large_megabytes * 10**6}
    results["files"] = of_size = files(sizes, options.records[0], options.seconds, max(options.rounds // 2, 1))
    small, large = of_size["small"], of_size["large"]
    print(
        f"a file of {options.large_megabytes:,} MB, against one of 4 MB: first batch after {large['first_s']:.2f} s, "
        f"{large['first_s'] / small['first_s']:.2f} ×; {large['peak_mb'] - small['peak_mb']:.0f} MB more memory"
    )
    megabytes = options.resident_megabytes
    results["resident"] = of_file = files({"file": megabytes * 10**6}, options.records[0], 0, 1, "device")["file"]
    rss, peak = (of_file[key] / megabytes * 1.048576 for key in ("rss_mb", "peak_mb"))
    print(f"a resident file of {megabytes:,} MB: {rss:.2f} × as much memory, at most {peak:.2f} ×")
    Path("bench_fed.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
