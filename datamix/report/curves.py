"""Curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from datamix.report.figures import canvas, color_of, save


def draw(path: Path, lines: Sequence[Mapping[str, float]], names: Sequence[str], title: str) -> None:
    """Draw loss and accuracy over steps, from the lines of `metrics.jsonl`."""
    figure = canvas(9, 3.6, layout=None)
    figure.suptitle(title, fontsize=11)
    # Margins by hand: to have them found takes as long as all the rest.
    losses, accuracies = figure.subplots(1, 2, gridspec_kw={"left": 0.07, "right": 0.98, "bottom": 0.15, "top": 0.88})
    steps = [line["step"] for line in lines]
    losses.plot(steps, [line["loss"] for line in lines], "k--", label="in training", marker=".")
    for i, name in enumerate(names):
        losses.plot(steps, [line[f"loss/{name}"] for line in lines], label=name, marker=".", color=color_of(i))
        accuracy = [100 * line[f"accuracy/{name}"] for line in lines]
        accuracies.plot(steps, accuracy, label=name, marker=".", color=color_of(i))
    losses.set(xlabel="step", ylabel="cross-entropy, nats", ylim=(0, None))
    accuracies.set(xlabel="step", ylabel="accuracy on the test split, %", ylim=(0, 102))
    for axis in (losses, accuracies):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
    save(figure, path)
