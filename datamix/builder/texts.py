"""The text of a mix of tokens, in its ratio, to train a tokenizer on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from datamix.builder.assembly import Assembly
from datamix.builder.open_source import OpenSource
from datamix.errors import ConfigError
from datamix.sources.text.packed import Packed

_RECORDS = 256  # read at a time


def packed(sources: Mapping[str, OpenSource]) -> dict[str, Packed]:
    """The sources of packed tokens, without what selects among their records, by name."""
    return {name: source.whole for name, source in sources.items() if isinstance(source.whole, Packed)}


def texts(mix: Assembly, most_characters: int = 2**28) -> Iterator[str]:
    """The pieces of documents in a mix, from its beginning, until they have `most_characters` characters.

    Raises:
      ConfigError: A source has no text, or its tokenizer is not known.
    """
    names, known = list(mix.sources), packed(mix.sources)
    for name, each in mix.sources.items():
        if name not in known or known[name].known_tokenizer is None:
            raise ConfigError(f"source {name!r} has no text; name the tokenizer that made its tokens", key=each.key)
    position = characters = 0
    while characters < most_characters and len((chosen := mix.plan.take(position, _RECORDS)).source):
        position += _RECORDS
        for i in np.unique(chosen.source).tolist():
            records, source = chosen.record[chosen.source == i], known[names[i]]
            shape = (len(records), source.length)
            out = {"tokens": np.empty(shape, np.int32), "segment_ids": np.empty(shape, np.int32)}
            mix.sources[names[i]].source.take(records, out)
            for tokens, segments in zip(out["tokens"], out["segment_ids"], strict=True):
                for segment in range(1, int(segments.max()) + 1):
                    text = source.decode(tokens[segments == segment])
                    characters += len(text)
                    yield text.replace("\ufffd", "")  # a character that the end of the record cuts in two
