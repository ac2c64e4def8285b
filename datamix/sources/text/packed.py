"""Packed records of tokens: which pieces they are made of says `packing`, and this copies them out of the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from datamix.errors import ConfigError, DataError
from datamix.sources.text.packing import Facts, Pieces, Rows
from datamix.sources.text.token_files import TokenFile
from datamix.sources.text.tokenizers import Tokenizer
from datamix.spec import Arrays, LeafSpec, Spec

_LONG_PIECES = 64  # tokens; from there on, a loop over pieces is faster than an index for each token
_LARGEST = 2**31 - 1
_BLOCK_TOKENS = 2**18  # handed out at a time, so that what is computed on the way takes little memory
_MOST_PLACES = 3  # that are named of one record


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Records of tokens.

    Leaves of a record: `tokens`, `segment_ids` (the number of the piece, from 1; 0 where there is no token),
    `positions` (from 0 in each piece), int32 [length]; `num_tokens`, int32; and where documents have prompts,
    `loss_mask`, bool [length]: whether a token is of a completion.

    Attributes:
      files: The files of tokens.
      rows: Which pieces make up a record.
      length: The tokens that a record has room for.
      facts: What became of the documents.
      tokenizer: What made the tokens; None where nobody says.
      leaves: The leaves of a record.
      provenance: Where the records come from.
      notes: What is left out, a sentence each.
    """

    files: Sequence[TokenFile]
    rows: Rows
    length: int
    facts: Facts
    tokenizer: Tokenizer | None
    leaves: Sequence[str]
    provenance: str
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def num_records(self) -> int:
        """The number of records."""
        return self.rows.num_rows

    @cached_property
    def spec(self) -> Spec:
        """The shape and dtype of each leaf."""
        row = LeafSpec((self.length,), "int32")
        scalar, mask = LeafSpec((), "int32"), LeafSpec((self.length,), "bool")
        return {leaf: {"num_tokens": scalar, "loss_mask": mask}.get(leaf, row) for leaf in self.leaves}

    @property
    def tokenizer_digest(self) -> str | None:
        """What tells the tokenizer from all others; None where nobody says which it is."""
        return None if self.tokenizer is None else self.tokenizer.digest

    @property
    def vocab_size(self) -> int:
        """One more than the largest token there may be."""
        if self.tokenizer is not None:
            return self.tokenizer.vocab_size
        return max((int(file.tokens.max()) + 1 for file in self.files if len(file.tokens)), default=0)

    @property
    def token_bytes(self) -> np.ndarray:
        """The bytes of each token's text, int32 [vocab_size].

        Raises:
          ConfigError: Nothing says which tokenizer made the tokens.
        """
        return self._known_tokenizer.token_bytes

    def decode(self, tokens: np.ndarray) -> str:
        """The text of some tokens.

        Raises:
          ConfigError: Nothing says which tokenizer made the tokens.
        """
        return self._known_tokenizer.decode(tokens)

    @property
    def _known_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("only the tokenizer that made the tokens knows their text", key="tokenizer", value=None)
        return self.tokenizer

    def lengths(self) -> np.ndarray:
        """The tokens of each record, int64 [num_records]; no token is read."""
        return self.rows.lengths()

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Everything was done when the source was opened."""
        progress(self.num_records, self.num_records)

    def places(self, indices: np.ndarray) -> list[str]:
        """The file and the number of the document of the first pieces of each record."""
        pieces = self.rows.pieces(np.asarray(indices, np.int64))
        file, document = self._documents(pieces.begin)
        names: list[list[tuple[int, int]]] = [[] for _ in indices]
        for row, i, number in zip(pieces.row.tolist(), file.tolist(), document.tolist(), strict=True):
            names[row].append((i, self.files[i].first + number))
        return [self._place(each[:_MOST_PLACES]) + (", …" if len(each) > _MOST_PLACES else "") for each in names]

    def _place(self, documents: list[tuple[int, int]]) -> str:
        places = []
        for i, group in groupby(documents, key=itemgetter(0)):
            numbers = [f"{number:,}" for _, number in group]
            places.append(f"{self.files[i].path}: document{'s'[: len(numbers) - 1]} {', '.join(numbers)}")
        return "; ".join(places)

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """See `datamix.sources.base.Source`; `out` may hold some of the leaves alone."""
        step = max(_BLOCK_TOKENS // self.length, 1)
        for start in range(0, len(indices), step):
            block = slice(start, start + step)
            self._take(np.asarray(indices[block], np.int64), {leaf: rows[block] for leaf, rows in out.items()})

    def _take(self, indices: np.ndarray, out: Arrays) -> None:
        count = len(indices)
        start = self.rows.starts(indices) if len(self.files) == 1 else None
        if start is not None and out.keys() == {"tokens"}:
            out["tokens"][...] = self._checked(self._tokens[0][1][start], 0)
            return
        pieces = self.rows.pieces(indices)
        used = np.bincount(pieces.row, pieces.length, count).astype(np.int64)
        if "num_tokens" in out:
            out["num_tokens"][...] = used
        if "tokens" in out:
            if (used < self.length).any():
                out["tokens"][...] = 0
            self._copy(pieces, used, out["tokens"])
        if out.keys().isdisjoint(("segment_ids", "positions", "loss_mask")):
            return
        # Runs of tokens: the pieces of each row, and what is left of it, which is segment 0.
        last = np.searchsorted(pieces.row, np.arange(count), side="right")
        first = np.searchsorted(pieces.row, pieces.row)
        segment = np.insert(np.arange(1, len(first) + 1) - first, last, 0).astype(np.int32)
        length = np.insert(pieces.length, last, self.length - used)
        shape = (count, self.length)
        if "segment_ids" in out:
            out["segment_ids"][...] = np.repeat(segment, length).reshape(shape)
        if out.keys().isdisjoint(("positions", "loss_mask")):
            return
        begin = (np.cumsum(length) - length).astype(np.int32)
        positions = np.arange(count * self.length, dtype=np.int32) - np.repeat(begin, length)
        if (used < self.length).any():
            positions *= np.repeat(segment > 0, length)
        if "positions" in out:
            out["positions"][...] = positions.reshape(shape)
        if "loss_mask" in out:
            learnt_from = np.insert(self._prompts(pieces), last, self.length).astype(np.int32)
            out["loss_mask"][...] = (positions >= np.repeat(learnt_from, length)).reshape(shape)

    def _copy(self, pieces: Pieces, used: np.ndarray, out: np.ndarray) -> None:
        """Copy tokens into rows, int32 [count, length]."""
        # Neighbours in a row that are neighbours in a file are copied together.
        file = self._files_of(pieces.begin)
        ends = pieces.begin + pieces.length
        joined = (np.diff(pieces.row) == 0) & (pieces.begin[1:] == ends[:-1]) & (np.diff(file) == 0)
        first = np.flatnonzero(np.append(True, ~joined)[: len(file)])
        row, file = pieces.row[first], file[first]
        begin = pieces.begin[first] - self._starts[file]
        length = np.add.reduceat(pieces.length, first) if len(first) else first
        before = np.cumsum(length) - length
        column = before - (np.cumsum(used) - used)[row]
        for i in np.unique(file).tolist():
            tokens, whole = self._tokens[i]
            full = (file == i) & (length == self.length)
            if full.any():
                out[row[full]] = self._checked(whole[begin[full]], i)
            part = (file == i) & ~full
            places = (row[part], column[part], begin[part], length[part])
            if part.any() and length[part].mean() >= _LONG_PIECES:
                for to, at, start, size in zip(*(place.tolist() for place in places), strict=True):
                    out[to, at : at + size] = self._checked(tokens[start : start + size], i)
            elif part.any():
                to, at, start = (np.repeat(place, places[3]) for place in places[:3])
                within = np.arange(len(to)) - np.repeat(np.cumsum(places[3]) - places[3], places[3])
                out[to, at + within] = self._checked(tokens[start + within], i)

    def _checked(self, tokens: np.ndarray, file: int) -> np.ndarray:
        if tokens.dtype not in (np.uint16, np.uint8) and (tokens.min() < 0 or tokens.max() > _LARGEST):
            raise DataError(f"{self.files[file].path} holds numbers that are no tokens, such as {tokens.max()}.")
        return tokens

    @cached_property
    def _tokens(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each file, and every `length` of them in a row."""
        arrays = [np.asarray(file.tokens) for file in self.files]
        return [(each, sliding_window_view(each, self.length) if len(each) >= self.length else each) for each in arrays]

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first token of each file, counted over all files."""
        sizes = np.array([len(file.tokens) for file in self.files], np.int64)
        return np.cumsum(sizes) - sizes

    def _files_of(self, begin: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, begin, side="right") - 1

    def _documents(self, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The file that each token lies in, and the document within the file."""
        file = self._files_of(begin)
        document = np.empty_like(begin)
        for i in np.unique(file).tolist():
            here = file == i
            document[here] = np.searchsorted(self.files[i].ends, begin[here] - self._starts[i], side="right")
        return file, document

    def _prompts(self, pieces: Pieces) -> np.ndarray:
        """How many tokens at the beginning of each piece are of a prompt, int64 [num_pieces]."""
        file, document = self._documents(pieces.begin)
        prompts = np.zeros_like(pieces.begin)
        for i in np.unique(file).tolist():
            here, of_file = file == i, self.files[i]
            if of_file.prompts is not None:
                start = np.append(0, of_file.ends)[document[here]] + self._starts[i]
                prompts[here] = start + of_file.prompts[document[here]] - pieces.begin[here]
        return np.maximum(prompts, 0)
