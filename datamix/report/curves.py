"""Curves of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamix.report.figures import canvas, color_of, save, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    path: Path,
    names: Sequence[str],
    title: str,
    *,
    tests: Sequence[Mapping[str, float]],
    unit: str = "cross-entropy, nats",
    family: str = "accuracy",
    losses: Sequence[tuple[float, float]] = (),
    adapt: Mapping[str, Any] | None = None,
) -> None:
    """Draw the loss in its unit and another family of metrics over steps, from the lines of tests in `metrics.jsonl`.

    Weights that follow training, as the report has them, are drawn beside them, with the shares that came of them.
    """
    figure = _panels(tuple(names), unit, family) if adapt is None else _empty(names, unit, family, 3)
    figure.suptitle(title, fontsize=11)
    axes, steps = figure.axes, [line["step"] for line in tests]
    axes[0].lines[0].set_data(*zip(*(losses or [(line["step"], line["loss"]) for line in tests]), strict=True))
    for axis, of_family, factor in ((axes[0], "loss", 1), (axes[1], family, 100 if family == "accuracy" else 1)):
        for drawn, name in zip(axis.lines[-len(names) :], names, strict=True):
            drawn.set_data(steps, [factor * line.get(f"{of_family}/{name}", math.nan) for line in tests])
        axis.relim()
        axis.autoscale()
    least, most = axes[0].get_ylim()
    # From 0, unless that would press all curves to the upper edge, under the legend.
    axes[0].set_ylim(0 if least < most / 2 else least, None)
    if family == "accuracy":
        axes[1].set_ylim(0, 102)
    if adapt is not None:
        ends = [*adapt["steps"], steps[-1]]
        for i, name in enumerate(names):
            axes[2].stairs(adapt["weights"][name], ends, color=color_of(i), baseline=None, linewidth=1.5, label=name)
            axes[2].stairs(adapt["shares"][name], ends, color=color_of(i), baseline=None, linestyle=":")
        axes[2].plot([], [], color="gray", linestyle=":", label="share of the records")
        axes[2].set(xlabel="step", ylabel=f"weight by adapt={adapt['rule']}", ylim=(0, 1))
        axes[2].legend(fontsize=9)
    for axis in axes:
        axis.set_xlim(0, None)
    save(figure, path)


def _empty(names: Sequence[str], unit: str, family: str, columns: int = 2) -> Figure:
    """The axes of a run's loss and of a family of metrics, with lines that have no points yet."""
    figure = canvas(4.5 * columns, 3.6, layout=None)
    # Margins by hand: to have them found takes as long as all the rest.
    axes = figure.subplots(1, columns, gridspec_kw={"left": 0.16 / columns, "right": 0.98, "bottom": 0.15, "top": 0.88})
    axes[0].plot([], [], color="#555555", linestyle="--", linewidth=1, label="in training")
    shown = "accuracy on the test split, %" if family == "accuracy" else f"{family.replace('_', ' ')} on the test split"
    for axis, label in ((axes[0], unit), (axes[1], shown)):
        for i, name in enumerate(names):
            style: Any = {"color": color_of(i), "linewidth": width_of(i, len(names)), "marker": "os^Dv"[i % 5]}
            axis.plot([], [], label=name, markersize=4, **style)
        axis.set(xlabel="step", ylabel=label)
        axis.legend(fontsize=9)
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


# The jobs of a sweep have the same axes: to make them and their ticks takes as long as to draw them.
_panels = lru_cache(maxsize=1)(_empty)
