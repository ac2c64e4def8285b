"""A sweep's page, opened in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.image import imread


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
    filtered = directory / "filtered.html"
    type_in = """<script>
      const box = document.querySelector("#filter");
      box.value = "0.3 DONE"; box.dispatchEvent(new Event("input"));
      const shown = [...document.querySelectorAll("#jobs tbody tr")].filter(row => !row.hidden).length;
      const cut = document.querySelector(".scroll").scrollWidth > innerWidth;
      document.title = `${shown} shown, ${cut ? "cut" : "whole"}`;
    </script>"""
    filtered.write_text(text.replace("</body>", f"{type_in}</body>"))
    assert "<title>1 shown, whole</title>" in browse(filtered, "--dump-dom", "--window-size=1200,900")
    screenshot = tmp_path / "page.png"
    browse(directory / "sweep.html", f"--screenshot={screenshot}", "--window-size=1200,900")
    pixels = imread(screenshot)
    assert pixels.shape[:2] == (900, 1200)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
