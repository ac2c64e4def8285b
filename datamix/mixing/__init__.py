"""Plans: which record stands where, from weights, an order and a stop.

Bottom up: `weights` and `groups` make exact shares of what a user says, `weightings` of the sources' sizes, and
`schedules` makes phases of them. `orders` meet the `demand` of a stage with one of the `periods`, mostly a table, see
`table_fills`, or one that carries what no table holds, see `carrying`. `stops` say when a mix ends, and `stages` cuts
it there. `shuffle` orders the records within a source, unless `sampling` draws them; `record_lengths` count where
lengths follow the ratio. `plan_spec` resolves a plan's inputs, `locating` finds records by their position, `totals`
are what was given before one, `plan_report` says what a mix will do, and `plan` is the front of all this.
`loss_weights` are apart.
"""

from __future__ import annotations

from types import ModuleType

from datamix import registry


@registry.builtin("order", "concat", "largest_credit", "proportional", "random", "round_robin")
def _orders() -> ModuleType:
    from datamix.mixing import orders

    return orders


@registry.builtin("stop", "all_exhausted", "exhaust_once", "first_exhausted", "forever")
def _stops() -> ModuleType:
    from datamix.mixing import stops

    return stops


@registry.builtin("weighting", "equal", "size")
def _weightings() -> ModuleType:
    from datamix.mixing import weightings

    return weightings
