"""Which tokens belong to which record: a pure function of the documents' lengths, the packing and the source's name.

A record consists of pieces, each within one document. They are packed once, for all epochs and seeds, so that a record
can be found by its number alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from datamix.errors import ConfigError
from datamix.rng.hash import key_for
from datamix.rng.permute import domain, permute
from datamix.sources.cache import CachePlace

Packing = Literal["chunk", "best_fit", "pad"]
Long = Literal["split", "truncate", "drop"]

BUNDLE_DOCUMENTS = 8192
"""The number of documents packed together: as good as packing all of them at once, to within 0.2 % of padding."""
_KEPT_DOCUMENTS = 2**16  # from this many on, packing takes longer than reading its result from the cache
_VERSION = 1  # of `best_fit`; to be raised if it packs differently


class Pieces(NamedTuple):
    """Pieces of records, those of a record one after the other.

    Attributes:
      row: The index of the piece's record among the requested ones, int64 [num_pieces], ascending.
      begin: Its first token, counted over all files, int64 [num_pieces].
      length: Its number of tokens, at least 1, int64 [num_pieces].
    """

    row: np.ndarray
    begin: np.ndarray
    length: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The stream of all documents, cut into records of one length; the last may be shorter.

    Attributes:
      begin: Each document's first token, counted over all files, int64 [num_documents].
      ends: The number of tokens up to its end, counted over these documents only, int64 [num_documents].
      length: The number of tokens in a record.
    """

    begin: np.ndarray
    ends: np.ndarray
    length: int

    @cached_property
    def num_rows(self) -> int:
        return -(-int(self.ends.max(initial=0)) // self.length)

    def pieces(self, rows: np.ndarray) -> Pieces:
        """The pieces of records, by their numbers, int64 [count]."""
        start = rows * self.length
        stop = np.minimum(start + self.length, self.ends[-1:])
        first = np.searchsorted(self.ends, start, side="right")
        row, document = _runs(first, np.searchsorted(self.ends, stop, side="left") - first + 1)
        document_start = np.where(document > 0, self.ends[document - 1], 0)
        begin = np.maximum(document_start, start[row])
        length = np.minimum(self.ends[document], stop[row]) - begin
        return Pieces(row, self.begin[document] + begin - document_start, length)

    def starts(self, rows: np.ndarray) -> np.ndarray | None:
        """The first token of each record; None unless documents are neighbours in the files and these records full."""
        if not self._neighbours or ((rows + 1) * self.length > self.ends[-1]).any():
            return None
        return np.asarray(rows * self.length + self.begin[:1])

    @cached_property
    def _neighbours(self) -> bool:
        """Whether each document begins where the one before it ends."""
        return bool((self.begin[1:] - self.begin[:1] == self.ends[:-1]).all())

    def lengths(self) -> np.ndarray:
        ends = np.minimum(np.arange(1, self.num_rows + 1) * self.length, self.ends[-1:])
        return np.diff(ends, prepend=0)


@dataclass(frozen=True, kw_only=True)
class PieceTable:
    """Records whose pieces are listed.

    Attributes:
      begin: The first token of each piece, counted over all files, int64 [num_pieces].
      length: The number of tokens in each piece, int64 [num_pieces].
      first: The first piece of each record, then the number of all pieces, int64 [num_rows + 1].
    """

    begin: np.ndarray
    length: np.ndarray
    first: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.first) - 1

    def pieces(self, rows: np.ndarray) -> Pieces:
        row, piece = _runs(self.first[rows], self.first[rows + 1] - self.first[rows])
        return Pieces(row, self.begin[piece], self.length[piece])

    def lengths(self) -> np.ndarray:
        return np.diff(np.cumsum(np.append(0, self.length))[self.first])


PackedRows: TypeAlias = Chunks | PieceTable


class Facts(NamedTuple):
    """What became of a source's documents.

    Attributes:
      documents: The number of documents that have tokens.
      tokens: The number of their tokens in records.
      lost: The number of their tokens in no record.
      split: The number of documents cut into pieces.
      dropped: The number of documents left out.
      padding: The share of the records' room that is empty, in [0, 1].
    """

    documents: int
    tokens: int
    lost: int
    split: int
    dropped: int
    padding: float


def pack(
    begin: np.ndarray,
    length: np.ndarray,
    *,
    capacity: int,
    packing: Packing,
    long: Long = "split",
    name: str = "",
    cache_dir: Path | None = None,
) -> tuple[PackedRows, Facts]:
    """Pack documents into records.

    Args:
      begin: Each document's first token, counted over all files, int64 [num_documents].
      length: Its number of tokens, int64 [num_documents]; empty documents are in no record.
      capacity: The number of tokens that a record has room for.
      packing: "chunk": the stream of all documents, cut wherever a record is full; "best_fit": pieces combined so that
        they fill records well; "pad": one piece per record.
      long: Documents longer than a record are cut into pieces ("split"), cut off ("truncate") or left out ("drop").
      name: The source's name, by which documents are divided into bundles for "best_fit".
      cache_dir: The directory of the cache, which stores the pieces of many documents; None for no cache.

    Raises:
      ConfigError: `long` is not "split" with "chunk", which cuts all documents alike.
    """
    begin, length = begin[length > 0], length[length > 0]
    documents, all_tokens = len(length), int(length.sum())
    rows: PackedRows
    if packing == "chunk":
        if long != "split":
            text = "packing=chunk cuts all documents alike; leave it out, or use packing=best_fit or pad"
            raise ConfigError(text, key="long", value=long)
        rows = Chunks(begin=begin, ends=np.cumsum(length), length=capacity)
        cut = (rows.ends - 1) // capacity > (rows.ends - length) // capacity
    else:
        cut = length > capacity
        if long == "drop":
            begin, length = begin[~cut], length[~cut]
        elif long == "truncate":
            length = np.minimum(length, capacity)
        if packing == "best_fit":
            rows = _best_fit(begin, length, capacity, name, cache_dir)
        else:
            _, begin, pieces = _cut(begin, length, capacity)
            rows = PieceTable(begin=begin, length=pieces, first=np.arange(len(pieces) + 1))
    tokens = int(length.sum())
    num_split, num_dropped = (int(cut.sum()) if long == each else 0 for each in ("split", "drop"))
    padding = 1 - tokens / max(rows.num_rows * capacity, 1)
    return rows, Facts(documents, tokens, all_tokens - tokens, num_split, num_dropped, padding)


def _runs(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each run, `count` numbers from `first` on: the run to which each number belongs, and the numbers."""
    run = np.repeat(np.arange(len(first)), count)
    return run, np.arange(len(run)) + np.repeat(first - np.cumsum(count) + count, count)


def _cut(begin: np.ndarray, length: np.ndarray, capacity: int) -> Pieces:
    """Documents as pieces that fit into a record; `row` is the document of each piece."""
    document, within = _runs(np.zeros_like(length), -(-length // capacity))
    offset = within * capacity
    return Pieces(document, begin[document] + offset, np.minimum(length[document] - offset, capacity))


def _best_fit(begin: np.ndarray, length: np.ndarray, capacity: int, name: str, cache_dir: Path | None) -> PieceTable:
    """Best fit within bundles of documents, formed by a permutation that is keyed by the source's name."""

    def build() -> tuple[dict[str, np.ndarray], dict[str, int]]:
        words = np.asarray(key_for(0, "packing", name), np.uint32)
        numbers = np.arange(len(length), dtype=np.uint32)
        order = permute(numbers, domain([max(len(length), 1)]), (words[:1], words[1:]))
        columns, num_rows = [np.empty((3, 0), np.int64)], 0
        for start in range(0, len(order), BUNDLE_DOCUMENTS):
            bundle = order[start : start + BUNDLE_DOCUMENTS]
            _, begins, lengths = _cut(begin[bundle], length[bundle], capacity)
            row = best_fit(lengths, capacity)
            columns.append(np.stack([row + num_rows, begins, lengths])[:, np.argsort(row, kind="stable")])
            num_rows += int(row.max()) + 1
        rows, begins, lengths = np.concatenate(columns, axis=1)
        first = np.searchsorted(rows, np.arange(num_rows + 1))
        return {"begin": begins, "length": lengths, "first": first}, {}

    if cache_dir is None or len(length) < _KEPT_DOCUMENTS:
        return PieceTable(**build()[0])
    documents = hashlib.blake2b(np.stack([begin, length]).tobytes(), digest_size=8).hexdigest()
    key = {"version": _VERSION, "source": name, "length": capacity, "documents": documents}
    place = CachePlace(cache_dir=cache_dir, name=f"packed-{name}", key=key, fingerprint={})
    return PieceTable(**place.load(build).arrays)


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Put each piece, the longest first, into the record where it leaves the least room.

    Args:
      lengths: The length of each piece, from 1 to `capacity`, int [num_pieces].

    Returns:
      The record of each piece, int64 [num_pieces].

    Source: D. S. Johnson, Near-optimal bin packing algorithms (1973), "best-fit decreasing".

    >>> best_fit(np.array([2, 5, 3, 6]), 8).tolist()
    [0, 1, 1, 0]
    """
    row_of = np.empty(len(lengths), np.int64)
    rows_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = num_rows = 0  # bit r of `rooms`: some record has room for r tokens
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := rooms >> length:
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
