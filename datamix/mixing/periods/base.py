"""The contract of a period: the slots of one stage of a plan.

A period is an endless sequence of slots, numbered from 0, each for one record (or one whole batch) of one source. It
answers three questions, in most kinds without walking there: which source has a slot, how many slots each source has
before it, and which is the n-th slot of a source. A new kind of period is one file here, and one for its look-up in
the compiled pipeline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np


class Period(ABC):
    """The slots of one stage.

    Every kind of period derives from this class. The default properties are those of a period that never repeats,
    follows the shares it was filled for and is never walked.
    """

    @property
    def length(self) -> int | None:
        """The number of slots after which the sequence repeats; None where it never does."""
        return None

    @property
    def quota(self) -> np.ndarray | None:
        """The slots of each source within `length`, int64 [num_sources]; None where the sequence never repeats."""
        return None

    @property
    def sets_shares(self) -> bool:
        """Whether the period itself determines the shares, regardless of those it was filled for."""
        return False

    @property
    def repeats_records(self) -> bool:
        """Whether a record may be given again before all others of its source have been."""
        return False

    @property
    def max_walk(self) -> int | None:
        """The largest number of slots that may be walked to find a slot; None where none is walked."""
        return None

    @property
    def most_counted(self) -> int | None:
        """The largest number of slots that may be walked to count those of each source; None where none is walked."""
        return None

    @abstractmethod
    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The slots [start, start + count).

        Returns:
          The source of each slot, int32 [count], and how many slots of the period that source has before it, int64
          [count].
        """

    @abstractmethod
    def counts(self, slot: int) -> list[int]:
        """The number of slots that each source has before `slot`."""

    @abstractmethod
    def slot_of(self, source: int, number: int) -> int:
        """The slot of a source that has `number` slots of the same source before it."""

    def last_of(self, numbers: Mapping[int, int]) -> int:
        """The last of `slot_of(source, number)` over some sources and the number for each."""
        return max(self.slot_of(source, number) for source, number in numbers.items())
