from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamix.errors import ConfigError, DataError
from datamix.sources.text.source import Text, Tokens
from datamix.testing import check_source

CHECK = settings(derandomize=True, deadline=None, max_examples=30)


def taken(source, indices=None, leaves=None):
    indices = np.arange(source.num_records) if indices is None else np.asarray(indices)
    spec = {leaf: source.spec[leaf] for leaf in leaves or source.spec}
    out = {leaf: np.full((len(indices), *part.shape), 77, part.dtype) for leaf, part in spec.items()}
    source.take(indices, out)
    return out


def segments(out):
    """The tokens of each segment, row by row, checked against positions and num_tokens."""
    found = []
    for tokens, ids, positions, count in zip(*(out[leaf] for leaf in LEAVES), strict=True):
        assert count == (ids > 0).sum()
        assert not tokens[ids == 0].any()
        assert not positions[ids == 0].any()
        numbers = [*dict.fromkeys(ids[ids > 0].tolist())]
        assert numbers == [*range(1, len(numbers) + 1)]
        assert ids.tolist() == sorted(ids[:count].tolist()) + [0] * (len(ids) - count)
        for number in numbers:
            assert positions[ids == number].tolist() == [*range((ids == number).sum())]
            found.append(tokens[ids == number].tolist())
    return found


LEAVES = ("tokens", "segment_ids", "positions", "num_tokens")


@pytest.fixture(scope="module")
def token_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


def of_documents(folder, files, **settings):
    """A source of documents: in each file, some documents, each a list of tokens."""
    paths = []
    for i, documents in enumerate(files):
        ends = np.cumsum([0, *map(len, documents)])
        np.save(folder / f"{i}.npy", np.array([token for each in documents for token in each], np.uint16))
        np.save(folder / f"{i}.ends.npy", ends)
        paths.append(str(folder / f"{i}.npy"))
    offsets = [path.replace(".npy", ".ends.npy") for path in paths]
    return Tokens(path=paths, offsets=offsets, cache_dir=str(folder), **settings)


@CHECK
@given(
    sizes=st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=30), min_size=1, max_size=3),
    length=st.sampled_from([1, 7, 64, 300]),
    packing=st.sampled_from(["chunk", "best_fit", "pad"]),
    seed=st.integers(0, 9),
)
def test_records_are_the_documents(token_folder, sizes, length, packing, seed):
    draw = np.random.default_rng(seed)
    files = [[draw.integers(1, 2**16, size).tolist() for size in of_file] for of_file in sizes]
    documents = [document for of_file in files for document in of_file if document]
    if not documents:
        return
    source = of_documents(token_folder, files, length=length, packing=packing)
    out = taken(source)
    pieces = segments(out)
    assert out["num_tokens"].tolist() == source.lengths().tolist()
    if packing == "chunk":
        stream = [token for document in documents for token in document]
        assert [token for piece in pieces for token in piece] == stream
        assert source.num_records == -(-len(stream) // length)
        assert (out["num_tokens"][:-1] == length).all()
    else:
        cut = [d[i : i + length] for d in documents for i in range(0, len(d), length)]
        assert sorted(map(tuple, pieces)) == sorted(map(tuple, cut))
        assert packing == "best_fit" or pieces == cut
    some = draw.integers(0, source.num_records, 7)
    for leaves in (None, ("tokens",), ("positions",), ("segment_ids", "num_tokens")):
        again = taken(source, some, leaves)
        assert all(np.array_equal(values, out[leaf][some]) for leaf, values in again.items())


def test_many_tokens_are_handed_out_by_several_threads_at_once(tmp_path):
    draw = np.random.default_rng(0)
    files = [[draw.integers(1, 99, size).tolist() for size in draw.integers(1, 3000, 150)]]
    source = of_documents(tmp_path, files, length=512, packing="best_fit")
    indices = draw.integers(0, source.num_records, 2000)  # more tokens than are handed out at a time
    expected = {leaf: values[indices] for leaf, values in taken(source).items()}
    out = {leaf: np.empty_like(values) for leaf, values in expected.items()}
    parts = [slice(start, start + 100) for start in range(0, 2000, 100)]
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda part: source.take(indices[part], {k: v[part] for k, v in out.items()}), parts)]
    assert all(np.array_equal(out[leaf], expected[leaf]) for leaf in out)
    check_source(source)


def test_completions_are_told_from_prompts(tmp_path):
    lines = [
        '{"prompt": "ab", "completion": "cde"}',
        '{"prompt": "", "completion": "f"}',
        '{"prompt": "gh", "completion": ""}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    marks = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 1, "f": 1, "g": 0, "h": 0, chr(256): 1, chr(0): 0}
    for packing, length in (("chunk", 4), ("best_fit", 4), ("pad", 8), ("chunk", 100)):
        out = taken(Text(path=str(tmp_path), length=length, packing=packing, cache_dir=str(tmp_path)))
        assert out["loss_mask"].dtype == bool
        expected = [[marks[chr(token)] for token in row] for row in out["tokens"]]
        assert out["loss_mask"].astype(int).tolist() == expected


def test_leaves_can_be_chosen(tmp_path):
    source = of_documents(tmp_path, [[[1, 2], [3]]], length=2, leaves=["tokens"])
    assert {leaf: values.tolist() for leaf, values in taken(source).items()} == {"tokens": [[1, 2], [3, 0]]}
    assert str(source.spec["tokens"]) == "int32 [2]"
    with pytest.raises(
        ConfigError, match=r"leaves: there is no leaf 'token'\. Did you mean 'tokens'\? Known: num_tokens"
    ):
        _ = of_documents(tmp_path, [[[1]]], length=2, leaves=["token"]).spec


def test_a_split_takes_documents(tmp_path):
    texts = ["aa", "bbbb", "cc", "dd"]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    (tmp_path / "b.jsonl").write_text('{"text": "e"}')
    settings = {"path": {"train": str(tmp_path / "a.txt"), "test": str(tmp_path / "b.jsonl")}, "length": 99}

    def text(split):
        source = Text(**settings, split=split, cache_dir=str(tmp_path / "cache"))
        return source.decode(taken(source)["tokens"][0][: source.lengths()[0]])

    assert text("train") == "aabbbbccdd"
    assert text("train[:50%]") == "aabbbb"
    assert [*(tmp_path / "cache").glob("tokens-b.jsonl*")] == []  # what is not asked for is not read
    assert text("test") == "e"
    assert text("train[3:]+test+train[:1]") == "ddeaa"
    assert text("all") == "aabbbbccdde"
    assert text("train[1::2]+all[::4]") == "bbbbddaae"
    with pytest.raises(ConfigError, match=r"there is no split 'tset'\. Did you mean 'test'"):
        text("tset")


def test_places_name_files_and_documents(tmp_path):
    source = of_documents(tmp_path, [[[1], [2], [3], [4]], [[5]]], length=4)
    first, second = tmp_path / "0.npy", tmp_path / "1.npy"
    assert source.places(np.arange(1)) == [f"{first}: document 0, 1, 2, …"]
    source = of_documents(tmp_path, [[[1], [2]], [[4], [5]]], length=3)
    assert source.places(np.arange(2)) == [f"{first}: document 0, 1; {second}: document 0", f"{second}: document 1"]


def test_what_is_left_out_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghij\nk\n")
    notes = Text(path=str(tmp_path), length=4, packing="pad", long="drop", cache_dir=str(tmp_path / ".c")).notes
    assert notes == (
        "a.txt has no blank line, so that each of its lines is a document; documents=line says so as well.",
        "1 of 2 documents are left out: 11 of 13 tokens; long=split keeps them.",
    )
    settings = {
        "path": str(tmp_path),
        "length": 4,
        "packing": "pad",
        "documents": "line",
        "cache_dir": str(tmp_path / ".c"),
    }
    assert Text(**settings, long="truncate").notes == (
        "long documents are cut off: 7 of 13 tokens; long=split keeps them.",
    )
    assert Text(**settings).notes == ()
    assert of_documents(tmp_path, [[[1], [], []]], length=2).notes == (
        "2 empty documents have no token, and are in no record.",
    )
    assert of_documents(tmp_path, [[[1], []]], length=2).notes == (
        "1 empty document has no token, and is in no record.",
    )


def test_text_and_vocabulary_where_a_tokenizer_is_known(tmp_path):
    source = of_documents(tmp_path, [[[7, 300, 2]]], length=2)
    assert (source.decode(np.array([7, 8])), source.vocab_size, source.tokenizer_digest) == ("7 8", 301, None)
    with pytest.raises(ConfigError, match="tokenizer is missing; only what made the tokens knows their text"):
        _ = source.token_bytes
    known = of_documents(tmp_path, [[[104, 105, 256]]], length=2, tokenizer="bytes")
    assert (known.decode(np.array([104, 105, 256])), known.vocab_size, known.token_bytes.sum()) == ("hi", 257, 256)


def test_numbers_that_are_no_tokens_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, 2**31, 3], np.uint32))
    source = Tokens(path=str(tmp_path / "a.npy"), end_of_document=3, length=2, cache_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"a\.npy holds 2147483648, which is no token\."):
        taken(source)
    np.save(tmp_path / "a.npy", np.array([1, -1, 3], np.int64))
    source = Tokens(path=str(tmp_path / "a.npy"), end_of_document=3, length=3, cache_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"a\.npy holds -1, which is no token\."):
        taken(source, leaves=["tokens"])


def test_long_files_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datamix.sources.text.token_files.SHOWN_BYTES", 1)
    (tmp_path / "a.txt").write_text("a\n\nb")
    for err in ("tokenising a.txt: 4 bytes …\n", ""):  # the second time out of the cache
        _ = Text(path=str(tmp_path / "a.txt"), length=4, cache_dir=str(tmp_path)).num_records
        assert capsys.readouterr().err == err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packing": "bestfit"}, r"packing = 'bestfit'\. Did you mean 'best_fit'"),
        ({"long": "cut"}, r"long = 'cut'. Known: drop, split, truncate\."),
        ({"length": 0}, r"length = 0; it is from 1 to 16,777,216\."),
    ],
)
def test_mistakes_say_how_to_mend_them(settings, message):
    with pytest.raises(ConfigError, match=message):
        Text(path="a.txt", **{"length": 8} | settings)
