"""Figures, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from datamix.errors import printable
from datamix.report.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# From Okabe and Ito, Color Universal Design (2008): colour-blind people can distinguish them, too.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d46", "#999999")
_BINS = 30  # of a histogram
_TITLE_LENGTH = 32  # characters, as wide as a panel


def color_of(source: int) -> str:
    """The colour of a source in every figure, by its index."""
    return _COLORS[source % len(_COLORS)]


def width_of(source: int, num_sources: int) -> float:
    """The width of the line of a source; lines drawn earlier are wider, so that they show below later ones."""
    return 1.4 + 1.8 * (num_sources - 1 - source) / max(num_sources - 1, 1)


documented = True
"""Whether Matplotlib generates the docstrings of its artists when it is imported; that takes as long as a figure."""


def canvas(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of a size in inches; without a layout, the caller sets its margins."""
    return _figure()(figsize=(width, height), dpi=110, layout=layout)


@cache
def _figure() -> type[Figure]:
    import matplotlib.artist

    document = matplotlib.artist.kwdoc
    if not documented:
        matplotlib.artist.kwdoc = lambda artist: ""  # noqa: ARG005
    from matplotlib.figure import Figure

    matplotlib.artist.kwdoc = document

    class Shown(Figure):
        """A figure that a notebook shows even if `pyplot` is not imported there."""

        def _repr_png_(self) -> bytes:
            save(self, image := io.BytesIO())
            return image.getvalue()

    return Shown


def save(figure: Figure, target: Path | IO[Any] | None, *, vector: IO[str] | None = None) -> None:
    """Write a figure as PNG to `target` and as SVG to `vector`, unless these are None.

    Its texts contain names, in which `$` does not begin a formula.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.text import Text

    with matplotlib.rc_context({"text.parse_math": False}):  # for texts that are created by drawing
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        if target is None:
            return
        if (layout := figure.get_layout_engine()) is not None:  # once: savefig draws twice, each time with the layout
            layout.execute(figure)
            figure.set_layout_engine("none")
        with whole_file(target) if isinstance(target, Path) else nullcontext(target) as file:
            FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
        if vector is not None:
            FigureCanvasSVG(figure).print_svg(vector)  # type: ignore[no-untyped-call]
        if layout is not None:
            figure.set_layout_engine(layout)


def plan(
    path: Path | None,
    names: Sequence[str],
    steps: np.ndarray,
    planned: np.ndarray,
    realised: np.ndarray,
    epochs: np.ndarray,
    title: str,
) -> Figure:
    """Draw shares and epochs of each source over the steps of a mix.

    Args:
      path: Where the figure is written; None for nowhere.
      names: The names of the sources.
      steps: The steps that bound the intervals, shape [points + 1].
      planned: The share of each source that was asked for in each interval, shape [points, num_sources].
      realised: The share that each source got in each interval, shape [points, num_sources].
      epochs: The epochs of each source up to each step, shape [points + 1, num_sources].
      title: The title.
    """
    figure = canvas(9, 6, layout=None)
    figure.suptitle(title, fontsize=11)
    margins = {"left": 0.08, "bottom": 0.08, "top": 0.9, "hspace": 0.06}
    shares, passes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2), gridspec_kw=margins)
    middles = (steps[1:] + steps[:-1]) / 2
    for i, name in enumerate(names):
        color, width = color_of(i), width_of(i, len(names))
        shares.stairs(planned[:, i], steps, color=color, linestyle="--", linewidth=1, alpha=0.8, baseline=None)
        shares.plot(middles, realised[:, i], color=color, label=name, linewidth=width)
        passes.plot(steps, epochs[:, i], color=color, linewidth=width)
    shares.plot([], [], color="gray", linestyle="--", linewidth=1, label="asked for")
    shares.set(ylabel="share of the mix", ylim=(-0.02, 1.02))
    legend = shares.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, ncols=1 + len(names) // 20)
    figure.subplots_adjust(right=max(0.98 - legend.get_window_extent().width / figure.bbox.width, 0.3))
    passes.set(ylabel="epochs", xlabel="batch", xlim=(steps[0], steps[-1]))
    for axis in (shares, passes):
        axis.grid(alpha=0.3)
    save(figure, path)
    return figure


def images(
    path: Path | None, rows: Mapping[str, Sequence[tuple[np.ndarray, str] | tuple[np.ndarray, str, int]]], title: str
) -> Figure:
    """Draw a grid of images.

    Args:
      path: Where the figure is written; None for nowhere.
      rows: The images of each row, by its name: pixels, [height, width, 1 or 3] in [0, 1], a title, and optionally the
        index of the source whose colour frames the image.
      title: The title of the figure.
    """
    from matplotlib.collections import PolyCollection

    width = max(len(row) for row in rows.values())
    height = 1.6 * len(rows) + 0.5
    figure = canvas(1.15 * width + 1.4, height, layout=None)
    figure.suptitle(title, fontsize=11, y=1 - 0.1 / height, va="top")
    # One axis for all images: one for each takes four times as long to draw.
    axis = figure.add_axes((0, 0.06 / height, 1, 1 - 0.4 / height), frame_on=False, xticks=[], yticks=[])
    frames, colors = [], []
    for row, (name, shown) in enumerate(rows.items()):
        top = row * 1.45 + 0.42
        axis.text(-0.08, top + 0.5, name, ha="right", va="center", fontsize=9)
        for column, (pixels, label, *source) in enumerate(shown):
            place = (column + 0.03, column + 0.97, top + 0.97, top + 0.03)
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=place, aspect="equal", interpolation="nearest")
            if source:
                frames.append(np.take(place, [[0, 2], [1, 2], [1, 3], [0, 3]]))
                colors.append(color_of(*source))
            axis.text(column + 0.5, top - 0.02, label, ha="center", va="baseline", fontsize=8, linespacing=1.1)
    axis.add_collection(PolyCollection(frames, facecolors="none", edgecolors=colors, linewidths=2.5))
    axis.set(xlim=(-1.1, width + 0.05), ylim=(len(rows) * 1.45, 0))
    save(figure, path)
    return figure


def histograms(
    path: Path | None, values: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], title: str
) -> Figure:
    """Draw the distributions of numbers: a panel for each, in which the histograms of sources are overlaid.

    Args:
      path: Where the figure is written; None for nowhere.
      values: The values of each source, shape [records], by the title of the panel and the name of the source.
      names: The names of all sources, whose order decides their colours.
      title: The title of the figure.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    columns = min(4, len(values))
    rows = -(-len(values) // columns)
    figure = canvas(max(5, 2.9 * columns), 2.2 * rows + 0.8)
    figure.suptitle(title, fontsize=11)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (name, of_source) in zip(axes, values.items(), strict=False):
        finite = {source: each[np.isfinite(each)].astype(np.float64) for source, each in of_source.items()}
        every = np.concatenate(list(finite.values()))
        are_whole = not np.any(every % 1)
        edges = _edges(every, are_whole=are_whole)
        if are_whole:
            axis.xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1))
        for i, source in enumerate(names):
            if len(each := finite.get(source, edges[:0])):
                heights = np.histogram(each, edges)[0] / len(of_source[source])
                axis.stairs(heights, edges, color=color_of(i), fill=True, alpha=0.3)
                axis.stairs(heights, edges, color=color_of(i))
        short = name if len(name) <= _TITLE_LENGTH else f"{name[: _TITLE_LENGTH - 1]}…"
        axis.set_title(short, fontsize=9, parse_math=False)  # names of columns may hold several $
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in axes[len(values) :]:
        axis.axis("off")
    axes[0].set_ylabel("share of a source's records", fontsize=8)
    drawn = [(i, name) for i, name in enumerate(names) if any(name in of_source for of_source in values.values())]
    axes[0].legend(handles=[Patch(color=color_of(i), label=name) for i, name in drawn], fontsize=8)
    save(figure, path)
    return figure


def _edges(values: np.ndarray, *, are_whole: bool) -> np.ndarray:
    """The edges of a histogram's bins, which hold equally many numbers each where all values are whole numbers."""
    if len(values) and are_whole and (count := np.ptp(values) + 1) < 2**32:
        width = -(-count // _BINS)
        edges: np.ndarray = values.min() - 0.5 + width * np.arange(-(-count // width) + 1)
        return edges
    return np.histogram_bin_edges(values, bins=_BINS)


def parts_of_time(path: Path, times: Mapping[str, float], title: str) -> None:
    """Draw the time of one record as a bar of the parts of the work; `times` are in nanoseconds, by part."""
    figure = canvas(9, 2.2)
    axis = figure.add_subplot()
    begin = 0.0
    for part, time in times.items():
        axis.barh(0, time, left=begin, height=0.6, label=f"{part}: {time:,.0f} ns")
        begin += time
    axis.set(yticks=[], xlabel="nanoseconds a sample, each part by itself", xlim=(0, max(begin, 1)))
    axis.spines[["left", "top", "right"]].set_visible(False)
    axis.legend(ncols=len(times), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    save(figure, path)
