"""Hydra's and OmegaConf's errors in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from datamix.config.compose import compose
from datamix.config.explain import config_error, one_line_errors, require_choices
from datamix.config.parse import parse
from datamix.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "key", "sentence"),
    [
        ("mix.replacement=true", "mix.replacement", "it belongs to mix=random. Add mix=random, or leave it out."),
        ("train.steps=3", "train.steps", "it belongs to job=train. Add job=train, or leave it out."),
        ("model=mlp", "model", "it belongs to job=train. Add job=train, or leave it out."),
        ("bench.seconds=1", "bench.seconds", "it belongs to job=bench. Add job=bench, or leave it out."),
        ("weighting.cap=3", "weighting.cap", "it belongs to weighting=size. Add weighting=size, or leave it out."),
        ("batch.sise=3", "batch.sise", "there is no key 'sise' in batch. Did you mean 'size'? Known: remainder, "),
        ("batch.sise.x=3", "batch.sise.x", "there is no key 'sise' in batch. Did you mean 'size'? Known: remainder, "),
        ("sed=1", "sed", "there is no key 'sed'. Did you mean 'seed'? Known: "),
        ("+seed=1", "+seed", "this key exists already; leave out the +."),
        ("mix=randm", "mix=randm", "there is no mix 'randm'. Did you mean 'random'? Known: concat, "),
        ("source=mnits", "source=mnits", "there is no dataset 'mnits'. Did you mean 'mnist'? Known: "),
    ],
)
def test_an_override_that_cannot_be(override: str, key: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: {sentence}")
    assert "\n" not in str(caught.value)


def test_a_setting_of_a_schedule_is_written_with_its_schedule() -> None:
    basic = ["job=train", "source=digits"]
    for before in ([], ["optimizer.schedule={warmup_cosine:{end:0.1}}"]):
        with pytest.raises(ConfigError) as caught:
            compose([*basic, *before, "optimizer.schedule.warmup_cosine.warmup=0.2"])
        head, _, advised = str(caught.value).partition(" Write ")
        assert head == "optimizer.schedule.warmup_cosine.warmup: a schedule is set with its settings."
        train = parse(compose([*basic, advised.strip("'.").replace("VALUE", "0.2")])).train
        assert (train.schedule, train.schedule_settings) == ("warmup_cosine", {"warmup": 0.2})


def test_a_setting_of_every_policy_that_a_file_of_ones_own_lacks(tmp_path: Path) -> None:
    (tmp_path / "adapt").mkdir()
    (tmp_path / "adapt" / "mine.yaml").write_text("_target_: mine\npower: 2\n")
    with pytest.raises(ConfigError) as caught:
        compose(["adapt=mine", "adapt.every=5"], config_dir=tmp_path)
    sentence = "the file of this policy does not have it. Write it there, or +adapt.every=… here."
    assert str(caught.value) == f"adapt.every: {sentence}"
    assert compose(["adapt=mine", "+adapt.every=5"], config_dir=tmp_path).adapt.every == 5
    with pytest.raises(ConfigError, match=r"^adapt\.rate: it belongs to adapt=doremi\."):
        compose(["adapt=mine", "adapt.rate=5"], config_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"^adapt\.every: it belongs to adapt=ado or "):
        compose(["adapt=none", "adapt.every=5"])


def test_what_is_not_known_is_said_in_one_line() -> None:
    from omegaconf.errors import OmegaConfBaseException

    error = OmegaConfBaseException("Something\n    full_key: a\n")
    assert str(config_error(error)) == "Something full_key: a"
    with pytest.raises(ConfigError, match=r"^Something full_key: a$"), one_line_errors():
        raise error
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize("key", ["operators.first", "plugins.a.b"])
def test_a_key_below_a_list(key: str) -> None:
    with pytest.raises(ConfigError, match=r"^an override names '(first|a)' below a list; there, write a number"):
        compose([f"{key}=x"])
    with pytest.raises(ValueError, match=r"^ours$"), one_line_errors():
        raise ValueError("ours")


@pytest.mark.parametrize("text", ["batch: {size: 3\n", "batch:\n\tsize: 3\n", "seed: 1\nseed: 2\n"])
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    with pytest.raises(ConfigError, match=r"experiment/mine\.yaml") as caught:
        compose(["experiment=mine"], config_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["source = digits", "source =digits"])
def test_blanks_around_the_sign(override: str) -> None:
    with pytest.raises(ConfigError, match=rf"^'{override}' is not an override; write source=digits, without blanks\.$"):
        compose([override])


def test_a_group_that_a_file_chooses_once_more(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    mine = tmp_path / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\ndefaults: [{/mix: random}]\n")
    with pytest.raises(ConfigError, match=r"To override a value use 'override /mix: random'$"):
        compose(["experiment=mine"], config_dir=tmp_path)
    mine.write_text("# @package _global_\ndefaults: [{override /mix: random}]\n")
    assert compose(["experiment=mine"], config_dir=tmp_path).mix["_target_"] == "random"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("job=null", "job is missing; it is the name of a choice. Known: bench, "),
        ("weighting=null", "weighting is missing; it is the name of a choice. Known: equal, size."),
        ("source=1", "source = 1; it is the name of a choice. Known: cifar10, "),
        ("stop=true", "stop = True; it is the name of a choice. Known: all_exhausted, "),
        ("mix=1e300", "mix = 1e+300; it is the name of a choice. Known: concat, "),
        ("+mix=1", "mix = 1; it is the name of a choice. Known: concat, "),
        ("stop=[1,forever]", "stop = [1, 'forever']; it is the name of a choice. Did you mean 'forever'? "),
    ],
)
def test_what_names_no_choice(override: str, sentence: str) -> None:
    for refuse in (require_choices, compose):
        with pytest.raises(ConfigError) as caught:
            refuse([override])
        assert str(caught.value).startswith(sentence)


def test_what_may_be_null_or_a_number_may() -> None:
    require_choices(["seed=1", "mix.ratio=null", "mix=random", "mix={unit:3}", "data.stand_in=true", "+mine=1", "~job"])
    require_choices(["source=mnist+fashion", "source=[mnist,fashion]", "mix='random'", "seed=1,2", "mix=random,concat"])
    require_choices(["mix=[", "mix"])  # Hydra says itself that these are no overrides


@pytest.mark.parametrize("value", ["a b", "c'd'", 'a"b(1)', "a\\'b", "$HOME/a (1)`x`", "it's\\"])
def test_quotes_that_are_advised_keep_the_value(value: str) -> None:
    with pytest.raises(ConfigError, match="special characters: ") as caught:
        compose([f"data.cache=({value}"])
    advised = str(caught.value).partition("special characters: ")[2].removesuffix(".")
    read = subprocess.run(["bash", "-c", f"printf %s {advised}"], capture_output=True, text=True, check=True).stdout
    assert compose([read]).data.cache == f"({value}"


@pytest.mark.parametrize("override", ["mix.weights.vision/mnist=2", "mix.weights.vision/mnist='2'"])
def test_dots_lead_to_a_source_within_a_mix(override: str) -> None:
    with pytest.raises(ConfigError, match=r" is not an override; write (.*)\.$") as raised:
        compose(["source=vision+digits", override])
    advice = str(raised.value).partition("; write ")[2].rstrip(".")
    assert advice == override.replace("/", ".")
    compose(["source=vision+digits", advice])


def test_a_config_of_ones_own_that_hydra_does_not_find(tmp_path: Path) -> None:
    (folder := tmp_path / "dataset").mkdir()
    (folder / "x.yml").write_text("_target_: digits\n")
    with pytest.raises(ConfigError, match=r"Hydra reads \S+/dataset/x\.yml only as x\.yaml; rename it\.$"):
        compose(["source=x"], config_dir=tmp_path)
    (folder / "x.yml").rename(folder / "x.yaml")
    with pytest.raises(ConfigError, match=r"\S+/dataset/x\.yaml is found by --config-dir (\S+)\.$") as caught:
        compose(["source=x"], config_dir=folder)
    advised = str(caught.value).rpartition(" ")[2].removesuffix(".")
    assert compose(["source=x"], config_dir=advised).source.x["_target_"] == "digits"


def test_a_folder_of_ones_own_in_python(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "scan.yaml").write_text("_target_: digits\n")
    with pytest.raises(ConfigError, match=r'found by --config-dir DIR, in Python by config_dir="DIR"\.$'):
        compose(["source=scan"])
    for override in (f"--config-dir={tmp_path}", f"-cd={tmp_path}"):
        with pytest.raises(ConfigError, match=r' is not an override; write config_dir="(.*)", an argument') as raised:
            compose([override, "source=scan"])
        advised = str(raised.value).split('"')[1]
        assert compose(["source=scan"], config_dir=advised).source.scan["_target_"] == "digits"
    with pytest.raises(ConfigError, match=r'^.--config-dir. is not an override; write config_dir="DIR", '):
        compose(["--config-dir", str(tmp_path), "source=scan"])
