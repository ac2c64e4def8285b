"""Records in the device's memory."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from datamix.errors import DataError
from datamix.pipeline.locate import Located
from datamix.pipeline.lowering import stored_spec
from datamix.pipeline.readers.resident import read_resident
from datamix.sources.arrays import MemoryArrays
from datamix.sources.statistics import LeafStatistics

SOURCES = {
    "a": MemoryArrays({"image": np.arange(12, dtype=np.uint8).reshape(3, 2, 2), "label": np.arange(3)}),
    "b": MemoryArrays({"number": np.arange(5.0)}),
    "c": MemoryArrays({"image": np.arange(100, 108, dtype=np.uint8).reshape(2, 2, 2), "label": np.arange(2) + 7}),
}


def test_sources_of_one_spec_lie_in_one_array() -> None:
    specs = {name: stored_spec(name, source.spec) for name, source in SOURCES.items()}
    resident, statistics = read_resident(SOURCES, specs, [[0, 2], [1]])
    assert list(statistics) == ["a", "b", "c"]
    assert (statistics["c"]["image"].min, statistics["c"]["image"].max) == (100, 107)
    assert resident.first.tolist() == [0, 0, 3]
    assert resident.groups[0]["image"].shape == (5, 4)
    located = Located(*(jnp.asarray(values, jnp.uint32) for values in ([2, 1, 0, 2], [0, 0, 5, 0], [1, 4, 2, 0])))
    row = jnp.arange(4, dtype=jnp.uint32)
    records = resident.read(0, located, row, jnp.asarray([True, False, True, True]))
    assert records["label"].tolist() == [8, 0, 2, 7]  # of another group's record, the first one's
    assert records["image"][0].tolist() == [104, 105, 106, 107]
    (numbers,) = resident.read(1, Located(*(values[1:2] for values in located[:3])), row[:1], None).values()
    assert numbers.tolist() == [4]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.arange(2), "source 'x': leaf 'label' has 2 records, not 3"),
        (np.full(3, 2**40), "source 'x': leaf 'label' holds numbers that do not fit int32"),
    ],
)
def test_damage(label: Any, message: str) -> None:
    class Damaged(MemoryArrays):
        def read(self) -> dict[str, np.ndarray]:
            return {"label": label}

    source = Damaged({"label": np.arange(3)})
    with pytest.raises(DataError, match=message):
        read_resident({"x": source}, {"x": stored_spec("x", source.spec)}, [[0]])


def test_statistics_that_a_source_has_kept_are_not_found_again() -> None:
    class Knows(MemoryArrays):
        def statistics(self) -> Any:
            return {"number": LeafStatistics(min=1, max=2, mean=1.5)}

    source = Knows({"number": np.arange(5.0)})
    specs = {"a": stored_spec("a", source.spec)}
    assert read_resident({"a": source}, specs, [[0]])[1] == {"a": source.statistics()}
    with pytest.raises(DataError, match="leaf 'number' holds 1e\\+300"):  # it is still looked at what narrowing loses
        read_resident({"a": Knows({"number": np.array([1e300])})}, specs, [[0]])
