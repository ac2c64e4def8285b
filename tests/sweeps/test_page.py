"""A sweep's files: table, figure and page; the page is opened in a browser."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from contextlib import redirect_stdout

import numpy as np
import pytest
from matplotlib.image import imread, imsave

from datamix.sweeps import figure as sweep_figure
from datamix.sweeps.gathering import gather
from datamix.sweeps.results import best, read_results, settings


def gathered(directory, metric="accuracy/worst"):
    """Report on a sweep; returns its directory and what was printed."""
    with redirect_stdout(io.StringIO()) as out:
        gather({directory: read_results(directory)}, directory, metric=metric, goal="auto")
    return directory, out.getvalue()


@pytest.fixture(scope="module")
def reported(leave_in, tmp_path_factory):
    """A sweep whose job 2 has failed; job 3 has left a figure."""
    directory = leave_in(tmp_path_factory.mktemp("reported"))(failing=(2,))
    imsave(directory / "3" / "curves.png", np.zeros((4, 6, 3)))
    return gathered(directory)


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
    said = "Best: mix.share.mnist=0.3 (mnist 30.0 %, fashion 70.0 %) has the highest accuracy/worst, "
    assert re.search(rf"^{re.escape(said)}[\d.]+ %\.$", out, re.MULTILINE)


def test_a_metric_that_no_job_reports_names_those_they_do(leave):
    directory, out = gathered(leave(), metric="accuracy/wrost")
    assert (
        "No job reports accuracy/wrost, by which they are compared; sweep.metric can be one of: accuracy/mnist" in out
    )
    assert not any(row["best"] for row in json.loads((directory / "sweep.json").read_bytes()))
    assert (directory / "sweep.png").is_file()


def test_look_alikes_are_named_in_the_output_and_on_the_page(leave):
    directory, out = gathered(leave(provenance="stand-in"))
    assert out.startswith("Stand-in: mnist is a built-in stand-in, not real data\n")
    assert "mnist: a built-in stand-in was used; this is not real data." in (directory / "sweep.html").read_text()


def lines(axis):
    """The curves of an axis by their names."""
    return {line.get_label(): line.get_xydata() for line in axis.lines if not line.get_label().startswith("_")}


def test_the_figure_shows_means_over_the_seeds_against_the_shares(leave):
    results = read_results(leave(provenance="stand-in"))
    groups = settings(results)
    figure = sweep_figure.draw(results, best(groups, "accuracy/worst", "auto"), "accuracy/worst")
    swept, own = figure.axes
    assert set(lines(swept)) == {"accuracy/worst", "accuracy/mnist", "accuracy/fashion", "accuracy/mean"}
    for name, points in lines(swept).items():
        np.testing.assert_allclose(points[:, 0], [0.1, 0.3, 0.9])
        np.testing.assert_allclose(points[:, 1], [group.mean(name) for group in groups])
    np.testing.assert_allclose(lines(own)["fashion"][:, 0], [0.1, 0.7, 0.9])
    assert len(swept.collections) == 3  # a band each, but for the worst, which is one of them
    (star,) = (line for line in swept.lines if line.get_marker() == "*")
    np.testing.assert_allclose(star.get_xydata(), [(0.3, groups[1].mean("accuracy/worst"))])
    assert figure.get_suptitle() == "Built-in stand-ins, not real data: mnist"


def test_another_axis_beside_the_share_gives_a_line_a_value(leave):
    results = read_results(leave("a", rate=0.1)) + read_results(leave("b", rate=0.2, better=0.05))
    chosen = best(settings(results), "accuracy/worst", "auto")
    swept, own = sweep_figure.draw(results, chosen, "accuracy/worst").axes
    assert set(lines(swept)) == {"rate=0.1", "rate=0.2"}
    assert all(len(points) == 3 for points in [*lines(swept).values(), *lines(own).values()])
    assert own.get_title().endswith("\nrate=0.2")


def test_where_no_share_differs_it_is_drawn_against_what_was_swept(leave):
    results = read_results(leave("a", shares=(0.5,), model="cnn")) + read_results(
        leave("b", shares=(0.5,), model="linear", better=0.05)
    )
    (axis,) = sweep_figure.draw(results, best(settings(results), "accuracy/worst", "auto"), "accuracy/worst").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["cnn", "linear"]


@pytest.fixture
def browse(tmp_path):
    """Opens a page in headless Chromium."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("needs Chromium on the PATH")

    def opened(path, *arguments):
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
        quiet += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000"]
        command = [binary, *quiet, f"--user-data-dir={tmp_path / 'browser'}", *arguments, f"file://{path}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    return opened


def test_the_page_is_whole_in_a_browser_and_its_table_sorts(reported, browse, tmp_path):
    directory, _ = reported
    text = (directory / "sweep.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#|\d/")([^"]*)"|url\((?!#)', text) == []  # nothing from elsewhere
    assert "<b>these</b>" not in text
    click = """<script>
      const head = [...document.querySelectorAll("th")].find(head => head.textContent === "accuracy/worst");
      head.firstChild.click(); head.firstChild.click();
      document.querySelector("td a[href='#job-3']").click();
      const shown = document.querySelector("#job-3 img");
      shown.decode().then(() => document.title = `${shown.naturalWidth} of ${document.images.length}`);
    </script>"""
    clicked = directory / "clicked.html"
    clicked.write_text(text.replace("</body>", f"{click}</body>"))
    dom = browse(clicked, "--dump-dom")
    jobs = [int(job) for job in re.findall(r'<td class="number" data-value="(\d+)"><a href="#job-', dom)]
    worst = {
        row["job"]: row["metrics"].get("accuracy/worst") for row in json.loads((directory / "sweep.json").read_bytes())
    }
    assert jobs == [*sorted((job for job in worst if worst[job] is not None), key=lambda job: -worst[job]), 2]
    assert 'aria-sort="descending"' in dom
    assert re.search(r'<details id="job-3" open="">', dom)
    assert "<title>6 of 1</title>" in dom  # pixels across, pictures
    assert dom.count("<svg") == 1
    screenshot = tmp_path / "page.png"
    browse(directory / "sweep.html", f"--screenshot={screenshot}", "--window-size=1200,900")
    pixels = imread(screenshot)
    assert pixels.shape[:2] == (900, 1200)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
