"""Packed records of tokens: `packing` says which tokens they consist of, and this module copies them from the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from datamix.errors import ConfigError, DataError, check_choice, counted, hint
from datamix.sources.cache import cache_directory
from datamix.sources.files import Paths, notes_on
from datamix.sources.splits import located, resolve_split, steps_of
from datamix.sources.text.packing import Chunks, Facts, Long, PackedRows, Packing, Pieces, pack
from datamix.sources.text.token_files import TokenFile
from datamix.sources.text.tokenizers import Tokenizer
from datamix.spec import Arrays, LeafSpec, Spec

_LEAVES = ("tokens", "segment_ids", "positions", "num_tokens")
_LONG_PIECES = 64  # tokens; from this length on, a loop over pieces is faster than an index for each token
_MOST_TOKENS = 2**24  # of a record
_CHUNK_TOKENS = 2**16  # copied at a time, so that intermediate arrays stay in a core's cache
_LARGEST = 2**31 - 1
_MOST_PLACES = 3  # documents that `places` names for each record and file


class _Loaded(NamedTuple):
    files: list[TokenFile]
    rows: PackedRows
    facts: Facts
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Records of tokens, packed from documents: the base class of the sources of tokens.

    The leaves of a record are `tokens`, `segment_ids` (the number of the piece, from 1; 0 where there is no token) and
    `positions` (from 0 in each piece), int32 [length]; `num_tokens`, int32; and if documents have prompts, `loss_mask`,
    bool [length]: whether a token belongs to a completion.

    Attributes:
      path: A file, a folder, a glob or a list of them, or a mapping from splits to them.
      length: The number of tokens that a record has room for.
      packing: "chunk", "best_fit" or "pad"; see `datamix.sources.text.packing.pack`, also for `long`.
      long: What happens to documents longer than a record, unless they are chunked: "split", "truncate" or "drop".
      split: The documents to read, in TFDS's syntax.
      leaves: The leaves of a record; None for all.
      cache_dir: The directory of the cache.
      source_name: The source's name in the mix, by which "best_fit" divides documents into bundles.

    Files are read at first use, which raises

    - ConfigError: a setting has no meaning, or does not fit the files.
    - DataError: a file is missing or damaged.
    """

    path: Paths
    length: int
    packing: Packing = "chunk"
    long: Long = "split"
    split: str = "train"
    leaves: Sequence[str] | None = None
    cache_dir: str | None = None
    source_name: str = ""
    class_names: ClassVar[tuple[str, ...]] = ()
    takes_steps: ClassVar[bool] = True  # in `split`: steps count documents, and so cannot be applied to records

    def __post_init__(self) -> None:
        check_choice(self.packing, get_args(Packing), "packing")
        check_choice(self.long, get_args(Long), "long")
        if not 1 <= self.length <= _MOST_TOKENS:
            raise ConfigError(f"it is from 1 to {_MOST_TOKENS:,}", key="length", value=self.length)

    @property
    def known_tokenizer(self) -> Tokenizer | None:
        """The tokenizer that made the tokens; None if it is unknown."""
        raise NotImplementedError

    def _paths(self) -> Mapping[str, Sequence[Path]]:
        raise NotImplementedError

    def _open(self, path: Path, cache_dir: Path) -> list[TokenFile]:
        raise NotImplementedError

    @cached_property
    def _loaded(self) -> _Loaded:
        paths, cache_dir = self._paths(), cache_directory(self.cache_dir)
        sizes = dict.fromkeys(paths, 0)
        slices = steps_of(self.split, where="split")
        chosen = {name: paths[name] for part, _ in slices for name, *_ in resolve_split(part, sizes)}
        files, documents, begin = list[TokenFile](), dict[str, list[np.ndarray]](), 0
        for name, of_split in chosen.items():
            documents[name] = [np.empty((2, 0), np.int64)]
            for file in (part for path in of_split for part in self._open(path, cache_dir)):
                lengths = np.diff(file.ends, prepend=0)
                documents[name].append(np.stack([file.ends - lengths + begin, lengths]))
                files.append(file)
                begin += len(file.tokens)
        if files and not begin:
            raise DataError(f"{files[0].path} holds no document.")
        whole = {name: np.concatenate(each, axis=1) for name, each in documents.items()}
        sizes |= {name: each.shape[1] for name, each in whole.items()}
        parts = [
            np.concatenate([whole[name][:, a:b] for name, a, b in resolve_split(part, sizes)], axis=1)[:, ::step]
            for part, step in slices
        ]
        begins, lengths = np.concatenate(parts, axis=1)
        how: Any = {"capacity": self.length, "packing": self.packing, "long": self.long, "name": self.source_name}
        rows, facts = pack(begins, lengths, **how, cache_dir=cache_dir)
        notes = [*notes_on(self.path, paths)]
        notes += dict.fromkeys(file.note for file in files if file.note)
        if empty := len(lengths) - facts.documents:
            have, are = ("has", "is") if empty == 1 else ("have", "are")
            notes.append(f"{counted(empty, 'empty document')} {have} no token, and {are} in no record.")
        if facts.lost:
            dropped = f"{facts.dropped:,} of {facts.documents:,} documents are left out"
            what = f"{dropped if facts.dropped else 'long documents are cut off'}: {facts.lost:,}"
            notes.append(f"{what} of {facts.lost + facts.tokens:,} tokens; long=split keeps them.")
        return _Loaded(files, rows, facts, tuple(notes))

    @property
    def provenance(self) -> str:
        return type(self).__name__.lower()

    @property
    def num_records(self) -> int:
        return self._loaded.rows.num_rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out, or read in another way than asked, one sentence each."""
        return self._loaded.notes

    @property
    def facts(self) -> Facts:
        return self._loaded.facts

    @property
    def files(self) -> Sequence[TokenFile]:
        return self._loaded.files

    @cached_property
    def spec(self) -> Spec:
        known = (*_LEAVES, *(["loss_mask"] if any(file.prompts is not None for file in self.files) else []))
        for leaf in self.leaves or ():
            if leaf not in known:
                raise ConfigError(f"there is no leaf {leaf!r}", key="leaves", hint=hint(leaf, known))
        other = {"num_tokens": LeafSpec((), "int32"), "loss_mask": LeafSpec((self.length,), "bool")}
        return {leaf: other.get(leaf, LeafSpec((self.length,), "int32")) for leaf in self.leaves or known}

    @property
    def tokenizer_digest(self) -> str | None:
        """What identifies the tokenizer; None if it is unknown."""
        return None if self.known_tokenizer is None else self.known_tokenizer.digest

    @property
    def vocab_size(self) -> int:
        """One more than the largest token of the tokenizer; if that is unknown, than the largest in the files."""
        if self.known_tokenizer is not None:
            return self.known_tokenizer.vocab_size
        return max((int(file.tokens.max(initial=0)) + 1 for file in self.files), default=0)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of some tokens; their numbers if the tokenizer is unknown."""
        known = self.known_tokenizer
        return " ".join(map(str, tokens.tolist())) if known is None else known.decode(tokens)

    @property
    def token_bytes(self) -> np.ndarray:
        """The number of bytes in each token's text, int32 [vocab_size]; ConfigError if the tokenizer is unknown."""
        if self.known_tokenizer is None:
            raise ConfigError("only what made the tokens knows their text", key="tokenizer", value=None)
        return self.known_tokenizer.token_bytes

    def lengths(self) -> np.ndarray:
        """The number of tokens in each record, int64 [num_records], without reading any."""
        return self._loaded.rows.lengths()

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Tokenise and pack now, which the first use would otherwise do."""
        progress(self.num_records, self.num_records)

    def places(self, indices: np.ndarray) -> list[str]:
        """The files of each record, and the numbers of the documents of its first pieces there."""
        pieces = self._loaded.rows.pieces(np.asarray(indices, np.int64))
        file, document, _ = self._documents(pieces.begin)
        names: list[dict[Path, list[str]]] = [{} for _ in indices]
        for row, i, number in zip(pieces.row.tolist(), file.tolist(), document.tolist(), strict=True):
            names[row].setdefault(self.files[i].path, []).append(f"{self.files[i].first + number:,}")
        few = [{path: [*each[:_MOST_PLACES], "…"][: len(each)] for path, each in of_row.items()} for of_row in names]
        return ["; ".join(f"{path}: document {', '.join(each)}" for path, each in of_row.items()) for of_row in few]

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        """Write some records into arrays; `out` may hold only some of the leaves."""
        rows, indices = self._loaded.rows, np.asarray(indices, np.int64)
        only_tokens = out.keys() == {"tokens"} and len(self.files) == 1
        if only_tokens and isinstance(rows, Chunks) and (starts := rows.starts(indices)) is not None:
            out["tokens"][...] = self._checked(self._tokens[0][1][starts], 0)
            return
        step = max(_CHUNK_TOKENS // self.length, 1)
        for start in range(0, len(indices), step):
            chunk = slice(start, start + step)
            self._take(rows.pieces(indices[chunk]), {leaf: values[chunk] for leaf, values in out.items()})

    def _take(self, pieces: Pieces, out: Arrays) -> None:
        count = len(next(iter(out.values())))
        used = np.bincount(pieces.row, pieces.length, count).astype(np.int64)
        if "num_tokens" in out:
            out["num_tokens"][...] = used
        if "tokens" in out:
            if (used < self.length).any():
                out["tokens"][...] = 0
            self._copy(pieces, used, out["tokens"])
        # Runs of tokens: the pieces of each row, and its padding, which is segment 0.
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
        # Pieces that are neighbours both in a row and in a file are copied together.
        file, within = located(self._ends, pieces.begin)
        ends = pieces.begin + pieces.length
        joined = (np.diff(pieces.row) == 0) & (pieces.begin[1:] == ends[:-1]) & (np.diff(file) == 0)
        first = np.flatnonzero(np.append(True, ~joined)[: len(file)])
        row, file, begin = pieces.row[first], file[first], within[first]
        length = np.add.reduceat(pieces.length, first)
        column = np.cumsum(length) - length - (np.cumsum(used) - used)[row]
        for i in np.unique(file).tolist():
            tokens, windows = self._tokens[i]
            full = (file == i) & (length == self.length)
            if full.any():
                out[row[full]] = self._checked(windows[begin[full]], i)
            part = (file == i) & ~full
            to, at, start, size = (each[part] for each in (row, column, begin, length))
            if len(to) and size.mean() >= _LONG_PIECES:
                for r, c, s, n in zip(to.tolist(), at.tolist(), start.tolist(), size.tolist(), strict=True):
                    out[r, c : c + n] = self._checked(tokens[s : s + n], i)
            elif len(to):
                within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
                values = self._checked(tokens[np.repeat(start, size) + within], i)
                out[np.repeat(to, size), np.repeat(at, size) + within] = values

    def _checked(self, tokens: np.ndarray, file: int) -> np.ndarray:
        if tokens.dtype not in (np.uint16, np.uint8) and (tokens.min() < 0 or tokens.max() > _LARGEST):
            wrong = tokens[(tokens < 0) | (tokens > _LARGEST)][0]
            raise DataError(f"{self.files[file].path} holds {wrong}, which is no token.")
        return tokens

    @cached_property
    def _tokens(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each file, and its windows of `length` tokens, one beginning at each token."""
        arrays = [np.asarray(file.tokens) for file in self.files]
        return [(each, sliding_window_view(each, self.length) if len(each) >= self.length else each) for each in arrays]

    @cached_property
    def _ends(self) -> np.ndarray:
        """The number of tokens up to the end of each file, over all files, int64 [num_files]."""
        return np.cumsum([len(file.tokens) for file in self.files], dtype=np.int64)

    def _documents(self, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The file in which each token lies, and the token's document and index within that file."""
        (file, within), document = located(self._ends, begin), np.empty_like(begin)
        for i in np.unique(file).tolist():
            here = file == i
            document[here] = np.searchsorted(self.files[i].ends, within[here], side="right")
        return file, document, within

    def _prompts(self, pieces: Pieces) -> np.ndarray:
        """The number of tokens at the beginning of each piece that belong to a prompt, int64 [num_pieces]."""
        file, document, within = self._documents(pieces.begin)
        prompts = np.zeros_like(pieces.begin)
        for i in np.unique(file).tolist():
            here, of_file = file == i, self.files[i]
            if of_file.prompts is not None:
                start = np.append(0, of_file.ends)[document[here]]
                prompts[here] = start + of_file.prompts[document[here]] - within[here]
        return np.asarray(np.maximum(prompts, 0))
