"""Curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamix.report.figures import canvas, color_of, save, width_of


def draw(
    path: Path,
    lines: Sequence[Mapping[str, float]],
    names: Sequence[str],
    title: str,
    *,
    unit: str = "cross-entropy, nats",
    family: str = "accuracy",
    losses: Sequence[tuple[float, float]] = (),
    adapt: Mapping[str, Any] | None = None,
) -> None:
    """Draw the loss in its unit and another family of metrics over steps, from the lines of `metrics.jsonl`.

    Weights that follow training, as the report has them, are drawn beside them, with the shares that came of them.
    """
    columns = 2 if adapt is None else 3
    figure = canvas(4.5 * columns, 3.6, layout=None)
    figure.suptitle(title, fontsize=11)
    # Margins by hand: to have them found takes as long as all the rest.
    axes = figure.subplots(1, columns, gridspec_kw={"left": 0.16 / columns, "right": 0.98, "bottom": 0.15, "top": 0.88})
    steps = [line["step"] for line in lines]
    trained = list(losses) or [(line["step"], line["loss"]) for line in lines]
    axes[0].plot(*zip(*trained, strict=True), color="#555555", linestyle="--", linewidth=1, label="in training")
    scale = 100 if family == "accuracy" else 1
    for i, name in enumerate(names):
        for axis, of_family, factor in zip(axes[:2], ("loss", family), (1, scale), strict=True):
            values = [factor * line.get(f"{of_family}/{name}", float("nan")) for line in lines]
            width = width_of(i, len(names))
            axis.plot(
                steps, values, label=name, marker="os^Dv"[i % 5], markersize=4, color=color_of(i), linewidth=width
            )
    least, most = axes[0].get_ylim()
    # From 0, unless that would press all curves to the upper edge, under the legend.
    axes[0].set(xlabel="step", ylabel=unit, ylim=(0 if least < most / 2 else least, None))
    if family == "accuracy":
        axes[1].set(xlabel="step", ylabel="accuracy on the test split, %", ylim=(0, 102))
    else:
        axes[1].set(xlabel="step", ylabel=f"{family.replace('_', ' ')} on the test split")
    if adapt is not None:
        ends = [*adapt["steps"], steps[-1]]
        for i, name in enumerate(names):
            axes[2].stairs(adapt["weights"][name], ends, color=color_of(i), baseline=None, linewidth=1.5, label=name)
            axes[2].stairs(adapt["shares"][name], ends, color=color_of(i), baseline=None, linestyle=":")
        axes[2].plot([], [], color="gray", linestyle=":", label="share of the records")
        axes[2].set(xlabel="step", ylabel=f"weight by adapt={adapt['rule']}", ylim=(0, 1))
    for axis in axes:
        axis.set_xlim(0, None)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
    save(figure, path)
