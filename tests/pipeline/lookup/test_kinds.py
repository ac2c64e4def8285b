"""Each kind of period brings its look-up; what they give is for test_locate."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.mixing.periods import Draws, Period, Runs, Table
from datamix.pipeline.lookup.draws import DrawsLookup
from datamix.pipeline.lookup.kinds import lookup_of
from datamix.pipeline.lookup.runs import RunsLookup
from datamix.pipeline.lookup.table import TableLookup

TABLE = Table(np.asarray([0, 1, 0], np.int32), 2)
RUNS = Runs((2, 3))
DRAWS = Draws(np.asarray([2**30, 2**31], np.uint32), 0, (1, 2), replacement=False)


class Spiral(Table):
    """A special kind of table."""


class Unknown(Period):
    """No kind of period that has a look-up."""

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def counts(self, slot: int) -> list[int]:
        raise NotImplementedError

    def slot_of(self, source: int, number: int) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("period", "lookup"),
    [
        (TABLE, TableLookup),
        (Spiral(TABLE.source_of, 2), TableLookup),
        (RUNS, RunsLookup),
        (DRAWS, DrawsLookup),
    ],
)
def test_the_look_up_of_a_kind(period: Period, lookup: type) -> None:
    assert lookup_of(period) is lookup


def test_an_unknown_kind_is_refused() -> None:
    message = (
        "the pipeline has no look-up for a period of the kind Unknown; let the order return one of: Table, Carried, "
    )
    with pytest.raises(ConfigError, match=message):
        lookup_of(Unknown())
