"""A source as it takes part in a mix."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datamix.builder.open_source import OpenSource, named
from datamix.errors import ConfigError, DataError
from datamix.operators.image import channels_last
from datamix.pipeline.graph import Operation
from datamix.sources.arrays import MemoryArrays
from datamix.sources.base import ReadableSource, Unavailable
from datamix.sources.objects import as_source
from datamix.sources.selected import Selected
from datamix.sources.sliced import Sliced
from datamix.sources.statistics import LeafStatistics
from datamix.testing import check_source

ARRAYS = MemoryArrays({"label": np.array([2, 0, 1, 2, 4])})
LISTED = as_source([{"label": label} for label in (2, 0, 1, 2, 4)])


def opened(source: Any = ARRAYS, **settings: Any) -> OpenSource:
    return OpenSource(name="a", source=source, provenance="arrays", **settings)


@pytest.mark.parametrize("source", [ARRAYS, LISTED], ids=["reads", "takes"])
@pytest.mark.parametrize(("limit", "labels"), [(None, [2, 0, 1, 2, 4]), (3, [2, 0, 1]), (9, [2, 0, 1, 2, 4])])
def test_the_limit_leaves_the_first_records(source: Any, limit: int | None, labels: list[int]) -> None:
    limited = opened(source, limit=limit)
    assert isinstance(limited, ReadableSource)
    assert limited.num_records == len(labels)
    assert limited.read()["label"].tolist() == labels
    assert limited.loaded().read()["label"].tolist() == labels
    assert [labels.max() for labels in limited.whole_labels()] == [4]  # of the whole dataset
    check_source(limited)


def test_what_lies_in_memory_is_what_is_used() -> None:
    arrays = MemoryArrays({"x": np.arange(5), "label": np.arange(5)[:, np.newaxis]})
    source = opened(arrays, limit=3)
    assert {leaf: values.tolist() for leaf, values in source.in_memory.items()} == {"x": [0, 1, 2], "label": [0, 1, 2]}
    out = {"label": np.zeros(2, np.int64)}
    source.take(np.array([2, 0]), out)
    assert out["label"].tolist() == [2, 0]
    assert list(opened(arrays, limit=3, label="class", chosen_num_classes=3).in_memory) == ["x", "label"]
    assert list(opened(arrays, label="class", chosen_num_classes=3).in_memory) == ["x"]  # one is none: when it is taken
    assert opened(LISTED).in_memory == {}


def test_names_chosen_for_classes_come_before_the_source_s_own() -> None:
    named_source = MemoryArrays(ARRAYS.arrays, class_names=tuple("abcde"))
    assert opened(named_source).class_names == tuple("abcde")
    assert opened(named_source, chosen_names=tuple("vwxyz")).class_names == tuple("vwxyz")
    assert opened(chosen_names=tuple("vwxyzu")).declared_num_classes == 6


@pytest.mark.parametrize(("key", "where"), [("source.a", r"source\.a\.class_names"), ("", r"class_names\['a'\]")])
def test_a_label_without_a_name_is_found_wherever_it_is_read(key: str, where: str) -> None:
    source = opened(chosen_names=("x", "y", "z"), key=key)
    message = rf"^source 'a': label 4 has no name among the 3 class_names; name every class in {where}\.$"
    with pytest.raises(DataError, match=message):
        source.read()
    out = {"label": np.zeros(2, np.int64)}
    source.take(np.array([0, 1]), out)
    assert out["label"].tolist() == [2, 0]
    with pytest.raises(DataError, match=message):
        source.take(np.array([0, 4]), out)
    assert opened(chosen_names=("x", "y", "z"), limit=3).read()["label"].tolist() == [2, 0, 1]


def test_what_reading_raises_names_the_source() -> None:
    source = opened(as_source([{"label": 1}, {"label": "x"}]))
    with pytest.raises(DataError, match=r"^source 'a': leaf 'label' of record 1 is text"):
        source.read()
    with pytest.raises(DataError, match=r"^source 'a': leaf 'label' of record 1 is text"):
        source.take(np.array([1]), {"label": np.zeros(1, np.int64)})


def test_an_error_gets_the_name_in_the_mix_and_keeps_its_kind() -> None:
    error = named("mine", ConfigError("source 'mnist': there is no split 'x'."))
    assert (type(error), str(error)) == (ConfigError, "source 'mine': there is no split 'x'.")
    unavailable = named("mine", Unavailable("source 'mnist': not prepared.", "not prepared"))
    assert (type(unavailable), str(unavailable)) == (DataError, "source 'mine': not prepared.")
    assert str(pickle.loads(pickle.dumps(unavailable))) == str(unavailable)


def test_channels_that_come_first_are_told() -> None:
    source = MemoryArrays({"image": np.zeros((2, 3, 8, 9), np.uint8)})
    (note,) = opened(source).shape_notes()
    assert note.startswith("source 'a': images [3, 8, 9] seem to have their channels first, and stay so; ")
    turned = Operation(operator="channels_last", function=channels_last)
    assert opened(source, operators=(turned,)).shape_notes() == []
    assert opened(MemoryArrays({"image": np.zeros((2, 3, 8, 3), np.uint8)})).shape_notes() == []


def test_statistics_of_the_whole_are_not_those_of_a_part_of_it() -> None:
    class Knows(MemoryArrays):
        def statistics(self) -> Any:
            return {leaf: LeafStatistics.of(values) for leaf, values in self.arrays.items()}

    source = Knows({"label": np.arange(5), "x": np.arange(5)})
    assert opened(source).statistics()["label"].max == 4
    assert opened(source, limit=5).statistics()["label"].max == 4
    assert opened(source, limit=4).statistics() is None
    assert list(opened(source, label="none").statistics()) == ["x"]
    assert opened(source, limit=4, kept=source.statistics).statistics() is not None  # kept for this limit
    assert opened().statistics() is None


def test_tokens_are_counted_without_reading_any_whatever_selects_their_records():
    class Rows(MemoryArrays):
        tokenizer_digest = "t"

        def lengths(self):
            return np.array([3, 1, 2])

    rows = Rows({"tokens": np.ones((3, 3), np.int32), "num_tokens": np.array([3, 1, 2], np.int32)})
    whole = OpenSource(name="a", source=rows, provenance="tokens")
    assert (whole.num_tokens.tolist(), whole.tokenizer_digest) == ([3, 1, 2], "t")
    assert replace(whole, limit=2).num_tokens.tolist() == [3, 1]
    some = replace(whole, source=Sliced(Selected(rows, np.array([2, 0])), [(1, 2), (0, 1)]), limit=1)
    assert (some.num_tokens.tolist(), some.tokenizer_digest, some.whole) == ([3], "t", rows)
    plain = OpenSource(name="b", source=MemoryArrays({"x": np.ones(2)}), provenance="arrays")
    assert (plain.num_tokens, plain.tokenizer_digest) == (None, None)
