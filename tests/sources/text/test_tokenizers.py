from __future__ import annotations

import json
import os

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.sources.text.tokenizers import open_tokenizer, train_tokenizer

TEXTS = ["the cat sat on the mat\n", "Zwölf Boxkämpfer jagen Viktor", "日本語の文", "", "a\tb  c"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("tokenizers")
    return train_tokenizer(TEXTS * 20, vocab_size=300, path=tmp_path_factory.mktemp("trained") / "deep" / "own.json")


def test_bytes_are_utf8():
    known = open_tokenizer("bytes")
    tokens, counts = known.encode(TEXTS)
    assert tokens.tolist() == [*"".join(TEXTS).encode()]
    assert counts.tolist() == [len(text.encode()) for text in TEXTS]
    assert known.decode(np.append(tokens[:3], 256)) == "the"
    assert (known.vocab_size, known.end_of_document) == (257, 256)
    assert known.token_bytes.tolist() == [1] * 256 + [0]


def test_a_trained_tokenizer_spells_any_text(trained):
    known = open_tokenizer(str(trained))
    tokens, counts = known.encode(TEXTS)
    assert counts.sum() == len(tokens) < len("".join(TEXTS).encode())
    parts = np.split(tokens, np.cumsum(counts)[:-1])
    assert [known.decode(part) for part in parts] == TEXTS
    assert [int(known.token_bytes[part].sum()) for part in parts] == [len(text.encode()) for text in TEXTS]
    assert known.token_bytes[known.end_of_document] == 0
    assert known.decode(np.array([known.end_of_document])) == ""
    assert (known.vocab_size, tokens.dtype) == (300, np.uint16)
    assert open_tokenizer(str(trained)).digest == known.digest


def test_the_librarys_truncation_and_padding_are_switched_off(trained, tmp_path):
    content = json.loads(trained.read_bytes())
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": "<|endoftext|>"}
    (tmp_path / "cutting.json").write_text(json.dumps(content | {"truncation": truncation, "padding": padding}))
    expected = open_tokenizer(str(trained)).encode(TEXTS)
    for mine, theirs in zip(open_tokenizer(str(tmp_path / "cutting.json")).encode(TEXTS), expected, strict=True):
        assert mine.tolist() == theirs.tolist()


def words(path, *special):
    """A tokenizer of a few words and special tokens."""
    library = pytest.importorskip("tokenizers")
    model = library.models.WordPiece({"[UNK]": 0, "▁yes": 1, "##no": 2, "<0xC3>": 3}, unk_token="[UNK]")
    tokenizer = library.Tokenizer(model)
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(["é"])
    tokenizer.save(str(path))
    return str(path)


def test_bytes_of_other_vocabularies(tmp_path):
    known = open_tokenizer(words(tmp_path / "w.json", "[PAD]", "</s>"))
    assert known.end_of_document == 5
    # ▁ is a blank, ## nothing, <0xC3> a byte; é was added, but is not special.
    assert known.token_bytes.tolist() == [5, 4, 2, 1, 0, 0, 2]
    named = open_tokenizer(words(tmp_path / "w.json", "[PAD]", "</s>"), "[PAD]")
    assert named.end_of_document == 4
    assert named.digest != known.digest


def test_bytes_of_words_that_say_where_they_end(tmp_path):
    library = pytest.importorskip("tokenizers")
    vocabulary = {"é</w>": 0, "é": 1, "##": 2, "</w>": 3, "</s>": 4}
    library.Tokenizer(library.models.BPE(vocabulary, [], end_of_word_suffix="</w>")).save(str(tmp_path / "w.json"))
    # What ends a word is read as a blank, and ## goes on with a word only where the file says so.
    assert open_tokenizer(str(tmp_path / "w.json")).token_bytes.tolist() == [3, 2, 2, 1, 0]


def test_mistakes_say_how_to_mend_them(tmp_path, trained):
    path = words(tmp_path / "endless.json", "[PAD]")
    message = (
        r"end_of_document: .*endless\.json has none of the tokens .*end a document \(<\|endoftext\|>, .*'\[PAD\]'\.$"
    )
    with pytest.raises(ConfigError, match=message):
        open_tokenizer(path)
    with pytest.raises(
        ConfigError, match=r"end_of_document = '\[PAT\]'; .* has no such token\. Did you mean '\[PAD\]'"
    ):
        open_tokenizer(path, "[PAT]")
    assert open_tokenizer(path, "[PAD]").end_of_document == 4
    library = pytest.importorskip("tokenizers")
    library.Tokenizer(library.models.BPE()).save(str(tmp_path / "empty.json"))
    with pytest.raises(ConfigError, match=r"empty\.json has none of the tokens that usually end a document"):
        open_tokenizer(str(tmp_path / "empty.json"))
    with pytest.raises(ConfigError, match=r"end_of_document: token 256 ends a document of bytes; leave it out\."):
        open_tokenizer("bytes", "x")
    with pytest.raises(
        DataError, match=r"bites cannot be read \(No such file.*\); tokenizer is bytes, or the path of a"
    ):
        open_tokenizer("bites")
    (tmp_path / "broken.json").write_bytes(trained.read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken\.json is no tokenizer\.json: "):
        open_tokenizer(str(tmp_path / "broken.json"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other\.json is no tokenizer\.json: "):
        open_tokenizer(str(tmp_path / "other.json"))
    with pytest.raises(
        ConfigError, match=r"vocab_size = 256; it is 257 or more: every byte, and the end of a document"
    ):
        train_tokenizer([], vocab_size=256, path=tmp_path / "x.json")


def test_a_pipe_is_no_tokenizer(tmp_path):
    pytest.importorskip("tokenizers")
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(
        DataError, match=r"tokenizer\.json cannot be read \(it is no regular file\); tokenizer is bytes, or"
    ):
        open_tokenizer(str(tmp_path / "tokenizer.json"))
