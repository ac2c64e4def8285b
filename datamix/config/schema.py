"""The configuration as frozen dataclasses: every setting with its type, its key in the YAML and its meaning.

`datamix.config.check` reads them from a configuration and has msgspec check types and bounds, without conversion: true,
3.0 and "3" are not integers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta


@dataclass(frozen=True)
class Key:
    """The key of a field in the YAML, if it is not the name of the field.

    Attributes:
      path: The full key, or the key relative to the group of the dataclass; `group.*` stands for all keys of a group
        that no other field names.
      kind: The kind of component that the value names, see `datamix.registry`; empty if it names none.
    """

    path: str
    kind: str = ""


LARGEST = 2**63 - 1
"""The largest position."""
Count: TypeAlias = Annotated[int, Meta(ge=1, le=LARGEST)]
Rate: TypeAlias = Annotated[float, Meta(gt=0, le=sys.float_info.max)]


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """One operator of a chain.

    Attributes:
      name: Its registered name.
      settings: Its keyword settings.
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source, from the keys below `source.<name>`.

    Attributes:
      name: Its name in this mix; a member of a mix within the mix has a path, such as "vision.mnist".
      target: The registered name of the kind of dataset, which builds the source.
      settings: Keyword settings of the target.
      operators: The operators on each of its records.
      records: An `.npy` file with the numbers of the records to use; None for all records of the split.
      where: A condition on the records to use, such as "label < 5"; see `datamix.sources.conditions`.
      limit: How many of the first of these records are used; None for all.
      balance: The leaf whose values, such as classes, come equally often; None for none.
      record_weight: The leaf of weights by which records are drawn, with replacement; None to go through all records.
      seed: The seed of its shuffle and its random operators; None for that of the mix.
      class_names: The names of its classes; empty for those that come with the dataset.
      num_classes: The number of classes; None for the number of class names, or as found from the labels of the whole
        dataset. For records of tokens, the size of the vocabulary.
      label: What the leaf `label` is: class (its number), number (to predict), vector, or none, which leaves it out;
        None to decide by its values.
      unlabelled: Whether to refuse or keep records whose label is negative or NaN, and so not a class; those that are
        kept are left out of loss and accuracy.
      stand_in: The registered name of the source that may stand in for it; None for none.
      test_split: The split on which models are tested; None for "test".
      placement: Where its records lie; None for `data.placement`.
    """

    name: str
    target: Annotated[str, Key("_target_", kind="source")]
    settings: Annotated[Mapping[str, Any], Key("*")]
    operators: tuple[OperatorConfig, ...] = ()
    records: str | None = None
    where: str | None = None
    limit: Count | None = None
    balance: str | None = None
    record_weight: str | None = None
    seed: int | None = None
    class_names: tuple[str, ...] = ()
    num_classes: Count | None = None
    label: Literal["class", "number", "vector", "none"] | None = None
    unlabelled: Literal["refuse", "keep"] = "refuse"
    stand_in: Annotated[str | None, Key("stand_in", kind="source")] = None
    test_split: str | None = None
    placement: Literal["auto", "device", "host"] | None = None


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """The settings of the mix: the groups `mix`, `stop` and `weighting`.

    Attributes:
      order: The registered name of the order.
      settings: Keyword settings of the order.
      stop: The registered name of the stop.
      stop_settings: Keyword settings of the stop.
      granularity: What the order places: single records, or whole batches of one source.
      ratio: The ratio of all sources in their order, such as "7:3"; None if weights or shares decide.
      weights: Relative weights by source.
      share: Absolute shares by source, each in [0, 1].
      group_weights: The weights of the members of sources that are themselves mixes, by path.
      weighting_rule: The registered name of the rule for weights that are not given.
      weighting_settings: Its keyword settings.
      schedule: Weights that change with the step, see `datamix.mixing.schedules.phases`; None if they do not.
      unit: What follows the ratio: "record", "tokens", or the leaf that holds the length of each record.
      loss_weight: Weights in the loss by source, or "inverse_share"; see `datamix.mixing.loss_weights`.
      max_epochs: How many epochs of a source the mix has at most, by source.
      at_max_epochs: What happens after that: the source leaves the mix ("drop"), or the run is refused ("error").
      epochs: After how many epochs a source counts as finished, by source.
      samples: The number of records after which the mix ends; None if only the stop ends it.
      batches: The number of batches after which the mix ends, if that is earlier; parsing includes it in `samples`.
      tokens: The number of tokens after which the mix ends, with the record that reaches it.
      simulate_budget: The number of records of a larger run to simulate: only a part of each source is used, so that
        this run repeats it as often as the larger run would repeat the source.
    """

    order: Annotated[str, Key("mix._target_", kind="order")]
    settings: Annotated[Mapping[str, Any], Key("mix.*")] = field(default_factory=dict)
    stop: Annotated[str, Key("stop._target_", kind="stop")]
    stop_settings: Annotated[Mapping[str, Any], Key("stop.*")] = field(default_factory=dict)
    granularity: Annotated[Literal["record", "batch"], Key("mix.granularity")] = "record"
    ratio: Annotated[Any, Key("mix.ratio")] = None
    weights: Annotated[Mapping[str, Any], Key("mix.weights")] = field(default_factory=dict)
    share: Annotated[Mapping[str, Any], Key("mix.share")] = field(default_factory=dict)
    group_weights: Mapping[str, Any] = field(default_factory=dict)
    weighting_rule: Annotated[str, Key("weighting._target_", kind="weighting")] = "equal"
    weighting_settings: Annotated[Mapping[str, Any], Key("weighting.*")] = field(default_factory=dict)
    schedule: Annotated[Any, Key("mix.schedule")] = None
    unit: Annotated[str, Key("mix.unit")] = "record"
    loss_weight: Annotated[Any, Key("mix.loss_weight")] = field(default_factory=dict)
    max_epochs: Annotated[Mapping[str, Any], Key("mix.max_epochs")] = field(default_factory=dict)
    at_max_epochs: Annotated[Literal["drop", "error"], Key("mix.at_max_epochs")] = "drop"
    epochs: Annotated[Mapping[str, Any], Key("stop.epochs")] = field(default_factory=dict)
    samples: Annotated[Count | None, Key("stop.samples")] = None
    batches: Annotated[Count | None, Key("stop.batches")] = None
    tokens: Annotated[Count | None, Key("stop.tokens")] = None
    simulate_budget: Annotated[Count | None, Key("mix.simulate_budget")] = None

    @property
    def weighting(self) -> Mapping[str, Any]:
        """The rule for weights that are not given, in the form of `Plan`: its name under "rule", and its settings."""
        return {"rule": self.weighting_rule, **self.weighting_settings}


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The settings of a sweep: how its jobs are compared, and where earlier sweeps lie.

    Attributes:
      metric: The metric by which jobs are compared.
      goal: Whether a larger or a smaller metric is better; "auto" decides by its name.
      resume: Whether to skip jobs that are done.
      directories: The directories of the sweeps to report on.
      goal_weights: Weights by source; the metric is then the weighted mean over sources.
      num_next: How many ratios to propose.
      auto: How many further rounds of `num_next` ratios a sweep may run by itself while they promise a gain.
      verbose: Whether a sweep prints everything that its jobs print.
    """

    metric: Annotated[str, Key("sweep.metric")]
    goal: Annotated[Literal["auto", "max", "min"], Key("sweep.goal")]
    resume: Annotated[bool, Key("sweep.resume")]
    directories: Annotated[tuple[str, ...], Key("sweep.dir")] = ()
    goal_weights: Annotated[Mapping[str, Annotated[float, Meta(ge=0)]], Key("sweep.goal_weights")] = field(
        default_factory=dict
    )
    num_next: Annotated[Count, Key("sweep.num_next")] = 3
    auto: Annotated[Annotated[int, Meta(ge=0)], Key("sweep.auto")] = 0
    verbose: Annotated[bool, Key("sweep.verbose")] = False


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of training: the groups `model` and `optimizer`, and the keys of `train`.

    Attributes:
      model: The registered name of the model.
      model_settings: Its keyword settings.
      optimizer: The registered name of the optimizer.
      optimizer_settings: Its keyword settings.
      learning_rate: The learning rate at the schedule's peak.
      schedule: The registered name of the schedule.
      schedule_settings: Its keyword settings.
      steps: The number of batches to train on; None for the whole mix.
      tokens: Instead of steps, train on as many whole batches as hold this many tokens; None for `steps`.
      eval_every: Steps between two tests.
      log_every: Steps between two lines of `metrics.jsonl`; None for one at every test.
      checkpoint_every: Steps between two checkpoints, which are written at tests; None for one at every test.
      keep_predictions: Whether `predictions.npz` keeps the outputs of the trained model for all test records.
      curves: Whether `curves.png` is drawn; None to draw it unless the job belongs to a sweep, whose page shows the
        curves of all jobs.
      resume: Whether to continue from the last checkpoint; "changed" continues even if the mix was another one.
      devices: The number of devices of each process that train together, each on its rows of every batch; None for the
        largest number among which a batch can be divided equally.
      distributed: Whether several processes that a cluster has started train together; `JAX_COORDINATOR_ADDRESS` in
        the environment has the same effect.
    """

    model: Annotated[str, Key("model._target_", kind="model")]
    model_settings: Annotated[Mapping[str, Any], Key("model.*")]
    optimizer: Annotated[str, Key("optimizer._target_", kind="optimizer")]
    optimizer_settings: Annotated[Mapping[str, Any], Key("optimizer.*")]
    learning_rate: Annotated[Rate, Key("optimizer.learning_rate")]
    schedule: Annotated[str, Key("optimizer.schedule")]
    schedule_settings: Mapping[str, Any]
    steps: Annotated[Count | None, Key("train.steps")] = None
    tokens: Annotated[Count | None, Key("train.tokens")] = None
    eval_every: Annotated[Count, Key("train.eval_every")]
    log_every: Annotated[Count | None, Key("train.log_every")] = None
    checkpoint_every: Annotated[Count | None, Key("train.checkpoint_every")] = None
    keep_predictions: Annotated[bool, Key("train.keep_predictions")] = False
    curves: Annotated[bool | None, Key("train.curves")] = None
    resume: Annotated[bool | Literal["changed"], Key("train.resume")]
    devices: Annotated[Count | None, Key("train.devices")] = None
    distributed: Annotated[bool, Key("train.distributed")] = False


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How the weights of the mix follow training: the group `adapt`.

    Attributes:
      rule: The registered name of the policy.
      settings: Its keyword settings.
      every: Steps between two updates of the weights.
      floor: The least weight of every source.
      warmup: Steps before the first update.
      max_epochs: How many epochs of a source the mix has at most; None for no limit.
      export: The name under which a run writes its weights as a schedule; None to write none.
    """

    rule: Annotated[str, Key("adapt._target_", kind="policy")]
    settings: Annotated[Mapping[str, Any], Key("adapt.*")]
    every: Annotated[Count, Key("adapt.every")] = 10
    floor: Annotated[float, Meta(ge=0, le=1), Key("adapt.floor")] = 0.01
    warmup: Annotated[int, Meta(ge=0, le=2**31), Key("adapt.warmup")] = 0
    max_epochs: Annotated[Annotated[int, Meta(ge=1, le=2**31 - 1)] | None, Key("adapt.max_epochs")] = None
    export: Annotated[str | None, Key("adapt.export")] = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration of a run, checked.

    Attributes:
      job: The registered name of the job; empty for a pipeline without a job.
      job_settings: Keyword settings of the job.
      seed: The seed of all random draws.
      shuffle: How records are shuffled within their source, see `datamix.mixing.plan.Plan`.
      labels: How labels are numbered: "union" gives the classes of each source numbers of their own, "keep" leaves
        labels as they are.
      sources: The sources in order.
      mix: How they are mixed.
      operators: The operators on every record, after the mix.
      batch_size: The number of records in a batch.
      remainder: Whether to drop or keep the records at the end of the mix that do not fill a batch.
      shuffle_rows: Whether the rows of each batch are permuted, as a function of the seed and the step.
      skip: Ranges of steps that are left out, as in [[100, 110]]; see `datamix.pipeline.batching.parse_skip`.
      data_dir: The directory of prepared TFDS datasets; None for TFDS's default.
      cache_dir: The directory of decoded records; None for the default.
      stand_in: Whether a built-in dataset may stand in for one that is not available.
      placement: Where records lie: "device", all in the device's memory; "host", read as needed; "auto", by their size.
      device_bytes: The limit on the bytes of records on the device under "auto"; None for a share of its memory.
      prefetch_bytes: The limit on the bytes of records read ahead on the host; None for the default.
      threads: The number of threads that read on the host; None for the default.
      adapt: How the weights follow training; None if they do not.
      sweep: How the jobs of a sweep are compared.
      train: How a model is trained; None for jobs that do not train one.
    """

    job: Annotated[str, Key("job._target_", kind="job")] = ""
    job_settings: Annotated[Mapping[str, Any], Key("job.*")] = field(default_factory=dict)
    seed: int
    shuffle: Any
    labels: Literal["union", "keep"]
    sources: tuple[SourceConfig, ...]
    mix: MixConfig
    operators: tuple[OperatorConfig, ...] = ()
    batch_size: Annotated[int, Meta(ge=1, le=2**31 - 1), Key("batch.size")]
    remainder: Annotated[Literal["drop", "keep"], Key("batch.remainder")]
    shuffle_rows: Annotated[bool, Key("batch.shuffle")] = False
    skip: Any = None
    data_dir: Annotated[str | None, Key("data.dir")] = None
    cache_dir: Annotated[str | None, Key("data.cache")] = None
    stand_in: Annotated[bool, Key("data.stand_in")]
    placement: Annotated[Literal["auto", "device", "host"], Key("data.placement")] = "auto"
    device_bytes: Annotated[Count | None, Key("data.device_bytes")] = None
    prefetch_bytes: Annotated[Count | None, Key("data.prefetch_bytes")] = None
    threads: Annotated[Annotated[int, Meta(ge=1, le=1024)] | None, Key("data.threads")] = None
    adapt: AdaptConfig | None = None
    sweep: SweepConfig
    train: TrainConfig | None = None

    @property
    def budget(self) -> int | None:
        """The number of records that a run goes through; None if no setting says it."""
        steps = self.train.steps if self.train is not None else None
        return steps * self.batch_size if steps is not None else self.mix.samples
