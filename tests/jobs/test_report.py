"""`job=report`: a sweep drawn anew, and sweeps compared."""

from __future__ import annotations

import json

import pytest

PLAN = ["-m", "job=plan", "source=digits+garments"]


def rows(directory):
    """What `sweep.json` holds, once all four files are there."""
    assert {path.name for path in directory.glob("sweep.*")} >= {"sweep.csv", "sweep.html", "sweep.json"}
    return json.loads((directory / "sweep.json").read_bytes())


@pytest.mark.slow
def test_report_draws_a_sweep_anew_and_compares_two(call_datamix, tmp_path):
    for name, size in (("a", 16), ("b", 32)):
        call_datamix(*PLAN, "mix.share.digits=0.2,0.6", f"batch.size={size}", f"hydra.sweep.dir={name}")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("sweep.[cj]s*")}
    for path in (tmp_path / "a").glob("sweep.*"):
        path.unlink()
    assert call_datamix("job=report", "sweep.dir=a").code == 0
    assert {name: (tmp_path / "a" / name).read_bytes() for name in before} == before
    assert rows(tmp_path / "a")
    both = call_datamix("job=report", "sweep.dir=[a,b]", "sweep.metric=batches", "hydra.run.dir=both")
    assert [(row["sweep"], row["dir"], row["best"]) for row in rows(tmp_path / "both")] == [
        ("a", "../a/0", False),
        ("a", "../a/1", True),
        ("b", "../b/0", False),
        ("b", "../b/1", False),
    ]
    assert "Best: sweep=a, mix.share.digits=0.6, batch.size=16 " in both.out
    assert both.report["sweeps"] == ["a", "b"]


def test_a_report_without_a_sweep_says_so(call_datamix, tmp_path):
    assert call_datamix("job=report").mistake.startswith("ConfigError: sweep.dir is missing; ")
    assert call_datamix("job=report", "sweep.dir=none").mistake == (
        "ConfigError: sweep.dir = 'none'; there is no such folder; it is the hydra.sweep.dir of a sweep."
    )
    (tmp_path / "none").mkdir()
    assert call_datamix("job=report", "sweep.dir=none").mistake == (
        "ConfigError: sweep.dir: no job of a sweep has left its result in none."
    )
