"""The launcher that trains jobs together; what it trains is in tests/test_train.py."""

from __future__ import annotations

import pytest

from datamix.errors import ConfigError
from datamix.sweeps.launching import check_execution

PLAN = ["-m", "job=plan", "source=digits+garments", "seed=0,1", "hydra/launcher=vmap"]


def test_jobs_that_train_nothing_run_one_after_another(call_datamix):
    ended = call_datamix(*PLAN, "-v")
    assert (ended.code, ended.err) == (0, "")
    assert [report["seed"] for report in ended.reports] == [0, 1]


def test_a_way_to_execute_that_there_is_not():
    for execution in ("auto", "threads", "vmap"):
        check_execution(execution)
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.execution = 'thread'\. Did you mean 'threads'\?"):
        check_execution("thread")
