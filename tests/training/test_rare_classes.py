"""Classes of which hardly a record is there to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.builder.open_source import OpenSource
from datamix.sources.arrays import MemoryArrays
from datamix.spec import LeafSpec
from datamix.training.rare_classes import notes_on_rare_classes


@pytest.mark.parametrize(
    ("labels", "single"),
    [
        ([0, 1, 2, 3], "4 of its 4"),
        ([0, 1, 2, 3, 3], "3 of its 4"),
        ([0, 1, 2, -1, np.nan], "3 of its 3"),  # records without a class
        ([0, 1, 2, 2, 3, 3], None),
        ([0, 1, 2, *[3] * 50], None),  # most records are of a class that can be learnt
    ],
)
def test_they_are_told_where_most_classes_have_a_single_record(labels, single):
    label = np.array(labels, np.float32 if np.isnan(labels).any() else np.int32)
    source = OpenSource(name="a", source=MemoryArrays({"label": label}), provenance="arrays")
    notes = notes_on_rare_classes({"a": source}, {"a": 4})
    text = "classes have a single record to train on, from which none can be learnt"
    number = "label={'a': 'number'} predicts labels as numbers."
    assert notes == ([] if single is None else [f"source 'a': {single} {text}; {number}"])


def test_vectors_and_what_has_no_classes_are_not_looked_at():
    arrays = {"a": np.eye(4, dtype=np.float32), "b": np.arange(4)}
    sources = {
        name: OpenSource(name=name, source=MemoryArrays({"label": label}), provenance="arrays")
        for name, label in arrays.items()
    }
    image = np.zeros((2, 4, 4, 1), np.uint8)  # operators make its labels
    sources["c"] = OpenSource(name="c", source=MemoryArrays({"image": image}), provenance="arrays")
    assert notes_on_rare_classes(sources, {"a": 4, "b": None, "c": 4}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "advice", "says"),
    [
        ("name", "source.my_table.target names the column to predict", "source.my_table.target=kind"),
        ("amount", "source.my_table.label=number predicts labels as numbers", "source.my_table.label=number"),
    ],
)
def test_a_table_says_what_to_do_instead(call_datamix, tmp_path, column, advice, says):
    rows = [f"{i / 7},n{i},{i * 37 % 80},{'xy'[i % 2]}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["size,name,amount,kind", *rows]))
    base = ["job=train", "model=linear", "source=my_table", "source.my_table.path=t.csv", "train.steps=2",
            "source.my_table.features=[size]", "source.my_table.split=train[:60]",
            "source.my_table.test_split=train[60:]", "batch.size=8"]  # fmt: skip
    ended = call_datamix(*base, f"source.my_table.target={column}")
    note = "source 'my_table': 60 of its 60 classes have a single record to train on, from which none can be learnt"
    assert f"Note: {note}; {advice}." in ended.out.splitlines()
    assert f"{note}; {advice}." in ended.report["notes"]
    mended = call_datamix(*base, *([] if column == "name" else ["source.my_table.target=amount"]), says)
    assert mended.report["metrics"]
    assert "single record" not in mended.out


class WithoutImages:
    """A source that is asked for its labels alone."""

    provenance, num_records, class_names = "arrays", 4, ()

    def __init__(self):
        self.spec = {"image": LeafSpec((28, 28, 1), "uint8"), "label": LeafSpec((), "int32")}

    def take(self, indices, out):
        assert [*out] == ["label"]
        out["label"][...] = indices


def test_no_other_leaf_is_read():
    source = OpenSource(name="a", source=WithoutImages(), provenance="arrays")
    (note,) = notes_on_rare_classes({"a": source}, {"a": 4})
    assert note.startswith("source 'a': 4 of its 4 classes have a single record")
