"""A reader of one's own: the second step of the program can be replaced by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import datamix
from datamix.pipeline.locate import Located
from datamix.spec import Record


class Computed(NamedTuple):
    """Makes up records: a label that says which record of which source it is."""

    factor: jax.Array

    def read(self, group: int, located: Located, row: jax.Array, member: jax.Array | None) -> Record:
        label = located.source * self.factor + located.record
        return {"label": label.astype(jnp.int32), "row": row.astype(jnp.int32)}


def test_a_program_reads_from_any_reader() -> None:
    zeros = {"label": np.zeros(7, np.int32), "row": np.zeros(7, np.int32)}
    pipeline = datamix.mix({"a": zeros, "b": zeros}, batch_size=4, stop="forever", labels="keep")
    compiled = replace(pipeline.compiled, reader=Computed(jnp.uint32(100)))
    for step in (0, 3):
        batch, _ = compiled.next(pipeline.start(step))
        chosen = pipeline.plan.take(4 * step, 4)
        assert batch["label"].tolist() == (100 * chosen.source + chosen.record).tolist()
        assert batch["row"].tolist() == [0, 1, 2, 3]
        assert batch["source_id"].tolist() == chosen.source.tolist()
    np.testing.assert_array_equal(pipeline[0]["label"], np.zeros(4))  # the pipeline itself is what it was
