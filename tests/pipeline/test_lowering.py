"""From a graph and the specs of its sources to a program."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, DataError, SpecError
from datamix.operators.base import operator, traits
from datamix.operators.image import (
    cast,
    channels_last,
    drop_alpha,
    flip_horizontal,
    normalize,
    resize,
    to_float,
    to_grayscale,
    to_rgb,
)
from datamix.operators.label import offset_label, one_hot, tag_source
from datamix.pipeline.graph import Graph, Operation
from datamix.pipeline.lowering import agreed_spec, assemble, chain_of, check_specs, stored_spec
from datamix.spec import LeafSpec, Record


def test_sources_of_different_formats(shared_data: Any) -> None:
    digits = dict(np.load(shared_data / "digits8x8.npz"))
    photos = dict(np.load(shared_data / "photo_patches32.npz"))
    resize = "{resize:{height:28,width:28}}"
    pipeline = datamix.load(
        "source=digits+small+photos",
        f"source.small.operators=[{resize},{{to_float:{{largest:16}}}},{{normalize:{{mean:0.1307,std:0.3081}}}}]",
        f"source.photos.operators=[{resize},to_grayscale,to_float,{{normalize:{{mean:0.5,std:0.25}}}}]",
        sources={"small": digits, "photos": photos},
    )
    batch = pipeline[3]
    chosen = pipeline.plan.take(3 * 16, 16)
    assert set(chosen.source.tolist()) == {0, 1, 2}
    for i, (source, record) in enumerate(zip(chosen.source, chosen.record, strict=True)):
        if source == 1:
            image = jax.image.resize(digits["image"][record].astype(np.float32), (28, 28, 1), "linear")
            expected = (np.clip(np.round(image), 0, 255) / 16 - 0.1307) / 0.3081
            assert batch["label"][i] == digits["label"][record] + 10
        elif source == 2:
            image = np.round(jax.image.resize(photos["image"][record].astype(np.float32), (28, 28, 3), "linear"))
            gray = np.round(np.asarray(image) @ np.float32([[0.299], [0.587], [0.114]]))
            expected = (gray / 255 - 0.5) / 0.25
            assert batch["label"][i] == photos["label"][record] + 20
        else:
            continue
        # One gray level of rounding either way.
        np.testing.assert_allclose(batch["image"][i], expected, atol=0.35 if source == 1 else 0.02)


@pytest.mark.parametrize(
    ("shape", "operators", "message"),
    [
        ((8, 8, 1), "[to_float]", r"sources 'a' and 'z' do not fit together: image is float32 \[4, 3, 1\] in a, but "
                                  r"float32 \[8, 8, 1\] in z; to mend it, set \"source.z.operators="),
        ((4, 3, 3), "[to_float]", r"float32 \[4, 3, 3\] in z; to mend it, set \".*to_float, to_grayscale\]\"\.$"),
        ((4, 3, 1), "[]", r"but uint8 \[4, 3, 1\] in z; to mend it, set \".*=\[to_float\]\"\.$"),
        ((4, 3, 1), "[to_float,{one_hot:{num_classes:4}}]", r"label is a vector of 4 in z, but a class number in a; "
                            r"set \"source\.a\.operators=\[to_float, \{one_hot: \{num_classes: 4, leaf: l"),
        ((4, 3, 1), "[{cast:{dtype:float16}}]", r"but float16 \[4, 3, 1\] in z; to mend it, set "
                            r"\".*=\[\{cast: \{dtype: float16\}\}, \{cast: \{dtype: float32, leaf: image\}\}\]\"\.$"),
        ((12,), "[{resize:{height:4,width:3}}]", r"z/resize: .*takes an image .* leaf 'image' has shape \[12\]"),
    ],
)  # fmt: skip
def test_records_that_do_not_fit(
    arrays: dict[str, dict[str, np.ndarray]], shape: tuple[int, ...], operators: str, message: str
) -> None:
    other = {"image": np.zeros((9, *shape), np.uint8), "label": np.zeros(9, np.int64)}
    with pytest.raises(SpecError, match=message):
        datamix.load("source.a.operators=[to_float]", f"source.z.operators={operators}", "batch.size=4",
                     sources={"a": arrays["a"], "z": other})  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "operators"),
    [
        ((8, 8, 3), "[to_float, {normalize: {mean: [0.5, 0.25, 0.5], std: 2}}]"),
        ((1, 28, 28), "[{clip: {low: 0, high: 9}}, to_float]"),
        ((28, 28, 3), "[to_float, {rename: {leaf: image, to: 'a, b: c'}}, {rename: {leaf: 'a, b: c', to: image}}]"),
    ],
)
def test_what_is_advised_keeps_the_operators_there_are(shape: tuple[int, ...], operators: str) -> None:
    label = np.zeros(9, np.int64)
    sources = {"a": {"image": np.zeros((9, 28, 28, 1), np.uint8), "label": label}}
    sources["z"] = {"image": np.zeros((9, *shape), np.uint8), "label": label}
    overrides = ["source.a.operators=[to_float]", f"source.z.operators={operators}", "batch.size=4"]
    with pytest.raises(SpecError) as caught:
        datamix.load(*overrides, sources=sources)
    advised = dict(re.findall(r'set "(source\.\w\.operators)=(.*?)"(?=[.,])', str(caught.value)))
    pipeline = datamix.load(*overrides, *(f"{key}={each}" for key, each in advised.items()), sources=sources)
    assert str(pipeline.spec["image"]) == "float32 [28, 28, 1]"
    for name in re.findall(r"{?(\w+)(?=[:,\]])", operators):
        assert name in str(caught.value)


def test_a_leaf_that_one_source_lacks(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    sources = {"a": arrays["a"], "z": {"image": arrays["b"]["image"]}}
    mend = r'set "source\.a\.operators=\[{select: {leaves: \[image\]}}\]", or set source\.a\.label=none\.'
    with pytest.raises(SpecError, match=rf"a has a leaf 'label', z has none; {mend}$"):
        datamix.load(sources=sources)
    for advised in ("source.a.operators=[{select: {leaves: [image]}}]", "source.a.label=none"):
        assert set(datamix.load(advised, "batch.size=4", sources=sources).spec) == {"image", "source_id"}


def test_sources_without_a_leaf_in_common(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    images, texts = {"image": arrays["a"]["image"]}, {"tokens": np.zeros((9, 8), np.int32)}
    mend = r"mix records of one kind, or write an operator that gives both the same leaves\.$"
    with pytest.raises(SpecError, match=rf"images has a leaf 'image', texts has none; {mend}"):
        datamix.mix({"images": images, "texts": texts}, batch_size=4)

    def as_features(record: Record) -> Record:
        values = record["image"].reshape(-1) if "image" in record else record["tokens"]
        return {"features": values.astype("float32")[:4]}

    pipeline = datamix.mix({"images": images, "texts": texts}, operators=[as_features], batch_size=4)
    assert pipeline[0]["features"].shape == (4, 4)


def test_specs_are_checked_before_data_is_read(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    class Unread:
        provenance, num_records, class_names = "unread", 5, ()

        @property
        def spec(self) -> Mapping[str, LeafSpec]:
            return {"image": LeafSpec((2, 2, 1), "uint8")}

        def read(self) -> dict[str, np.ndarray]:
            raise AssertionError("read before the specs were checked")

    with pytest.raises(SpecError, match="do not fit together"):
        datamix.load("batch.size=2", sources={"a": arrays["a"], "unread": Unread()})


def test_texts_are_refused() -> None:
    with pytest.raises(DataError, match="source 'a': leaf 'text' is <U3; a pipeline computes with numbers"):
        datamix.load("batch.size=2", sources={"a": {"text": np.asarray(["one", "two"])}})


def test_what_is_advised_for_texts_mends_it(tmp_path: Path) -> None:
    texts, label = np.array(["cat", "dog"] * 3), np.arange(6)
    (tmp_path / "dataset").mkdir()

    def load(*overrides: str, leaves: str = "null", **arrays: np.ndarray) -> datamix.Pipeline:
        np.savez(tmp_path / "a.npz", x=np.ones((6, 2), np.float32), **arrays)
        settings = f"_target_: arrays\npath: {tmp_path / 'a.npz'}\nleaves: {leaves}\n"
        (tmp_path / "dataset" / "a.yaml").write_text(settings)
        return datamix.load("source=a", "batch.size=6", "shuffle=none", *overrides, config_dir=tmp_path)

    with pytest.raises(DataError, match=r"such as np\.unique\(label, return_inverse=True\)\[1\], or ") as raised:
        load(label=texts)
    advised = str(raised.value).rpartition(" ")[2].removesuffix(".")
    assert {*load(advised, label=texts).spec} == {"x", "source_id"}
    assert load(label=np.unique(texts, return_inverse=True)[1])[0]["label"].tolist() == [0, 1] * 3
    for leaves, place in (("{x: x, name: name, label: label}", 0), ("null", 1)):
        with pytest.raises(DataError, match="leaf 'name' is <U3") as raised:
            load(leaves=leaves, name=texts, label=label)
        advised = re.findall("'([^' ]*source[^']*)'", str(raised.value))[place]
        assert {*load(advised, leaves=leaves, name=texts, label=label).spec} == {"x", "label", "source_id"}


IMAGES = {"image": LeafSpec((4, 4, 1), "uint8"), "label": LeafSpec((), "int32")}
LARGE = IMAGES | {"image": LeafSpec((8, 8, 1), "uint8")}


def use(function: Callable[..., Any], **settings: Any) -> Operation:
    return Operation(operator=function.__name__, function=function, settings=settings)


def graph(shared: tuple[Operation, ...] = (), **branches: list[Operation]) -> Graph:
    return Graph.of(branches, shared)


def test_a_chain_is_followed_without_computing() -> None:
    nodes = graph(a=[use(resize, height=2, width=3), use(to_float), use(normalize, mean=0.5, std=[0.25])]).chain("a")
    chain = chain_of(nodes, IMAGES)
    assert chain.spec == {"image": LeafSpec((2, 3, 1), "float32"), "label": LeafSpec((), "int32")}
    assert [call.function for call in chain.calls] == [resize, to_float, normalize]
    assert [list(numbers) for numbers in chain.numbers] == [[], [], ["mean", "std"]]
    assert chain.calls[0].static == (("height", 2), ("width", 3))
    assert chain.calls[2].static == ()  # numbers are arguments of the program, so that others compile nothing
    assert dict(chain.calls[1].shapes)["image"] == (-1,)  # element by element, it works on flat rows
    assert dict(chain.calls[2].shapes)["image"] == (2, 3, 1)  # a number a channel needs the channels


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "operation",
    [
        use(to_float),
        use(to_float, leaf="label", largest=2),
        use(normalize, mean=0.5, std=2),
        use(normalize, mean=[0, 0.5, 1.0], std=0.1),
        use(normalize, mean=0, std=1, leaf="label"),
        use(offset_label, offset=None),
        use(offset_label, offset=3, leaf="image", keep_negative=True),
        use(tag_source, source_id=3),
        use(tag_source, source_id=3, leaf="image"),
    ],
    ids=str,
)
def test_what_operators_say_comes_of_them_is_what_tracing_finds(operation: Operation, dtype: str) -> None:
    spec = {"label": LeafSpec((), "int32"), "image": LeafSpec((4, 5, 3), dtype)}
    said = traits(operation.function).after(spec, **operation.settings)
    mix = graph(a=[operation])
    if said is None:  # nobody has to say, where tracing may refuse
        return
    traced = chain_of(mix.chain("a"), spec).spec
    assert said == traced
    assert list(check_specs(mix, {"a": spec}).items()) == list(traced.items())


@pytest.mark.parametrize(
    "operation",
    [
        use(to_float, leaf="imag"),
        use(normalize, mean="low", std=1),
        use(normalize, mean=0.5, std=0),
        use(normalize, mean=[0, 1], std=1),
        use(normalize, mean=[[1], [1, 2]], std=1),
        use(offset_label, offset="a"),
        use(tag_source, source_id="a"),
    ],
    ids=str,
)
def test_what_tracing_refuses_no_operator_calls_known(operation: Operation) -> None:
    with pytest.raises((ConfigError, SpecError)):
        check_specs(
            graph(a=[operation]), {"a": {"image": LeafSpec((4, 5, 3), "uint8"), "label": LeafSpec((), "int32")}}
        )


def test_what_an_operator_cannot_take_names_its_node() -> None:
    with pytest.raises(SpecError, match=r"^a/to_rgb: .*leaf 'imag'"):
        check_specs(graph(a=[use(to_rgb, leaf="imag")]), {"a": IMAGES})
    with pytest.raises(ConfigError, match=r"^a/normalize: mean = 'low' is not a number, or one a channel\.$"):
        chain_of(graph(a=[use(normalize, mean="low", std=1)]).chain("a"), IMAGES)


def test_an_operator_must_return_a_record_and_keep_its_promise() -> None:
    @operator
    def total(record: Record) -> Any:
        return record["image"].sum()

    @operator(elementwise=True)
    def cropped(record: Record) -> Record:
        return record | {"image": record["image"][:2]}

    @operator
    def silent(record: Record) -> Record:
        raise ValueError

    with pytest.raises(SpecError, match=r"^a/silent cannot take these records \(.*\): ValueError$"):
        chain_of(graph(a=[use(silent)]).chain("a"), IMAGES)
    with pytest.raises(SpecError, match=r"^a/total must return a record, a dict of arrays; it returned "):
        chain_of(graph(a=[use(total)]).chain("a"), IMAGES)
    with pytest.raises(SpecError, match=r"^a/cropped says it is elementwise, but turns image uint8 \[4, 4, 1\] into "):
        chain_of(graph(a=[use(cropped)]).chain("a"), IMAGES)


@pytest.mark.parametrize(
    ("first", "second", "advice"),
    [
        (IMAGES, LARGE, "resize: {height: 4, width: 4}"),
        (IMAGES | {"image": LeafSpec((4, 4, 3), "uint8")}, IMAGES, "to_rgb"),
        (
            IMAGES | {"image": LeafSpec((4, 4, 3), "uint8")},
            IMAGES | {"image": LeafSpec((4, 4, 4), "uint8")},
            "drop_alpha",
        ),
        (IMAGES, IMAGES | {"image": LeafSpec((4, 4, 4), "uint8")}, "to_grayscale"),
        (IMAGES | {"image": LeafSpec((4, 4, 1), "float32")}, IMAGES, "to_float"),
        (IMAGES | {"label": LeafSpec((3,), "float32")}, IMAGES, "one_hot: {num_classes: 3, leaf: label}"),
    ],
)
def test_the_operator_that_an_error_names_mends_it(first: Any, second: Any, advice: str) -> None:
    chains = {name: chain_of([], spec) for name, spec in {"a": first, "b": second}.items()}
    with pytest.raises(SpecError, match=r"^sources 'a' and 'b' do not fit together: ") as caught:
        agreed_spec(chains)
    advised = advice if ":" not in advice else f"{{{advice}}}"
    assert str(caught.value).endswith(f"; to mend it, add {advised} to source.b.operators.")
    settings = {
        "resize": use(resize, height=4, width=4),
        "to_rgb": use(to_rgb),
        "drop_alpha": use(drop_alpha),
        "to_grayscale": use(to_grayscale),
        "to_float": use(to_float),
        "cast": use(cast, dtype="float32", leaf="label"),
        "one_hot": use(one_hot, num_classes=3),
    }
    mended = graph(a=[], b=[settings[advice.partition(":")[0]]])
    assert check_specs(mended, {"a": first, "b": second}) == first


def test_the_images_without_alpha_are_what_others_should_be_like() -> None:
    rgba = IMAGES | {"image": LeafSpec((4, 4, 4), "uint8")}
    with pytest.raises(SpecError, match=r"to mend it, add to_grayscale to source\.a\.operators\.$"):
        agreed_spec({name: chain_of([], spec) for name, spec in {"a": rgba, "b": IMAGES}.items()})


def test_channels_are_last_in_every_source() -> None:
    torch = IMAGES | {"image": LeafSpec((1, 28, 28), "uint8")}
    last = IMAGES | {"image": LeafSpec((28, 28, 1), "uint8")}
    for first, second, name in ((torch, last, "a"), (last, torch, "b")):
        specs = {"a": first, "b": second}
        with pytest.raises(SpecError, match=rf"; add channels_last to source\.{name}\.operators, as the first\.$"):
            agreed_spec({each: chain_of([], spec) for each, spec in specs.items()})
        mended = graph(**{each: [use(channels_last)] if each == name else [] for each in specs})
        assert check_specs(mended, specs) == last


def test_stored_leaves_have_32_bits_at_most() -> None:
    wide = {"label": LeafSpec((), "int64"), "x": LeafSpec((2,), "float64"), "flag": LeafSpec((), "bool")}
    assert {leaf: part.dtype for leaf, part in stored_spec("a", wide).items()} == {
        "label": "int32", "x": "float32", "flag": "bool",
    }  # fmt: skip
    for dtype in ("<U3", "object", "datetime64[s]", "complex64"):
        with pytest.raises(DataError, match=r"^source 'a': leaf 'text' is .*, '~source\.a\.leaves\.text' does\.$"):
            stored_spec("a", {"text": LeafSpec((), dtype)})


def test_sources_share_storage_by_spec_and_program_by_operators() -> None:
    half = [use(to_float), use(normalize, mean=0.5, std=0.5)]
    other = [use(to_float), use(normalize, mean=0.1, std=0.3)]
    small = [use(resize, height=4, width=4), *half]
    program, numbers, groups = assemble(
        graph((use(flip_horizontal),), a=half, b=small, c=other),
        {"a": IMAGES, "b": LARGE, "c": IMAGES},
        seeds=[0, 1, 2],
        batch_size=8,
    )
    assert groups == [[0, 2], [1]]
    assert [(branch.group, branch.sources) for branch in program.branches] == [(0, (0, 2)), (1, (1,))]
    assert dict(program.spec)["image"] == LeafSpec((4, 4, 1), "float32")
    (mean,) = (settings["mean"] for settings in numbers[0].settings if settings)
    np.testing.assert_allclose(mean, [0.5, 0, 0.1])  # a row a source
    assert [call.promised.random for call in program.shared.calls] == [True]
    (words,) = numbers[-1].keys
    assert len({tuple(key) for key in np.stack(words, axis=1).tolist()}) == 3  # each source has keys of its own
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(numbers))
    assert [None if each.branch is None else each.branch.tolist() for each in numbers] == [0, 1, None]
