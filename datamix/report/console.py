"""Tables and lines in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from datamix.errors import ResourceError, printable

_PIPED_WIDTH = 110  # columns, at least, if the output is not a terminal


class Console(RichConsole):
    """A terminal that shows text as it is, without markup or control characters, even in names from data."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """See Rich."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise ResourceError(f"the standard output cannot be written: {error.strerror}.") from error


def console() -> Console:
    """The terminal, or what the output is piped into."""
    # Plain text, as a shape such as [28, 28, 1] or a path is not markup.
    out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = max(out.width, _PIPED_WIDTH)
    return out


def console_of(stand_ins: Iterable[str]) -> Console:
    """The terminal, after printing the notes on the stand-ins of a mix, which come before anything else."""
    out = console()
    print_notes(out, "Stand-in", stand_ins)
    return out


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is text; the other columns are aligned to the right if they hold numbers."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(str(row[i])[:1] in "0123456789∞–" for row in rows)
        # Long text is wrapped, not cut, as rows may differ at its end.
        overflow: Any = "ellipsis" if i == 0 else "fold"
        shown.add_column(column, justify="right" if numeric else "left", no_wrap=i == 0, overflow=overflow)
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    return shown


def print_notes(out: RichConsole, head: str, notes: Iterable[str]) -> None:
    """Print notes that a user must not overlook, one line each, after a `head` in colour."""
    for note in notes:
        out.print(Text.assemble((f"{head}:", "bold yellow"), f" {printable(note)}"))


def per_s(rate: float) -> str:
    """A rate of steps as text, with one more digit if it is small.

    >>> per_s(0.42), per_s(1234.5)
    ('0.4 steps/s', '1,234 steps/s')
    """
    return f"{rate:,.{int(rate < 10)}f} steps/s"


def percent(share: float) -> str:
    """A share as text for people to read.

    >>> percent(0.7), percent(0.00012)
    ('70.0 %', '0.012 %')
    """
    return f"{share * 100:.1f} %" if share >= 0.001 or not share else f"{share * 100:.2g} %"
