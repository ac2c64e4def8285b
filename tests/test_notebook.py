"""What notebooks show of a plan and a pipeline."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import datamix

MAKER = runpy.run_path(str(Path(__file__).resolve().parents[1] / "docs" / "notebook.py"))


def cells(html: str) -> list[list[str]]:
    """The rows of the tables in a piece of HTML, which is well-formed."""
    root = ElementTree.fromstring(f"<body>{html}</body>")
    return [[cell.text or "" for cell in row] for row in root.iter("tr")]


def test_a_plan_is_a_table_of_its_sources() -> None:
    plan = datamix.Plan(sizes={"a<b>": 1500, "c&d": 3}, weights={"a<b>": 3}, stop="forever")
    html = plan._repr_html_()
    assert cells(html) == [["source", "records", "share"], ["a<b>", "1,500", "75 %"], ["c&d", "3", "25 %"]]
    assert "without end" in html
    assert "4 records" in datamix.Plan(sizes={"a": 4})._repr_html_()


def test_a_pipeline_shows_its_leaves_too() -> None:
    html = datamix.mix({"a": {"x<y": np.zeros((6, 2), np.float32)}}, batch_size=4)._repr_html_()
    assert cells(html) == [
        ["source", "records", "share"], ["a", "6", "100 %"],
        ["leaf", "in a batch"], ["source_id", "int32 [4]"], ["x<y", "float32 [4, 2]"],
    ]  # fmt: skip


def stored() -> Any:
    return json.loads(MAKER["NOTEBOOK"].read_text(encoding="utf-8"))


def printed(notebook: Any) -> list[str]:
    """What the cells of a notebook print."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return ["".join(output["text"]) for output in outputs if "text" in output]


def test_the_notebook_of_the_tutorial_is_its_script() -> None:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in stored()["cells"]]
    assert cells == MAKER["cells_of"](MAKER["SCRIPT"])
    page = list(MAKER["page_of"](stored()))
    assert page[0].startswith("# Two datasets, one stream")
    assert sum(part.startswith("![What the cell draws](data:image/png;base64,") for part in page) == 1


@pytest.mark.slow
def test_the_notebook_prints_what_it_shows(
    environment: dict[str, str], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nbclient", reason="nbclient, of the extra dev, is not installed")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared_data / "tensorflow_datasets"))
    assert printed(MAKER["executed"](MAKER["SCRIPT"], tmp_path)) == printed(stored())
