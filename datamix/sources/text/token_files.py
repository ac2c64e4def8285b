"""Flat files of tokens, with the ends of their documents: those in the cache, and those made elsewhere."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from datamix.errors import ConfigError, DataError, hint, read_error
from datamix.sources.arrays import load_array
from datamix.sources.cache import CachePlace
from datamix.sources.long_work import progress_bar
from datamix.sources.text.reading import Document, batches, splits_lines
from datamix.sources.text.tokenizers import Tokenizer
from datamix.spec import Arrays

PART_CHARACTERS = 2**26  # of text in an entry of the cache: at most this much is done again after an interruption
SHOWN_BYTES = 2**25  # of a file; reading a larger one shows a progress bar
_CHECKED_BYTES = 2**28  # of text; up to this size, the content of cached tokens is checked before use
_SCANNED = 2**22  # tokens scanned at a time
_MEGATRON = b"MMIDIDX\x00\x00"
_MEGATRON_DTYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 6: "f8", 7: "f4", 8: "u2"}
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64")


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """The tokens of some documents, one after the other.

    Attributes:
      tokens: The tokens, of any integer dtype, shape [num_tokens]; memory-mapped.
      ends: The number of tokens up to the end of each document, int64 [num_documents].
      first: The number of the first of these documents in the file.
      prompts: The number of tokens in each document's prompt, int64 [num_documents]; None if there are no prompts.
      note: A sentence for the user on how the file was read; empty if there is none.
    """

    path: Path
    tokens: np.ndarray
    ends: np.ndarray
    first: int = 0
    prompts: np.ndarray | None = None
    note: str = ""


def tokenised(path: Path, tokenizer: Tokenizer, column: str, documents: str, cache_dir: Path) -> list[TokenFile]:
    """The tokens of a text file from the cache; they are made first if it does not hold them.

    They are stored in parts, so that an interrupted run resumes after the last one. `documents` is what divides those
    of a `.txt` file, "blank_line" or "line". For `column` and errors, see `datamix.sources.text.reading.batches`.
    """
    stat = path.stat()
    is_text = path.name.lower().endswith((".txt", ".txt.gz"))
    by_line = cache(lambda: is_text and (documents == "line" or splits_lines(path)))
    reader = cache(lambda: _with_progress(path, batches(path, column=column, by_line=by_line())))
    read = done = 0  # the number of batches read so far, and in the parts so far

    def build() -> tuple[Arrays, dict[str, Any]]:
        nonlocal read
        for _ in range(read, done):
            next(reader())
        arrays, count, last = _encoded(reader(), tokenizer)
        read = done + count
        return arrays, {"batches": count, "last": last, "by_line": by_line()}

    files: list[TokenFile] = []
    while True:
        number = len(files)
        key = {"path": str(path.absolute()), "column": column, "documents": documents, "tokenizer": tokenizer.digest}
        entry = CachePlace(
            cache_dir=cache_dir,
            name=f"tokens-{path.name}-{number}",
            key=key | {"part": number},
            fingerprint={"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns},
            checked=stat.st_size <= _CHECKED_BYTES,
        ).load(build)
        first = files[-1].first + len(files[-1].ends) if files else 0
        note = ""
        if not first and not len(entry.arrays["ends"]):
            note = f"{path.name} holds no document."
        elif entry.info["by_line"] and documents != "line":
            note = f"{path.name} has no blank line, so that each of its lines is a document"
            note += "; documents=line says so as well."
        files.append(TokenFile(path=path, **entry.arrays, first=first, note=note))
        done += entry.info["batches"]
        if entry.info["last"]:
            return files


def _with_progress(path: Path, reader: Iterable[tuple[int, list[Document]]]) -> Iterator[list[Document]]:
    """Yield the batches, and show a progress bar for a large file."""
    with progress_bar(f"tokenising {path.name}", path.stat().st_size, unit="bytes", least=SHOWN_BYTES) as advance:
        before = 0
        for position, batch in reader:
            advance(position - before)
            before = position
            yield batch


def _encoded(reader: Iterable[list[Document]], tokenizer: Tokenizer) -> tuple[Arrays, int, bool]:
    """The arrays of one part, its number of batches, and whether it is the last."""
    parts, pending = [], deque[Future[tuple[np.ndarray, np.ndarray, np.ndarray]]]()
    count, characters, last = 0, 0, True
    # The library encodes on all cores and releases the GIL; two threads keep it busy while this one reads.
    with ThreadPoolExecutor(2) as pool:
        for batch in reader:
            pending.append(pool.submit(_encode, batch, tokenizer))
            if len(pending) > 2:
                parts.append(pending.popleft().result())
            count += 1
            characters += sum(len(text) for document in batch for text in document)
            if characters >= PART_CHARACTERS:
                last = False
                break
        parts += [future.result() for future in pending]
    columns = zip(*(parts or [_encode([], tokenizer)]), strict=True)
    tokens, lengths, prompts = map(np.concatenate, columns)
    arrays = {"tokens": tokens, "ends": np.cumsum(lengths)}
    return arrays | ({"prompts": prompts} if prompts.size else {}), count, last


def _encode(batch: Sequence[Document], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of documents, each with its end, and the lengths of each and of its prompt; an empty one has none."""
    width = len(batch[0]) if batch else 1
    tokens, counts = tokenizer.encode([text for document in batch for text in document])
    counts = counts.reshape(-1, width)
    lengths = counts.sum(axis=1)
    ends = np.cumsum(lengths)[lengths > 0]
    return np.insert(tokens, ends, tokenizer.end_of_document), lengths + (lengths > 0), counts[:, : width - 1].ravel()


def token_file(
    path: Path, dtype: str | None, end_of_document: int | None, offsets: Path | None, cache_dir: Path
) -> TokenFile:
    """Map a file of tokens that was made elsewhere.

    Args:
      path: An `.npy` file, or a file of nothing but tokens; or Megatron's `.bin`, with its `.idx` beside it.
      dtype: The dtype of the tokens in a file that does not say it.
      end_of_document: The token after which the next document begins.
      offsets: Instead of `end_of_document`, an `.npy` file with the index of the token at which each document begins,
        with or without the end of the last one.
      cache_dir: The directory of the cache, which stores the ends of documents.

    Raises:
      ConfigError: A setting that the file needs is missing, or one does not fit the file.
      DataError: A file is damaged, or holds no whole numbers.
    """
    index = path.with_suffix(".idx")
    if path.suffix == ".bin" and end_of_document is None and offsets is None and index.exists():
        return _megatron(path, index, dtype)
    tokens = _mapped(path, dtype)
    if end_of_document is not None and offsets is not None:
        text, mend = f"where the documents in {path.name} end is said by offsets as well", "Leave one of both out."
        raise ConfigError(text, key="end_of_document", value=end_of_document, hint=mend)
    if end_of_document is None and offsets is None:
        text = f"say where the documents in {path.name} end: by end_of_document, a token, or by offsets, an .npy file"
        text += f"; Megatron's say it in {index.name}, which is not beside it" * (path.suffix == ".bin")
        raise ConfigError(text, key="end_of_document")
    if offsets is not None:
        return TokenFile(path=path, tokens=tokens, ends=_ends(offsets, len(tokens), path))
    stat = path.stat()

    def scan() -> tuple[Arrays, dict[str, Any]]:
        starts = range(0, len(tokens), _SCANNED)
        parts = [start + 1 + np.flatnonzero(tokens[start : start + _SCANNED] == end_of_document) for start in starts]
        ends = np.concatenate([*parts, np.empty(0, np.int64)])
        return {"ends": ends if ends.size and ends[-1] == len(tokens) else np.append(ends, len(tokens))}, {}

    ends = CachePlace(
        cache_dir=cache_dir,
        name=f"ends-{path.name}",
        key={"path": str(path.absolute()), "dtype": str(tokens.dtype), "end_of_document": end_of_document},
        fingerprint={"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns},
    ).load(scan)
    is_one = len(ends.arrays["ends"]) == 1 and len(tokens) and tokens[-1] != end_of_document
    note = f"{path.name} does not hold token {end_of_document}, so that it is one document." if is_one else ""
    return TokenFile(path=path, tokens=tokens, ends=ends.arrays["ends"], note=note)


def _mapped(path: Path, dtype: str | None) -> np.ndarray:
    with read_error(str(path)), path.open("rb") as file:
        is_npy = file.read(6) == b"\x93NUMPY"
    size = path.stat().st_size
    if path.suffix == ".npy" and not size:
        raise DataError(f"{path} is empty, and no .npy file.")
    if is_npy:
        tokens = _whole_numbers(path, "tokens")
        _check_dtype(dtype, tokens.dtype, path)
        return tokens
    if dtype not in _DTYPES:
        text = f"{path.name} does not say of which dtype its tokens are"
        if path.suffix == ".bin" and not (index := path.with_suffix(".idx")).exists():
            text += f", and no {index.name} lies beside it, where Megatron's say it"
        raise ConfigError(text, key="dtype", value=dtype, hint=hint(dtype or "", _DTYPES))
    if size % np.dtype(dtype).itemsize:
        raise DataError(f"{path} is cut off, or its tokens are no {dtype}: it has {size:,} bytes.")
    return np.memmap(path, dtype, "r") if size else np.empty(0, dtype)


def _check_dtype(dtype: str | None, known: np.dtype, path: Path) -> None:
    """Refuse a dtype that contradicts the file's own; it may be written with its byte order, as in `<u2`."""
    if dtype not in (None, known.name, known.str):
        raise ConfigError(f"{path} says {known.name}; leave it out", key="dtype", value=dtype)


def _whole_numbers(path: Path, what: str) -> np.ndarray:
    numbers = load_array(path)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(f"{path} is {numbers.dtype}{list(numbers.shape)}; {what} are whole numbers in one row.")
    return numbers


def _ends(path: Path, num_tokens: int, tokens_path: Path) -> np.ndarray:
    """The ends of documents from a file of their beginnings, with or without the end of the last."""
    ends = _whole_numbers(path, "offsets").astype(np.int64)
    ends = ends[1:] if ends.size and not ends[0] else ends
    ends = ends if ends.size and ends[-1] == num_tokens else np.append(ends, num_tokens)
    if (np.diff(ends, prepend=0) < 0).any():
        raise DataError(f"{path}: its offsets do not ascend from 0 to the {num_tokens:,} tokens of {tokens_path.name}.")
    return ends


def _megatron(path: Path, index: Path, dtype: str | None) -> TokenFile:
    """Map a file of Megatron's; its format is that of Megatron-LM's `megatron/core/datasets/indexed_dataset.py`."""
    with read_error(str(index)):
        content = index.read_bytes()
    try:
        magic, version, code, num_sequences, num_bounds = struct.unpack_from("<9sQBQQ", content)
        sizes = np.frombuffer(content, "<i4", num_sequences, 34)
        pointers = np.frombuffer(content, "<i8", num_sequences, 34 + 4 * num_sequences)
        bounds = np.frombuffer(content, "<i8", num_bounds, 34 + 12 * num_sequences)
    except (struct.error, ValueError) as error:
        raise DataError(f"{index} is no index of Megatron's, or cut off: {error}.") from None
    if magic != _MEGATRON or version != 1 or _MEGATRON_DTYPES.get(code, "f")[0] == "f":
        raise DataError(f"{index} is no index of Megatron's for tokens (version {version}, dtype {code}).")
    known = np.dtype(_MEGATRON_DTYPES[code])
    _check_dtype(dtype, known, index)
    tokens = _mapped(path, known.name)
    ends = np.cumsum(sizes, dtype=np.int64)
    if len(tokens) != (ends[-1] if ends.size else 0) or not np.array_equal(pointers, (ends - sizes) * tokens.itemsize):
        raise DataError(f"{path} has {len(tokens):,} tokens, which are not those that {index.name} speaks of.")
    if bounds.size and not 0 <= bounds.min() <= bounds.max() <= num_sequences:
        raise DataError(f"{index} is damaged: a document ends after sequence {bounds.max():,} of {num_sequences:,}.")
    bounds = bounds[bounds > 0]
    bounds = bounds if bounds.size and bounds[-1] == num_sequences else np.append(bounds, num_sequences)
    return TokenFile(path=path, tokens=tokens, ends=np.append(0, ends)[bounds])
