"""Sweeps to report on, as jobs leave them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave

from datamix.sweeps.gathering import gather
from datamix.sweeps.results import read_results
from datamix.sweeps.watching import ResultFile


def reach(share: float, seed: int) -> dict[str, float]:
    """Metrics of a training that learns both sources, the second one more slowly; best at a share of 0.3."""
    mnist = 1 - 0.3 * math.exp(-6 * share) + 0.01 * seed
    fashion = 0.9 - 0.4 * math.exp(-3 * (1 - share)) + 0.01 * seed
    return {
        "accuracy/mnist": mnist,
        "accuracy/fashion": fashion,
        "accuracy/mean": (mnist + fashion) / 2,
        "accuracy/worst": min(mnist, fashion),
        "loss/mean": 2 - mnist - fashion,
    }


@pytest.fixture
def leave(leave_in, tmp_path) -> Callable[..., Path]:
    """Leaves the results of a sweep of mix.share.mnist over two seeds; the jobs in `failing` have failed."""
    return leave_in(tmp_path)


@pytest.fixture(scope="session")
def leave_in() -> Callable[[Path], Callable[..., Path]]:
    """What `leave` does, in any folder."""
    return _leave_in


def _leave_in(tmp_path: Path) -> Callable[..., Path]:

    def left(name="sweep", shares=(0.1, 0.3, 0.9), failing=(), provenance="tfds", better=0.0, **more):
        for job, (share, seed) in enumerate((share, seed) for share in shares for seed in (0, 1)):
            directory = tmp_path / name / str(job)
            directory.mkdir(parents=True)
            overrides = ["job=train", f"mix.share.mnist={share}", f"seed={seed}"]
            overrides += [f"{key}={value}" for key, value in more.items()]
            config = {"seed": seed, "mix": {"share": {"mnist": share}}, **more}
            result_file = ResultFile(directory, job=job, overrides=overrides, config=config)
            if job in failing:
                result_file.end_badly(MemoryError("no room for <b>these</b>\nrecords"))
                continue
            metrics = {name: value + better for name, value in reach(share, seed).items()}
            sources = {
                "mnist": {"share": share, "target": share, "provenance": provenance},
                "fashion": {"share": 1 - share, "target": 1 - share, "provenance": "tfds"},
            }
            result_file.end_well({"metrics": metrics, "sources": sources, "figure": None})
        return tmp_path / name

    return left


def _gathered(directory: Path, metric: str = "accuracy/worst") -> tuple[Path, str]:
    """Report on a sweep; returns its directory and what was printed."""
    with redirect_stdout(io.StringIO()) as out:
        gather({directory: read_results(directory)}, directory, metric=metric, goal="auto")
    return directory, out.getvalue()


@pytest.fixture
def gathered() -> Callable[..., tuple[Path, str]]:
    """Reports on a sweep; returns its directory and what was printed."""
    return _gathered


@pytest.fixture(scope="session")
def reported(leave_in, tmp_path_factory) -> tuple[Path, str]:
    """A report on a sweep whose job 2 has failed; job 3 has left a figure."""
    directory = leave_in(tmp_path_factory.mktemp("reported"))(failing=(2,))
    imsave(directory / "3" / "curves.png", np.zeros((4, 6, 3)))
    return _gathered(directory)
