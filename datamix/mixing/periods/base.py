"""The contract of a period: the slots of one stage of a plan.

A period is an endless sequence of slots, numbered from 0, each for one record (or one whole batch) of one source. It
answers three questions without walking there: which source has a slot, how many slots had each source before it, and
which is a source's n-th slot. A new kind of period is one file here, and one for its look-up in the compiled pipeline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np


class Period(ABC):
    """The slots of one stage.

    A kind of period derives from this class, which has the properties of a period that follows the shares it was
    filled for.
    """

    @property
    def length(self) -> int | None:
        """Slots after which the sequence repeats; None where it never does."""
        return None

    @property
    def quota(self) -> np.ndarray | None:
        """Slots of each source within `length`, int64 [num_sources]; None where the sequence never repeats."""
        return None

    @property
    def sets_shares(self) -> bool:
        """Whether the period itself decides the shares, whatever shares it was filled for."""
        return False

    @property
    def repeats_records(self) -> bool:
        """Whether a record may come again before all others of its source have come."""
        return False

    @property
    def max_walk(self) -> int | None:
        """The number of slots that may be walked to find one of them; None where it is found without walking."""
        return None

    @property
    def most_counted(self) -> int | None:
        """The number of slots that may be walked to count those of each source; None where none is walked."""
        return None

    @abstractmethod
    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The slots [start, start + count).

        Returns:
          The source of each slot, int32 [count], and how many slots it had before this one, int64 [count].
        """

    @abstractmethod
    def counts(self, slot: int) -> list[int]:
        """The number of slots that each source has before `slot`."""

    @abstractmethod
    def slot_of(self, source: int, number: int) -> int:
        """The slot that a source has `number` slots before."""

    def last_of(self, numbers: Mapping[int, int]) -> int:
        """The last of the slots that some sources have a number of slots before, by source."""
        return max(self.slot_of(source, number) for source, number in numbers.items())
