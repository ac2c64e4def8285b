from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import numpy as np
import pytest

from datamix import registry
from datamix.config.check import keys_of
from datamix.config.schema import AdaptConfig, MixConfig
from datamix.errors import ConfigError, RegistryError
from datamix.mixing import orders  # noqa: F401
from datamix.mixing.plan_spec import PlanSpec
from datamix.operators.image import resize
from datamix.sources.base import source

KINDS = ("source", "operator", "order", "stop", "weighting", "job")


@pytest.fixture(autouse=True)
def _plugins() -> Iterator[None]:
    """Takes back the plugins that a test imports, so that the next test imports them again."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plugin"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, text: (tmp_path / f"{name}.py").write_text(text) and None


PLUGIN = """
from datamix.registry import register

def blur(record, *, radius, leaf="image"):
    return record

register("operator", "blur", blur)
"""


def test_built_in_names() -> None:
    assert {"arrays", "digits", "garments", "image_folder", "tfds", "webdataset"} <= set(registry.names("source"))
    assert registry.names("order") == ["concat", "largest_credit", "proportional", "random", "round_robin"]
    assert registry.names("stop") == ["all_exhausted", "exhaust_once", "first_exhausted", "forever"]
    assert "resize" in registry.names("operator")
    assert registry.lookup("operator", "resize") is resize


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_name_stands_for_something(kind: str) -> None:
    assert registry.names(kind)
    for name in registry.names(kind):
        assert callable(registry.lookup(kind, name))


def test_names_and_their_check_import_nothing_heavy() -> None:
    code = (
        "import sys; from datamix import jobs, mixing, operators, registry, sources, training; "
        "registry.names('operator'); registry.require('operator', 'resize'); registry.require('job', 'train'); "
        "sys.exit(bool({'jax', 'numpy', 'datamix.operators.image', 'datamix.jobs.train'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_package_declares_is_imported_when_first_used_and_taken_by_nobody_else(
    write: Callable[[str, str], None],
) -> None:
    write("plugin_later", "def blur_for_doctest(record):\n    return record\n\nclass Sharpen:\n    pass\n")

    @registry.builtin("policy", "blur_for_doctest", sharpen_for_doctest="Sharpen")
    def later() -> ModuleType:
        return importlib.import_module("plugin_later")

    registry.require("policy", "blur_for_doctest")
    assert {"blur_for_doctest", "sharpen_for_doctest"} <= set(registry.names("policy"))
    assert "plugin_later" not in sys.modules
    assert registry.lookup("policy", "sharpen_for_doctest").__name__ == "Sharpen"
    blur = registry.lookup("policy", "blur_for_doctest")
    registry.register("policy", "blur_for_doctest", blur)  # as its decorator does
    with pytest.raises(
        RegistryError, match=r"^policy 'blur_for_doctest' is registered twice: as plugin_later:blur_for_doctest and"
    ):
        registry.register("policy", "blur_for_doctest", resize)


def test_unknown_name() -> None:
    message = (
        r"no stop 'forevr'\. Did you mean 'forever'\? Known: all_exhausted, exhaust_once, first_exhausted, forever\.$"
    )
    for look in (registry.lookup, registry.require):
        with pytest.raises(RegistryError, match=f"^{message}"):
            look("stop", "forevr")
    with pytest.raises(RegistryError, match=rf"^stop: {message}"):
        registry.require("stop", "forevr", where="stop")


def test_register() -> None:
    def blur(record: Any) -> Any:
        return record

    registry.register("operator", "blur", blur)
    assert registry.lookup("operator", "blur") is blur
    assert "blur" in registry.names("operator")
    assert "blur" not in registry.names("source")  # each kind has names of its own


def test_registered_twice() -> None:
    def first() -> None: ...
    def second() -> None: ...

    here = __name__ + r":test_registered_twice\.<locals>"
    registry.register("operator", "blur", first)
    message = rf"^operator 'blur' is registered twice: as {here}\.first and as {here}\.second; rename one\.$"
    with pytest.raises(RegistryError, match=message):
        registry.register("operator", "blur", second)
    assert registry.lookup("operator", "blur") is first
    message = rf"^order 'random' is registered twice: as datamix\.mixing\.orders:random and as {here}\.first; rename"
    with pytest.raises(RegistryError, match=message):
        registry.register("order", "random", first)


def test_a_setting_of_a_name_that_is_taken() -> None:
    def by_weights(demand: Any, *, weights: int) -> None: ...
    def by_epochs(*, epochs: int) -> None: ...
    def by_rule(sizes: Any, *, rule: str) -> None: ...

    components = {"order": (by_weights, "weights"), "stop": (by_epochs, "epochs"), "weighting": (by_rule, "rule")}
    for kind, (component, setting) in components.items():
        message = rf"^{kind} 'mine' takes a setting '{setting}', which every {kind} has already; rename it\.$"
        with pytest.raises(RegistryError, match=message):
            registry.register(kind, "mine", component)
        assert "mine" not in registry.names(kind)
        registry.register("operator", setting, component)  # beside an operator's settings stands nothing


def test_every_key_beside_a_component_s_settings_is_taken() -> None:
    """A setting of such a name would never reach the component, or twice."""
    keys = [key for schema in (MixConfig, AdaptConfig) for key in keys_of(schema).values()]
    kinds = {key.path.partition(".")[0]: key.kind for key in keys if key.kind}
    beside = [(kinds[group], name) for group, _, name in (key.path.partition(".") for key in keys) if group in kinds]
    beside += [("order", field.name) for field in dataclasses.fields(PlanSpec)]
    for kind, name in beside:
        if not name.startswith(("_", "*")):

            def mine(**settings: Any) -> None: ...

            parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
            mine.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
            with pytest.raises(RegistryError, match=f"takes a setting '{name}', which every {kind} has already"):
                registry.register(kind, "mine", mine)


def test_the_same_place_may_register_again() -> None:
    def make() -> Callable[..., None]:
        def blur() -> None: ...

        return blur

    before, after = make(), make()  # as when a module is loaded again
    registry.register("operator", "blur", before)
    registry.register("operator", "blur", after)
    assert registry.lookup("operator", "blur") is after
    registry.register("operator", "resize", resize)  # what the name stood for all along
    assert registry.lookup("operator", "resize") is resize


def test_a_component_need_not_be_a_function() -> None:
    blur = functools.partial(resize, height=1)
    registry.register("operator", "blur", blur)
    assert registry.lookup("operator", "blur") is blur
    with pytest.raises(RegistryError, match=r"^operator 'blur' is registered twice: as functools:partial and as "):
        registry.register("operator", "blur", resize)


def test_a_source_is_registered_in_snake_case() -> None:
    @source
    class TwoDigitNumbers2D: ...

    @source
    def ramp() -> None: ...

    assert registry.lookup("source", "two_digit_numbers2_d") is TwoDigitNumbers2D
    assert registry.lookup("source", "ramp") is ramp


def component(record: Any, key: Any = None, *, size: int, leaf: str = "image") -> None: ...


def scaled(record: Any, *, by: Any) -> None: ...


def layers(*, hidden: Sequence[int] = (8,), mean: float | list[float] = 0.0) -> None: ...


def cut(
    *,
    sides: Optional[list[int]] = None,  # noqa: UP045  # as older code has it
    named: tuple[int, str] = (1, ""),
    by_name: Mapping[str, float | None] | None = None,
) -> None: ...


def test_settings_are_the_keywords() -> None:
    assert list(registry.settings(component)) == ["size", "leaf"]
    assert list(registry.settings(registry.lookup("source", "arrays"))) == ["path", "files", "leaves", "split"]


def test_check_settings() -> None:
    registry.check_settings("operators.blur", component, {"size": 1})
    registry.check_settings("operators.blur", component, {"leaf": "x", "size": 1})
    message = r"^operators\.blur\.sizes: there is no such setting\. Did you mean 'size'\? Known: leaf, size\.$"
    with pytest.raises(ConfigError, match=message):
        registry.check_settings("operators.blur", component, {"size": 1, "sizes": 1})
    with pytest.raises(ConfigError, match=r"^operators\.blur\.key: there is no such setting\. Known: leaf, size\.$"):
        registry.check_settings("operators.blur", component, {"size": 1, "key": 1})
    with pytest.raises(
        ConfigError, match=r"^operators\.blur\.size is missing; it has no default\. Write operators\.blur\.size=…\.$"
    ):
        registry.check_settings("operators.blur", component, {"leaf": "x"})
    registry.check_settings("operators.scale", scaled, {"by": np.asarray([1.0, np.nan])})  # a component's own business
    for bad in (float("nan"), [1.0, float("nan")]):
        with pytest.raises(ConfigError, match=r"^operators\.scale\.by = .*nan.*; it is a number, and nan is none\.$"):
            registry.check_settings("operators.scale", scaled, {"by": bad})
    registry.check_settings("model", layers, {"hidden": [64, 32], "mean": 0.5})
    registry.check_settings("model", layers, {"hidden": (), "mean": [1, 0.5]})
    with pytest.raises(ConfigError, match=r"^model\.hidden\[1\] = 'x'; it is a whole number\.$"):
        registry.check_settings("model", layers, {"hidden": [64, "x"]})
    with pytest.raises(ConfigError, match=r"^source\.a\.leaves\.x is missing; it is text\.$"):
        registry.check_settings("source.a", registry.lookup("source", "arrays"), {"path": "a", "leaves": {"x": None}})
    with pytest.raises(ConfigError, match=r"^model\.mean\[0\] = True; it is a number\.$"):
        registry.check_settings("model", layers, {"mean": [True]})
    registry.check_settings(
        "operators.cut", cut, {"sides": [1, 2], "named": [1, "x"], "by_name": {"a": 1.5, "b": None}}
    )
    with pytest.raises(ConfigError, match=r"^operators\.cut\.by_name\.a = 'x'; it is a number or null\.$"):
        registry.check_settings("operators.cut", cut, {"by_name": {"a": "x"}})
    with pytest.raises(ConfigError, match=r"default\. Write {blur: {size: …}}; blur takes "):
        registry.check_settings("operators[0].blur", component, {"leaf": "x"})


def test_a_plugin_registers_what_it_defines(write: Callable[[str, str], None]) -> None:
    write("plugin_blur", PLUGIN)
    registry.load_plugins(["plugin_blur", "plugin_blur"])
    assert registry.lookup("operator", "blur").__module__ == "plugin_blur"
    assert list(registry.settings(registry.lookup("operator", "blur"))) == ["radius", "leaf"]


def test_a_plugin_that_is_not_there(write: Callable[[str, str], None]) -> None:
    message = r"^plugins: there is no module 'plugin_none'; install it, or run from the folder that holds it\.$"
    with pytest.raises(ConfigError, match=message):
        registry.load_plugins(["plugin_none"])
    write("plugin_blur", PLUGIN)
    with pytest.raises(ConfigError, match=r"^plugins: there is no module 'plugin_blur\.none'; "):
        registry.load_plugins(["plugin_blur.none"])
    with pytest.raises(ConfigError, match=r"^plugins: there is no module 'plugin_none\.blur'; "):
        registry.load_plugins(["plugin_none.blur"])


@pytest.mark.parametrize("missing", ["plugin", "plugin_blu", "plugin_blurs", "nowhere_to_be_found"])
def test_a_plugin_that_lacks_a_module_is_there(write: Callable[[str, str], None], missing: str) -> None:
    write("plugin_blur", f"import {missing}")
    with pytest.raises(ModuleNotFoundError, match=rf"^No module named '{missing}'$"):
        registry.load_plugins(["plugin_blur"])


@pytest.mark.parametrize("module", [3, None, "", ".plugin_blur", "plugin_blur.py"])
def test_not_the_name_of_a_module(module: Any) -> None:
    with pytest.raises(ConfigError, match=r"^plugins: .* is not the name of a module\. It is written") as error:
        registry.load_plugins([module])
    assert repr(module) in str(error.value)


def test_an_installed_plugin_is_loaded_once(write: Callable[[str, str], None], tmp_path: Path) -> None:
    write("plugin_blur", f"print('imported')\n{PLUGIN}")
    write("plugin_other", "raise AssertionError('of another group')")
    installed = tmp_path / "plugin_blur-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-blur\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINTS}]\nblur = plugin_blur\n\n[other.plugins]\nother = plugin_other\n"
    )
    code = (  # in a process of its own: this one has loaded its entry points
        "import sys; from datamix import registry; registry.load_plugins([]); del sys.modules['plugin_blur']; "
        "registry.load_plugins([]); print(registry.lookup('operator', 'blur').__module__, 'plugin_blur' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "imported\nplugin_blur False\n"


def test_what_is_registered_in_a_block_is_taken_back() -> None:
    def blur() -> None: ...
    def sharpen() -> None: ...

    registry.register("operator", "sharpen", sharpen)
    with registry.registered():
        registry.register("operator", "blur", blur)
        assert registry.lookup("operator", "sharpen") is sharpen
    assert "blur" not in registry.names("operator")
    assert registry.lookup("operator", "sharpen") is sharpen
    registry.register("operator", "blur", sharpen)  # the name is free again
