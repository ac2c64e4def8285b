"""What a sweep is gathered into."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace

from datamix.sweeps.gathering import gather
from datamix.sweeps.results import read_results


def test_every_file_is_written_and_the_page_is_named(reported):
    directory, out = reported
    assert {path.name for path in directory.glob("sweep.*")} == {"sweep.csv", "sweep.html", "sweep.json", "sweep.png"}
    assert out.splitlines()[-1] == f"Sweep: {directory / 'sweep.html'}"


def test_several_sweeps_are_told_from_each_other(leave, tmp_path):
    sweeps = {path: read_results(path) for path in (leave("a"), leave("b", better=0.1))}
    with redirect_stdout(io.StringIO()) as out:
        rows = gather(sweeps, tmp_path, metric="accuracy/worst", goal="auto")
    assert [row["sweep"] for row in rows] == [str(tmp_path / "a")] * 6 + [str(tmp_path / "b")] * 6
    assert {row["dir"] for row in rows} == {f"{name}/{job}" for name in "ab" for job in range(6)}
    assert {row["sweep"] for row in rows if row["best"]} == {str(tmp_path / "b")}
    assert json.loads((tmp_path / "sweep.json").read_bytes()) == rows
    assert f"Best: sweep={tmp_path / 'b'}, mix.share.mnist=0.3 " in out.getvalue()


def test_why_ratios_under_a_schedule_are_not_proposed_is_said(leave, gathered):
    directory, out = gathered(leave(mix={"schedule": [{"until": 20, "weights": {"mnist": 1}}]}))
    assert "No suggestion: ratios under mix.schedule are not proposed, as the schedule is what the shares" in out
    assert not (directory / "suggest.json").exists()


def test_a_metric_that_no_job_reports_names_those_they_do(leave, gathered):
    directory, out = gathered(leave(), metric="accuracy/wrost")
    assert (
        "No job reports accuracy/wrost, by which they are compared; sweep.metric can be one of: accuracy/mnist" in out
    )
    assert not any(row["best"] for row in json.loads((directory / "sweep.json").read_bytes()))
    assert (directory / "sweep.png").is_file()


def test_stand_ins_are_named_in_the_output_and_on_the_page(leave, gathered):
    directory, out = gathered(leave(provenance="stand-in"))
    assert out.startswith("Stand-in: mnist is a built-in stand-in, not real data\n")
    assert "mnist: a built-in stand-in was used; this is not real data." in (directory / "sweep.html").read_text()


def test_a_suggestion_goes_into_the_console_the_rows_the_page_and_a_file(leave, gathered):
    directory, out = gathered(leave(shares=(0.1, 0.2, 0.3, 0.5, 0.9)))
    plain = json.loads((directory / "suggest.json").read_bytes())
    rows = json.loads((directory / "sweep.json").read_bytes())
    assert [round(row["predicted"], 2) for row in rows[::2]] == [
        round(row["metrics"]["accuracy/worst"] + 0.005, 2) for row in rows[::2]
    ]
    page = (directory / "sweep.html").read_text()
    for text in ("Predicted best: mnist ", plain["commands"][2]):
        assert text in out
        assert text in page


def test_notes_say_of_which_jobs_they_are(leave, tmp_path):
    first, second, *rest = read_results(leave(failing=[3]))
    results = [replace(first, notes=("few.", "of all.")), replace(second, notes=("few.", "of all.", "one."))]
    results += [replace(result, notes=("of all.",) if result.status == "done" else ()) for result in rest]
    with redirect_stdout(io.StringIO()) as out:
        gather({tmp_path: results}, tmp_path, metric="accuracy/worst", goal="auto")
    notes = ["Note: jobs 0, 1: few.", "Note: of all.", "Note: job 1: one."]
    assert [line for line in out.getvalue().splitlines() if line.startswith("Note")] == notes
    page = (tmp_path / "sweep.html").read_text()
    assert all(note in page for note in notes)
