"""Tables of slots that repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datamix.mixing.periods.table import Table


def test_exact_slots() -> None:
    table = Table.of([0, 2, 2, 0, 0], 3)
    assert (table.length % 5, table.length > 1000) == (0, True)  # unrolled, so that the pipeline seldom wraps
    source, number = table.take(3, 7)
    assert source.tolist() == [0, 0, 0, 2, 2, 0, 0]
    assert number.tolist() == [1, 2, 3, 2, 3, 4, 5]
    assert table.counts(7) == [4, 0, 3]
    assert [table.slot_of(0, 4), table.slot_of(2, 2)] == [8, 6]
    assert (table.sets_shares, table.repeats_records, table.max_walk) == (False, False, None)


def test_a_table_may_be_as_short_as_it_is() -> None:
    table = Table(np.asarray([1, 0, 1], np.int32), 2)
    assert (table.length, table.quota.tolist(), table.rank_of.tolist()) == (3, [1, 2], [0, 0, 1])
    assert [slots.tolist() for slots in table.slots] == [[1], [0, 2]]
    assert Table.unrolled(table.source_of, 2, most=7).source_of.tolist() == [1, 0, 1, 1, 0, 1]
    assert Table.unrolled(table.source_of, 2, most=2).length == 3
    assert Table.unrolled(np.arange(5000), 5000).length == 10_000


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], r"^a table has one whole number for each slot, at least one; not float64\[0\]$"),
        ([0.5], r"not float64\[1\]$"),
        ([0, 3], r"^source ids lie from 0 to 2; these lie from 0 to 3$"),
        ([-1], r"^source ids lie from 0 to 2; these lie from -1 to -1$"),
    ],
)
def test_ids_that_make_no_table(ids: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table.of(ids, 3)
