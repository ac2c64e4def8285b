"""Text in overrides: what Hydra reads is the text."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from datamix.config.quoting import as_value, in_quotes

TEXTS = ["", "s-next", "a/b.c", "1", "-1", "1e3", "nan", "null", "true", "my dir", " a ", "a,b", "[a]", "{a: 1}", "~/a",
         "my dir, a (1)", "it's", '"a"', "a\\", r"a\'b", r"\\", "a=b", "$a", "a:b", "ä#%&!", "a;b",
         "choice(a)"]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("write", [as_value, in_quotes])
def test_hydra_reads_the_text(write, text):
    written = write(text)
    for value, read in ((written, text), (f"[{written},{written}]", [text, text])):
        (override,) = OverridesParser.create().parse_overrides([f"key={value}"])
        assert override.value() == read


@pytest.mark.parametrize("text", ["s-next", "a/b.c", "my dir", "a:b"])
def test_quotes_are_added_only_where_they_are_needed(text):
    assert as_value(text) == text
