"""From the configuration of a source to the source, or its stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix import registry
from datamix.builder.built import Built, build
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.errors import ConfigError, DataError


@pytest.fixture
def nothing_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides for a machine without data, whose network does not answer."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return [f"data.dir={tmp_path}", f"data.cache={tmp_path / 'cache'}"]


def built(*overrides: str, **settings: Any) -> Built:
    return build(parse(compose(overrides, **settings)))


def few(size: int = 6, classes: int = 3, **leaves: Any) -> dict[str, np.ndarray]:
    return {"image": np.zeros((size, 2, 2, 1), np.uint8), "label": np.arange(size) % classes} | leaves


@pytest.mark.parametrize("installed", [True, False])
def test_stand_ins_say_so(nothing_prepared: list[str], monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: (name == "tensorflow" and installed) or None)
    mix = built("data.stand_in=true", "source=mnist+digits", "source.mnist.split=train[:300]", *nothing_prepared)
    assert [source.provenance for source in mix.sources.values()] == ["stand-in", "procedural"]
    assert [source.num_records for source in mix.sources.values()] == [300, 20_000]
    assert len(mix.notes) == 1
    assert mix.notes[0].startswith(
        "mnist: the built-in stand-in 'digits' takes the place of the real data, which is not prepared in "
    )
    install = "" if installed else "pip install -e '.[prepare]' and "
    assert mix.notes[0].endswith(f" For the real data, set data.dir=, or {install}run once with a network.")


def test_without_stand_ins_it_says_what_a_user_can_do(
    nothing_prepared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DataError,
        match=rf"source 'mnist': not prepared in {tmp_path}, and could not be prepared: .*Point data\.dir= "
        r".*pip install -e '\.\[prepare\]' .*data\.stand_in=true",
    ):
        built("data.stand_in=false", *nothing_prepared)


def test_a_dataset_without_a_stand_in_is_missed(nothing_prepared: list[str]) -> None:
    with pytest.raises(DataError, match=r"source 'kmnist': not prepared .* or leave kmnist out of source="):
        built("source=digits+kmnist", *nothing_prepared)


def test_limit_takes_the_first_records() -> None:
    pipeline = datamix.load("source.a.limit=4", "stop=exhaust_once", "batch.size=4", "shuffle=false",
                            sources={"a": few(classes=6)})  # fmt: skip
    assert [batch["label"].tolist() for batch in pipeline] == [[0, 1, 2, 3]]
    assert datamix.load("source.a.limit=400", "batch.size=1", sources={"a": few()}).plan.sizes == (6,)


def test_a_source_function_of_the_users(tmp_path: Path) -> None:
    @datamix.source
    def ramps(*, num_records: int) -> dict[str, np.ndarray]:
        return few(num_records)

    @datamix.source
    def nonsense() -> list[int]:
        return [1]

    @datamix.source
    def listed() -> list[dict[str, int]]:
        return [{"label": i} for i in range(3)]

    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "listed.yaml").write_text("_target_: listed\n")
    (tmp_path / "dataset" / "mine.yaml").write_text("_target_: ramps\nnum_records: 9\n")
    (tmp_path / "dataset" / "wrong.yaml").write_text("_target_: nonsense\n")
    pipeline = datamix.load("source=mine", "batch.size=3", config_dir=tmp_path)
    assert pipeline.plan.sizes == (9,)
    assert pipeline.plan.names == ("mine",)
    with pytest.raises(DataError, match=r"^source 'wrong': record 0 is int; a record is a dict of numbers and arrays"):
        datamix.load("source=wrong", config_dir=tmp_path)
    batch = datamix.load("source=listed", "batch.size=3", "shuffle=none", config_dir=tmp_path)[0]
    assert batch["label"].tolist() == [0, 1, 2]


def test_a_source_made_in_python_takes_no_settings() -> None:
    with pytest.raises(ConfigError, match=r"^source\.a\.path: a was made in Python and takes no path; "):
        datamix.load("source.a.path=a.npz", sources={"a": few()})


def test_a_source_made_in_python_is_sliced() -> None:
    pipeline = datamix.load("source.a.split=train[1:]", "batch.size=2", "shuffle=none", sources={"a": few()})
    assert pipeline[0]["label"].tolist() == few()["label"][1:3].tolist()


def test_a_split_with_steps() -> None:
    """Of a source without splits of its own, of one in memory, and of one with splits that knows nothing of steps."""
    sources = {"a": few(10, 10)}

    def labels(split: str) -> list[int]:
        pipeline = datamix.load(
            f"source.a.split={split}", "batch.size=1", "shuffle=none", "labels=keep", sources=sources
        )
        return [int(batch["label"][0]) for batch in pipeline]

    assert labels("train[1::3]") == [1, 4, 7]
    assert labels("train[:50%:2]+train[8:]+train[7::9]") == [0, 2, 4, 8, 9, 7]
    whole = built("source=digits", "source.digits.split=train[:40]+test[:9]")
    stepped = built("source=digits", "source.digits.split=train[:40:7]+test[:9:2]")
    records = whole.sources["digits"].read()["image"][[*range(0, 40, 7), *range(40, 49, 2)]]
    np.testing.assert_array_equal(stepped.sources["digits"].read()["image"], records)
    assert stepped.fingerprint() != whole.fingerprint()
    with pytest.raises(ConfigError, match=r"^source\.a\.split = 'train\[::0\]'; 'train\[::0\]' is not a split. "):
        labels("train[::0]")
    with pytest.raises(
        ConfigError, match=r"^source 'a': split = 'tran\[:\]'; there is no split 'tran'\. Did you mean 't"
    ):
        labels("tran[::2]")


def test_records_that_are_chosen_and_drawn() -> None:
    mix = built("source=digits", "source.digits.where=label in [3, 4]", "source.digits.balance=label")
    source = mix.sources["digits"]
    assert set(source.read()["label"].tolist()) == {3, 4}
    assert (source.balance, source.selection, source.declared_num_classes) == (
        "label",
        ("where", "label in [3, 4]"),
        10,
    )
    weighed = built("source=digits", "source.digits.record_weight=label")
    assert len({each.fingerprint() for each in (mix, weighed, built("source=digits"))}) == 3
    (note,) = mix.notes_on_records()
    assert note.startswith("source 'digits': where label in [3, 4]: ")


@pytest.mark.parametrize("source", ["mnist+fashion", "digits"])
def test_a_data_dir_that_is_not_there_is_refused_before_anything_is_looked_for(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(url: str | None, wait_s: float) -> str:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("datamix.sources.tfds.prepare.ask", ask)
    missing = tmp_path / "missing"
    for overrides in ([], ["data.stand_in=true"]):
        with pytest.raises(DataError, match=rf"^data\.dir = '{missing}'; there is no such directory .*; name one that"):
            built(f"source={source}", f"data.dir={missing}", *overrides)
        assert not missing.exists()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="there is no such directory"):
        built(f"source={source}", f"data.dir={tmp_path / 'file'}")


def test_the_tilde_of_a_data_dir_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=rf"^data\.dir = '~/data'; .* \(looked for it at {tmp_path}/data\)"):
        built("source=digits", "data.dir=~/data")
    (tmp_path / "data").mkdir()
    assert built("source=digits", "data.dir=~/data").plan.names == ("digits",)


@pytest.mark.parametrize("job", ["preview", "plan", "graph", "bench", "train"])
def test_no_job_starts_without_its_data_dir(job: str, call_datamix: Callable[..., Any], tmp_path: Path) -> None:
    mistake = call_datamix(f"job={job}", "data.dir=missing").mistake
    assert mistake.startswith("DataError: data.dir = 'missing'; there is no such directory (looked for it at ")
    assert not (tmp_path / "missing").exists()


def test_a_dataset_with_splits_of_its_own_is_numbered_by_all_of_them(tmp_path: Path) -> None:
    label = {"train": np.arange(20) % 5, "test": np.arange(20) % 7, "few": np.zeros(20, int)}

    def own_splits(*, split: str = "train") -> dict[str, np.ndarray]:
        return {"image": np.zeros((20, 2, 2, 1), np.uint8), "label": label[split]}  # KeyError where there is none

    registry.register("source", "own_splits", own_splits)
    (tmp_path / "dataset").mkdir()
    for name in "ab":
        (tmp_path / "dataset" / f"{name}.yaml").write_text("_target_: own_splits\n")
    for split, test_split in (("train", "test"), ("test", "test"), ("few", "test"), ("few", "nowhere")):
        found = built("source=a+b", f"source.a.split={split}", f"source.a.test_split={test_split}", config_dir=tmp_path)
        assert found.completed().offset("b") == (5 if test_split == "nowhere" else 7)


@pytest.mark.usefixtures("permissions_count")
@pytest.mark.parametrize(
    "override",
    [
        "data.dir=shut/x",
        "source.digits.records=shut/x",
        "source=my_parquet source.my_parquet.path=shut/x",
        "source=my_text source.my_text.path=shut/x",
        "source=my_text source.my_text.path=.",
        "source=my_table source.my_table.path=shut/x",
    ],
)
def test_what_lies_in_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shut").mkdir(0)
    with pytest.raises(DataError, match=r"shut(/x)? cannot be read: Permission denied"):
        datamix.load("source=digits", *override.split(" "))
