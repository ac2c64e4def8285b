"""Simulate a mix of 10^12 records from 10,000 sources on 1 to 4,096 hosts: its costs, and what limits it first.

    python scripts/simulate_scale.py

The script runs datamix itself, not a model of it: the plan is a `datamix.Plan`, the rows of a host are those that a
pipeline gives to its rank, and the last of the largest number of hosts runs a whole pipeline, whose sources generate
records on request. Files are those in which so many records would be stored. Times are CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

import datamix
from datamix.pipeline.batching import RowOrder, shard_rows
from datamix.pipeline.locate import arrays_of, cursor_at
from datamix.pipeline.program import compiled_locate
from datamix.spec import LeafSpec

_MOST_RECORDS = 2**31  # of a source, so that with counts within a call they fit into 32 bits
_SAMPLED_RANKS = 32
_TEMPERATURE = 0.7  # the weight of a source is its size to this power


class MadeUp:
    """A source that generates records on request, each of 4,096 tokens."""

    provenance, class_names = "procedural", ()

    def __init__(self, num_records: int, tokens: int) -> None:
        self.num_records, self.spec = num_records, {"tokens": LeafSpec((tokens,), "uint16")}

    def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
        out["tokens"][...] = indices[:, None] % 2**16


def sizes_of(num_sources: int, num_records: int) -> dict[str, int]:
    """The sizes of sources, over four decades, with a sum of about `num_records`."""
    sizes = np.random.default_rng(0).lognormal(sigma=1.5, size=num_sources)
    sizes *= num_records / sizes.sum()
    for _ in range(50):  # records beyond the limit of large sources go to the others
        cut = sizes >= _MOST_RECORDS
        if cut.all():
            break
        sizes[cut] = _MOST_RECORDS
        sizes[~cut] *= max(num_records - sizes[cut].sum(), 0) / sizes[~cut].sum()
    counts = np.clip(sizes, 1, _MOST_RECORDS).astype(np.int64)
    return {f"s{i:05d}": int(count) for i, count in enumerate(counts)}


def cost(run: Callable[[], Any]) -> tuple[Any, float, int]:
    """The result of a call, its CPU seconds, and the bytes by which the process grows."""
    process = psutil.Process()
    before, begun = process.memory_info().rss, time.process_time()
    result = run()
    return result, time.process_time() - begun, process.memory_info().rss - before


def num_bytes(tree: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


def plan_costs(plan: datamix.Plan, batch: int, far: int) -> dict[str, float]:
    """The costs of look-ups: milliseconds per batch at the beginning and far on, nanoseconds per record if compiled."""
    plan.take(0, batch)  # computes what is kept for all calls
    arrays, array_bytes = (placed := jax.tree.map(jnp.asarray, arrays_of(plan))), num_bytes(placed)
    locate = compiled_locate()
    cursor, seek_s, _ = cost(lambda: jax.device_put(cursor_at(plan, far)))
    jax.block_until_ready(locate(arrays, RowOrder(), cursor, 1, batch))
    turns = [cost(lambda: jax.block_until_ready(locate(arrays, RowOrder(), cursor, 1, batch)))[1] for _ in range(9)]
    counts, share = plan.counts(far), plan.shares
    return {
        "array_bytes": array_bytes,
        "cursor_bytes": num_bytes(cursor),
        "take_first_ms": 1e3 * np.median([cost(lambda: plan.take(0, batch))[1] for _ in range(5)]),
        "take_far_ms": 1e3 * np.median([cost(lambda: plan.take(far, batch))[1] for _ in range(5)]),
        "seek_ms": 1e3 * seek_s,
        "locate_ns": 1e9 * float(np.median(turns)) / batch,
        "off": max(float(abs(count - part * far)) for count, part in zip(counts, share, strict=True)),
    }


def files_of(plan: datamix.Plan, selection: datamix.mixing.plan.Selection, file_records: int) -> np.ndarray:
    """The file of each record, numbered across all sources, int64."""
    files = -(-np.asarray(plan.sizes) // file_records)
    return (np.cumsum(files) - files)[selection.source] + selection.record // file_records


def distinct(owner: np.ndarray, item: np.ndarray, num_owners: int) -> np.ndarray:
    """The number of distinct items of each owner, int64 [num_owners]."""
    keys = np.unique(owner * (item.max() + 1) + item)
    return np.bincount(keys // (item.max() + 1), minlength=num_owners)


def host_costs(
    plans: dict[str, datamix.Plan], hosts: int, batch: int, steps: int, first: int, file_records: int
) -> Any:
    """The number of files that each host reads in one step and in `steps` steps, from the position `first`."""
    rows = [shard_rows(batch, rank, hosts) for rank in range(hosts)]
    assert [rows[0].start, *(each.stop for each in rows)] == [*(each.start for each in rows), batch]
    sizes = np.asarray([each.stop - each.start for each in rows])
    rank = np.tile(np.repeat(np.arange(hosts), sizes), steps)
    step = np.repeat(np.arange(steps), batch)
    result: dict[str, Any] = {"hosts": hosts, "rows": [int(sizes.min()), int(sizes.max())]}
    for shuffle, plan in plans.items():
        selection = plan.take(first, batch * steps)
        files = files_of(plan, selection, file_records)
        of_step, of_window = (
            distinct(owner, files, n) for owner, n in ((step * hosts + rank, steps * hosts), (rank, hosts))
        )
        result[shuffle] = {
            "files_a_step": [float(of_step.mean()), int(of_step.max())],
            "files_of_window": [float(of_window.mean()), int(of_window.max())],
        }
    # If every hundredth source is slow: how many slow records a host reads in a step, on average over all hosts, and
    # on average over the host of each step that reads most, since all hosts wait for the last one.
    slow = (selection.source % 100 == 0).astype(np.int64)
    of_host = np.bincount(step * hosts + rank, weights=slow, minlength=steps * hosts).reshape(steps, hosts)
    result["slow_records"] = [float(of_host.mean()), float(of_host.max(axis=1).mean())]
    return result


def lost_host(plan: datamix.Plan, hosts: int, batch: int, first: int) -> dict[str, float]:
    """The costs after the loss of one host; checks that the shards of the remaining hosts form the same batch."""
    whole, remaining = plan.take(first, batch), hosts - 1
    for rank in np.unique(np.linspace(0, remaining - 1, _SAMPLED_RANKS).astype(int)).tolist():
        rows = shard_rows(batch, rank, remaining)
        part = plan.take(first + rows.start, rows.stop - rows.start)
        assert all(np.array_equal(mine, of_all[rows]) for mine, of_all in zip(part, whole, strict=True))
    before, after = (-(-batch // count) for count in (hosts, remaining))
    equal = max(count for count in range(1, remaining + 1) if batch % count == 0)
    return {
        "hosts": remaining,
        "step_longer": after / before,
        "dividing_hosts": equal,
        "dividing_longer": batch / equal / before,
    }


def one_host(sizes: dict[str, int], weights: dict[str, float], batch: int, hosts: int, step: int, tokens: int) -> Any:
    """The costs of the whole pipeline on the last rank of `hosts`."""
    sources = {name: MadeUp(size, tokens) for name, size in sizes.items()}
    pipeline, build_s, build_bytes = cost(
        lambda: datamix.mix(sources, weights=weights, stop="forever", batch_size=batch, placement="host")
    )
    iterator, open_s, _ = cost(lambda: pipeline.iterator(start=step, shard=(hosts - 1, hosts)))
    _, first_s, run_bytes = cost(lambda: next(iterator))
    state, state_s, _ = cost(iterator.state)
    _, again_s, _ = cost(iterator.state)
    afresh = pipeline.iterator(shard=(max(hosts - 2, 0), max(hosts - 1, 1)))
    _, restore_s, _ = cost(lambda: afresh.restore(state))
    assert afresh.step == iterator.step == step + 1
    result = {
        "build_s": build_s, "open_s": open_s, "first_batch_s": first_s, "bytes": build_bytes + run_bytes,
        "state_s": [state_s, again_s], "restore_s": restore_s, "state_bytes": len(json.dumps(state)),
        "state_parts": {key: len(json.dumps(value)) for key, value in state.items()},
    }  # fmt: skip
    iterator.close()
    afresh.close()
    return result


def printed(results: dict[str, Any], batch: int, steps: int, record_bytes: int) -> str:
    """The measurements as lines and a table."""
    plan, host, far = results["plan"], results["host"], results["far"]
    locate_ns = plan["locate_ns"]
    lines = [
        f"the plan: {plan['build_s']:.1f} s to build, {plan['build_bytes'] / 2**20:,.0f} MiB of the process, "
        f"{plan['array_bytes'] / 2**20:.1f} MiB in the program",
        f"a batch of {batch:,}: {plan['take_first_ms']:.1f} ms at the beginning, {plan['take_far_ms']:.1f} ms at "
        f"record {far:.3g}; a cursor there {plan['seek_ms']:.1f} ms, {plan['cursor_bytes'] / 1024:,.0f} KiB",
        f"compiled: {locate_ns:.0f} ns a record, {locate_ns * batch / 1e6:.1f} ms a step on every host; "
        f"off by {plan['off']:.2f} records at most",
        f"one of {host['hosts']:,} hosts: pipeline {host['build_s']:.1f} s, first batch {host['first_batch_s']:.1f} s, "
        f"{host['bytes'] / 2**20:,.0f} MiB",
        f"its state: {host['state_bytes'] / 1024:,.0f} KiB, {host['state_s'][0]:.2f} s to take, then "
        f"{host['state_s'][1]:.2f} s, {host['restore_s']:.2f} s to restore on one host fewer",
        "",
        f"| hosts | rows | MB per step | files per step: mean, most | files in {steps} steps | with blocks "
        "| slow records per step: mean, most | one host lost | or, divided equally |",
        "|" + " --- |" * 9,
    ]
    for row in results["table"]:
        low, high = row["rows"]
        (mean, most), (window, _) = row["full"]["files_a_step"], row["full"]["files_of_window"]
        lost = row["lost"]
        cells = [
            f"{row['hosts']:,}",
            f"{low:,}" if low == high else f"{low:,}–{high:,}",
            f"{high * record_bytes / 1e6:,.3g}",
            f"{mean:,.1f}, {most:,}",
            f"{window:,.0f}",
            f"{row['blocks']['files_of_window'][0]:,.0f}",
            f"{row['slow_records'][0]:.3g}, {row['slow_records'][1]:.3g}",
            f"{lost['step_longer']:.3g} × a step" if lost else "–",
            f"{lost['dividing_hosts']:,} hosts, {lost['dividing_longer']:.3g} ×" if lost else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{results['seconds']:.0f} s on {os.cpu_count()} cores"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=float, default=1e12)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 8, 64, 512, 4096])
    parser.add_argument("--batch", type=int, default=16_384, help="records of a batch, all hosts together")
    parser.add_argument("--steps", type=int, default=128, help="steps over which files are counted")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a record, of 2 bytes each")
    parser.add_argument("--file-records", type=int, default=2**18)
    parser.add_argument("--json", type=Path, help="the file for the results")
    arguments = parser.parse_args()
    begun, batch, steps = time.perf_counter(), arguments.batch, arguments.steps
    logging.getLogger("datamix").setLevel(logging.ERROR)  # without the epochs that each source logs
    far = int(arguments.records) // batch * batch
    sizes = sizes_of(arguments.sources, int(arguments.records))
    weights = {name: size**_TEMPERATURE for name, size in sizes.items()}
    datamix.Plan({"a": 3, "b": 5}).take(0, 8)  # imports what it needs
    plan, build_s, build_bytes = cost(lambda: datamix.Plan(sizes, weights, stop="forever", batch_size=batch))
    blocks = datamix.Plan(sizes, weights, stop="forever", batch_size=batch, shuffle="blocks(4)")
    table = []
    for hosts in arguments.hosts:
        plans = {"full": plan, "blocks": blocks}
        row = host_costs(plans, hosts, batch, steps, far, arguments.file_records)
        table.append(row | {"lost": lost_host(plan, hosts, batch, far) if hosts > 1 else None})
    results = {
        "records": sum(sizes.values()),
        "far": far,
        "plan": {"build_s": build_s, "build_bytes": build_bytes} | plan_costs(plan, batch, far),
        "host": one_host(sizes, weights, batch, max(arguments.hosts), far // batch, arguments.tokens)
        | {"hosts": max(arguments.hosts)},
        "table": table,
        "seconds": time.perf_counter() - begun,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(printed(results, batch, steps, 2 * arguments.tokens))


if __name__ == "__main__":
    main()
