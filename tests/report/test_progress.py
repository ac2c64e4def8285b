"""How far a job is."""

from __future__ import annotations

import io
import re

from rich.console import Console

from datamix.report.progress import counting, progress


def test_where_there_is_no_terminal_each_step_is_a_plain_line():
    out = Console(file=io.StringIO(), width=200, highlight=False)
    with progress(out, 2000, 1000) as advance:
        advance(1500, "loss 0.1")
        advance(2000, "loss 0.05")
    first, last = out.file.getvalue().splitlines()
    assert re.fullmatch(r"step 1,500/2,000  loss 0\.1  [\d,]+ steps/s, \d+ s left", first)
    assert re.fullmatch(r"step 2,000/2,000  loss 0\.05  [\d,]+ steps/s, 0 s left", last)


def test_in_a_terminal_a_bar_runs_below_the_lines():
    out = Console(file=io.StringIO(), width=100, force_terminal=True)
    with progress(out, 20) as advance:
        advance(5, "loss 0.1")
        advance(20, "loss 0.05")
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.file.getvalue())
    assert "step  5/20  loss 0.1" in text
    assert "training" in text
    assert "20/20" in text


def test_counting_where_there_is_no_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("datamix.report.progress.time.perf_counter", lambda: next(clock))
    with counting("Statistics of a") as advance:
        for done in range(1, 7):
            advance(done, 10)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Statistics of a: 3 of 10, \d+ s left", first)
    assert re.fullmatch(r"Statistics of a: 6 of 10, \d+ s left", second)
