"""Which tokens stand in which record: a pure function of the documents' lengths, the packing and the source's name.

A record is made of pieces, each of which lies within one document. They are packed once, for all epochs and seeds, so
that a record is found by its number alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from datamix.errors import ConfigError
from datamix.rng.hash import key_for
from datamix.rng.permute import domain, permute
from datamix.sources.cache import Place

Packing = Literal["chunk", "best_fit", "pad"]
Long = Literal["split", "truncate", "drop"]

BLOCK_DOCUMENTS = 8192
"""Documents that are packed together; blocks of so many lose at most 0.2 % to padding beyond all of them at once."""
_KEPT_DOCUMENTS = 2**16  # from so many on, packing takes longer than reading how they were packed
_VERSION = 1  # of the packing; another one packs otherwise


class Pieces(NamedTuple):
    """The pieces of some records, those of a record one after the other.

    Attributes:
      row: The place of the piece's record among those asked for, int64 [num_pieces], ascending.
      begin: The piece's first token, counted over all files, int64 [num_pieces].
      length: Its tokens, int64 [num_pieces], each at least 1.
    """

    row: np.ndarray
    begin: np.ndarray
    length: np.ndarray


class Rows(Protocol):
    """The records of a packed source."""

    @property
    def num_rows(self) -> int: ...

    def pieces(self, rows: np.ndarray) -> Pieces:
        """The pieces of records, by their numbers, int64 [count]."""
        ...

    def starts(self, rows: np.ndarray) -> np.ndarray | None:
        """The first token of records, by their numbers, where each is full and in one piece of all tokens; or None."""
        ...

    def lengths(self) -> np.ndarray:
        """The tokens of each record, int64 [num_rows]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What became of the documents of a source.

    Attributes:
      documents: The documents that have tokens.
      tokens: Their tokens in the records.
      split: The documents that lie in more than one piece.
      dropped: The documents that are left out.
      lost: The tokens that are in no record.
      padding: The share of the records' places without a token.
    """

    documents: int
    tokens: int
    split: int
    dropped: int
    lost: int
    padding: float


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The stream of all documents, cut into records of one length; the last may be shorter.

    Attributes:
      begin: Each document's first token, counted over all files, int64 [num_documents].
      ends: The place after its last token, counted over these documents alone, int64 [num_documents].
      length: The tokens of a record.
    """

    begin: np.ndarray
    ends: np.ndarray
    length: int

    @property
    def num_tokens(self) -> int:
        """The tokens of all documents."""
        return int(self.ends[-1]) if self.ends.size else 0

    @property
    def num_rows(self) -> int:
        """The number of records."""
        return -(-self.num_tokens // self.length)

    def pieces(self, rows: np.ndarray) -> Pieces:
        """See `Rows`."""
        start = rows * self.length
        stop = np.minimum(start + self.length, self.num_tokens)
        first = np.searchsorted(self.ends, start, side="right")
        count = np.searchsorted(self.ends, stop, side="left") - first + 1
        row, document = _runs(first, count)
        document_end = self.ends[document]
        document_start = np.where(document > 0, self.ends[document - 1], 0)
        begin = np.maximum(document_start, start[row])
        length = np.minimum(document_end, stop[row]) - begin
        return Pieces(row, self.begin[document] + begin - document_start, length)

    def starts(self, rows: np.ndarray) -> np.ndarray | None:
        """See `Rows`."""
        if not self._neighbours or (len(rows) and rows.max() * self.length + self.length > self.num_tokens):
            return None
        starts: np.ndarray = rows * self.length + self.begin[:1]
        return starts

    @cached_property
    def _neighbours(self) -> bool:
        """Whether each document begins where the one before it ends."""
        return bool((self.begin[1:] - self.begin[:1] == self.ends[:-1]).all())

    def lengths(self) -> np.ndarray:
        """See `Rows`."""
        lengths = np.full(self.num_rows, self.length, np.int64)
        lengths[-1:] -= self.num_rows * self.length - self.num_tokens
        return lengths


@dataclass(frozen=True, kw_only=True)
class PieceTable:
    """Records whose pieces are listed.

    Attributes:
      begin: Each piece's first token, counted over all files, int64 [num_pieces].
      length: Its tokens, int32 [num_pieces].
      first: The first piece of each record, and the number of all pieces, int64 [num_rows + 1].
    """

    begin: np.ndarray
    length: np.ndarray
    first: np.ndarray

    @property
    def num_rows(self) -> int:
        """The number of records."""
        return len(self.first) - 1

    def pieces(self, rows: np.ndarray) -> Pieces:
        """See `Rows`."""
        first = self.first[rows]
        row, piece = _runs(first, self.first[rows + 1] - first)
        return Pieces(row, self.begin[piece], self.length[piece].astype(np.int64))

    def starts(self, rows: np.ndarray) -> None:
        """See `Rows`; they are not looked for."""
        return

    def lengths(self) -> np.ndarray:
        """See `Rows`."""
        before = np.cumsum(np.append(0, self.length), dtype=np.int64)
        return np.diff(before[self.first])


def _runs(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers first, first + 1, … of each run, and the run that each belongs to."""
    run = np.repeat(np.arange(len(first)), count)
    return run, np.arange(len(run)) + np.repeat(first - np.cumsum(count) + count, count)


def pack(
    begin: np.ndarray,
    length: np.ndarray,
    *,
    capacity: int,
    packing: Packing,
    long: Long,
    name: str,
    cache_dir: Path | None = None,
) -> tuple[Rows, Facts]:
    """Pack documents into records.

    Args:
      begin: Each document's first token, counted over all files, int64 [num_documents].
      length: Its tokens, int64 [num_documents]; documents without any are left out.
      capacity: The tokens that a record has room for.
      packing: "chunk": the stream of all documents, cut wherever a record is full; "best_fit": pieces that fill records
        as well as can be; "pad": a piece a record.
      long: What happens to a document that is longer than a record: it is cut into pieces, cut off, or left out.
      name: The source's name, by which documents are divided into blocks for "best_fit".
      cache_dir: The directory of the cache, where records of many documents are kept; None to keep none.

    Returns:
      The records, and what became of the documents.

    Raises:
      ConfigError: "chunk" leaves nothing to decide for `long`.

    Source: D. S. Johnson, Near-optimal bin packing algorithms (1973), "best-fit decreasing".
    """
    begin, length = begin[length > 0], length[length > 0]
    documents, whole = len(length), int(length.sum())
    if packing == "chunk":
        if long != "split":
            text = "packing=chunk cuts documents of any length; leave it out, or use packing=best_fit or pad"
            raise ConfigError(text, key="long", value=long)
        chunks = Chunks(begin=begin, ends=np.cumsum(length), length=capacity)
        cut = (chunks.ends - 1) // capacity > (chunks.ends - length) // capacity
        rows: Rows = chunks
    else:
        cut = length > capacity
        if long == "drop":
            begin, length = begin[~cut], length[~cut]
        elif long == "truncate":
            length = np.minimum(length, capacity)
        if packing == "best_fit":
            rows = _best_fit(begin, length, capacity, name, cache_dir)
        else:
            pieces = _cut(begin, length, capacity)
            rows = PieceTable(begin=pieces.begin, length=pieces.length, first=np.arange(len(pieces.begin) + 1))
    tokens = int(length.sum())
    facts = Facts(
        documents=documents,
        tokens=tokens,
        split=int(cut.sum()) if long == "split" else 0,
        dropped=int(cut.sum()) if long == "drop" else 0,
        lost=whole - tokens,
        padding=1 - tokens / max(rows.num_rows * capacity, 1),
    )
    return rows, facts


def _cut(begin: np.ndarray, length: np.ndarray, capacity: int) -> Pieces:
    """The documents as pieces that fit into a record; `row` is the document of each."""
    count = -(-length // capacity)
    document, within = _runs(np.zeros_like(count), count)
    offset = within * capacity
    return Pieces(document, begin[document] + offset, np.minimum(length[document] - offset, capacity))


def _best_fit(begin: np.ndarray, length: np.ndarray, capacity: int, name: str, cache_dir: Path | None) -> PieceTable:
    def build() -> tuple[dict[str, np.ndarray], dict[str, int]]:
        table = _best_fit_table(begin, length, capacity, name)
        return {"begin": table.begin, "length": table.length, "first": table.first}, {}

    if cache_dir is None or len(length) < _KEPT_DOCUMENTS:
        return PieceTable(**build()[0])
    documents = hashlib.blake2b(np.stack([begin, length]), digest_size=8).hexdigest()
    key = {"version": _VERSION, "source": name, "length": capacity, "documents": documents}
    return PieceTable(**Place(cache_dir=cache_dir, name=f"packed-{name}", key=key, fingerprint={}).load(build).arrays)


def _best_fit_table(begin: np.ndarray, length: np.ndarray, capacity: int, name: str) -> PieceTable:
    num_documents = len(length)
    if not num_documents:
        return PieceTable(begin=begin, length=length.astype(np.int32), first=np.zeros(1, np.int64))
    key = key_for(0, "packing", name)
    words = np.array(key[:1], np.uint32), np.array(key[1:], np.uint32)
    order = permute(np.arange(num_documents, dtype=np.uint32), domain([num_documents]), words)
    begin, length = begin[order], length[order]
    parts, rows_before = [], 0
    for start in range(0, num_documents, BLOCK_DOCUMENTS):
        block = slice(start, start + BLOCK_DOCUMENTS)
        pieces = _cut(begin[block], length[block], capacity)
        row = best_fit(pieces.length, capacity)
        by_row = np.argsort(row, kind="stable")
        parts.append((row[by_row] + rows_before, pieces.begin[by_row], pieces.length[by_row]))
        rows_before += int(row.max()) + 1
    row, begin, length = (np.concatenate(column) for column in zip(*parts, strict=True))
    first = np.searchsorted(row, np.arange(rows_before + 1))
    return PieceTable(begin=begin, length=length.astype(np.int32), first=first)


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Put each piece, the longest first, where it leaves the least room.

    Args:
      lengths: The length of each piece, from 1 to `capacity`, int [num_pieces].
      capacity: The room of a record.

    Returns:
      The record of each piece, int64 [num_pieces].

    >>> best_fit(np.array([2, 5, 3, 6]), 8).tolist()
    [0, 1, 1, 0]
    """
    row_of = np.empty(len(lengths), np.int64)
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r: there is a record with room for r tokens
    num_rows = 0
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms ^= 1 << room
        else:
            row, room = num_rows, capacity
            num_rows += 1
        row_of[piece] = row
        if room > length:
            rows_by_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return row_of
