"""The base of datasets drawn by code: labels, rows of uniform numbers, grain and chunks, and a cache.

A record is drawn from a row of uniform numbers that depends only on the seed, the source, the split and the record's
place in the split, so a slice holds the same records as the whole.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamix.sources.base import TakeFromRead
from datamix.sources.cache import CachePlace, cache_directory
from datamix.sources.splits import resolve_split
from datamix.spec import Arrays, LeafSpec, Spec

SIDE = 28
"""Height and width of a picture in pixels."""

GRID = np.arange(SIDE, dtype=np.float32)
"""Coordinates of a picture's rows, and of its columns."""

_SIZES = {"train": 20_000, "test": 4_000}
_NUM_UNIFORMS = 40  # per record: more than any class uses, so that one more in a class does not change the others
_KEPT_FROM = 5_000  # records, which take 0.1 s to draw; from this many on, the cache stores them
_CHUNK_RECORDS = 128  # a chunk's pictures, 400 kB in float32, stay in the processor's cache


class Vary:
    """Hands out the columns of a table of uniform numbers, one per call; a drawing says the range at each use."""

    def __init__(self, uniforms: np.ndarray) -> None:
        self._columns: Iterator[np.ndarray] = iter(uniforms.T)

    def __call__(self, low: float, high: float) -> np.ndarray:
        """A number from low to high for each record, float32, shape [records]."""
        return next(self._columns) * np.float32(high - low) + np.float32(low)

    def chance(self, share: float) -> np.ndarray:
        """1 for this share of the records, 0 for the others, float32, shape [records]."""
        return (self(0, 1) < share).astype(np.float32)


@dataclass(frozen=True)
class Procedural(TakeFromRead):
    """A source whose records are drawn when they are read; the cache stores 5,000 or more of them.

    Attributes:
      name: The name of the source, on which the pictures depend.
      class_names: The name of each label, by label.
      draw: Makes pictures of a label, varied by random numbers: float32, shape [records, 28, 28], black at 0 and white
        at 1.
      grain: The noise of the roughest picture, as a share of its light.
      split: The records to read, in TFDS's syntax.
      seed: The seed of the drawing; another one draws other records.
      cache_dir: The directory of the cache; by default $XDG_CACHE_HOME/datamix, else ~/.cache/datamix.

    Raises:
      ConfigError: The split's syntax is not TFDS's, or there is no such split.
    """

    name: str
    class_names: tuple[str, ...]
    draw: Callable[[int, Vary], np.ndarray]
    _: KW_ONLY
    grain: float
    split: str
    seed: int
    cache_dir: str | None = None
    provenance: ClassVar[str] = "procedural"

    def __post_init__(self) -> None:
        self._ranges()

    @property
    def num_records(self) -> int:
        return sum(stop - start for _, start, stop in self._ranges())

    @property
    def spec(self) -> Spec:
        return {"image": LeafSpec((SIDE, SIDE, 1), "uint8"), "label": LeafSpec((), "int64")}

    def read(self) -> Arrays:
        """All records: image, uint8 [num_records, 28, 28, 1], and label, int64 [num_records]."""
        if self.num_records < _KEPT_FROM:
            return self._drawn()
        code = b"".join(Path(inspect.getfile(part)).read_bytes() for part in (Procedural, self.draw))
        place = CachePlace(
            cache_dir=cache_directory(self.cache_dir),
            name=f"{self.name}-{self.split}",
            # Code and NumPy are in the key, not the fingerprint, so that two environments that share a cache do not
            # keep making each other's entry stale.
            key={
                "drawn": self.name,
                "records": self._ranges(),
                "seed": self.seed,
                "code": hashlib.sha256(code).hexdigest(),
                "numpy": np.__version__,
            },
            fingerprint={},
        )
        return place.load(lambda: (self._drawn(), {})).arrays

    def _drawn(self) -> Arrays:
        image = np.empty((self.num_records, SIDE, SIDE, 1), np.uint8)
        label = np.empty(self.num_records, np.int64)
        done = 0
        for split, start, stop in self._ranges():
            part = slice(done, done + stop - start)
            order = self._generator(split, "label").permutation(_SIZES[split])
            label[part] = order[start:stop] % len(self.class_names)
            # Filled row by row, so a shorter table is the head of a longer one, and rows do not depend on the slice.
            uniforms = self._generator(split, "image").random((stop, _NUM_UNIFORMS), np.float32)[start:]
            self._draw_all(image[part, :, :, 0], label[part], uniforms)
            done = part.stop
        return {"image": image, "label": label}

    def _ranges(self) -> list[tuple[str, int, int]]:
        return resolve_split(self.split, _SIZES)

    def _generator(self, split: str, purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}/{self.name}/{split}/{purpose}".encode()).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))

    def _draw_all(self, image: np.ndarray, label: np.ndarray, uniforms: np.ndarray) -> None:
        for class_id in range(len(self.class_names)):
            records = np.flatnonzero(label == class_id)
            for chunk in np.split(records, range(_CHUNK_RECORDS, len(records), _CHUNK_RECORDS)):
                vary = Vary(uniforms[chunk])
                picture = self.draw(class_id, vary)
                picture *= 255 * _grain(vary, self.grain)
                image[chunk] = np.clip(picture, 0, 255, out=picture)


@functools.cache
def _grain_sheet() -> np.ndarray:
    # One sheet for all pictures: each takes a window at its own place, which is far cheaper than its own noise.
    noise = np.random.Generator(np.random.Philox(key=28)).standard_normal(1 << 16, np.float32)
    return np.lib.stride_tricks.sliding_window_view(np.clip(noise, -3, 3), SIDE * SIDE)


def _grain(vary: Vary, roughest: float) -> np.ndarray:
    """Factors around 1, float32, shape [records, 28, 28]."""
    sheet = _grain_sheet()
    grain: np.ndarray = sheet[vary(0, len(sheet) - 1).astype(np.int64)].reshape(-1, SIDE, SIDE)
    grain *= vary(0.01, roughest)[:, None, None]
    grain += 1
    return grain
