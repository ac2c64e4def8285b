"""Memory for chunks of batches, used again once nobody looks at what lay there."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import jax
import numpy as np

from datamix.pipeline.program import Program
from datamix.spec import FlatRows

# One chunk is handed out, one is computed ahead, and the caller may still hold the last batch of the one before.
_NUM_CHUNKS = 3


@dataclass(frozen=True, eq=False)
class _Returned:
    """A chunk that was given back, and the views of it that the host may still look at."""

    rows: FlatRows
    views: list[weakref.ref[np.ndarray]]


class Buffers:
    """Buffers of one program's results, for all iterators of a pipeline and their threads; three stay with it at most.

    Fresh memory costs a page fault every 4 KiB, which takes up to three times as long as computing what is written
    there. Memory is given out again once no array and no view refers to it; if one were overlooked, JAX would copy
    instead of overwriting it.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: deque[_Returned] = deque(maxlen=_NUM_CHUNKS)
        self._lock = threading.Lock()

    def take(self) -> FlatRows:
        """A chunk that may be overwritten, to be donated."""
        with self._lock:
            for chunk in reversed(tuple(self._known)):  # the last ones may still lie in the cache
                if all(view() is None for view in chunk.views):
                    with suppress(ValueError):  # one that was given back since has pushed it out
                        self._known.remove(chunk)
                    return chunk.rows
        rows = self._program.num_steps * self._program.num_rows
        fresh: FlatRows = jax.device_put(
            {leaf: np.zeros((rows, *part.flat), part.dtype) for leaf, part in self._program.spec}
        )
        return fresh

    def give_back(self, chunk: FlatRows, views: Iterable[np.ndarray]) -> None:
        """Take a chunk back, to be given out once all the host's views of it are gone.

        Without the lock: the garbage collector may call this, for an iterator that was left, in the midst of `take`.
        """
        self._known.append(_Returned(chunk, [weakref.ref(view) for view in views]))
