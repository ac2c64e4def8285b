"""From a configuration to all that a job may need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datamix.builder.assembly import Assembly
from datamix.builder.built import Built, build
from datamix.config.compose import compose
from datamix.config.parse import parse
from datamix.errors import ConfigError, DatamixError


def built(*overrides: str, **sources: Any) -> Built:
    return build(parse(compose(["source=digits+garments", "source.digits.split=test", *overrides])), sources)


def test_it_is_an_assembly_with_its_configuration() -> None:
    mix = built("batch.size=32", "seed=3", "stop=all_exhausted")
    assert isinstance(mix, Assembly)
    assert (mix.config.seed, mix.seed, mix.batch_size, mix.delivery.remainder) == (3, 3, 32, "drop")
    assert list(mix.sources) == ["digits", "garments"]
    assert mix.plan.sizes == (4000, 20_000)
    assert mix.sources["digits"].settings == {"split": "test"}
    assert (mix.num_batches(), mix.num_records()) == (mix.plan.length // 32, mix.plan.length // 32 * 32)
    assert [mix.offset(name) for name in mix.sources] == [0, 10]
    assert mix.notes == []


def test_records_that_fill_no_batch_count_where_they_are_kept() -> None:
    settings = ["stop=exhaust_once", "batch.size=1000", "source.digits.limit=7"]
    kept, dropped = built(*settings, "batch.remainder=keep"), built(*settings)
    assert (kept.num_batches(), kept.num_records()) == (21, 20_007)
    assert (dropped.num_batches(), dropped.num_records()) == (20, 20_000)
    endless = built("stop=forever")
    assert (endless.num_batches(), endless.num_records()) == (None, None)


def test_its_spec_is_that_of_its_pipeline_and_its_fingerprint_is_of_the_settings_alone() -> None:
    mix = built("source.garments.split=test", "mix.ratio=7:3")
    pipeline = mix.pipeline()
    assert mix.fingerprint() == built("source.garments.split=test", "mix.ratio=7:3").fingerprint()
    assert mix.fingerprint() != pipeline.fingerprint  # which is of the records as well
    assert mix.pipeline().fingerprint == pipeline.fingerprint
    assert mix.spec() == pipeline.spec
    assert mix.completed() is mix  # all classes have names
    other = built("source.garments.split=test", "mix.ratio=1:1").pipeline(pipeline.reader)
    np.testing.assert_array_equal(other.next(other.start())[0]["source_id"][:2], [0, 1])


def test_the_ratio_is_checked_before_a_dataset_is_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"mix\.weights\.digits = -1"):
        built("source=digits+mnist", "mix.weights.digits=-1", "data.dir=missing")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("operators=[{normalize:{mean:0,sdt:1}}]", "operators[0].normalize.sdt"),
        ("source.mnist.operators=[{clip:{lo:2}}]", "source.mnist.operators[0].clip.lo"),
        ("adapt.rate=x", "adapt.rate"),
        ("+model.hiden=3", "model.hiden"),
        ("+optimizer.decay=3", "optimizer.decay"),
        ("optimizer.schedule={cosine:{ende:0}}", "optimizer.schedule.cosine.ende"),
        ("optimizer.b1=1", "optimizer.b1"),
        ("train.steps=10 optimizer.schedule={warmup_cosine:{warmup:0.99}}", "optimizer.schedule.warmup_cosine.warmup"),
    ],
)
def test_settings_of_components_are_checked_before_a_dataset_is_looked_for(override: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built("source=digits+mnist", "job=train", "adapt=doremi", *override.split(), "data.dir=missing")
    assert caught.value.key == key


def test_an_unknown_setting_of_an_optimizer_names_its_rate_and_schedule_too() -> None:
    with pytest.raises(ConfigError, match=r"clip: .* Known: b1, b2, eps, learning_rate, schedule\.$"):
        built("source=digits", "job=train", "+optimizer.clip=1")


def test_no_record_is_read() -> None:
    class Unread:
        provenance, num_records, class_names = "unread", 5, ("x",)
        spec = built().sources["digits"].spec

        def read(self) -> dict[str, np.ndarray]:
            raise DatamixError("read")

    mix = built("source.digits.split=null", "batch.size=2", digits=Unread())
    assert mix.plan.sizes == (5, 20_000)
    with pytest.raises(DatamixError, match=r"^source 'digits': read$"):
        mix.pipeline()
