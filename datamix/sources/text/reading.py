"""The documents in text files, JSON lines, Parquet files and Arrow files."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from datamix.errors import ConfigError, DataError, expanded, hint
from datamix.sources.arrow import ArrowFile
from datamix.sources.columns import reading
from datamix.sources.files import Paths, files_of, not_utf8
from datamix.sources.parquet import ParquetFile, saved_files

SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".parquet", ".arrow")
PAIR = ("prompt", "completion")
"""The columns of documents in two parts; a model learns only the second part."""

Document = tuple[str, ...]
"""A text, or a prompt and its completion."""

BATCH_CHARACTERS = 2**22
_ROWS = 1024  # read from a table at a time


def text_files(path: Paths) -> dict[str, tuple[Path, ...]]:
    """The files of each split: those of `datamix.sources.files.files_of`, or those in a folder of `save_to_disk`."""
    saved = saved_files(expanded(path)) if isinstance(path, str) else None
    return files_of(path, suffixes=SUFFIXES) if saved is None else saved


def splits_lines(path: Path) -> bool:
    """Whether a text file has no blank line between others, so that each line is a document."""
    has_text = is_divided = False
    with _opened(path) as (lines, _):
        for line in lines:
            if not line.strip():
                is_divided = has_text
            elif is_divided:
                return False
            else:
                has_text = True
    return True


def batches(path: Path, *, column: str, by_line: bool) -> Iterator[tuple[int, list[Document]]]:
    """Read the documents of a file in batches, which are the same each time.

    Args:
      column: The column of the text. If it is `text` and does not exist, `prompt` and `completion` are read together.
      by_line: Whether each line of a text file is a document; otherwise blank lines divide them.

    Yields:
      The number of bytes of the file read so far, and a batch of documents.

    Raises:
      DataError: The file is damaged or no UTF-8, or a text is missing; it names the line or row.
      ConfigError: There is no such column.
    """
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    with _opened(path) as (lines, raw):
        if suffix == "txt":
            documents = _paragraphs(path, lines, by_line=by_line)
        else:
            records = _json_lines(path, lines) if suffix == "jsonl" else _rows(path, column)
            documents = _texts(path, records, column)
        batch: list[Document] = []
        size = 0
        for document in documents:
            batch.append(document)
            size += sum(map(len, document)) + 1
            if size >= BATCH_CHARACTERS:
                yield raw.tell(), batch
                batch, size = [], 0
        if batch:
            yield raw.tell(), batch


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file: its lines, unpacked if necessary, and the file itself. Errors in reading it become DataError."""
    try:
        with path.open("rb") as raw:
            yield (cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if path.suffix.lower() == ".gz" else raw), raw
    except (EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read, or is cut off: {reason}.") from error


def _paragraphs(path: Path, lines: Iterable[bytes], *, by_line: bool) -> Iterator[Document]:
    paragraph: list[bytes] = []
    number = first = 0
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(codecs.BOM_UTF8)
        blank = not text.strip()
        if paragraph and (by_line or blank):
            yield (_decoded(path, b"\n".join(paragraph), first),)
            paragraph = []
        if not blank:
            first = first if paragraph else number
            paragraph.append(text)
    if paragraph:
        yield (_decoded(path, b"\n".join(paragraph), first),)


def _decoded(path: Path, text: bytes, line: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise not_utf8(f"{path}, line {line:,}", error) from None


def _json_lines(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
            _decoded(path, line, number)  # for UTF-16, the error of JSON would be no help
        if not line.strip():
            continue
        place = f"{path}, line {number:,}"
        try:
            record = msgspec.json.decode(line)
        except UnicodeDecodeError as error:
            raise not_utf8(place, error) from None
        except msgspec.DecodeError as error:
            mend = r"\ud800 to \udfff come in pairs" if b"\\ud" in line.lower() else "each line is a whole object"
            raise DataError(f"{place} is no JSON: {error}; {mend}.") from None
        if not isinstance(record, dict):
            raise DataError(f'{place} is no JSON object; each line is one, such as {{"text": …}}.')
        yield place, record


def _rows(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    file = ParquetFile(path) if path.suffix.lower() == ".parquet" else ArrowFile(path)
    wanted = [name for name in (column, *PAIR) if name in file.schema.names] or file.schema.names
    number = 0
    try:
        for group, size in enumerate(file.rows):
            with reading(path):
                table = file.read(group, wanted)
            for start in range(0, size, _ROWS):
                for record in table.slice(start, _ROWS).to_pylist():
                    yield f"{path}, row {number:,}", record
                    number += 1
    except UnicodeDecodeError as error:
        raise not_utf8(f"{path}, from row {number:,}", error) from None


def _texts(path: Path, records: Iterable[tuple[str, Any]], column: str) -> Iterator[Document]:
    columns: Sequence[str] = ()
    for place, record in records:
        if not columns:
            is_pair = column == "text" and column not in record and record.keys() >= set(PAIR)
            columns = PAIR if is_pair else (column,)
            if not record.keys() >= set(columns):
                raise ConfigError(f"{path} has no such column", key="column", value=column, hint=hint(column, record))
        texts = tuple(record.get(name) for name in columns)
        for name, text in zip(columns, texts, strict=True):
            if not isinstance(text, str):
                kind = "null" if text is None and name in record else f"of {type(text).__name__}"
                kind = "missing" if name not in record else kind
                raise DataError(f"{place}: column {name!r} is {kind}; every document needs its text.")
        yield texts
