"""Measure the cost of many sources in loading, planning, reporting and look-ups; and of epochs shorter than a chunk.

    python scripts/bench_sources.py --sources 2 128 512 1000

Times are CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import datamix
from datamix.pipeline.batching import RowOrder
from datamix.pipeline.locate import arrays_of, cursor_at
from datamix.pipeline.program import compiled_locate

_TURNS = 5
_BATCH = 256


def main() -> None:
    """Print a row for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, nargs="+", default=[2, 128, 512, 1000])
    counts = parser.parse_args().sources
    load(2)  # the first call imports and compiles
    for count in counts:
        print(f"load, {count} sources: {seconds(lambda count=count: load(count)):.2f} s")
    for count in counts:
        sizes, weights = mix_of(count)
        took = seconds(lambda sizes=sizes, weights=weights: datamix.Plan(sizes, weights, stop="forever"))
        plan = datamix.Plan(sizes, weights, stop="forever")
        far = 10**12
        off = max(abs(got - share * far) for got, share in zip(plan.counts(far), plan.shares, strict=True))
        print(f"plan, {count} sources over four decades: {took:.2f} s; at record 10^12 off by {float(off):.2f} at most")
        print(
            f"  look-up: {look_up(plan):.0f} ns a record, of a table {look_up(datamix.Plan(sizes, stop='forever')):.0f}"
        )
    sizes, _ = mix_of(128)
    plan = datamix.Plan(sizes, order="random", stop="forever")
    print(f"report() of mix=random, 128 sources: {seconds(plan.report):.2f} s")
    sizes, weights = mix_of(32)
    plan = datamix.Plan(sizes, order="random", stop="exhaust_once")
    print(f"look-up of mix=random, exhaust_once, 32 sources: {look_up(plan):.0f} ns a record")
    short, long = (turns(iterate(size)) for size in (1600, 50_000))
    print(f"epochs of 1,600 records against long ones: {short / long:.2f} x ({short:.0f} ns a record)")


def mix_of(count: int) -> tuple[dict[str, int], dict[str, float]]:
    """The sizes of sources, and weights over four orders of magnitude."""
    generator = np.random.default_rng(0)
    names = [f"s{i}" for i in range(count)]
    return dict.fromkeys(names, 20_000), dict(zip(names, map(float, 10 ** generator.uniform(0, 4, count)), strict=True))


def load(count: int) -> object:
    """A pipeline of `count` sources in memory."""
    record = {"image": np.zeros((40, 8, 8, 1), np.uint8), "label": np.zeros(40, np.int32)}
    return datamix.load("stop=forever", f"batch.size={_BATCH}", sources={f"s{i}": record for i in range(count)})


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    before = time.process_time()
    run()
    return time.process_time() - before


def turns(run: Callable[[], int]) -> float:
    """CPU nanoseconds per record: the median of several turns."""
    run()
    return statistics.median(seconds(run) * 1e9 / run() for _ in range(_TURNS))


def look_up(plan: datamix.Plan) -> float:
    """CPU nanoseconds to find the source, epoch and number of a record in the compiled program."""
    arrays, batches = jax.tree.map(jnp.asarray, arrays_of(plan)), 64
    cursor = jax.device_put(cursor_at(plan, 0))

    def run() -> int:
        at = cursor
        for _ in range(8):
            located, at = compiled_locate()(arrays, RowOrder(), at, batches, _BATCH)
        jax.block_until_ready(located)
        return 8 * batches * _BATCH

    return turns(run)


def iterate(size: int) -> Callable[[], int]:
    """A function that iterates over epochs of `size` records, about 50,000 records in total."""
    generator = np.random.default_rng(0)
    sources: dict[str, Any] = {
        name: {"image": generator.integers(0, 255, (size // 2, 28, 28, 1), np.uint8), "label": np.zeros(size // 2, int)}
        for name in "ab"
    }
    pipeline = datamix.mix(sources, stop="first_exhausted", batch_size=_BATCH)

    def run() -> int:
        total = 0
        for _ in range(max(1, 50_000 // size)):
            total += sum(len(batch["label"]) for batch in pipeline)
        return total

    return run


if __name__ == "__main__":
    main()
