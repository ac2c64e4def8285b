"""The checks find what they are for, and pass what is right."""

from __future__ import annotations

import re
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

import datamix
from datamix import registry
from datamix.errors import ConfigError
from datamix.mixing.demand import Demand
from datamix.mixing.periods import Table
from datamix.mixing.stops import Stop
from datamix.operators.base import Traits
from datamix.sources.arrays import MemoryArrays
from datamix.sources.synthetic.digits import digits
from datamix.spec import LeafSpec
from datamix.testing import check_operator, check_order, check_resume, check_source, check_stop, check_weighting, traces

IMAGE = {"image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "label": np.int32(3)}
SETTINGS: dict[str, dict[str, Any]] = {
    "cast": {"dtype": "float32"},
    "normalize": {"mean": 0.5, "std": 0.2},
    "resize": {"height": 3, "width": 5},
    "offset_label": {"offset": 10},
    "offset_one_hot": {"offset": 1, "num_classes": 4},
    "one_hot": {"num_classes": 5},
    "tag_loss_weight": {"loss_weight": 2.0},
    "tag_source": {"source_id": 1},
    "rename": {"leaf": "label", "to": "digit"},
    "mask_tokens": {"mask_token": 9, "vocab_size": 10},
    "prefix_source": {"token": 9},
    "truncate": {"length": 2},
    "center_crop": {"height": 1, "width": 2},
    "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    "pad": {"height": 3, "width": 5},
    "random_crop": {"padding": 2},
    "rotate": {"degrees": 30},
    "select": {"leaves": ["image"]},
    "transpose": {"axes": [2, 0, 1]},
}
TOKENS = {leaf: np.int32([1, 2, 3, 0]) for leaf in ("tokens", "positions")} | {
    "segment_ids": np.int32([1, 1, 1, 0]),
    "num_tokens": np.int32(3),
}
RECORDS: dict[str, dict[str, Any]] = {
    "offset_one_hot": {"label": np.float32([0, 1])},
    **dict.fromkeys(("mask_tokens", "next_token_targets", "prefix_source", "truncate"), TOKENS),
    **dict.fromkeys(("mixup", "cutmix"), IMAGE | {"label": np.float32([0, 0.5, 0.5])}),
}


@pytest.mark.parametrize("name", [name for name in registry.names("operator") if "doctest" not in name])
def test_every_operator_keeps_its_promises(name: str) -> None:
    check_operator(registry.lookup("operator", name), RECORDS.get(name, IMAGE), **SETTINGS.get(name, {}))


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

    class Confused(MemoryArrays):
        def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
            out["label"][:] = self.arrays["label"][np.sort(indices)]

    with pytest.raises(AssertionError, match=r"take\(\) of the records .* gives other values of 'label' than read\(\)"):
        check_source(Confused({"label": np.arange(5)}))

    class Hasty:
        num_records, spec, provenance, class_names = (
            5,
            {"x": LeafSpec((), "int64"), "y": LeafSpec((), "int64")},
            "mine",
            (),
        )

        def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
            for leaf, values in out.items():
                values[...] = indices * len(out) if leaf == "x" else indices

    with pytest.raises(AssertionError, match=r"^take\(\) of 'x' alone gives other values than take\(\)"):
        check_source(Hasty())

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


def blocks(demand: Demand, *, times: int = 2) -> Table:
    return Table.of(np.repeat(demand.active, times), demand.num_sources)


@pytest.mark.parametrize("name", ["concat", "proportional", "random", "round_robin"])
def test_every_order_keeps_its_contract(name: str) -> None:
    check_order(registry.lookup("order", name), bound={"proportional": 1, "round_robin": 1}.get(name))


def test_orders() -> None:
    check_order(registry.lookup("order", "proportional"), window=10)
    check_order(registry.lookup("order", "random"), replacement=True)
    check_order(blocks)
    with pytest.raises(AssertionError, match=r"^with weights \(2, 1\), a source is .* from its share, more than 3"):
        check_order(blocks, bound=3)

    def all_sources(demand: Demand) -> Table:
        return Table.of(range(demand.num_sources), demand.num_sources)

    with pytest.raises(AssertionError, match=r"^with weights \(5, 0, 3, 2\), sources \[1\] have slots, but no share"):
        check_order(all_sources)

    def first(demand: Demand) -> Table:
        return Table.of(demand.active[:1], demand.num_sources)

    with pytest.raises(AssertionError, match=r"sources \[1, 2\] have a share, but none of the first 1000 slots"):
        check_order(first)

    counter = count()

    def impure(demand: Demand) -> Table:
        return Table.of(np.roll(demand.active, next(counter)), demand.num_sources)

    with pytest.raises(AssertionError, match=r"^with weights \(1, 1, 1\), it fills other slots the second time"):
        check_order(impure)

    def listed(demand: Demand) -> Any:
        return demand.active.tolist()

    with pytest.raises(AssertionError, match=r"it gives \[0, 1, 2\], which is no datamix\.mixing\.periods\.Period"):
        check_order(listed)

    def picky(demand: Demand) -> Table:
        raise ConfigError("not this one.")

    with pytest.raises(AssertionError, match=r"^it refuses every mix: \(1, 1, 1\): not this one\.; "):
        check_order(picky)


def test_a_period_that_does_not_agree_with_itself() -> None:
    class OffByOne(Table):
        def counts(self, slot: int) -> list[int]:
            return super().counts(slot + 1)

    class Backwards(Table):
        def slot_of(self, source: int, number: int) -> int:
            return super().slot_of(source, number) + 1

    def order(kind: type[Table], demand: Demand) -> Table:
        return kind(demand.active, demand.num_sources)

    with pytest.raises(AssertionError, match=r"counts\(0\) adds up to 1"):
        check_order(partial(order, OffByOne))
    with pytest.raises(AssertionError, match=r"slot_of\(0, 0\) is 1, not 0"):
        check_order(partial(order, Backwards))


@pytest.mark.parametrize("name", ["all_exhausted", "exhaust_once", "first_exhausted", "forever"])
def test_every_stop_keeps_its_contract(name: str) -> None:
    check_stop(registry.lookup("stop", name))


def test_stops() -> None:
    def after(*, source: str, times: int = 1) -> Stop:
        return Stop(waits_for="all", sources=(source,), epochs={source: times}, repeats=True)

    check_stop(after, source="x", times=3)
    with pytest.raises(AssertionError, match=r"^it gives None, which is no datamix\.mixing\.stops\.Stop"):
        check_stop(lambda: None)  # type: ignore[arg-type, return-value]
    counter = count(1)
    with pytest.raises(AssertionError, match=r"^it gives another stop the second time"):
        check_stop(lambda: Stop(waits_for="any", epochs={"a": next(counter)}))


COUNTER = count(1)


@pytest.mark.parametrize("name", ["equal", "size"])
def test_every_weighting_keeps_its_contract(name: str) -> None:
    check_weighting(registry.lookup("weighting", name))
    check_weighting(registry.lookup("weighting", name), {"a": 3})


@pytest.mark.parametrize(
    ("weigh", "message"),
    [
        (lambda sizes: list(sizes), r"^it gives \['a', 'b', 'c'\], not a weight for each name"),
        (lambda sizes: {"a": 1}, r"^it weighs \['a'\], not \['a', 'b', 'c'\]"),
        (lambda sizes: dict.fromkeys(sizes, -1), r"^a = -1; a weight is 0 or more\."),
        (lambda sizes: dict.fromkeys(sizes, "x"), r"^a = 'x'; a weight is a number, 0 or more\."),
        (lambda sizes: dict.fromkeys(sizes, 0), r"^all its weights are 0"),
        (lambda sizes: dict.fromkeys(sizes, next(COUNTER)), r"^it gives other weights the second time"),
        (lambda sizes: sizes.update(d=1) or {"a": 1, "b": 1, "c": 1}, r"^it changed the sizes it was given"),
    ],
)
def test_weightings(weigh: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_weighting(weigh)
