"""Cursors: positions in the mix that a program reads, moves on and returns."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import datamix
from datamix.pipeline.cursor import Cursor

FEW = {name: {"label": np.arange(size) % 3} for name, size in {"a": 7, "b": 5}.items()}


def load(*overrides: str) -> datamix.Pipeline:
    return datamix.load("batch.size=4", "labels=keep", *overrides, sources=FEW)


@pytest.mark.parametrize(
    "mix", [("mix.ratio=2:1",), ("mix=concat",), ("mix=random",), ("mix=round_robin", "mix.granularity=batch")]
)
@pytest.mark.parametrize("step", [0, 3, 10**6])
def test_moving_on_is_starting_later(mix: tuple[str, ...], step: int) -> None:
    pipeline = load("stop=forever", *mix)
    cursor = pipeline.start(step)
    for after in range(step + 1, step + 4):
        _, cursor = pipeline.next(cursor)
        later = pipeline.start(after)
        # The period may have begun at another slot; the same batches follow.
        assert [int(word) for word in cursor.position] == [int(word) for word in later.position]
        for mine, theirs in zip(pipeline.next(cursor)[0].values(), pipeline.next(later)[0].values(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_cursor_is_a_tree_of_32_bit_words() -> None:
    cursor = load("stop=forever").start(5)
    assert {leaf.dtype for leaf in jax.tree.leaves(cursor)} == {np.dtype(np.uint32)}
    assert {name: leaf.shape for name, leaf in cursor._asdict().items() if leaf is not None} == {
        "position": (2,), "stage": (), "slot": (), "epoch": (2,), "offset": (2,),
    }  # fmt: skip
    assert isinstance(jax.tree.map(lambda leaf: leaf, cursor), Cursor)


def test_positions_need_more_than_one_word() -> None:
    pipeline = load("stop=forever")
    assert pipeline.start(2**30).position.tolist() == [1, 0]
    _, cursor = pipeline.next(pipeline.start(2**30 - 1))
    assert cursor.position.tolist() == [1, 0]
