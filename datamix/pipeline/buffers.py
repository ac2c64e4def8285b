"""Memory for chunks of batches, reused once nothing refers to its contents."""

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
    """A chunk that was given back, and the views of it that the host may still use."""

    rows: FlatRows
    views: list[weakref.ref[np.ndarray]]


class Buffers:
    """Buffers for one program's results, shared by a pipeline's iterators and their threads; it keeps at most three.

    Fresh memory costs a page fault every 4 KiB, which takes up to three times as long as computing the values to write.
    Memory is reused once no array and no view refers to it; if one were overlooked, JAX would copy instead of
    overwriting it.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: deque[_Returned] = deque(maxlen=_NUM_CHUNKS)
        self._lock = threading.Lock()

    def take(self) -> FlatRows:
        """A chunk to donate to a program, which may overwrite it."""
        with self._lock:
            for chunk in reversed(tuple(self._known)):  # the latest may still be in the cache
                if all(view() is None for view in chunk.views):
                    with suppress(ValueError):  # one given back meanwhile has pushed it out
                        self._known.remove(chunk)
                    return chunk.rows
        rows = self._program.num_steps * self._program.num_rows
        fresh: FlatRows = jax.device_put(
            {leaf: np.zeros((rows, *part.flat), part.dtype) for leaf, part in self._program.spec}
        )
        return fresh

    def give_back(self, chunk: FlatRows, views: Iterable[np.ndarray]) -> None:
        """Take a chunk back, to be reused once all the host's views of it are gone.

        It takes no lock: the garbage collector may call this in the middle of `take`, for an abandoned iterator.
        """
        self._known.append(_Returned(chunk, [weakref.ref(view) for view in views]))
