"""Batches by loop: chunks that are computed ahead, and where an iterator stands."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.pipeline.iterator import block_steps, chunk_program


def mixed(side: int = 2, batch_size: int = 4, **settings: Any) -> datamix.Pipeline:
    image = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, side, side, 1), np.uint8)
    sources = {"a": {"image": image, "label": np.arange(7)}, "b": {"image": image[:5], "label": np.arange(5)}}
    return datamix.mix(sources, batch_size=batch_size, labels="keep", **settings)


def assert_equal(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert mine.keys() == theirs.keys()
    for leaf in mine:
        np.testing.assert_array_equal(mine[leaf], theirs[leaf])


@pytest.mark.parametrize(("side", "batch_size"), [(2, 4), (64, 16), (512, 100)])
def test_chunks_are_bounded_in_bytes_and_blocks_are_whole_chunks(side: int, batch_size: int) -> None:
    pipeline = mixed(side, batch_size, stop="forever")
    program = chunk_program(pipeline.compiled.program)
    batch_bytes = batch_size * (side * side + 4 + 4)
    assert program.num_rows == batch_size
    assert 1 <= program.num_steps <= max(1, 2**24 // batch_bytes)
    assert block_steps(program) % program.num_steps == 0
    assert block_steps(program) > 0


def test_a_loop_crosses_chunks_and_blocks() -> None:
    pipeline = mixed(stop="forever")
    program = chunk_program(pipeline.compiled.program)
    for border in (program.num_steps, block_steps(program)):
        iterator = pipeline.iterator(start=border - 2)
        for step in range(border - 2, border + 2):
            assert iterator.step == step
            assert_equal(next(iterator), pipeline[step])


def test_an_iterator_at_its_end_stays_there_until_it_is_restored() -> None:
    pipeline = mixed(stop="exhaust_once", remainder="keep")
    iterator = pipeline.iterator()
    first = iterator.state()
    batches = list(iterator)
    assert (len(batches), iterator.step) == (3, 3)
    assert list(iterator) == []
    last = iterator.state()
    iterator.restore(first)
    for mine, theirs in zip(iterator, batches, strict=True):
        assert_equal(mine, theirs)
    iterator.restore(last)
    assert next(iterator, None) is None


def test_a_state_is_small_and_says_where_the_iterator_stands() -> None:
    iterator = mixed(stop="forever").iterator(start=10**9)
    next(iterator)
    state = iterator.state()
    assert state["step"] == 10**9 + 1
    assert len(json.dumps(state)) < 1000
    assert json.loads(json.dumps(state)) == state


def test_iterators_of_one_pipeline_do_not_disturb_each_other() -> None:
    pipeline = mixed(stop="forever")
    expected = [pipeline[step] for step in range(6)]
    one, other = pipeline.iterator(), pipeline.iterator(start=2)
    pairs = list(islice(zip(one, other, strict=False), 4))
    del one, other  # what they had computed ahead is taken up by the next one
    for step, (mine, theirs) in enumerate(pairs):
        assert_equal(mine, expected[step])
        assert_equal(theirs, expected[step + 2])
    for mine, theirs in zip(pipeline, expected, strict=False):
        assert_equal(mine, theirs)
