"""The metrics of a model and its mix during training: lines of `metrics.jsonl`, and TensorBoard's event files."""

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
_PARTS = 20  # points of the loss curve between two lines

Line = dict[str, float]
"""The step, the mean loss of the steps since the last line, and metrics by name."""


class MetricsFile:
    """The metrics file of one job, in its run directory.

    Attributes:
      lines: The lines of tests, without the values of the sources in training.
      losses: The points of the loss curve: a step, and the mean training loss of a few steps around it.
      loss: The loss in the last line; None before there is one.
      untrained: The metrics before the first step, for the curves; None if there was no such test.
    """

    untrained: Line | None = None

    def __init__(
        self, directory: Path, lines: Sequence[Line] = (), step: int = 0, losses: Sequence[tuple[int, float]] = ()
    ) -> None:
        """Start a file, or continue it.

        Args:
          directory: The run directory.
          lines: The lines of tests up to `step`.
          step: The step to continue from; other lines of an existing file are kept up to it. 0 to start.
          losses: The points of the loss curve up to `step`.
        """
        self._path = directory / NAME
        self.lines: list[Line] = list(lines)
        self.losses: list[tuple[int, float]] = list(losses)
        self.loss: float | None = None
        before = {line["step"]: line for line in _whole_lines(self._path) if line["step"] <= step}
        if not before.keys() >= {line["step"] for line in lines}:  # the batch size, and with it the steps, has changed
            before = {}
        before |= {line["step"]: before.get(line["step"], {}) | line for line in lines}
        write_text(self._path, "".join(_encoded(before[step]) for step in sorted(before)))
        self._events = EventFile(directory, step)

    def trained(self, steps: np.ndarray, losses: np.ndarray) -> None:
        """Add the training loss of some steps to the loss curve, averaged over a few steps per point.

        Args:
          steps: The numbers of the steps, [num_steps].
          losses: The loss of each step, [num_steps].
        """
        for part in np.array_split(np.arange(len(losses)), min(len(losses), _PARTS)):
            self.losses.append((int(steps[part[len(part) // 2]]) + 1, float(losses[part].mean())))

    def add(
        self,
        step: int,
        loss: float,
        metrics: Mapping[str, float] | None = None,
        sources: Mapping[str, Mapping[str, float | None]] | None = None,
    ) -> None:
        """Add a line, which is strict JSON and on the disk when this returns.

        It is written in one call, as a whole.

        Args:
          step: The number of steps done.
          loss: The mean loss of the steps since the last line.
          metrics: The metrics of a test; None for a line without one.
          sources: The values of each source in training, by name; None where a source has no such value.
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
    """The lines of a file, without incomplete ones."""
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
