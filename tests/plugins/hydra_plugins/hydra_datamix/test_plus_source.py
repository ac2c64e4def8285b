"""The config source `plus://`, as Hydra asks it."""

from __future__ import annotations

import pytest
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from hydra_plugins.hydra_datamix.plus_source import PlusSource
from omegaconf import OmegaConf


def source(path: str = "") -> PlusSource:
    return PlusSource(provider="datamix", path=f"plus://{path}")


def test_hydra_finds_it() -> None:
    # Hydra imports the modules of plugins by itself, so that the class is another one.
    names = {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(ConfigSource)}
    assert f"{PlusSource.__module__}.PlusSource" in names
    assert (PlusSource.scheme(), source().available()) == ("plus", True)


def test_the_group_source_holds_any_name() -> None:
    plus = source()
    assert plus.is_group("source")
    assert plus.is_config("source/a+b")
    assert plus.is_config("source/a+b.yaml")
    for path in ("dataset", "mix", "sources"):
        assert not plus.is_group(path)
        assert not plus.is_config(f"{path}/a")
    assert plus.list("", ObjectType.GROUP) == ["source"]
    assert {"mnist", "fashion", "digits"} <= set(plus.list("source", None))
    assert plus.list("mix", None) == []


def test_sources_in_memory_are_datasets_without_files() -> None:
    plus = source("few+fewer")
    assert plus.is_group("dataset")
    assert plus.is_config("dataset/few")
    assert not plus.is_config("dataset/mnist")
    assert plus.list("dataset", None) == ["few", "fewer"]
    assert {"few", "fewer", "mnist"} <= set(plus.list("source", None))
    loaded = plus.load_config("dataset/few.yaml")
    assert (OmegaConf.to_container(loaded.config), loaded.header) == ({"_target_": "arrays"}, {"package": None})


@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_sum_is_loaded_as_defaults_of_the_whole_configuration(suffix: str) -> None:
    loaded = source().load_config(f"source/a+b{suffix}")
    assert loaded.header == {"package": "_global_"}
    assert loaded.provider == "datamix"
    assert loaded.config.defaults == ["_self_", {"/dataset@source.a": "a"}, {"/dataset@source.b": "b"}]


def test_what_no_file_can_be_named_is_asked_of_it_first() -> None:
    plus, long = source("+few+fewer"), "source/" + "+".join(["few"] * 80)
    assert plus.is_config(long)
    assert not plus.is_config("source/few+fewer")
    assert not plus.is_config("dataset/few")
