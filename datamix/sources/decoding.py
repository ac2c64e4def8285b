"""Decoding of many images: one after the other, on threads, or by helpers.

Decoders release the GIL, but the code around them, some 30 µs per image, does not, and threads lose more time in
passing the GIL around. So threads decode the first images, and images that take long; helpers decode all others.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cache
from queue import SimpleQueue
from typing import IO

import numpy as np

from datamix.errors import DataError, DatamixError, InstallationError, unreadable
from datamix.sources.helpers import Helper, serve
from datamix.sources.images import ImageFormat, opencv, pillow, simplejpeg
from datamix.sources.long_work import num_cores

_MEASURED = 8  # images that are decoded first, to measure how long one takes
# Fewer images, or images that take less time, are not worth threads: passing the GIL on takes longer than decoding a
# small image.
_SPREAD_IMAGES, SPREAD_S = 64, 5e-5
CHUNK_S = 4e-3  # of decoding, in the chunk that a thread or a helper does at once
HELPED_AFTER_S = 0.4  # of decoding; starting a helper takes 0.2 s of CPU time
GIL_S = 5e-4  # per image and core; images that take longer spend next to no time waiting for the GIL
_MAX_HELPERS = 16


def decode_images(
    form: ImageFormat, content: Callable[[int], bytes], place: Callable[[int], str], out: np.ndarray
) -> None:
    """Decode images into the rows of an array. Once this returns or raises, no thread writes to the array any more.

    Args:
      form: The format to decode to.
      content: The function from a row to its encoded image; it raises DataError or OSError if it has none.
      place: The function from a row to where its image lies, in words.
      out: The array to fill, uint8, shape [images, height, width, channels].

    Raises:
      DataError: An image cannot be read; it names the first one.
    """
    _Images(form, content, place, out).decode()


@dataclass(frozen=True, eq=False)
class _Images:
    """The arguments of `decode_images`."""

    form: ImageFormat
    content: Callable[[int], bytes]
    place: Callable[[int], str]
    out: np.ndarray

    def decode(self) -> None:
        count = len(self.out)
        first = min(_MEASURED, count) if HELPERS.seconds(self.form) is None else 0
        if first:
            self._decode_chunk(range(first))
        seconds = HELPERS.seconds(self.form) or SPREAD_S
        step = max(1, min(int(CHUNK_S / seconds), -(-(count - first) // (2 * num_cores()))))
        chunks = (range(begin, min(begin + step, count)) for begin in range(first, count, step))
        if count - first < _SPREAD_IMAGES or not (seconds > SPREAD_S or HELPERS.are_there):
            for chunk in chunks:
                self._decode_chunk(chunk)
        else:
            self._spread(chunks)

    def _spread(self, chunks: Iterator[range]) -> None:
        """Decode chunks on all cores."""
        failed: dict[int, BaseException] = {}
        lock = threading.Lock()

        def work() -> None:
            while not failed:
                with lock:
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                try:
                    self._decode_chunk(chunk)
                except BaseException as error:  # of any kind, as the thread that waits raises it
                    failed[chunk.start] = error

        workers = [_pool().submit(work) for _ in range(num_cores())]
        try:
            wait(workers)
        finally:
            with lock:  # after Ctrl-C, workers find no more chunks
                for _ in chunks:
                    pass
            wait(workers)
        if failed:
            raise failed[min(failed)]

    def _decode_chunk(self, rows: range) -> None:
        """Decode some images by a helper, if there is one; if it fails, decode them here, which raises the error."""
        with HELPERS.one(self.form) as helper:
            begun = time.perf_counter()
            if helper is None or not self._is_decoded(helper, rows):
                self._decode_here(rows)
            HELPERS.note(self.form, time.perf_counter() - begun, len(rows))

    def _is_decoded(self, helper: Helper, rows: range) -> bool:
        with contextlib.suppress(DataError, OSError):
            contents = [self.content(row) for row in rows]
            head = json.dumps([asdict(self.form), [*map(len, contents)]]).encode()
            answer, out = np.zeros(1, np.uint8), self.out[rows.start : rows.stop]
            return helper.ask([head, b"\n", *contents], [answer, out]) and bool(answer[0])
        return False

    def _decode_here(self, rows: range) -> None:
        for row in rows:
            try:
                self.form.decode(self.content(row), self.out[row])
            except (DataError, OSError) as error:
                raise unreadable(self.place(row), error) from error


class Helpers:
    """The helpers of this process, which start once it has much to decode, and how long its images take.

    Args:
      allowed: Whether helpers may be started.

    Attributes:
      started: All helpers.
      free: The helpers without work.
      are_there: Whether any helper is ready for work.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._clear()

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[ImageFormat, float] = {}
        self._worked_s = 0.0
        self.started: list[Helper] = []
        self.free: SimpleQueue[Helper] = SimpleQueue()
        self.are_there = False

    def forget(self) -> None:
        """Use no helpers from now on. A forked process must not talk to those of its parent."""
        self._allowed = False
        self._clear()

    def seconds(self, form: ImageFormat) -> float | None:
        """How long decoding an image to a format takes, on average; None before the first one."""
        return self._seconds.get(form)

    def note(self, form: ImageFormat, seconds: float, count: int) -> None:
        """Record how many seconds `count` images took, and start helpers if there is much to do."""
        with self._lock:
            known = self._seconds.get(form, seconds / count)
            self._seconds[form] = known + (seconds / count - known) / 8
            self._worked_s += seconds
            if not self._allowed or self._worked_s < HELPED_AFTER_S:
                return
            self._allowed = False
        threading.Thread(target=self._start, daemon=True).start()

    def _start(self) -> None:
        """Start helpers; each becomes free once it has imported the decoders."""
        with contextlib.suppress(OSError):  # no process can be started, so this one works alone
            for _ in range(num_helpers()):
                self.started.append(Helper(__name__))
        for helper in self.started:
            if helper.ask([], [np.empty(1, np.uint8)]):
                self.free.put(helper)
                self.are_there = True

    @contextlib.contextmanager
    def one(self, form: ImageFormat) -> Iterator[Helper | None]:
        """A helper for images of a format; None if this process is to decode them."""
        if not self.are_there or self._seconds.get(form, 0.0) > GIL_S * num_cores():
            yield None
            return
        helper = self.free.get()
        try:
            yield helper
        finally:
            self.free.put(helper)

    def close(self) -> None:
        """End the processes."""
        for helper in self.started:
            helper.close()


def num_helpers() -> int:
    """One per core, but at most OMP_NUM_THREADS, which limits processes that share a machine; 0 instead of 1."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    most = min(num_cores(), _MAX_HELPERS, int(threads) if threads.isdecimal() else _MAX_HELPERS)
    return most if most > 1 else 0


def help_out() -> None:
    """Run a helper: it answers a line of JSON and encoded images with a byte, 1 for success, and their pixels."""
    serve(_answers)


def _answers(requests: IO[bytes]) -> Iterator[bytes | None]:
    for library in (pillow, simplejpeg, opencv):
        with contextlib.suppress(InstallationError):
            library()
    yield b"\1"
    yield None
    for line in requests:
        settings, sizes = json.loads(line)
        form = ImageFormat(**settings)
        out, is_done = np.zeros((len(sizes), *form.spec.shape), np.uint8), True
        for row, content in zip(out, [requests.read(size) for size in sizes], strict=True):
            try:
                form.decode(content, row)
            except DatamixError:
                is_done = False
        yield bytes([is_done])
        yield out.tobytes()
        yield None


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads that decode, one per core, for all callers together."""
    return ThreadPoolExecutor(num_cores(), "datamix-images")


HELPERS = Helpers(allowed=multiprocessing.parent_process() is None)
"""The helpers of this process; processes that `multiprocessing` has started have none."""

atexit.register(HELPERS.close)
os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
os.register_at_fork(after_in_child=HELPERS.forget)
