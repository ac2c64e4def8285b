"""Classes with too few records to learn from, as when a column of names or numbers is the target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datamix.builder.open_source import OpenSource
from datamix.errors import of_source


def notes_on_rare_classes(training: Mapping[str, OpenSource], num_classes: Mapping[str, int | None]) -> list[str]:
    """The notes on sources most of whose classes have a single record to train on.

    Args:
      training: The sources to train on, by name.
      num_classes: The number of classes of each source; None if it is not known.
    """
    notes = []
    for name, source in training.items():
        label = source.spec.get("label")  # None if operators make it
        # With two records per class or more, enough classes can be learnt; only with fewer are the labels read.
        if label is None or label.shape or source.num_records >= 2 * (num_classes[name] or 0):
            continue
        labels = source.read_leaf("label").reshape(-1)
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
