"""The directory of a run: its own where the time names it, in the hands of one process, gone where it is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from datamix.config.directories import directory_in_use
from datamix.errors import ConfigError


@pytest.fixture(autouse=True)
def _now() -> Any:
    known = OmegaConf.has_resolver("now")
    if not known:
        OmegaConf.register_new_resolver("now", lambda _: "12-00-00")
    yield
    if not known:
        OmegaConf.clear_resolver("now")


def config_of(directory: Path | str) -> DictConfig:
    return OmegaConf.create({"hydra": {"run": {"dir": str(directory)}, "overrides": {"hydra": []}}})


def test_a_directory_of_the_users_choice_is_left_as_it_is(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs" / "a")
    with directory_in_use(config, "hydra.run.dir"):
        assert config.hydra.overrides.hydra == []
        (tmp_path / "runs" / "a" / "report.json").touch()
    assert [path.name for path in (tmp_path / "runs" / "a").iterdir()] == ["report.json"]
    with directory_in_use(config, "hydra.run.dir"):
        pass
    assert [path.name for path in (tmp_path / "runs" / "a").iterdir()] == ["report.json"]


def test_what_was_made_and_is_empty_is_removed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with directory_in_use(config_of(tmp_path / "runs" / "b" / "a"), "hydra.run.dir"):
        assert (tmp_path / "runs" / "b" / "a").is_dir()
    assert list(tmp_path.rglob("*")) == [tmp_path / "runs"]


def test_of_one_second_each_run_has_its_own(tmp_path: Path) -> None:
    directories = []
    for number in range(3):
        config = config_of(tmp_path / "it's" / "${now:%H-%M-%S}")
        with directory_in_use(config, "hydra.run.dir"):
            directory = Path(config.hydra.run.dir)
            override = f"hydra.run.dir='{directory!s}'".replace("it's", "it\\'s")
            assert config.hydra.overrides.hydra == [override]
            (directory / "report.json").touch()
        directories.append(directory)
        assert directory.name.removeprefix(directories[0].name) == ("" if number == 0 else f"-{number + 1}")
    assert all((directory / "report.json").is_file() for directory in directories)


def test_another_one_is_refused_in_one_line_until_the_first_has_ended(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a")
    with directory_in_use(config, "hydra.run.dir"):
        with (
            pytest.raises(ConfigError, match=r"^hydra\.run\.dir = '.*/a'; another process is using it\. Wait until"),
            directory_in_use(config, "hydra.run.dir"),
        ):
            pass
        (tmp_path / "a" / "report.json").touch()
    with directory_in_use(config, "hydra.run.dir"):
        pass
    with directory_in_use(config_of(tmp_path / "b"), "hydra.run.dir"):
        pass


def test_one_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            ConfigError,
            match=r"^hydra\.run\.dir: .*file.* cannot be .+: .+\. Write to another directory: hydra\.run\.dir=DIR\.$",
        ),
        directory_in_use(config_of(tmp_path / "file" / "a"), "hydra.run.dir"),
    ):
        pass


def test_within_a_running_sweep_no_other_run_begins(tmp_path: Path) -> None:
    sweep = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "overrides": {"hydra": []}}})
    with directory_in_use(sweep, "hydra.sweep.dir"):
        with directory_in_use(config_of(tmp_path / "runs"), "hydra.run.dir"):  # below a directory that is just in use
            pass
        (tmp_path / "multirun.yaml").touch()
        with (
            pytest.raises(ConfigError, match=rf"/0/a'; a sweep is running in {tmp_path}, and its jobs .*Wait until it"),
            directory_in_use(config_of(tmp_path / "0" / "a"), "hydra.run.dir"),
        ):
            pass
        assert not (tmp_path / "0").exists()
    (tmp_path / ".lock").touch()  # as a sweep that was killed leaves it
    with directory_in_use(config_of(tmp_path / "0" / "a"), "hydra.run.dir"):
        pass
