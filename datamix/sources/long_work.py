"""Long work on records: the processors that it may use, and the bar that says how far it is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_LEAST_RECORDS = 5_000  # fewer are read before one would look


def num_cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def progress_bar(
    label: str, total: int, *, unit: str = "records", least: int = _LEAST_RECORDS
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while more than `least` records are read; where stderr is no terminal, a plain line."""
    if total <= least:
        yield lambda _: None
    elif not sys.stderr.isatty():
        print(f"{label}: {total:,} {unit} …", file=sys.stderr, flush=True)
        yield lambda _: None
    else:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda count: bar.advance(task, count)
