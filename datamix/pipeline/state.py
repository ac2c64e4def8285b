"""States: a position in a mix, and what has determined its sequence up to there, and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from datamix import registry
from datamix.errors import StateError
from datamix.fingerprint import digest, records_key
from datamix.mixing.plan import Plan
from datamix.operators.base import traits
from datamix.pipeline.graph import Graph, Operation
from datamix.spec import Spec

State = dict[str, Any]
"""A position and what has determined the sequence up to it, as JSON values."""

FORMAT = 3  # since 3: a position in records, and what has determined the sequence up to there
# Slots digested at a time, and how many times at most: together as many as the longest table has.
_SLICE_SLOTS, _MOST_SLICES = 2**13, 2**7
_NUM_RECORDS = 64  # of a source: enough to notice another order of its records


class Past:
    """Digests of what has determined the sequence of a mix up to a position: what has begun by then, and no more.

    Args:
      plan: The plan of the mix.
      graph: Its operators.
      specs: The spec of each source's stored records, by name.
      seeds: The seed of each source's random operators.
      contents: Digests the records of a source, by its index.
    """

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        specs: Mapping[str, Spec],
        seeds: Sequence[int],
        contents: Callable[[int], str],
    ) -> None:
        self._plan, self._contents = plan, contents
        self._slices: dict[int, str] = {}
        shared = [node.operation for node in graph.chain("mix") if node.operation]
        self._chains = []
        for i, (name, spec) in enumerate(specs.items()):
            tag = "tag_source", {"source_id": i}  # the number of the source is part of `source`
            chain = [node.operation for node in graph.chain(name) if node.operation]
            # The weight of a record in the loss changes no sequence, and may follow the shares.
            chain = [operation for operation in chain if operation.operator != "tag_loss_weight"]
            chain = [operation for operation in chain if (operation.operator, operation.settings) != tag] + shared
            is_random = any(traits(operation.function).random for operation in chain)
            leaves = {leaf: str(part) for leaf, part in spec.items()}
            self._chains.append([identities(chain), leaves, seeds[i] if is_random else None])
        self._source = lru_cache(2 * len(specs))(self._source_until)

    def parts(self, position: int, counts: Mapping[str, int] | None = None) -> dict[str, str]:
        """Digests of everything that has determined the sequence up to a position, in records.

        Args:
          position: The position in the whole mix.
          counts: How many records of each source another mix had given by then, by name; empty if it drew them.
        """
        plan = self._plan
        end = -(-(position if plan.length is None else min(position, plan.length)) // plan.slot_records)
        stages = [stage for stage in plan.stages if stage.first < end]
        if not stages:
            return {}
        draws_records = plan.stages[0].period.repeats_records  # drawn records are not counted
        if counts is None and not draws_records:
            counts = dict(zip(plan.names, plan.counts(position), strict=True))
        if counts:
            seen = {i: counts[name] for i, name in enumerate(plan.names) if counts.get(name)}
        else:
            seen = {i: _NUM_RECORDS for i in range(len(plan.names)) if any(stage.shares[i] for stage in stages)}
        mix = [plan.slot_records, self._slots(end), plan.replacement_key if draws_records else None]
        if end - stages[0].first > _SLICE_SLOTS * _MOST_SLICES:
            later = plan.slots(max(end - _SLICE_SLOTS, stages[0].first), _SLICE_SLOTS)[0]
            shares = [[stage.first, *(str(stage.shares[i]) for i in seen)] for stage in stages]
            now = plan.counts(position)
            mix += [[now[i] for i in seen], shares, _digest_of("", later)]
        parts = {"mix": digest(mix), "source": digest([[i, plan.names[i]] for i in seen])}
        for i, count in seen.items():
            parts[f"source.{plan.names[i]}"] = self._source(i, min(count, _NUM_RECORDS))
            parts[records_key(plan.names[i])] = self._contents(i)
        return parts

    def _slots(self, end: int) -> str:
        """Digest the sources of the slots before `end`, of the first million at most."""
        begin, base = self._plan.stages[0].first, self._plan.stages[0].base
        whole, rest = divmod(min(end - begin, _SLICE_SLOTS * _MOST_SLICES), _SLICE_SLOTS)
        last = digest([begin, [[i, count] for i, count in enumerate(base) if count]])
        for piece in range(whole):
            if piece not in self._slices:
                self._slices[piece] = _digest_of(last, self._plan.slots(begin + piece * _SLICE_SLOTS, _SLICE_SLOTS)[0])
            last = self._slices[piece]
        return _digest_of(last, self._plan.slots(begin + whole * _SLICE_SLOTS, rest)[0])

    def _source_until(self, source: int, count: int) -> str:
        """Digest the operators of a source, and the order of its first `count` records."""
        epoch, index = np.divmod(np.arange(count), max(self._plan.epoch_records[source], 1))
        records = self._plan.shuffle.record(np.full(count, source), epoch, index)
        return digest([self._chains[source], np.asarray(records).tolist()])


def _digest_of(before: str, slots: np.ndarray) -> str:
    return hashlib.blake2b(before.encode() + slots.astype("<i4").tobytes(), digest_size=8).hexdigest()


def identities(operators: Iterable[Operation]) -> list[object]:
    """Operators with their settings, by registered name, or else by where they are defined."""

    def name(operation: Operation) -> str:
        function = operation.function
        known = operation.operator in registry.names("operator")
        if known and registry.lookup("operator", operation.operator) is function:
            return operation.operator
        return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"

    return [
        [name(operation), {key: _plain(value) for key, value in operation.settings.items()}] for operation in operators
    ]


def _plain(value: object) -> object:
    """A setting as a JSON value; arrays become lists, as the text of a long array would leave most of it out."""
    return np.asarray(value).tolist() if hasattr(value, "__array__") else value


def check(state: Any) -> None:
    """Refuse what is not a state, and a state of another version.

    Raises:
      StateError: It is refused; the message says why.
    """
    try:
        version = _count(state["version"])
        if version == FORMAT:
            if not isinstance(state["history"], list):
                raise ValueError
            counts = [state["step"], state["position"], *_by_name(state["counts"])]
            # Entries of a torch dataset and of Grain: the worker and the number of workers, and the batches since.
            worker, num_workers = state.get("worker", (0, 1))
            counts += [worker, num_workers, state.get("since", 0)]
            _by_name(state["fingerprint"]), _by_name(state["settings"])
            for entry in state["history"]:
                counts += [entry["position"], *_by_name(entry["counts"])]
                _by_name(entry["changes"])
            for count in counts:
                _count(count)
    except (LookupError, TypeError, ValueError):
        text = f"it needs version {FORMAT}, a position and a fingerprint"
        raise StateError(f"this is no state of datamix; {text}.") from None
    if version != FORMAT:
        raise StateError(
            f"this state has version {version}, of {'an older' if version < FORMAT else 'a newer'} datamix; this one "
            f"restores version {FORMAT}. Restore it with the datamix that took it, or start afresh."
        )


def check_step(state: State, step: int) -> None:
    """Refuse the state of a worker that continues at another step than that of the state.

    Raises:
      StateError: It does.
    """
    if step != state["step"]:
        text = "each worker's state holds a step, and with this batch.size or skip it is another"
        raise StateError(f"{text}; restore it under the same.")


def of_other_worker(before: Sequence[int], worker: Sequence[int], mend: str = "") -> StateError:
    """The error for a state of another worker, or of another number of workers.

    Args:
      before: The index of the worker in which the state was taken, and the number of workers.
      worker: Those where it is restored.
      mend: Another way to mend it than that number of workers.
    """
    text = f"this state was taken in worker {before[0]} of {before[1]}, and this is worker {worker[0]} of {worker[1]}"
    return StateError(f"{text}; restore it with num_workers={before[1]}{mend}.")


def _count(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**62:
        raise ValueError
    return number


def _by_name(values: Any) -> Iterable[Any]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise ValueError
    return values.values()
