"""Measure how fast resident records become batches in difficult cases, as ratios to a reference.

    python scripts/bench_pipeline.py

The cases are short epochs against an endless mix, small batches against NumPy's, JAX arrays against NumPy's views,
sources that all have different shapes against sources of one shape, and copies of large records against NumPy's; also,
the seconds to the first batch, and to a batch by index. Both contestants of a row run in turns, so that background load
affects both, and the median of the ratios of all turns counts: of elapsed time, and of the CPU time of all threads,
which is more reliable on a shared machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import datamix
from datamix.operators import to_float

Batches = Iterator[Any]
TO_FLOAT_AND_RESIZE = "[to_float,{resize:{height: 24,width: 24}}]"


def images(name: str, num_records: int, *shape: int) -> dict[str, np.ndarray]:
    """Records of random bytes with labels, the same for the same name and shape."""
    draw = np.random.default_rng(len(name) + sum(shape))
    values = np.frombuffer(draw.bytes(num_records * int(np.prod(shape))), np.uint8).reshape(num_records, *shape)
    return {"image": values, "label": draw.integers(0, 10, num_records)}


def again_and_again(pipeline: datamix.Pipeline) -> Batches:
    """The batches of one epoch after the other, without end."""
    return itertools.chain.from_iterable(itertools.repeat(pipeline))


def by_hand(data: Mapping[str, Mapping[str, np.ndarray]], batch_size: int, dtype: str = "uint8") -> Batches:
    """Batches of shuffled images of two sources, by NumPy, each in new memory; floats are from 0 to 1."""
    parts, draw, half = [leaves["image"] for leaves in data.values()], np.random.default_rng(0), batch_size // 2
    while True:
        orders = [draw.permutation(len(part)) for part in parts]
        for begin in range(0, len(parts[0]) - half + 1, half):
            batch = np.empty((batch_size, *parts[0].shape[1:]), dtype)
            for source, (part, order) in enumerate(zip(parts, orders, strict=True)):
                rows = part[order[begin : begin + half]]
                batch[source::2] = rows if dtype == "uint8" else rows.astype(dtype) * np.float32(1 / 255)
            yield batch


def times(batches: Batches, seconds: float) -> tuple[float, float]:
    """Elapsed seconds and CPU seconds per batch."""
    begun, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(10):
            next(batches)
        count += 10
    return (time.perf_counter() - begun) / count, (time.process_time() - cpu) / count


def compare(contestant: Batches, other: Batches, seconds: float, rounds: int) -> dict[str, float]:
    """How many times as fast one is as the other: medians over rounds, after a warm-up round."""
    pairs = [(times(contestant, seconds), times(other, seconds)) for _ in range(rounds + 1)][1:]
    return {
        "ratio": statistics.median(theirs[0] / mine[0] for mine, theirs in pairs),
        "cpu_ratio": statistics.median(theirs[1] / mine[1] for mine, theirs in pairs),
        "batch_s": statistics.median(mine[0] for mine, _ in pairs),
    }


def timed(call: Any) -> tuple[float, Any]:
    """The seconds of a call, and its result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def of_shapes(num_sources: int, num_shapes: int) -> datamix.Pipeline:
    """A mix of square images of `num_shapes` sizes with the same mean for all, which are resized to one size."""
    least = 26 + (num_sources - num_shapes) // 2
    sides = {f"s{i}": least + i % num_shapes for i in range(num_sources)}
    sources = {name: images("s", 2000, side, side, 1) for name, side in sides.items()}
    operators = [f"source.{name}.operators={TO_FLOAT_AND_RESIZE}" for name in sources]
    return datamix.load("stop=forever", "batch.size=256", *operators, sources=sources)


def main() -> None:
    """Print a line for each comparison, and write `bench_pipeline.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of one contestant in one round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", type=int, default=16)
    parser.add_argument("--megabytes", type=int, default=300, help="size of all large records")
    options = parser.parse_args()
    logging.getLogger("datamix").setLevel("ERROR")  # no warnings about epochs
    results: dict[str, dict[str, float]] = {}

    def row(name: str, contestant: Batches, other: Batches) -> None:
        results[name] = each = compare(contestant, other, options.seconds, options.rounds)
        print(f"{name}: {each['ratio']:.2f} ×, {each['cpu_ratio']:.2f} × of processor time", flush=True)

    few = {name: images(name, 800, 28, 28, 1) for name in ("first", "second")}
    settings: dict[str, Any] = {"operators": [to_float], "batch_size": 256}
    endless = datamix.mix(few, stop="forever", **settings)
    row("epochs of 1,600 records, against an endless mix", again_and_again(datamix.mix(few, **settings)), iter(endless))
    many = {name: images(name, 20_000, 28, 28, 1) for name in ("first", "second")}
    small = datamix.mix(many, stop="forever", **settings | {"batch_size": 16})
    row("images at batch 16 to float32, against NumPy", iter(small), by_hand(many, 16, "float32"))
    row("output='jax' at batch 16, against NumPy's views", small.iterator(output="jax"), iter(small))
    count = max(options.megabytes * 2**20 // 150_000 // 2, 128)
    large = {name: images(name, count, 150_000) for name in ("first", "second")}
    copied = datamix.mix(large, stop="forever", batch_size=256, labels="keep")
    row("uint8 records of 150 kB, against NumPy", iter(copied), by_hand(large, 256))
    shapes = of_shapes(options.shapes, options.shapes)
    first_s, iterator = timed(lambda: (it := shapes.iterator(), next(it))[0])
    index_s, _ = timed(lambda: shapes[1])
    results["compile"] = {"first_s": first_s, "index_s": index_s}
    print(f"{options.shapes} shapes: first batch after {first_s:.1f} s, first by index after another {index_s:.1f} s")
    row(f"{options.shapes} sources of as many shapes, against one shape", iterator, iter(of_shapes(options.shapes, 1)))
    Path("bench_pipeline.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
