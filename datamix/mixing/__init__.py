"""Plans: which record is at each position, from weights, an order and a stop.

Bottom up: `weights` and `groups` turn a user's numbers into exact shares, `weightings` derives weights from the sizes
of the sources, and `schedules` turns weights that change into phases. `orders` fill the `demand` of a stage with one
of the `periods`: usually a table (`table_fills`), or a table with swaps where no table holds the shares exactly
(`carrying`). `stops` say when a mix ends, and `stages` cuts it there. `shuffle` orders the records within a source,
unless `sampling` draws them; `record_lengths` is used where summed lengths follow the ratio. `plan_spec` resolves the
inputs of a plan, `locating` finds records by their position, `totals` counts what was given before one, `plan_report`
describes what a mix will do, and `plan` brings all of this together. `loss_weights` is independent of the rest.
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
