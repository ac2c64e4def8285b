"""Show the records of one batch of a mix, and where they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamix.builder.built import build
from datamix.config.schema import Config
from datamix.errors import ConfigError
from datamix.report import figures, tokens
from datamix.report.console import console_of, print_notes
from datamix.report.contents import report_of_pipeline
from datamix.report.files import write_report
from datamix.report.records import class_of, holds_images, label_of, picture, records_table

_MOST_ROWS = 64  # in the table of the terminal; the report has all rows
_IMAGES_A_ROW = 10
_MOST_IMAGES = 200
_PLACE_WIDTH = 16  # characters in a line of an image's title


def run(config: Config, directory: Path, *, step: int = 0) -> dict[str, Any]:
    """Show the records of a batch.

    Args:
      step: The number of the batch; if negative, it counts from the end.

    Returns:
      The report, with `step` and `rows`: source, epoch, record, label, class and place of each row.

    Raises:
      ConfigError: The mix has no such batch.
    """
    built = build(config)
    out = console_of(built.notes)
    built = built.completed()
    pipeline = built.pipeline()
    print_notes(out, "Note", notes := built.notes_on(pipeline))
    try:
        batch, places = pipeline[step], pipeline.where(step)
    except IndexError as error:
        raise ConfigError(str(error), key="job.step", value=step) from error
    step += 0 if step >= 0 else len(pipeline)
    labels = [label_of(batch, row) for row in range(len(places))]
    names = [class_of(pipeline, place.source, label) for place, label in zip(places, labels, strict=True)]
    shown, ends = range(min(len(places), _MOST_ROWS)), _ends([place.place for place in places])
    heads = {
        "row": shown,
        "source": [places[row].source for row in shown],
        "epoch": [places[row].epoch for row in shown],
        "record": [places[row].record for row in shown],
        "label": ["–" if labels[row] is None else f"{labels[row]:.6g} {names[row]}".strip() for row in shown],
        "place": [ends[row] or "–" for row in shown],
    }
    has_images = holds_images(pipeline.spec)
    leaves = [leaf for leaf in batch if leaf not in ("label", "source_id", *(["image"] if has_images else []))]
    out.print(records_table(f"Records of batch {step:,}", batch, heads, shown, leaves))
    for line in tokens.documents(out, built.sources, [batch]):
        out.print(line)
    if len(places) > len(shown):
        out.print(f"… and {len(places) - len(shown)} rows more, in report.json.")
    report = report_of_pipeline(
        built,
        pipeline,
        batches=1,
        counts={name: sum(place.source == name for place in places) for name in built.sources},
        records=len(places),
        figure="inspect.png" if has_images else None,
    )
    report |= {"notes": notes, "step": step}
    report["rows"] = [
        {"row": row, **vars(place), "label": label, "class": name or None}
        for row, (place, label, name) in enumerate(zip(places, labels, names, strict=True))
    ]
    if has_images:
        image_rows: dict[str, list[tuple[np.ndarray, str, int]]] = {}
        for row, (place, name) in enumerate(list(zip(places, names, strict=True))[:_MOST_IMAGES]):
            title = f"{_short(f'{place.source} {place.record}')}\n{_short(ends[row]) or name}"
            image = picture(np.asarray(batch["image"][row]), built.graph, place.source)
            first = row - row % _IMAGES_A_ROW
            rows = f"rows {first}\nto {min(first + _IMAGES_A_ROW, len(places)) - 1}"
            image_rows.setdefault(rows, []).append((image, title, [*built.sources].index(place.source)))
        figures.images(directory / "inspect.png", image_rows, f"Batch {step:,}, by row")
        out.print(f"Figure: {directory / 'inspect.png'}")
    out.print(f"Report: {write_report(directory, report)}")
    return report


def _ends(places: Sequence[str]) -> list[str]:
    """The end of each place, from the file name on; with the folder's name if files in several folders share theirs."""
    folders: dict[str, set[str]] = {}
    for place in places:
        folder, _, name = place.rpartition("/")
        folders.setdefault(name, set()).add(folder)
    parts = [place.split("/") for place in places]
    return ["/".join(part[-2:] if len(folders[part[-1]]) > 1 else part[-1:]) for part in parts]


def _short(text: str) -> str:
    """The end of a name or place, cut to the width of an image."""
    return text if len(text) <= _PLACE_WIDTH else f"…{text[1 - _PLACE_WIDTH :]}"
