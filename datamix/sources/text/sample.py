"""Text to try a language model on: corpora in a directory, or else what every machine has or can make."""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from datamix.errors import ConfigError, expanded
from datamix.sources.cache import cache_directory
from datamix.sources.text.packing import Packing
from datamix.sources.text.reading import SUFFIXES
from datamix.sources.text.source import Text

TextKind: TypeAlias = Literal["code", "docs", "scripture"]

_TEST_EVERY = 8  # documents
_CHAPTERS = 800
_WHO = ("the king", "the prophet", "a servant", "the people of the city", "her father", "the elders", "a stranger")
_DID = (
    *("went up to", "remembered", "spoke against", "built", "departed from", "found", "kept", "came before"),
    "blessed",
)
_WHAT = ("the house", "the river", "the mountain", "the field", "the gate", "the vineyard", "the sea", "the land")
_WHEN = ("in that day", "at evening", "in the morning", "after these things", "before the harvest", "all their days")


@dataclass(frozen=True, kw_only=True)
class Sample(Text):
    """A text, and a sentence on where it comes from, which is empty for corpora."""

    origin: str = ""

    @property
    def provenance(self) -> str:
        return "stand-in" if self.origin else "text"

    @property
    def notes(self) -> tuple[str, ...]:
        return (*([self.origin] if self.origin else []), *super().notes)


def sample_text(
    *,
    kind: TextKind,
    length: int,
    corpora: str | None = None,
    packing: Packing = "chunk",
    split: str = "train",
    tokenizer: str = "bytes",
    cache_dir: str | None = None,
    source_name: str = "",
) -> Sample:
    """A text of a kind, with splits `train` and `test`.

    Args:
      kind: "code", "docs" or "scripture".
      length: The number of tokens that a record has room for.
      corpora: A directory with the files `<kind>.train.*` and `<kind>.test.*`. Without it, code is that of the
        interpreter's standard library, docs are the help on its language, and scripture is drawn by code.
      packing: "chunk", "best_fit" or "pad"; see `datamix.sources.text.packing.pack`.
      split: The documents to read, in TFDS's syntax.
      tokenizer: "bytes", or the path of a `tokenizer.json`.
      cache_dir: The directory of the cache.
      source_name: The source's name in the mix.
    """
    origin = ""
    if corpora is not None:
        paths = {part: _files(expanded(corpora), kind, part) for part in ("train", "test")}
    else:
        documents, origin = _documents(kind)
        paths = _written(documents, kind, cache_directory(cache_dir))
    return Sample(
        path=paths,
        length=length,
        packing=packing,
        split=split,
        tokenizer=tokenizer,
        cache_dir=cache_dir,
        source_name=source_name,
        origin=origin,
    )


def _files(folder: Path, kind: TextKind, part: str) -> list[str]:
    files = sorted(str(path) for path in folder.glob(f"{kind}.{part}.*") if path.name.endswith(SUFFIXES))
    if not files:
        text, mend = f"it holds no file {kind}.{part}.*, such as .txt", "Leave it null for what every machine has."
        raise ConfigError(text, key="corpora", value=str(folder), hint=mend)
    return files


def _documents(kind: TextKind) -> tuple[list[str], str]:
    """Documents that every machine has, and a sentence on where they come from."""
    if kind == "code":
        modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in modules]
        return [text for text in texts if text], "it is the code of this interpreter's standard library."
    if kind == "docs":
        from pydoc_data.topics import topics

        return [str(topics[name]) for name in sorted(topics)], "it is this interpreter's help on its language."
    draw = np.random.default_rng(0)
    return [_chapter(draw) for _ in range(_CHAPTERS)], "it is drawn by code, verse by verse."


def _chapter(draw: np.random.Generator) -> str:
    verses = []
    for _ in range(draw.integers(8, 30)):
        who, did, what, when = (words[draw.integers(len(words))] for words in (_WHO, _DID, _WHAT, _WHEN))
        verses.append(f"And {when} {who} {did} {what}, and {who.split()[-1]} was not forgotten.")
    return "\n".join(verses)


def _written(documents: Sequence[str], kind: TextKind, cache: Path) -> dict[str, list[str]]:
    parts = {"test": documents[::_TEST_EVERY], "train": [text for i, text in enumerate(documents) if i % _TEST_EVERY]}
    paths: dict[str, list[str]] = {}
    for part, texts in parts.items():
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        path = cache / f"sample-{kind}-{hashlib.sha256(content).hexdigest()[:16]}" / f"{kind}.{part}.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.part")
            partial.write_bytes(content)
            partial.replace(path)
        paths[part] = [str(path)]
    return paths
