"""The data of a training job: the mix to train on, and the test records of each source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import jax.numpy as jnp
import numpy as np

from datamix.builder.assembly import Assembly
from datamix.builder.built import Built, build
from datamix.builder.open_source import OpenSource
from datamix.builder.value_checks import notes_on_values, what_is_broken
from datamix.builder.views import held_out, holding_out, viewed
from datamix.config.schema import Config
from datamix.errors import ConfigError, DataError, SpecError, of_source
from datamix.pipeline.pipeline import Pipeline
from datamix.training.learner import HeldOut, Moments
from datamix.training.overlap import notes_on_overlaps
from datamix.training.rare_classes import notes_on_rare_classes
from datamix.training.tasks.base import Task
from datamix.training.tasks.choosing import choose, classes, num_classes, of_outputs
from datamix.training.tasks.classification import Classification
from datamix.training.tasks.language import Language
from datamix.training.tasks.regression import Regression

# The metrics of all sources: those of `tasks.base.family`, of `sweep.goal_weights`, and of TensorBoard's training loss.
_OF_ALL = ("mean", "worst", "weighted", "train")
_MEASURED = 4096  # records of the mix, over which mean and deviation are computed


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data that a model is trained and tested on.

    Attributes:
      built: The mix to train on.
      test_mix: The test records of all sources, as a mix.
      pipeline: The pipeline of `built`.
      test_pipeline: The pipeline of `test_mix`.
      held_out: The test records, as the argument of the compiled test.
      num_test_records: The number of test records of each source.
      task: What the model learns.
      disjoint_classes: Whether there are classes, and no two sources share one.
      overlaps: The notes on repeated records; see `notes_on_overlaps`.
      rare_classes: The notes on classes of a single record; see `notes_on_rare_classes`.
      not_compared: The sources that both kinds of notes leave out, as these would have to read all their records.
    """

    built: Built
    test_mix: Assembly
    pipeline: Pipeline
    test_pipeline: Pipeline
    held_out: HeldOut
    num_test_records: dict[str, int]
    task: Task
    disjoint_classes: bool
    overlaps: Sequence[str]
    rare_classes: Sequence[str] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """The notes on the records to train and test on, one sentence each."""
        of_tests = notes_on_values(self.test_mix.sources, self.test_pipeline.statistics, self.test_mix.labels)
        unknown = (
            "whether test records equal records to train on is not known; they are read as they are needed, and not "
            "compared."
        )
        notes = [*self.rare_classes, *self.overlaps, *(of_source(name, unknown) for name in self.not_compared)]
        notes += [f"test records of {note}" for note in of_tests]
        if isinstance(self.task, Language) and not np.asarray(self.held_out.known).any():
            notes.append("bits per byte are not told, as nobody knows the text of tokens: set source.NAME.tokenizer.")
        if isinstance(self.task, Regression):
            text = "its test labels are all the same, so that it has no r2, and does not count in r2/mean and r2/worst."
            variances = zip(self.num_test_records, np.asarray(self.held_out.known), strict=True)
            notes += [of_source(name, text) for name, variance in variances if variance == 0]
        return [*self.built.plan.drawn(), *self.built.notes_on(self.pipeline), *notes]

    def broken(self) -> str:
        """The values of each source for which the loss is not finite, such as NaN; empty if there are none."""
        kinds = {
            (words, name): what_is_broken(leaves[leaf])
            for name, leaves in self.pipeline.statistics.items()
            for leaf, words in (("image", "images"), ("features", "features"), ("label", "labels"))
            if leaf in leaves and leaf in (self.task.leaf, "label")
        }
        return "; ".join(f"the {words} of {name} hold {broken}" for (words, name), broken in kinds.items() if broken)

    def mend(self) -> str:
        """The advice on how to fix the values that `broken` names."""
        settings = [
            source.choice("without_features", "drop")
            for name, source in self.built.sources.items()
            if source.target == "table"
            and self.task.leaf == "features"
            and self.pipeline.statistics[name]["features"].nan
        ]
        other = "mend them with an operator of your own, or leave those records out"
        return f"set {' '.join(settings)}, or {other.partition(',')[0]}" if settings else other

    def moments(self) -> Moments:
        """The mean and deviation of each leaf that the task standardises, over the first records of the mix."""
        if not self.task.standardized:
            return []
        size, length = self.pipeline.batch_size, self.pipeline.plan.length
        count = min(-(-_MEASURED // size), _MEASURED if length is None else length // size)
        batches, moments = list(islice(self.pipeline.iterator(), count)), []
        for leaf in self.task.standardized:
            values = np.ma.masked_invalid(np.concatenate([np.asarray(each[leaf], np.float64) for each in batches]))
            deviation = np.ma.filled(values.std(axis=0), 1)
            mean = np.ma.filled(values.mean(axis=0), 0)
            moments.append((jnp.float32(mean), jnp.float32(np.where(deviation > 0, deviation, 1))))
        return moments

    @property
    def num_test_batches(self) -> int:
        """The number of batches that hold all test records."""
        return -(-sum(self.num_test_records.values()) // self.task.test_batch)


def open_data(config: Config, like: Data | None = None) -> Data:
    """Read the mix to train on and its test records.

    Args:
      config: The configuration of a job that trains.
      like: The data of a run that only differs in weights and seeds, whose records are shared; None to read them.

    Raises:
      DatamixError: A source cannot be opened, or a model cannot be trained or tested on the records.
    """
    for name in _OF_ALL:
        if any(source.name == name for source in config.sources):
            text, mend = f"metrics that end in /{name} are of all sources together", "as in source=digits@other."
            raise ConfigError(text, key=f"source.{name}", hint=f"Give it another name, {mend}")
    built = _built(config)
    task_of = choose(built)
    if like is not None:
        built = built.completed(all_counts=True)
        return replace(like, built=built, pipeline=built.pipeline(like.pipeline.reader, like.pipeline.statistics))
    opened = [held_out(source, built.locations) for source in config.sources]  # fails before anything is read
    built = built.completed(all_counts=True)
    task = task_of(built)
    test_mix = viewed(built, opened, batch_size=task.test_batch)
    _check_specs(built, test_mix)
    test_pipeline = test_mix.pipeline()
    num_test_records = {name: source.num_records for name, source in test_mix.sources.items()}
    if isinstance(task, Classification):
        _check_labels(test_pipeline, num_test_records)
    pipeline = built.pipeline()
    if isinstance(task, Language):
        _check_tokens(pipeline, task.num_outputs)
        _check_tokens(test_pipeline, task.num_outputs)
    is_regression = isinstance(task, Regression)
    known = _label_variances(test_pipeline, num_test_records) if is_regression else of_outputs(task, built)
    fed = [name for name in built.sources if "host" in (built.placements[name], test_mix.placements[name])]
    resident, is_classification = _resident(built, fed), isinstance(task, Classification)
    num_labels = {name: num_classes(built, name) for name in resident} if is_classification else {}
    return Data(
        built=built,
        test_mix=test_mix,
        pipeline=pipeline,
        test_pipeline=test_pipeline,
        held_out=HeldOut(
            test_pipeline.compiled,
            test_pipeline.start(),
            jnp.asarray(np.uint32(test_mix.plan.length or 0)),
            jnp.asarray(known),
        ),
        num_test_records=num_test_records,
        task=task,
        rare_classes=notes_on_rare_classes(resident, num_labels) if is_classification else (),
        overlaps=notes_on_overlaps(resident, _resident(test_mix, fed)),
        not_compared=tuple(fed),
        disjoint_classes=is_classification and _disjoint(built),
    )


def _built(config: Config) -> Built:
    """Build the mix to train on; it ends after `train.tokens` if that is set."""
    if config.train is None or config.train.tokens is None:
        return build(config)
    try:
        return build(replace(config, mix=replace(config.mix, tokens=config.train.tokens)))
    except SpecError as error:
        if error.key != "stop.tokens":
            raise
        text = "it counts the tokens of records, and a source of this mix has none"
        raise ConfigError(text, key="train.tokens", value=config.train.tokens, hint="Set train.steps.") from error


def _check_specs(built: Built, test_mix: Assembly) -> None:
    """Refuse test records whose leaves differ in shape or dtype from those to train on."""
    unneeded = {"loss_weight"} if built.loss_weight else set()  # tests do not use it
    tested, trained = test_mix.spec(), built.spec()
    needed = (trained.keys() | tested.keys()) - unneeded
    if differing := sorted(leaf for leaf in needed if tested.get(leaf) != trained.get(leaf)):
        shown = (f"{leaf} {tested.get(leaf, 'nothing')}, not {trained.get(leaf, 'nothing')}" for leaf in differing)
        mend = "let an operator that is not random, such as resize or cast, make the shape and dtype"
        raise ConfigError(f"tests leave random operators out, and their records would have {'; '.join(shown)}; {mend}.")


def _check_labels(test_pipeline: Pipeline, num_test_records: Mapping[str, int]) -> None:
    """Refuse a source whose test records all lack a class."""
    for name, count in num_test_records.items():
        statistic = test_pipeline.statistics[name].get("label")
        if statistic is not None and statistic.num_unlabelled(count) >= count:
            text = (
                f"none of its {count:,} test records has a class, so that there is nothing to test; hold labelled "
                f"records out: {holding_out(name)}."
            )
            raise DataError(of_source(name, text))


def _check_tokens(pipeline: Pipeline, num_tokens: int) -> None:
    """Refuse a source with tokens outside the mix's vocabulary."""
    for name, leaves in pipeline.statistics.items():
        least, most = (getattr(leaves.get("tokens"), bound, None) or 0 for bound in ("min", "max"))
        if least < 0 or most >= num_tokens:
            text = f"its tokens are {least:.0f} to {most:.0f}, and those of the mix are {num_tokens:,} from 0."
            raise DataError(of_source(name, text))


def _label_variances(pipeline: Pipeline, num_records: Mapping[str, int]) -> np.ndarray:
    """The variance of the test labels of each source about the source's mean, float32 [num_sources].

    It is computed in float64: sums in float32 are too coarse if labels are far from 0 or from those of other sources.
    """
    total = sum(num_records.values())
    batches = islice(pipeline.iterator(), -(-total // pipeline.batch_size))  # the last one extends past the end
    # Copies, as a view would keep the other leaves of its batch in memory.
    pairs = [(np.array(batch["label"]), np.array(batch["source_id"])) for batch in batches]
    label, source = (np.concatenate(column)[:total] for column in zip(*pairs, strict=True))
    labels = [np.asarray(label[source == place], np.float64) for place in range(len(num_records))]
    # The mean of equal numbers may differ from them by a rounding error, which must not count as variance.
    return np.array([0 if np.ptp(each) == 0 else each.var() for each in labels], np.float32)


def _disjoint(built: Built) -> bool:
    labels = [label for of_source in classes(built).values() for label in of_source]
    return 0 < len(labels) == len(set(labels))


def _resident(built: Assembly, fed: Collection[str]) -> dict[str, OpenSource]:
    """The sources except `fed`, whose records are read on the host as they are needed."""
    return {name: source for name, source in built.sources.items() if name not in fed}
