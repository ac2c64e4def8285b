"""Signals are noted wherever they come, and end what they are to end."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from datamix.interruption import check, ended_by, instead_of, received, waiting

SEND = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"


def wait() -> None:
    """Long enough for a signal that comes again."""
    time.sleep(5)
    pytest.fail("nothing has ended it")


@pytest.mark.parametrize(
    ("number", "kind", "code"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_a_signal_ends_what_runs(number: int, kind: type[BaseException], code: int | None) -> None:
    before = signal.getsignal(number)

    def work() -> None:
        with ended_by(number):
            os.kill(os.getpid(), number)
            wait()

    with pytest.raises(kind) as raised:
        work()
    assert getattr(raised.value, "code", None) == code
    assert signal.getsignal(number) is before
    assert not received()


@pytest.mark.slow
def test_in_a_callback_of_the_garbage_collector() -> None:
    reached = []

    def callback(phase: str, _info: object) -> None:
        if phase == "start" and not reached:
            reached.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(1000))
            reached.append(2)  # nothing was raised in between

    def work() -> None:
        with ended_by(signal.SIGTERM):
            gc.callbacks.append(callback)
            gc.collect()
            wait()

    try:
        with pytest.raises(SystemExit):
            work()
    finally:
        gc.callbacks.remove(callback)
    assert reached == [1, 2]


@pytest.mark.slow
def test_within_an_import_which_then_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_of_it.py").write_text(f"{SEND}\nwhole = sum(range(1000))\n")
    monkeypatch.syspath_prepend(tmp_path)

    def work() -> None:
        with ended_by(signal.SIGTERM):
            importlib.import_module("half_of_it")
            wait()

    with pytest.raises(SystemExit):
        work()
    assert sys.modules.pop("half_of_it").whole == 499500


def test_one_that_is_swallowed_ends_it_at_the_next_check() -> None:
    class Thing:
        pass

    def swallowed(_reference: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))

    thing = Thing()
    reference = weakref.ref(thing, swallowed)
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    things, steps = [thing], []
    del thing

    def work() -> None:
        with ended_by(signal.SIGINT, signal.SIGTERM):
            things.clear()
            steps.append(1)
            assert received()
            assert isinstance(instead_of(ImportError()), SystemExit)
            check()
            steps.append(2)

    try:
        with pytest.raises(SystemExit) as raised:
            work()
    finally:
        sys.unraisablehook = unraisable
    assert (raised.value.code, steps, reference()) == (143, [1], None)
    check()  # it is over
    assert isinstance(instead_of(error := ImportError()), ImportError)
    assert instead_of(error) is error


def test_the_end_of_a_block_is_a_check_and_an_inner_block_leaves_it_to_the_outer_one() -> None:
    def work() -> None:
        with ended_by(signal.SIGINT):
            with suppress(SystemExit), ended_by(signal.SIGTERM):
                os.kill(os.getpid(), signal.SIGTERM)
                wait()
            assert received()

    with pytest.raises(SystemExit):
        work()


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ended_by(signal.SIGTERM):
            os.kill(os.getpid(), signal.SIGTERM)
            sum(range(1000))
            assert not received()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_handles_no_signals() -> None:
    ran = []

    def work() -> None:
        with ended_by(signal.SIGTERM):
            ran.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [signal.getsignal(signal.SIGTERM)]


def test_where_signals_wait_the_first_ends_at_the_next_check_and_the_second_at_once() -> None:
    reached = []

    def work(*, twice: bool) -> None:
        with ended_by(signal.SIGTERM), waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(received())
            if twice:
                os.kill(os.getpid(), signal.SIGTERM)
                wait()
            check()
            wait()

    for twice in (False, True):
        with pytest.raises(SystemExit, match="143"):
            work(twice=twice)
    assert reached == [True, True]
