"""`job=prepare`: what it keeps, alone and in parts, and what it says of what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datamix.sources.statistics import LeafStatistics

YAML = """
_target_: arrays
path: {path}
operators: [{{resize: {{height: 28, width: 28}}}}, {{to_float: {{largest: 16}}}}]
"""


@pytest.fixture
def prepare(call_datamix, shared_data, tmp_path):
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "tiny.yaml").write_text(YAML.format(path=shared_data / "digits8x8.npz"))

    def run(*arguments: str):
        return call_datamix("--config-dir=conf", "source=fashion+tiny", "data.cache=cache", *arguments)

    return run


def entries(tmp_path: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in (tmp_path / "cache").iterdir() if path.is_dir())


@pytest.mark.slow
def test_sources_and_test_splits_are_decoded_and_their_statistics_kept(prepare, tmp_path, shared_data, monkeypatch):
    ended = prepare("job=prepare")
    rows = {(row["source"], row["split"]): row for row in ended.report["prepared"]}
    assert {key: (row["records"], row["statistics"]) for key, row in rows.items()} == {
        ("fashion", "train"): (800, "are kept now"),
        ("fashion", "test"): (100, "are kept now"),
        ("tiny", "train"): (1797, "are kept now"),
    }
    assert rows["tiny", "train"]["bytes"] == 1797 * (64 + 8)
    assert entries(tmp_path) == ["fashion_mnist-test", "fashion_mnist-train", "tiny-statistics"]
    assert "Note: no test records are prepared: source 'tiny' has no split 'test'" in ended.out
    leaves = ended.report["sources"]["tiny"]["leaves"]
    pixels = np.load(shared_data / "digits8x8.npz")["image"]
    assert (leaves["image"]["min"], leaves["image"]["max"]) == (0, 16)
    assert leaves["image"]["mean"] == pytest.approx(pixels.mean())
    again = prepare("job=prepare").report
    assert {row["statistics"] for row in again["prepared"]} == {"were kept"}
    assert again["sources"] == ended.report["sources"]

    def refuse(_values):
        raise AssertionError("values are looked at again")

    monkeypatch.setattr(LeafStatistics, "of", refuse)
    shown = prepare("job=preview", "stop=all_exhausted").report
    assert shown["sources"]["tiny"]["leaves"] == leaves


def test_a_limit_has_statistics_of_its_own(prepare):
    whole = prepare("job=prepare").report["sources"]
    some = prepare("job=prepare", "source.tiny.limit=3", "source.fashion.limit=3").report["sources"]
    for name in whole:
        assert some[name]["leaves"]["label"]["mean"] != whole[name]["leaves"]["label"]["mean"]


def test_parts_of_a_multirun_leave_what_one_job_leaves(prepare, tmp_path):
    ended = prepare("-m", "job=prepare", "job.parts=3", "job.part=range(3)", "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    reports = [json.loads((tmp_path / "sweep" / str(i) / "report.json").read_bytes()) for i in range(3)]
    assert reports[0]["prepared"][-1]["statistics"] == "part 0 of 3"
    assert "source 'tiny': other parts are missing; the last one joins all." in reports[0]["notes"]
    assert entries(tmp_path) == ["fashion_mnist-test", "fashion_mnist-train", "tiny-statistics"]
    joined = reports[2]["sources"]["tiny"]["leaves"]
    assert prepare("job=prepare", "data.cache=other").report["sources"]["tiny"]["leaves"] == joined


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["job.parts=0"], "ConfigError: job.parts = 0; it is 1 or more."),
        (["job.parts=2", "job.part=2"], "ConfigError: job.part = 2; it is 0 or more, and less than job.parts, 2."),
        (["job.prats=2"], "ConfigError: job.prats: "),
        (["data.cache=file/below"], "ConfigError: data.cache = "),
    ],
)
def test_a_mistake_is_one_line(prepare, tmp_path, arguments, mistake):
    (tmp_path / "file").touch()
    assert prepare("job=prepare", *arguments).mistake.startswith(mistake)


def test_a_tokenizer_is_trained_on_the_mix_and_then_used(call_datamix, tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    for name, word in (("a", "morning"), ("b", "evening")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join([f"good {word} {i}" for i in range(40)]))
        settings = f"_target_: text\npath: {name}.txt\nlength: 32\npacking: pad\ntest_split: train\n"
        (tmp_path / "conf" / "dataset" / f"{name}.yaml").write_text(settings)
    command = ("--config-dir=conf", "source=a+b", "data.cache=cache", "batch.size=4")
    ended = call_datamix(*command, "job=prepare", "job.tokenizer=made/own.json", "job.vocab_size=270")
    assert ended.report["notes"][-1].startswith(
        "made/own.json is trained on this mix; source.NAME.tokenizer=made/own.json"
    )
    own = ("source.a.tokenizer=made/own.json", "source.b.tokenizer=made/own.json")
    trained, plain = call_datamix(*command, *own, "job=plan"), call_datamix(*command, "job=plan")
    assert trained.report["sources"]["a"]["tokens"] < plain.report["sources"]["a"]["tokens"]
    assert (
        "270 or more" not in call_datamix(*command, "job=prepare", "job.tokenizer=x.json", "job.vocab_size=9").mistake
    )
