"""The metrics of a model and its mix while it is trained: lines of `metrics.jsonl`, and TensorBoard's files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datamix.report.files import write_text
from datamix.training.events import EventFile

NAME = "metrics.jsonl"
_PARTS = 20  # between two tests, of the loss in training

Line = dict[str, float]
"""Step, loss on the batches since the last line, and metrics by name."""


class MetricsFile:
    """The lines of one job, in its run directory.

    Attributes:
      lines: Those of tests, without what they say of the sources in training.
      losses: The loss in training, by a step, in parts of the steps between two lines.
      loss: The loss in the last line; None before there is one.
      untrained: The test before the first step, for the curves; None where it was not made.
    """

    untrained: Line | None = None

    def __init__(
        self, directory: Path, lines: Sequence[Line] = (), step: int = 0, losses: Sequence[tuple[int, float]] = ()
    ) -> None:
        """Begin a file, or go on after a step with the tests and losses before it, and the other lines of its file."""
        self._path = directory / NAME
        self.lines: list[Line] = list(lines)
        self.losses: list[tuple[int, float]] = list(losses)
        self.loss: float | None = None
        before = {line["step"]: line for line in _whole_lines(self._path) if line["step"] <= step}
        if not before.keys() >= {line["step"] for line in lines}:  # steps may count other batches now
            before = {}
        before |= {line["step"]: before.get(line["step"], {}) | line for line in lines}
        write_text(self._path, "".join(_encoded(before[step]) for step in sorted(before)))
        self._events = EventFile(directory, step)

    def trained(self, steps: np.ndarray, losses: np.ndarray) -> None:
        """Keep the loss of each step in training as means of a few steps each, for the curves."""
        for part in np.array_split(np.arange(len(losses)), min(len(losses), _PARTS)):
            self.losses.append((int(steps[part[len(part) // 2]]) + 1, float(losses[part].mean())))

    def add(
        self,
        step: int,
        loss: float,
        metrics: Mapping[str, float] | None = None,
        sources: Mapping[str, Mapping[str, float | None]] | None = None,
    ) -> None:
        """Keep the loss since the last line, the metrics of a test, and what is known of each source in training.

        Once this returns, they are on the disk, as one whole line of strict JSON: it is written in one call.
        """
        self.loss, line = loss, {"step": step, "loss": loss, **(metrics or {})}
        if metrics is not None:
            self.lines.append(line)
        with self._path.open("ab", buffering=0) as file:
            file.write(_encoded({**line, **({"sources": sources} if sources else {})}).encode())
            os.fsync(file.fileno())
        scalars = {"loss/train" if name == "loss" else name: value for name, value in line.items() if name != "step"}
        for source, row in (sources or {}).items():
            scalars |= {f"train/{key}/{source}": value for key, value in row.items() if value is not None}
        self._events.add(scalars, step)


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file but those of which only a part was written."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def _encoded(line: Mapping[str, Any]) -> str:
    def strict(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: strict(inner) for key, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(strict(line), allow_nan=False) + "\n"
