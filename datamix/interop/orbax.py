"""The state of a mix in an Orbax checkpoint, next to that of the model: one file per process."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp

from datamix.errors import StateError
from datamix.pipeline.iterator import BatchIterator
from datamix.pipeline.sharding import GlobalIterator
from datamix.pipeline.state import State

Iterator = BatchIterator | GlobalIterator


def _save(directory: Any, state: State) -> None:
    name = f"mix-{jax.process_index()}-of-{jax.process_count()}.json"
    Path(directory).joinpath(name).write_text(json.dumps(state), encoding="utf-8")


def _load(directory: Any, iterator: Iterator, changed: Literal["mix"] | None) -> None:
    """Restore an iterator from the file of any process: each has the state of the whole mix.

    Raises:
      StateError: There is no state, it is damaged, or it belongs to another mix.
    """
    files = sorted(Path(directory).glob("mix-*.json"))
    if not files:
        raise StateError(f"{directory} holds no state of a mix, a file mix-*.json; save one with MixSave.")
    try:
        state = json.loads(files[0].read_bytes())
    except ValueError as error:
        raise StateError(f"{files[0]} is damaged: {error}.") from error
    iterator.restore(state, changed)


class MixHandler(ocp.AsyncCheckpointHandler):  # type: ignore[misc]
    """The handler of `MixSave` and `MixRestore`, for `Checkpointer`, `AsyncCheckpointer` and `CheckpointManager`."""

    async def async_save(self, directory: Any, args: MixSave) -> list[Any]:
        """Write the iterator's state, as it is now, once Orbax has made the directory."""
        state = args.item.state()

        async def write() -> None:
            _save(directory, state)

        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name="mix")]

    def save(self, directory: Any, args: MixSave) -> None:
        """Write the iterator's state."""
        _save(directory, args.item.state())

    def restore(self, directory: Any, args: MixRestore) -> Iterator:
        """Restore the iterator to where the state was taken, and return it.

        Raises:
          StateError: There is no state, it is damaged, or it belongs to another mix.
        """
        _load(directory, args.item, args.changed)
        return args.item


@ocp.args.register_with_handler(MixHandler, for_save=True)
@dataclass
class MixSave(ocp.args.CheckpointArgs):  # type: ignore[misc]
    """The arguments to save a mix: `ocp.args.Composite(model=…, mix=MixSave(iterator))`.

    Attributes:
      item: The iterator of a mix.
    """

    item: Iterator


@ocp.args.register_with_handler(MixHandler, for_restore=True)
@dataclass
class MixRestore(ocp.args.CheckpointArgs):  # type: ignore[misc]
    """The arguments to restore a mix: `ocp.args.Composite(model=…, mix=MixRestore(iterator))`.

    Attributes:
      item: An iterator of the same mix.
      changed: "mix" accepts the state of another mix; see `BatchIterator.restore`.
    """

    item: Iterator
    changed: Literal["mix"] | None = None


@dataclass
class Checkpointable:
    """An iterator for version 1 of Orbax: `save_checkpointables(path, {"mix": Checkpointable(iterator)})`.

    Attributes:
      iterator: The iterator of a mix.
      changed: See `MixRestore`.
    """

    iterator: Iterator
    changed: Literal["mix"] | None = None

    async def save(self, directory: Any) -> Awaitable[None]:
        """Write the iterator's state as it is now."""
        state = self.iterator.state()

        async def write() -> None:
            _save(await directory.await_creation(), state)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Restore the iterator to where the state was taken."""

        async def read() -> None:
            _load(directory, self.iterator, self.changed)

        return read()
