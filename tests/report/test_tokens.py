from __future__ import annotations

import numpy as np
import pytest

from datamix.builder.open_source import OpenSource
from datamix.mixing.plan import Plan
from datamix.report import tokens
from datamix.report.console import console
from datamix.report.figures import color_of
from datamix.sources.objects import as_source
from datamix.sources.text.source import Text


@pytest.fixture
def sources(tmp_path):
    opened = {}
    for name, text in (("a", "eins\n\nzwei und mehr"), ("b", "x\n\n" * 6 + "long" * 9)):
        (tmp_path / f"{name}.txt").write_text(text)
        source = Text(
            path=str(tmp_path / f"{name}.txt"), length=16, packing="pad", long="drop", cache_dir=str(tmp_path)
        )
        opened[name] = OpenSource(name=name, source=source, provenance="text")
    opened["c"] = OpenSource(name="c", source=as_source({"x": np.zeros(4)}), provenance="arrays")
    return opened


def plan_of(sources, **settings):
    lengths = {name: source.num_tokens for name, source in sources.items() if source.num_tokens is not None}
    return Plan({name: source.num_records for name, source in sources.items()}, num_tokens=lengths, **settings)


def test_a_row_says_what_became_of_a_sources_documents(sources):
    plan = plan_of(sources, stop="all_exhausted", shuffle=False)
    assert plan.length == 17
    assert tokens.rows(sources, plan, 17) == [
        ("a", "2", "0", "0", "19", "40.6 %", "57", "82.6 %", "3.00"),
        ("b", "7", "0", "1 (37 tokens)", "12", "87.5 %", "12", "17.4 %", "1.00"),
    ]


def test_without_end_shares_are_those_in_the_long_run(sources):
    by_records, by_tokens = plan_of(sources, stop="forever"), plan_of(sources, weights={"c": 0}, stop="forever")
    for plan in (by_records, by_tokens):
        assert [row[-3:] for row in tokens.rows(sources, plan, None)] == [("∞", "82.6 %", "∞"), ("∞", "17.4 %", "∞")]


def test_documents_are_shown_in_the_color_of_their_source(sources):
    ids = np.zeros((2, 16), np.int32)
    text = np.zeros((2, 16), np.int32)
    text[1, :8], ids[1, :8] = [*b"so\nso", 256, *b"a\x07"], [1] * 6 + [2] * 2
    batch = {"tokens": text, "segment_ids": ids, "source_id": np.array([2, 1])}
    lines = [*tokens.documents(console(), sources, [batch])]
    assert [line.plain for line in lines] == ["b: a record of 8 tokens, 2 documents", "  1 │ so so", "  2 │ a\\x07"]
    assert color_of(1) in str(lines[0].style)
    assert [*tokens.documents(console(), sources, [{"x": np.zeros(2), "source_id": np.array([0, 1])}])] == []


def test_long_documents_are_wrapped_and_cut(sources):
    out = console()
    out.width = 46
    words = [*b"a word " * 60, 256]
    ids = np.concatenate([np.full(len(words), 1), [2, 3, 4, 5, 0]])
    batch = {"tokens": np.array([[*words, *b"xyzu", 0]]), "segment_ids": ids[None], "source_id": np.array([0])}
    head, *lines = [line.plain for line in tokens.documents(out, sources, [batch])]
    assert head == "a: a record of 425 tokens, the first 4 of 5 documents"
    assert lines[:2] == ["  1 │ a word a word a word a word a word a", "    │ word a word a word a word a word a word"]
    assert lines[-4].endswith("a…")
    assert lines[-3:] == ["  2 │ x", "  3 │ y", "  4 │ z"]
    assert max(map(len, lines)) <= 46
    assert all(line == line.rstrip() for line in lines)


def test_a_figure_of_tokens_and_lengths(sources, tmp_path):
    assert tokens.draw(tmp_path, sources) == "tokens.png"
    assert (tmp_path / "tokens.png").read_bytes().startswith(b"\x89PNG")
    assert tokens.draw(tmp_path, {"c": sources["c"]}) is None
