"""`datamix.mix`, which builds a pipeline from sources and operators that are Python objects."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast, get_args

import numpy as np

from datamix import registry
from datamix.builder.assembly import Delivery, assemble
from datamix.builder.labels import Numbering
from datamix.builder.open_source import LabelKind, OpenSource, of_python
from datamix.builder.placement import Choice
from datamix.builder.selecting import select
from datamix.builder.views import view
from datamix.errors import ConfigError, DatamixError, check_choice, hint, unknown_source
from datamix.mixing.groups import by_path
from datamix.mixing.plan_spec import AtMaxEpochs, PlanSpec
from datamix.operators.base import Traits, traits
from datamix.pipeline.batching import Remainder
from datamix.pipeline.graph import Operation
from datamix.pipeline.pipeline import Pipeline
from datamix.sources.mapped import by_reference

_Value = TypeVar("_Value")

Operator: TypeAlias = Callable[..., Any] | str | tuple[Callable[..., Any] | str, Mapping[str, Any]] | Mapping[str, Any]
"""A function, its registered name, or either with settings: `functools.partial(normalize, mean=0, std=1)`,
`(normalize, {"mean": 0, "std": 1})`, or as in YAML `{"normalize": {"mean": 0, "std": 1}}`."""


def mix(
    sources: Mapping[str, Any],
    *,
    operators: Mapping[str, Sequence[Operator]] | Sequence[Operator] = (),
    shared_operators: Sequence[Operator] = (),
    weights: Mapping[str, Any] | None = None,
    ratio: object = None,
    share: Mapping[str, Any] | None = None,
    weighting: str | Mapping[str, Any] = "equal",
    schedule: Sequence[Mapping[str, Any]] | None = None,
    unit: str = "record",
    loss_weight: Mapping[str, Any] | str | None = None,
    max_epochs: Mapping[str, Any] | None = None,
    at_max_epochs: AtMaxEpochs = "drop",
    order: str = "proportional",
    granularity: str = "record",
    stop: str | Mapping[str, Any] | None = None,
    epochs: Mapping[str, Any] | None = None,
    samples: int | None = None,
    batches: int | None = None,
    tokens: int | None = None,
    batch_size: int = 16,
    remainder: Remainder = "drop",
    shuffle_rows: bool = False,
    skip: Sequence[Sequence[int]] = (),
    seed: int = 0,
    seeds: Mapping[str, int] | None = None,
    shuffle: bool | str = "full",
    labels: str = "union",
    class_names: Mapping[str, Sequence[str]] | None = None,
    num_classes: Mapping[str, int] | None = None,
    label: Mapping[str, str] | None = None,
    unlabelled: Mapping[str, str] | None = None,
    records: Mapping[str, Any] | None = None,
    where: Mapping[str, str] | None = None,
    limit: Mapping[str, int] | None = None,
    balance: Mapping[str, str] | None = None,
    record_weight: Mapping[str, str] | None = None,
    placement: str | Mapping[str, str] = "auto",
    device_bytes: int | None = None,
    prefetch_bytes: int | None = None,
    threads: int | None = None,
    adapt: str | Mapping[str, Any] | None = None,
    **order_settings: Any,
) -> Pipeline:
    """Mix sources that are Python objects.

    Keywords have the meanings and defaults of the keys of the command line. A dict of values is by source; a source
    that it does not name has the default.

    Args:
      sources: By name, what `datamix.sources.objects.as_source` takes: arrays by leaf, or any object with `len()` whose
        `[i]` is record i. A dict of sources in place of a source is a mix within the mix, whose members have paths such
        as "vision.mnist".
      operators: The operators on the records of each source, or a list for all sources. An operator is a function from
        record to record, with settings as a `functools.partial` or a pair `(function, settings)`; or a registered name,
        as in YAML.
      shared_operators: The operators on every record, after the mix.
      weights: Relative weights of sources, or of mixes within the mix; by default 1.
      ratio: The ratio of all entries of `sources` in their order, in place of weights, as "7:3" or [7, 3].
      share: Absolute shares, in [0, 1]; the other sources divide the rest.
      weighting: The rule for weights that are not given, with settings as in `{"rule": "size", "temperature": 2}`.
      schedule: Weights that change with the step; see `datamix.mixing.schedules.phases`.
      unit: What follows the ratio: "record", "tokens", or the leaf that holds each record's length.
      loss_weight: Weights in the loss, which become a leaf `loss_weight`; or "inverse_share".
      max_epochs: How many epochs of a source the mix has at most.
      at_max_epochs: "drop": the source then leaves the mix, and the others keep their ratio; "error": the mix is
        refused.
      order: "proportional", "random", "round_robin", "concat" or "largest_credit".
      granularity: "record", or "batch" for whole batches of one source.
      stop: "first_exhausted", "all_exhausted", "exhaust_once" or "forever", or one with settings, as for `weighting`;
        by default "first_exhausted", or "exhaust_once" for order="concat".
      epochs: After how many epochs a source counts as finished; by default 1.
      samples: The mix ends after this many records, if it has not ended before.
      batches: The mix ends after this many batches, if it has not ended before.
      tokens: The mix ends with the record that reaches this many tokens, if it has not ended before.
      batch_size: The number of records in a batch.
      remainder: "drop" or "keep" the records at the end of the mix that do not fill a batch.
      shuffle_rows: Whether the rows of each batch are permuted, as a function of the seed and the step.
      skip: Ranges of steps that iterators leave out; with [[100, 110]], step 110 follows step 99.
      seed: The seed of all random draws.
      seeds: The seeds of the shuffle and the random operators of sources; by default `seed`.
      shuffle: "full", "window(n)" or "none".
      labels: "union" gives the classes of each source numbers of their own, in the order of the sources; "keep" leaves
        labels as they are.
      class_names: The names of a source's classes, by label.
      num_classes: The number of a source's classes; by default that of its class names, or found from its labels.
      label: What the labels of a source are: "class", "number", "vector", or "none" to leave them out; by default, this
        is decided by their dtype and values.
      unlabelled: Whether to "refuse" (the default) or "keep" records of a source whose label is negative or NaN, and so
        not a class.
      records: The numbers of the records of a source to use, as an array or an `.npy` file.
      where: A condition on the records of a source to use, such as "label < 5".
      limit: How many of the first of these records are used.
      balance: The leaf of a source, such as "label", whose values come equally often.
      record_weight: The leaf of weights by which the records of a source are drawn, with replacement.
      placement: Where records lie: "device", all in the device's memory; "host", read as needed; "auto", by their size.
        One for all sources, or by source. It does not change batches.
      device_bytes: The limit on the bytes of records on the device under "auto"; by default a quarter of an
        accelerator's memory, 1 GiB on a CPU.
      prefetch_bytes: The limit on the bytes of records read ahead on the host, 256 MiB by default; half of it limits
        the batches that an iterator computes at a time, which are 16 MiB at most.
      threads: The number of threads that read on the host; by default twice the number of processors, 2 to 16.
      adapt: The policy by which the weights follow the losses passed to `iterator.update`: its name, or its name and
        settings as in `{"rule": "odm", "every": 10, "floor": 0.01}`.
      **order_settings: The settings of the order, such as `window=64`.

    Raises:
      DatamixError: The configuration or the data is wrong; the message says in one line what, and how to fix it.

    >>> import datamix
    >>> import numpy as np
    >>> from datamix.operators import to_float
    >>> arrays = {"image": np.full((6, 2, 2, 1), 255, np.uint8), "label": np.arange(6)}
    >>> records = [{"image": np.zeros((2, 2, 1), np.float32), "label": i % 2} for i in range(4)]
    >>> pipeline = datamix.mix({"a": arrays, "b": records}, operators={"a": [to_float]}, weights={"a": 3}, batch_size=4)
    >>> pipeline[0]["source_id"].tolist(), pipeline[0]["image"].dtype
    ([0, 0, 1, 0], dtype('float32'))
    """
    arguments = dict(locals())  # before any other variable exists
    recipe = partial(mix, **arguments.pop("order_settings"), **arguments | {"sources": by_reference(sources)})
    flat: dict[str, Any] = {}
    for path, data in _flat(sources, ""):
        if path in flat:
            raise ConfigError(f"there are two sources {path!r}; a dot parts a mix from its sources", key="sources")
        flat[path] = data
    if not flat:
        raise ConfigError("a mix needs at least one source, as in {'a': {'image': …, 'label': …}}", key="sources")
    order_settings = _settings(order, order_settings)
    batch_size = _count("batch_size", batch_size)
    ends = [_count_or_none("samples", samples), (_count_or_none("batches", batches) or 0) * batch_size]
    check_choice(remainder, get_args(Remainder), "remainder")
    check_choice(labels, get_args(Numbering), "labels")
    check_choice(granularity, ("record", "batch"), "granularity")
    check_choice(at_max_epochs, get_args(AtMaxEpochs), "at_max_epochs")
    if not isinstance(operators, Mapping):
        operators = dict.fromkeys(flat, operators)
    choice = _choice("placement", placement, get_args(Choice)) if isinstance(placement, str) else "auto"
    placements = None if isinstance(placement, str) else placement
    of_sources: dict[str, dict[str, Any]] = {
        "operators": _of_sources("operators", operators, flat, _operations),
        "seed": _of_sources("seeds", seeds, flat, _whole),
        "limit": _of_sources("limit", limit, flat, _count),
        "balance": _of_sources("balance", balance, flat, _text),
        "record_weight": _of_sources("record_weight", record_weight, flat, _text),
        "chosen_names": _of_sources("class_names", class_names, flat, _names),
        "chosen_num_classes": _of_sources("num_classes", num_classes, flat, _count),
        "label": _of_sources("label", label, flat, partial(_choice, options=get_args(LabelKind))),
        "placement": _of_sources("placement", placements, flat, partial(_choice, options=get_args(Choice))),
        "unlabelled": _of_sources("unlabelled", unlabelled, flat, partial(_choice, options=("refuse", "keep"))),
    }
    records_of = _of_sources("records", records, flat, lambda _, value: value)
    where_of = _of_sources("where", where, flat, _text)
    opened = []
    for name, data in flat.items():
        settings = {field: values[name] for field, values in of_sources.items() if name in values}
        source = _open(name, data, **settings)
        opened.append(select(source, records=records_of.get(name), condition=where_of.get(name)))
    with _keywords():
        assembly = assemble(
            opened,
            PlanSpec(
                weights=weights,
                ratio=ratio,
                share=share,
                weighting=weighting,
                schedule=schedule,
                order=order,
                stop=stop or ("exhaust_once" if order == "concat" else "first_exhausted"),
                epochs=by_path(epochs),
                samples=min(filter(None, ends), default=None),
                tokens=_count_or_none("tokens", tokens),
                seed=_whole("seed", seed),
                shuffle=shuffle,
                batch_size=batch_size,
                granularity=granularity,
                max_epochs=by_path(max_epochs),
                at_max_epochs=at_max_epochs,
                settings=order_settings,
            ),
            Delivery(
                remainder=remainder,
                shuffle_rows=shuffle_rows,
                skip=skip,
                placement=cast(Choice, choice),
                device_bytes=_count_or_none("device_bytes", device_bytes),
                prefetch_bytes=_count_or_none("prefetch_bytes", prefetch_bytes),
                threads=_count_or_none("threads", threads),
            ),
            operators=_operations("shared_operators", shared_operators),
            labels=cast(Numbering, labels),
            unit=unit,
            loss_weight=loss_weight,
            adapt={"rule": adapt} if isinstance(adapt, str) else adapt,
        ).completed()
        pipeline = assembly.pipeline()
    pipeline.recipe, pipeline.viewer = recipe, partial(view, assembly)
    for note in assembly.notes_on(pipeline):
        warnings.warn(note, stacklevel=2)
    return pipeline


# The keywords of `mix` for keys of the configuration. For other keys it is the part after the group, indexed by what
# follows: mix.weights.a is weights['a'].
_KEYWORDS = {
    "mix": "order", "batch.size": "batch_size", "batch.shuffle": "shuffle_rows", "operators": "shared_operators"
}  # fmt: skip
_KEYWORD = re.compile(r"(?:mix|batch|data|stop)\.(\w+)(?:\.(.+))?")
_SETTING = re.compile(r"(?<!\S)((?:mix|stop)(?==)|(?:mix|batch|data|stop)\.[\w.]*\w)(?:=(\w+))?")


@contextmanager
def _keywords() -> Iterator[None]:
    """Turn the keys of a configuration, in errors and their advice, into the keywords of `mix`."""
    try:
        yield
    except DatamixError as error:
        text, key, advice = str(error), error.key, error.hint
        if key is not None and text.startswith(key):
            error.key = _keyword(key)
            text = error.key + text.removeprefix(key)
        if advice and text.endswith(advice):
            error.hint = _SETTING.sub(_setting, advice)
            text = text.removesuffix(advice) + error.hint
        error.args = (text,)
        raise


def _keyword(key: str) -> str:
    if key in _KEYWORDS or (match := _KEYWORD.fullmatch(key)) is None:
        return _KEYWORDS.get(key, key)
    return match[1] if match[2] is None else f"{match[1]}[{match[2]!r}]"


def _setting(match: re.Match[str]) -> str:
    if (value := match[2]) is None:
        return _keyword(match[1])
    return f"{_keyword(match[1])}={value if value.isdecimal() else repr(value)}"


def _flat(sources: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The path of each source, and the source."""
    if not isinstance(sources, Mapping):
        raise ConfigError(f"sources are given by name, as in {{'a': …}}; this is {type(sources).__name__}.")
    for name, data in sources.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{name!r} is not a name; sources are named by text", key="sources")
        of_splits = hasattr(data, "column_names")  # opening it raises an error that says how to choose one
        if isinstance(data, Mapping) and data and not of_splits and not any(_is_leaf(value) for value in data.values()):
            yield from _flat(data, f"{prefix}{name}.")
        else:
            yield prefix + name, data


def _is_leaf(value: object) -> bool:
    """Whether a value is the leaf of a dict of arrays, and not a source."""
    if isinstance(value, list | tuple):
        return not (value and isinstance(value[0], Mapping | tuple))
    is_source = isinstance(value, Mapping) or hasattr(value, "num_records") or hasattr(value, "__len__")
    if hasattr(value, "columns"):  # a DataFrame
        return False
    return hasattr(value, "__array__") or isinstance(value, str | bytes) or not is_source


def _open(name: str, data: object, **settings: Any) -> OpenSource:
    source = of_python(name, data)
    return OpenSource(name=name, source=source, provenance=source.provenance, **settings)


def _of_sources(
    argument: str, values: Mapping[str, Any] | None, sources: Mapping[str, Any], read: Callable[[str, Any], _Value]
) -> dict[str, _Value]:
    """Values by source, each checked by `read`, which takes the value and its name in errors."""
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"it is given by source, as in {{{next(iter(sources))!r}: …}}", key=argument, value=values)
    for name in values or {}:
        if name not in sources:
            raise unknown_source(name, sources, f"{argument}[{name!r}]")
    return {name: read(f"{argument}[{name!r}]", value) for name, value in (values or {}).items()}


def _whole(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError("it is a whole number", key=argument, value=value)
    return int(value)


def _count(argument: str, value: object) -> int:
    if (count := _whole(argument, value)) < 1:
        raise ConfigError("it is 1 or more", key=argument, value=value)
    return count


def _count_or_none(argument: str, value: object) -> int | None:
    return None if value is None else _count(argument, value)


def _text(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError("it is text", key=argument, value=value)
    return value


def _names(argument: str, value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ConfigError("it is a list of names", key=argument, value=value)
    return tuple(str(name) for name in value)


def _choice(argument: str, value: str, options: Sequence[str]) -> str:
    check_choice(value, options, argument)
    return value


def _settings(order: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the order, with defaults, as in a configuration."""
    known = registry.settings(registry.lookup("order", order))
    for name in settings:
        if name not in known:
            keywords = [*registry.settings(mix), *known]
            raise ConfigError(f"mix has no such keyword with order={order!r}", key=name, hint=hint(name, keywords))
    defaults = {name: each.default for name, each in known.items() if each.default is not each.empty}
    return defaults | dict(settings)


def _operations(where: str, operators: Sequence[Operator]) -> tuple[Operation, ...]:
    if isinstance(operators, str) or not isinstance(operators, Sequence):
        raise ConfigError("it is a list of operators, as in [to_float]", key=where, value=operators)
    return tuple(_operation(operator, f"{where}[{i}]") for i, operator in enumerate(operators))


def _operation(operator: Operator, where: str) -> Operation:
    """The operator that one of the forms of `Operator` stands for."""
    function: Any
    function, settings = _parts(operator)
    if isinstance(function, str):
        registry.require("operator", function, where)
        function = registry.lookup("operator", function)
    if isinstance(function, functools.partial) and not function.args:
        function, settings = function.func, function.keywords | dict(settings)
    if not callable(function) or isinstance(function, functools.partial) or not isinstance(settings, Mapping):
        text = "it is no operator, which is a function from record to record; settings are given by keyword"
        raise ConfigError(f"{text}, as in functools.partial(normalize, mean=0.5)", key=where, value=operator)
    name = getattr(function, "__name__", type(function).__name__).strip("<>")
    if isinstance(getattr(function, "traits", None), Traits):
        registry.check_settings(f"{where}.{name}", function, settings)
    else:
        try:
            inspect.signature(function).bind({}, **settings)
        except TypeError as error:
            raise ConfigError(f"{name} does not take a record and these settings: {error}", key=where) from error
    for setting, value in settings.items():
        if setting not in traits(function).traced and hasattr(value, "__array__"):
            text = "it is an array, by which no program can be told from another"
            mend = f"Declare it with traced=({setting!r},), or let the function refer to it."
            raise ConfigError(text, key=f"{where}.{name}.{setting}", hint=mend)
    return Operation(operator=name, function=function, settings=dict(settings))


def _parts(operator: Any) -> tuple[Any, Any]:
    """The function or its registered name, and the settings."""
    if isinstance(operator, tuple) and len(operator) == 2:
        return operator
    if isinstance(operator, Mapping) and len(operator) == 1:
        ((name, settings),) = operator.items()
        return name, settings or {}
    return operator, {}
