"""What the look-ups of all kinds of period check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datamix.errors import ConfigError
from datamix.mixing.periods import Runs, Table
from datamix.mixing.plan import Plan
from datamix.pipeline.lookup.base import check_counts, periods_of

RUNS = Runs((2, 3))


def test_stages_of_several_kinds_are_refused() -> None:
    stage = Plan({"a": 3, "b": 4}, stop="forever").stages[0]
    with pytest.raises(
        ConfigError, match=r"periods of several kinds \(Runs, Table\); let it give one kind for all stages"
    ):
        periods_of([stage, replace(stage, period=RUNS)], Table)


def test_stages_of_one_kind_are_taken() -> None:
    stages = Plan({"a": 3, "b": 4}, stop="exhaust_once").stages
    assert len(stages) > 1
    assert periods_of(stages, Table) == [stage.period for stage in stages]


def test_counts_that_would_overflow_are_refused() -> None:
    plan = Plan({"a": 3, "b": 4}, stop="forever")
    check_counts(plan, [(2**30, 5)], [2**30 + 5])
    for quota, length in ((2**31, 5), (5, 2**31)):
        with pytest.raises(ConfigError, match=rf"^this mix passes {quota:,} records of one source in a cycle of its "):
            check_counts(plan, [(quota, 1)], [length])
