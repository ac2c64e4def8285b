"""Checkpoints: bit for bit, whole or not at all, and refused where they do not fit."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal

import jax
import numpy as np
import pytest

from datamix.errors import StateError
from datamix.training.checkpoints import Checkpoints
from datamix.training.learner import TrainState, is_key


@pytest.fixture
def state():
    """A state of every kind of array there is."""
    return TrainState(
        params={"layer": [jax.numpy.float32([0.1, -1e-30]), jax.numpy.bfloat16(2)]},
        rest={"stream": jax.random.key(5), "count": jax.numpy.uint32(3)},
        optimizer=({"learning_rate": jax.numpy.float32(0.3)}, None),
    )


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for leaf, same in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert leaf.dtype == same.dtype
        both = [jax.random.key_data(part) if is_key(part) else part for part in (leaf, same)]
        np.testing.assert_array_equal(*both)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path, state):
    kept = Checkpoints(tmp_path)
    assert kept.last() is None
    position = {"mix": {"step": 3}, "lines": [{"step": 3, "loss": 0.1}]}
    kept.save(3, state, position)
    again = Checkpoints(tmp_path)
    assert again.last() == 3
    assert again.facts(3) == position
    assert_same(again.state(3, jax.tree.map(lambda leaf: leaf if is_key(leaf) else 0 * leaf, state)), state)


def test_the_last_two_are_kept(tmp_path, state):
    kept = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        kept.save(step, state, {"at": step})
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "3"}
    assert [kept.facts(step) for step in (2, 3)] == [{"at": 2}, {"at": 3}]
    kept.clear()
    assert kept.last() is None


def test_one_half_written_does_not_count(tmp_path, state):
    kept = Checkpoints(tmp_path)
    kept.save(1, state, {})
    (tmp_path / "checkpoints" / ".2").mkdir()
    assert Checkpoints(tmp_path).last() == 1


def test_one_of_another_version_is_refused_in_one_line(tmp_path, state):
    kept = Checkpoints(tmp_path)
    kept.save(4, state, {"mix": {}})
    orbax = tmp_path / "checkpoints" / "4" / "position" / "metadata"
    orbax.parent.mkdir()
    (tmp_path / "checkpoints" / "4" / "digests.json").unlink()
    for number in (4, 2, None):  # the first version had none
        orbax.write_text(json.dumps({"mix": {}} | ({"format": number} if number else {})))
        again = Checkpoints(tmp_path)
        assert again.last() == 4
        with pytest.raises(
            StateError,
            match=rf"^train\.resume: .*/4 was written by another version of datamix, in format {number or 1}; "
            r"this one reads format 5\. Resume it with that version, or start afresh without train\.resume\.$",
        ):
            again.facts(4)


def test_a_full_disk_is_an_error_of_the_system(tmp_path, state):
    kept = Checkpoints(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    large = TrainState(params={"layer": jax.random.normal(jax.random.key(0), (100_000,))}, rest={}, optimizer=())
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as raised:
            kept.save(1, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.filename == str(tmp_path / "checkpoints" / "1")


@pytest.mark.slow
def test_a_damaged_one_is_named(make, trained):
    run = trained(make())
    for path in (run.directory / "checkpoints" / "6").rglob("*"):
        if path.is_file() and path.stat().st_size > 500:
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StateError, match=r"checkpoints/6 is damaged \(.*\)\. Delete it to go on from the one before"):
        make("train.resume=true")


def test_a_single_flipped_bit_is_refused_and_the_one_before_goes_on(tmp_path, state):
    kept = Checkpoints(tmp_path)
    for step in (3, 4):
        kept.save(step, state, {"mix": {"step": step}})
    again = Checkpoints(tmp_path)
    for path in (tmp_path / "checkpoints" / "4").rglob("*"):
        whole = path.read_bytes() if path.is_file() else b""
        for byte in range(0, len(whole), max(1, len(whole) // 6)):
            path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 4]) + whole[byte + 1 :])
            for read in (again.facts, lambda step: again.state(step, state)):
                with pytest.raises(
                    StateError,
                    match=r"^train\.resume: .*checkpoints/4 is damaged \(.*\)\. Delete it to go on from the one before",
                ):
                    read(4)
            path.write_bytes(whole)
    assert again.facts(4) == {"mix": {"step": 4}}
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    before = Checkpoints(tmp_path)
    assert before.last() == 3
    assert before.facts(3) == {"mix": {"step": 3}}
    assert_same(before.state(3, state), state)


def test_one_without_its_digests_is_half_written(tmp_path, state):
    kept = Checkpoints(tmp_path)
    for step in (3, 4):
        kept.save(step, state, {})
    (tmp_path / "checkpoints" / "4" / "digests.json").unlink()
    again = Checkpoints(tmp_path)
    assert again.last() == 3
    again.save(4, state, {})
    assert again.last() == 4


def test_a_deletion_that_was_killed_does_not_keep_the_next_one_from_its_end(tmp_path, state):
    kept = Checkpoints(tmp_path)
    kept.save(1, state, {})
    shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "checkpoints" / ".1.deleted")
    kept.clear()
    assert [*(tmp_path / "checkpoints").iterdir()] == []
