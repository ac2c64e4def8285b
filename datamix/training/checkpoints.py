"""Checkpoints: all that a run needs to go on as if it had never been stopped, in one atomic step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from datamix.errors import StateError
from datamix.training.learner import State, is_key

_KEPT = 2  # the one before the last is there should the disk lose the last


class Checkpoints:
    """The checkpoints of one run, in `checkpoints/` of its directory; one that is half written does not count.

    Args:
      directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory.absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.path, options=options)

    def last(self) -> int | None:
        """Step of the last one; None where there is none."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, state: State, position: Mapping[str, Any]) -> None:
        """Write a checkpoint; once this returns, it is whole on the disk.

        Args:
          step: that is done.
          state: after it.
          position: in the mix and in the run; JSON.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_numbers(state)), position=ocp.args.JsonSave(dict(position))
        )
        self._manager.save(step, args=items, force=True)

    def position(self, step: int) -> dict[str, Any]:
        """What `save` was given.

        Raises:
          StateError: the checkpoint is damaged.
        """
        with self._damage(step):
            read = self._manager.restore(step, args=ocp.args.Composite(position=ocp.args.JsonRestore()))
            position: dict[str, Any] = dict(read.position)
            return position

    def state(self, step: int, like: State) -> State:
        """The state that `save` was given.

        Args:
          step: of a checkpoint.
          like: any state of the same learner.

        Raises:
          StateError: the checkpoint is damaged.
        """
        with self._damage(step):
            numbers = ocp.args.StandardRestore(_numbers(like))
            read = self._manager.restore(step, args=ocp.args.Composite(state=numbers)).state
        leaves, structure = jax.tree.flatten_with_path(like)
        restored: State = jax.tree.unflatten(structure, [_typed(read[_name(path)], leaf) for path, leaf in leaves])
        return restored

    def clear(self) -> None:
        """Remove all of them."""
        for step in self._manager.all_steps():
            self._manager.delete(step)

    def close(self) -> None:
        """Leave the directory as it is."""
        self._manager.close()

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise StateError(
                f"train.resume: {self.path / str(step)} is damaged ({str(error).splitlines()[0]}); delete it to go on "
                "from the one before."
            ) from error


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _numbers(state: State) -> dict[str, np.ndarray]:
    """Every array by its name; of random keys, their words."""
    return {_name(path): np.asarray(_words(leaf)) for path, leaf in jax.tree.leaves_with_path(state)}


def _words(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _typed(numbers: np.ndarray, like: jax.Array) -> jax.Array:
    array = jnp.asarray(numbers)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)) if is_key(like) else array
