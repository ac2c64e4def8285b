"""The progress of a job: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn

from datamix.report.console import per_s

_LINE_S = 10  # between two lines if the output is not a terminal


@contextmanager
def progress(out: Console, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Show how many steps are done, how fast, and how long the rest will take.

    Args:
      out: The terminal.
      total: The number of all steps.
      done: The number of steps that are done already.

    Yields:
      A function to call with the number of steps done and a text on the last one.
    """
    since: tuple[float, int] = time.perf_counter(), done
    digits, compiled = len(f"{total:,}"), False

    def line(step: int, text: str) -> str:
        nonlocal since, compiled
        now, (start, first) = time.perf_counter(), since
        rate = (step - first) / max(now - start, 1e-9)
        left = f"{(total - step) / rate:,.0f} s left"
        speed = f"{per_s(rate)}, {left}" if compiled else f"{per_s(rate)} with compiling, at most {left}"
        if not compiled:  # speed is measured from the first line on, as the program is compiled before it
            since, compiled = (now, step), True
        return f"step {step:>{digits},}/{total:,}  {text}  {speed}"

    if not out.is_terminal:
        yield lambda step, text: out.print(line(step, text))
        return
    columns = [TextColumn("training"), BarColumn(None), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()]
    with Progress(*columns, console=out, expand=True, transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)

        def advance(step: int, text: str) -> None:
            bar.console.print(f"step {step:>{digits},}/{total:,}  {text}")
            bar.update(task, completed=step)

        yield advance


@contextmanager
def counting(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how many things are done, by a bar or occasional lines.

    Yields:
      A function to call with the number of things done and that of all.
    """
    out = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    start = last_line = time.perf_counter()
    columns = [TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            nonlocal last_line
            bar.update(task, completed=done, total=total)
            if not out.is_terminal and (now := time.perf_counter()) - last_line >= _LINE_S:
                last_line = now
                remaining_s = (total - done) * (now - start) / max(done, 1)
                out.print(f"{label}: {done:,} of {total:,}, {remaining_s:,.0f} s left")

        yield advance


class _Rate(TextColumn):
    """The column of steps per second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> object:  # type: ignore[override]
        return "" if task.speed is None else per_s(task.speed)
