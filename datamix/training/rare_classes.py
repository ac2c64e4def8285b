"""Classes of which hardly a record is there to learn from, as where a column of names or numbers is the target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datamix.builder.open_source import OpenSource
from datamix.errors import of_source


def notes_on_rare_classes(training: Mapping[str, OpenSource], num_classes: Mapping[str, int | None]) -> list[str]:
    """The notes on sources of which most classes have a single record to train on."""
    notes = []
    for name, source in training.items():
        label = source.spec.get("label")  # none where operators make it
        # With two records a class or more, enough of them can be learnt; labels are read only where there are fewer.
        if label is None or label.shape or source.num_records >= 2 * (num_classes[name] or 0):
            continue
        labels = source.read()["label"]
        _, counts = np.unique(labels[labels >= 0], return_counts=True)
        if 2 * (single := int((counts == 1).sum())) > len(counts):
            text = f"{single:,} of its {len(counts):,} classes have a single record to train on, from which none can be"
            advice = f"{source.choice('label', 'number')} predicts labels as numbers"
            if source.class_names and source.target == "table":
                advice = f"{source.setting('target')} names the column to predict"
            elif source.class_names:
                advice = "more records are needed"
            notes.append(of_source(name, f"{text} learnt; {advice}."))
    return notes
