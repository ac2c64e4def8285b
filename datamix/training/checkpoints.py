"""Checkpoints: everything that a run needs to continue as if it had not stopped, written in one atomic step.

NumPy writes them, in a twentieth of the time that Orbax takes; for a small model, this is less than the time of a test.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from datamix.errors import StateError, first_line
from datamix.training.learner import TrainState, is_key
from datamix.training.processes import has_joined, of_first

_MAX_TO_KEEP = 2  # the last but one is a backup in case the last is damaged
# It grows when the contents change: 2 has the learning rate among the optimiser's arrays, 3 a digest of each file, 4
# the settings and the position of the mix, so that a run can continue under another mix, and 5 is written by NumPy.
_FORMAT = 5
_ARRAYS, _FACTS = "state.npz", "facts.json"
_DIGESTS = "digests.json"  # written last; a checkpoint without it is incomplete


Method = TypeVar("Method", bound=Callable[..., Any])


def _by_first(method: Method) -> Method:
    """Run a method in the first process on behalf of all, as a resumed run may have another number of processes."""

    @wraps(method)
    def run(*args: Any) -> Any:
        return of_first(partial(method, *args))

    return run  # type: ignore[return-value]


class Checkpoints:
    """The checkpoints of one run, in `checkpoints/` of its directory; incomplete ones are ignored.

    Args:
      directory: The directory of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory.absolute() / "checkpoints"
        self._whole: set[int] = set()  # the steps whose files match their digests

    def _steps(self) -> list[int]:
        return sorted(int(path.name) for path in self.path.glob("*") if path.name.isdecimal())

    @_by_first
    def last(self) -> int | None:
        """The step of the last checkpoint; None if there is none. Incomplete ones after it are deleted."""
        for step in reversed(self._steps()):
            if (self.path / str(step) / _DIGESTS).is_file() or self._read_facts(step).get("format") != _FORMAT:
                return step
            self._delete([step])
        return None

    @_by_first
    def save(self, step: int, state: TrainState, facts: Mapping[str, Any]) -> None:
        """Write a checkpoint; it is complete on the disk when this returns.

        Args:
          step: The number of steps done.
          state: The state after these steps.
          facts: Everything else to keep, in JSON's types.

        Raises:
          OSError: The checkpoint cannot be written, for example because the disk is full.
        """
        np.savez(arrays := io.BytesIO(), **numbers_of(state))  # type: ignore[arg-type]  # of savez's own keywords
        files = {_ARRAYS: arrays.getvalue(), _FACTS: json.dumps({**facts, "format": _FORMAT}).encode()}
        files[_DIGESTS] = json.dumps({name: _digest(content) for name, content in files.items()}).encode()
        path, part = self.path / str(step), self.path / f".{step}"
        try:
            shutil.rmtree(part, ignore_errors=True)  # left by a run that was killed
            part.mkdir(parents=True)
            for name, content in files.items():
                with (part / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            # Later steps are from before the run was resumed with larger batches, which makes its step smaller.
            self._delete([other for other in self._steps() if other >= step])
            part.rename(path)
        except OSError as error:  # the error of a full disk names no file
            shutil.rmtree(part, ignore_errors=True)
            raise OSError(error.errno, error.strerror, str(path)) from error
        self._delete(self._steps()[:-_MAX_TO_KEEP])

    def _delete(self, steps: list[int]) -> None:
        for step in steps:
            # Renaming is atomic: a process killed while it deletes leaves no half of a checkpoint.
            gone = self.path / f".{step}.deleted"
            shutil.rmtree(gone, ignore_errors=True)  # left by a run that was killed
            (self.path / str(step)).rename(gone)
            shutil.rmtree(gone)

    @_by_first
    def facts(self, step: int) -> dict[str, Any]:
        """The facts that were passed to `save`.

        Raises:
          StateError: The checkpoint is damaged, or has the format of another version of datamix.
        """
        path = self.path / str(step)
        if (path / _DIGESTS).is_file():
            self._check(step)
        facts = self._read_facts(step)
        if (old := facts.pop("format", 1)) != _FORMAT:
            text = f"{path} was written by another version of datamix, in format {old}; this one reads format {_FORMAT}"
            mend = "Resume it with that version, or start afresh without train.resume."
            raise StateError(text, key="train.resume", hint=mend)
        self._check(step)
        return facts

    def _read_facts(self, step: int) -> dict[str, Any]:
        path = self.path / str(step)
        of_orbax = path / "position" / "metadata"  # the facts in formats up to 4, which Orbax wrote
        with self._damage(step):
            return dict(json.loads((of_orbax if of_orbax.is_file() else path / _FACTS).read_bytes()))

    def _check(self, step: int) -> None:
        """Compare every file with its digest, before anything else reads it."""
        if step in self._whole:
            return
        path = self.path / str(step)
        with self._damage(step):
            written = json.loads((path / _DIGESTS).read_bytes())
            files = {each.relative_to(path).as_posix(): each for each in sorted(path.rglob("*")) if each.is_file()}
            digests = {name: _digest(each.read_bytes()) for name, each in files.items() if name != _DIGESTS}
            if changed := sorted(name for name in {*written, *digests} if written.get(name) != digests.get(name)):
                raise ValueError(f"{changed[0]} is not what was written")
        self._whole.add(step)

    def state(self, step: int, like: TrainState) -> TrainState:
        """The state that was passed to `save`.

        Args:
          step: The step of the checkpoint.
          like: A state of the same structure.

        Raises:
          StateError: The checkpoint is damaged.
        """
        states = [like]
        of_first(lambda: states.insert(0, self._read(step, like)))
        return state_of(broadcast_one_to_all(numbers_of(states[0])), like) if has_joined() else states[0]

    def _read(self, step: int, like: TrainState) -> TrainState:
        self._check(step)
        with self._damage(step), np.load(self.path / str(step) / _ARRAYS, allow_pickle=False) as read:
            return state_of(read, like)

    @_by_first
    def clear(self) -> None:
        """Remove all checkpoints."""
        self._delete(self._steps())

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            text = f"{self.path / str(step)} is damaged ({first_line(error)})"
            raise StateError(text, key="train.resume", hint="Delete it to go on from the one before.") from error


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def numbers_of(state: TrainState) -> dict[str, np.ndarray]:
    """The arrays of a state by name; random keys as their key data."""
    return {_name(path): np.asarray(_words(leaf)) for path, leaf in jax.tree.leaves_with_path(state)}


def state_of(numbers: Mapping[str, np.ndarray], like: TrainState) -> TrainState:
    """The inverse of `numbers_of`.

    Args:
      numbers: The arrays by name.
      like: A state of the same structure.
    """
    leaves, structure = jax.tree.flatten_with_path(like)
    state: TrainState = jax.tree.unflatten(structure, [_typed(numbers[_name(path)], leaf) for path, leaf in leaves])
    return state


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _words(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _typed(numbers: np.ndarray, like: jax.Array) -> jax.Array:
    if numbers.dtype.kind == "V" and not is_key(like):  # NumPy's files store bfloat16 as raw bytes
        numbers = np.asarray(numbers).view(like.dtype)
    array = jnp.asarray(numbers)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)) if is_key(like) else array
