"""A sweep's figure: what each setting reaches, and which is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datamix.report.figures import canvas, color_of
from datamix.sweeps.results import Result, Setting, related, settings, shown_value, stand_ins, swept, swept_value
from datamix.sweeps.table import cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRIC_COLOR = "#1a1a1a"


def draw(results: Sequence[Result], chosen: Setting | None, metric: str) -> Figure | None:
    """Draw the metrics of a sweep against what was swept, mean and band (± one deviation) over the seeds.

    The best setting, `chosen`, is marked, and the family of the metric is drawn with it, such as the accuracy of each
    source. None where no job has anything to draw.
    """
    names = related(results, metric)
    groups = [group for group in settings(results) if any(group.mean(name) is not None for name in names)]
    if not groups:
        return None
    family = [name for name in names if name.partition("/")[0] == names[0].partition("/")[0]] if chosen else names[:1]
    shares = _shares(groups)
    by_source = chosen is not None and bool(shares) and any(f"{_family(metric)}/{source}" in names for source in shares)
    figure = canvas(11.5 if by_source else 7, 4.4)
    axes = figure.subplots(1, 2 if by_source else 1, squeeze=False, sharey=True)[0]
    _against_swept(axes[0], results, groups, chosen, family, metric, shares)
    if by_source and chosen is not None:
        _against_source_share(axes[1], results, groups, chosen, metric, shares)
    replaced = stand_ins(results)
    if replaced:
        figure.suptitle(f"Built-in stand-ins, not real data: {', '.join(replaced)}", fontsize=10, color="#b00020")
    return figure


def _family(metric: str) -> str:
    return metric.partition("/")[0]


def _shares(groups: Sequence[Setting]) -> list[str]:
    """The sources that all settings mix, if their shares differ."""
    targets = [{name: source["target"] for name, source in group.first.sources.items()} for group in groups]
    common = [name for name in targets[0] if all(name in shares for shares in targets)]
    return common if len({tuple(shares[name] for name in common) for shares in targets}) > 1 else []


def _against_swept(
    axis: Axes,
    results: Sequence[Result],
    groups: Sequence[Setting],
    chosen: Setting | None,
    family: Sequence[str],
    metric: str,
    shares: Sequence[str],
) -> None:
    keys = swept(results)
    x_key, places, label, ticks = _axis(groups, keys, shares)
    others = [key for key in keys if key != x_key]
    lines: dict[str, list[Setting]] = {}
    for group in groups:
        lines.setdefault(_text(group, others), []).append(group)
    several = len(lines) > 1 and all(len(line) > 1 for line in lines.values())
    if several:  # a line each would be too many to read: the metric that decides
        for i, (text, line) in enumerate(lines.items()):
            _line(axis, line, places, family[0], color_of(i), text)
        axis.set_ylabel(family[0])
    else:
        # The metric that decides lies under the others, as a broad line: the worst source's hides none of them.
        _line(axis, groups, places, family[0], _METRIC_COLOR, family[0], broad=True, band=len(family) == 1)
        for i, name in enumerate(family[1:]):
            _line(axis, groups, places, name, color_of(i), name, dashed=name.endswith("/mean"))
        axis.set_ylabel(family[0] if len(family) == 1 else _family(metric))
    if chosen is not None and (best := _same(groups, chosen)) is not None:
        axis.axvline(places[id(best)], color=_METRIC_COLOR, linewidth=1, linestyle=":")
        _star(axis, best, places, metric, _METRIC_COLOR)
        axis.set_title(f"best {metric}: {cell(best, metric)}", fontsize=10)
    axis.set_xlabel(label)
    if ticks:
        axis.set_xticks(
            range(len(ticks)), ticks, rotation=20 if len("".join(ticks)) > 50 else 0, ha="center", fontsize=8
        )
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)


def _text(group: Setting, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={shown_value(group.first, key)}" for key in keys)


def _same(groups: Sequence[Setting], chosen: Setting) -> Setting | None:
    return next((group for group in groups if group.results == chosen.results), None)


def _axis(
    groups: Sequence[Setting], keys: Sequence[str], shares: Sequence[str]
) -> tuple[str | None, dict[int, float], str, list[str]]:
    """The key along the axis, each setting's place on it, its label, and its ticks where places are no numbers."""
    if shares:
        swept_source = next((key.rpartition(".")[2] for key in keys if key.startswith("mix.")), shares[0])
        source = swept_source if swept_source in shares else shares[0]
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
    texts = [shown_value(group.first, key) if key else "" for group in groups]
    ticks = list(dict.fromkeys(texts))
    return (
        key,
        {id(group): float(ticks.index(text)) for group, text in zip(groups, texts, strict=True)},
        key or "",
        ticks,
    )


def _line(
    axis: Axes,
    groups: Sequence[Setting],
    places: Mapping[int, float],
    metric: str,
    color: str,
    label: str,
    *,
    broad: bool = False,
    dashed: bool = False,
    band: bool = True,
) -> None:
    """A line through the settings' means, with a band of one deviation where there are several seeds."""
    points = sorted(
        (places[id(group)], mean, group.deviation(metric))
        for group in groups
        if (mean := group.mean(metric)) is not None
    )
    if not points:
        return
    x, y, spread = zip(*points, strict=True)
    style: dict[str, Any] = (
        {"linewidth": 7, "alpha": 0.25} if broad else {"linewidth": 1.5, "marker": "o", "markersize": 4}
    )
    axis.plot(x, y, color=color, label=label, linestyle="--" if dashed else "-", **style)
    if band and any(spread):
        low, high = ([mean + sign * one for mean, one in zip(y, spread, strict=True)] for sign in (-1, 1))
        axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _star(axis: Axes, group: Setting, places: Mapping[int, float], metric: str, color: str) -> None:
    if (mean := group.mean(metric)) is not None:
        axis.plot([places[id(group)]], [mean], marker="*", markersize=15, color=color, zorder=5)


def _against_source_share(
    axis: Axes,
    results: Sequence[Result],
    groups: Sequence[Setting],
    chosen: Setting,
    metric: str,
    shares: Sequence[str],
) -> None:
    others = [key for key in swept(results) if not key.startswith("mix.")]
    fixed = _text(chosen, others)
    groups = [group for group in groups if _text(group, others) == fixed]
    for i, source in enumerate(shares):
        name = f"{_family(metric)}/{source}"
        places = {id(group): group.first.sources[source]["target"] for group in groups}
        color = color_of(i)
        _line(axis, groups, places, name, color, source)
        if (best := _same(groups, chosen)) is not None:
            _star(axis, best, places, name, color)
    axis.set(xlabel="its share of the mix", ylabel=f"{_family(metric)} of a source")
    head = "each source against its own share (★ the best ratio)"
    axis.set_title(f"{head}\n{fixed}" if fixed else head, fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
