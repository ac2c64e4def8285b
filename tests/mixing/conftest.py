"""What tests of several mixing modules share."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.mixing.periods import Draws


@pytest.fixture
def drawn_slots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of slots of every draw, as they are drawn."""
    drawn: list[int] = []
    sources = Draws.sources

    def counted(self: Draws, start: int, count: int) -> np.ndarray:
        drawn.append(count)
        return sources(self, start, count)

    monkeypatch.setattr(Draws, "sources", counted)
    return drawn
