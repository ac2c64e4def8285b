"""The data of a training job: the mix to train on, and every source's own test records."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from datamix import registry
from datamix.builder.built import Built, build
from datamix.builder.opening import open_source
from datamix.builder.source import OpenSource
from datamix.builder.values import notes_on_values, what_is_broken
from datamix.config.schema import Config, MixConfig, OperatorConfig, SourceConfig
from datamix.errors import ConfigError, DataError
from datamix.operators.base import traits
from datamix.pipeline.pipeline import Pipeline
from datamix.spec import LeafSpec
from datamix.training.learner import HeldOut
from datamix.training.overlap import num_seen

_TEST_BATCH = 256
_USUAL_SPLIT = "test"  # what the split of test records is called nearly everywhere


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data that a model is trained and tested on.

    Attributes:
      tests: The test records, as what the compiled test takes.
      test_records: The number of test records of each source.
      disjoint_classes: Whether every class belongs to one source.
      num_seen: The number of test records that equal records to train on, by source, where there are any.
      not_compared: The sources of which that is not known, as all records would have to be read for it.
    """

    built: Built
    built_tests: Built
    pipeline: Pipeline
    test_pipeline: Pipeline
    tests: HeldOut
    test_records: dict[str, int]
    num_classes: int
    shape: tuple[int, ...]
    disjoint_classes: bool
    num_seen: Mapping[str, int]
    not_compared: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """The notes on the records, before a model is trained on them; a sentence each."""
        of_tests = notes_on_values(self.built_tests.sources, self.test_pipeline.statistics, self.built_tests.labels)
        seen = [
            f"source {name!r}: {count:,} of its {self.test_records[name]:,} test records equal records to train on."
            for name, count in self.num_seen.items()
        ]
        seen += [
            f"source {name!r}: whether test records equal records to train on is not known; they are read as they are "
            "needed, and not compared."
            for name in self.not_compared
        ]
        on_tests = [f"test records of {note}" for note in of_tests]
        return [*self.built.plan.drawn(), *self.built.notes_on(self.pipeline), *on_tests, *seen]

    def broken(self) -> str:
        """The values of images of which no loss can be computed, such as NaN, by source; empty if nothing."""
        kinds = {
            name: what_is_broken(leaves["image"])
            for name, leaves in self.pipeline.statistics.items()
            if "image" in leaves
        }
        return "; ".join(f"the images of {name} hold {broken}" for name, broken in kinds.items() if broken)

    @property
    def num_test_batches(self) -> int:
        return -(-sum(self.test_records.values()) // _TEST_BATCH)


def open_data(config: Config, like: Data | None = None) -> Data:
    """Read the mix and its test records, or share those of a run that differs in weights and seeds alone."""
    built = build(config)
    shape = _check_spec(built)
    if like is not None:
        built = built.completed(all_counts=True)
        return replace(like, built=built, pipeline=built.pipeline(like.pipeline.reader, like.pipeline.statistics))
    test_sources = [held_out(source, config) for source in config.sources]  # before anything is read
    built = built.completed(all_counts=True)
    counts = [_num_classes(built, name) or 0 for name in built.sources]
    offsets = [built.offset(name) or 0 for name in built.sources]
    classes = [range(offset, offset + count) for offset, count in zip(offsets, counts, strict=True)]
    num_classes = max(labels.stop for labels in classes)
    if not num_classes:
        raise DataError("no record of the mix has a class; there is nothing to be learnt from labels that are all -1.")
    source_of_class = np.zeros(num_classes, np.uint32)
    for i, labels in enumerate(classes):
        source_of_class[labels.start : labels.stop] = i
    tests = build(_test_config(config, test_sources), labels_like=built.labels)
    spec = built.spec()
    if (differing := tests.spec()) != spec:
        raise ConfigError(f"without its random operators, the mix's records would be {differing}, not {spec}.")
    test_pipeline = tests.pipeline()
    test_records = {name: source.num_records for name, source in tests.sources.items()}
    for name, count in test_records.items():
        statistic = test_pipeline.statistics[name].get("label")
        if statistic is not None and statistic.num_unlabelled(count) >= count:
            raise DataError(
                f"source {name!r}: none of its {count:,} test records has a class, so that there is nothing to test; "
                f"hold labelled records out: source.{name}.split=train[:80%] source.{name}.test_split=train[80%:]."
            )
    fed = [name for name in built.sources if "host" in (built.placements[name], tests.placements[name])]
    return Data(
        built=built,
        built_tests=tests,
        pipeline=built.pipeline(),
        test_pipeline=test_pipeline,
        tests=HeldOut(
            test_pipeline.compiled,
            test_pipeline.start(),
            jnp.uint32(tests.plan.length or 0),
            jnp.asarray(source_of_class),
        ),
        test_records=test_records,
        num_classes=num_classes,
        shape=shape,
        num_seen=num_seen(_resident(built, fed), _resident(tests, fed)),
        not_compared=tuple(fed),
        disjoint_classes=sum(counts) == len({label for labels in classes for label in labels}),
    )


def _resident(built: Built, fed: Collection[str]) -> dict[str, OpenSource]:
    """The sources but those whose records are read as they are needed."""
    return {name: source for name, source in built.sources.items() if name not in fed}


def _check_spec(built: Built) -> tuple[int, ...]:
    """The shape of an image."""
    spec = built.spec()
    image, label = spec.get("image"), spec.get("label")
    is_image = image is not None and "float" in image.dtype and image.shape
    if not is_image or not _is_class(label) or built.labels.kind == "number":
        listed = ", ".join(f"{leaf} {part}" for leaf, part in spec.items())
        raise ConfigError(
            f"job=train takes records with a float image and an integer label; this mix gives {listed}. to_float makes "
            "numbers of pixels."
        )
    for name in built.sources:
        if name not in built.labels.num_classes and not _num_classes(built, name):
            raise ConfigError(
                f"source {name!r}: operators make its labels, and how many classes there are is not known; set "
                f"source.{name}.num_classes."
            )
    assert image is not None
    return image.shape


def _num_classes(built: Built, source: str) -> int | None:
    """The number of classes of a source; None where it is not known."""
    return built.labels.num_classes.get(source) or built.sources[source].declared_num_classes


def _is_class(label: LeafSpec | None) -> bool:
    return label is not None and not label.shape and np.dtype(label.dtype).kind in "iu"


def held_out(source: SourceConfig, config: Config) -> SourceConfig:
    """A source with its test records in place of those to train on.

    Raises:
      ConfigError: Raised when it has no test records.
    """
    split = source.test_split or _USUAL_SPLIT
    # A condition says what the records are like, and so holds for those of a test; the rest is about those to train on.
    settings = {**source.settings, "split": split}
    test_source = replace(source, settings=settings, limit=None, records=None, balance=None, record_weight=None)
    try:
        open_source(test_source, config, {})
    except ConfigError as error:
        if source.test_split is not None or "no split" not in str(error):
            raise
        raise ConfigError(
            f"source {source.name!r} has no split {split!r} to be tested on; hold some of its records out: "
            f"source.{source.name}.split=train[:80%] source.{source.name}.test_split=train[80%:]."
        ) from error
    return test_source


def _test_config(config: Config, test_sources: list[SourceConfig]) -> Config:
    """All test records once, source by source, with the same operators but those that draw."""
    sources = [replace(source, operators=_without_random(source.operators)) for source in test_sources]
    return replace(
        config,
        sources=tuple(sources),
        mix=MixConfig(order="concat", stop="exhaust_once"),
        operators=_without_random(config.operators),
        shuffle=False,
        seed=0,
        batch_size=_TEST_BATCH,
        remainder="keep",
        shuffle_rows=False,
    )


def _without_random(operators: tuple[OperatorConfig, ...]) -> tuple[OperatorConfig, ...]:
    return tuple(each for each in operators if not traits(registry.lookup("operator", each.name)).random)
