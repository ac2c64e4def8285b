"""Long work on records: the number of processors that it may use, and a bar that shows its progress."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_LEAST_RECORDS = 5_000  # fewer are read before anyone would look at a bar


def num_cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def progress_bar(
    label: str, total: int, *, unit: str = "records", least: int = _LEAST_RECORDS
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for work on more than `least` units; a plain line if stderr is no terminal.

    Yields:
      A function to call with the number of units done since its last call.
    """
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
