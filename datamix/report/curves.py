"""Curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from datamix.report.files import whole_file


def draw(path: Path, lines: Sequence[Mapping[str, float]], names: Sequence[str], title: str) -> None:
    """Draw loss and accuracy over steps.

    Args:
      path: of the PNG file.
      lines: of metrics.jsonl.
      names: of the sources.
      title: above all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    losses, accuracies = figure.subplots(1, 2)
    steps = [line["step"] for line in lines]
    losses.plot(steps, [line["loss"] for line in lines], "k--", label="in training", marker=".")
    for name in names:
        losses.plot(steps, [line[f"loss/{name}"] for line in lines], label=name, marker=".")
        accuracies.plot(steps, [100 * line[f"accuracy/{name}"] for line in lines], label=name, marker=".")
    losses.set(xlabel="step", ylabel="cross-entropy, nats", ylim=(0, None))
    accuracies.set(xlabel="step", ylabel="accuracy on the test split, %", ylim=(0, 100))
    for axis in (losses, accuracies):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
    with whole_file(path) as part:
        figure.savefig(part)
