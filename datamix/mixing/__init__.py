"""Plans: which record stands where, from weights, an order and a stop.

Bottom up: `weights` and `groups` make exact shares of what a user says, and `schedules` makes phases of them.
`orders` meet the `demand` of a stage with one of the `periods`, mostly a table, see `table_fills`. `stops` say when a
mix ends, and `stages` cuts it there. `plan_spec` resolves a plan's inputs, `lookup` finds records by their position,
`plan_report` says what a mix will do, and `plan` is the front of all this.
"""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("order", "concat", "largest_credit", "proportional", "random", "round_robin")
def _order(name: str) -> Any:
    from datamix.mixing import orders

    return getattr(orders, name)


@registry.builtin("stop", "all_exhausted", "exhaust_once", "first_exhausted", "forever")
def _stop(name: str) -> Any:
    from datamix.mixing import stops

    return getattr(stops, name)


@registry.builtin("weighting", "equal", "size")
def _weighting(name: str) -> Any:
    from datamix.mixing import weightings

    return getattr(weightings, name)
