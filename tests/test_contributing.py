"""CONTRIBUTING and SECURITY: their examples run, and what they point at exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datamix import pipeline, registry  # noqa: F401  (its policies have names once it is imported)

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```python\n@datamix\.(\w+)(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL))


def test_there_is_an_example_of_each_kind():
    assert set(EXAMPLES) == {"model", "operator", "order", "policy", "source", "stop", "weighting"}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_example_registers_what_it_says(kind):
    before = set(registry.names(kind))
    lines = ["import datamix, jax.numpy as jnp, numpy as np", "from flax import nnx",
             "from datamix.mixing.periods import Table", "from datamix.mixing.stops import Stop",
             f"@datamix.{kind}{EXAMPLES[kind]}"]  # fmt: skip
    exec(compile("\n".join(lines), "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
    (name,) = set(registry.names(kind)) - before
    assert callable(registry.lookup(kind, name))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_files_it_names_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:\.ci|conf|datamix|scripts|tests)/[\w./]*)`", text) + re.findall(r"\]\(([^):]+)\)", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_layers_are_those_that_are_checked():
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", CONTRIBUTING, re.MULTILINE)
    table = [set(re.findall(r"\w+", row)) for row in rows]
    assert table == [set(re.findall(r"\w+", layer)) for layer in reversed(layers)]
