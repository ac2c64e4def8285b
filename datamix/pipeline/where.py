"""Which records are in a batch, and where they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from datamix.mixing.plan import Plan
from datamix.pipeline.batching import Batching, RowShuffle

Places = Callable[[np.ndarray], list[str]]
"""Tells for records of a source, by their indices, the file of each and its place there."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The record in one row of a batch.

    Attributes:
      source: The name of its source.
      epoch: The epoch of the source, counted from 0.
      record: The index of the record among those that the mix uses of the source.
      place: The file of the record and its place there; empty if the source does not tell.
    """

    source: str
    epoch: int
    record: int
    place: str = ""


def places_at(
    step: int, plan: Plan, batching: Batching, row_shuffle: RowShuffle | None, places: Mapping[str, Places | None]
) -> list[Place]:
    """The records in the batch at a step, one per row, from the position alone.

    Args:
      step: The number of the batch, which has to exist.
      plan: The plan of the mix.
      batching: How the mix is cut into batches.
      row_shuffle: The shuffle of each batch's rows, if they are shuffled.
      places: The function that tells where the records of a source lie, by its name; None if it has none.
    """
    start, size, rows = step * batching.batch_size, batching.batch_size, batching.num_rows(step)
    source, epoch, record = plan.take(start, rows)
    if row_shuffle is not None:
        slot = start // plan.slot_records
        position = jnp.asarray(np.asarray([slot >> 32, slot % 2**32], np.uint32))
        order = np.asarray(row_shuffle.rows(position, 1, size, plan.slot_records))[:rows]
        source, epoch, record = source[order], epoch[order], record[order]
    texts = [""] * rows
    for i, name in enumerate(plan.names):
        members = np.flatnonzero(source == i)
        if len(members) and (says := places.get(name)) is not None:
            for row, text in zip(members.tolist(), says(record[members]), strict=True):
                texts[row] = text
    return [
        Place(source=plan.names[i], epoch=int(epoch[row]), record=int(record[row]), place=texts[row])
        for row, i in enumerate(source)
    ]
