"""How many batches are computed in a call: bounded in bytes, whatever is mixed."""

from __future__ import annotations

import numpy as np
import pytest

import datamix
from datamix.pipeline import xla
from datamix.pipeline.chunks import chunk_program, loop_of, span_steps
from datamix.spec import bytes_of


def mixed(side: int, batch_size: int, *, stop: str, num_records: int = 8) -> datamix.Pipeline:
    images = {"image": np.zeros((num_records, side, side, 1), np.uint8), "label": np.zeros(num_records, np.int32)}
    return datamix.mix({"a": images}, batch_size=batch_size, stop=stop)


@pytest.mark.parametrize(("side", "batch_size"), [(2, 4), (64, 16), (512, 100)])
def test_chunks_are_bounded_in_bytes_and_blocks_are_whole_chunks(side: int, batch_size: int) -> None:
    pipeline = mixed(side, batch_size, stop="forever")
    program = chunk_program(pipeline.compiled.program)
    batch_bytes = batch_size * (side * side + 4 + 4)
    assert program.num_rows == batch_size
    assert 1 <= program.num_steps <= max(1, 2**24 // batch_bytes)
    assert span_steps(program) % program.num_steps == 0
    assert span_steps(program) > 0


@pytest.mark.parametrize("num_records", [1, 6, 83, 90, 600])
def test_chunks_of_a_short_mix_hold_hardly_more_than_it_has(num_records: int) -> None:
    source = {"image": np.zeros((num_records, 224, 300, 3), np.uint8)}
    iterator = datamix.mix({"a": source}, batch_size=1).iterator()
    size = iterator.program.num_steps
    chunks = -(-num_records // size)
    assert size <= chunk_program(iterator.program).num_steps == 83
    assert 0 <= chunks * size - num_records < (chunks if num_records < 300 else size)


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("batch_size", [1, 64, 4096])
def test_what_a_program_cuts_is_bounded_in_bytes_and_in_arrays(
    batch_size: int, placement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {"image": np.zeros((500, 32, 32, 1), np.float32)}
    pipeline = datamix.mix({"a": images}, batch_size=batch_size, stop="forever", placement=placement)
    monkeypatch.setattr(xla, "is_host", lambda _: False)
    program, num_located = loop_of(pipeline, batch_size, is_cut=True)
    batch_bytes = batch_size * bytes_of(dict(program.spec))
    assert program.num_steps == max(1, min(16, 2**24 // batch_bytes))
    assert num_located % program.num_steps == 0
    assert num_located * batch_size >= 2**17
