"""The state of a mix in Orbax's checkpoints, of both versions."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import datamix
from datamix.errors import StateError
from datamix.interop.orbax import Checkpointable, MixHandler, MixRestore, MixSave
from datamix.pipeline.iterator import BatchIterator


def iterator(steps: int, seed: int = 0, **weights: int) -> BatchIterator:
    sources = {name: {"label": np.arange(50)} for name in "ab"}
    pipeline = datamix.mix(sources, batch_size=4, stop="forever", seed=seed, weights=weights)
    return pipeline.iterator(start=steps)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_checkpoint_manager_saves_the_mix_beside_the_model(tmp_path: Path) -> None:
    model = {"w": jnp.ones(3)}
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(5, args=ocp.args.Composite(model=ocp.args.StandardSave(model), mix=MixSave(iterator(5))))
        manager.wait_until_finished()
        assert [path.name for path in (tmp_path / "run" / "5" / "mix").glob("*.json")] == ["mix-0-of-1.json"]
        resumed = iterator(0)
        restore = ocp.args.Composite(model=ocp.args.StandardRestore(model), mix=MixRestore(resumed))
        assert manager.restore(5, args=restore).mix is resumed
        assert resumed.step == 5
        with pytest.raises(StateError, match="under another configuration: seed was 0 and is 1"):
            manager.restore(5, args=ocp.args.Composite(mix=MixRestore(iterator(0, seed=1))))
        with pytest.raises(StateError, match=r"mix\.weights\.a was 1/2 and is 3/4.*on purpose with changed='mix'"):
            manager.restore(5, args=ocp.args.Composite(mix=MixRestore(iterator(0, a=3))))
        other = manager.restore(5, args=ocp.args.Composite(mix=MixRestore(iterator(0, a=3), changed="mix"))).mix
        assert (other.step, other.state()["counts"]) == (5, {"a": 10, "b": 10})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", [ocp.Checkpointer, ocp.AsyncCheckpointer])
def test_a_checkpointer_takes_the_handler(tmp_path: Path, kind: type) -> None:
    moving, resumed = iterator(5), iterator(0)
    with kind(MixHandler()) as checkpointer:
        checkpointer.save(tmp_path / "run", args=MixSave(moving))
        next(moving)  # what is saved is the state as it was
        getattr(checkpointer, "wait_until_finished", bool)()
        checkpointer.restore(tmp_path / "run", args=MixRestore(resumed))
    assert resumed.step == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_version_1_takes_an_iterator(tmp_path: Path) -> None:
    v1 = pytest.importorskip("orbax.checkpoint.experimental.v1")
    moving = iterator(5)
    v1.save_checkpointables(tmp_path / "run", {"mix": Checkpointable(moving), "pytree": {"w": jnp.ones(3)}})
    resumed = iterator(0)
    v1.load_checkpointables(tmp_path / "run", {"mix": Checkpointable(resumed)})
    assert resumed.step == 5
    other = iterator(0, a=3)
    v1.load_checkpointables(tmp_path / "run", {"mix": Checkpointable(other, changed="mix")})
    assert len(other.state()["history"]) == 1


def test_a_state_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    handler = datamix.interop.orbax.MixHandler()
    with pytest.raises(StateError, match=r"holds no state of a mix, a file mix-\*.json; save one with MixSave"):
        handler.restore(tmp_path, args=MixRestore(iterator(0)))
    (tmp_path / "mix-0-of-1.json").write_text('{"step": ')
    with pytest.raises(StateError, match=r"mix-0-of-1\.json is damaged: Expecting value"):
        handler.restore(tmp_path, args=MixRestore(iterator(0)))
