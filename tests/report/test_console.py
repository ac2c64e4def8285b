"""Tables and lines in the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from datamix.report.console import console, console_of, per_s, percent, print_notes, table


@pytest.fixture
def out() -> Console:
    return Console(file=io.StringIO(), width=60, highlight=False, markup=False, soft_wrap=True)


def test_what_is_piped_is_wide_and_no_markup(capsys):
    console().print("image [28, 28, 1] " + "x" * 90)
    assert capsys.readouterr().out == "image [28, 28, 1] " + "x" * 90 + "\n"
    assert console().width >= 110


def test_stand_ins_are_the_first_that_is_printed(capsys):
    console_of(["mnist: not [real]"]).print("Sources")
    assert capsys.readouterr().out == "Stand-in: mnist: not [real]\nSources\n"


def test_columns_of_numbers_are_aligned_to_the_right(out):
    out.print(table("Sources", ["source", "records"], [("mnist", "60,000"), ("mine", 5), ("endless", "∞")]))
    lines = [line.strip(" ┃│") for line in out.file.getvalue().splitlines()]
    assert lines[0] == "Sources"
    assert {"mnist   │  60,000", "mine    │       5", "endless │       ∞"} <= set(lines)


def test_columns_of_text_and_empty_tables_are_aligned_to_the_left():
    left = table("x", ["a", "b"], [("one", "two"), ("1", "2 of 3")])
    assert [column.justify for column in left.columns] == ["left", "left"]
    assert [column.justify for column in table("x", ["a"], []).columns] == ["left"]


def test_notes_are_a_line_each(out):
    print_notes(out, "Stand-in", ["mnist: [bold]", "fashion: two"])
    assert out.file.getvalue() == "Stand-in: mnist: [bold]\nStand-in: fashion: two\n"


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.0 %"), (1, "100.0 %"), (0.001, "0.1 %"), (0.00099, "0.099 %"), (1 / 3, "33.3 %")]
)
def test_a_share_for_people(share, text):
    assert percent(share) == text


def test_a_slow_rate_is_not_rounded_to_nothing():
    assert [per_s(rate) for rate in (0.36, 9.96, 12.4)] == ["0.4 steps/s", "10.0 steps/s", "12 steps/s"]
