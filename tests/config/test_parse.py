"""Composing and checking configurations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from datamix import registry
from datamix.builder.built import build
from datamix.config import parse as config
from datamix.config.compose import compose, prepared
from datamix.errors import ConfigError, DatamixError, RegistryError, SpecError


def parsed(*overrides: str, config_dir: Path | None = None) -> config.Config:
    return config.parse(compose(overrides, config_dir=config_dir))


def test_defaults() -> None:
    result = parsed()
    assert [source.name for source in result.sources] == ["mnist", "fashion"]
    assert (result.job, result.mix.order, result.mix.stop) == ("preview", "proportional", "first_exhausted")
    assert (result.batch_size, result.remainder, result.seed, result.labels) == (16, "drop", 0, "union")


@pytest.mark.parametrize("source", ["source=fashion+digits+mnist", "source=[fashion,digits,mnist]"])
def test_sources_keep_their_order(source: str) -> None:
    assert [one.name for one in parsed(source).sources] == ["fashion", "digits", "mnist"]


def test_settings_of_a_source() -> None:
    mnist = parsed("source.mnist.split=train[:20%]", "source.mnist.limit=7", "source.mnist.seed=3").sources[0]
    assert (mnist.target, mnist.limit, mnist.seed, mnist.stand_in) == ("tfds", 7, 3, "digits")
    assert mnist.settings["split"] == "train[:20%]"
    assert [(one.name, dict(one.settings)) for one in mnist.operators] == [
        ("to_float", {}),
        ("normalize", {"mean": 0.1307, "std": 0.3081}),
    ]


def test_operators_may_be_written_as_hydra_does() -> None:
    both = [
        parsed(f"source.mnist.operators=[{text}]").sources[0].operators
        for text in ("{normalize:{mean:0,std:2}}", "{_target_:normalize,mean:0,std:2}")
    ]
    assert both[0] == both[1]


def test_stand_ins_are_for_looking() -> None:
    assert all(parsed(f"job={job}").stand_in for job in ("preview", "plan", "graph"))
    assert not parsed("data.stand_in=false").stand_in


def test_concat_takes_everything_unless_another_stop_is_chosen() -> None:
    assert parsed("mix=concat").mix.stop == "exhaust_once"
    assert parsed("mix=concat", "stop=forever").mix.stop == "forever"


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("source=mnist+fashon", ConfigError, r"source=fashon: there is no dataset 'fashon'\. Did you mean 'fashion'\?"),
        ("source=mnist+mnist", ConfigError, r"source: 'mnist' is named twice"),
        ("source=mnist+", ConfigError, r"source: '' is not the name of a dataset"),
        ("mix=propotional", ConfigError, r"mix=propotional: .* Did you mean 'proportional'\?"),
        ("mix.weigths.mnist=3", ConfigError, r"no key 'weigths' in mix\. Did you mean 'weights'\?"),
        ("mix.weights.mnst=3", ConfigError, r"no source 'mnst' in .*\. Did you mean 'mnist'\?"),
        ("mix.window=3.5", ConfigError, r"mix\.window = 3\.5"),
        ("source.mnist.splt=a", ConfigError, r"no key 'splt' in source\.mnist\. Did you mean 'split'\?"),
        ("source.mnist.limit=0", ConfigError, r"source\.mnist\.limit = 0; it is 1 or more\."),
        ("batch.size=abc", ConfigError, r"batch\.size = 'abc'; it is a whole number\."),
        ("batch.size=true", ConfigError, r"batch\.size = True; it is a whole number\."),
        ("batch.size=0", ConfigError, r"batch\.size = 0; it is 1 or more\."),
        ("batch.size=null", ConfigError, r"batch\.size is missing; it is a whole number\."),
        ("stop.samples=0", ConfigError, r"stop\.samples = 0; it is 1 or more\."),
        ("labels=unoin", ConfigError, r"labels = 'unoin'\. Did you mean 'union'\?"),
        ("mix.granularity=bath", ConfigError, r"mix\.granularity = 'bath'\. Did you mean 'batch'\?"),
        ("+sed=1", ConfigError, r"^sed: there is no key 'sed'\. Did you mean 'seed'\?"),
        ("+seed=1", ConfigError, r"\+seed: this key exists already; leave out the \+\."),
        ("batch", ConfigError, r"'batch' is not an override; write key=value"),
        ("job.batches=x", ConfigError, r"job\.batches = 'x'"),
        ("plugins=[no_such_module]", ConfigError, r"plugins: there is no module 'no_such_module'"),
        ("source=my_npz", ConfigError, r"source\.my_npz\.path is missing; it has no default\."),
        ("source.mnist.operators=[normalise]", RegistryError, r"\[0\]: no operator 'normalise'\. Did you mean"),
        ("source.mnist.operators=[normalize]", ConfigError, r"operators\[0\]\.normalize\.mean is missing"),
        ("source.mnist.operators=[[to_float]]", ConfigError, r"operators\[0\] = \['to_float'\]; it is no operator\."),
        ("source.mnist.operators=[{normalize:{men:1,std:1}}]", ConfigError, r"\.men: .* Did you mean 'mean'\?"),
        ("source.mnist._target_=os.system", RegistryError, r"source\.mnist\._target_: no source 'os\.system'"),
        ("source.mnist.stand_in=os.system", RegistryError, r"source\.mnist\.stand_in: no source 'os\.system'"),
        ("operators=[{_target_:os.system,command:ls}]", RegistryError, r"operators\[0\]: no operator 'os\.system'"),
        ("+batch._target_=os.system", RegistryError, r"batch\._target_ = 'os\.system'; nothing can be built here"),
        ("+mix.x._target_=os.system", RegistryError, r"mix\.x\._target_ = 'os\.system'; nothing can be built here"),
        ("mix._target_=os.system", RegistryError, r"^mix\._target_: no order 'os\.system'\. Known: concat, "),
        ("+data._target_=os.system", RegistryError, r"data\._target_ = 'os\.system'; nothing can be built here"),
        ("job._target_=os.system", RegistryError, r"^job\._target_: no job 'os\.system'\. Known: bench, "),
        ("[x", ConfigError, r"'\[x' is not an override; write key=value"),
        ("+other._target_=os.system", RegistryError, r"other\._target_ = 'os\.system'; nothing can be built here"),
        (
            "source.mnist.operators=[{normalize:{mean:{_target_:os.system},std:1}}]",
            RegistryError,
            r"operators\[0\]\.mean\._target_ = 'os\.system'; nothing can be built here",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(override: str, error: type[DatamixError], message: str) -> None:
    def run() -> None:
        result = parsed("source=digits+garments" if "mix.window" in override else "seed=0", override)
        registry.check_settings("job", registry.lookup("job", result.job), result.job_settings)
        build(result)

    with pytest.raises(error, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


def test_an_unquoted_ratio_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nmix:\n  ratio: 7:3\n")
    with pytest.raises(ConfigError, match=r"mix\.ratio = 423; it is no ratio\. Write '7:3' or \[7, 3\]\. In YAML"):
        build(parsed("source=digits+garments", "experiment=mine", config_dir=tmp_path))


def test_composing_and_parsing_import_nothing_heavy() -> None:
    code = (
        "import sys; from datamix import jobs, operators, sources, training; from datamix.config import parse, compose;"
        "config = parse.parse(compose.compose(['job=train', 'mix.ratio=7:3'])); assert config.sources[0].operators;"
        "print([m for m in ('jax', 'flax', 'optax', 'tensorflow', 'tensorflow_datasets', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("batch.size=0", "batch.size", 0),
        ("batch.size=1e300", "batch.size", 1e300),
        (f"stop.samples={10**30}", "stop.samples", 10**30),
        (f"mix.window={10**30}", "mix.window", 10**30),
        ("data=null", "data", None),
        ("mix.weights=3", "mix.weights", 3),
        ("source.mnist=3", "source.mnist", 3),
        ("source.mnist.class_names=abc", "source.mnist.class_names", "abc"),
        ("source.mnist.operators=to_float", "source.mnist.operators", "to_float"),
        ("plugins=my_parts", "plugins", "my_parts"),
        ("sweep.dir=[[a]]", "sweep.dir", [["a"]]),
        ("seed=???", "seed", None),
        ("labels=unoin", "labels", "unoin"),
    ],
)
def test_an_error_carries_key_and_value(override: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        build(parsed("source=mnist" if "mnist" in override else "source=digits", override))
    assert (caught.value.key, caught.value.value) == (key, value)


@pytest.mark.parametrize("schedule", ["null", "3", "[cosine]"])
def test_what_is_no_schedule(schedule: str) -> None:
    with pytest.raises(
        ConfigError, match=r"it is no schedule\. Write a name, or a name with its settings: \{cosine"
    ) as caught:
        parsed("job=train", f"optimizer.schedule={schedule}")
    assert caught.value.key == "optimizer.schedule"


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("optimizer.schedule={cosine:3}", "Write {cosine: {end: 3}}; cosine takes end."),
        (
            "operators=[{resize:32}]",
            "Write {resize: {height: 32, width: 32}}; resize takes height, width, method, leaf.",
        ),
        ("operators=[{resize:[24,32]}]", "Write {resize: {height: 24, width: 32}}; resize takes height, width, "),
        ("operators=[{rotate:10}]", "Write {rotate: {degrees: 10}}; rotate takes degrees, fill, leaf."),
    ],
)
def test_a_bare_value_of_a_component_is_told_the_name_of_its_setting(override: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=r"; its settings have names\. ") as caught:
        parsed("job=train", override)
    assert caught.value.hint.startswith(mend)


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("stop.epochs=2", "Write them as in stop.epochs.digits=2 stop.epochs.garments=2."),
        ("mix.share=0.4", "Write them as in mix.share.digits=0.4."),
        ("mix.weights=equal", "Write them as in mix.weights.digits=2."),
        ("mix.weights=7:3", "Write mix.ratio=7:3."),
    ],
)
def test_a_number_for_all_sources_is_told_how_to_give_one_each(override: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=r"; it has a number for each source\. ") as caught:
        parsed("source=digits+garments", override)
    assert caught.value.hint == mend
    if override != "mix.weights=equal":
        parsed(
            "source=digits+garments", *mend.removesuffix(".").rpartition(" as in ")[2].removeprefix("Write ").split()
        )


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("mix.ratio: '7:3'", "mix.ratio: in a file, groups lie within each other. Write mix: {ratio: …}."),
        (
            "job: train",
            "job = 'train'; it is a group of keys. In a file, it is chosen in the defaults: - override /job: ",
        ),
        (
            "defaults: [{override source: digits}]",
            "experiment/source: there is no such group within this one. Write it ",
        ),
        ("defaults: [{source: digits}]", "experiment/source: there is no such group within this one. Write it with ov"),
        ("seed: 3\n  batch: 4", "mapping values are not allowed here"),
    ],
)
def test_a_file_that_is_written_as_a_command_line_is(tmp_path: Path, text: str, mistake: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        parsed("experiment=mine", config_dir=tmp_path)
    assert str(caught.value).startswith(mistake)


def test_a_file_that_chooses_without_its_package(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("defaults: [{override /source: digits}]\n")
    with pytest.raises(ConfigError, match=r"^source: .* Let that file begin with the line # @package _global_\.$"):
        parsed("experiment=mine", config_dir=tmp_path)


def test_a_dataset_without_a_format_is_asked_for_one(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("path: icons\n")
    with pytest.raises(ConfigError, match=r"if it is there, its file needs a line _target_: FORMAT\.$"):
        parsed("source=mine", config_dir=tmp_path)


@pytest.mark.parametrize("overrides", [["batch.size=${batch.size}"], ["batch.size=${seed}", "seed=${batch.size}"]])
def test_a_value_that_leads_back_to_itself(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^(batch\.size|seed): Recursive interpolation"):
        parsed(*overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source.mnsit.split=x", "there is no source 'mnsit' in source. Did you mean 'mnist'? Known: fashion, mnist."),
        (
            "source.digits.limit=3",
            "there is no source 'digits' in source. Known: fashion, mnist. To mix digits, name it",
        ),
        ("source.mnist.limt=3", "there is no key 'limt' in source.mnist. Did you mean 'limit'? Known: "),
        ("source.mnist.splt=x", "there is no key 'splt' in source.mnist. Did you mean 'split'? Known: "),
        (
            "mix.weights.mnsit=2",
            "there is no source 'mnsit' in mix.weights. Did you mean 'mnist'? Known: fashion, mnist.",
        ),
        ("mix.share.mnsit=.2", "there is no source 'mnsit' in mix.share. Did you mean 'mnist'? Known: fashion, mnist."),
        ("stop.epochs.mnsit=2", "there is no source 'mnsit' in stop.epochs. Did you mean 'mnist'? Known: fashion, "),
        ("mix.granularty=batch", "there is no key 'granularty' in mix. Did you mean 'granularity'? Known: "),
        ("stop.sampels=3", "there is no key 'sampels' in stop. Did you mean 'samples'? Known: "),
        ("weighting.cap=3", "it belongs to weighting=size. Add weighting=size, or leave it out."),
    ],
)
def test_a_name_that_composing_lets_through_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(f"+{override}")
    key = override.partition("=")[0]
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: {message}")


# Keys of the user's own


def test_keys_that_interpolations_refer_to_are_the_users(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nmine: {records: 64}\nbatch: {size: '${mine.records}'}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    assert parsed("experiment=mine", config_dir=tmp_path).batch_size == 64
    assert parsed("+tag=7", "batch.size=${tag}").batch_size == 7
    assert parsed("+tag=7", "batch.size=${oc.select:tag,3}").batch_size == 7
    assert parsed("+vars.anything=1").batch_size == 16
    with pytest.raises(ConfigError, match=r"^tag: there is no key 'tag'\. Known: adapt, batch, "):
        parsed("+tag=7")
    with pytest.raises(ConfigError, match=r"^sede: there is no key 'sede'\. Did you mean 'seed'\?"):
        parsed("+sede=7", "batch.size=${seed}", "seed=1")


def test_hydras_part_refers_to_keys_and_names_the_users_groups() -> None:
    node = compose(["+tag=7", "+trial.x=1"])
    OmegaConf.set_struct(node, False)
    hydra = OmegaConf.create({"job": {"name": "run-${tag}"}, "runtime": {"choices": {"trial": "a", "mix": "random"}}})
    assert config.parse(node, hydra).seed == 0
    with pytest.raises(ConfigError, match=r"^tag: there is no key 'tag'\."):
        config.parse(node, OmegaConf.create({"runtime": {"choices": {"trial": "a"}}}))
    both = OmegaConf.merge(node, {"hydra": hydra})
    assert isinstance(both, DictConfig)
    assert config.parse(both).seed == 0


def test_settings_of_a_job_stand_under_its_name_too() -> None:
    result = parsed("job=bench", "bench.seconds=2")
    assert (result.job, result.job_settings) == ("bench", {"seconds": 2})
    with pytest.raises(
        ConfigError, match=r"^bench\.secnds: there is no key 'secnds' in bench\. Did you mean 'seconds'\?"
    ):
        parsed("job=bench", "+bench.secnds=2")
    with pytest.raises(ConfigError, match=r"^plan = 3; it is a group of keys\.$"):
        parsed("job=plan", "+plan=3")


def test_nothing_is_built_in_a_key_of_the_users() -> None:
    with pytest.raises(RegistryError, match=r"^vars\.x\._target_ = 'os\.system'; nothing can be built here\."):
        parsed("+vars.x._target_=os.system")


def test_a_plugin_may_register_a_resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_resolvers.py").write_text(
        "from omegaconf import OmegaConf\n"
        "OmegaConf.register_new_resolver('product_for_test', lambda a, b: a * b, replace=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    size = "batch.size='${product_for_test:${seed},8}'"
    assert parsed("plugins=[plugin_of_resolvers]", size, "seed=4").batch_size == 32


# Mixes within mixes


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A directory with `inner`, a mix 7:3, and `outer`, a mix of it and digits."""
    (tmp_path / "dataset").mkdir()
    head = "defaults:\n- /dataset@{}\n- /dataset@{}\n- _self_\n_target_: mix\n"
    files = {
        "inner": head.format("a: digits", "b: garments") + 'ratio: "7:3"\n',
        "outer": head.format("inner: inner", "digits: digits") + "weights: {inner: 3}\n",
        "mistaken": head.format("a: digits", "b: garments") + "ratio: 7:3\n",
        "knot": head.format("a: digits", "b: knot"),
        "hollow": "_target_: mix\n",
    }
    for name, text in files.items():
        (tmp_path / "dataset" / f"{name}.yaml").write_text(text)
    return tmp_path


def shares(nested: Path, *overrides: str) -> dict[str, str]:
    plan = build(parsed(*overrides, config_dir=nested)).plan
    return {name: str(share) for name, share in zip(plan.names, plan.shares, strict=True)}


def test_a_mix_within_a_mix_within_a_mix(nested: Path) -> None:
    whole = {"outer.inner.a": "21/80", "outer.inner.b": "9/80", "outer.digits": "1/8", "garments": "1/2"}
    assert shares(nested, "source=outer+garments") == whole
    assert list(shares(nested, "source=outer+garments", "mix.ratio=3:1").values()) == [
        "63/160",
        "27/160",
        "3/16",
        "1/4",
    ]
    by_path = ("mix.weights.outer.inner.b=7", "mix.share.outer.digits=0.5")
    assert list(shares(nested, "source=outer+garments", *by_path).values()) == ["1/8", "1/8", "1/4", "1/2"]
    assert list(shares(nested, "source=inner+garments", "mix.weights.inner=3").values()) == ["21/40", "9/40", "1/4"]
    assert list(shares(nested, "source=inner", "source.inner.ratio=[1,3]").values()) == ["1/4", "3/4"]
    inner = ("source.inner.ratio=null", "source.inner.weights.a=3")
    assert list(shares(nested, "source=inner", *inner).values()) == ["3/4", "1/4"]


@pytest.mark.parametrize("rule", ["weights", "share"])
def test_a_mix_and_what_it_is_made_of_may_both_be_weighed_in_any_order(nested: Path, rule: str) -> None:
    inner, outer = {"weights": ("7", "2"), "share": ("0.5", "0.4")}[rule]
    numbers = [f"mix.{rule}.inner.b={inner}", f"mix.{rule}.inner={outer}"]
    expected = {"weights": ["1/3", "1/3", "1/3"], "share": ["1/5", "1/5", "3/5"]}[rule]
    assert list(shares(nested, "source=inner+garments", *numbers).values()) == expected
    assert list(shares(nested, "source=inner+garments", *reversed(numbers)).values()) == expected


def test_what_a_mix_is_made_of_has_the_settings_of_any_source(nested: Path) -> None:
    result = parsed(
        "source=outer",
        "source.outer.inner.a.limit=5",
        "source.outer.inner.b.split=train[:9]",
        "stop.epochs.outer.inner.a=2",
        config_dir=nested,
    )
    assert [(one.name, one.target, one.limit) for one in result.sources] == [
        ("outer.inner.a", "digits", 5),
        ("outer.inner.b", "garments", None),
        ("outer.digits", "digits", None),
    ]
    built = build(result)
    assert built.plan.sizes == (5, 9, 20_000)
    assert result.mix.epochs == {"outer.inner.a": 2}
    batch = built.pipeline()[0]
    assert set(batch["source_id"].tolist()) == {0, 1, 2}
    assert built.offset("outer.inner.b") == 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["source=outer", "mix.weights.outer.iner=3"],
            r"no source 'iner' in .*\. Did you mean 'inner'\?",
        ),
        (
            ["source=inner", "source.inner.weights.a=3"],
            r"source\.inner\.ratio = .*; it and source\.inner\.weights\.a both say how much",
        ),
        (["source=outer", "source.outer.inner.a.limt=3"], r"no key 'limt' in source\.outer\.inner\.a\."),
        (
            ["source=inner", "+source.inner.limit=3"],
            r"source\.inner\.limit: inner is a mix, and takes ratio, weights and ",
        ),
        (["source=inner", "source.inner.ratio=7"], r"source\.inner\.ratio = 7; it is no ratio"),
        (["source=inner", "+source.inner.share.z=1"], r"source\.inner\.share\.z: there is no source 'z' in this mix"),
        (["source=mistaken"], r"source\.mistaken\.ratio = 423; it is no ratio\. .* unquoted"),
        (["source=knot"], r"source: the mix 'knot' is made of itself: knot -> knot\."),
        (["source=hollow"], r"source: hollow is a mix of nothing; name what it is made of in its defaults"),
    ],
)
def test_what_makes_no_mix_within_a_mix(nested: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(*overrides, config_dir=nested)


# Steps, lengths, windows


def test_batches_end_a_mix_where_they_come_first() -> None:
    assert parsed("stop.batches=7").mix.samples == 112
    assert parsed("stop.batches=7", "stop.samples=50").mix.samples == 50
    assert len(build(parsed("source=digits", "stop.batches=7")).pipeline()) == 7


def test_a_schedule_on_the_command_line() -> None:
    ramp = "mix.schedule=[{until:2,ratio:'3:1'},{until:6,ramp:linear,weights:{garments:3}}]"
    plan = build(parsed("source=digits+garments", ramp, "stop=forever")).plan
    assert [float(plan.targets_at(16 * step)[0]) for step in range(7)] == [
        0.75,
        0.75,
        *(0.6875, 0.5625, 0.4375, 0.3125),
        0.25,
    ]
    with pytest.raises(ConfigError, match=r"mix\.schedule = 3; it is a list such as"):
        build(parsed("mix.schedule=3", "source=digits"))


def test_no_shuffle_at_all_is_none_and_not_null() -> None:
    with pytest.raises(ConfigError, match=r"^shuffle is missing; it is full, none, window\(n\) or blocks\(n\)"):
        build(parsed("shuffle=null", "source=digits"))


def test_lengths_follow_the_ratio(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, most in (("short", 20), ("long", 200)):
        tokens = generator.integers(1, most, 300)
        np.savez(tmp_path / f"{name}.npz", text=np.zeros((300, 8), np.int32), tokens=tokens)
        (tmp_path / "dataset").mkdir(exist_ok=True)
        (tmp_path / "dataset" / f"{name}.yaml").write_text(f"_target_: arrays\npath: {tmp_path / name}.npz\n")
    built = build(parsed("source=short+long", "mix.unit=tokens", "stop=all_exhausted", config_dir=tmp_path))
    batches = list(built.pipeline())
    numbers = [sum(int(batch["tokens"][batch["source_id"] == i].sum()) for batch in batches) for i in range(2)]
    assert numbers[0] / sum(numbers) == pytest.approx(0.5, abs=200 / sum(numbers))
    with pytest.raises(
        SpecError, match=r"mix\.unit = 'tokns'; source 'short' has no leaf 'tokns' .* Did you mean 'tokens'\?"
    ):
        build(parsed("source=short+long", "mix.unit=tokns", config_dir=tmp_path))


@pytest.mark.parametrize("value", ["window(30)", "'window(30)'", "choice(full,none)"])
def test_a_window_needs_no_quotes(value: str) -> None:
    expected = "choice(full,none)" if "choice" in value else "'window(30)'"
    assert prepared([f"shuffle={value}"])[0] == f"shuffle={expected}"
    assert parsed("shuffle=window(30)").shuffle == "window(30)"


def test_a_number_beyond_counting() -> None:
    for ratio in ("1e999999:1", "1e-400:1"):
        with pytest.raises(ConfigError, match=r"^mix\.ratio = '1e.*'; a weight is a number, 0 or more\.$"):
            build(parsed(f"mix.ratio={ratio}", "source=digits+garments"))


@pytest.mark.parametrize("key", ["weighting.cap=3", "weighting.temperature=3"])
def test_a_setting_of_a_choice_names_the_choice(key: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{key.split('=')[0]}: it belongs to weighting=size\. Add weighting=size, "
    ):
        parsed(key)


def test_jobs_of_a_sweep_draw_no_curves_unless_they_are_asked_to() -> None:
    def drawn(*overrides: str, **hydra: object) -> bool | None:
        train = config.parse(compose(["job=train", *overrides]), OmegaConf.create(hydra) if hydra else None).train
        assert train is not None
        return train.curves

    assert [drawn(), drawn("train.curves=false"), drawn(mode=RunMode.RUN)] == [True, False, True]
    assert [drawn(mode=RunMode.MULTIRUN), drawn("train.curves=true", mode=RunMode.MULTIRUN)] == [False, True]


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("source.mnist.limit=500", "source.vision.mnist.limit"),
        ("mix.weights.mnist=2", "mix.weights.vision.mnist"),
        ("stop.epochs.fashion=2", "stop.epochs.vision.fashion"),
    ],
)
def test_a_source_within_a_mix_is_named_by_its_path(override: str, meant: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError, match=rf"^{key}: there is no source '\w+' in .*\. Did you mean {meant}\?$"):
        parsed("source=vision+digits", override)
    assert parsed("source=vision+digits", f"{meant}={value}").sources[0].name == "vision.mnist"


@pytest.mark.parametrize("name", ["pth", "root", "paths"])
def test_a_setting_that_is_missing_may_have_been_mistyped(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed("source=folder", f"source.folder.{name}=icons")
    assert str(caught.value) == (
        "source.folder.path is missing; it has no default. Did you mean it by source.folder."
        f"{name}? Write source.folder.path=…."
    )


def test_a_setting_that_is_known_is_not_taken_for_another_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"^source\.my_parquet\.path is missing; it has no default\. Write source\."):
        parsed("source=my_parquet", "source.my_parquet.pad_to={}")  # which is like it
