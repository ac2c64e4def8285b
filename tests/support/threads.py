"""Threads that do the same at the same time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def run_in_threads(work: Callable[[int], None], num_threads: int = 4) -> None:
    """Call a function with the number of each thread; they take turns every microsecond, so that they meet."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(num_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
