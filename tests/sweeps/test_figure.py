"""A sweep's figure."""

from __future__ import annotations

import numpy as np

from datamix.sweeps import figure as sweep_figure
from datamix.sweeps.results import best, read_results, settings


def lines(axis):
    """The curves of an axis by their names."""
    return {line.get_label(): line.get_xydata() for line in axis.lines if not line.get_label().startswith("_")}


def test_the_figure_shows_means_over_the_seeds_against_the_shares(leave):
    results = read_results(leave(provenance="stand-in"))
    groups = settings(results)
    figure = sweep_figure.draw(results, best(groups, "accuracy/worst", "auto"), "accuracy/worst")
    swept, by_source = figure.axes
    assert set(lines(swept)) == {"accuracy/worst", "accuracy/mnist", "accuracy/fashion", "accuracy/mean"}
    for name, points in lines(swept).items():
        np.testing.assert_allclose(points[:, 0], [0.1, 0.3, 0.9])
        np.testing.assert_allclose(points[:, 1], [group.mean(name) for group in groups])
    np.testing.assert_allclose(lines(by_source)["fashion"][:, 0], [0.1, 0.7, 0.9])
    assert len(swept.collections) == 3  # a band each, but for the worst, which is one of them
    (star,) = (line for line in swept.lines if line.get_marker() == "*")
    np.testing.assert_allclose(star.get_xydata(), [(0.3, groups[1].mean("accuracy/worst"))])
    assert figure.get_suptitle() == "Built-in stand-ins, not real data: mnist"


def test_another_axis_beside_the_share_gives_a_line_a_value(leave):
    results = read_results(leave("a", rate=0.1)) + read_results(leave("b", rate=0.2, better=0.05))
    chosen = best(settings(results), "accuracy/worst", "auto")
    swept, by_source = sweep_figure.draw(results, chosen, "accuracy/worst").axes
    assert set(lines(swept)) == {"rate=0.1", "rate=0.2"}
    assert all(len(points) == 3 for points in [*lines(swept).values(), *lines(by_source).values()])
    assert by_source.get_title().endswith("\nrate=0.2")


def test_where_no_share_differs_it_is_drawn_against_what_was_swept(leave):
    results = read_results(leave("a", shares=(0.5,), model="cnn")) + read_results(
        leave("b", shares=(0.5,), model="linear", better=0.05)
    )
    (axis,) = sweep_figure.draw(results, best(settings(results), "accuracy/worst", "auto"), "accuracy/worst").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["cnn", "linear"]


def test_a_sweep_whose_jobs_have_all_failed_has_no_figure(leave):
    results = read_results(leave(failing=range(6)))
    assert sweep_figure.draw(results, None, "accuracy/worst") is None
