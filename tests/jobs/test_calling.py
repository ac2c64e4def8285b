"""Command lines that are run from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import datamix
from datamix.errors import ConfigError

pytestmark = pytest.mark.slow  # each is a process of its own
FEW = ("source=digits+garments", "source.digits.limit=64", "source.garments.limit=64")


@pytest.fixture(autouse=True)
def _here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_job_is_run_and_read(capsys: pytest.CaptureFixture[str]) -> None:
    ran = datamix.run("job=plan", *FEW, directory="a b")
    assert (ran.directory.name, ran.report["job"], ran.report["samples"]) == ("a b", "plan", 128)
    assert ran._repr_html_().count("data:image/png") == 1
    assert "What this mix will do" in capsys.readouterr().out


def test_a_sweep_of_training() -> None:
    more = ("model=linear", "train.steps=2", "mix.share.digits=0.2,0.8")
    ran = datamix.sweep(*FEW, *more)
    assert [job["status"] for job in ran.report] == ["done", "done"]
    assert ran.directory.parent.parent.name == "outputs"
    assert datamix.train(*FEW, *more[:2]).report["job"] == "train"


def test_a_mistake_is_the_error_that_the_command_line_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^batch\.size = 0; it is 1 or more\.$"):
        datamix.run("job=plan", "batch.size=0")
    assert capsys.readouterr().out == ""  # it is raised


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_run_that_is_refused_leaves_nothing(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no dataset 'nope'"):
        datamix.run(*flags, "job=plan", "source=digits+nope")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("call", [datamix.run, datamix.sweep])
def test_where_nothing_can_be_written_a_directory_is_advised(
    call: Callable[..., Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "outputs").touch()  # in the way
    message = r"^directory: outputs.* cannot be written: .+\. Write to another directory: directory=DIR\.$"
    for directory in (None, "outputs/a"):
        with pytest.raises(ConfigError, match=message):
            call("job=plan", *FEW, directory=directory)
    assert call("job=plan", *FEW, directory=tmp_path_factory.mktemp("results")).report


def test_a_line_that_is_no_mistake_in_the_end_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prints.py").write_text('print("DataError: of another program.\\nand more\\nDataError: the last.")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    datamix.run("job=plan", *FEW, "plugins=[prints]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["DataError: of another program.", "and more", "DataError: the last."]
    assert len(lines) > 3


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_the_directory_is_a_keyword(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} = 'here'; it follows from directory=\. Give that in its place\.$"):
        datamix.run("job=plan", *FEW, f"{key}=here")


@pytest.mark.parametrize("call", [datamix.run, datamix.train, datamix.sweep])
def test_keywords_are_no_overrides(call: Callable[..., object]) -> None:
    with pytest.raises(
        ConfigError, match=r"^source = 'digits'; overrides are text\. Write \"source=digits\", in quotes\.$"
    ):
        call(source="digits")
