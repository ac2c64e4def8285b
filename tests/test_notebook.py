"""What notebooks show of a plan and a pipeline."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

import datamix


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
