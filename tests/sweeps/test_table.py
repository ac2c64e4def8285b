"""A sweep's table: in the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
import re

from datamix.sweeps.results import best, read_results, seed_groups
from datamix.sweeps.table import by_setting, cell, failures, share_text, verdict


def test_a_row_a_job(reported):
    directory, _ = reported
    rows = json.loads((directory / "sweep.json").read_bytes())
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done", "done", "done"]
    assert [row["best"] for row in rows] == [False, False, False, True, False, False]
    assert rows[2]["error"] == "MemoryError: no room for <b>these</b> records"
    assert (rows[2]["metrics"], rows[2]["shares"]) == ({}, {})
    kept = {key: rows[3][key] for key in ("job", "overrides", "dir", "seed", "shares")}
    overrides = ["job=train", "mix.share.mnist=0.3", "seed=1"]
    shares = {"mnist": 0.3, "fashion": 0.7}
    assert kept == {"job": 3, "overrides": overrides, "dir": "3", "seed": 1, "shares": shares}
    result = json.loads((directory / "3" / "result.json").read_bytes())
    assert rows[3]["metrics"] == result["metrics"]


def test_the_same_rows_as_csv(reported):
    directory, _ = reported
    rows = json.loads((directory / "sweep.json").read_bytes())
    with (directory / "sweep.csv").open() as file:
        cells = list(csv.DictReader(file))
    for row, line in zip(rows, cells, strict=True):
        assert (line["job"], line["status"], line["error"]) == (str(row["job"]), row["status"], row["error"] or "")
        assert line["mix.share.mnist"] == row["overrides"][1].partition("=")[2]
        assert {name: float(line[name]) for name in row["metrics"]} == row["metrics"]
    assert cells[2]["accuracy/worst"] == ""


def test_the_table_marks_the_best_and_says_why_jobs_failed(reported):
    _, out = reported
    (marked,) = (line for line in out.splitlines() if "★" in line)
    assert [cell.strip() for cell in marked.strip("│").split("│")][:4] == ["★", "0.3", "1", "1 done, 1"]
    assert re.search(r"│ +0\.1 │ +2 │ +2 done │ +90\.0 % │ +[\d.]+ ± 0\.71( %)? │", out)
    assert re.search(r"│ +2 │ MemoryError: no room for <b>these</b> records +│", out)
    said = "Best: mix.share.mnist=0.3 (mnist 30.0 %, fashion 70.0 %), by worst source's accuracy (more is better): "
    assert re.search(rf"^{re.escape(said)}[\d.]+ %\.$", out, re.MULTILINE)


def test_a_tie_is_said(leave, gathered):
    def of(num_alike):
        directory = leave(f"{num_alike}", shares=(0.2, 0.3, 0.4))
        for job in range(2 * num_alike):
            path = directory / str(job) / "result.json"
            plain = json.loads(path.read_bytes())
            path.write_text(json.dumps(plain | {"metrics": {"accuracy/worst": [0.996, 0.994][job % 2]}}))
        return gathered(directory)[1]

    some, every = of(2), of(3)
    assert "★" in some.partition("Best: ")[0]
    best = re.search(r"^Best: mix\.share\.mnist=0\.2 .* (99.50 ± 0.14 % over 2 seeds, .*)$", some, re.MULTILINE)
    assert best[1] == "99.50 ± 0.14 % over 2 seeds, as has 1 other setting."
    assert "★" not in every.partition("No setting is best")[0]
    said = "No setting is best: all 3 have the same worst source's accuracy, 99.50 %."
    assert said in every.splitlines()


def test_values_that_differ_at_their_end_alone_are_told_apart(leave, gathered):
    values = [f"{{warmup_cosine:{{warmup:0.{i}}}}}" for i in (1, 2)]
    settings = [{"optimizer.schedule": value, "model_of_a_long_name": value * 3} for value in values]
    for i, setting in enumerate(settings):
        leave(f"sweep/{i}", shares=(0.1,), **setting)
    _, out = gathered(leave("sweep/2", shares=(0.1,), **dict.fromkeys(settings[0], "constant")).parent)
    rows = out.partition("The sweep")[2].partition("└")[0]
    assert "…" not in rows
    column = "".join(line.split("│")[3].strip() for line in rows.splitlines() if line.startswith("│"))
    assert all(value in column for value in values)


def test_a_cell_has_a_deviation_where_seeds_differ(leave):
    group = seed_groups(read_results(leave()))[0]
    assert cell(group, "accuracy/mnist") == "84.04 ± 0.71 %"
    assert cell(group, "accuracy/none") == "–"
    assert (share_text(group.first, "mnist"), share_text(group.first, "none")) == ("10.0 %", "–")


def test_a_seed_that_was_run_twice_is_one_seed(leave):
    results = [result for result in read_results(leave()) * 2 if result.seed == 0]
    chosen = best(seed_groups(results), "accuracy/worst", "auto")
    columns, lines = by_setting(results, chosen, ["accuracy/worst"])
    said = [(line[columns.index("seeds")], line[columns.index("status")], line[-1]) for line in lines]
    assert said[1] == ("1", "2 done", "85.10")
    assert verdict(results, chosen, "accuracy/worst", "auto").endswith(" (more is better): 85.10 %.")


def test_only_jobs_that_are_not_done_are_listed(leave):
    assert failures(read_results(leave("good"))) is None
    table = failures(read_results(leave("bad", failing=(1, 4))))
    assert [list(column.cells) for column in table.columns] == [
        ["1, 4"], ["MemoryError: no room for <b>these</b> records"],
    ]  # fmt: skip


def test_the_verdict_is_one_sentence(leave):
    results = read_results(leave())
    groups = seed_groups(results)
    said = verdict(results, best(groups, "loss/mean", "auto"), "loss/mean", "auto")
    assert re.fullmatch(
        r"Best: mix\.share\.mnist=0\.\d \(mnist .*, fashion .*\), by mean loss \(less is better\): .* over 2 seeds\.",
        said,
    )
    assert verdict(results, None, "none", "auto").startswith("No job reports none, by which they are compared; ")


def test_where_no_job_is_done_it_says_so(leave, gathered):
    _, out = gathered(leave(failing=range(6)))
    assert out.partition("Not done")[2].splitlines()[-2] == "No job is done, and there is none to compare."
