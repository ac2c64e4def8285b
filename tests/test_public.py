"""The public names: one list, imported when first used, and typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import datamix
from datamix import errors

ROOT = Path(datamix.__file__).parent


@pytest.mark.parametrize("name", datamix.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(datamix, name) is not None
    assert name in dir(datamix)


def test_the_names_are_those_of_the_stub() -> None:
    stub = (ROOT / "__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^(?:from \S+ import \w+ as )?(\w+)(?:: str)?$", stub, re.MULTILINE)
    assert sorted(names) == sorted(datamix.__all__)
    assert {"load", "mix", "Pipeline", "Plan", "operator", "source", "model", "ConfigError"} <= set(names)
    assert (ROOT / "py.typed").is_file()


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'datamix' has no attribute 'laod'"):
        _ = datamix.laod  # type: ignore[attr-defined]


def test_every_class_of_errors_is_public() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = {each.__name__ for each in classes if each.__module__ == errors.__name__}
    assert "DataError" in ours
    assert ours <= {*datamix.__all__}


def test_the_tour_explains_ten_words() -> None:
    words = re.findall(r"^\* (\w+): ", datamix.__doc__ or "", re.MULTILINE)
    assert sorted(words) == sorted(
        ["source", "record", "position", "epoch", "shard", "rank", "order", "schedule", "period", "slot"]
    )


@pytest.mark.slow
def test_a_type_checker_knows_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import datamix\n"
        "from datamix import load, mix\n"
        "reveal_type(load())\nreveal_type(mix({}))\nreveal_type(datamix.Plan(sizes={}))\n"
        "load(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", f"--cache-dir={tmp_path}", program],
        cwd=ROOT.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    revealed = re.findall(r'Revealed type is "(\S+)"', done.stdout)
    assert revealed == ["datamix.pipeline.pipeline.Pipeline"] * 2 + ["datamix.mixing.plan.Plan"], done.stdout
    assert 'Argument 1 to "load" has incompatible type "int"' in done.stdout


def test_importing_it_imports_no_other_module_of_it() -> None:
    code = "import sys, json, datamix; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert [name for name in json.loads(done.stdout) if name.startswith("datamix")] == ["datamix"]
