"""The sources `text` and `tokens`: records of tokens out of text, and out of token files made elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from datamix.errors import ConfigError, expanded, hint
from datamix.sources.cache import cache_directory
from datamix.sources.files import Paths, files_of, notes_on
from datamix.sources.splits import resolve_split
from datamix.sources.text.packed import Packed
from datamix.sources.text.packing import Facts, Long, Packing, pack
from datamix.sources.text.reading import text_files
from datamix.sources.text.token_files import TokenFile, token_file, tokenised
from datamix.sources.text.tokenizers import Tokenizer, open_tokenizer

_LEAVES = ("tokens", "segment_ids", "positions", "num_tokens")
_MOST_TOKENS = 2**24  # of a record
_TOLD_S = 2.0  # seconds after which a line says that text is being tokenised


def text(
    *,
    path: Paths,
    length: int,
    tokenizer: str = "bytes",
    packing: Packing = "chunk",
    long: Long = "split",
    split: str = "train",
    column: str = "text",
    documents: Literal["blank_line", "line"] = "blank_line",
    end_of_document: str | None = None,
    leaves: Sequence[str] | None = None,
    cache_dir: str | None = None,
    source_name: str = "",
) -> Packed:
    """Text in files, tokenised once and packed into records of one length.

    Args:
      path: A file, a folder, a glob or a list of them, of the kinds in `datamix.sources.text.reading.SUFFIXES`, or a
        mapping from splits to them; or a folder as `save_to_disk` of Hugging Face's datasets writes it.
      length: The tokens of a record.
      tokenizer: "bytes", or the path of a `tokenizer.json`.
      packing: See `datamix.sources.text.packing.pack`, as `long`.
      long: What happens to documents longer than a record, unless they are chunked.
      split: TFDS's syntax, in documents.
      column: The column of the text in files with columns. Where there is no `text`, but `prompt` and `completion`,
        these are read, and the leaf `loss_mask` tells them apart.
      documents: What divides the documents of a `.txt` file: "blank_line" or "line".
      end_of_document: The token that ends each document, where it is none of the usual ones.
      leaves: The leaves of a record; all by default.
      cache_dir: The directory of the cache.
      source_name: The source's name in the mix, by which best_fit divides documents into blocks.

    Raises:
      ConfigError: A setting has no meaning, or does not fit the files.
      DataError: A file is missing, damaged, or no UTF-8.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "poem.txt").write_text("tiger\\n\\nlamb\\n")
    ...     source = text(path=f"{folder}/poem.txt", length=8, cache_dir=folder)
    ...     out = {"tokens": np.zeros((2, 8), np.int32), "segment_ids": np.zeros((2, 8), np.int32)}
    ...     source.take(np.arange(2), out)
    >>> out["tokens"].tolist()
    [[116, 105, 103, 101, 114, 256, 108, 97], [109, 98, 256, 0, 0, 0, 0, 0]]
    >>> out["segment_ids"].tolist()
    [[1, 1, 1, 1, 1, 1, 2, 2], [1, 1, 1, 0, 0, 0, 0, 0]]
    """
    if documents not in ("blank_line", "line"):
        raise ConfigError(key="documents", value=documents, hint=hint(documents, ("blank_line", "line")))
    _check_packing(length, packing, long)
    made_by = open_tokenizer(tokenizer, end_of_document)
    by_split, cache = text_files(path), cache_directory(cache_dir)
    notes = list(notes_on(path, by_split)) if len(by_split) == 1 and "train" in by_split else []

    def of_split(name: str) -> list[TokenFile]:
        files = by_split[name]
        advance = _progress(f"tokenising {source_name or name}", sum(file.stat().st_size for file in files))
        parts: list[TokenFile] = []
        for file in files:
            told = tokenised(file, made_by, column=column, documents=documents, cache_dir=cache, advance=advance)
            parts += told[0]
            notes.extend(told[1])
        if empty := sum(int((np.diff(part.ends, prepend=0) == 0).sum()) for part in parts):
            notes.append(f"{empty:,} empty documents have no token, and are in no record.")
        return parts

    return _packed(
        _Splits(by_split, of_split),
        split=split,
        length=length,
        packing=packing,
        long=long,
        leaves=leaves,
        source_name=source_name,
        cache=cache,
        tokenizer=made_by,
        provenance="text",
        notes=notes,
    )


def tokens(
    *,
    path: Paths,
    length: int,
    dtype: str | None = None,
    end_of_document: int | None = None,
    offsets: str | list[str] | None = None,
    packing: Packing = "chunk",
    long: Long = "split",
    split: str = "train",
    tokenizer: str | None = None,
    leaves: Sequence[str] | None = None,
    cache_dir: str | None = None,
    source_name: str = "",
) -> Packed:
    """Token files made elsewhere, packed into records of one length.

    Args:
      path: A file, a folder, a glob or a list of them, or a mapping from splits to them: `.npy`, or `.bin` with tokens
        one after the other; Megatron's `.bin` says by the `.idx` beside it what the next three settings do.
      length: The tokens of a record.
      dtype: The dtype of tokens in a file that does not say it, such as uint16.
      end_of_document: The token that ends each document.
      offsets: Instead, an `.npy` file for each file of tokens, in their order: where each document begins.
      packing: See `datamix.sources.text.packing.pack`, as `long`.
      long: What happens to documents longer than a record, unless they are chunked.
      split: TFDS's syntax, in documents.
      tokenizer: The tokenizer that made them, where their text is wanted: "bytes", or the path of a `tokenizer.json`.
      leaves: The leaves of a record; all by default.
      cache_dir: The directory of the cache.
      source_name: The source's name in the mix, by which best_fit divides documents into blocks.

    Raises:
      ConfigError: A setting has no meaning, or does not fit the files.
      DataError: A file is missing or damaged, or holds no tokens.
    """
    _check_packing(length, packing, long)
    by_split, cache = files_of(path, suffixes=(".npy", ".bin")), cache_directory(cache_dir)
    bounds = [expanded(each) for each in ([offsets] if isinstance(offsets, str) else offsets or ())]
    every = [file for files in by_split.values() for file in files]
    if bounds and len(bounds) != len(every):
        text = f"there are {len(bounds)} files of offsets for {len(every)} files of tokens; give one for each"
        raise ConfigError(text, key="offsets")
    offsets_of = dict(zip(every, bounds, strict=False))

    def of_split(name: str) -> list[TokenFile]:
        settings = {"dtype": dtype, "end_of_document": end_of_document, "cache_dir": cache}
        return [token_file(file, offsets=offsets_of.get(file), **settings) for file in by_split[name]]

    return _packed(
        _Splits(by_split, of_split),
        split=split,
        length=length,
        packing=packing,
        long=long,
        leaves=leaves,
        source_name=source_name,
        cache=cache,
        tokenizer=None if tokenizer is None else open_tokenizer(tokenizer, None),
        provenance="tokens",
        notes=list(notes_on(path, by_split)),
    )


class _Splits(Mapping[str, int]):
    """The number of documents of each split, whose files are opened only when it is asked for."""

    def __init__(self, names: Iterable[str], open_files: Callable[[str], list[TokenFile]]) -> None:
        self._names, self._open = tuple(names), open_files
        self.files: dict[str, list[TokenFile]] = {}

    def __getitem__(self, name: str) -> int:
        if name not in self._names:
            raise KeyError(name)
        if name not in self.files:
            self.files[name] = self._open(name)
        return sum(len(file.ends) for file in self.files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _packed(
    splits: _Splits,
    *,
    split: str,
    length: int,
    packing: Packing,
    long: Long,
    leaves: Sequence[str] | None,
    source_name: str,
    cache: Path,
    tokenizer: Tokenizer | None,
    provenance: str,
    notes: list[str],
) -> Packed:
    ranges = resolve_split(split, splits, where="split")
    files = [file for of_split in splits.files.values() for file in of_split]
    starts = np.cumsum([0, *(len(file.tokens) for file in files)])
    documents: dict[str, list[np.ndarray]] = {name: [] for name in splits.files}
    for name, file, start in zip([name for name, each in splits.files.items() for _ in each], files, starts):
        begin = np.append(0, file.ends[:-1]) if len(file.ends) else file.ends
        documents[name].append(np.stack([begin + start, file.ends - begin]))
    chosen = [np.concatenate(documents[name], axis=1)[:, start:stop] for name, start, stop in ranges]
    begin, lengths = np.concatenate(chosen, axis=1)
    rows, facts = pack(
        begin, lengths, capacity=length, packing=packing, long=long, name=source_name, cache_dir=cache
    )
    known = (*_LEAVES, *(["loss_mask"] if any(file.prompts is not None for file in files) else []))
    for leaf in leaves or ():
        if leaf not in known:
            raise ConfigError(f"there is no leaf {leaf!r}", key="leaves", value=leaves, hint=hint(leaf, known))
    return Packed(
        files=files,
        rows=rows,
        length=length,
        facts=facts,
        tokenizer=tokenizer,
        leaves=tuple(leaves or known),
        provenance=provenance,
        notes=(*dict.fromkeys(notes), *_notes_on(facts, long)),
    )


def _notes_on(facts: Facts, long: Long) -> list[str]:
    """What is left out of the documents by their length."""
    if not facts.lost:
        return []
    what = f"{facts.dropped:,} documents are left out" if long == "drop" else "long documents are cut off"
    return [f"{what}, and with them {facts.lost:,} of {facts.lost + facts.tokens:,} tokens; long=split keeps all."]


def _check_packing(length: int, packing: str, long: str) -> None:
    for key, value, options in (("packing", packing, get_args(Packing)), ("long", long, get_args(Long))):
        if value not in options:
            raise ConfigError(key=key, value=value, hint=hint(value, options))
    if not 1 <= length <= _MOST_TOKENS:
        raise ConfigError(f"it is 1 or more, and {_MOST_TOKENS:,} or less", key="length", value=length)


def _progress(label: str, num_bytes: int) -> Callable[[int], None]:
    """A line on stderr, once it has taken a while, of how much of some files is read; it is told of bytes read."""
    begun, done, shown = time.monotonic(), 0, 0.0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        now = time.monotonic()
        live = sys.stderr.isatty()
        if now - begun < _TOLD_S or (shown and not live) or (now - shown < 0.2 and done < num_bytes):
            return
        shown = now
        line = f"{label}: {done / 1e6:,.0f} of {num_bytes / 1e6:,.0f} MB"
        end = "\n" if not live or done >= num_bytes else "\r"
        print(line, end=end, file=sys.stderr, flush=True)

    return advance
