"""The pipeline as named nodes: sources, their operators, the mix, shared operators, the batch. No JAX."""

from __future__ import annotations

import graphlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import yaml

from datamix.errors import ConfigError

NodeKind = Literal["source", "operator", "mix", "batch"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One use of an operator."""

    operator: str
    function: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={_short(value)}" for name, value in self.settings.items())
        return f"{self.operator}({settings})" if settings else self.operator


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node.

    Attributes:
      name: A name that is unique in the graph.
      operation: The use of an operator; None for other nodes.
    """

    name: str
    kind: NodeKind
    inputs: tuple[str, ...] = ()
    operation: Operation | None = None


class Graph:
    """A pipeline's nodes, by name; `Graph.of` makes it from the operators of a mix.

    Args:
      nodes: The nodes, in any order; one of them is the batch.

    Raises:
      ConfigError: Two nodes have the same name.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        if len(self.nodes) < len(nodes):
            names = [node.name for node in nodes]
            twice = next(name for name in names if names.count(name) > 1)
            mend = f"give the source another name, as in source={twice}@other"
            raise ConfigError(f"the pipeline graph has two nodes named {twice!r}; {mend}.")
        self.order = tuple(graphlib.TopologicalSorter({node.name: node.inputs for node in nodes}).static_order())

    @classmethod
    def of(cls, branches: Mapping[str, Sequence[Operation]], shared: Sequence[Operation]) -> Graph:
        """The graph of sources with operators, one mix, and operators on its records.

        Nodes are named after their operators, those of a source with the source's name in front.

        >>> print(Graph.of({"a": [], "b": []}, []).tree())
        batch
        └── mix
            ├── a
            └── b
        """
        nodes: list[Node] = []
        used = {*branches, "mix", "batch"}

        def chain(start: str, prefix: str, operations: Sequence[Operation]) -> str:
            for operation in operations:
                first = prefix + operation.operator
                names = itertools.chain([first], (f"{first}_{i}" for i in itertools.count(2)))
                name = next(name for name in names if name not in used)
                used.add(name)
                nodes.append(Node(name=name, kind="operator", inputs=(start,), operation=operation))
                start = name
            return start

        ends = []
        for source, operations in branches.items():
            nodes.append(Node(name=source, kind="source"))
            ends.append(chain(source, f"{source}/", operations))
        nodes.append(Node(name="mix", kind="mix", inputs=tuple(ends)))
        nodes.append(Node(name="batch", kind="batch", inputs=(chain("mix", "", shared),)))
        return cls(nodes)

    @property
    def sources(self) -> list[str]:
        """Names of the sources, in order."""
        return [name for name, node in self.nodes.items() if node.kind == "source"]

    def chain(self, start: str) -> list[Node]:
        """The operators after a source, up to the mix, or after the mix, up to the batch."""
        chain = []
        while (node := self._following[start]).kind == "operator":
            chain.append(node)
            start = node.name
        return chain

    def label_offset(self, source: str) -> int | None:
        """The number that is added to a source's labels; None if that depends on labels not yet read."""
        operations = [node.operation for node in self.chain(source) if node.operation]
        of_labels = [each.settings for each in operations if each.operator in ("offset_label", "offset_one_hot")]
        return next((settings["offset"] for settings in of_labels if "leaf" not in settings), 0)

    @cached_property
    def _following(self) -> dict[str, Node]:
        """By name of each node, the node that takes its records."""
        return {name: node for node in self.nodes.values() for name in node.inputs}

    def tree(self, notes: Mapping[str, str] | None = None) -> str:
        """The graph as an indented tree, the batch on top; `notes`, by node, are put behind the nodes' names."""
        lines: list[str] = []

        def grow(name: str, first: str, rest: str) -> None:
            node = self.nodes[name]
            text = str(node.operation) if node.operation else name
            note = (notes or {}).get(name)
            lines.append(first + text + (f"  {note}" if note else ""))
            for i, below in enumerate(node.inputs):
                last = i == len(node.inputs) - 1
                grow(below, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))

        grow(self.order[-1], "", "")
        return "\n".join(lines)

    def mermaid(self, notes: Mapping[str, str] | None = None, edges: Mapping[str, str] | None = None) -> str:
        """The graph in Mermaid's notation; by node, `notes` go into it, and `edges` onto the arrow that leaves it."""
        number = {name: f"n{i}" for i, name in enumerate(self.order)}
        shapes = {"source": '[("{}")]', "operator": '["{}"]', "mix": '{{{{"{}"}}}}', "batch": '(["{}"])'}
        lines = ["flowchart LR"]
        for name in self.order:
            node = self.nodes[name]
            text = "<br/>".join(filter(None, [str(node.operation or name), (notes or {}).get(name)]))
            lines.append(f"    {number[name]}{shapes[node.kind].format(text.replace(chr(34), '#quot;'))}")
        for name in self.order:
            for below in self.nodes[name].inputs:
                label = (edges or {}).get(below)
                arrow = f'-->|"{label}"|' if label else "-->"
                lines.append(f"    {number[below]} {arrow} {number[name]}")
        return "\n".join(lines) + "\n"


def written(operators: Sequence[object]) -> str:
    """Operators as they are listed in YAML, without the brackets.

    >>> written(["to_float", {"normalize": {"mean": [0.5], "std": [0.25]}}])
    'to_float, {normalize: {mean: [0.5], std: [0.25]}}'
    """
    text: str = yaml.safe_dump([*operators], default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()[1:-1]


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
