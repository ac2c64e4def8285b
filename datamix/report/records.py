"""Single records of a mix, as pictures and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from datamix.builder.open_source import is_shipped
from datamix.pipeline.graph import Graph
from datamix.report.console import table
from datamix.spec import Batch, LeafSpec

if TYPE_CHECKING:
    from datamix.pipeline.pipeline import Pipeline

_SHOWN_ELEMENTS = 6  # of a leaf, at most


def holds_images(spec: Mapping[str, LeafSpec]) -> bool:
    """Whether the leaf `image` can be drawn."""
    image = spec.get("image")
    return image is not None and len(image.shape) == 3 and image.shape[2] in (1, 3)


def label_of(batch: Batch, row: int) -> int | float | None:
    """The label in a row of a batch; None if there is no label, or it is a vector."""
    if "label" not in batch or batch["label"].ndim != 1:
        return None
    label: int | float = batch["label"][row].item()
    return label


def class_of(pipeline: Pipeline, source: str, label: float | None) -> str:
    """The name of a class of a source, by its number in the mix; empty if it has none."""
    offset = pipeline.graph.label_offset(source) or 0
    names, number = pipeline.class_names[source], -1 if label is None else label - offset
    return names[int(number)] if 0 <= number < len(names) and number == int(number) else ""


def column_names(pipeline: Pipeline) -> tuple[str, ...]:
    """The columns of the leaf `features`; empty unless they are known, and the same for all sources."""
    first, *others = pipeline.feature_names.values()
    part, operations = pipeline.spec.get("features"), [node.operation for node in pipeline.graph.chain("mix")]
    is_common = part is not None and part.shape == (len(first),) and all(names == first for names in others)
    return first if is_common and all(each is None or is_shipped(each) for each in operations) else ()


def picture(pixels: np.ndarray, graph: Graph, source: str) -> np.ndarray:
    """An image of a finished record, [height, width, channels], in [0, 1], with normalization undone."""
    values: np.ndarray = pixels.astype(np.float32)
    for node in reversed([*graph.chain(source), *graph.chain("mix")]):
        if node.operation and node.operation.operator == "normalize":
            values = values * np.float32(node.operation.settings["std"]) + np.float32(node.operation.settings["mean"])
    if np.issubdtype(pixels.dtype, np.integer):
        values = values / np.iinfo(pixels.dtype).max
    return np.asarray(np.clip(values, 0, 1))


def records_table(
    title: str, batch: Batch, heads: Mapping[str, Iterable[object]], rows: Iterable[int], leaves: Iterable[str]
) -> Table:
    """A table with a row per record; `heads` are further columns before the leaves, by their titles."""
    leaves, rows = list(leaves), list(rows)
    values = ([_shown(batch[leaf][row]) for leaf in leaves] for row in rows)
    before = zip(*heads.values(), strict=True)
    return table(title, [*heads, *leaves], [[*head, *each] for head, each in zip(before, values, strict=True)])


def _shown(value: Any) -> str:
    elements = [f"{element:.4g}" for element in np.asarray(value).reshape(-1)[:_SHOWN_ELEMENTS].tolist()]
    return " ".join(elements) + (" …" if np.size(value) > _SHOWN_ELEMENTS else "")
