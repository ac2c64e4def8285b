"""Checkpoints: all that a run needs to go on as if it had never been stopped, in one atomic step."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from datamix.errors import StateError, first_line
from datamix.report.files import write_text
from datamix.training.learner import State, is_key

_MAX_TO_KEEP = 2  # the one before the last is there should the disk lose the last
# Changes with what is saved: 2 has the learning rate among the optimiser's arrays, 3 a digest of each file, 4 the
# settings and the position of the mix, of which the steps may go on otherwise.
_FORMAT = 4
_DIGESTS = "digests.json"  # written last: a checkpoint without it is half written


class Checkpoints:
    """The checkpoints of one run, in `checkpoints/` of its directory; one that is half written does not count."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.path = directory.absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_MAX_TO_KEEP, enable_async_checkpointing=False, cleanup_tmp_directories=True, **more
        )
        self._manager = ocp.CheckpointManager(self.path, options=options)
        self._whole: set[int] = set()  # the steps whose files have been compared with what was written

    def last(self) -> int | None:
        """The step of the last checkpoint; None where there is none."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            if (self.path / str(step) / _DIGESTS).is_file() or self._format(step) != _FORMAT:
                return int(step)
            self._manager.delete(step)
        return None

    def save(self, step: int, state: State, facts: Mapping[str, Any]) -> None:
        """Write a checkpoint; once this returns, it is whole on the disk.

        Raises:
          OSError: Raised when the checkpoint cannot be written, as on a full disk.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(numbers_of(state)), position=ocp.args.JsonSave({**facts, "format": _FORMAT})
        )
        if step in self._manager.all_steps():  # of a run that goes on with larger batches, and counts less
            self._manager.delete(step)
        with _writing(self.path / str(step)):
            self._manager.save(step, args=items, force=True)
            write_text(self.path / str(step) / _DIGESTS, json.dumps(_digests(self.path / str(step))))
        for other in self._manager.all_steps():
            if other > step:
                self._manager.delete(other)

    def facts(self, step: int) -> dict[str, Any]:
        """The facts that `save` was given.

        Raises:
          StateError: Raised when the checkpoint is damaged, or of another version of datamix.
        """
        path = self.path / str(step)
        if not (path / _DIGESTS).is_file() and (saved := self._format(step)) != _FORMAT:
            text = (
                f"{path} was written by another version of datamix, in format {saved}; this one reads format {_FORMAT}"
            )
            mend = "Resume it with that version, or start afresh without train.resume."
            raise StateError(text, key="train.resume", hint=mend)
        self._check(step)
        facts = self._read_facts(step)
        del facts["format"]
        return facts

    def _read_facts(self, step: int) -> dict[str, Any]:
        with self._damage(step):
            read = self._manager.restore(step, args=ocp.args.Composite(position=ocp.args.JsonRestore()))
            return dict(read.position)

    def _format(self, step: int) -> int:
        return int(self._read_facts(step).get("format", 1))

    def _check(self, step: int) -> None:
        """Compare every file with what was written, before anything else reads it."""
        if step in self._whole:
            return
        path = self.path / str(step)
        with self._damage(step):
            written, present = json.loads((path / _DIGESTS).read_bytes()), _digests(path)
            if changed := sorted(name for name in {*written, *present} if written.get(name) != present.get(name)):
                raise ValueError(f"{changed[0]} is not what was written")
        self._whole.add(step)

    def state(self, step: int, like: State) -> State:
        """The state that `save` was given."""
        self._check(step)
        with self._damage(step):
            numbers = ocp.args.StandardRestore(numbers_of(like))
            read = self._manager.restore(step, args=ocp.args.Composite(state=numbers)).state
        return state_of(read, like)

    def clear(self) -> None:
        """Remove all checkpoints."""
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
            text = f"{self.path / str(step)} is damaged ({first_line(error)})"
            raise StateError(text, key="train.resume", hint="Delete it to go on from the one before.") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the error number in a message of TensorStore into an `OSError` with the path."""

    def other(record: logging.LogRecord) -> bool:
        return "raised an exception" not in record.getMessage()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            before(kind, error, trace)

    logger = logging.getLogger("absl")
    logger.addFilter(other)  # Orbax logs with a traceback what it then raises
    # After a write that failed Orbax waits for no other, and TensorStore's threads end them at any time from then on.
    before, sys.excepthook = sys.excepthook, hook
    try:
        yield
        sys.excepthook = before
    except ValueError as error:
        if (match := re.search(r"os_error_code='(\d+)'", str(error))) is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        logger.removeFilter(other)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def numbers_of(state: State) -> dict[str, np.ndarray]:
    """Every array by its name; of random keys, their words."""
    return {_name(path): np.asarray(_words(leaf)) for path, leaf in jax.tree.leaves_with_path(state)}


def state_of(numbers: Mapping[str, np.ndarray], like: State) -> State:
    """The state whose `numbers_of` these are, with the structure of another."""
    leaves, structure = jax.tree.flatten_with_path(like)
    state: State = jax.tree.unflatten(structure, [_typed(numbers[_name(path)], leaf) for path, leaf in leaves])
    return state


def _digests(directory: Path) -> dict[str, str]:
    """The digest of each file of a checkpoint, by its path within."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != _DIGESTS)
    return {
        path.relative_to(directory).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in files
    }


def _words(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _typed(numbers: np.ndarray, like: jax.Array) -> jax.Array:
    array = jnp.asarray(numbers)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)) if is_key(like) else array
