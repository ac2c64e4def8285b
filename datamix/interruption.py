"""Signals that end a run: noted whenever they come, raised where nothing swallows them or is left half done.

Python runs a signal's handler between any two instructions. What it raises in a callback of the garbage collector or in
a destructor is printed and forgotten; within an import it leaves a module half initialised, and C code may turn it into
an ImportError. There the signal is noted, and comes again a moment later.
"""

from __future__ import annotations

import _thread
import _weakrefset
import gc
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.02
# Where nothing may be raised: imports, and what is called back when an object that is weakly referred to is gone.
_SWALLOWING = ("<frozen importlib", weakref.__file__, _weakrefset.__file__)
_received: int | None = None
_depth = 0
_waits = False


@contextmanager
def ended_by(*numbers: int) -> Iterator[None]:
    """Let signals end what runs inside: SIGINT as Ctrl-C does, any other by `SystemExit` with the shell's exit code.

    In a thread other than the main one, signals are not this code's to handle; one that is ignored stays so.

    Args:
      numbers: The numbers of the signals.

    Raises:
      KeyboardInterrupt: SIGINT has come.
      SystemExit: Another signal has come.
    """
    global _depth, _received  # a process has one handler for each signal
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _depth:
        _received = None
    before = {number: signal.getsignal(number) for number in numbers}
    _depth += 1
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _handle)
        yield
        check()
    finally:
        _depth -= 1
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def waiting() -> Iterator[None]:
    """Let the first signal that comes inside wait for the next `check()`; a second one ends what runs at once."""
    global _waits
    _waits, before = True, _waits
    try:
        yield
    finally:
        _waits = before


def received() -> bool:
    """Whether a signal has come that ends the run."""
    return _depth > 0 and _received is not None


def check() -> None:
    """End the run here if a signal has come, even if what it raised was swallowed."""
    if received():
        raise _ending()


def instead_of(error: BaseException) -> BaseException:
    """The cause that has ended the run: the signal if one has come, otherwise an error."""
    return _ending() if received() and isinstance(error, Exception) else error


def _ending() -> BaseException:
    assert _received is not None
    return KeyboardInterrupt() if _received == signal.SIGINT else SystemExit(128 + _received)


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    is_first, _received = _received is None, number
    if _waits and is_first:
        return
    if not _would_be_lost(frame):
        raise _ending()
    timer = threading.Timer(_AGAIN_S, _send_again, (number,))
    timer.daemon = True
    timer.start()


def _send_again(number: int) -> None:
    if received():
        _thread.interrupt_main(signal.Signals(number))


def _would_be_lost(frame: FrameType | None) -> bool:
    """Whether an exception that is raised here would be swallowed, or break an import."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        if code in callbacks or code.co_name == "__del__" or code.co_filename.startswith(_SWALLOWING):
            return True
        frame = frame.f_back
    return False
