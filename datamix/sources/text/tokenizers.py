"""Tokenizers, which turn texts into the numbers of tokens, and back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from datamix.errors import ConfigError, DataError, expanded, hint, not_installed

# The tokens that end a document in the vocabularies of GPT-2, Llama 3, Llama, Gemma, T5, BERT.
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|eos|>", "[SEP]")


class Bytes:
    """The bytes of UTF-8 as tokens 0 to 255; 256 ends a document. The attributes are those of every tokenizer.

    Attributes:
      vocab_size: The number of tokens there are.
      end_of_document: The token that ends each document.
      digest: What identifies the tokenizer.
      token_bytes: The number of UTF-8 bytes in each token's text, 0 for special tokens; int32 [vocab_size].
    """

    vocab_size = 257
    end_of_document = 256
    digest = "bytes"
    token_bytes = np.append(np.ones(256, np.int32), np.int32(0))

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of all texts in a row, uint16 or uint32, and the number that each text has, int64 [len(texts)]."""
        encoded = [text.encode() for text in texts]
        return np.frombuffer(b"".join(encoded), np.uint8).astype(np.uint16), np.array([*map(len, encoded)], np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of some tokens; special tokens have none."""
        return tokens[tokens < 256].astype(np.uint8).tobytes().decode(errors="replace")


class FileTokenizer:
    """A `tokenizer.json`, as the library `tokenizers` reads it; it adds no special tokens, and truncates no text."""

    def __init__(self, path: Path, end_of_document: str | None = None) -> None:
        library = _library(str(path))
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for without end
                raise OSError(0, "it is no regular file")
            content = path.read_bytes()
            self._json: dict[str, Any] = json.loads(content)
        except OSError as error:
            where = f"{path} cannot be read ({error.strerror})"
            raise DataError(f"{where}; tokenizer is bytes, or the path of a tokenizer.json.") from None
        except ValueError as error:
            raise DataError(f"{path} is no tokenizer.json: {error}.") from None
        try:
            self._tokenizer = library.Tokenizer.from_str(content.decode())
        except Exception as error:
            if type(error) is not Exception:  # which is what the library raises
                raise
            raise DataError(f"{path} is no tokenizer.json: {error}.") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self._dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)
        ends = _ENDS if end_of_document is None else (end_of_document,)
        end = next((token for token in ends if token in vocabulary), None)
        if end is None:
            special = [added.content for added in self._added.values() if added.special]
            text, mend = f"{path} has no such token", hint(end_of_document or "", special)
            if end_of_document is None:
                text = f"{path} has none of the tokens that usually end a document ({', '.join(_ENDS)})"
                mend = f"Name the token that does in YAML, as in end_of_document: {[*special, *vocabulary, ''][0]!r}."
            raise ConfigError(text, key="end_of_document", value=end_of_document or ..., hint=mend)
        self.end_of_document: int = vocabulary[end]
        self.digest = hashlib.sha256(content + str(self.end_of_document).encode()).hexdigest()[:16]

    @property
    def _added(self) -> dict[int, Any]:
        added: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
        return added

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = [each.ids for each in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        counts = np.array([*map(len, encoded)], np.int64)
        return np.fromiter(chain.from_iterable(encoded), self._dtype, int(counts.sum())), counts

    def decode(self, tokens: np.ndarray) -> str:
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    @cached_property
    def token_bytes(self) -> np.ndarray:
        # In a vocabulary of bytes, each character stands for a byte; elsewhere, ▁ stands for a blank. So does a suffix
        # that ends a word, while a prefix that continues one (## of BERT) stands for nothing.
        model: dict[str, Any] = self._json.get("model") or {}
        prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or "▁"
        is_bytes = '"ByteLevel"' in json.dumps([self._json.get(part) for part in ("pre_tokenizer", "decoder")])
        sizes = np.zeros(self.vocab_size, np.int32)
        for token, index in self._tokenizer.get_vocab(with_added_tokens=False).items():
            word = token.removeprefix(prefix).replace(suffix, " ")
            text = word if is_bytes else word.replace("▁", " ").encode()
            sizes[index] = 1 if re.fullmatch("<0x[0-9A-F]{2}>", token) else len(text)
        for index, added in self._added.items():
            sizes[index] = 0 if added.special else len(added.content.encode())
        sizes[self.end_of_document] = 0
        return sizes


Tokenizer: TypeAlias = Bytes | FileTokenizer


def open_tokenizer(name: str, end_of_document: str | None = None) -> Tokenizer:
    """The built-in tokenizer `bytes`, or one in a `tokenizer.json`.

    Args:
      end_of_document: The token that ends each document; by default one that usually does.

    >>> open_tokenizer("bytes").encode(["ab", "é"])
    (array([ 97,  98, 195, 169], dtype=uint16), array([2, 2]))
    """
    if name != "bytes":
        return FileTokenizer(expanded(name), end_of_document)
    if end_of_document is not None:
        raise ConfigError("token 256 ends a document of bytes; leave it out", key="end_of_document")
    return Bytes()


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, path: str | Path) -> Path:
    """Train a byte-level BPE, which can spell any text, and write it as a `tokenizer.json`.

    Args:
      texts: The texts, mixed in the ratio in which the tokenizer will be used.
      vocab_size: The number of tokens: 256 bytes, `<|endoftext|>`, and merged pairs for the rest.
      path: The file to write, whole or not at all; it is returned.

    Raises:
      ConfigError: `vocab_size` is less than 257.
    """
    if vocab_size < 257:
        text = "it is 257 or more: every byte, and the end of a document"
        raise ConfigError(text, key="vocab_size", value=vocab_size)
    library, target = _library("training one"), expanded(path)
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    settings = {"vocab_size": vocab_size, "special_tokens": [_ENDS[0]], "initial_alphabet": alphabet}
    tokenizer.train_from_iterator(texts, library.trainers.BpeTrainer(**settings, show_progress=False))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    tokenizer.save(str(part))
    return part.replace(target)


def _library(what: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise not_installed(what, "the library tokenizers", "text") from error
    return tokenizers
