"""The look-up of each kind of period."""

from __future__ import annotations

from collections.abc import Mapping

from datamix.errors import ConfigError
from datamix.mixing.periods import Carried, Draws, Period, Queues, Runs, Table
from datamix.pipeline.lookup.base import SlotLookup
from datamix.pipeline.lookup.draws import DrawsLookup
from datamix.pipeline.lookup.queues import QueuesLookup
from datamix.pipeline.lookup.runs import RunsLookup
from datamix.pipeline.lookup.table import TableLookup

LOOKUPS: Mapping[type, type[SlotLookup]] = {
    Table: TableLookup,
    Carried: TableLookup,
    Runs: RunsLookup,
    Draws: DrawsLookup,
    Queues: QueuesLookup,
}


def lookup_of(period: Period) -> type[SlotLookup]:
    """The look-up of a period's kind.

    Raises:
      ConfigError: There is none for this kind.

    >>> lookup_of(Runs((2, 3))).__name__
    'RunsLookup'
    """
    for kind, lookup in LOOKUPS.items():
        if isinstance(period, kind):
            return lookup
    known = ", ".join(kind.__name__ for kind in LOOKUPS)
    raise ConfigError(
        f"the pipeline has no look-up for a period of the kind {type(period).__name__}; let the order return one of: "
        f"{known}."
    )
