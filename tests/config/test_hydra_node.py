"""What Hydra's part of a configuration may build, and what is refused before Hydra sees it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig

from datamix.config.compose import config_loader, prepared
from datamix.config.hydra_node import check_hydra_node
from datamix.errors import ConfigError, RegistryError


def composed(*overrides: str, config_dir: Path | None = None) -> DictConfig:
    return config_loader(config_dir).load_configuration("config", prepared(overrides), RunMode.MULTIRUN)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("hydra/launcher=vmap",),
        ("hydra/job_logging=default", "hydra/hydra_logging=default"),
        ("hydra/job_logging=none",),
        ("hydra/job_logging=disabled", "hydra/hydra_logging=hydra_debug"),
        ("hydra.job.name=mine", "hydra.sweep.subdir=${hydra:job.override_dirname}"),
        ("+hydra.job_logging.handlers.file={class:logging.handlers.RotatingFileHandler,filename:a.log}",),
        ("+hydra.job.env_set={XLA_FLAGS:'--xla_x=1',MY_PATH:here}",),
        ("hydra.job.env_copy=[PATH]",),
        ("+hydra.job_logging.handlers.file={class:logging.FileHandler,filename:'${hydra.runtime.output_dir}/a.log'}",),
    ],
)
def test_what_hydra_has_itself_is_allowed(overrides: tuple[str, ...]) -> None:
    check_hydra_node(composed(*overrides))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("+hydra.callbacks.x._target_=evil.C",), "hydra.callbacks.x._target_"),
        (
            ("+hydra.callbacks.x._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher",),
            "hydra.callbacks.x",
        ),
        (("hydra.launcher._target_=evil.C",), "hydra.launcher._target_"),
        (("hydra.launcher._target_=hydra_plugins.evil.C",), "hydra.launcher._target_"),
        (("hydra.launcher._target_=hydra._internal.utils._locate",), "hydra.launcher._target_"),
        (("hydra.sweeper._target_=hydra._internal.core_plugins.basic_sweeper.os.system",), "hydra.sweeper._target_"),
        (("+hydra.sweeper.x._target_=evil.C",), "hydra.sweeper.x._target_"),
        (("+hydra.sweeper.x._target_=optuna.samplers._cmaes.np.testing.runstring",), "hydra.sweeper.x._target_"),
        (("+hydra.sweeper.custom_search_space=os.system",), "hydra.sweeper.custom_search_space"),
        (("+hydra.job_logging.handlers.x.class=evil.C",), "hydra.job_logging.handlers.x.class"),
        (("hydra.job_logging.handlers.console.stream=ext://evil.stream",), "hydra.job_logging.handlers.console.stream"),
        (("hydra.job_logging.handlers.console.stream=cfg://root",), "hydra.job_logging.handlers.console.stream"),
        (("+hydra.hydra_logging.handlers.x.class=evil.C",), "hydra.hydra_logging.handlers.x.class"),
        # What is brought in by reference, at once or by a job of the sweep.
        (("+vars.x._target_=evil.C", "+hydra.callbacks.x=${vars.x}"), "hydra.callbacks.x._target_"),
        (("+vars.x={_target_:evil.C}", "hydra.sweeper=${vars.x}"), "hydra.sweeper._target_"),
        (("+vars.x._target_=evil.C", "+hydra.sweeper.x=${vars.x}"), "hydra.sweeper.x._target_"),
        (("+hydra.sweeper.x='${oc.create:{_target_:evil.C}}'",), "hydra.sweeper.x._target_"),
        (("+hydra.callbacks.x='${oc.create:{_target_:evil.C}}'",), "hydra.callbacks.x._target_"),
        (
            ("+vars.x.class=logging.NullHandler", "+hydra.job_logging.handlers.x=${vars.x}"),
            "hydra.job_logging.handlers.x",
        ),
        (
            ("+vars.x=logging.NullHandler", "+hydra.job_logging.handlers.x.class=${vars.x}"),
            "hydra.job_logging.handlers",
        ),
        (("+vars.x=ext://evil.x", "hydra.job_logging.handlers.console.stream=${vars.x}"), "hydra.job_logging.handlers"),
        (("hydra.job.name='ext://evil.x'", "hydra.job_logging.handlers.console.stream=${hydra.job.name}"), "hydra.job"),
    ],
)
def test_anything_else_is_refused_by_its_key(overrides: tuple[str, ...], key: str) -> None:
    with pytest.raises(RegistryError, match=r"nothing but Hydra's own plugins can be built here\.") as caught:
        check_hydra_node(composed(*overrides))
    assert str(caught.value).startswith(key)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+hydra.rum.dir=x", r"^hydra\.rum: there is no key 'rum' in hydra\. Did you mean 'run'\? Known: "),
        (
            "+hydra.run.dri=x",
            r"^hydra\.run\.dri: there is no key 'dri' in hydra\.run\. Did you mean 'dir'\? Known: dir\.$",
        ),
        (
            "+hydra.job.nmae=x",
            r"^hydra\.job\.nmae: there is no key 'nmae' in hydra\.job\. Did you mean 'name'\? Known: ",
        ),
    ],
)
def test_a_key_that_hydra_would_pass_over(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_hydra_node(composed(override))


@pytest.mark.parametrize(
    "filename", [".bashrc", "'${oc.env:HOME}/.profile'", "a.py", "'${hydra.job.name}'", "a.log/../b"]
)
def test_a_log_file_takes_no_other_files_place(filename: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=r"^hydra\.job_logging\.handlers\.x\.filename = "):
        check_hydra_node(composed(f"+hydra.job_logging.handlers.x={{class:logging.FileHandler,filename:{filename}}}"))


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "PATH"])
def test_the_environment_brings_in_no_code(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hydra\.job\.env_set\.{name} = '/x'; .* Set it in the shell\.$"):
        check_hydra_node(composed(f"+hydra.job.env_set={{{name}:/x}}"))


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[[str], DictConfig]:
    """Composes an experiment with the text of a `hydra` part, beside `vars`."""

    def of(text: str) -> DictConfig:
        (tmp_path / "experiment").mkdir()
        head = "# @package _global_\nvars: {node: {_target_: evil.C}, seeds: '0,1'}\nhydra:\n"
        (tmp_path / "experiment" / "mine.yaml").write_text(head + textwrap.indent(textwrap.dedent(text), "  "))
        return composed("experiment=mine", config_dir=tmp_path)

    return of


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("callbacks: {x: '${vars.node}'}", "hydra.callbacks.x._target_"),
        ("callbacks: '${vars}'", "hydra.callbacks.node._target_"),
        ("job_logging: {filters: {x: {(): logging.os.makedirs, name: made}}}", "hydra.job_logging.filters.x.()"),
        ("job_logging: {handlers: {x: {(): logging.Handler}}}", "hydra.job_logging.handlers.x.()"),
        ("job_logging: {loggers: {x: {handlers: ['ext://evil.x']}}}", "hydra.job_logging.loggers.x.handlers.0"),
        ("job_logging: ${vars}", "hydra.job_logging"),
    ],
)
def test_a_file_cannot_bring_in_more(experiment: Callable[[str], DictConfig], text: str, key: str) -> None:
    with pytest.raises(RegistryError, match=r"nothing but Hydra's own plugins can be built here\.") as caught:
        check_hydra_node(experiment(text))
    assert str(caught.value).startswith(f"{key} = ")


def test_a_sweep_may_refer_to_keys_of_the_users_own(experiment: Callable[[str], DictConfig]) -> None:
    check_hydra_node(experiment("sweeper: {params: {seed: '${vars.seeds}'}}"))


def test_optunas_samplers_are_allowed_by_name() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    for sampler in ("tpe", "random", "grid", "cmaes", "nsgaii", "motpe"):
        check_hydra_node(composed("hydra/sweeper=optuna", f"hydra/sweeper/sampler={sampler}"))


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_the_launchers_of_other_packages_are_allowed(launcher: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    check_hydra_node(composed(f"hydra/launcher={launcher}"))
