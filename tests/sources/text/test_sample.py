"""Text to try a language model on."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.sources.base import read_all
from datamix.sources.text.sample import sample_text


@pytest.mark.parametrize(
    ("kind", "piece"), [("code", "import "), ("docs", "statement"), ("scripture", "was not forgotten.\nAnd ")]
)
def test_every_machine_has_some(tmp_path, kind, piece):
    train, test = (
        sample_text(kind=kind, length=128, split=split, cache_dir=str(tmp_path)) for split in ("train", "test")
    )
    assert train.provenance == "stand-in"
    assert train.notes[0].startswith("it is ")
    assert train.num_records > 4 * test.num_records > 400
    assert piece in train.decode(read_all(train)["tokens"][:500].reshape(-1))
    again = sample_text(kind=kind, length=128, cache_dir=str(tmp_path))
    np.testing.assert_array_equal(read_all(again)["tokens"], read_all(train)["tokens"])
    assert len(list(tmp_path.glob("sample-*"))) == 2  # for either split, written once


def test_corpora_of_a_directory_come_first(tmp_path):
    (tmp_path / "code.train.txt").write_text("x = 1")
    with pytest.raises(
        ConfigError, match=r"^corpora = '.*'; it holds no file code\.test\.\*, such as \.txt\. Leave it null"
    ):
        sample_text(kind="code", length=8, corpora=str(tmp_path))
    (tmp_path / "code.test.txt").write_text("y = 2")
    source = sample_text(kind="code", length=8, corpora=str(tmp_path), split="test", cache_dir=str(tmp_path))
    assert (source.provenance, source.num_records) == ("text", 1)
    assert source.decode(read_all(source)["tokens"][0]) == "y = 2\0\0"
    assert not any("interpreter" in note for note in source.notes)
