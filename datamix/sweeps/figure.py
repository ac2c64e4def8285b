"""The figure of a sweep: the metrics of each setting, and which setting is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datamix.report.console import percent
from datamix.report.figures import canvas, color_of
from datamix.sweeps.results import (
    Result,
    Setting,
    direction,
    number,
    readable,
    related,
    seed_groups,
    shown_value,
    stand_ins,
    swept,
    swept_value,
)
from datamix.sweeps.suggesting import Suggestion
from datamix.sweeps.table import cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRIC_COLOR = "#1a1a1a"
_MEASURED: Mapping[str, Any] = {"linestyle": "", "marker": "*", "markersize": 15}
_PREDICTED: Mapping[str, Any] = {"linestyle": "", "marker": "D", "markeredgecolor": "#ffffff"}
_MARKED: Mapping[str, Any] = {"linewidth": 1.5, "marker": "o", "markersize": 4}


def draw(
    results: Sequence[Result], chosen: Setting | None, metric: str, suggestion: Suggestion | str = ""
) -> Figure | None:
    """Draw the metrics of a sweep against the swept keys: the mean and a band of ± one deviation over the seeds.

    Args:
      results: The results of the jobs.
      chosen: The best setting, which is marked; the family of the metric is then drawn, such as the accuracy of each
        source. None if no job reports the metric.
      metric: The metric that the sweep is judged by.
      suggestion: The suggestion, which is drawn over the curve of two sources, and replaces it for more sources; or the
        reason why there is none.

    Returns:
      The figure; None if no job has anything to draw.
    """
    names = related(results, metric)
    groups = [group for group in seed_groups(results) if any(group.mean(name) is not None for name in names)]
    if not groups:
        return None
    family = [name for name in names if _family(name) == _family(names[0])] if chosen else names[:1]
    keys, shares = swept(results), _shares(groups)
    by_source = chosen is not None and any(f"{_family(metric)}/{source}" in names for source in shares)
    figure = canvas(11.5 if by_source else 7, 4.4)
    several_sources = isinstance(suggestion, Suggestion) and len(suggestion.names) > 2
    axes = figure.subplots(1, 2 if by_source else 1, squeeze=False, sharey=not several_sources)[0]
    if several_sources and isinstance(suggestion, Suggestion):
        _suggested(axes[0], suggestion)
    else:
        _against_swept(axes[0], keys, groups, chosen, family, metric, shares)
        if isinstance(suggestion, Suggestion) and shares:
            _curve(axes[0], suggestion, _source_on_axis(keys, shares))
    if by_source and chosen is not None:
        _against_source_share(axes[1], keys, groups, chosen, _family(metric), shares)
    if replaced := stand_ins(results):
        figure.suptitle(f"Built-in stand-ins, not real data: {', '.join(replaced)}", fontsize=10, color="#b00020")
    return figure


def _named(axis: Axes, metric: str, share: str = "share") -> None:
    """Format the axes of shares and of a metric in the units of tables, and label the axis of the metric."""
    axis.set_ylabel(readable(metric))
    for shown, of_axis in ((share, axis.xaxis), (metric, axis.yaxis)):
        if (formatter := _percent(shown)) is not None:
            of_axis.set_major_formatter(formatter)


def _percent(metric: str) -> Any:
    """The formatter of ticks for shares and accuracies; None for other metrics."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, symbol=" %") if metric.startswith(("share", "accuracy")) else None


def _family(metric: str) -> str:
    return metric.partition("/")[0]


def _shares(groups: Sequence[Setting]) -> list[str]:
    """The sources that all settings mix, if their shares differ between settings; otherwise none."""
    targets = [{name: source["target"] for name, source in group.first.sources.items()} for group in groups]
    common = [name for name in targets[0] if all(name in shares for shares in targets)]
    return common if len({tuple(shares[name] for name in common) for shares in targets}) > 1 else []


def _against_swept(
    axis: Axes,
    keys: Sequence[str],
    groups: Sequence[Setting],
    chosen: Setting | None,
    family: Sequence[str],
    metric: str,
    shares: Sequence[str],
) -> None:
    x_key, places, label, ticks = _axis(groups, keys, shares)
    other_keys = [key for key in keys if key != x_key]
    lines: dict[str, list[Setting]] = {}
    for group in groups:
        lines.setdefault(_text(group, other_keys), []).append(group)
    several = len(lines) > 1 and all(len(line) > 1 for line in lines.values())
    if several:  # lines for the whole family would be too many to read
        for i, (text, line) in enumerate(lines.items()):
            _line(axis, line, places, family[0], color_of(i), text)
        _named(axis, family[0], label)
    else:
        # A broad line under the others: the metric of the worst source coincides with that of one source at each point.
        broad = {"linewidth": 7, "alpha": 0.25, "marker": ""}
        _line(axis, groups, places, family[0], _METRIC_COLOR, readable(family[0]), band=len(family) == 1, **broad)
        sources = list(groups[0].first.sources)
        for name in family[1:]:
            source = name.partition("/")[2]  # the mean is no source, and has a grey dashed line
            color, style = (color_of(sources.index(source)), "-") if source in sources else ("#555555", "--")
            _line(axis, groups, places, name, color, readable(name), linestyle=style)
        _named(axis, family[0] if len(family) == 1 else _family(metric), label)
    if chosen is not None and (best := _same(groups, chosen)) is not None:
        axis.axvline(places[id(best)], color=_METRIC_COLOR, linewidth=1, linestyle=":")
        _star(axis, best, places, metric, _METRIC_COLOR, "best measured")
        axis.set_title(f"{readable(metric)}, best: {cell(best, metric)}", fontsize=10)
    axis.set_xlabel(label)
    if ticks:
        rotation = 20 if len("".join(ticks)) > 50 else 0
        axis.set_xticks(range(len(ticks)), ticks, rotation=rotation, ha="center", fontsize=8)
    axis.grid(alpha=0.25)
    _legend(axis)


def _legend(axis: Axes) -> None:
    """Draw the legend below the axis and its labels, where it hides no point."""
    from matplotlib.transforms import ScaledTranslation

    turned = max((len(label.get_text()) for label in axis.get_xticklabels() if label.get_rotation()), default=0)
    below = ScaledTranslation(0, -(36 + 1.8 * turned) / 72, axis.figure.dpi_scale_trans)
    longest = max(map(len, axis.get_legend_handles_labels()[1]), default=0)
    columns = min(3, 1 + 60 // (longest + 6))
    place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": axis.transAxes + below}
    axis.legend(fontsize=8, ncols=columns, frameon=False, borderaxespad=0, **place)


def _text(group: Setting, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={shown_value(group.first, key)}" for key in keys)


def _same(groups: Sequence[Setting], chosen: Setting) -> Setting | None:
    return next((group for group in groups if group.results == chosen.results), None)


def _axis(
    groups: Sequence[Setting], keys: Sequence[str], shares: Sequence[str]
) -> tuple[str | None, dict[int, float], str, list[str]]:
    """The key along the axis, the place of each setting on it, its label, and its ticks if the values are texts."""
    if shares:
        source = _source_on_axis(keys, shares)
        key = next((key for key in keys if key.startswith("mix.")), None)
        return key, {id(group): group.first.sources[source]["target"] for group in groups}, f"share of {source}", []
    for key in keys:
        if key == "sweep":
            continue
        try:
            return key, {id(group): float(swept_value(group.first, key)) for group in groups}, key, []
        except ValueError:
            continue
    key = next((key for key in keys if key != "sweep"), keys[0] if keys else None)
    texts = {id(group): shown_value(group.first, key) if key else "" for group in groups}
    ticks = list(dict.fromkeys(texts.values()))
    return key, {group: float(ticks.index(text)) for group, text in texts.items()}, key or "", ticks


def _source_on_axis(keys: Sequence[str], shares: Sequence[str]) -> str:
    source = next((key.rpartition(".")[2] for key in keys if key.startswith("mix.")), shares[0])
    return source if source in shares else shares[0]


def _line(
    axis: Axes,
    groups: Sequence[Setting],
    places: Mapping[int, float],
    metric: str,
    color: str,
    label: str,
    *,
    band: bool = True,
    **style: Any,
) -> None:
    means = [(group, mean) for group in groups if (mean := group.mean(metric)) is not None]
    if not means:
        return
    points = sorted((places[id(group)], mean, group.deviation(metric)) for group, mean in means)
    x, y, spread = zip(*points, strict=True)
    axis.plot(x, y, color=color, label=label, **{**_MARKED, **style})
    if band and any(spread):
        low, high = ([mean + sign * one for mean, one in zip(y, spread, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _star(
    axis: Axes, group: Setting | None, places: Mapping[int, float], metric: str, color: str, label: str = ""
) -> None:
    if group is not None and (mean := group.mean(metric)) is not None:
        axis.plot([places[id(group)]], [mean], color=color, zorder=5, label=label or None, **_MEASURED)


def _against_source_share(
    axis: Axes, keys: Sequence[str], groups: Sequence[Setting], chosen: Setting, family: str, shares: Sequence[str]
) -> None:
    other_keys = [key for key in keys if not key.startswith("mix.")]
    fixed = _text(chosen, other_keys)
    groups = [group for group in groups if _text(group, other_keys) == fixed]
    ratios = np.array([[group.first.sources[source]["target"] for source in shares] for group in groups])
    # If several shares vary freely, a line from job to job would show changes that the other shares cause.
    along_a_line = len(ratios) < 3 or np.linalg.matrix_rank(ratios[1:] - ratios[0], 1e-3) < 2
    style = {} if along_a_line else {"linestyle": "", "alpha": 0.8}
    for i, source in enumerate(shares):
        places = {id(group): group.first.sources[source]["target"] for group in groups}
        _line(axis, groups, places, f"{family}/{source}", color_of(i), source, band=along_a_line, **style)
        _star(axis, _same(groups, chosen), places, f"{family}/{source}", color_of(i))
    axis.plot([], [], color="gray", label="best measured", **_MEASURED)
    axis.set(xlabel="its share of the mix")
    _named(axis, f"{family}/a source")
    head = "each source against its own share"
    axis.set_title(f"{head}\n{fixed}" if fixed else head, fontsize=10)
    axis.grid(alpha=0.25)
    _legend(axis)


def draw_suggestion(suggestion: Suggestion) -> Figure:
    """Draw a suggestion: a curve for two sources, a ternary map for three, or a curve per source for more."""
    figure = canvas(7, 4.4)
    axis = figure.subplots()
    if len(suggestion.names) == 2:
        axis.plot(suggestion.shares[:, 0], suggestion.values, "o", markersize=4, color=color_of(0), label="jobs")
        _curve(axis, suggestion, suggestion.names[0])
        axis.set(xlabel=f"share of {suggestion.names[0]}")
        _named(axis, suggestion.goal.metric)
        axis.grid(alpha=0.25)
    else:
        _suggested(axis, suggestion)
    return figure


def _title(suggestion: Suggestion) -> str:
    metric = suggestion.goal.metric
    value = number(suggestion.answer.predicted, metric)
    return f"{readable(metric)}, predicted best: {value}, {direction(metric, suggestion.goal.kind)}"


def _curve(axis: Axes, suggestion: Suggestion, source: str) -> None:
    """Draw the fitted mean, its band and the best share with its interval, over the share of one of two sources."""
    answer, names = suggestion.answer, list(suggestion.names)
    place = names.index(source.partition(".")[0])
    tried_shares = suggestion.shares[:, place]
    shares = np.linspace(tried_shares.min(), tried_shares.max(), 201)
    ratios = np.stack([shares, 1 - shares], 1)[:, :: -1 if place else 1]
    mean, low, high = answer.goal(ratios)
    # The limits do not include the band, which may be broad where few ratios were tried.
    least, most = axis.get_ylim()
    limits = min(least, 1.02 * mean.min() - 0.02 * most), max(most, 1.02 * mean.max() - 0.02 * least)
    fitted = f"fitted {readable(suggestion.goal.metric)}"
    axis.plot(shares, mean, color=_METRIC_COLOR, linewidth=1.5, linestyle="-.", label=fitted)
    axis.fill_between(shares, low, high, color=_METRIC_COLOR, alpha=0.12, linewidth=0)
    axis.axvspan(*answer.interval[place], color="#ffd34d", alpha=0.35, linewidth=0, label="best share, 90 % interval")
    axis.axvline(answer.best[place], color="#b8860b", linewidth=1.2)
    axis.set_ylim(limits)
    before = axis.get_title()
    title = f"{before}\n{_title(suggestion)}" if before else f"{_title(suggestion)} ({answer.verdict})"
    axis.set_title(title, fontsize=10)
    _legend(axis)


def _suggested(axis: Axes, suggestion: Suggestion) -> None:
    if len(suggestion.names) == 3:
        _ternary(axis, suggestion)
    else:
        _dependence(axis, suggestion)
    axis.set_title(f"{_title(suggestion)} ({suggestion.answer.verdict})", fontsize=10)


_HEIGHT = 3**0.5 / 2


def _ternary(axis: Axes, suggestion: Suggestion) -> None:
    """Draw the prediction over the tried part of the simplex of three sources, the jobs, and the region of the best."""
    answer = suggestion.answer
    steps = np.linspace(0, 1, 61)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b < 1 + 1e-9]).clip(0)
    low, high = suggestion.shares.min(0) - 0.02, suggestion.shares.max(0) + 0.02
    grid = grid[((grid >= low) & (grid <= high)).all(1)]
    corners = np.array([(0.0, 0.0), (1.0, 0.0), (0.5, _HEIGHT)])
    axis.plot(*corners[[0, 1, 2, 0]].T, color="#9c9c9c", linewidth=1)
    if len(grid) > 3 and np.linalg.matrix_rank(suggestion.shares[1:] - suggestion.shares[0], 1e-6) == 2:
        predicted = answer.goal(grid)[0]
        ends = np.quantile(predicted, (0.3, 1) if suggestion.goal.kind == "max" else (0, 0.7))
        levels = np.linspace(ends[0], max(ends[1], ends[0] + 1e-9), 15)
        colors = "viridis" if suggestion.goal.kind == "max" else "viridis_r"
        x, y = (grid @ corners).T
        filled = axis.tricontourf(x, y, predicted, levels=levels, cmap=colors, extend="both")
        filled.set_edgecolor("face")  # without edges, the SVG shows gaps between the bands
        bar = axis.figure.colorbar(filled, ax=axis, shrink=0.8, format=_percent(suggestion.goal.metric))
        bar.set_label(f"predicted {readable(suggestion.goal.metric)}")
        outside = np.maximum(answer.interval[:, 0] - grid, grid - answer.interval[:, 1]).max(1)
        if outside.min() < 0 < outside.max():
            axis.tricontour(x, y, outside, levels=[0.0], colors="#1a1a1a", linestyles="--")
    axis.plot(
        *(suggestion.shares @ corners).T, "o", markersize=4, color="#ffffff", markeredgecolor="#1a1a1a", label="jobs"
    )
    axis.plot(*(answer.best @ corners), label="predicted best", markersize=9, color="#ff5a36", **_PREDICTED)
    axis.plot(*(answer.next @ corners).T, "x", color="#ff5a36", label="next")
    for name, (x, y) in zip(suggestion.names, corners, strict=True):
        axis.annotate(f"{name} 100 %", (x, y), (0, 6 if y else -14), textcoords="offset points", ha="center")
    for share in (0.2, 0.4, 0.6, 0.8):  # lines of equal share of each source
        for i in range(3):
            ends = np.roll([[share, 1 - share, 0], [share, 0, 1 - share]], i, axis=1) @ corners
            axis.plot(*ends.T, color="#9c9c9c", linewidth=0.5, alpha=0.7, zorder=1.5)
    axis.set(xlim=(-0.08, 1.08), ylim=(-0.1, _HEIGHT + 0.1), aspect="equal")
    axis.axis("off")
    axis.legend(fontsize=8, loc="upper left")


def _dependence(axis: Axes, suggestion: Suggestion) -> None:
    """Draw the prediction over the share of each source; the others divide the rest as in the best ratio."""
    answer = suggestion.answer
    ranges = zip(suggestion.shares.min(0), suggestion.shares.max(0), strict=True)
    for i, (name, (low, high)) in enumerate(zip(suggestion.names, ranges, strict=True)):
        other_shares = np.where(np.arange(len(answer.best)) == i, 0, answer.best + 1e-9)
        shares = np.linspace(low, high, 101)
        ratios = (1 - shares)[:, None] * other_shares / other_shares.sum()
        ratios[:, i] = shares
        best, (least, most) = answer.best[i], answer.interval[i]
        label = f"{name}: {percent(best)} ({percent(least)} to {percent(most)})"
        axis.plot(shares, answer.goal(ratios)[0], color=color_of(i), linewidth=1.5, label=label)
        axis.plot([best], [answer.predicted], markersize=8, color=color_of(i), **_PREDICTED)
    axis.plot([], [], color="gray", markersize=8, label="predicted best", **_PREDICTED)
    axis.set(xlabel="share of a source; the others divide the rest as in the best ratio")
    _named(axis, suggestion.goal.metric)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
