"""The metrics of each test while a model is trained: a line in `metrics.jsonl`, and TensorBoard's files."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamix.report.files import write_text

NAME = "metrics.jsonl"
_PARTS = 20  # between two tests, of the loss in training

Line = dict[str, float]
"""Step, loss on the batches since the last line, and metrics by name."""


class MetricsFile:
    """The test results of one job, in its run directory."""

    def __init__(self, directory: Path, lines: Sequence[Line] = ()) -> None:
        self._path = directory / NAME
        self.lines: list[Line] = list(lines)
        self.losses: list[tuple[int, float]] = [(int(line["step"]), line["loss"]) for line in lines]
        write_text(self._path, "".join(map(_encoded, self.lines)))
        self._board = _board(directory, int(lines[-1]["step"]) if lines else 0)

    def trained(self, before: int, losses: np.ndarray) -> None:
        """Keep the loss in training since the step `before`, [steps], as means of a few steps each, for the curves."""
        for part in np.array_split(np.arange(len(losses)), min(len(losses), _PARTS)):
            self.losses.append((before + 1 + int(part[len(part) // 2]), float(losses[part].mean())))

    def add(self, step: int, loss: float, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of a test; once this returns, they are on the disk."""
        line = {"step": step, "loss": loss, **metrics}
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_encoded(line))
            file.flush()
            os.fsync(file.fileno())
        if self._board is not None:
            for name, value in line.items():
                if name != "step":
                    self._board.add_scalar("loss/train" if name == "loss" else name, value, step)

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _encoded(line: Line) -> str:
    return json.dumps(line) + "\n"


def _board(directory: Path, step: int) -> Any:
    """TensorBoard's writer, where the extra is installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(directory), purge_step=step or None)
