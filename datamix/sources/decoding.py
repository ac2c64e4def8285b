"""Decoding many images: one after the other, on threads, or by helpers.

Decoders let go of the GIL, but what stands around them does not, some 30 µs an image, and threads lose more time in
handing it to one another. So threads decode the first images, and such as take long; helpers decode all others.
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

_MEASURED = 8  # images that are decoded before it is known how long one takes
# Of fewer images, or such as take less time, threads of their own are not worth their start: small images take longer
# in handing the GIL over than in decoding.
_SPREAD_IMAGES, SPREAD_S = 64, 5e-5
CHUNK_S = 4e-3  # what a thread or a helper decodes at once
HELPED_AFTER_S = 0.4  # of decoding; to start a helper takes 0.2 s of a processor
GIL_S = 5e-4  # of an image that takes longer for each core, next to nothing is waiting for the GIL
_MAX_HELPERS = 16


def decode_images(
    form: ImageFormat, content: Callable[[int], bytes], place: Callable[[int], str], out: np.ndarray
) -> None:
    """Decode images into the rows of an array; none is being written any more when it returns or raises.

    Args:
      form: What they are decoded to.
      content: The function from a row to the encoded image; where it has none, it raises a DataError or an OSError.
      place: The function from a row to where its image lies, in words.
      out: The array to fill, uint8, shape [images, height, width, channels].

    Raises:
      DataError: The first image that cannot be read.
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
                except BaseException as error:  # of whatever kind: whoever waits gets it
                    failed[chunk.start] = error

        workers = [_pool().submit(work) for _ in range(num_cores())]
        try:
            wait(workers)
        finally:
            with lock:  # after Ctrl-C, nothing is left to those that still work
                for _ in chunks:
                    pass
            wait(workers)
        if failed:
            raise failed[min(failed)]

    def _decode_chunk(self, rows: range) -> None:
        """Decode some images, by a helper if there are any; here if it cannot, which says what is wrong."""
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
    """What is known of the images that this process decodes, and its helpers once there are any.

    Args:
      allowed: Whether there may be any.

    Attributes:
      started: All of them.
      free: Those that have no work.
      are_there: Whether any can be given work.
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
        """Do without helpers from now on, as in a forked process, which must not talk to those of the other one."""
        self._allowed = False
        self._clear()

    def seconds(self, form: ImageFormat) -> float | None:
        """How long an image takes that is decoded so; None where none has been."""
        return self._seconds.get(form)

    def note(self, form: ImageFormat, seconds: float, count: int) -> None:
        """Note how long some images took, and start helpers if there is much to do."""
        with self._lock:
            known = self._seconds.get(form, seconds / count)
            self._seconds[form] = known + (seconds / count - known) / 8
            self._worked_s += seconds
            if not self._allowed or self._worked_s < HELPED_AFTER_S:
                return
            self._allowed = False
        threading.Thread(target=self._start, daemon=True).start()

    def _start(self) -> None:
        """Start helpers; each is there for others when it has imported what decodes."""
        with contextlib.suppress(OSError):  # no process can be had: this one does it alone
            for _ in range(num_helpers()):
                self.started.append(Helper(__name__))
        for helper in self.started:
            if helper.ask([], [np.empty(1, np.uint8)]):
                self.free.put(helper)
                self.are_there = True

    @contextlib.contextmanager
    def one(self, form: ImageFormat) -> Iterator[Helper | None]:
        """A helper for images that are decoded so; None where this process decodes them."""
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
    """One a core, but no more than the threads that this process may have where it shares a machine; none for one."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    most = min(num_cores(), _MAX_HELPERS, int(threads) if threads.isdecimal() else _MAX_HELPERS)
    return most if most > 1 else 0


def help_out() -> None:
    """The main function of a helper: it answers a line of JSON and encoded images with a byte, 1, and their pixels."""
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
    """The threads that decode, as many as there are cores, whoever asks."""
    return ThreadPoolExecutor(num_cores(), "datamix-images")


HELPERS = Helpers(allowed=multiprocessing.parent_process() is None)
"""The helpers of this process; others of several that share the work have none."""

atexit.register(HELPERS.close)
os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads
os.register_at_fork(after_in_child=HELPERS.forget)
