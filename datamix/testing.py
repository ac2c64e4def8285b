"""Checks for the parts of a mix, including your own; each raises an AssertionError that says what is wrong.

`traces` counts compilations; `registered` undoes the registrations inside its block.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datamix.errors import ConfigError
from datamix.mixing.demand import Demand
from datamix.mixing.groups import Group
from datamix.mixing.periods import Period
from datamix.mixing.plan import Plan
from datamix.mixing.stops import Stop
from datamix.mixing.table_fills import largest_deviation
from datamix.mixing.weights import Number, as_fraction
from datamix.operators.base import traits
from datamix.pipeline import tracing
from datamix.pipeline.pipeline import Pipeline
from datamix.registry import registered as registered
from datamix.sources.base import ReadableSource, Source, read_leaf
from datamix.sources.objects import as_source
from datamix.spec import Arrays, Record, spec_of


def check_source(data: Any) -> None:
    """Check that a source is what it says: its spec, its number of records, and the same records every time.

    Args:
      data: A source, or anything that `datamix.sources.objects.as_source` turns into one.

    >>> from datamix.sources.arrays import MemoryArrays
    >>> check_source(MemoryArrays({"label": np.arange(3)}))
    >>> check_source([{"label": 0}, {"label": 1}])
    """
    source = as_source(data)
    spec, size = dict(source.spec), source.num_records
    assert source.provenance, "provenance is empty"
    if isinstance(source, ReadableSource):
        arrays = source.read()
        again, method = source.read(), "read()"
    else:
        arrays = _records(source, np.arange(size))
        again, method = _records(source, np.arange(size)), "take()"
    actual = spec_of(arrays)
    assert actual == spec, f"spec says {spec}, but {method} gives {actual}"
    for leaf, values in arrays.items():
        assert len(values) == size, f"num_records says {size}, but {method} gives {len(values)} of {leaf!r}"
        assert np.array_equal(values, again[leaf]), f"{method} gives other values of {leaf!r} the second time"
    if source.class_names and "label" in arrays and size:
        largest = int(arrays["label"].max())
        assert largest < len(source.class_names), f"label {largest} has no name among {len(source.class_names)}"
    draw = np.random.default_rng(0)
    for count in (1, size, 2 * size) if size else (0,):
        indices = draw.integers(0, max(size, 1), count)
        for leaf, values in _records(source, indices).items():
            same = np.array_equal(values, arrays[leaf][indices])
            assert same, f"take() of the records {indices.tolist()[:8]} gives other values of {leaf!r} than {method}"
    for leaf in spec:
        same = np.array_equal(read_leaf(source, leaf), arrays[leaf])
        assert same, f"take() of {leaf!r} alone gives other values than {method}"


def _records(source: Source, indices: np.ndarray) -> Arrays:
    """Take records of a source into arrays that hold other values before."""
    out = {leaf: np.full((len(indices), *part.shape), 1, part.dtype) for leaf, part in source.spec.items()}
    source.take(indices, out)
    return out


def check_operator(function: Callable[..., Record], record: Mapping[str, Any], **settings: Any) -> None:
    """Check that an operator is pure and keeps what its traits promise.

    Args:
      function: The function registered with `datamix.operator`.
      record: An example record; its leaves are NumPy or JAX arrays.
      settings: The settings of the operator.

    >>> from datamix.operators.image import normalize
    >>> check_operator(normalize, {"image": np.ones((2, 2, 1), np.float32)}, mean=0.5, std=0.1)
    """
    promised = traits(function)
    example = {leaf: jnp.asarray(value) for leaf, value in record.items()}
    key = jax.random.key(0)

    def apply(record: Record) -> Record:
        return function(*promised.arguments(dict(record), key), **settings)

    argument = dict(example)
    expected = function(*promised.arguments(argument, key), **settings)
    assert argument.keys() == example.keys(), "the operator changed the record it was given, instead of a copy"
    _assert_same(apply(example), expected, "the second time")
    _assert_same(jax.jit(apply)(example), expected, "under jit")
    stacked = {leaf: jnp.stack([value, value]) for leaf, value in example.items()}
    mapped = jax.jit(jax.vmap(apply))(stacked)
    _assert_same({leaf: value[1] for leaf, value in mapped.items()}, expected, "under vmap")
    if promised.elementwise:
        flat = apply({leaf: value.reshape(-1) if value.ndim else value for leaf, value in example.items()})
        shaped = {leaf: value.reshape(expected[leaf].shape) for leaf, value in flat.items()}
        _assert_same(shaped, expected, "on flat leaves, though it is elementwise,")


_WEIGHTS = ((1, 1, 1), (2, 1), (5, 0, 3, 2), (0, 1, 1), (1,))
_SLOTS = 1000


def check_order(order: Callable[..., Period], *, bound: float | None = None, **settings: Any) -> None:
    """Check that an order fills periods whose methods agree.

    The order fills stages of one to four sources, some without a share. It may refuse some of them with a
    `ConfigError`, but not all.

    Args:
      order: The function registered with `datamix.order`.
      bound: The most slots that a source may ever be away from its exact share; None if the order promises none.
      settings: The settings of the order.

    >>> from datamix.mixing.orders import proportional, random
    >>> check_order(proportional, bound=1)
    >>> check_order(random, replacement=True)
    """
    refusals = []
    for weights in _WEIGHTS:
        shares = [Fraction(weight, sum(weights)) for weight in weights]
        names = tuple("abcd"[: len(weights)])
        demand = Demand(group=Group.flat(shares), remaining=[100] * len(weights), names=names)
        try:
            period, again = order(demand, **settings), order(demand, **settings)
        except ConfigError as error:
            refusals.append(f"{weights}: {error}")
            continue
        _check_period(period, again, demand, bound, f"with weights {weights}")
    assert len(refusals) < len(_WEIGHTS), f"it refuses every mix: {'; '.join(refusals)}"


def _check_period(period: Period, again: Period, demand: Demand, bound: float | None, where: str) -> None:
    assert isinstance(period, Period), f"{where}, it gives {period!r}, which is no datamix.mixing.periods.Period"
    source, number = period.take(0, _SLOTS)
    dtypes = [str(source.dtype), str(number.dtype)]
    assert dtypes == ["int32", "int64"], f"{where}, take gives {dtypes}, not int32 and int64"
    ids, active = set(source.tolist()), set(demand.active.tolist())
    assert ids <= active, f"{where}, sources {sorted(ids - active)} have slots, but no share"
    assert active <= ids, f"{where}, sources {sorted(active - ids)} have a share, but none of the first {_SLOTS} slots"
    assert np.array_equal(again.take(0, _SLOTS)[0], source), f"{where}, it fills other slots the second time"
    for start in (1, 7, _SLOTS - 1):
        for part, whole in zip(period.take(start, _SLOTS - start), (source, number), strict=True):
            assert np.array_equal(part, whole[start:]), f"{where}, take({start}, …) differs from take(0, …)"
    for start in (0, 5, 10 * _SLOTS + 1):
        _check_walk(period, start, where)
    if bound is not None:
        off = largest_deviation(source, [float(share) for share in demand.shares])
        assert off <= bound, f"{where}, a source is {off:.3f} slots away from its share, more than {bound:g}"


def _check_walk(period: Period, start: int, where: str) -> None:
    """Check that take, counts and slot_of agree from slot `start` on."""
    counts = period.counts(start)
    assert sum(counts) == start, f"{where}, counts({start}) adds up to {sum(counts)}"
    source, number = period.take(start, 100)
    for slot, (i, n) in enumerate(zip(source.tolist(), number.tolist(), strict=True), start=start):
        if not period.repeats_records:  # drawn records are not counted
            assert n == counts[i], f"{where}, slot {slot} is number {n} of source {i}, which had {counts[i]} before"
            got = period.slot_of(i, n)
            assert got == slot, f"{where}, slot_of({i}, {n}) is {got}, not {slot}"
        counts[i] += 1
    assert period.counts(start + 100) == counts, f"{where}, counts({start + 100}) is not what take gives"


def check_stop(stop: Callable[..., Stop], **settings: Any) -> None:
    """Check that a stop ends mixes, unless it is endless, and repeats records only if it says so.

    Args:
      stop: The function registered with `datamix.stop`.
      settings: The settings of the stop; those that name sources may name any.

    >>> from datamix.mixing.stops import exhaust_once
    >>> check_stop(exhaust_once)
    """
    rule = stop(**settings)
    assert isinstance(rule, Stop), f"it gives {rule!r}, which is no datamix.mixing.stops.Stop"
    assert stop(**settings) == rule, "it gives another stop the second time"
    names = dict.fromkeys([*rule.sources, *rule.epochs, "a", "b"])
    sizes = {name: 5 + 4 * i for i, name in enumerate(names)}
    for order in ("proportional", "round_robin", "random"):
        plan = Plan(sizes, stop=rule, order=order)
        assert (plan.length is None) == (rule.waits_for is None), f"mix={order} has {plan.length} records"
        if plan.length is None:
            continue
        slots = plan.take(0, plan.length)
        for i, (name, size) in enumerate(sizes.items()):
            most = int(np.bincount(slots.record[slots.source == i], minlength=size).max())
            allowed = rule.epochs.get(name, 1)
            assert rule.repeats or most <= allowed, f"mix={order} gives a record of {name} {most} times"


def check_weighting(
    weighting: Callable[..., Mapping[str, Number]], sizes: Mapping[str, int] | None = None, **settings: Any
) -> None:
    """Check that a weighting gives every source a weight, the same every time.

    Args:
      weighting: The function registered with `datamix.weighting`.
      sizes: The number of records of each source, by name; None for some made-up sources.
      settings: The settings of the weighting.

    >>> from datamix.mixing.weightings import size
    >>> check_weighting(size, temperature=2)
    """
    for example in [sizes] if sizes is not None else [{"a": 60_000, "b": 500, "c": 1}, {"group": 3}]:
        argument = dict(example)
        weights = weighting(argument, **settings)
        assert argument == dict(example), "it changed the sizes it was given, instead of a copy"
        assert isinstance(weights, Mapping), f"it gives {weights!r}, not a weight for each name"
        assert set(weights) == set(example), f"it weighs {sorted(weights)}, not {sorted(example)}"
        for name, weight in weights.items():
            try:
                as_fraction(weight, name)
            except ConfigError as error:
                raise AssertionError(str(error)) from None
        assert any(as_fraction(weight, name) for name, weight in weights.items()), "all its weights are 0"
        assert weighting(argument, **settings) == weights, "it gives other weights the second time"


def check_resume(pipeline: Pipeline, steps: int = 8) -> None:
    """Check that batches are the same by loop, by index and after a restore at every step.

    Args:
      pipeline: The pipeline of any mix.
      steps: The most batches to compare.
    """
    batches = list(islice(pipeline, steps))
    for step in range(len(batches)):
        _assert_same(pipeline[step], batches[step], f"by index {step}")
        state = json.loads(json.dumps(pipeline.iterator(start=step).state()))
        resumed = pipeline.iterator()
        resumed.restore(state)
        for after in range(step, len(batches)):
            _assert_same(next(resumed), batches[after], f"{after - step} batches after a restore at {step}")


@contextmanager
def traces() -> Iterator[Counter[str]]:
    """Count how often datamix's own programs are traced, and so compiled.

    Pipelines that differ in ratio, seed or constants share one program: only the first of them traces it.

    Yields:
      The number of traces of each program inside the block, by name; empty if nothing was traced.

    >>> import datamix
    >>> few = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.zeros(6, np.int64)}
    >>> pipeline = datamix.load("batch.size=4", "stop=forever", sources={"few": few, "fewer": few})
    >>> _ = next(iter(pipeline))
    >>> with traces() as counts:
    ...     _ = next(iter(pipeline.with_weights({"few": 3})))
    >>> sum(counts.values())
    0
    """
    before, counts = Counter(tracing.TRACES), Counter[str]()
    try:
        yield counts
    finally:
        counts.update(Counter(tracing.TRACES) - before)


def _assert_same(actual: Mapping[str, Any], expected: Mapping[str, Any], when: str) -> None:
    assert actual.keys() == expected.keys(), f"{when} it gives the leaves {sorted(actual)}, not {sorted(expected)}"
    for leaf in expected:
        mine, theirs = np.asarray(actual[leaf]), np.asarray(expected[leaf])
        same = mine.shape == theirs.shape and mine.dtype == theirs.dtype
        close = same and np.allclose(mine.astype(np.float64), theirs.astype(np.float64), rtol=1e-4, atol=1e-5)
        assert close, f"{when} it gives another {leaf!r}"
