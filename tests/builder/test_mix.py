"""`datamix.mix`: sources and operators as Python objects."""

from __future__ import annotations

import functools
import pickle
import re
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix import operators
from datamix.errors import SpecError
from datamix.mixing.stops import Stop
from datamix.operators.image import cast, normalize, to_float
from datamix.spec import Record
from datamix.testing import check_resume


def few(size: int = 6, classes: int = 3, value: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.full((size, 2, 2, 1), value, np.uint8), "label": np.arange(size) % classes}


def pairs(size: int = 6) -> list[tuple[np.ndarray, int]]:
    return [(np.full((2, 2, 1), i, np.uint8), i % 3) for i in range(size)]


def double(record: Record, *, leaf: str = "image") -> Record:
    return record | {leaf: record[leaf] * 2}


def assert_same(one: datamix.Pipeline, other: datamix.Pipeline) -> None:
    batches, others = list(islice(one, 4)), list(islice(other, 4))
    assert len(batches) >= 2
    for mine, theirs in zip(batches, others, strict=True):
        assert mine.keys() == theirs.keys()
        for leaf in mine:
            np.testing.assert_array_equal(mine[leaf], theirs[leaf])


@pytest.mark.parametrize(
    ("other", "label"), [({"image": few()["image"]}, "none"), (few() | {"label": np.arange(6) / 4}, "number")]
)
def test_labels_that_do_not_fit_are_mended_by_a_keyword(other: dict[str, Any], label: str) -> None:
    with pytest.raises(SpecError, match=rf"set label=\{{'a': '{label}'\}}\.$"):
        datamix.mix({"a": few(), "b": other}, batch_size=4)
    assert "image" in datamix.mix({"a": few(), "b": other}, batch_size=4, label={"a": label}).spec


def test_the_mix_of_the_contract() -> None:
    pipeline = datamix.mix(
        {"a": pairs(), "b": {"image": np.ones((4, 2, 2, 1), np.float32), "label": np.zeros(4, int)}},
        operators={"a": [to_float]}, weights={"a": 3}, stop="forever", batch_size=256,
    )  # fmt: skip
    batch = pipeline[0]
    assert {leaf: (str(value.dtype), value.shape) for leaf, value in batch.items()} == {
        "image": ("float32", (256, 2, 2, 1)), "label": ("int32", (256,)), "source_id": ("int32", (256,)),
    }  # fmt: skip
    assert np.bincount(batch["source_id"]).tolist() == [192, 64]
    assert sorted(set(batch["label"].tolist())) == [0, 1, 2, 3]
    check_resume(pipeline, steps=3)


KEYWORDS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"weights": {"a": 3}, "stop": "forever"}, ["mix.weights.a=3", "stop=forever"]),
    ({"ratio": "2:1", "order": "random", "replacement": True}, ["mix.ratio=2:1", "mix=random", "mix.replacement=true"]),
    ({"share": {"b": 0.25}, "window": 4, "seed": 7}, ["mix.share.b=0.25", "mix.window=4", "seed=7"]),
    ({"order": "round_robin", "granularity": "batch"}, ["mix=round_robin", "mix.granularity=batch"]),
    ({"order": "concat"}, ["mix=concat"]),
    ({"stop": "exhaust_once", "remainder": "keep"}, ["stop=exhaust_once", "batch.remainder=keep"]),
    ({"shuffle_rows": True}, ["batch.shuffle=true"]),
    (
        {"epochs": {"a": 2}, "batches": 3, "samples": 100},
        ["stop.epochs.a=2", "stop.batches=3", "stop.samples=100"],
    ),
    (
        {"weighting": {"rule": "size", "temperature": 2}, "limit": {"a": np.int64(5)}, "seeds": {"b": 3}},
        ["weighting=size", "weighting.temperature=2", "source.a.limit=5", "source.b.seed=3"],
    ),
    (
        {"labels": "keep", "shuffle": "window(3)", "class_names": {"a": ["x", "y", "z"]}},
        ["labels=keep", "shuffle=window(3)", "source.a.class_names=[x,y,z]"],
    ),
    (
        {"where": {"a": "label < 2"}, "balance": {"a": "label"}, "record_weight": {"b": "label"}},
        ["source.a.where=label < 2", "source.a.balance=label", "source.b.record_weight=label"],
    ),
    (
        {"schedule": [{"until": 1, "weights": {"a": 9}}, {"weights": {"a": 1}}], "stop": "forever"},
        ["mix.schedule=[{until:1,weights:{a:9}},{weights:{a:1}}]", "stop=forever"],
    ),
    (
        {"operators": [to_float, (normalize, {"mean": 0.5, "std": 0.25})], "shared_operators": ["flip_horizontal"]},
        [
            *(f"source.{name}.operators=[to_float,{{normalize:{{mean:0.5,std:0.25}}}}]" for name in "ab"),
            "operators=[flip_horizontal]",
        ],
    ),
    (
        {"operators": {"a": [functools.partial(cast, dtype="float32")], "b": [{"cast": {"dtype": "float32"}}]}},
        [f"source.{name}.operators=[{{cast:{{dtype:float32}}}}]" for name in "ab"],
    ),
]


@pytest.mark.filterwarnings("ignore:source .a.. where")
@pytest.mark.parametrize(("keywords", "overrides"), KEYWORDS, ids=[str(list(keywords)) for keywords, _ in KEYWORDS])
def test_keywords_mean_what_the_keys_of_the_command_line_mean(keywords: dict[str, Any], overrides: list[str]) -> None:
    sources = {"a": few(13), "b": pairs(11)}
    mixed = datamix.mix(sources, batch_size=4, **keywords)
    loaded = datamix.load("batch.size=4", *overrides, sources=sources)
    assert mixed.fingerprint == loaded.fingerprint
    assert (mixed.plan.length, mixed.spec) == (loaded.plan.length, loaded.spec)
    assert_same(mixed, loaded)
    loaded.iterator().restore(mixed.iterator(start=1).state())


def test_the_defaults_are_those_of_the_command_line() -> None:
    sources = {"a": few(40), "b": few(40)}
    mixed, loaded = datamix.mix(sources), datamix.load(sources=sources)
    assert (mixed.fingerprint, mixed.batch_size) == (loaded.fingerprint, loaded.batch_size)


def test_every_kind_of_source() -> None:
    arrays = few()
    listed = [{"image": arrays["image"][i], "label": arrays["label"][i]} for i in range(6)]
    sources = {"arrays": arrays, "source": datamix.MemoryArrays(arrays), "listed": listed}
    batch = datamix.mix(sources, labels="keep", stop="exhaust_once", batch_size=18)[0]
    for source in range(3):
        assert sorted(batch["label"][batch["source_id"] == source].tolist()) == [0, 0, 1, 1, 2, 2]


def test_numbers_of_64_bits_are_stored_in_32() -> None:
    records = [{"x": i / 2, "n": i} for i in range(4)]
    pipeline = datamix.mix({"a": records}, batch_size=4, shuffle="none")
    assert {leaf: str(pipeline.spec[leaf]) for leaf in ("x", "n")} == {"x": "float32 []", "n": "int32 []"}
    assert pipeline[0]["x"].tolist() == [0, 0.5, 1, 1.5]
    with pytest.raises(datamix.DataError, match="source 'a': leaf 'n' holds numbers that do not fit int32"):
        datamix.mix({"a": [*records, {"x": 0.5, "n": 2**31}]}, batch_size=4)


def test_a_plain_function_is_an_operator() -> None:
    sources = {"a": few(value=3)}

    def scaled(record: Record, factor: int) -> Record:
        return record | {"image": record["image"] * jnp.uint8(factor)}

    for chain, value in (
        ([double], 6), ([double, double], 12), ([(double, {"leaf": "image"})], 6), ([lambda record: record], 3),
        ([functools.partial(scaled, factor=5)], 15), ([functools.partial(functools.partial(scaled), factor=2)], 6),
    ):  # fmt: skip
        assert set(datamix.mix(sources, operators=chain, batch_size=2)[0]["image"].ravel().tolist()) == {value}
    assert "a/double" in datamix.mix(sources, operators=[double], batch_size=2).graph.nodes


def test_another_function_is_another_sequence() -> None:
    def double(record: Record) -> Record:  # of the same name
        return record

    names = [
        datamix.mix({"a": few()}, operators=[each], batch_size=2).fingerprint for each in (double, globals()["double"])
    ]
    assert names[0] != names[1]
    means = [np.zeros(1), np.ones(1)]
    chains = [[to_float, functools.partial(normalize, mean=mean, std=1.0)] for mean in means]
    first, second = (datamix.mix({"a": few()}, operators=chain, batch_size=2) for chain in chains)
    assert first.fingerprint != second.fingerprint
    assert first[0]["image"].max() == 0
    assert second[0]["image"].max() == -1


def test_a_random_operator_gets_its_key() -> None:
    @datamix.operator(random=True)
    def noise(record: Record, key: jax.Array) -> Record:
        return record | {"image": jax.random.uniform(key, (2, 2, 1))}

    first, again, other = (
        datamix.mix({"a": few()}, operators=[noise], seed=seed, batch_size=6)[0]["image"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_orders_stops_and_weightings_have_settings() -> None:
    @datamix.stop
    def gone_through(*, source: str) -> Stop:
        return Stop(waits_for="all", sources=(source,), repeats=True)

    sources = {"a": few(3), "b": few(30)}
    lengths = [
        datamix.mix(sources, stop={"rule": "gone_through", "source": name}, batch_size=2).plan.length for name in "ab"
    ]
    assert lengths == [5, 60]
    with pytest.raises(datamix.ConfigError, match="sourc"):
        datamix.mix(sources, stop={"rule": "gone_through", "sourc": "a"}, batch_size=2)


def test_a_mix_within_the_mix() -> None:
    nested = {"vision": {"a": few(9), "b": pairs(9)}, "c": few(9)}
    pipeline = datamix.mix(nested, weights={"vision": 3, "vision.a": 2}, stop="forever", batch_size=12)
    assert pipeline.source_names == ("vision.a", "vision.b", "c")
    assert np.bincount(pipeline[0]["source_id"]).tolist() == [6, 3, 3]
    flat = datamix.mix(
        {"vision.a": few(9), "vision.b": pairs(9), "c": few(9)},
        weights={"vision": {"_self_": 3, "a": 2}}, stop="forever", batch_size=12,
    )  # fmt: skip
    assert flat.fingerprint == pipeline.fingerprint
    limited = datamix.mix(nested, limit={"vision.b": 4}, epochs={"vision": {"b": 2}}, batch_size=2)
    assert limited.plan.sizes == (9, 4, 9)


def test_lists_of_numbers_are_leaves_and_no_mix_within_the_mix() -> None:
    pipeline = datamix.mix({"a": {"label": [0, 1, 2], "x": [[1.0], [2.0], [3.0]]}}, batch_size=3)
    assert pipeline.source_names == ("a",)
    assert sorted(pipeline[0]["x"].ravel().tolist()) == [1, 2, 3]


def test_lengths_may_follow_the_ratio() -> None:
    lengths = {"a": {"tokens": np.full(40, 4)}, "b": {"tokens": np.full(40, 1)}}
    pipeline = datamix.mix(lengths, unit="tokens", stop="forever", batch_size=50)
    assert np.bincount(pipeline[0]["source_id"]).tolist() == [10, 40]


def test_the_built_in_operators_are_functions_of_the_package() -> None:
    assert operators.to_float is to_float
    assert {"normalize", "one_hot"} <= set(dir(operators))
    with pytest.raises(AttributeError, match="has no attribute 'to_flaot'"):
        _ = operators.to_flaot


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"sources": {}}, r"^sources: a mix needs at least one source"),
        ({"sources": [few()]}, r"^sources are given by name, .* this is list\."),
        ({"sources": {1: few()}}, r"^sources: 1 is not a name"),
        ({"sources": {"g": {"b": few()}, "g.b": few()}}, r"^sources: there are two sources 'g\.b'; a dot parts a mix"),
        ({"sources": {"a": few(), "a.b": few()}}, r"^'a' is a source, and 'a\.b' a source within a mix of that name"),
        ({"sources": {"a": iter([1])}}, r"^source 'a': list_iterator is no source"),
        ({"sources": {"a": [{"text": "x"}]}}, r"^source 'a': leaf 'text' of record 0 is text"),
        ({"sources": {"a": {"image": "x"}}}, r"^source 'a': leaf 'image' is text"),
        ({"sources": {"a": []}}, r"^sources\['a'\]: source 'a' is empty\. Leave it out, or choose other records\.$"),
        ({"sources": {"a": few() | {"source_id": np.zeros(6)}}}, r"; rename it, or leave it out\.$"),
        ({"operators": {"b": [to_float]}}, r"^operators\['b'\]: there is no source 'b' in this mix\. Known: a\.$"),
        ({"operators": {"a": to_float}}, r"^operators\['a'\] = <function .*; it is a list of operators, as in \[to_"),
        ({"operators": "to_float"}, r"^operators\['a'\] = 'to_float'; it is a list of operators"),
        ({"operators": ["to_flaot"]}, r"^operators\['a'\]\[0\]: no operator 'to_flaot'\. Did you mean 'to_float'\?"),
        ({"shared_operators": [3]}, r"^shared_operators\[0\] = 3; it is no operator, which is a function from record"),
        ({"operators": [functools.partial(double, {})]}, r"^operators\['a'\]\[0\] = .*; it is no operator, "),
        ({"operators": [(normalize, {"mean": 1})]}, r"^operators\['a'\]\[0\]\.normalize\.std is missing"),
        ({"operators": [(to_float, {"largst": 1})]}, r"\[0\]\.to_float\.largst: there is no such setting"),
        ({"operators": [(double, {"leef": "image"})]}, r"^operators\['a'\]\[0\]: double does not take .*'leef'"),
        ({"operators": [lambda: 3]}, r"^operators\['a'\]\[0\]: lambda does not take a record and these settings"),
        (
            {"operators": [functools.partial(double, leaf=np.zeros(2))]},
            r"^operators\['a'\]\[0\]\.double\.leaf: it is an array, .* traced=\('leaf',\)",
        ),
        ({"weigths": {"a": 2}}, r"^weigths: mix has no such keyword with order='proportional'\. Did you mean"),
        ({"order": "random", "window": 3}, r"^window: mix has no such keyword with order='random'\."),
        ({"order": "randm"}, r"^no order 'randm'\. Did you mean 'random'\?"),
        ({"stop": "never"}, r"no stop 'never'"),
        ({"weights": {"b": 2}}, r"^weights\['b'\]: there is no source 'b'"),
        ({"weights": {"a": -1}}, r"^weights\['a'\] = -1; a weight is 0 or more"),
        ({"batch_size": 500}, r"^batch_size = 500; it is more than .* Make it smaller, or set remainder='keep'\.$"),
        ({"max_epochs": {"a": 0.5}}, r"^max_epochs\['a'\] = 0\.5; it is a whole number"),
        ({"window": 0}, r"^window = 0; it is 1 or more"),
        ({"granularity": "batch", "unit": "label"}, r"^unit: .* Set granularity='record'\.$"),
        ({"class_names": {"b": ["x"]}}, r"^class_names\['b'\]: there is no source 'b'"),
        ({"class_names": {"a": ["x"]}}, r"label 2 has no name among the 1 class_names; .* in class_names\['a'\]\.$"),
        ({"limit": {"a": 0}}, r"^limit\['a'\] = 0; it is 1 or more\.$"),
        ({"batch_size": 0}, r"^batch_size = 0; it is 1 or more\.$"),
        ({"batches": True}, r"^batches = True; it is a whole number\.$"),
        ({"samples": 1.5}, r"^samples = 1\.5; it is a whole number\.$"),
        ({"limit": 3}, r"^limit = 3; it is given by source, as in \{'a': …\}\.$"),
        ({"class_names": {"a": "xyz"}}, r"^class_names\['a'\] = 'xyz'; it is a list of names\.$"),
        ({"seed": "x"}, r"^seed = 'x'; it is a whole number\.$"),
        ({"seeds": {"a": 0.5}}, r"^seeds\['a'\] = 0\.5; it is a whole number\.$"),
        ({"labels": "join"}, r"^labels = 'join'\. Known: keep, union\.$"),
        ({"remainder": "drp"}, r"^remainder = 'drp'\. Did you mean 'drop'\?"),
        ({"granularity": "batches"}, r"^granularity = 'batches'\. Did you mean 'batch'\?"),
        ({"unit": "tokens"}, r"^unit = 'tokens'; source 'a' has no leaf 'tokens' with one number a record"),
    ],
)  # fmt: skip
def test_mistakes(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(datamix.DatamixError, match=message) as raised:
        datamix.mix(**({"sources": {"a": few()}, "batch_size": 2} | keywords))
    assert "\n" not in str(raised.value)
    assert not re.search(r"source=|source\.a\.", str(raised.value))  # nothing of the command line


def test_a_mix_of_mapped_files_is_pickled_by_reference(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(40000).reshape(20000, 2))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    in_memory = datamix.load("batch.size=4", sources={"some": {"x": rows[5:]}})
    for pipeline in (datamix.mix({"a": {"x": rows}, "v": {"b": {"x": rows[::-2]}}}, batch_size=4), in_memory):
        text = pickle.dumps(pipeline)
        assert len(text) < 3000
        np.testing.assert_array_equal(pickle.loads(text)[3]["x"], pipeline[3]["x"])
