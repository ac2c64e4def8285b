"""How far a job is."""

from __future__ import annotations

import io
import re

from rich.console import Console

from datamix.report.progress import counting, progress


def test_where_there_is_no_terminal_each_step_is_a_plain_line_whose_speed_leaves_the_compiling_out(monkeypatch):
    clock = iter([0, 10, 12, 14])  # 9 of the first 10 s were spent on compiling
    monkeypatch.setattr("datamix.report.progress.time.perf_counter", lambda: next(clock))
    out = Console(file=io.StringIO(), width=200, highlight=False)
    with progress(out, 2500, 1000) as advance:
        advance(1500, "loss 0.1")
        advance(2000, "loss 0.05")
        advance(2500, "loss 0.02")
    assert out.file.getvalue().splitlines() == [
        "step 1,500/2,500  loss 0.1  50 steps/s with compiling, at most 20 s left",
        "step 2,000/2,500  loss 0.05  250 steps/s, 2 s left",
        "step 2,500/2,500  loss 0.02  250 steps/s, 0 s left",
    ]


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
