"""Curves of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamix.report.figures import canvas, color_of, save, width_of


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
    """Draw the loss and another family of metrics over steps.

    Args:
      path: Where the figure is written.
      names: The names of the sources.
      title: The title.
      tests: The lines of tests in `metrics.jsonl`.
      unit: The name and unit of the loss.
      family: The other family of metrics.
      losses: Steps and training losses; if empty, those in `tests`.
      adapt: The weights that follow training, as in the report, to be drawn with the resulting shares; None for none.
    """
    columns, steps = 2 if adapt is None else 3, [line["step"] for line in tests]
    figure = canvas(4.5 * columns, 3.6, layout=None)
    figure.suptitle(title, fontsize=11)
    # Fixed margins: computing them would take as long as everything else.
    axes = figure.subplots(1, columns, gridspec_kw={"left": 0.16 / columns, "right": 0.98, "bottom": 0.15, "top": 0.88})
    trained = zip(*(losses or [(line["step"], line["loss"]) for line in tests]), strict=True)
    axes[0].plot(*trained, color="#555555", linestyle="--", linewidth=1, label="in training")
    shown = "accuracy on the test split, %" if family == "accuracy" else f"{family.replace('_', ' ')} on the test split"
    for axis, label, of_family, factor in (
        (axes[0], unit, "loss", 1), (axes[1], shown, family, 100 if family == "accuracy" else 1)
    ):  # fmt: skip
        for i, name in enumerate(names):
            values = [factor * line.get(f"{of_family}/{name}", math.nan) for line in tests]
            style: Any = {"color": color_of(i), "linewidth": width_of(i, len(names)), "marker": "os^Dv"[i % 5]}
            axis.plot(steps, values, label=name, markersize=4, **style)
        axis.set(xlabel="step", ylabel=label)
    least, most = axes[0].get_ylim()
    # From 0, unless that would push all curves to the upper edge, below the legend.
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
    for axis in axes:
        axis.legend(fontsize=9)
        axis.grid(alpha=0.3)
        axis.set_xlim(0, None)
    save(figure, path)
