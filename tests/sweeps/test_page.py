"""A sweep's page, opened in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.image import imread

from datamix.sweeps.page import page


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
      const head = [...document.querySelectorAll("th")].find(head => head.textContent === "worst source's accuracy");
      head.firstChild.click(); head.firstChild.click();
      const means = [...document.querySelectorAll("th")].find(head => head.textContent.startsWith("mean accuracy"));
      means.firstChild.click();
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
    settings = dom.partition("<h2>Settings")[2].partition("<h2>Jobs")[0]
    means = [float(mean) for mean in re.findall(r">([\d.]+)(?: ± [\d.]+)?</td></tr>", settings)]
    assert len(means) == 3
    assert means == sorted(means)
    assert re.search(r'<tr class="best"><td[^>]*>★</td>.*>0.3<.*1 done, 1 failed', settings)
    assert re.search(r'<details id="job-3" open="">', dom)
    assert "<title>6 of 1</title>" in dom  # pixels across, pictures
    assert dom.count('<div class="figure"><svg') == 1
    filtered = directory / "filtered.html"
    type_in = """<script>
      const box = document.querySelector("#filter");
      box.value = "70.0 DONE"; box.dispatchEvent(new Event("input"));
      const shown = [...document.querySelectorAll("#jobs tbody tr")].filter(row => !row.hidden).length;
      const cut = [...document.querySelectorAll(".scroll")].some(part => part.scrollWidth > part.clientWidth);
      const line = document.createRange();
      const broken = [...document.querySelectorAll("#jobs td:not(:first-child, .error)")].some(cell => {
        line.selectNodeContents(cell);
        return line.getClientRects().length > 1;
      });
      document.title = `${shown} shown, ${cut ? "cut" : "whole"}, ${broken ? "broken" : "a line each"}`;
    </script>"""
    filtered.write_text(text.replace("</body>", f"{type_in}</body>"))
    assert "<title>1 shown, whole, a line each</title>" in browse(filtered, "--dump-dom", "--window-size=1200,900")
    screenshot = tmp_path / "page.png"
    browse(directory / "sweep.html", f"--screenshot={screenshot}", "--window-size=1200,900")
    pixels = imread(screenshot)
    assert pixels.shape[:2] == (900, 1200)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_a_job_without_figures_has_its_curves_drawn_when_it_is_opened(leave, gathered, browse):
    directory, name = leave(), "a</script>"
    tests = [{"step": step, "loss": 1.0, f"loss/{name}": 2.0, f"accuracy/{name}": step / 8} for step in (0, 4)]
    adapt = {"rule": "odm", "steps": [0, 2], "weights": {name: [1.0, 0.5]}, "shares": {name: [1.0, 0.75]}}
    curves = {"tests": tests, "losses": [[1, 3.0], [3, math.nan], [4, 1.5]], "unit": "nats", "family": "accuracy"}
    for job, more in (("0", {}), ("1", {"adapt": adapt})):
        report = {"sources": {name: {}}, "curves": curves} | more
        (directory / job / "report.json").write_text(json.dumps(report))
    (directory / "2" / "report.json").write_text("{")
    gathered(directory)
    click = """<script>
      for (const job of document.querySelectorAll("details")) job.open = true;
      setTimeout(() => { document.title = [...document.querySelectorAll("details")].map(job =>
        `${job.querySelectorAll("svg.curves").length}:${job.querySelectorAll("path[fill]").length}`).join(" ") }, 100);
    </script>"""
    opened = directory / "opened.html"
    opened.write_text((directory / "sweep.html").read_text().replace("</body>", f"{click}</body>"))
    dom = browse(opened, "--dump-dom")
    assert "<title>2:3 3:5 0:0 0:0 0:0 0:0</title>" in dom  # of each job, panels and lines
    assert "■ a&lt;/script&gt;" in dom
    assert "accuracy on the test split, %" in dom
    assert "weight by adapt=odm" in dom


def test_notes_sentences_and_commands_are_told_apart_and_escaped(tmp_path):
    answer = ["Best: <a> & b.", "To use it:", "datamix 'source=a+b'"]
    text = page([], None, answer, [], "", tmp_path, ["<i> is repeated"])
    assert '<p class="dim">Note: &lt;i&gt; is repeated</p>' in text
    assert '<p class="verdict">Best: &lt;a&gt; &amp; b.</p>\n<p>To use it:</p>' in text
    assert '<p class="command"><code>datamix &#x27;source=a+b&#x27;</code></p>' in text
    assert "Settings" not in text  # each job is one
