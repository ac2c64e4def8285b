from __future__ import annotations

import gzip
import json

import pytest

from datamix.errors import ConfigError, DataError
from datamix.sources.text.reading import batches, splits_lines, text_files


def documents(path, *, column="text", by_line=False):
    return [document for _, batch in batches(path, column=column, by_line=by_line) for document in batch]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_paragraphs_or_lines_of_a_text_file(tmp_path, end):
    text = end.join(["\ufeffone", "two ", "", " ", "three", "", ""])
    path = write(tmp_path / "a.txt", text)
    assert documents(path) == [("one\ntwo ",), ("three",)]
    assert documents(path, by_line=True) == [("one",), ("two ",), ("three",)]
    assert not splits_lines(path)
    assert splits_lines(write(tmp_path / "b.txt", f"one{end}two{end}"))
    assert splits_lines(write(tmp_path / "b.txt", f"{end}one{end}two{end} {end}{end}"))  # which divides nothing
    assert documents(write(tmp_path / "c.txt", "")) == []


def test_lines_of_json_and_what_is_packed(tmp_path):
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(["eins\n", "", "zwölf"]))
    expected = [("eins\n",), ("",), ("zwölf",)]
    assert documents(write(tmp_path / "a.jsonl", lines + "\n")) == expected
    assert documents(write(tmp_path / "a.jsonl.gz", gzip.compress(lines.encode()))) == expected
    for name in ("a.txt.gz", "A.TXT.GZ"):
        assert documents(write(tmp_path / name, gzip.compress(b"a\n\nb"))) == [("a",), ("b",)]


def test_prompts_and_completions(tmp_path):
    pair = write(tmp_path / "a.jsonl", '{"completion": "4", "prompt": "2+2="}\n')
    assert documents(pair) == [("2+2=", "4")]
    assert documents(pair, column="prompt") == [("2+2=",)]


def test_tables(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": range(3000), "body": [f"text {i}" for i in range(3000)]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    expected = [(f"text {i}",) for i in range(3000)]
    assert documents(tmp_path / "a.parquet", column="body") == expected
    assert documents((tmp_path / "a.parquet").rename(tmp_path / "A.PARQUET"), column="body") == expected
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    assert documents(tmp_path / "a.arrow", column="body") == expected


def test_a_folder_of_hugging_faces(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {
        "train": datasets.Dataset.from_dict({"text": ["a", "b"]}),
        "test": datasets.Dataset.from_dict({"text": ["c"]}),
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "both"))
    parts["train"].save_to_disk(str(tmp_path / "one"))
    found = text_files(str(tmp_path / "both"))
    assert {split: [document for file in files for document in documents(file)] for split, files in found.items()} == {
        "train": [("a",), ("b",)],
        "test": [("c",)],
    }
    assert [documents(file) for file in text_files(str(tmp_path / "one"))["train"]] == [[("a",), ("b",)]]
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"state\.json does not say its files or splits: "):
        text_files(str(tmp_path / "one"))


def test_files_are_found_as_for_any_source(tmp_path):
    write(tmp_path / "a.txt", "a")
    write(tmp_path / "deep" / "b.jsonl.gz", b"")
    assert [path.name for path in text_files(str(tmp_path))["train"]] == ["a.txt", "b.jsonl.gz"]
    assert text_files({"x": str(tmp_path / "*.txt")}) == {"x": (tmp_path / "a.txt",)}


def test_a_file_is_read_some_documents_at_a_time_and_says_how_far(tmp_path):
    path = write(tmp_path / "a.txt", "\n\n".join(["x" * 1_500_000] * 5))
    parts = [*batches(path, column="text", by_line=False)]
    assert [len(part) for _, part in parts] == [3, 2]
    assert [position for position, _ in parts][-1] == path.stat().st_size


NULLS = '{"text": "a"}\n{"text": null}\n'


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        (
            "a.txt",
            b"one\n\ntwo\nth\xffree\n",
            DataError,
            r"a\.txt, line 4 is no UTF-8 \(byte 0xff\); convert it, as by ic",
        ),
        ("a.txt", b"\xff", DataError, r"a\.txt, line 1 is no UTF-8"),
        (
            "a.txt",
            "one".encode("utf-16"),
            DataError,
            r"a\.txt, line 1 is no UTF-8 .* iconv -f utf-16 -t utf-8",
        ),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), DataError, r"a\.jsonl, line 1 is no UTF-8 .* iconv -f utf-16"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', DataError, r"a\.jsonl, line 2 is no UTF-8 \(byte 0xff\)"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": ',
            DataError,
            r"a\.jsonl, line 2 is no JSON: Input data was truncated; each line is a whole object\.",
        ),
        (
            "a.jsonl",
            '{"text": "\\ud800"}',
            DataError,
            r"line 1 is no JSON: .*; \\ud800 to \\udfff come in pairs\.",
        ),
        ("a.jsonl", "[1]", DataError, r'line 1 is no JSON object; each line is one, such as \{"text": …\}\.'),
        ("a.jsonl", NULLS, DataError, r"line 2: column 'text' is null; every document needs its text\."),
        ("a.jsonl", '{"text": "a"}\n{"id": 1}', DataError, r"line 2: column 'text' is missing; every"),
        ("a.jsonl", '{"text": ["a"]}', DataError, r"line 1: column 'text' is of list; every"),
        ("a.jsonl", '{"txt": "a"}', ConfigError, r"column = 'text'; .*no such column\. Did you mean 'txt'\?"),
        (
            "b.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9],
            DataError,
            r"b\.jsonl\.gz cannot be read, or is cut off",
        ),
        ("c.jsonl.gz", b"no gzip at all", DataError, r"c\.jsonl\.gz cannot be read, or is cut off: Not a gzipped file"),
    ],
)
def test_damage_is_told_by_its_place(tmp_path, name, content, kind, message):
    with pytest.raises(kind, match=message):
        documents(write(tmp_path / name, content))


def test_damaged_tables_are_told_by_their_place(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["a", "b", None]}), path)
    with pytest.raises(DataError, match=r"a\.parquet, row 2: column 'text' is null"):
        documents(path)
    parquet.write_table(pa.table({"text": pa.nulls(3)}), path)
    with pytest.raises(DataError, match=r"a\.parquet, row 0: column 'text' is null"):
        documents(path)
    parquet.write_table(pa.table({"body": ["a"]}), path)
    with pytest.raises(ConfigError, match=r"column = 'text'; .* has no such column\. Known: body\."):
        documents(path)
    with pytest.raises(ConfigError, match=r"column = 'bod'; .* has no such column\. Did you mean 'body'"):
        documents(path, column="bod")
    parquet.write_table(pa.table({"text": pa.array([b"\xff"], pa.binary()).view(pa.string())}), path)
    with pytest.raises(DataError, match=r"a\.parquet, from row 0 is no UTF-8 \(byte 0xff\)"):
        documents(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read: "):
        documents(path)
    (tmp_path / "a.arrow").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"a\.arrow cannot be read: "):
        documents(tmp_path / "a.arrow")
