"""Records that are selected, balanced and drawn by weight, from the settings of a mix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.builder.open_source import OpenSource
from datamix.builder.selecting import sampling_of, select, simulate
from datamix.errors import ConfigError, DataError
from datamix.mixing.sampling import ByClass, ByWeight
from datamix.sources.objects import as_source
from datamix.testing import check_resume

LABELS = np.array([0, 1, 2, 0, 0, 0, 2, 0, 0, 1])


def few(labels: np.ndarray = LABELS, **leaves: Any) -> dict[str, np.ndarray]:
    return {"label": labels, "id": np.arange(len(labels)), "x": np.zeros((len(labels), 2), np.float32)} | leaves


def opened(data: Any, **kwargs: Any) -> OpenSource:
    return OpenSource(name="a", source=as_source(data), provenance="arrays", key="source.a", **kwargs)


@pytest.mark.filterwarnings("ignore:source 'a'")
def test_records_come_before_the_condition_and_the_limit(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", np.array([9, 4, 8, 2, 3]))
    pipeline = datamix.load(
        f"source.a.records={tmp_path}/some.npy",
        "source.a.where=label < 2",
        "source.a.limit=3",
        "shuffle=none",
        "batch.size=3",
        sources={"a": few()},
    )
    assert pipeline[0]["id"].tolist() == [9, 4, 8]
    mixed = datamix.mix(
        {"a": few()},
        records={"a": [9, 4, 8, 2, 3]},
        where={"a": "label < 2"},
        limit={"a": 3},
        shuffle="none",
        batch_size=3,
    )
    assert mixed.fingerprint == pipeline.fingerprint
    other = datamix.mix({"a": few()}, records={"a": [9, 4, 8]}, shuffle="none", batch_size=3)
    assert other[0]["id"].tolist() == [9, 4, 8]
    assert other.fingerprint != mixed.fingerprint


def test_the_notes_say_what_is_left() -> None:
    with pytest.warns(UserWarning, match=r"^source 'a': where label == 0: 6 of its 10 records take part\.$"):
        datamix.mix({"a": few()}, where={"a": "label == 0"}, batch_size=2)


@pytest.mark.filterwarnings("ignore:source 'a'")
def test_classes_keep_the_numbers_that_they_have_in_the_whole_dataset() -> None:
    pipeline = datamix.mix(
        {"a": few(), "b": few()}, where={"a": "label == 0"}, shuffle="none", batch_size=4, num_classes={"b": 3}
    )
    assert pipeline[0]["label"].tolist() == [0, 3, 0, 4]


def test_a_condition_knows_its_place() -> None:
    source = select(opened(few()), condition="label > 0")
    assert (source.num_records, source.selection) == (4, ("where", "label > 0"))
    assert [labels.max() for labels in source.whole_labels()] == [2]
    with pytest.raises(ConfigError, match=r"^source\.a\.where = 'x > 0'; 'x' \(at character 1\) is float32 \[2\], "):
        select(opened(few()), condition="x > 0")
    with pytest.raises(ConfigError, match=r"^where\['a'\] = 'y > 0'; 'y' \(at character 1\) is no leaf of this source"):
        datamix.mix({"a": few()}, where={"a": "y > 0"})
    with pytest.raises(ConfigError, match=r"^where\['a'\] = 3; it is text\.$"):
        datamix.mix({"a": few()}, where={"a": 3})  # type: ignore[dict-item]


def test_a_fault_of_the_data_is_blamed_on_the_source() -> None:
    class Broken:
        num_records, provenance, class_names = 3, "broken", ()
        spec = as_source(few()).spec

        def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
            raise DataError("file.bin is cut off at record 2.")

    for ask in (
        lambda: select(opened(Broken()), condition="label > 0"),
        lambda: sampling_of(opened(Broken(), balance="label")),
    ):
        with pytest.raises(DataError, match=r"^source 'a': file\.bin is cut off at record 2\.$"):
            ask()


def test_what_a_source_is_drawn_by() -> None:
    assert sampling_of(opened(few())) is None
    by_class = sampling_of(opened(few(), balance="label", limit=5))
    assert isinstance(by_class, ByClass)
    assert by_class.counts.tolist() == [3, 1, 1]
    by_weight = sampling_of(opened(few(), record_weight="id"))
    assert isinstance(by_weight, ByWeight)
    assert by_weight.num_records == 10
    assert sampling_of(opened(few(label=LABELS[:, np.newaxis]), balance="label")) is not None
    assert sampling_of(opened(few(group=np.array([-1.0, 3.0] * 5)), balance="group")) is not None


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (few(), {"balance": "lable"}, r"balance = 'lable'; there is no such leaf\. Did you mean 'label'\? Known: id, "),
        (
            few(),
            {"record_weight": "x"},
            r"record_weight = 'x'; it is float32 \[2\], and no single number a record\. Known",
        ),
        (few(), {"balance": "label", "record_weight": "id"}, r"record_weight = 'id'; a source is drawn by weight, or "),
        (
            few(LABELS - 1),
            {"balance": "label"},
            r"balance = 'label'; 6 of 10 records have a negative label, and so no class\. "
            r"source\.a\.where=label >= 0 leaves them out\.$",
        ),
        (few(LABELS / 2), {"balance": "label"}, r"balance = 'label'; its values are no classes, .* such as 0\.5\.$"),
        (
            few(LABELS * np.nan),
            {"balance": "label"},
            r"balance = 'label'; its values are no classes, .* such as NaN\.$",
        ),
        (
            few(w=LABELS - 1),
            {"record_weight": "w"},
            r"record_weight = 'w'; as weights of records are finite numbers, 0 or more, one for each, and not all 0",
        ),
        (few(w=LABELS * 0), {"record_weight": "w"}, r"record_weight = 'w'; as weights of records are finite"),
    ],
)
def test_what_no_source_is_drawn_by(data: dict[str, np.ndarray], settings: dict[str, str], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=rf"^source\.a\.{message}"):
        sampling_of(opened(data, **settings))


@pytest.mark.filterwarnings("ignore:source 'a'")
def test_what_an_error_advises_works() -> None:
    pipeline = datamix.load(
        "source.a.balance=label", "source.a.where=label >= 0", "batch.size=4", sources={"a": few(LABELS - 1)}
    )
    assert sorted(pipeline[0]["label"].tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize(("shuffle", "order"), [("full", "proportional"), ("none", "random"), ("blocks(2)", "random")])
def test_batches_hold_what_the_plan_says_and_resume(shuffle: str, order: str) -> None:
    sources = {name: few(id=100 * i + np.arange(10)) for i, name in enumerate("abc")}
    pipeline = datamix.mix(
        sources,
        balance={"a": "label"},
        record_weight={"b": "label"},
        weights={"a": 2},
        shuffle=shuffle,
        order=order,
        stop="forever",
        labels="keep",
        batch_size=8,
    )
    batches = [pipeline[step] for step in range(12)]
    chosen = pipeline.plan.take(0, 96)
    ids = np.concatenate([batch["id"] for batch in batches])
    np.testing.assert_array_equal(ids, 100 * chosen.source + chosen.record)
    source, label = (np.concatenate([batch[leaf] for batch in batches]) for leaf in ("source_id", "label"))
    turns = label[source == 0]
    for name in range(3):
        ahead = np.cumsum(turns == name) - np.arange(1, len(turns) + 1) / 3
        assert -1 < ahead.min() <= ahead.max() < 1
    assert 0 not in label[source == 1]  # of weight 0
    check_resume(pipeline, steps=4)


def test_blocks_are_as_long_as_the_source_says() -> None:
    class InGroups:
        num_records, provenance, class_names, block_records = 24, "groups", (), 4
        spec = as_source({"id": np.arange(24)}).spec

        def take(self, indices: np.ndarray, out: dict[str, np.ndarray]) -> None:
            out["id"][...] = indices

    def ids(source: Any, *overrides: str) -> list[int]:
        pipeline = datamix.load("shuffle=blocks(1)", "batch.size=4", *overrides, sources={"a": source})
        return [int(value) for batch in pipeline for value in batch["id"]]

    batches = np.reshape(ids(InGroups()), (6, 4))
    assert sorted(map(sorted, batches.tolist())) == np.arange(24).reshape(6, 4).tolist()
    assert [sorted(batch) for batch in batches.tolist()] != np.arange(24).reshape(6, 4).tolist()
    sliced = np.reshape(ids(InGroups(), "source.a.split=train[4:]"), (5, 4))
    assert all(batch.max() - batch.min() == 3 for batch in sliced)
    other = InGroups()
    other.block_records = 8
    first, second = (
        datamix.load("shuffle=blocks(1)", "batch.size=4", sources={"a": source}) for source in (InGroups(), other)
    )
    assert first.fingerprint != second.fingerprint


SMALL = ["stop=forever", "stop.batches=6", "batch.size=10", "labels=keep", "mix.ratio=3:1"]


@pytest.mark.filterwarnings("ignore:source '[ab]': ")
def test_a_part_of_each_source_is_repeated_as_often_as_the_whole_by_a_larger_run() -> None:
    sources = {"a": {"id": np.arange(300)}, "b": {"id": np.arange(100)}}
    small = datamix.load(*SMALL, "mix.simulate_budget=600", sources=sources)
    whole = datamix.load(*SMALL, "stop.batches=60", sources=sources)
    assert tuple(small.plan.sizes) == (30, 10)
    epochs = [np.array(each.plan.counts(each.plan.length)) / each.plan.sizes for each in (small, whole)]
    assert epochs[0].tolist() == epochs[1].tolist() == [1.5, 1.5]
    ids = {}
    for seed in (0, 1):
        pipeline = datamix.load(*SMALL, "mix.simulate_budget=600", f"seed={seed}", sources=sources)
        ids[seed] = {int(number) for batch in pipeline for number in np.asarray(batch["id"])}
    assert ids[0] == ids[1]  # so that seeds share the data
    assert max(ids[0]) > 250  # and not the first ones, which may be of one class
    assert small.fingerprint != datamix.load(*SMALL, sources=sources).fingerprint


def test_a_part_comes_after_the_limit_and_says_how_much_it_is() -> None:
    (part,) = simulate([opened(few(), limit=5)], 40, 100)
    assert (part.num_records, part.limit) == (2, None)
    assert max(part.read()["id"]) < 5
    assert part.notes == (
        "2 of its 5 records take part: the run repeats them as often as one of 100 records would repeat them all.",
    )


@pytest.mark.parametrize(
    ("budget", "simulated", "message"),
    [
        (None, 9, "mix.simulate_budget = 9; it needs a budget of records of this run, too; set train.steps"),
        (10, 9, "mix.simulate_budget = 9; this run goes through 10 records, which is more."),
        (1, 1000, "mix.simulate_budget = 1000; of the 10 records of source 'a', 0.01 would be left. Let this run go"),
    ],
)
def test_a_larger_run_that_cannot_be_simulated(budget: int | None, simulated: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate([opened(few())], budget, simulated)
    assert str(caught.value).startswith(message)
