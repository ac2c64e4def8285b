"""The kinds of period that fill the stages of a plan, one file each; `base` is the contract of a period."""

from datamix.mixing.periods.base import Period
from datamix.mixing.periods.carried import Carried
from datamix.mixing.periods.draws import MAX_DRAWS, Draws
from datamix.mixing.periods.queues import Queues
from datamix.mixing.periods.runs import Runs
from datamix.mixing.periods.table import Table

__all__ = ["MAX_DRAWS", "Carried", "Draws", "Period", "Queues", "Runs", "Table"]
