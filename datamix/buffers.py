"""Memory for chunks of batches, used again once nobody looks at what it held."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable

import jax
import numpy as np

from datamix.operators.base import Record
from datamix.program import Program

# One chunk is handed out, one is computed ahead, and of the one before a last batch is still held.
_NUM_CHUNKS = 3


class Buffers:
    """Buffers of one program's results.

    Fresh memory costs a page fault every 4 KiB, which takes up to three times as long as computing what is written
    there. What is given out again is memory to which no array and no view refers any more; were one overlooked, JAX
    would not take the memory either, but a copy.
    """

    def __init__(self, program: Program) -> None:
        rows = program.num_steps * -(-program.batch_size // program.num_shards)
        self._empty = {
            leaf: np.zeros((rows, *([int(np.prod(part.shape))] if part.shape else [])), part.dtype)
            for leaf, part in program.spec
        }
        self._known: deque[tuple[Record, list[weakref.ref[np.ndarray]]]] = deque(maxlen=_NUM_CHUNKS)

    def take(self) -> Record:
        """A chunk to be overwritten: donate it."""
        for i, (chunk, views) in enumerate(self._known):
            if all(view() is None for view in views):
                del self._known[i]
                return chunk
        fresh: Record = jax.device_put(self._empty)
        return fresh

    def give_back(self, chunk: Record, views: Iterable[np.ndarray]) -> None:
        """Take a chunk back, to be given out once all the host's views of it are gone."""
        self._known.append((chunk, [weakref.ref(view) for view in views]))
