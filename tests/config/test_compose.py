"""Composing with Hydra, and beside a program that uses Hydra itself."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

import datamix
from datamix.config.compose import check_repeated, choices, compose, conf_dir, config_loader, prepared
from datamix.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("hydra.searchpath=[file:///a]", "hydra.searchpath=[file:///a,plus://]"),
        ("hydra.searchpath=[file:///a,'pkg://b']", "hydra.searchpath=[file:///a,'pkg://b',plus://]"),
        ("hydra.searchpath=[]", "hydra.searchpath=[plus://]"),
        ("hydra.searchpath=[plus://,file:///a]", "hydra.searchpath=[plus://,file:///a]"),
        ("data.dir=~/data", "data.dir='~/data'"),
        ("shuffle=blocks(8)", "shuffle='blocks(8)'"),
        ("source.a.where=label < 5", "source.a.where='label < 5'"),
        ("source.a.where=label in [1, 2]", "source.a.where='label in [1, 2]'"),
        ("source.a.where='x < 1','x > 2'", "source.a.where='x < 1','x > 2'"),
        ("source.a.where=choice('x < 1','x > 2')", "source.a.where=choice('x < 1','x > 2')"),
        ("source.a.where=null", "source.a.where=null"),
        ("source.a.where=x == 'y'", r"source.a.where='x == \'y\''"),
        ("shuffle=window(30)", "shuffle='window(30)'"),
        ("mix.ratio=7:3", "mix.ratio=7:3"),
        ("sweep.dir=1", "sweep.dir='1'"),
        ("sweep.dir=[nan,1-next]", "sweep.dir=['nan',1-next]"),
        ("sweep.dir=null", "sweep.dir=null"),
    ],
)
def test_an_override_as_hydra_understands_it(override: str, expected: str) -> None:
    search_path = [] if "searchpath" in override else ["hydra.searchpath=[plus://]"]
    assert prepared([override]) == [expected, *search_path]


def test_two_overrides_in_one_text_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^'source=digits mix.ratio=7:3' is not one override; each has an argument"):
        prepared(["source=digits mix.ratio=7:3"])
    prepared(["+vars.note=the one with seed=3", "source.digits.where=label == 3 and label >= 2"])


def test_a_search_path_of_ones_own_still_joins_datasets(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("_target_: arrays\npath: mine.npz\n")
    node = compose(["source=mine+digits", f"hydra.searchpath=[file://{tmp_path}]"])
    assert list(node.source) == ["mine", "digits"]


@pytest.mark.parametrize("module", ["evil", "evil.inner", "json"])
def test_a_search_path_imports_no_module(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    (tmp_path / "mine.yaml").write_text(f"defaults: [config]\nhydra: {{searchpath: ['pkg://{module}']}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = rf"= 'pkg://{module}'; it would import a module\. Name its folder, as in file:///DIR\.$"
    with pytest.raises(ConfigError, match=rf"^hydra\.searchpath {message}"):
        compose([f"hydra.searchpath=['pkg://{module}']"])
    with pytest.raises(ConfigError, match=rf"^hydra\.searchpath {message}"):
        config_loader(tmp_path).load_configuration("mine", [], RunMode.RUN)
    with pytest.raises(ConfigError, match=f"^--config-path {message}"):
        config_loader(config_path=f"pkg://{module}")


@pytest.mark.parametrize(
    "override",
    [
        "source.mnist.limit=5",
        "source.mnist.anything.deep=5",
        "mix.weights.mnist=5",
        "mix.share.some.one=5",
        "stop.epochs.mnist=5",
    ],
)
def test_keys_of_sources_need_no_plus(override: str) -> None:
    key = override.partition("=")[0]
    assert OmegaConf.select(compose([override]), key) == 5
    assert OmegaConf.select(compose(["experiment=interleaved_tutorial", override]), key) == 5


@pytest.mark.parametrize("override", ["mix.weigths.mnist=5", "stop.epoch.mnist=5", "sources.mnist.limit=5"])
def test_other_keys_are_closed(override: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no key .* Did you mean "):
        compose([override])


def test_hydras_part_is_left_out() -> None:
    assert "hydra" not in compose([])


def test_a_source_in_memory_is_an_option_of_its_own_composition_alone() -> None:
    assert compose(["source=few+digits"], datasets=["few"]).source.few == {"_target_": "arrays"}
    with pytest.raises(ConfigError, match="source=few: there is no dataset 'few'"):
        compose(["source=few+digits"])


def test_a_config_dir_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"--config-dir nowhere: there is no such directory\."):
        compose([], config_dir="nowhere")


def test_an_option_with_the_name_of_a_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "dataset" / "docs.yaml"
    own.parent.mkdir()
    own.write_text((conf_dir() / "dataset" / "docs.yaml").read_text())
    assert compose(["source=docs"], config_dir=tmp_path) == compose(["source=docs"])  # a copy is as good
    own.write_text("_target_: text\npath: own.txt\nlength: 16\n")
    with pytest.raises(ConfigError, match="has the name of the dataset 'docs' that is shipped") as caught:
        compose(["source=docs"], config_dir=tmp_path)
    match = re.search(r"Call it (.*)\.$", str(caught.value))
    assert match
    own.rename(match[1])
    assert compose([f"source={Path(match[1]).stem}"], config_dir=tmp_path).source.my_own_docs.path == "own.txt"


@pytest.mark.usefixtures("permissions_count")
@pytest.mark.parametrize("mode", [0, 0o100, 0o400])
def test_a_config_dir_that_cannot_be_read(tmp_path: Path, mode: int) -> None:
    (directory := tmp_path / "own").mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigError, match=r"^--config-dir \S+/own: it cannot be read: Permission denied\.$"):
        compose([], config_dir=directory)
    tmp_path.chmod(0)
    try:
        with pytest.raises(ConfigError, match=r"^--config-dir \S+/own: it cannot be read: Permission denied\.$"):
            compose([], config_dir=directory)
    finally:
        tmp_path.chmod(0o700)


def test_choices_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("_target_: arrays\n")
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "one.yaml").write_text("")
    groups = choices(tmp_path)
    assert groups["mix"] == ["concat", "largest_credit", "proportional", "random", "round_robin"]
    assert "mine" in groups["dataset"]
    assert groups["extra"] == ["one"]
    assert not any(group.startswith("hydra") for group in groups)


def test_options_of_source_are_the_datasets() -> None:
    options = config_loader().get_group_options("source", config_name="config", overrides=prepared([]))
    assert options == choices()["dataset"]


def test_a_defaults_list_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "a.yaml").write_text("# @package _global_\ndefaults: [b]\n")
    (tmp_path / "experiment" / "b.yaml").write_text("# @package _global_\ndefaults: [a]\n")
    with pytest.raises(ConfigError, match="names itself in its defaults list"):
        compose(["experiment=a"], config_dir=tmp_path)


# Beside other users of Hydra

FUNCTIONS = [
    (ConfigLoaderImpl, "load_configuration"),
    (ConfigRepository, "load_config"),
    (ConfigStore, "__deepcopy__"),
    (ConfigStore, "load"),
    (Plugins, "instantiate_launcher"),
    (Plugins, "instantiate_sweeper"),
    (copy, "deepcopy"),
]


@pytest.mark.slow
def test_nothing_of_hydra_is_replaced(environment: dict[str, str], tmp_path: Path) -> None:
    code = f"""
        import copy, importlib, json, sys
        names = {
        [(owner.__module__ if isinstance(owner, type) else "", owner.__name__, name) for owner, name in FUNCTIONS]
    }
        def part(module, owner, name):
            holder = importlib.import_module(owner) if not module else getattr(importlib.import_module(module), owner)
            return getattr(holder, name, None)
        before = [part(*each) for each in names]
        from datamix.cli import main
        main(["job=plan", "source=digits+garments", "hydra.run.dir=one"])
        main(["-m", "job=plan", "source=digits+garments", "seed=0,1", "hydra.sweep.dir=several"])
        print(json.dumps([a is b for a, b in zip(before, [part(*each) for each in names])]))
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [True] * len(FUNCTIONS)


def test_loading_leaves_hydras_singletons_and_resolvers_as_they_are() -> None:
    compose([])  # which makes Hydra's own singletons, as any use of Hydra does
    resolvers = {name: OmegaConf.has_resolver(name) for name in ("now", "hydra", "python_version")}
    store = copy.deepcopy(ConfigStore.instance().repo)
    few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
    datamix.load("batch.size=4", sources={"few": few})
    assert {name: OmegaConf.has_resolver(name) for name in resolvers} == resolvers
    assert not GlobalHydra.instance().is_initialized()
    assert json.dumps(_names(ConfigStore.instance().repo)) == json.dumps(_names(store))


def _names(node: object) -> object:
    return {key: _names(value) for key, value in node.items()} if isinstance(node, dict) else None


HOST = """
    import json, sys
    import hydra
    from hydra import compose, initialize_config_dir, version
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    class Model:
        def __init__(self, width): self.width = width

    @hydra.main(version_base="1.2", config_path=sys.argv.pop(1), config_name="host")
    def app(config):
        built = hydra.utils.instantiate(config.model)
        node = hydra.core.hydra_config.HydraConfig.get()
        seen.append([type(built).__name__, built.width, node.job.name, version.getbase().base_version,
                     [source.provider + source.path for source in node.runtime.config_sources]])

    def load():
        import numpy as np
        import datamix
        few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
        return len(datamix.load("batch.size=4", "stop=all_exhausted", sources={"few": few, "fewer": few}))

    seen = []
    app()
    first_length = load()
    app()
    with initialize_config_dir(sys.argv[-1], version_base="1.2"):  # and inside of one
        assert load() == first_length
        assert GlobalHydra.instance().is_initialized()
        seen.append(compose("host", ["model.width=9"]).model.width)
    print(json.dumps(seen))
    """


def test_a_hydra_application_of_its_own_is_the_same_before_and_after(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    text = "defaults: [_self_]\nmodel: {_target_: __main__.Model, width: 3}\nhydra:\n  callbacks:\n    log:\n"
    text += "      _target_: hydra.experimental.callbacks.LogJobReturnCallback\n"
    (tmp_path / "conf" / "host.yaml").write_text(text)
    (tmp_path / "host.py").write_text(textwrap.dedent(HOST).replace("sys.argv[-1]", repr(str(tmp_path / "conf"))))
    command = [sys.executable, "host.py", str(tmp_path / "conf"), "model.width=4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second, width = json.loads(done.stdout.splitlines()[-1])
    assert first == second
    assert first[:4] == ["Model", 4, "host", "1.2"]
    assert not any("plus" in source or "datamix" in source for source in first[4])
    assert width == 9


@pytest.mark.slow
def test_eight_threads_may_load_at_once() -> None:
    code = """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        import datamix

        few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
        begin = threading.Barrier(8)
        def load(number):
            begin.wait()
            name = f"few{number}"
            pipeline = datamix.load(f"batch.size={number + 1}", "stop=all_exhausted", sources={name: few, "same": few})
            return pipeline.batch_size, pipeline.source_names
        with ThreadPoolExecutor(8) as pool:
            print(list(pool.map(load, range(8))) == [(n + 1, (f"few{n}", "same")) for n in range(8)])
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_hydra_finds_light_plugins() -> None:
    code = """
        import sys
        from hydra.core.plugins import Plugins
        from hydra.plugins.config_source import ConfigSource
        from hydra.plugins.launcher import Launcher
        from hydra.plugins.search_path_plugin import SearchPathPlugin
        names = [plugin.__name__ for kind in (ConfigSource, Launcher) for plugin in Plugins.instance().discover(kind)]
        ours = [kind for kind in Plugins.instance().discover(SearchPathPlugin) if "datamix" in kind.__module__]
        print({"PlusSource", "VmapLauncher"} <= set(names), ours, [name for name in sys.modules if name == "datamix"])
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True [] []\n"), done.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        ["mix.share.mnist=0.5", "batch.size=8"],
        ["batch.size=8", "seed=3", "mix=random", "mix.window=4"],
        ["+vars.size=4", "batch.size=${vars.size}", "source.mnist.split='train[:10]'"],
        ["job=train", "model=linear", "model.missing=1"],
        ["~stop.samples", "batch.size=8"],
        ["mix.share.mnist=0.1,0.2"],
        ["nothing.of.the.kind=1"],
    ],
)
def test_a_job_of_a_sweep_is_composed_as_hydra_composes_it(overrides: list[str]) -> None:
    ours = config_loader()
    theirs = ConfigLoaderImpl(ours.get_search_path())
    master = ours.load_configuration("config", prepared(["hydra.sweep.dir=a"]), RunMode.MULTIRUN)
    results = []
    for loader in (theirs, ours, ours):  # a copy is as good as the first
        try:
            results.append(OmegaConf.to_container(loader.load_sweep_config(master, overrides), resolve=False))
        except HydraException as error:
            results.append(str(error))
    assert results[0] == results[1] == results[2]


def test_a_job_of_a_sweep_that_a_launcher_has_numbered_is_composed_anew() -> None:
    loader = config_loader()
    master = loader.load_configuration("config", prepared(["hydra.sweep.dir=a"]), RunMode.MULTIRUN)
    checked = loader.load_sweep_config(master, ["batch.size=8"])
    assert loader.load_sweep_config(master, ["batch.size=8"]) is checked
    checked = loader.load_sweep_config(master, ["batch.size=8"])
    with open_dict(checked):
        checked.hydra.job.num, checked.batch.size = 3, 9
    again = loader.load_sweep_config(master, ["batch.size=8"])
    assert (OmegaConf.is_missing(again.hydra.job, "num"), again.batch.size) == (True, 8)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.dir=a", "sweep.dir=b", "sweep.dir=a"], r"a, b, .* Write 'sweep\.dir=\[a,b\]' for all of them\.$"),
        (["sweep.dir=[n]", "sweep.dir=[w,v]", "sweep.dir=x"], r" Write 'sweep\.dir=\[n,w,v,x\]' for all of them\.$"),
        (
            ["source.x.path=a.csv", "source.x.path=b.csv"],
            r" Write 'source\.x\.path=\[a\.csv,b\.csv\]' for all of them\.$",
        ),
    ],
)
def test_data_of_which_the_last_alone_would_count_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_repeated(overrides)


def test_of_other_keys_the_last_value_counts_and_it_is_noted() -> None:
    notes = ["batch.size is given 2 values, 4, 8; the last one counts."]
    assert check_repeated(["batch.size=4", "seed=1", "batch.size=8"]) == notes
    assert check_repeated(["source=digits", "source=garments"]) == [
        "source is given 2 values, digits, garments; the last one counts (source=digits+garments mixes them)."
    ]
    (note,) = check_repeated(["source=digits+garments", "source=digits+garments+mnist"])
    assert note.endswith("; the last one counts (source=digits+garments+mnist mixes them).")
    (note,) = check_repeated(["source=digits,garments", "source=mnist"])
    assert note.endswith("; the last one counts.")  # no mix, as jobs of a sweep have one each
    assert check_repeated(["+vars.a=1", "vars.a=2", "vars.a=3"]) == [
        "vars.a is given 3 values, 1, 2, 3; the last one counts."
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["batch.size=4", "batch.size=4"],
        ["~batch.size", "+batch.size=4", "~seed", "~seed"],
        ["seed=1,2", "batch.size=1,2", "experiment=ratio_study"],
        ["hydra.run.dir=a", "train.resume=false", "train.resume=true", "hydra.run.dir=/a"],  # as is advised
        ["mix", "mix", "source.a.where=label == 3", "source.b.where=label == 4"],
    ],
)
def test_what_is_given_once_or_as_before_is_not_noted(overrides: list[str]) -> None:
    assert not check_repeated(overrides)
