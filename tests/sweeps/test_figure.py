"""A sweep's figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamix.sweeps import figure as sweep_figure
from datamix.sweeps.results import Result, best, read_results, readable, seed_groups
from datamix.sweeps.simplex import PARTS, Simplex, draw
from datamix.sweeps.suggesting import suggest, weighted


def lines(axis):
    """The curves of an axis by their names."""
    return {line.get_label(): line.get_xydata() for line in axis.lines if not line.get_label().startswith("_")}


def test_the_figure_shows_means_over_the_seeds_against_the_shares(leave):
    results = read_results(leave(provenance="stand-in"))
    groups = seed_groups(results)
    figure = sweep_figure.draw(results, best(groups, "accuracy/worst", "auto"), "accuracy/worst")
    swept, by_source = figure.axes
    names = {readable(f"accuracy/{of}"): f"accuracy/{of}" for of in ("worst", "mnist", "fashion", "mean")}
    assert set(lines(swept)) == {*names, "best measured"}
    assert swept.yaxis.get_major_formatter()(0.5).endswith(" %")  # the unit of tables
    for text, name in names.items():
        points = lines(swept)[text]
        np.testing.assert_allclose(points[:, 0], [0.1, 0.3, 0.9])
        np.testing.assert_allclose(points[:, 1], [group.mean(name) for group in groups])
    np.testing.assert_allclose(lines(by_source)["fashion"][:, 0], [0.1, 0.7, 0.9])
    assert len(swept.collections) == 3  # a band each, but for the worst, which is one of them
    (star,) = (line for line in swept.lines if line.get_marker() == "*")
    np.testing.assert_allclose(star.get_xydata(), [(0.3, groups[1].mean("accuracy/worst"))])
    assert star.get_label() == "best measured"
    assert figure.get_suptitle() == "Built-in stand-ins, not real data: mnist"
    figure.draw_without_rendering()
    for axis in figure.axes:  # no legend hides a point, nor the names below
        assert axis.get_legend().get_window_extent().y1 < axis.xaxis.label.get_window_extent().y0


def test_another_axis_beside_the_share_gives_a_line_a_value(leave):
    results = read_results(leave("a", rate=0.1)) + read_results(leave("b", rate=0.2, better=0.05))
    chosen = best(seed_groups(results), "accuracy/worst", "auto")
    swept, by_source = sweep_figure.draw(results, chosen, "accuracy/worst").axes
    curves = {**lines(swept), **lines(by_source)}
    del curves["best measured"]
    assert set(lines(swept)) == {"rate=0.1", "rate=0.2", "best measured"}
    assert all(len(points) == 3 for points in curves.values())
    assert by_source.get_title().endswith("\nrate=0.2")


def test_where_no_share_differs_it_is_drawn_against_what_was_swept(leave):
    results = read_results(leave("a", shares=(0.5,), model="cnn")) + read_results(
        leave("b", shares=(0.5,), model="linear", better=0.05)
    )
    (axis,) = sweep_figure.draw(results, best(seed_groups(results), "accuracy/worst", "auto"), "accuracy/worst").axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["cnn", "linear"]
    names = [f"model_of_a_long_name_{i}_that_needs_room" for i in range(3)]
    several = [read_results(leave(name, shares=(0.5,), model=name, better=i / 100)) for i, name in enumerate(names)]
    results = [result for each in several for result in each]
    figure = sweep_figure.draw(results, best(seed_groups(results), "accuracy/worst", "auto"), "accuracy/worst")
    figure.draw_without_rendering()
    (axis,) = figure.axes
    assert axis.get_legend().get_window_extent().y1 < axis.xaxis.label.get_window_extent().y0


def test_a_sweep_whose_jobs_have_all_failed_has_no_figure(leave):
    results = read_results(leave(failing=range(6)))
    assert sweep_figure.draw(results, None, "accuracy/worst") is None


def test_a_suggestion_is_a_curve_with_its_band_and_the_interval_of_the_best_share(leave):
    results = read_results(leave(shares=(0.1, 0.2, 0.3, 0.5, 0.9)))
    suggestion = suggest(*weighted(results, "accuracy/worst", "auto", {}), 3)
    chosen = best(seed_groups(results), "accuracy/worst", "auto")
    swept, _ = sweep_figure.draw(results, chosen, "accuracy/worst", suggestion).axes
    curve = lines(swept)["fitted worst source's accuracy"]
    assert (curve[0, 0], curve[-1, 0]) == (0.1, 0.9)
    assert curve[curve[:, 1].argmax(), 0] == pytest.approx(suggestion.json()["best"]["mnist"], abs=0.01)
    (axis,) = sweep_figure.draw_suggestion(suggestion).axes
    assert f"({suggestion.answer.verdict})" in axis.get_title()
    assert len(lines(axis)["jobs"]) == 10
    assert axis.get_ylim()[1] > lines(axis)["fitted worst source's accuracy"][:, 1].max()  # the best is in sight


@pytest.mark.parametrize(("names", "drawn"), [("abc", "ternary"), ("abcd", "dependence")])
def test_more_sources_are_a_ternary_map_or_a_curve_for_each(names, drawn):
    points = np.array(draw(Simplex(num_jobs=10, min=0.05), list(names), dict.fromkeys(names, PARTS))) / PARTS
    results = []
    for job, shares in enumerate(points):
        metrics = {
            f"accuracy/{name}": 0.9 - 0.5 * np.exp(-9 * share) for name, share in zip(names, shares, strict=True)
        }
        sources = {name: {"target": share, "provenance": "tfds"} for name, share in zip(names, shares, strict=True)}
        results.append(
            Result(
                sweep="",
                job=job,
                directory=Path(str(job)),
                overrides={},
                status="done",
                error=None,
                kind=None,
                metrics={**metrics, "accuracy/worst": min(metrics.values())},
                config={"seed": 0, "mix": {"share": dict(zip(names, shares.tolist(), strict=True))}},
                sources=sources,
                seconds=1.0,
            )
        )
    suggestion = suggest(*weighted(results, "accuracy/worst", "auto", {}), 3)
    answer = suggestion.answer
    axis, *bars = sweep_figure.draw_suggestion(suggestion).axes
    if drawn == "ternary":
        assert bars[0].yaxis.get_major_formatter()(0.5).endswith(" %")
        assert {f"{name} 100 %" for name in names} <= {text.get_text() for text in axis.texts}
        assert_allclose = np.testing.assert_allclose
        height = answer.best[2] * 3**0.5 / 2
        assert_allclose(lines(axis)["predicted best"], [(answer.best[1] + answer.best[2] / 2, height)])
        chosen = best(seed_groups(results), "accuracy/worst", "auto")
        predicted, measured, _ = sweep_figure.draw(results, chosen, "accuracy/worst", suggestion).axes
        markers = [
            {line.get_marker() for line in each.lines if line.get_label() == label}
            for each, label in ((predicted, "predicted best"), (measured, "best measured"))
        ]
        assert markers == [{"D"}, {"*"}]
        return
    curves = lines(axis)
    assert len(curves.pop("predicted best")) == 0  # in the legend alone: each curve has its own
    assert [text.partition(":")[0] for text in curves] == list(names)
    for i, curve in enumerate(curves.values()):
        at_best = np.interp(suggestion.answer.best[i], *curve.T)
        assert at_best == pytest.approx(suggestion.answer.predicted, abs=0.02)  # every curve goes through the best


def test_sources_whose_shares_vary_freely_are_points_without_lines():
    def axis_of(shares):
        results = []
        for job, ratio in enumerate(shares):
            sources = {name: {"target": share, "provenance": "tfds"} for name, share in zip("abc", ratio, strict=True)}
            metrics = {"accuracy/worst": min(ratio)} | {f"accuracy/{name}": sources[name]["target"] for name in "abc"}
            results.append(
                Result(
                    job=job,
                    directory=Path(str(job)),
                    overrides={"mix.share.a": str(ratio[0])},
                    status="done",
                    error=None,
                    metrics=metrics,
                    config={"job": job},
                    sources=sources,
                )
            )
        chosen = best(seed_groups(results), "accuracy/worst", "auto")
        return sweep_figure.draw(results, chosen, "accuracy/worst").axes[1]

    def styles(axis):
        return {line.get_linestyle() for line in axis.lines if line.get_label() in "abc"}

    assert styles(axis_of([(0.2, 0.4, 0.4), (0.4, 0.3, 0.3), (0.6, 0.2, 0.2)])) == {"-"}
    assert styles(axis_of([(0.2, 0.4, 0.4), (0.4, 0.1, 0.5), (0.6, 0.3, 0.1)])) == {"None"}
