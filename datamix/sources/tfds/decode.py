"""Decoding of the records of a prepared TFDS dataset, on all cores.

Decoding a small image holds the GIL nearly all the time, so several threads are no faster than one; helpers are.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datamix.errors import DataError
from datamix.sources.helpers import Helper, serve
from datamix.sources.long_work import num_cores
from datamix.spec import Arrays

if TYPE_CHECKING:
    from datamix.sources.images import ImageFormat

CHUNK_RECORDS = 256
HELPED_RECORDS = 20_000  # a helper takes some two seconds to start, in which one process decodes 10,000 small images
# Several threads take twice as long as one at 28×28×1, equally long at 64×64×3, two thirds as long at 256×256×3.
THREAD_RECORD_BYTES = 40_000
_MAX_WORKERS = 8


class FilePart(NamedTuple):
    """Records `start` to `stop`, exclusive, of a split; all lie in one file, the split's shard number `shard`."""

    split: str
    shard: int
    start: int
    stop: int


class DamageError(ValueError):
    """Raised when records do not match the description of their dataset."""


class TfdsReader:
    """A reader of a prepared dataset; `form` is the format to which images are decoded, None for TFDS's own.

    `take` and `fill` read any record without TensorFlow, in the formats that allow it.
    """

    def __init__(self, directory: str, file_format: str, form: ImageFormat | None = None) -> None:
        import tensorflow_datasets as tfds

        self.directory, self.file_format, self.form = directory, file_format, form
        self.builder = tfds.builder_from_directory(directory)
        # The argument file_format of builder_from_directory allows only the first of several formats.
        self.builder.info.set_file_format(file_format, override=True, override_if_initialized=True)
        features = self.builder.info.features
        images = {name: each for name, each in features.items() if isinstance(each, tfds.features.Image)}
        self.images = {name for name, each in images.items() if np.dtype(each.np_dtype).kind == "u"}
        self._opened: dict[Any, Any] = {}

    def decoders(self, wanted: Collection[str]) -> dict[str, Any]:
        """TFDS's decoders, which skip images that are not wanted, and all images if `form` decodes them."""
        import tensorflow_datasets as tfds

        return {name: tfds.decode.SkipDecoding() for name in self.images if self.form or name not in wanted}

    def fill(self, part: FilePart, start: int, arrays: Arrays) -> None:
        """Decode records into `arrays`, from record `start` of a part on."""
        self.take(part, range(start, start + len(next(iter(arrays.values())))), arrays)

    def take(self, part: FilePart, records: Sequence[int], arrays: Arrays) -> None:
        """Decode some records of a part, by their indices in it, into `arrays`."""
        key = (part, *sorted(arrays))
        if key not in self._opened:
            self._opened[key] = self.builder.as_data_source(split=instruction(part), decoders=self.decoders(arrays))
        decoded = self._opened[key].__getitems__(records)
        for leaf, array in arrays.items():
            values = [record[leaf] for record in decoded]
            if leaf in self.images and self.form:
                self.resize(values, array)
                continue
            for value in values:
                if np.shape(value) != array.shape[1:]:
                    raise _misshapen(leaf, np.shape(value), array.shape[1:])
            assign(array, np.asarray(values), leaf)

    def resize(self, values: Iterable[bytes], array: np.ndarray) -> None:
        """Decode encoded images into rows of `array`; DamageError if one is damaged."""
        assert self.form is not None
        for value, row in zip(values, array, strict=True):
            try:
                self.form.decode(value, row)
            except DataError as error:
                raise DamageError(f"an image: {error}") from error


class HelpedReader:
    """A reader in a helper; if that fails, this process reads, and raises the error."""

    def __init__(self, reader: TfdsReader, arrays: Arrays) -> None:
        spec = {leaf: [array.shape[1:], str(array.dtype)] for leaf, array in arrays.items()}
        self._reader, self.helper = reader, Helper(__name__)
        self.helper.ask(_line([reader.directory, reader.file_format, spec]), ())

    def fill(self, part: FilePart, start: int, arrays: Arrays) -> None:
        if not self.helper.ask(_line([*part, start, len(next(iter(arrays.values())))]), arrays.values()):
            self._reader.fill(part, start, arrays)


def _line(message: list[Any]) -> list[bytes]:
    return [json.dumps(message).encode(), b"\n"]


def help_out() -> None:
    """Run a helper: it answers ranges of records, one per line, with the bytes of their leaves."""
    serve(_answers)


def _answers(requests: IO[bytes]) -> Iterator[bytes | None]:
    directory, file_format, spec = json.loads(requests.readline())
    reader = TfdsReader(directory, file_format)
    for line in requests:
        *part, start, count = json.loads(line)
        arrays = {leaf: np.empty((count, *shape), dtype) for leaf, (shape, dtype) in spec.items()}
        reader.fill(FilePart(*part), start, arrays)
        yield from (array.tobytes() for array in arrays.values())
        yield None


def instruction(part: FilePart) -> Any:
    """TFDS's instruction to read the records of a part."""
    import tensorflow_datasets as tfds

    return tfds.core.ReadInstruction(part.split, from_=part.start, to=part.stop, unit="abs")


def assign(array: np.ndarray, records: np.ndarray, leaf: str) -> None:
    """Copy records into an array; DamageError if the shapes differ."""
    if records.shape != array.shape:  # NumPy would broadcast a length of 1
        raise _misshapen(leaf, records.shape, array.shape)
    array[...] = records


def _misshapen(leaf: str, shape: Sequence[int], expected: Sequence[int]) -> DamageError:
    return DamageError(f"{leaf!r} has shape {list(shape)}, not {list(expected)}")


Guard = Callable[[FilePart], contextlib.AbstractContextManager[None]]
"""Blames errors in reading a part on its file."""


def decode(reader: TfdsReader, parts: Sequence[FilePart], arrays: Arrays, guard: Guard) -> Iterator[int]:
    """Fill `arrays` with the records of all parts, in order; yields the number of records that each step has done."""
    chunks, done = [], 0
    for part in parts:
        size = part.stop - part.start
        starts = range(0, size, CHUNK_RECORDS)
        chunks += [(part, start, done + start, min(CHUNK_RECORDS, size - start)) for start in starts]
        done += size
    num_workers = min(num_cores(), _MAX_WORKERS)
    readers: SimpleQueue[TfdsReader | HelpedReader] = SimpleQueue()
    readers.put(reader)
    with contextlib.ExitStack() as stack:
        # Resizing releases the GIL, so threads are enough.
        if reader.form or sum(array[:1].nbytes for array in arrays.values()) > THREAD_RECORD_BYTES:
            for _ in range(num_workers - 1):
                readers.put(reader)
        elif done >= HELPED_RECORDS:
            with contextlib.suppress(OSError):  # no process can be started, so this one works alone
                for _ in range(num_workers - 1):
                    helped = HelpedReader(reader, arrays)
                    stack.callback(helped.helper.close)
                    readers.put(helped)

        def fill(part: FilePart, start: int, at: int, count: int) -> int:
            free_reader = readers.get()
            try:
                with guard(part):
                    free_reader.fill(part, start, {leaf: array[at : at + count] for leaf, array in arrays.items()})
            finally:
                readers.put(free_reader)
            return count

        pool = stack.enter_context(ThreadPoolExecutor(readers.qsize()))
        try:
            for future in as_completed([pool.submit(fill, *chunk) for chunk in chunks]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def decode_in_order(reader: TfdsReader, parts: Sequence[FilePart], arrays: Arrays, guard: Guard) -> Iterator[int]:
    """The same as `decode` for formats that only TensorFlow reads, from the first record to the last."""
    with _quiet_import():
        import tensorflow as tf
        import tensorflow_datasets as tfds

        with contextlib.suppress(RuntimeError):  # already initialised: it then keeps its devices
            tf.config.set_visible_devices([], "GPU")  # otherwise it would take all of their memory
    start, features = 0, reader.decoders(arrays)
    for part in parts:
        with guard(part):
            records = reader.builder.as_dataset(split=instruction(part), shuffle_files=False, decoders=features)
            records = records.map(lambda record: {leaf: record[leaf] for leaf in arrays}).batch(CHUNK_RECORDS)
            try:
                for batch in tfds.as_numpy(records):
                    stop = start + len(next(iter(batch.values())))
                    for leaf, array in arrays.items():
                        if reader.form and leaf in reader.images:
                            reader.resize(batch[leaf], array[start:stop])
                        else:
                            assign(array[start:stop], batch[leaf], leaf)
                    yield stop - start
                    start = stop
            except tf.errors.OpError as error:
                raise DamageError(re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message)) from error


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Suppress what TensorFlow logs about the machine, unless `TF_CPP_MIN_LOG_LEVEL=0` asks for all that it logs.

    Messages from before its logging is set up go to stderr, whatever that variable says.
    """
    stderr = None
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") != "0":
        with contextlib.suppress(OSError):  # it may be closed
            stderr = os.dup(2)
    if stderr is None:
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123  # no path of a file
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Suppress TFDS's advice to install OpenCV, and nothing else that it logs."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("OpenCV is not installed")

    logger = logging.getLogger("absl")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
