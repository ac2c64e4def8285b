"""Batches as a PyTorch dataset, for `DataLoader` and torchdata's `StatefulDataLoader`."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from datamix.errors import ConfigError, not_installed
from datamix.pipeline import xla
from datamix.pipeline.iterator import BatchIterator
from datamix.pipeline.pipeline import Pipeline, require_loadable
from datamix.pipeline.state import State, check, check_step, of_other_worker

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise not_installed("datamix.interop.torch", "PyTorch", "torch") from error

Tensors = dict[str, torch.Tensor]


def dataset(
    pipeline: Pipeline,
    *,
    shard: tuple[int, int] | None = None,
    channels_first: bool = False,
    label_dtype: torch.dtype | None = None,
    copy: bool = False,
) -> TorchDataset:
    """The batches of a pipeline for a loader, `DataLoader(dataset(pipeline), batch_size=None)`.

    Each rank gets its rows of every batch. The workers of a loader take batches in turn, so the loader's k-th item is
    the k-th batch, whatever the number of workers. In a worker, batches are computed on the CPU.

    Args:
      pipeline: The pipeline.
      shard: (rank, num_shards); by default those of `torch.distributed` if it is initialised, otherwise (0, 1).
      channels_first: Whether images [height, width, channels] become [channels, height, width], as views without a
        copy.
      label_dtype: The dtype to convert the leaf `label` to, such as `torch.int64`; None to keep it.
      copy: Whether tensors have their own memory, which may be written to; otherwise they share that of a chunk of
        batches.

    Raises:
      ConfigError: There is no such rank, or there are more ranks than rows in a batch.

    >>> import datamix, numpy as np
    >>> pipeline = datamix.mix({"a": {"image": np.zeros((8, 4, 4, 3), np.uint8), "label": np.arange(8)}}, batch_size=4)
    >>> batches = list(dataset(pipeline, channels_first=True, label_dtype=torch.int64))
    >>> len(batches), batches[0]["image"].shape, batches[0]["label"].dtype
    (2, torch.Size([4, 3, 4, 4]), torch.int64)
    """
    require_loadable(pipeline)
    if shard is not None:
        pipeline.batching.check_shard(shard)
    return TorchDataset(pipeline, shard, channels_first, label_dtype, copy)


class TorchDataset(IterableDataset[Tensors]):
    """See `dataset`. Each `iter()` begins with the first batch, or at a state loaded since the last `iter()`."""

    def __init__(
        self,
        pipeline: Pipeline,
        shard: tuple[int, int] | None,
        channels_first: bool,
        label_dtype: torch.dtype | None,
        copy: bool,
    ) -> None:
        spec = pipeline.spec
        if label_dtype is not None and "label" not in spec:
            raise ConfigError("the records have no leaf 'label'", key="label_dtype", value=label_dtype)
        is_image = {leaf: len(part.shape) == 3 and not part.has_channels_first for leaf, part in spec.items()}
        self._images = [leaf for leaf in spec if channels_first and is_image[leaf]]
        self._pipeline, self._shard, self._label_dtype, self._copy = pipeline, shard, label_dtype, copy
        self._loaded: State | None = None
        self._iterator: BatchIterator | None = None

    def __getstate__(self) -> dict[str, object]:
        """The attributes for a spawned worker; with the shard, as `torch.distributed` is not initialised there."""
        return vars(self) | {"_shard": self.shard, "_iterator": None}

    @property
    def shard(self) -> tuple[int, int]:
        """The rank, and the number of ranks."""
        if self._shard is not None:
            return self._shard
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        """The number of batches in the whole mix that are not left out.

        Raises:
          TypeError: The mix never ends.
        """
        return self._pipeline.batching.num_kept or len(self._pipeline)

    def __iter__(self) -> Iterator[Tensors]:
        worker, num_workers = _worker()
        if get_worker_info() is not None and not xla.has_started():
            jax.config.update("jax_platforms", "cpu")  # the accelerator belongs to the trainer
        loaded, self._loaded = self._loaded, None
        iterator = self._pipeline.iterator(0, self.shard, "torch", stride=num_workers)
        own_step, since = False, 0
        if loaded is not None:
            own_step, since = _is_own(loaded, worker, num_workers), loaded.get("since", 0)
            iterator.restore(loaded)
            if own_step or since:
                check_step(loaded, iterator.step)
        if not own_step:
            iterator.seek(self._pipeline.batching.after(iterator.step, since + worker))
        self._iterator = iterator
        return map(self._finished, iterator)

    def _finished(self, batch: Tensors) -> Tensors:
        """Apply `copy`, `channels_first` and `label_dtype` to a batch."""
        if self._copy:
            batch = {leaf: tensor.clone() for leaf, tensor in batch.items()}
        for leaf in self._images:
            batch[leaf] = batch[leaf].permute(0, 3, 1, 2)
        if self._label_dtype is not None:
            batch["label"] = batch["label"].to(self._label_dtype)
        return batch

    def state_dict(self) -> State:
        """The state of the last iterator in this process; each worker of a loader has its own."""
        if self._iterator is None:
            batching = self._pipeline.batching
            return self._loaded or self._pipeline.state(batching.after(0, _worker()[0])) | _worker_mark()
        return self._iterator.state() | _worker_mark()

    def load_state_dict(self, state: State) -> None:
        """Let the next `iter()` continue where a state was taken, with any number of workers.

        Args:
          state: The state of a dataset, of any iterator of the pipeline, or of a `StatefulDataLoader` with all its
            workers.

        Raises:
          StateError: It is none of these.
        """
        self._loaded, self._iterator = _whole(state), None


def _worker() -> tuple[int, int]:
    """The index of this worker, and the number of workers; (0, 1) if the loader has none."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _worker_mark() -> State:
    """The entry that marks a state as that of one worker; empty outside workers."""
    return {} if get_worker_info() is None else {"worker": _worker()}


def _is_own(state: State, worker: int, num_workers: int) -> bool:
    """Whether a state is that of this worker; if not, it is that of an iterator over all batches.

    Raises:
      StateError: It is that of another worker, or was taken with another number of workers.
    """
    if "worker" not in state:
        return False
    if (before := tuple(state["worker"])) != (worker, num_workers):
        mend = "give the whole state of the loader to the dataset's load_state_dict, which takes it under any number"
        raise of_other_worker(before, (worker, num_workers), f", or {mend}")
    return True


def _whole(state: State) -> State | None:
    """The state of the whole mix; from that of a `StatefulDataLoader`, that of the worker whose turn it is.

    None if the loader had reached its end, and starts again.

    Raises:
      StateError: There is no state.
    """

    def inside(value: object) -> Iterator[State]:
        if isinstance(value, dict):
            parts = [value] if "fingerprint" in value else (part for each in value.values() for part in inside(each))
            yield from parts

    states = list(inside(state)) or [state]
    for each in states:
        check(each)
    if states[0] is state:
        return state
    if state.get("_iterator_finished"):
        return None
    first = min(states, key=lambda each: int(each["step"]))
    # The loader knows how many batches it has yielded since it took its workers' states.
    since = {"since": state.get("_steps_since_snapshot", 0)}
    return {key: value for key, value in first.items() if key != "worker"} | since
