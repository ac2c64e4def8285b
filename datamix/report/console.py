"""Tables and lines in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PIPED_WIDTH = 110  # columns, where the output is no terminal and nothing says how wide it is


def console() -> Console:
    """The terminal, or what the output is piped into."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=max(out.width, _PIPED_WIDTH))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is text and whose others are aligned by what they hold."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(str(row[i])[:1] in "0123456789∞–" for row in rows)
        shown.add_column(column, justify="right" if numeric else "left", no_wrap=i == 0)
    for row in rows:
        shown.add_row(*(escape(str(cell)) for cell in row))
    return shown


def percent(share: float) -> str:
    """A share for people to read.

    >>> percent(0.7), percent(0.00012)
    ('70.0 %', '0.012 %')
    """
    return f"{share * 100:.1f} %" if share >= 0.001 or not share else f"{share * 100:.2g} %"
