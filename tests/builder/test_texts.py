from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from datamix.builder.assembly import assemble
from datamix.builder.open_source import OpenSource
from datamix.builder.texts import packed, texts
from datamix.errors import ConfigError
from datamix.mixing.plan_spec import PlanSpec
from datamix.sources.objects import as_source
from datamix.sources.sliced import Sliced
from datamix.sources.text.source import Text, Tokens


def opened(tmp_path, **of):
    sources = []
    for name, text in of.items():
        (tmp_path / f"{name}.txt").write_text(text)
        source = Text(path=str(tmp_path / f"{name}.txt"), length=8, packing="pad", cache_dir=str(tmp_path))
        sources.append(OpenSource(name=name, source=source, provenance="text"))
    return sources


def test_the_text_of_a_mix_comes_in_its_ratio(tmp_path):
    sources = opened(tmp_path, a="\n\n".join(["eins", "zwei"] * 30), b="\n\n".join(["drei", "größere"] * 30))
    mix = assemble(sources, PlanSpec(sizes={}, weights={"a": 3}))
    counts = Counter(texts(mix))
    assert counts["eins"] + counts["zwei"] == 60
    assert sum(counts.values()) == 80
    assert counts.keys() == {"eins", "zwei", "drei", "größer", "e"}  # the last two: pieces of one document
    stop = [*texts(assemble(sources, PlanSpec(sizes={}, stop="forever")), most_characters=100)]
    assert 100 <= sum(map(len, stop)) < 2000
    assert set(stop) <= counts.keys()


def test_sources_are_found_behind_what_selects_their_records(tmp_path):
    (text,) = opened(tmp_path, a="x\n\ny")
    part = OpenSource(name="part", source=Sliced(text.source, [(0, 1)]), provenance="text")
    assert [
        *packed({"part": part, "c": OpenSource(name="c", source=as_source({"x": np.ones(2)}), provenance="x")})
    ] == ["part"]
    assert [*texts(assemble([part], PlanSpec(sizes={})))] == ["x"]


def test_a_source_without_text_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, 0]))
    source = Tokens(path=str(tmp_path / "a.npy"), end_of_document=0, length=2, cache_dir=str(tmp_path))
    mix = assemble([OpenSource(name="a", source=source, provenance="tokens", key="source.a")], PlanSpec(sizes={}))
    with pytest.raises(
        ConfigError, match=r"source\.a: source 'a' has no text; name the tokenizer that made its tokens"
    ):
        next(texts(mix))
