"""The inputs of a plan: `PlanSpec` as a user writes them, `ResolvedSpec` once they are checked and looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from datamix import registry
from datamix.errors import ConfigError, check_sources, hint
from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group, Rule, by_path, resolve
from datamix.mixing.record_lengths import RecordLengths, checked_lengths
from datamix.mixing.sampling import Sampling
from datamix.mixing.schedules import Phase, phases
from datamix.mixing.shuffle import BLOCK_RECORDS, Shuffle, parse_shuffle
from datamix.mixing.stages import Order
from datamix.mixing.stops import Stop
from datamix.mixing.table_fills import TABLE_SLOTS
from datamix.mixing.weights import Number
from datamix.rng import permute
from datamix.rng.hash import key_for

AtMaxEpochs: TypeAlias = Literal["drop", "error"]


class Begin(NamedTuple):
    """The point at which a plan continues another one.

    Attributes:
      position: The position in the whole mix, in records.
      counts: The number of records that each source has given before it, by name, including sources that are no longer
        mixed; a source not named has given none.
    """

    position: int
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class PlanSpec:
    """The inputs of a plan, as plain data.

    Attributes:
      sizes: The number of records of each source, by name, in order. A source named by a path, `vision.mnist`, belongs
        to the group `vision`, which takes part in the mix as one source would and divides its share among its members.
      weights: The relative weights of sources and groups within the group they belong to; one not named has 1. Strings
        and fractions are taken exactly.
      ratio: The weights of all sources and groups at the top level, in order, as "7:3" or [7, 3], in place of weights.
      share: The absolute shares, in [0, 1]; the other sources divide the rest by their weights.
      weighting: The rule that weighs sources not named in `weights`, in place of 1: its name, or its name and settings
        as in `{"rule": "size", "temperature": 2}`; see `datamix.mixing.weightings`.
      group_weights: The weights that groups themselves give their members; `weights` and `share` take precedence.
      schedule: Shares that change with the step, see `datamix.mixing.schedules.phases`.
      order: The name of the order: "proportional", "random", "round_robin", "concat", "largest_credit" or a user's.
      stop: The name of the stop: "first_exhausted", "all_exhausted", "exhaust_once", "forever" or a registered one; its
        name and settings as in `{"rule": "mine", "source": "a"}`; or a `Stop`.
      epochs: The number of epochs after which a source is exhausted, by name; one not named is after one, or as many as
        the stop sets.
      samples: The number of records after which the mix ends, unless the stop has ended it before; None for no limit.
      tokens: The number of tokens, as `num_tokens` counts them, with which the mix ends, unless it has ended before;
        None for no limit.
      seed: The seed of everything that is drawn.
      shuffle: "full" or True: visit each source in another order every epoch; "window(n)": shuffle the stored records
        within windows of n; "blocks(n)": shuffle the blocks of each source, then the records of every n blocks, so that
        few blocks are read at once; "none" or False: as stored.
      block_records: The number of records that are stored together in a file, by source; one not named has 1,024.
      sampling: How the records of some sources are drawn, by name, in place of a shuffle: `ByWeight` or `ByClass` of
        `datamix.mixing.sampling`.
      seeds: Seeds for the shuffle of single sources, by name; the others use `seed`.
      batch_size: The number of records in a batch, which defines steps, strata and batches of one source.
      granularity: "record", or "batch": every batch holds records of one source. Under stops that repeat nothing,
        records that do not fill a batch are then left out; under the others, a batch may hold the end of one epoch and
        the beginning of the next.
      lengths: The lengths of the records of each source, int [size] by name, such as numbers of tokens; the summed
        lengths then follow the ratio, not the records.
      num_tokens: The tokens of each record of the sources that have any, int [size] by name.
      max_epochs: The largest number of epochs of a source, by name; for one not named, the stop alone decides.
      at_max_epochs: What happens then: "drop": the source leaves the mix and the others keep their ratio; "error": a
        mix that would start another epoch of it is refused, and a mix without end stops there with an error.
      begin: Where the plan begins, if it continues another one: each source continues from its own count. The plan
        knows nothing of the positions before.
      settings: The settings of the order, such as `window` and `stratify` for "proportional", `replacement` for
        "random"; see `datamix.mixing.orders`.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None
    ratio: object = None
    share: Mapping[str, Any] | None = None
    weighting: str | Mapping[str, Any] = "equal"
    group_weights: Mapping[str, Number] | None = None
    schedule: Sequence[Mapping[str, Any]] | None = None
    order: str = "proportional"
    stop: str | Mapping[str, Any] | Stop = "first_exhausted"
    epochs: Mapping[str, int] | None = None
    samples: int | None = None
    tokens: int | None = None
    seed: int = 0
    shuffle: bool | str = True
    block_records: Mapping[str, int] | None = None
    sampling: Mapping[str, Sampling] | None = None
    seeds: Mapping[str, int] | None = None
    batch_size: int = 1
    granularity: str = "record"
    lengths: Mapping[str, np.ndarray] | None = None
    num_tokens: Mapping[str, np.ndarray] | None = None
    max_epochs: Mapping[str, int] | None = None
    at_max_epochs: AtMaxEpochs = "drop"
    begin: Begin | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResolvedSpec:
    """The inputs of a plan, checked, with the rules that their names stand for.

    Attributes:
      sizes: The number of records of each source, shape [num_sources].
      order: The function that fills a stage, with its settings bound.
      stop: The rule by which the mix ends.
      phases: The slot at which each phase ends, None for the last, and the shares until then.
      demand: The demand of the whole mix, with the names of the sources, the seed, the batch size and so on.
      caps: The largest number of slots of a source, by its index, where `max_epochs` sets one.
      drops_at_cap: Whether a source leaves the mix at its cap; otherwise the mix ends there with an error.
      samples: The number of records after which the mix ends in any case; None for no limit.
      shuffle: The order of the records within their sources.
      num_tokens: The tokens of each record, 0 for sources without tokens; None where they are not counted.
      begin: The slot at which the plan begins.
      base: The number of slots that each source has before it, shape [num_sources].
    """

    sizes: tuple[int, ...]
    order: Order
    stop: Stop
    phases: tuple[Phase, ...]
    demand: Demand
    caps: Mapping[int, int]
    drops_at_cap: bool
    samples: int | None
    shuffle: Shuffle
    num_tokens: RecordLengths | None
    begin: int
    base: tuple[int, ...]

    @property
    def limit(self) -> int | None:
        """The number of slots after which the mix ends in any case; None for no limit."""
        return None if self.samples is None else -(-self.samples // self.demand.slot_records)


def resolve_spec(spec: PlanSpec) -> ResolvedSpec:
    """Check the inputs of a plan, and look up the rules that they name.

    Raises:
      ConfigError: The inputs are wrong, contradict each other, or name no registered rule.
    """
    _check_sizes(spec)
    fill = registry.lookup("order", spec.order)
    stop = _stop(spec.stop)
    _check_numbers(spec)
    registry.check_settings("mix", fill, spec.settings)
    names = tuple(spec.sizes)
    sizes = tuple(int(size) for size in spec.sizes.values())
    shuffle = _shuffle(spec, names, sizes)
    slot_records = spec.batch_size if spec.granularity == "batch" else 1

    mix = _phases(spec, names, spec.batch_size // slot_records)
    epochs = dict(stop.epochs) | dict(spec.epochs or {})
    exhausted = _slots_to_exhaustion(spec, stop, epochs, mix, slot_records, shuffle.epoch_records)
    lengths, num_tokens = _record_lengths(spec, shuffle, by_batch=slot_records > 1), _num_tokens(spec, shuffle)
    limit = None if spec.samples is None else -(-spec.samples // slot_records)
    bounds = [limit, sum(exhausted) if stop.waits_for and not stop.repeats else None]
    demand = Demand(
        group=mix[0][1],
        remaining=exhausted,
        names=names,
        seed=spec.seed,
        most=min((bound for bound in bounds if bound is not None), default=None),
        batch_size=spec.batch_size,
        slot_records=slot_records,
        # All phases together get the room of two, so that changing the schedule does not recompile.
        table_slots=TABLE_SLOTS if len(mix) <= 2 else max(2**13, 2 * TABLE_SLOTS >> (len(mix) - 1).bit_length()),
        scheduled=spec.schedule is not None,
        lengths=lengths,
    )
    first, *base = _begin(spec, names, slot_records)
    return ResolvedSpec(
        sizes=sizes,
        order=partial(fill, **spec.settings),
        stop=stop,
        phases=mix,
        demand=demand,
        caps=_caps(spec, stop, epochs, slot_records, shuffle.epoch_records) if stop.repeats else {},
        drops_at_cap=spec.at_max_epochs == "drop",
        samples=spec.samples,
        shuffle=shuffle,
        num_tokens=num_tokens,
        begin=first,
        base=tuple(base),
    )


def _check_sizes(spec: PlanSpec) -> None:
    if not spec.sizes:
        raise ConfigError("a mix needs at least one source.")
    of_names = spec.sizes.values() if isinstance(spec.sizes, Mapping) else [None]
    if not all(isinstance(size, int | np.integer) for size in of_names):
        raise ConfigError("it is a number of records by name, as in {'a': 5, 'b': 3}", key="sizes", value=spec.sizes)


def _check_numbers(spec: PlanSpec) -> None:
    if spec.samples is not None and spec.samples < 1:
        raise ConfigError("it is at least 1, or null for no such limit", key="stop.samples", value=spec.samples)
    if spec.tokens is not None and (spec.tokens < 1 or not spec.num_tokens):
        text = "no source of this mix has tokens" if spec.tokens > 0 else "it is at least 1, or null for no such limit"
        raise ConfigError(text, key="stop.tokens", value=spec.tokens)
    if spec.batch_size < 1:
        raise ConfigError("it is at least 1", key="batch.size", value=spec.batch_size)


def _record_lengths(spec: PlanSpec, shuffle: Shuffle, *, by_batch: bool) -> RecordLengths | None:
    """The lengths of the records, where their sums follow the ratio."""
    if spec.lengths is None:
        return None
    if spec.sampling:
        mend = "Leave balance and record_weight out, or mix records."
        raise ConfigError(_counts_all_but(spec.sampling), key="mix.unit", hint=mend)
    return RecordLengths(stored=checked_lengths(spec.lengths, spec.sizes, by_batch=by_batch), shuffle=shuffle)


def _num_tokens(spec: PlanSpec, shuffle: Shuffle) -> RecordLengths | None:
    """The tokens of the records; None where no source has any, or they cannot be counted."""
    if spec.tokens is not None and spec.sampling:
        raise ConfigError(_counts_all_but(spec.sampling), key="stop.tokens", value=spec.tokens)
    if not spec.num_tokens or spec.sampling:
        return None
    tokens = [np.asarray(spec.num_tokens.get(name, np.zeros(size, np.int64))) for name, size in spec.sizes.items()]
    return RecordLengths(stored=tuple(tokens), shuffle=shuffle)


def _counts_all_but(sampling: Mapping[str, Sampling]) -> str:
    return f"it counts every record once an epoch, and those of {next(iter(sampling))} are drawn"


def _begin(spec: PlanSpec, names: Sequence[str], slot_records: int) -> list[int]:
    """The slot at which the plan begins, followed by the number of slots that each source has before it."""
    begin = spec.begin or Begin(0, {})
    counts = [begin.position, *(begin.counts.get(name, 0) for name in names)]
    if any(count % slot_records for count in counts):
        text = f"it cannot begin at record {begin.position}, where a source has given a part of a batch"
        raise ConfigError(text, key="mix.granularity", value=spec.granularity, hint="Mix by record, as before.")
    return [count // slot_records for count in counts]


def _shuffle(spec: PlanSpec, names: Sequence[str], sizes: tuple[int, ...]) -> Shuffle:
    kind, window = parse_shuffle(spec.shuffle)
    seeds, blocks, sampling = spec.seeds or {}, spec.block_records or {}, spec.sampling or {}
    check_sources(blocks, names, "block_records")
    check_sources(sampling, names, "sampling")
    for name, size in zip(names, sizes, strict=True):
        if not 1 <= blocks.get(name, 1) <= permute.MAX_SIZE:
            raise ConfigError("it is 1 or more, and less than 2^32", key=f"block_records.{name}", value=blocks[name])
        if name in sampling and sampling[name].num_records != size:
            text = f"source {name!r} has {size} records, and {sampling[name].num_records} are drawn from"
            raise ConfigError(text, key=f"sampling.{name}")
    return Shuffle(
        kind=kind,
        window=window,
        sizes=sizes,
        keys=tuple(key_for(seeds.get(name, spec.seed), "shuffle", name) for name in names),
        block_records=tuple(blocks.get(name, BLOCK_RECORDS) for name in names),
        sampling=tuple(sampling.get(name) for name in names),
    )


def _rule(kind: str, value: str | Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """The name of a stop or a weighting, the function registered under it, and its settings."""
    settings = dict(value) if isinstance(value, Mapping) else {"rule": value}
    name = settings.pop("rule", None)
    if not isinstance(name, str):
        raise ConfigError("it is a name, or a name under 'rule' and its settings beside it", key=kind, value=value)
    component = registry.lookup(kind, name)
    registry.check_settings(kind, component, settings)
    return name, component, settings


def _stop(value: str | Mapping[str, Any] | Stop) -> Stop:
    if isinstance(value, Stop):
        return value
    name, component, settings = _rule("stop", value)
    stop = component(**settings)
    if not isinstance(stop, Stop):
        raise ConfigError(f"it gives {stop!r}; a stop gives a datamix.mixing.stops.Stop", key="stop", value=name)
    return stop


def _weighting(value: str | Mapping[str, Any]) -> Rule:
    """The rule that weighs the sources for which a user sets no weight."""
    name, component, settings = _rule("weighting", value)

    def weigh(sizes: Mapping[str, int]) -> Mapping[str, Number]:
        weights = component(sizes, **settings)
        if not isinstance(weights, Mapping) or set(weights) != set(sizes):
            text = f"it gives {weights!r} and not one weight for each of {', '.join(sizes)}"
            raise ConfigError(text, key="weighting", value=name)
        return weights

    return weigh


def _phases(spec: PlanSpec, names: Sequence[str], slots_a_step: int) -> tuple[Phase, ...]:
    """The slot at which each phase ends, None for the last, and the shares until then."""
    divide = partial(
        resolve, names, group_weights=spec.group_weights, rule=_weighting(spec.weighting), sizes=spec.sizes
    )
    start = divide(ratio=spec.ratio, weights=spec.weights, share=spec.share)
    if spec.schedule is None:
        return ((None, start),)
    has_weights = spec.ratio is not None or bool(by_path(spec.weights)) or bool(by_path(spec.share))
    steps = phases(spec.schedule, start, has_weights, divide)
    return tuple((None if until is None else until * slots_a_step, group) for until, group in steps)


def _check_epochs(spec: PlanSpec, stop: Stop, epochs: Mapping[str, int]) -> None:
    names = list(spec.sizes)
    for name in stop.sources:
        if name not in names:
            text = f"it waits for source {name!r}, which is not in this mix"
            raise ConfigError(text, key="stop", hint=hint(name, names))
    for key, numbers in (("stop.epochs", epochs), ("mix.max_epochs", spec.max_epochs or {})):
        check_sources(numbers, names, key)
        for name, times in numbers.items():
            if isinstance(times, bool) or not isinstance(times, int) or times < 1:
                raise ConfigError("it is a whole number, 1 or more", key=f"{key}.{name}", value=times)


def _slots_to_exhaustion(
    spec: PlanSpec,
    stop: Stop,
    epochs: Mapping[str, int],
    mix: Sequence[tuple[int | None, Group]],
    slot_records: int,
    epoch_records: Sequence[int],
) -> list[int]:
    """The number of slots in which each source is exhausted."""
    _check_epochs(spec, stop, epochs)
    active = {source for _, group in mix for source, share in group.leaves() if share}
    slots = []
    for source, (name, size) in enumerate(spec.sizes.items()):
        records = epoch_records[source] * epochs.get(name, 1)
        count = -(-records // slot_records) if stop.repeats else records // slot_records
        if size < 0 or size > permute.MAX_SIZE:
            raise ConfigError(f"source {name!r} has {size} records; a source has at most 2^32 - 1.")
        if source in active and not size:
            mend = "Leave it out of source=, or set its weight to 0."
            raise ConfigError(f"source {name!r} is empty", key=f"mix.weights.{name}", hint=mend)
        if source in active and not count:
            text = f"source {name!r} has {size} records, which fill no batch"
            mend = f"Make it {size} or less, or use mix.granularity=record."
            raise ConfigError(text, key="batch.size", value=slot_records, hint=mend)
        slots.append(count)
    return slots


def _caps(
    spec: PlanSpec, stop: Stop, epochs: Mapping[str, int], slot_records: int, epoch_records: Sequence[int]
) -> dict[int, int]:
    """The largest number of slots of each source with a cap, by its index."""
    caps, ids = {}, list(spec.sizes)
    for name, times in (spec.max_epochs or {}).items():
        if stop.waits_for is not None and times < epochs.get(name, 1):
            text = f"the mix goes on until {name} has been gone through {epochs[name]} times"
            raise ConfigError(text, key=f"mix.max_epochs.{name}", value=times, hint=f"See stop.epochs.{name}.")
        source = ids.index(name)
        caps[source] = epoch_records[source] * times // slot_records
        if not caps[source]:
            raise ConfigError(f"its records fill no batch of {slot_records}", key=f"mix.max_epochs.{name}", value=times)
    return caps
