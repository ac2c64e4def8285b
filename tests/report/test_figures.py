"""Figures of jobs, drawn without a display."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from datamix.report import figures


def test_images_are_a_grid_a_row_a_source(tmp_path):
    gray, colour = np.full((4, 4, 1), 0.25, np.float32), np.zeros((4, 4, 3), np.float32) + np.eye(3)[0]
    rows = {"gray": [(gray, "0"), (gray, "1\nname")], "colour": [(colour, "2")]}
    figures.images(tmp_path / "samples.png", rows, "Samples")
    pixels = imread(tmp_path / "samples.png")[..., :3]
    red = (pixels == [1, 0, 0]).all(axis=2)
    dark = (np.abs(pixels - 0.25) < 0.01).all(axis=2)
    assert 1.8 < dark.sum() / red.sum() < 2.2  # two gray pictures, one red
    # In rows one below the other; letters have a few pixels of that gray too.
    assert np.flatnonzero(dark.sum(axis=1) > 50).max() < np.flatnonzero(red.any(axis=1)).min()
    wider = {"gray": [(gray, "")] * 6}
    figures.images(tmp_path / "wider.png", wider, "Samples")
    assert imread(tmp_path / "wider.png").shape[1] > pixels.shape[1]


def test_images_are_framed_in_the_colour_of_their_source(tmp_path):
    gray = np.full((2, 2, 1), 0.25)
    figures.images(tmp_path / "framed.png", {"as it comes": [(gray, "a", 0), (gray, "b", 1)]}, "Samples")
    pixels = np.round(255 * imread(tmp_path / "framed.png")[..., :3]).astype(int)
    for i in range(2):
        color = [int(figures.color_of(i)[j : j + 2], 16) for j in (1, 3, 5)]
        assert (pixels == color).all(axis=2).sum() > 100


def test_lines_that_lie_on_one_another_are_of_different_widths():
    widths = [figures.width_of(i, 4) for i in range(4)]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 4
    assert figures.width_of(0, 1) > 1


def test_a_plan_is_drawn_over_its_steps(tmp_path):
    steps = np.arange(5) * 10
    shares = np.asarray([[0.75, 0.25]] * 4)
    epochs = np.cumsum(np.full((5, 2), 0.5), axis=0)
    figures.plan(tmp_path / "plan.png", ["a", "b"], steps, shares, shares, epochs, "A plan")
    figures.plan(tmp_path / "other.png", ["a", "b"], steps, shares, shares[:, ::-1], epochs, "A plan")
    pixels, other = (imread(tmp_path / name)[..., :3] for name in ("plan.png", "other.png"))
    assert pixels.shape == (660, 990, 3)
    assert (pixels != other).any()


def test_parts_of_the_time_are_one_bar(tmp_path):
    figures.parts_of_time(tmp_path / "bench.png", {"plan": 10.0, "gather": 0.0, "operators": 30.0}, "1 sample/s")
    pixels = imread(tmp_path / "bench.png")[..., :3]
    colours = np.asarray([(31, 119, 180), (44, 160, 44)]) / 255  # of the first and the third stage
    blue, green = ((np.abs(pixels - colour) < 0.01).all(axis=2).sum() for colour in colours)
    assert 2.5 < green / blue < 3.1  # beside the bar, each has a square in the legend


def test_a_source_has_one_colour_everywhere():
    assert len({figures.color_of(i) for i in range(8)}) == 8
    assert figures.color_of(9) == figures.color_of(1)


@pytest.mark.parametrize(("largest", "width"), [(1, 1), (29, 1), (30, 2), (44, 2), (255, 9)])
def test_bins_of_whole_numbers_hold_equally_many_of_them(largest, width):
    values = np.repeat(np.arange(largest + 1), 3)
    figure = figures.histograms(None, {"x": {"a": np.append(values, np.nan)}}, ["a"], "Values")
    heights, edges, _ = figure.axes[0].patches[0].get_data()
    assert np.unique(np.diff(edges)).tolist() == [width]
    assert edges[0] == -0.5
    assert np.allclose(heights[:-1], width * 3 / (len(values) + 1))  # of all records, those without a number too


def test_histograms_of_sources_lie_over_one_another(tmp_path):
    values = {"x": {"a": np.zeros(50), "b": np.ones(50)}, "y": {"b": np.array([1, np.nan, np.inf, 2])}}
    figures.histograms(tmp_path / "both.png", values, ["a", "b"], "Values")
    figures.histograms(tmp_path / "one.png", {"x": {"a": np.zeros(50)}}, ["a", "b"], "Values")
    figures.histograms(tmp_path / "none.png", {"x": {"a": np.full(3, np.nan)}}, ["a"], "Values")

    def has(name: str, source: int) -> bool:
        colour = [int(figures.color_of(source)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return bool((np.abs(imread(tmp_path / name)[..., :3] - colour) < 0.01).all(axis=2).any())

    assert [has("both.png", 0), has("both.png", 1)] == [True, True]
    assert [has("one.png", 0), has("one.png", 1)] == [True, False]
    assert (tmp_path / "none.png").exists()


def test_a_figure_is_laid_out_again_each_time_it_is_saved(tmp_path):
    figure = figures.canvas(4, 3)
    axis = figure.subplots()
    layout = figure.get_layout_engine()
    figures.save(figure, tmp_path / "short.png")
    narrow = axis.get_position().x0
    axis.set_ylabel("a label\nof several\nlines")
    figures.save(figure, tmp_path / "long.png")
    assert figure.get_layout_engine() is layout
    assert axis.get_position().x0 > narrow


def test_a_plan_leaves_room_for_the_names_of_its_sources(tmp_path):
    steps, shares, epochs = np.arange(3), np.full((2, 2), 0.5), np.zeros((3, 2))
    drawn = [figures.plan(None, [name, "b"], steps, shares, shares, epochs, "") for name in ("a", "a" * 40)]
    short, long = (figure.axes[0].get_position().x1 for figure in drawn)
    assert 0.3 < long < short < 1
    for figure in drawn:
        assert figure.axes[0].get_legend().get_window_extent().x1 <= figure.bbox.width


def test_figures_are_drawn_without_the_documentation_of_matplotlib():
    code = """if True:
        from datamix.report import figures
        figures.documented = False
        figure = figures.canvas(4, 3)
        figure.subplots().set(xlabel="x")
        figures.save(figure, None)
        from matplotlib.artist import kwdoc
        from matplotlib.lines import Line2D
        assert "markersize" in kwdoc(Line2D)
        assert "markersize" not in Line2D.set.__doc__
    """
    subprocess.run([sys.executable, "-c", code], check=True)
