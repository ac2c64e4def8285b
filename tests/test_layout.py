"""Tests mirror the package: every module has a test file of its name, in the same folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "datamix"
WHOLE = {
    "test_conf.py": "the YAML files",
    "test_contributing.py": "CONTRIBUTING and SECURITY",
    "test_docs.py": "the documentation site",
    "test_layout.py": "this file",
    "test_notebook.py": "objects as notebooks show them",
    "test_own_rules.py": "a user's own orders, stops and weightings, from file to report",
    "test_packaging.py": "the wheel",
    "test_public.py": "the public names",
    "test_readme.py": "README",
    "test_scripts.py": "the scripts",
}
"""Tests of the whole program, and what each is about; all others are tests of one module."""


def test_every_module_has_its_tests() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    files = [path.relative_to(PACKAGE).with_name(f"test_{path.name}") for path in modules]
    assert [str(path) for path in files if not (TESTS / path).is_file()] == []


def test_every_test_file_has_its_module() -> None:
    files = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    modules = {path: PACKAGE / path.with_name(path.name.removeprefix("test_")) for path in files}
    assert {str(path) for path, module in modules.items() if not module.is_file()} == set(WHOLE)


def test_only_lazy_names_and_plugins_are_imported_by_string() -> None:
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "import_module(" in _text(path)}
    of_others = {"lazy.py", "sources/tfds/prepare.py", "sources/tfds/source.py"}  # JAX, TFDS and its datasets
    assert files == {"__init__.py", "interop/__init__.py", "registry.py"} | of_others


def test_no_imports_go_round_in_a_circle() -> None:
    """Those for type checking and those inside functions count."""
    graph = grimp.build_graph("datamix", cache_dir=None)
    modules = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(modules) > 200
    TopologicalSorter(modules).prepare()


@pytest.mark.parametrize("folder", ["builder", "config", "mixing", "pipeline", "report", "sweeps", "training"])
def test_the_docstring_of_a_folder_names_what_is_in_it(folder: str) -> None:
    paths = [path for path in (PACKAGE / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    text = ast.get_docstring(ast.parse(_text(PACKAGE / folder / "__init__.py"))) or ""
    assert {path.stem for path in paths} - {"__init__"} - set(re.findall(r"`(\w+)`", text)) == set()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


PUBLIC = {"_asdict", "_render_traceback_", "_replace", "_repr_html_", "_repr_png_"}
"""Public names that begin with an underscore: those of named tuples, and of notebooks."""


def private_names(tree: ast.AST) -> Iterator[str]:
    """The private names of other modules and objects that are imported, read or replaced."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("datamix"):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") != "self":
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr"):
            texts = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            yield from (text.rpartition(".")[2] for text in texts[:1])


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_file_holds_tests_that_use_public_names(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert any(name.startswith("test_") for name in names) == path.name.startswith("test_")
    private = {name for name in private_names(tree) if name.startswith("_") and not name.startswith("__")}
    assert private <= PUBLIC
