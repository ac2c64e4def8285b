"""Processes that do part of the work: that one which fails is done without."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from datamix.sources import helpers
from datamix.sources.helpers import Helper


@pytest.fixture
def helper():
    helper = Helper("datamix.sources.decoding")
    yield helper
    helper.close()


def test_an_answer_fills_arrays(helper):
    is_ready = np.zeros(1, np.uint8)
    assert helper.ask([], [is_ready])
    assert is_ready == 1
    assert not helper.is_lost


def test_a_process_that_ends_is_lost(helper):
    helper.process.kill()
    assert not helper.ask([b"[]\n"], [np.zeros(1, np.uint8), np.zeros(1, np.uint8)])
    assert helper.is_lost
    assert not helper.ask([], [])


def test_one_that_is_interrupted_is_lost_as_half_an_answer_may_lie_in_the_pipe(helper):
    def interrupted():
        yield np.zeros(1, np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        helper.ask([], interrupted())
    assert helper.is_lost


def test_one_that_never_starts_is_lost(monkeypatch):
    monkeypatch.setattr(helpers.sys, "executable", shutil.which("true"))
    helper = Helper("datamix.sources.decoding")
    assert not helper.ask([], [np.zeros(1, np.uint8)])
    helper.close()
