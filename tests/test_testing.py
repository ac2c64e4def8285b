"""The checks find what they are for, and pass what is right."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import datamix
from datamix import registry
from datamix.operators.base import Traits
from datamix.sources.arrays import MemoryArrays
from datamix.sources.synthetic.digits import digits
from datamix.testing import check_operator, check_resume, check_source, traces

IMAGE = {"image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "label": np.int32(3)}
SETTINGS: dict[str, dict[str, Any]] = {
    "cast": {"dtype": "float32"},
    "normalize": {"mean": 0.5, "std": 0.2},
    "resize": {"height": 3, "width": 5},
    "offset_label": {"offset": 10},
    "one_hot": {"num_classes": 5},
    "tag_source": {"source_id": 1},
}


@pytest.mark.parametrize("name", [name for name in registry.names("operator") if "doctest" not in name])
def test_every_operator_keeps_its_promises(name: str) -> None:
    check_operator(registry.lookup("operator", name), IMAGE, **SETTINGS.get(name, {}))


def impure(record: Any) -> Any:
    record["image"] = record["image"] + 1
    record["more"] = record["image"]
    return record


def test_an_operator_that_changes_its_record() -> None:
    with pytest.raises(AssertionError, match="changed the record it was given, instead of a copy"):
        check_operator(impure, IMAGE)


def test_an_operator_that_is_not_elementwise() -> None:
    def rows(record: Any) -> Any:
        return record | {"image": record["image"][::-1]}

    rows.traits = Traits(elementwise=True)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="on flat leaves, though it is elementwise, it gives another 'image'"):
        check_operator(rows, IMAGE)


def test_sources() -> None:
    check_source(digits(split="train[:50]"))
    with pytest.raises(AssertionError, match="label 4 has no name among 2"):
        check_source(MemoryArrays({"label": np.arange(5)}, class_names=("a", "b")))

    class Forgetful(MemoryArrays):
        def read(self) -> dict[str, np.ndarray]:
            return {"label": np.random.default_rng().random(5)}

    with pytest.raises(AssertionError, match=re.escape("spec says")):
        check_source(Forgetful({"label": np.arange(5)}))
    with pytest.raises(AssertionError, match="gives other values of 'label' the second time"):
        check_source(Forgetful({"label": np.arange(5.0)}))


def test_resume() -> None:
    few = {"image": np.zeros((9, 2, 2, 1), np.uint8), "label": np.arange(9)}
    check_resume(datamix.load("batch.size=4", "stop=forever", sources={"a": few, "b": few}))


def test_traces_count_what_is_compiled_inside_the_block_alone() -> None:
    few = {"image": np.zeros((9, 3, 2, 1), np.uint8), "label": np.arange(9)}
    with traces() as counts:
        next(iter(datamix.load("batch.size=5", "stop=forever", sources={"a": few})))
        assert not counts  # at the end
    assert all(count > 0 for count in counts.values())
    assert [name for name in counts if name.endswith("compute_chunk")]
    with traces() as again:
        next(iter(datamix.load("batch.size=5", "stop=forever", "seed=3", sources={"a": few})))
    assert not again
    with traces() as other:
        next(iter(datamix.load("batch.size=7", "stop=forever", sources={"a": few})))
    assert other
    assert sum(counts.values()) > 0  # what was counted stays
