"""The sources `text` and `tokens`: records of tokens from text, and from token files made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from datamix.errors import ConfigError, check_choice, expanded
from datamix.sources.files import Paths, files_of
from datamix.sources.text.packed import Packed
from datamix.sources.text.packing import Long, Packing
from datamix.sources.text.reading import text_files
from datamix.sources.text.token_files import TokenFile, token_file, tokenised
from datamix.sources.text.tokenizers import Tokenizer, open_tokenizer

__all__ = ["Long", "Packing", "Paths", "Text", "Tokens"]  # the first three appear in the signatures of the others


@dataclass(frozen=True, kw_only=True)
class Text(Packed):
    """Text in files, tokenised once into the cache, and packed.

    Files are of the kinds in `datamix.sources.text.reading.SUFFIXES`; `path` may also be a folder that `save_to_disk`
    of Hugging Face's datasets has written.

    Attributes:
      tokenizer: "bytes", or the path of a `tokenizer.json`.
      column: The column of the text in files with columns. If there is no `text`, but `prompt` and `completion`, these
        are read, and the leaf `loss_mask` tells them apart.
      documents: What divides the documents of a `.txt` file: "blank_line" or "line".
      end_of_document: The token that ends each document, if it is none of the usual ones.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "poem.txt").write_bytes(bytes([116, 105, 10, 10, 108, 97]))
    ...     source = Text(path=f"{folder}/poem.txt", length=4, cache_dir=folder)
    ...     out = {"tokens": np.zeros((2, 4), np.int32), "segment_ids": np.zeros((2, 4), np.int32)}
    ...     source.take(np.arange(2), out)
    >>> out["tokens"].tolist(), out["segment_ids"].tolist()
    ([[116, 105, 256, 108], [97, 256, 0, 0]], [[1, 1, 1, 2], [1, 1, 0, 0]])
    """

    tokenizer: str = "bytes"
    column: str = "text"
    documents: Literal["blank_line", "line"] = "blank_line"
    end_of_document: str | None = None

    @cached_property
    def known_tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.tokenizer, self.end_of_document)

    def _paths(self) -> Mapping[str, Sequence[Path]]:
        check_choice(self.documents, ("blank_line", "line"), "documents")
        return text_files(self.path)

    def _open(self, path: Path, cache_dir: Path) -> list[TokenFile]:
        return tokenised(path, self.known_tokenizer, self.column, self.documents, cache_dir)


@dataclass(frozen=True, kw_only=True)
class Tokens(Packed):
    """Files of tokens made elsewhere, packed: `.npy`, or `.bin` with nothing but tokens.

    Attributes:
      dtype: The dtype of the tokens in a file that does not say it, such as uint16.
      end_of_document: The token that ends each document.
      offsets: Instead of `end_of_document`, an `.npy` file for each file of tokens, in their order, with the index at
        which each document begins. Megatron's `.bin` files have an `.idx` beside them, which says all three.
      tokenizer: The tokenizer that made the tokens, if their text is wanted: "bytes", or the path of a
        `tokenizer.json`.
    """

    dtype: str | None = None
    end_of_document: int | None = None
    offsets: str | list[str] | None = None
    tokenizer: str | None = None

    @cached_property
    def known_tokenizer(self) -> Tokenizer | None:
        return None if self.tokenizer is None else open_tokenizer(self.tokenizer)

    def _paths(self) -> Mapping[str, Sequence[Path]]:
        return files_of(self.path, suffixes=(".npy", ".bin"))

    def _open(self, path: Path, cache_dir: Path) -> list[TokenFile]:
        if not self.offsets:
            return [token_file(path, self.dtype, self.end_of_document, None, cache_dir)]
        offsets = [self.offsets] if isinstance(self.offsets, str) else self.offsets
        files = [file for of_split in self._paths().values() for file in of_split]
        if len(offsets) != len(files):
            text = f"it names {len(offsets)} files for {len(files)} files of tokens; it is one for each"
            raise ConfigError(text, key="offsets", value=self.offsets)
        bounds = expanded(offsets[files.index(path)])
        return [token_file(path, self.dtype, self.end_of_document, bounds, cache_dir)]
