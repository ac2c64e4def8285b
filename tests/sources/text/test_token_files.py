from __future__ import annotations

import struct
from contextlib import nullcontext

import numpy as np
import pytest

from datamix.errors import ConfigError, DataError
from datamix.sources.text import token_files
from datamix.sources.text.token_files import token_file, tokenised
from datamix.sources.text.tokenizers import open_tokenizer

STREAM = np.array([5, 6, 0, 7, 0, 0, 8], np.uint16)


@pytest.fixture
def small_parts(monkeypatch):
    """Batches of a few documents, and parts of a few batches."""
    monkeypatch.setattr("datamix.sources.text.reading.BATCH_CHARACTERS", 20)
    monkeypatch.setattr(token_files, "PART_CHARACTERS", 50)


def tokenise(path, cache, documents="blank_line"):
    return tokenised(path, open_tokenizer("bytes"), "text", documents, cache)


def whole(files):
    tokens = np.concatenate([file.tokens for file in files])
    starts = np.cumsum([0, *(len(file.tokens) for file in files)])
    ends = np.concatenate([file.ends + start for file, start in zip(files, starts, strict=False)])
    return tokens, ends


def test_documents_end_with_their_token_and_empty_ones_have_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ab"}\n{"text": ""}\n{"text": "c"}\n')
    (file,) = tokenise(path, tmp_path)
    assert file.tokens.tolist() == [97, 98, 256, 99, 256]
    assert file.ends.tolist() == [3, 3, 5]
    assert (file.prompts, file.note, file.first) == (None, "", 0)


def test_prompts_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "1+1=", "completion": "2"}\n{"prompt": "", "completion": "x"}\n')
    (file,) = tokenise(path, tmp_path)
    assert (file.ends.tolist(), file.prompts.tolist()) == ([6, 8], [4, 0])


@pytest.mark.parametrize("name", ["a.txt", "A.TXT"])
def test_a_file_without_blank_lines_is_read_by_lines_and_says_so(tmp_path, name):
    path = tmp_path / name
    path.write_text("ab\nc\n")
    (file,) = tokenise(path, tmp_path)
    assert file.ends.tolist() == [3, 5]
    note = "has no blank line, so that each of its lines is a document; documents=line says so as well."
    assert file.note == f"{name} {note}"
    (again,) = tokenise(path, tmp_path)  # out of the cache
    assert again.note == file.note
    assert tokenise(path, tmp_path, documents="line")[0].note == ""


@pytest.mark.parametrize(("name", "content"), [("a.txt", "\n\n"), ("b.txt", ""), ("a.jsonl", "")])
def test_a_file_without_documents_has_no_tokens_and_says_so(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for _ in range(2):
        (file,) = tokenise(tmp_path / name, tmp_path)
        assert (len(file.tokens), len(file.ends), file.note) == (0, 0, f"{name} holds no document.")


@pytest.mark.usefixtures("small_parts")
def test_what_is_cut_short_goes_on_where_it_was(tmp_path, monkeypatch):
    texts = [f"document {i}" for i in range(40)]
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(texts))
    cache, told = tmp_path / "cache", []
    monkeypatch.setattr(token_files, "SHOWN_BYTES", 0)
    monkeypatch.setattr(token_files, "progress_bar", lambda *_, **__: nullcontext(advance))
    expected = [*"".join(f"{text}\0" for text in texts).replace("\0", "\u0100")]

    def advance(count):
        told.append(count)
        if 300 < sum(told) < 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenise(path, cache)
    made = {entry: entry.stat().st_mtime_ns for entry in cache.glob("tokens-*/meta.json")}
    assert 2 <= len(made) < 8
    told[:] = [400]
    files = tokenise(path, cache)
    assert sum(told) == 400 + path.stat().st_size
    assert len(files) > len(made)
    assert {entry: entry.stat().st_mtime_ns for entry in made} == made
    tokens, ends = whole(files)
    assert [chr(token) for token in tokens] == expected
    assert len(ends) == 40
    assert [file.first for file in files] == np.cumsum([0, *(len(file.ends) for file in files)])[:-1].tolist()
    monkeypatch.setattr(token_files, "batches", lambda *_, **__: pytest.fail("it is read again"))
    assert whole(tokenise(path, cache))[0].tolist() == tokens.tolist()


@pytest.mark.usefixtures("small_parts")
def test_a_changed_file_or_a_lost_part_is_made_again(tmp_path):
    path, cache = tmp_path / "a.txt", tmp_path / "cache"
    path.write_text("\n\n".join("abcdefghij" * 2 for _ in range(20)))
    before = whole(tokenise(path, cache))[0].tolist()
    (lost,) = cache.glob("tokens-a.txt-2-*/meta.json")
    lost.unlink()
    assert whole(tokenise(path, cache))[0].tolist() == before
    path.write_text("new\n\nother text")
    assert whole(tokenise(path, cache))[0].tolist() == [*b"new", 256, *b"other text", 256]


def made_elsewhere(path, cache, **settings):
    return token_file(path, **{"dtype": None, "end_of_document": None, "offsets": None, "cache_dir": cache} | settings)


def test_tokens_with_an_end_of_document(tmp_path):
    np.save(tmp_path / "a.npy", STREAM)
    STREAM.tofile(tmp_path / "a.bin")
    for path, settings in (("a.npy", {}), ("a.bin", {"dtype": "uint16"})):
        for _ in range(2):  # the second time out of the cache
            file = made_elsewhere(tmp_path / path, tmp_path / "cache", end_of_document=0, **settings)
            assert file.tokens.tolist() == STREAM.tolist()
            assert file.ends.tolist() == [3, 5, 6, 7]
    STREAM[:6].tofile(tmp_path / "a.bin")
    file = made_elsewhere(tmp_path / "a.bin", tmp_path / "cache", end_of_document=0, dtype="uint16")
    assert file.ends.tolist() == [3, 5, 6]
    assert not file.note
    file = made_elsewhere(tmp_path / "a.npy", tmp_path, end_of_document=99)
    assert file.ends.tolist() == [7]
    assert file.note == "a.npy does not hold token 99, so that it is one document."


@pytest.mark.parametrize("offsets", [[0, 3, 5, 7], [0, 3, 5], [3, 5, 7]])
def test_tokens_with_offsets(tmp_path, offsets):
    np.save(tmp_path / "a.npy", STREAM)
    np.save(tmp_path / "ends.npy", np.array(offsets, np.uint64))
    assert made_elsewhere(tmp_path / "a.npy", tmp_path, offsets=tmp_path / "ends.npy").ends.tolist() == [3, 5, 7]


def megatron(tmp_path, *, sizes=(2, 1, 1, 2, 1), bounds=(0, 1, 3, 5), code=8, version=1):
    STREAM.tofile(tmp_path / "m.bin")
    sizes = np.array(sizes, np.int32)
    pointers = (np.cumsum(sizes) - sizes).astype(np.int64) * 2
    header = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", version, code, len(sizes), len(bounds))
    content = header + sizes.tobytes() + pointers.tobytes() + np.array(bounds, np.int64).tobytes()
    (tmp_path / "m.idx").write_bytes(content)
    return tmp_path / "m.bin"


def test_megatrons_files_say_all_themselves(tmp_path):
    file = made_elsewhere(megatron(tmp_path), tmp_path)
    assert (file.tokens.tolist(), file.ends.tolist()) == (STREAM.tolist(), [2, 4, 7])
    assert made_elsewhere(megatron(tmp_path, bounds=(0, 1)), tmp_path).ends.tolist() == [2, 7]  # no token is lost


@pytest.mark.parametrize("dtype", ["int32", "unt16"])
def test_a_dtype_that_megatrons_index_contradicts(tmp_path, dtype):
    path = megatron(tmp_path)
    with pytest.raises(ConfigError, match=rf"^dtype = '{dtype}'; \S+m\.idx says uint16; leave it out\.$"):
        made_elsewhere(path, tmp_path, dtype=dtype)
    for same in ("uint16", "<u2"):
        assert made_elsewhere(path, tmp_path, dtype=same).tokens.tolist() == STREAM.tolist()


@pytest.mark.parametrize("stored", ["<u2", ">u2"])
def test_a_dtype_that_says_what_the_file_says(tmp_path, stored):
    np.save(tmp_path / "a.npy", STREAM.astype(stored))
    for same in ("uint16", stored):
        file = made_elsewhere(tmp_path / "a.npy", tmp_path, dtype=same, end_of_document=0)
        assert file.tokens.tolist() == STREAM.tolist()


def test_a_megatron_file_without_its_index(tmp_path):
    (path := megatron(tmp_path)).with_suffix(".idx").rename(tmp_path / "m.moved")
    message = (
        r"dtype is missing; m\.bin does not say .*, and no m\.idx lies beside it, where Megatron's say it\. Known: "
    )
    with pytest.raises(ConfigError, match=message):
        made_elsewhere(path, tmp_path, end_of_document=0)
    with pytest.raises(
        ConfigError, match=r"where the documents in m\.bin end: .*; Megatron's say it in m\.idx, which is"
    ):
        made_elsewhere(path, tmp_path, dtype="uint16")
    (tmp_path / "m.moved").rename(tmp_path / "m.idx")
    assert made_elsewhere(path, tmp_path).tokens.tolist() == STREAM.tolist()


def test_an_empty_npy_file_is_named(tmp_path):
    (tmp_path / "a.npy").touch()
    for dtype in (None, "uint16"):
        with pytest.raises(DataError, match=r"a\.npy is empty, and no \.npy file\.$"):
            made_elsewhere(tmp_path / "a.npy", tmp_path, dtype=dtype, end_of_document=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (2, 2)}, r"m\.bin has 7 tokens, which are not those that m\.idx speaks of\."),
        ({"code": 6}, r"m\.idx is no index of Megatron's for tokens \(version 1, dtype 6\)\."),
        ({"version": 2}, r"m\.idx is no index of Megatron's for tokens \(version 2"),
        ({"bounds": (0, 9)}, r"m\.idx is damaged: a document ends after sequence 9 of 5\."),
    ],
)
def test_megatrons_damage(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        made_elsewhere(megatron(tmp_path, **settings), tmp_path)
    (tmp_path / "m.idx").write_bytes((tmp_path / "m.idx").read_bytes()[:40])
    with pytest.raises(DataError, match=r"m\.idx is no index of Megatron's, or cut off"):
        made_elsewhere(tmp_path / "m.bin", tmp_path)


@pytest.mark.parametrize(
    ("content", "settings", "kind", "message"),
    [
        (
            STREAM,
            {},
            ConfigError,
            r"end_of_document: say where the documents in a\.npy end: by end_of_document, a token",
        ),
        (
            STREAM,
            {"end_of_document": 0, "offsets": [0, 2]},
            ConfigError,
            r"^end_of_document = 0; where the documents in a\.npy end is said by offsets as well\. Leave one of both",
        ),
        (STREAM, {"dtype": "unt32", "end_of_document": 0}, ConfigError, r"dtype = 'unt32'; .* says uint16; leave it"),
        (STREAM, {"dtype": "uint32", "end_of_document": 0}, ConfigError, r"dtype = 'uint32'; .* says uint16; leave it"),
        (STREAM.astype(np.float32), {"end_of_document": 0}, DataError, r"is float32\[7\]; tokens are whole numbers"),
        (b"\x93NUMPY\x01", {"end_of_document": 0}, DataError, r"a\.npy cannot be read: "),
        (
            b"abc",
            {"end_of_document": 0},
            ConfigError,
            r"dtype is missing; a\.npy does not say of which dtype its tokens",
        ),
        (b"abc", {"end_of_document": 0, "dtype": "unt16"}, ConfigError, r"dtype = 'unt16'; .* Did you mean 'uint16'"),
        (
            b"abc",
            {"end_of_document": 0, "dtype": "uint16"},
            DataError,
            r"is cut off, or its tokens are no uint16: it has 3",
        ),
        (
            STREAM,
            {"offsets": [0, 9]},
            DataError,
            r"ends\.npy: its offsets do not ascend from 0 to the 7 tokens of a\.npy",
        ),
        (STREAM, {"offsets": [0.5]}, DataError, r"ends\.npy is float64\[1\]; offsets are whole numbers"),
    ],
)
def test_mistakes_say_how_to_mend_them(tmp_path, content, settings, kind, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    if "offsets" in settings:
        np.save(tmp_path / "ends.npy", np.array(settings["offsets"]))
        settings = settings | {"offsets": tmp_path / "ends.npy"}
    with pytest.raises(kind, match=message):
        made_elsewhere(path, tmp_path, **settings)


@pytest.mark.usefixtures("permissions_count")
@pytest.mark.parametrize("closed", ["m.idx", "m.bin"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, closed):
    path = megatron(tmp_path)
    (tmp_path / closed).chmod(0)
    with pytest.raises(DataError, match=rf"{closed} cannot be read: Permission denied"):
        made_elsewhere(path, tmp_path)
