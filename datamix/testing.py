"""Checks for sources, operators and pipelines, your own included: each raises AssertionError with what is wrong.

`traces` counts what is compiled.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datamix.operators.base import traits
from datamix.pipeline import tracing
from datamix.pipeline.pipeline import Pipeline
from datamix.sources.base import Source
from datamix.spec import Record, spec_of


def check_source(source: Source) -> None:
    """Check that a source keeps what it says: its spec, its number of records, the same records every time.

    >>> from datamix.sources.arrays import MemoryArrays
    >>> check_source(MemoryArrays({"label": np.arange(3)}))
    """
    assert isinstance(source, Source), f"{type(source).__name__} lacks a member of datamix.sources.base.Source"
    said, size = dict(source.spec), source.num_records
    assert source.provenance, "provenance is empty"
    first, second = source.read(), source.read()
    found = spec_of(first)
    assert found == said, f"spec says {said}, but read() gives {found}"
    for leaf, values in first.items():
        assert len(values) == size, f"num_records says {size}, but read() gives {len(values)} of {leaf!r}"
        assert np.array_equal(values, second[leaf]), f"read() gives other values of {leaf!r} the second time"
    if source.class_names and "label" in first and size:
        largest = int(first["label"].max())
        assert largest < len(source.class_names), f"label {largest} has no name among {len(source.class_names)}"


def check_operator(function: Callable[..., Record], record: Mapping[str, Any], **settings: Any) -> None:
    """Check that an operator is pure and keeps what its traits promise.

    Args:
      function: registered with `datamix.operator`.
      record: an example of what it takes; leaves as NumPy or JAX arrays.
      settings: of the operator.

    >>> from datamix.operators.image import normalize
    >>> check_operator(normalize, {"image": np.ones((2, 2, 1), np.float32)}, mean=0.5, std=0.1)
    """
    promised = traits(function)
    example = {leaf: jnp.asarray(value) for leaf, value in record.items()}
    keys = (jax.random.key(0),) if promised.random else ()

    def apply(record: Record) -> Record:
        return function(dict(record), *keys, **settings)

    given = dict(example)
    expected = function(given, *keys, **settings)
    assert given.keys() == example.keys(), "the operator changed the record it was given, instead of a copy"
    _assert_same(apply(example), expected, "the second time")
    _assert_same(jax.jit(apply)(example), expected, "under jit")
    stacked = {leaf: jnp.stack([value, value]) for leaf, value in example.items()}
    mapped = jax.vmap(apply)(stacked)
    _assert_same({leaf: value[1] for leaf, value in mapped.items()}, expected, "under vmap")
    if promised.elementwise:
        flat = apply({leaf: value.reshape(-1) if value.ndim else value for leaf, value in example.items()})
        shaped = {leaf: value.reshape(expected[leaf].shape) for leaf, value in flat.items()}
        _assert_same(shaped, expected, "on flat leaves, though it is elementwise,")


def check_resume(pipeline: Pipeline, steps: int = 8) -> None:
    """Check that batches are the same by loop, by index and after a restore at every step.

    Args:
      pipeline: of any mix.
      steps: how many batches to look at, at most.
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

    Pipelines that differ in ratio, seed or constants run one program: the second of them traces nothing.

    Yields:
      How often each program was traced inside the block, by name; empty where nothing was.

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


def _assert_same(found: Mapping[str, Any], expected: Mapping[str, Any], when: str) -> None:
    assert found.keys() == expected.keys(), f"{when} it gives the leaves {sorted(found)}, not {sorted(expected)}"
    for leaf in expected:
        mine, theirs = np.asarray(found[leaf]), np.asarray(expected[leaf])
        same = mine.shape == theirs.shape and mine.dtype == theirs.dtype
        close = same and np.allclose(mine.astype(np.float64), theirs.astype(np.float64), rtol=1e-4, atol=1e-5)
        assert close, f"{when} it gives another {leaf!r}"
