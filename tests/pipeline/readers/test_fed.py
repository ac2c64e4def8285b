"""Records that are read on the host: every batch is the one of resident records, bit for bit."""

from __future__ import annotations

import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import datamix
from datamix.errors import ConfigError, DataError
from datamix.operators import to_float
from datamix.pipeline.program import Compiled
from datamix.pipeline.readers import host
from datamix.pipeline.readers.fed import Fed, failures_named
from datamix.sources.arrays import MemoryArrays, arrays
from datamix.spec import Arrays
from datamix.testing import registered, traces


def _arrays(size: int, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {"image": draw.integers(0, 256, (size, *shape), dtype=np.uint8), "label": draw.integers(0, 4, size)}


with registered():  # this module is imported before any test begins

    @datamix.operator(random=True)
    def _noise(record: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        return {**record, "image": record["image"] + jax.random.uniform(key, record["image"].shape)}


class _Counted(MemoryArrays):
    """A source that counts the records that are asked for, and is not looked at where it lies."""

    count = num_calls = 0

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        _Counted.count += len(indices)
        _Counted.num_calls += 1
        super().take(indices, out)


class _InPlace(_Counted):
    """One that is looked at there."""

    @property
    def in_memory(self) -> Arrays:
        return self.arrays


_SOURCES = {"a": _arrays(37, (4, 3, 1), 0), "b": _arrays(20, (4, 3, 1), 1), "c": _arrays(50, (2, 3, 1), 2)}
_RESIZE = {"resize": {"height": 4, "width": 3}}
_OPERATORS: dict[str, list[Any]] = {"a": [to_float, _noise], "b": [to_float, _noise], "c": [_RESIZE, to_float, _noise]}

_MIXES = st.fixed_dictionaries(
    {
        "order": st.sampled_from(["proportional", "random", "round_robin", "concat"]),
        "stop": st.sampled_from(["first_exhausted", "all_exhausted", "exhaust_once", "forever"]),
        "granularity": st.sampled_from(["record", "batch"]),
        "remainder": st.sampled_from(["drop", "keep"]),
        "shuffle": st.sampled_from(["full", "window(7)", "none"]),
        "batch_size": st.sampled_from([1, 5, 8]),
        "shuffle_rows": st.booleans(),
        "seed": st.integers(0, 3),
    }
)


def _assert_equal(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for leaf, values in expected.items():
        assert actual[leaf].dtype == values.dtype
        np.testing.assert_array_equal(actual[leaf], values, err_msg=leaf)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mix=_MIXES,
    weights=st.one_of(st.none(), st.fixed_dictionaries({"a": st.integers(1, 4), "c": st.integers(1, 3)})),
    names=st.sampled_from(["ab", "abc", "c"]),
    hosted=st.sets(st.sampled_from("abc"), min_size=1),
    staged=st.sets(st.sampled_from("abc")),
    threads=st.sampled_from([1, 2, 5]),
    prefetch_bytes=st.sampled_from([1, 500, None]),
    start=st.integers(0, 6),
    shards=st.sampled_from([1, 2]),
)
@example(  # a call for a single row
    mix={"order": "proportional", "stop": "first_exhausted", "batch_size": 1},
    weights=None,
    names="abc",
    hosted={"a", "b"},
    staged={"a"},
    threads=1,
    prefetch_bytes=1,
    start=0,
    shards=1,
)
@pytest.mark.filterwarnings("ignore:.*(never seen|gives no record)")
def test_batches_are_those_of_resident_records(
    mix: dict[str, Any],
    weights: dict[str, int] | None,
    names: str,
    hosted: set[str],
    staged: set[str],
    threads: int,
    prefetch_bytes: int | None,
    start: int,
    shards: int,
) -> None:
    sources = {name: _SOURCES[name] for name in names}
    if weights is not None and names == "abc" and mix["order"] in ("proportional", "random"):
        mix = {**mix, "schedule": [{"until": 3, "weights": weights}, {"weights": {"b": 2}}]}
    operators = {name: _OPERATORS[name] for name in names}
    try:
        resident = datamix.mix(sources, operators=operators, **mix, placement="device")
    except ConfigError:
        return  # the mix holds no whole batch, or the order takes no such setting
    fed = datamix.mix(
        {name: _Counted(leaves) if name in staged else leaves for name, leaves in sources.items()},
        operators=operators,
        **mix,
        placement={name: "host" for name in hosted if name in names} or "host",
        threads=threads,
        prefetch_bytes=prefetch_bytes,
    )
    assert fed.fingerprint == resident.fingerprint
    shards = min(shards, mix["batch_size"])
    for rank in range(shards):
        expected = list(itertools.islice(resident.iterator(start=start, shard=(rank, shards)), 12))
        iterator = fed.iterator(start=start, shard=(rank, shards))
        for number, batch in enumerate(expected):
            _assert_equal(next(iterator), batch)
            if number == 4:
                state = json.loads(json.dumps(iterator.state()))
                iterator = fed.iterator(shard=(rank, shards))
                iterator.restore(state)
        if len(expected) < 12:
            with pytest.raises(StopIteration):
                next(iterator)
    for step in {0, start, start + 3}:
        if resident.plan.length is None or step < len(resident):
            _assert_equal(fed[step], resident[step])


@pytest.fixture
def pipelines() -> Callable[..., tuple[datamix.Pipeline, datamix.Pipeline]]:
    def pair(**keywords: Any) -> tuple[datamix.Pipeline, datamix.Pipeline]:
        sources = {"a": _SOURCES["a"], "b": _SOURCES["b"], "c": _SOURCES["c"]}
        keywords = {"operators": _OPERATORS, "stop": "forever", "batch_size": 8} | keywords
        return datamix.mix(sources, **keywords), datamix.mix(sources, placement={"a": "host", "c": "host"}, **keywords)

    return pair


@pytest.mark.parametrize("shard", [pytest.param((0, 1), marks=pytest.mark.slow), (1, 3)])
def test_resident_and_fed_sources_in_one_mix(
    pipelines: Callable[..., tuple[datamix.Pipeline, datamix.Pipeline]], shard: tuple[int, int]
) -> None:
    resident, fed = pipelines(stop="exhaust_once", remainder="keep", weights={"a": 2}, shuffle_rows=True)
    batches = zip(fed.iterator(shard=shard), resident.iterator(shard=shard), strict=True)
    assert sum(1 for batch, expected in batches if _assert_equal(batch, expected) is None) == len(resident)


def _sums(compiled: Any, cursor: Any) -> jax.Array:
    def step(cursor: Any, _: None) -> tuple[Any, jax.Array]:
        batch, cursor = compiled.next(cursor)
        return cursor, batch["image"].sum(axis=(1, 2, 3))

    sums: jax.Array = jax.lax.scan(step, cursor, None, length=5)[1]
    return sums


@pytest.mark.slow
def test_compiled_programs_call_back(pipelines: Callable[..., tuple[datamix.Pipeline, datamix.Pipeline]]) -> None:
    resident, fed = pipelines()
    scan = jax.jit(_sums)
    np.testing.assert_array_equal(scan(fed.compiled, fed.start(3)), scan(resident.compiled, resident.start(3)))
    cursors = jax.tree.map(lambda *words: jnp.stack(words), fed.start(1), fed.start(7))
    vmapped = jax.jit(jax.vmap(_sums, in_axes=(None, 0)))
    np.testing.assert_array_equal(vmapped(fed.compiled, cursors), vmapped(resident.compiled, cursors))
    batch, _ = fed.next(fed.start(2))
    _assert_equal({leaf: np.asarray(values) for leaf, values in batch.items()}, resident[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"), [((5,), "uint8"), ((3, 2, 1), "int16"), ((), "int32"), ((3,), "bool"), ((3,), "float32")]
)
@pytest.mark.parametrize("hosted", ["a", "b", "ab", "abc"])
@pytest.mark.parametrize("first", [0, 1])
def test_whole_numbers_in_memory_are_looked_at_where_they_lie(
    shape: tuple[int, ...], dtype: str, hosted: str, first: int
) -> None:
    draw = np.random.default_rng(0)
    data = {  # aligned as NumPy does it, and by an element less
        name: {"x": draw.integers(0, 99, (size + 1, *shape)).astype(dtype)[first:][:size]}
        for name, size in {"a": 37, "b": 20, "c": 11}.items()
    }
    mix: dict[str, Any] = {"batch_size": 8, "stop": "forever"}
    resident = datamix.mix(data, **mix, placement="device")
    placement: Any = dict.fromkeys(hosted, "host")
    sources = {name: _InPlace(leaves) for name, leaves in data.items()}
    fed = datamix.mix(sources, **mix, placement=placement)
    _Counted.count = 0
    iterator = fed.iterator()
    for step in range(12):
        batch = next(iterator)
        _assert_equal(batch, resident[step])
        _assert_equal(fed[step], batch)
    assert (_Counted.count == 0) == (dtype != "float32")  # of which those that are NaN are told
    record_bytes = next(iter(data["a"].values()))[0].nbytes
    sources_read = [row["bytes_per_s"] > 0 for name, row in iterator.metrics()["sources"].items() if name in hosted]
    assert all(sources_read)
    assert iterator.metrics()["bytes"] % record_bytes == 0


@pytest.mark.slow
def test_what_lies_otherwise_in_memory_is_read() -> None:
    draw = np.random.default_rng(0)
    wide = draw.integers(0, 99, (40, 8), dtype=np.uint8)
    for values in (wide[:, ::2], wide.T.copy().T, wide.astype(">i4"), wide.astype(np.int64)):
        fed = datamix.mix({"a": {"x": values}}, batch_size=8, placement="host", shuffle="none")
        assert [batch["x"].tolist() for batch in fed] == values.reshape(5, 8, -1).tolist()
    mixed = {"a": {"x": wide}, "b": _Counted({"x": wide})}  # of one storage group
    fed = datamix.mix(mixed, batch_size=8, placement="host", shuffle="none", stop="forever")
    _Counted.count = 0
    _assert_equal(next(fed.iterator()), datamix.mix(mixed, batch_size=8, shuffle="none", stop="forever")[0])
    assert _Counted.count > 0


@pytest.mark.parametrize("is_bounded", [False, True])
def test_mapped_files_are_looked_at_where_they_lie_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_bounded: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (60, 8), np.uint8)
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "label.npy", np.arange(60) % 3)
    sources = {"a": arrays(files={"x": str(tmp_path / "x.npy"), "label": str(tmp_path / "label.npy")})}
    if is_bounded:
        monkeypatch.setattr(host, "MAPPED_BYTES", 100)
    fed = datamix.mix(sources, batch_size=8, placement="host", stop="forever")
    resident = datamix.mix(sources, batch_size=8, placement="device", stop="forever")
    iterator = fed.iterator()
    for step in range(12):
        _assert_equal(next(iterator), resident[step])
    assert (iterator.metrics()["window_fill"] is None) != is_bounded  # nobody waits for what is not read
    os.truncate(tmp_path / "x.npy", 300)
    with pytest.raises(DataError, match=r"^source 'a': .*x\.npy has been cut short to 300 of 608 bytes"):
        deque(iterator, maxlen=0)
    with pytest.raises(DataError, match=r"^source 'a': .*x\.npy has been cut short to 300 of 608 bytes"):
        fed[3]


def test_labels_of_another_dtype_are_looked_at_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"x": np.zeros((40, 4), np.uint8), "label": np.arange(40)}
    wide = {"x": np.zeros((40, 4), np.uint8), "label": np.where(np.arange(40) == 33, 2**40, 1)}
    for small in (True, False):
        monkeypatch.setattr(host, "COPIED_BYTES", 2**20 if small else 0)
        fed = datamix.mix({"a": data}, batch_size=8, placement="host", shuffle="none", labels="keep")
        iterator = fed.iterator()
        assert [batch["label"].tolist() for batch in iterator] == np.arange(40).reshape(5, 8).tolist()
        assert (iterator.metrics()["window_fill"] is None) == small
    fed = datamix.mix({"a": wide}, batch_size=8, placement="host", shuffle="none", labels="keep")
    with pytest.raises(DataError, match="1099511627776"):  # when it is taken
        deque(fed.iterator(), maxlen=0)


def test_labels_in_memory_are_checked() -> None:
    data = {"image": np.zeros((40, 2, 2, 1), np.uint8), "label": np.array([0, 1] * 19 + [0, 7], np.int32)}
    fed = datamix.mix({"a": data}, batch_size=8, placement="host", shuffle="none", num_classes={"a": 2})
    iterator = fed.iterator()
    for _ in range(4):
        next(iterator)
    with pytest.raises(DataError, match="label 7 is none of the 2 classes"):
        next(iterator)


def test_batches_of_compiled_programs_are_read_once_and_ahead() -> None:
    fed = datamix.mix({"a": _Counted(_SOURCES["a"])}, batch_size=8, stop="forever", placement="host", threads=1)
    scan, _Counted.count = jax.jit(_sums), 0
    scan(fed.compiled, fed.start())
    sums = scan(fed.compiled, fed.start(5))
    np.testing.assert_array_equal(sums, [fed[step]["image"].sum(axis=(1, 2, 3)) for step in range(5, 10)])
    assert _Counted.count == (10 + 1 + 5) * 8  # those of both programs, one ahead, those that they are compared with


@pytest.mark.parametrize(("prefetch_bytes", "num_calls"), [(None, 2), (400, 6)])
def test_a_scan_reads_several_batches_at_once(prefetch_bytes: int | None, num_calls: int) -> None:
    """Two scans of six batches: each is read in one call, or in three of two batches where no more may be in memory."""
    data = {"a": _Counted({"image": _SOURCES["a"]["image"]})}
    settings: dict[str, Any] = {"batch_size": 8, "stop": "forever", "threads": 1, "prefetch_bytes": prefetch_bytes}
    fed = datamix.mix(data, placement="host", **settings)

    @jax.jit
    def scanned(compiled: Compiled, cursor: datamix.Cursor) -> Any:
        def step(carry: int, batch: Mapping[str, jax.Array], _: Any) -> tuple[int, jax.Array]:
            return carry, batch["image"]

        return compiled.scan(step, cursor, 0, jnp.arange(6))[2]

    _Counted.num_calls = 0
    images = [np.asarray(scanned(fed.compiled, fed.start(first))) for first in (0, 6)]
    assert num_calls <= _Counted.num_calls <= num_calls + 1  # one more is read ahead
    np.testing.assert_array_equal(np.concatenate(images), [fed[step]["image"] for step in range(12)])


@pytest.mark.slow
def test_other_weights_share_the_data_and_the_program(
    pipelines: Callable[..., tuple[datamix.Pipeline, datamix.Pipeline]],
) -> None:
    resident, fed = pipelines()
    next(iter(fed))
    with traces() as counts:
        batch = next(iter(fed.with_weights({"c": 5})))
    assert sum(counts.values()) == 0
    _assert_equal(batch, resident.with_weights({"c": 5})[0])
    assert isinstance(fed.reader, Fed)


def test_a_large_batch_does_not_stall_the_call_back() -> None:
    size = 2**16
    data = {"image": np.arange(size, dtype=np.uint8).reshape(-1, 1), "label": np.arange(size) % 7}
    fed = datamix.mix({"x": data}, batch_size=size, stop="forever", placement="host", shuffle="none")
    label = jax.jit(lambda compiled, cursor: compiled.next(cursor)[0]["label"])(fed.compiled, fed.start())
    np.testing.assert_array_equal(label, np.arange(size) % 7)


def test_a_compiled_pipeline_needs_its_pipeline() -> None:
    fed = datamix.mix({"a": _SOURCES["a"]}, batch_size=8, placement="host")
    compiled, cursor = fed.compiled, fed.start()
    del fed
    with pytest.raises(ConfigError, match="the Pipeline that this computes with is gone"), failures_named():
        jax.block_until_ready(compiled.next(cursor))


class _Broken(MemoryArrays):
    """A source one of whose records cannot be read."""

    def take(self, indices: np.ndarray, out: Arrays) -> None:
        if 13 in indices:
            raise DataError("photo.jpg is broken")
        super().take(indices, out)


def test_an_error_comes_at_the_batch_that_needs_the_record() -> None:
    source = _Broken(_SOURCES["a"])
    fed = datamix.mix({"a": source}, batch_size=4, placement="host", shuffle="none", operators=[to_float])
    resident = datamix.mix({"a": _SOURCES["a"]}, batch_size=4, shuffle="none", operators=[to_float])
    iterator = fed.iterator()
    for step in range(3):
        _assert_equal(next(iterator), resident[step])
    for _ in range(2):  # nothing is skipped, however often it is tried
        with pytest.raises(DataError, match=r"^source 'a': photo\.jpg is broken$"):
            next(iterator)
        assert iterator.step == 3
    with pytest.raises(DataError, match="broken"):
        fed[3]
    _assert_equal(fed[4], resident[4])
    for step, batch in enumerate(fed.iterator(start=4), start=4):
        _assert_equal(batch, resident[step])
    with pytest.raises(DataError, match=r"^source 'a': photo\.jpg is broken$"), failures_named():
        jax.block_until_ready(fed.compiled.next(fed.start(3)))
