"""`datamix.preview`, which draws what the records of a mix look like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datamix.errors import ConfigError
from datamix.report import figures
from datamix.report.console import percent
from datamix.report.records import class_of, column_names, holds_images, label_of, picture
from datamix.spec import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from datamix.pipeline.pipeline import Pipeline

_IMAGES_A_ROW = 10
_HISTOGRAM_RECORDS = 2**11  # of each source
_MOST_NUMBERS = 16  # of a record, in histograms
_PREVIEWED = 10  # batches


def preview(pipeline: Pipeline) -> Figure:
    """Draw what the records of a mix look like: images by source, or histograms of their numbers.

    Raises:
      ConfigError: Records have nothing to draw, or no leaf `source_id`.

    >>> import datamix
    >>> figure = datamix.preview(datamix.load("source=digits+garments", "source.digits.limit=20"))
    >>> figure.get_suptitle()
    'Samples of the mix'
    """
    if "source_id" not in pipeline.spec:
        raise ConfigError("an operator drops or renames the leaf source_id, by which a mix is shown", key="operators")
    drawn = figure_of(pipeline, list(islice(pipeline, _PREVIEWED)))
    if drawn is None:
        listed = ", ".join(f"{leaf} {part}" for leaf, part in pipeline.spec.items())
        raise ConfigError(f"records of {listed} hold no image and no number to draw", key="operators")
    return drawn


def figure_of(
    pipeline: Pipeline,
    seen: Sequence[Batch],
    path: Path | None = None,
    provenances: Mapping[str, str] | None = None,
    caution: str = "",
) -> Figure | None:
    """Draw the first batches of a mix, and records of each source; None if there is nothing to draw.

    Args:
      pipeline: The mix.
      seen: Its first batches.
      path: Where the figure is written; None for nowhere.
      provenances: The provenance of each source, by its name; None to show none.
      caution: A text to append to the title of images.
    """
    if not holds_images(pipeline.spec):
        return _numbers(pipeline, seen, path)
    sources, batch = pipeline.source_names, seen[0]
    rows: dict[str, list[tuple[np.ndarray, str, int]]] = {"first batch,\nas it comes": []}
    for row, i in enumerate(batch["source_id"][:_IMAGES_A_ROW].tolist()):
        image = picture(batch["image"][row], pipeline.graph, sources[i])
        rows["first batch,\nas it comes"].append(
            (image, sources[i] if len(sources[i]) < 15 else f"{sources[i][:13]}…", i)
        )
    for i, name in enumerate(sources):
        if not pipeline.plan.shares[i]:
            continue
        images_seen = _images_of(seen, i)
        if len(images_seen) < _IMAGES_A_ROW:  # the share is too small: read the source by itself
            images_seen = _images_of(alone(name, pipeline, seen, _IMAGES_A_ROW + pipeline.batch_size - 1), i)
        images = []
        for pixels, label in images_seen[:_IMAGES_A_ROW]:
            if isinstance(label, np.ndarray):  # one share per class
                title = "\n".join(f"{at}: {percent(label[at])}" for at in np.argsort(-label)[:2] if label[at] >= 0.0005)
            else:
                title = "" if label is None else f"{label}\n{class_of(pipeline, name, label)}".rstrip()
            images.append((picture(pixels, pipeline.graph, name), title, i))
        provenance = (provenances or {}).get(name, name)
        rows[name if name == provenance else f"{name}\n({provenance})"] = images
    return figures.images(path, rows, f"Samples of the mix{caution}")


def _numbers(pipeline: Pipeline, seen: Sequence[Batch], path: Path | None) -> Figure | None:
    """Draw histograms of the first numbers of records, the label last; None if records have no numbers."""
    names = pipeline.source_names
    rows = {}
    for i, name in enumerate(names):
        batches = alone(name, pipeline, seen, _HISTOGRAM_RECORDS)
        rows[name] = {leaf: np.concatenate([b[leaf][b["source_id"] == i] for b in batches]) for leaf in pipeline.spec}
    numbers: dict[str, dict[str, np.ndarray]] = {}
    for leaf, part in pipeline.spec.items():
        if leaf == "source_id" or "bool" in part.dtype:
            continue
        for name, leaves in rows.items():
            values = leaves[leaf].reshape(len(leaves[leaf]), math.prod(part.shape))
            titles = column_names(pipeline) if leaf == "features" else ()
            for i in range(min(values.shape[1], _MOST_NUMBERS)):
                title = f"{leaf}[{i}]" + (f": {titles[i]}" if titles else "")
                numbers.setdefault(title if part.shape else leaf, {})[name] = values[:, i]
    label = [key for key in numbers if key.partition("[")[0] == "label"]
    shown = [key for key in numbers if key not in label][: _MOST_NUMBERS - 1] + label[:1]
    if not shown:
        return None
    count = sum(math.prod(part.shape) for leaf, part in pipeline.spec.items() if leaf != "source_id")
    title = "Values in batches" + (f" — the first {len(shown)} numbers of a record" if len(shown) < count else "")
    return figures.histograms(path, {key: numbers[key] for key in shown}, names, title)


def alone(name: str, pipeline: Pipeline, seen: Sequence[Batch], records: int) -> Sequence[Batch]:
    """The first batches of one source, as if it were the whole mix; `seen` if its records do not fill a batch.

    Args:
      name: The name of the source.
      pipeline: The mix.
      seen: The first batches of the mix.
      records: The number of records to read, rounded down to whole batches; at least one batch is read.
    """
    weights = {other: int(other == name) for other in pipeline.source_names}
    length = pipeline.plan.with_weights(weights).length
    if length is not None and length < pipeline.batch_size and pipeline.remainder == "drop":
        return seen
    return list(islice(pipeline.with_weights(weights), max(1, records // pipeline.batch_size)))


def _images_of(batches: Sequence[Batch], source: int) -> list[tuple[np.ndarray, int | float | np.ndarray | None]]:
    """The images of a source in some batches, with their labels; None for an image without one."""
    images_seen = []
    for batch in batches:
        is_vector = "label" in batch and batch["label"].ndim == 2
        for row in np.flatnonzero(batch["source_id"] == source):
            label = batch["label"][row] if is_vector else label_of(batch, int(row))
            images_seen.append((batch["image"][row], label))
    return images_seen
