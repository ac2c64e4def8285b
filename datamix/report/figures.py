"""Figures, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datamix.report.files import whole_file


def samples(path: Path, rows: Mapping[str, Sequence[tuple[np.ndarray, str]]], title: str) -> None:
    """Draw a grid of samples, one row a source.

    Args:
      path: of the PNG file.
      rows: the text at the row, and for each image its pixels, [height, width, 1 or 3] in [0, 1], and its title.
      title: above all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(len(images) for images in rows.values())
    figure = Figure(figsize=(1.15 * width + 1.6, 1.5 * len(rows) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(rows), width, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, (pixels, label) in zip(line, images, strict=False):
            axis.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(label, fontsize=8)
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)
