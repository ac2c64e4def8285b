"""Helper processes that do part of the work: each has its own interpreter, and so its own GIL.

A helper is a new Python process, not a fork. It reads requests from its standard input, and writes bytes as answers to
its standard output. It ends when this process does, since that closes its standard input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import IO

import numpy as np

_F_SETPIPE_SZ, _PIPE_BYTES = 1031, 2**20  # the size that Linux allows any user; its default is 64 KiB


class Helper:
    """A process that answers requests. If it fails, it is lost, and this process has to do the work.

    Args:
      module: The name of the module whose function `help_out` the process runs; see `serve`.

    Attributes:
      is_lost: Whether the process will not answer any more.
      process: The process.

    Raises:
      OSError: The process cannot be started.
    """

    def __init__(self, module: str) -> None:
        self.is_lost = False
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {module} import help_out; help_out()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            for pipe in (self._requests, self._answers):
                fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)

    def ask(self, request: Iterable[bytes], into: Iterable[np.ndarray]) -> bool:
        """Send a request, and wait for the answer.

        Args:
          request: The parts of the request, one after the other.
          into: The arrays that the answer fills.

        Returns:
          Whether all of them are filled; if not, the helper is lost.
        """
        if self.is_lost:
            return False
        self.is_lost = True  # until the answer is complete: Ctrl-C would leave half of it in the pipe
        with contextlib.suppress(OSError):
            self._requests.writelines(request)
            self._requests.flush()
            self.is_lost = not all(map(self._fetch, into))
        return not self.is_lost

    def _fetch(self, array: np.ndarray) -> bool:
        content = self._answers.read(array.nbytes)
        if len(content) < array.nbytes:
            return False
        array[...] = np.frombuffer(content, array.dtype).reshape(array.shape)
        return True

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def serve(answer: Callable[[IO[bytes]], Iterable[bytes | None]]) -> None:
    """Answer requests until there are no more; the `help_out` of a module calls this in a helper.

    Args:
      answer: A function that reads requests from a stream, and yields the parts of the answers, with None after each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that printed text does not end up among the answers
    for part in answer(sys.stdin.buffer):
        if part is None:
            answers.flush()
        else:
            answers.write(part)
