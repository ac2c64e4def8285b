"""Signals that end a run: recorded on arrival, raised where nothing swallows the exception or is left half done.

Python runs a signal handler between any two instructions. An exception that it raises in a callback of the garbage
collector or in a destructor is printed and dropped; during an import it leaves a module half initialised, and C code
may turn it into an ImportError. In these places the signal is only recorded, and sent again a moment later.
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
# Code in which nothing may be raised: imports, and the callbacks of weak references.
_SWALLOWING = ("<frozen importlib", weakref.__file__, _weakrefset.__file__)
_received: int | None = None
_depth = 0
_waits = False


@contextmanager
def ended_by(*numbers: int) -> Iterator[None]:
    """Let signals end the block: SIGINT as Ctrl-C does, any other by `SystemExit` with the shell's exit code.

    In a thread other than the main one this does nothing. Signals that are ignored stay ignored.

    Args:
      numbers: The numbers of the signals.

    Raises:
      KeyboardInterrupt: SIGINT has arrived.
      SystemExit: Another signal has arrived.
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
    """Defer the first signal inside the block to the next `check()`; a second one ends the run at once."""
    global _waits
    _waits, before = True, _waits
    try:
        yield
    finally:
        _waits = before


def received() -> bool:
    """Whether a signal that ends the run has arrived."""
    return _depth > 0 and _received is not None


def check() -> None:
    """End the run here if a signal has arrived, even if its exception was swallowed."""
    if received():
        raise _ending()


def instead_of(error: BaseException) -> BaseException:
    """The cause that ended the run: the exception of the signal if one has arrived, otherwise `error`."""
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
    """Whether an exception raised in this frame would be swallowed, or break an import."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        if code in callbacks or code.co_name == "__del__" or code.co_filename.startswith(_SWALLOWING):
            return True
        frame = frame.f_back
    return False
