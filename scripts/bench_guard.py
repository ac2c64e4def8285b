"""Test whether a change has made anything slower: two checkouts do the same work in turns.

    git worktree add ../before HEAD~20
    python scripts/bench_guard.py ../before . --turns 7

Each turn runs the work of both, in alternating order, so that background load affects both. Everything runs in separate
processes that import from the checkout. The script prints how many times as long the second checkout takes: the median
of the turns, and their quartiles. A quantity is marked if even the lower quartile is above the margin; the exit status
is then 1. Times are CPU seconds of all threads together; with `--wall`, elapsed seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SWEEP = "job=train source=digits+garments model=linear train.steps=20 mix.share.digits=0.2,0.8"
COMMANDS = {
    "help": ["--help"],
    "preview": ["source=digits+garments", "hydra.run.dir=out"],
    "sweep of 2 ratios": ["-m", *SWEEP.split(), "hydra.sweep.dir=out"],
}


def in_process(num_records: int, num_batches: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of the steps of a program that uses datamix: importing, loading, the first batch, many batches."""
    import numpy as np

    begun = clock()
    import datamix

    draw, marks = np.random.default_rng(0), {"import": clock() - begun}
    sources = {
        name: {
            "image": draw.integers(0, 255, (num_records, 28, 28, 1), dtype=np.uint8),
            "label": np.arange(num_records) % 10,
        }
        for name in ("first", "second")
    }
    for size in (256, 16):
        begun = clock()
        pipeline = datamix.load("stop=forever", f"batch.size={size}", "operators=[to_float]", sources=sources)
        iterator = pipeline.iterator()
        marks[f"load, batch {size}"] = clock() - begun
        next(iterator)
        marks[f"to the first of {size}"] = clock() - begun
        count = num_batches * 256 // size
        for _ in range(count):
            next(iterator)
        begun = clock()
        for _ in range(count):
            next(iterator)
        marks[f"batches of {size}"] = clock() - begun
    return marks


def of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def turn(checkout: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The seconds that a checkout takes, by quantity."""
    paths = os.pathsep.join([str(checkout), str(checkout / "datamix" / "plugins")])
    environment = os.environ | {"PYTHONPATH": paths}
    clock = time.perf_counter if arguments.wall else of_children
    marks = {}
    with tempfile.TemporaryDirectory() as directory:

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command], cwd=directory, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{checkout}: {' '.join(command)}: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")
            return done.stdout

        work = [str(Path(__file__).resolve()), "--worker", "--records", str(arguments.records)]
        work += ["--batches", str(arguments.batches), *(["--wall"] if arguments.wall else []), ".", "."]
        marks.update(json.loads(run(*work)))
        for name, overrides in COMMANDS.items():
            if name in arguments.leave_out:
                continue
            begun = clock()
            run("-m", "datamix", *overrides)
            marks[name] = clock() - begun
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the checkout to compare with")
    parser.add_argument("after", type=Path, help="the checkout to test")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--margin", type=float, default=1.1, help="the ratio that counts as slower")
    parser.add_argument("--records", type=int, default=20_000, help="records of each of two sources")
    parser.add_argument("--batches", type=int, default=3000, help="of 256 records; as many records are also read by 16")
    parser.add_argument("--leave-out", nargs="*", default=[], choices=list(COMMANDS))
    parser.add_argument("--wall", action="store_true", help="measure elapsed seconds, not CPU seconds")
    parser.add_argument("--json", type=Path, help="the file for the seconds of all turns")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        clock = time.perf_counter if arguments.wall else time.process_time
        print(json.dumps(in_process(arguments.records, arguments.batches, clock)))
        return
    both = [arguments.before.resolve(), arguments.after.resolve()]
    for checkout in both:
        if not (checkout / "datamix" / "__init__.py").is_file():
            parser.error(f"{checkout} is no checkout of datamix")
    turns = []
    for number in range(arguments.turns):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        marks = {i: turn(both[i], arguments) for i in order}
        turns.append((marks[0], marks[1]))
        if arguments.json:
            arguments.json.write_text(json.dumps(turns, indent=1) + "\n")
    is_slower = False
    print(f"{'':20}  before: s   after: s  after / before: median, quartiles")
    for name in turns[0][0]:
        seconds = [[marks[i][name] for marks in turns] for i in (0, 1)]
        ratios = [after / before for before, after in zip(*seconds, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        slower = low > arguments.margin
        is_slower |= slower
        first, second = map(statistics.median, seconds)
        note = "  slower" if slower else ""
        print(f"{name:20} {first:10.3f} {second:10.3f}  {median:.2f} ({low:.2f} to {high:.2f}){note}")
    sys.exit(is_slower)


if __name__ == "__main__":
    main()
