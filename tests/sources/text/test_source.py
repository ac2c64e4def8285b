from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

import datamix
from datamix.builder.views import holding_out
from datamix.errors import ConfigError, DataError, SpecError
from datamix.sources.text.source import Text, Tokens
from datamix.sources.text.tokenizers import train_tokenizer
from datamix.testing import check_resume, check_source

CORPORA = {
    "code": "code.{}.parquet",
    "docs": "docs.{}.jsonl.gz",
    "jargon": "jargon.{}.jsonl",
    "scripture": "scripture.{}.txt",
}


@pytest.fixture(scope="module")
def corpora(shared_data, tmp_path_factory):
    """Each corpus of real text, packed."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def source(name, split="train", **settings):
        if name == "code":
            pytest.importorskip("pyarrow")
        path = shared_data / "text" / CORPORA[name].format(split)
        return Text(path=str(path), cache_dir=cache, source_name=name, **{"length": 512} | settings)

    return source


def raw(shared_data, name):
    """The documents, read by other means."""
    path = shared_data / "text" / CORPORA[name].format("train")
    if name == "code":
        import pandas as pd

        return pd.read_parquet(path)["text"].tolist()
    if name == "scripture":
        return [each for each in path.read_text().strip().split("\n\n") if each]
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line)["text"] for line in content.decode().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["chunk", "best_fit"])
@pytest.mark.parametrize("name", CORPORA)
def test_real_text_of_four_formats_is_in_records_to_the_byte(corpora, shared_data, name, packing):
    source = corpora(name, packing=packing)
    assert source.notes == ()
    expected = sorted(each.rstrip("\n") + "\n" for each in raw(shared_data, name))
    out = {leaf: np.empty((source.num_records, *part.shape), part.dtype) for leaf, part in source.spec.items()}
    source.take(np.arange(source.num_records), out)
    assert source.facts.padding < 0.01
    if packing == "chunk":
        text = source.decode(out["tokens"].ravel()[: source.facts.tokens])
        stream = "".join(each for each in raw(shared_data, name))
        assert text == stream
    assert out["num_tokens"].sum() == sum(len(each.encode()) + 1 for each in raw(shared_data, name))
    counts = np.bincount(out["tokens"][out["segment_ids"] > 0], minlength=257)
    assert counts[256] == len(expected)
    assert counts[:256].tolist() == np.bincount([*"".join(raw(shared_data, name)).encode()], minlength=256).tolist()
    check_source(corpora(name, packing=packing, split="train", length=64))


def test_a_mix_of_three_follows_the_ratio_in_tokens(corpora):
    sources = {name: corpora(name, packing="best_fit", length=256) for name in ("docs", "jargon", "scripture")}
    pipeline = datamix.mix(
        sources, ratio="3:1:2", unit="tokens", stop="forever", batch_size=32, operators=["next_token_targets"]
    )
    batches = [pipeline[step] for step in range(100)]
    source_id, count = (np.concatenate([batch[leaf] for batch in batches]) for leaf in ("source_id", "num_tokens"))
    sums = np.cumsum(np.eye(3)[source_id] * count[:, None], axis=0)
    off = np.abs(sums - sums.sum(axis=1, keepdims=True) * np.array([3, 1, 2]) / 6)
    assert off.max() <= 256
    assert all(not batch["loss_mask"][batch["segment_ids"] == 0].any() for batch in batches)
    position = 32 * 100
    assert pipeline.plan.tokens(pipeline.plan.counts(position)) == sums[-1].astype(int).tolist()
    check_resume(pipeline, 3)
    far = pipeline[10**9]
    assert far["tokens"].shape == (32, 256)


@pytest.mark.slow
def test_a_mix_ends_with_the_record_that_makes_so_many_tokens(corpora):
    sources = {name: corpora(name, packing="pad", length=128) for name in ("jargon", "scripture")}
    for settings in ({}, {"unit": "tokens"}, {"order": "random"}, {"stop": "forever", "weights": {"jargon": 30}}):
        plan = datamix.mix(sources, tokens=100_000, **settings).plan
        taken = plan.take(0, plan.length)
        lengths = np.empty(plan.length, np.int64)
        for i, source in enumerate(sources.values()):
            lengths[taken.source == i] = source.lengths()[taken.record[taken.source == i]]
        assert lengths[:-1].sum() < 100_000 <= lengths.sum()
        assert sum(plan.tokens(plan.counts(plan.length))) == lengths.sum()
    assert datamix.mix(sources, tokens=10**12).plan.length == datamix.mix(sources).plan.length
    assert datamix.mix(sources, tokens=10**15, stop="forever").plan.length > 10**12
    drawn = datamix.mix(sources, tokens=100_000, order="random", replacement=True).plan
    assert sum(drawn.tokens(drawn.counts(drawn.length))) == pytest.approx(100_000, rel=0.01)


def test_tokens_are_counted_where_records_say_their_number():
    records = {"x": np.zeros((9, 2), np.float32), "num_tokens": np.arange(1, 10)}
    plan = datamix.mix({"a": records}, tokens=6, shuffle="none", batch_size=2).plan
    assert plan.length == 3
    assert datamix.mix({"a": records}, unit="tokens", batch_size=2).plan.amounts(9) == [45]
    lacking = {"x": np.zeros((9, 2), np.float32)}
    with pytest.raises(SpecError, match=r"^tokens = \d+; source 'a' has no leaf 'tokens' with one number a record"):
        datamix.mix({"a": lacking}, tokens=6)


@pytest.mark.slow
def test_one_tokenizer_serves_a_mix(corpora, tmp_path):
    pytest.importorskip("tokenizers")
    path = str(train_tokenizer(["to be or not to be"], vocab_size=260, path=tmp_path / "own.json"))
    sources = {"jargon": corpora("jargon"), "scripture": corpora("scripture", tokenizer=path)}
    with pytest.raises(
        ConfigError,
        match=r"tokenizer\['scripture'\]: it is another tokenizer than that of jargon, and a mix has one\. Open both",
    ):
        datamix.mix(sources)
    both = {name: corpora(name, tokenizer=path) for name in sources}
    assert datamix.mix(both)[0]["tokens"].max() < 260
    assert datamix.mix(both).fingerprint != datamix.mix({name: corpora(name) for name in sources}).fingerprint


def test_trained_on_real_text_it_spells_all_of_it_in_fewer_tokens(corpora, shared_data, tmp_path):
    pytest.importorskip("tokenizers")
    path = str(train_tokenizer(raw(shared_data, "jargon"), vocab_size=2000, path=tmp_path / "own.json"))
    source = corpora("jargon", tokenizer=path)
    out = {"tokens": np.empty((source.num_records, 512), np.int32)}
    source.take(np.arange(source.num_records), out)
    tokens = out["tokens"].ravel()[: source.facts.tokens]
    assert source.decode(tokens) == "".join(raw(shared_data, "jargon"))
    num_bytes = len("".join(raw(shared_data, "jargon")).encode())
    assert source.token_bytes[tokens].sum() == num_bytes
    assert source.facts.tokens < num_bytes / 2.5


def test_tokens_of_several_files_and_splits(tmp_path):
    for split, documents in (("train", [[1, 2, 0], [3, 0]]), ("val", [[4, 0]])):
        np.array([token for each in documents for token in each], np.uint16).tofile(tmp_path / f"{split}.bin")
    settings = {"dtype": "uint16", "end_of_document": 0, "length": 3, "cache_dir": str(tmp_path / "cache")}
    paths = {"train": str(tmp_path / "train.bin"), "test": str(tmp_path / "val.bin")}
    out = {"tokens": np.empty((2, 3), np.int32)}
    Tokens(path=paths, **settings).take(np.arange(2), out)
    assert out["tokens"].tolist() == [[1, 2, 0], [3, 0, 0]]
    assert Tokens(path=paths, split="test", **settings).num_records == 1
    with pytest.raises(
        ConfigError, match=r"offsets = 'x\.npy'; it names 1 files for 2 files of tokens; it is one for each"
    ):
        _ = Tokens(path=paths, offsets="x.npy", length=3).num_records
    with pytest.raises(DataError, match=r"path = '.*nope\.bin'; there is no such file or folder"):
        _ = Tokens(path=str(tmp_path / "nope.bin"), **settings).num_records


def test_documents_of_text_are_divided_by_lines_or_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\n\nc\n")
    settings = {"path": str(tmp_path / "a.txt"), "length": 8, "cache_dir": str(tmp_path)}
    assert (Text(**settings).facts.documents, Text(**settings, documents="line").facts.documents) == (2, 3)
    with pytest.raises(ConfigError, match=r"documents = 'lines'\. Did you mean 'line'\? Known: blank_line, line\."):
        _ = Text(**settings, documents="lines").num_records


@pytest.mark.parametrize("packing", ["chunk", "best_fit"])
def test_what_is_advised_to_hold_out_is_whole_documents(tmp_path, packing):
    documents = [chr(97 + i) * (5 + i) for i in range(20)]  # each of a letter of its own
    (tmp_path / "a.txt").write_text("\n\n".join(documents))
    settings = {"path": str(tmp_path / "a.txt"), "length": 16, "packing": packing, "cache": str(tmp_path / "cache")}
    advised = dict(each.split("=", 1) for each in holding_out("a").split())
    mix = ["source=my_text@a", "batch.size=1", "stop=exhaust_once", f"data.cache={settings.pop('cache')}"]
    mix += [f"source.a.{key}={value}" for key, value in settings.items()] + [f"{k}={v}" for k, v in advised.items()]
    pipeline = datamix.load(*mix)
    kept, tested = (
        sorted(chr(token) for batch in each for token in batch["tokens"].ravel() if 97 <= token < 256)
        for each in (pipeline, pipeline.view())
    )
    assert tested == [*"".join(documents[::4])]
    assert kept == [*"".join(each for number, each in enumerate(documents) if number % 4)]


def dataset(folder, name, **settings):
    (folder / "conf" / "dataset").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "dataset" / f"{name}.yaml").write_text(json.dumps({"_target_": "text", "length": 64} | settings))


def test_from_the_command_line(call_datamix, tmp_path):
    for name, text in (("modules", "def f():\n    return 1\n\nx = 2"), ("verse", "tiger tiger\n\nburning bright" * 40)):
        (tmp_path / f"{name}.txt").write_text(text)
        dataset(tmp_path, name, path=f"{name}.txt", packing="pad", long="drop")
    command = ("--config-dir=conf", "source=modules+verse", "stop=forever", "data.cache=cache", "batch.size=4")
    ended = call_datamix(*command, "job=plan", "stop.tokens=500")
    counted = {name: row["tokens"] for name, row in ended.report["sources"].items()}
    assert 420 < sum(counted.values()) <= 500
    assert ended.report["plan"]["packing"]["verse"] == {
        "documents": 41, "tokens": 1041, "lost": 0, "split": 0, "dropped": 0, "padding": 1 - 1041 / (41 * 64),
    }  # fmt: skip
    ended = call_datamix(*command, "mix.unit=tokens", "operators=[next_token_targets]")
    assert "  1 │ def f(): return 1" in ended.out or "  1 │ x = 2" in ended.out
    assert ended.report["figure"] == "tokens.png"
    assert ended.report["batch"]["targets"] == {"shape": [4, 64], "dtype": "int32"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source.a.packing=bestfit", "source 'a': packing = 'bestfit'. Did you mean 'best_fit'?"),
        ("source.a.pakcing=pad", "source.a.pakcing: there is no key 'pakcing' in source.a. Did you mean 'packing'?"),
        ("source.a.length=many", "source.a.length = 'many'; it is a whole number."),
        ("source.a.path=b.txt", "there is no such file or folder (looked for it at"),
        ("source.a.split=test", "there is no split 'test'. Known: train."),
        ("source.a.tokenizer=no.json", "no.json cannot be read (No such file or directory)"),
        ("stop.tokens=0", "stop.tokens = 0; it is 1 or more."),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(call_datamix, tmp_path, override, message):
    (tmp_path / "a.txt").write_text("a\n\nb")
    dataset(tmp_path, "a", path="a.txt")
    ended = call_datamix("--config-dir=conf", "source=a", "job=plan", "data.cache=cache", override)
    assert message in ended.mistake


def test_stop_tokens_needs_tokens(call_datamix):
    assert (
        "stop.tokens = 9; source 'digits' has no leaf 'tokens'"
        in call_datamix("source=digits", "stop.tokens=9").mistake
    )


def test_files_without_a_document_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n")
    (tmp_path / "b.bin").touch()
    text = Text(path=str(tmp_path / "a.txt"), length=4, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"/a\.txt holds no document\.$"):
        _ = text.num_records
    tokens = {"dtype": "uint16", "end_of_document": 0, "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(DataError, match=r"/b\.bin holds no document\.$"):
        _ = Tokens(path=str(tmp_path / "b.bin"), length=4, **tokens).num_records
    (tmp_path / "c.txt").write_text("abc")
    both = Text(path=str(tmp_path / "*.txt"), length=4, cache_dir=str(tmp_path / "cache"))
    assert both.num_records == 1  # an empty file beside others is none to mind
