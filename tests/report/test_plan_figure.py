"""The plan of a mix as a figure."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

import datamix
from datamix.errors import ConfigError


def test_a_plan_is_titled_by_its_shares_and_rules() -> None:
    schedule = [{"until": 5, "ratio": "3:1"}, {"ratio": "1:1"}]
    plan = datamix.Plan({"a": 300, "b": 300}, schedule=schedule, stop={"rule": "forever"}, batch_size=10)
    figure = datamix.plot(plan)
    assert figure.get_suptitle() == "a 75.0 % → 50.0 % + b 25.0 % → 50.0 %\nproportional, forever, batches of 10"
    shares, epochs = figure.axes
    assert [line.get_label() for line in shares.lines][:2] == ["a", "b"]
    colors = [[line.get_color() for line in axis.lines][:2] for axis in (shares, epochs)]
    assert colors[0] == colors[1]
    assert np.asarray(imread(io.BytesIO(figure._repr_png_())))[..., :3].std() > 0.05  # as a notebook shows it


def test_many_sources_are_not_all_named_in_the_title() -> None:
    plan = datamix.Plan({f"s{i}": 40 for i in range(9)}, batch_size=9)
    title = datamix.plot(plan).get_suptitle()
    assert "s3" in title
    assert "…" in title
    assert "s4" not in title


def test_a_plan_is_drawn_and_no_pipeline() -> None:
    pipeline = datamix.mix({"a": {"label": np.arange(8)}}, batch_size=4)
    with pytest.raises(ConfigError, match=r"^plan = <Pipeline of .*>; it is a plan, such as pipeline\.plan\.$"):
        datamix.plot(pipeline)  # type: ignore[arg-type]
