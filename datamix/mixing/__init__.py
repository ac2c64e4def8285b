"""Plans: which record stands where, from weights, an order and a stop.

Bottom up: `weights` and `groups` make exact shares of what a user says, and `schedules` makes phases of them.
`orders` meet the `demand` of a stage with one of the `periods`, mostly a table, see `table_fills`. `stops` say when a
mix ends, and `stages` cuts it there. `plan_spec` resolves a plan's inputs, `locating` finds records by their position,
`plan_report` says what a mix will do, and `plan` is the front of all this.
"""

from __future__ import annotations

from datamix import registry

registry.builtin("order", f"{__name__}.orders", "concat", "largest_credit", "proportional", "random", "round_robin")
registry.builtin("stop", f"{__name__}.stops", "all_exhausted", "exhaust_once", "first_exhausted", "forever")
registry.builtin("weighting", f"{__name__}.weightings", "equal", "size")
