from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamix.errors import ConfigError
from datamix.pipeline.graph import Graph, Operation


def use(operator: str, **settings: Any) -> Operation:
    return Operation(operator=operator, function=print, settings=settings)


BRANCHES = {
    "mnist": [use("resize", height=32, width=32), use("to_rgb")],
    "svhn": [],
}
SHARED = [use("to_float"), use("normalize", mean=0.5, std=[0.25, 1.0, 2.0])]
GRAPH = Graph.of(BRANCHES, SHARED)


def test_operation_as_text() -> None:
    assert str(use("to_rgb")) == "to_rgb"
    assert str(use("x", a=1, b=0.1, c=1 / 3, d=1e-9, e="linear", f=None, g=True)) == (
        "x(a=1, b=0.1, c=0.333333, d=1e-09, e=linear, f=None, g=True)"
    )


def test_nodes_and_their_inputs() -> None:
    assert {name: node.inputs for name, node in GRAPH.nodes.items()} == {
        "mnist": (),
        "mnist/resize": ("mnist",),
        "mnist/to_rgb": ("mnist/resize",),
        "svhn": (),
        "mix": ("mnist/to_rgb", "svhn"),
        "to_float": ("mix",),
        "normalize": ("to_float",),
        "batch": ("normalize",),
    }
    assert GRAPH.nodes["mnist/resize"].operation == BRANCHES["mnist"][0]
    assert GRAPH.sources == ["mnist", "svhn"]
    assert Graph.of({"z": [], "a": []}, []).sources == ["z", "a"]


def test_chain() -> None:
    assert [node.name for node in GRAPH.chain("mnist")] == ["mnist/resize", "mnist/to_rgb"]
    assert GRAPH.chain("svhn") == []
    assert [node.name for node in GRAPH.chain("mix")] == ["to_float", "normalize"]


def test_repeated_operators_are_numbered() -> None:
    graph = Graph.of({"a": [use("cast"), use("flip"), use("cast"), use("cast")], "b": [use("cast")]}, [use("cast")] * 2)
    assert [node.name for node in graph.chain("a")] == ["a/cast", "a/flip", "a/cast_2", "a/cast_3"]
    assert [node.name for node in graph.chain("b")] == ["b/cast"]
    assert [node.name for node in graph.chain("mix")] == ["cast", "cast_2"]


@pytest.mark.parametrize(
    ("operators", "names"),
    [
        (["cast_to", "cast"], ["cast_to", "cast"]),
        (["cast_2", "cast", "cast"], ["cast_2", "cast", "cast_3"]),
        (["cast", "cast", "cast_2"], ["cast", "cast_2", "cast_2_2"]),
        (["mix", "batch", "a"], ["mix_2", "batch_2", "a_2"]),
    ],
)
def test_no_operator_takes_the_name_of_another_node(operators: list[str], names: list[str]) -> None:
    graph = Graph.of({"a": []}, [use(name) for name in operators])
    assert [node.name for node in graph.chain("mix")] == names


NAMES = st.sampled_from(["cast", "cast_2", "cast_to", "mix", "batch", "a", "b"])


@given(st.lists(NAMES, max_size=6), st.lists(NAMES, max_size=6), st.integers(0, 99))
def test_order_puts_inputs_first_and_the_batch_last(branch: list[str], shared: list[str], seed: int) -> None:
    built = Graph.of({"a": [use(name) for name in branch], "b": []}, [use(name) for name in shared])
    assert [str(node.operation) for node in built.chain("a")] == branch
    assert [str(node.operation) for node in built.chain("mix")] == shared
    nodes = list(built.nodes.values())
    random.Random(seed).shuffle(nodes)
    graph = Graph(nodes)
    assert sorted(graph.order) == sorted(built.nodes)
    assert graph.order[-1] == "batch"
    for node in nodes:
        for name in node.inputs:
            assert graph.order.index(name) < graph.order.index(node.name)
    assert graph.tree() == built.tree()


def test_a_source_may_not_be_called_mix() -> None:
    with pytest.raises(
        ConfigError, match=r"^the pipeline graph has two nodes named 'mix'; give .* source=mix@other\.$"
    ):
        Graph.of({"mix": [], "a": []}, [])


def test_tree() -> None:
    text = """\
batch
└── normalize(mean=0.5, std=[0.25, 1.0, 2.0])
    └── to_float
        └── mix  7 : 3
            ├── to_rgb
            │   └── resize(height=32, width=32)
            │       └── mnist  60,000 records
            └── svhn"""
    assert GRAPH.tree({"mnist": "60,000 records", "mix": "7 : 3", "svhn": ""}) == text


def test_mermaid() -> None:
    graph = Graph.of({"mnist": [use("resize", method="linear")], "svhn": []}, [use("to_float")])
    assert graph.order == ("mnist", "svhn", "mnist/resize", "mix", "to_float", "batch")
    text = """\
flowchart LR
    n0[("mnist<br/>70,000 #quot;records#quot;")]
    n1[("svhn")]
    n2["resize(method=linear)"]
    n3{{"mix<br/>proportional"}}
    n4["to_float"]
    n5(["batch"])
    n0 --> n2
    n2 -->|"70%"| n3
    n1 -->|"30%"| n3
    n3 --> n4
    n4 --> n5
"""
    notes = {"mnist": '70,000 "records"', "mix": "proportional"}
    assert graph.mermaid(notes, {"mnist/resize": "70%", "svhn": "30%"}) == text


def test_mermaid_without_notes() -> None:
    text = 'flowchart LR\n    n0[("a")]\n    n1{{"mix"}}\n    n2(["batch"])\n    n0 --> n1\n    n1 --> n2\n'
    assert Graph.of({"a": []}, []).mermaid() == text
